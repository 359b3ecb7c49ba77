# User name and password, checked against the LDAP directory.

locals {
  service = "auth-basic"
}

job "ocis-auth-basic" {
  group "auth-basic" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-auth-basic"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "auth-basic" {
      kill_signal = "SIGQUIT" # drains, then deregisters; SIGINT would drop what is running

      env {
        AUTH_BASIC_GRPC_ADDR  = "$${NOMAD_ADDR_grpc}"
        AUTH_BASIC_DEBUG_ADDR = "$${NOMAD_ADDR_debug}"
      }

      template {
        destination = "secrets/ocis.env"
        data        = <<EOT
{{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) }}
OCIS_JWT_SECRET={{ .jwt_secret }}
AUTH_BASIC_LDAP_BIND_PASSWORD={{ .reva_password }}
{{ end }}
EOT
      }
    }
  }
}
