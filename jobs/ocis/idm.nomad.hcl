# LDAP directory of the users, in a BoltDB file that one process may open. A
# login costs 64 MiB (argon2), so memory is generous and the mesh limits how
# many run at once. Its certificate is of the CA that the stack keeps.

locals {
  service  = "idm"
  stateful = true
  alone    = true
}

job "ocis-idm" {
  group "idm" {
    network {
      port "ldaps" {}
    }

    service {
      name     = "ocis-idm"
      port     = "ldaps"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "idm" {
      env {
        IDM_LDAPS_ADDR        = "$${NOMAD_ADDR_ldaps}"
        IDM_DATABASE_PATH     = "${local.data}/ocis.boltdb"
        IDM_LDAPS_CERT        = "$${NOMAD_SECRETS_DIR}/ldap.crt"
        IDM_LDAPS_KEY         = "$${NOMAD_SECRETS_DIR}/ldap.key"
        IDM_CREATE_DEMO_USERS = var.demo_users
      }

      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = <<EOT
{{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) }}
OCIS_ADMIN_USER_ID={{ .admin_user_id }}
IDM_ADMIN_PASSWORD={{ .admin_password }}
IDM_SVC_PASSWORD={{ .idm_password }}
IDM_REVASVC_PASSWORD={{ .reva_password }}
IDM_IDPSVC_PASSWORD={{ .idp_password }}
{{ end }}
EOT
      }

      template {
        destination = "secrets/ldap.crt"
        perms       = "0600"
        uid         = var.uid
        gid         = var.uid
        data        = <<EOT
{{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) }}{{ .ldap_cert }}{{ end }}
EOT
      }

      template {
        destination = "secrets/ldap.key"
        perms       = "0600"
        uid         = var.uid
        gid         = var.uid
        data        = <<EOT
{{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) }}{{ .ldap_key }}{{ end }}
EOT
      }

      resources {
        cpu    = 100
        memory = 1536
      }
    }
  }
}
