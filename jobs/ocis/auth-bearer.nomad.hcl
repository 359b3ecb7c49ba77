# OpenID Connect tokens, checked against the idp.

locals {
  service = "auth-bearer"
}

job "ocis-auth-bearer" {
  group "auth-bearer" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-auth-bearer"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "auth-bearer" {
      kill_signal = "SIGQUIT" # drains, then deregisters; SIGINT would drop what is running

      env {
        AUTH_BEARER_GRPC_ADDR  = "$${NOMAD_ADDR_grpc}"
        AUTH_BEARER_DEBUG_ADDR = "$${NOMAD_ADDR_debug}"
      }

      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = <<EOT
{{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) }}
OCIS_JWT_SECRET={{ .jwt_secret }}
{{ end }}
EOT
      }
    }
  }
}
