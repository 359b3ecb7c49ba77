# Groups, read from the LDAP directory.

locals {
  service = "groups"
}

job "ocis-groups" {
  group "groups" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-groups"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "groups" {
      kill_signal = "SIGQUIT" # drains, then deregisters; SIGINT would drop what is running

      env {
        GROUPS_GRPC_ADDR  = "$${NOMAD_ADDR_grpc}"
        GROUPS_DEBUG_ADDR = "$${NOMAD_ADDR_debug}"
      }

      template {
        destination = "secrets/ocis.env"
        data        = <<EOT
{{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) }}
OCIS_JWT_SECRET={{ .jwt_secret }}
GROUPS_LDAP_BIND_PASSWORD={{ .reva_password }}
{{ end }}
EOT
      }
    }
  }
}
