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
        LDAP_URI         = "ldaps://${var.mesh_address}:9235"
        LDAP_CACERT      = "$${NOMAD_SECRETS_DIR}/ldap-ca.crt"
      }

      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = <<EOT
{{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) }}
OCIS_JWT_SECRET={{ .jwt_secret }}
USERS_LDAP_BIND_PASSWORD={{ .reva_password }}
{{ end }}
EOT
      }

      template {
        destination = "secrets/ldap-ca.crt"
        perms       = "0600"
        uid         = var.uid
        gid         = var.uid
        data        = <<EOT
{{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) }}{{ .ldap_ca }}{{ end }}
EOT
      }
    }
  }
}
