# Users, read from the LDAP directory.

locals {
  service = "users"
}

job "ocis-users" {
  group "users" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-users"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "users" {
      kill_signal = "SIGQUIT" # drains, then deregisters; SIGINT would drop what is running

      env {
        USERS_GRPC_ADDR  = "$${NOMAD_ADDR_grpc}"
        USERS_DEBUG_ADDR = "$${NOMAD_ADDR_debug}"
      }

      template {
        destination = "secrets/ocis.env"
        data        = <<EOT
{{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) }}
OCIS_JWT_SECRET={{ .jwt_secret }}
USERS_LDAP_BIND_PASSWORD={{ .reva_password }}
{{ end }}
EOT
      }
    }
  }
}
