# Impersonation by services that hold the machine key.

locals {
  service = "auth-machine"
}

job "ocis-auth-machine" {
  group "auth-machine" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-auth-machine"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "auth-machine" {
      kill_signal = "SIGQUIT" # drains, then deregisters; SIGINT would drop what is running

      env {
        AUTH_MACHINE_GRPC_ADDR  = "$${NOMAD_ADDR_grpc}"
        AUTH_MACHINE_DEBUG_ADDR = "$${NOMAD_ADDR_debug}"
      }

      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = <<EOT
{{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) }}
OCIS_JWT_SECRET={{ .jwt_secret }}
OCIS_MACHINE_AUTH_API_KEY={{ .machine_auth_api_key }}
{{ end }}
EOT
      }
    }
  }
}
