# OpenID Connect provider. Its signing keys are made at the first start and
# stay in its volume; only one instance may sign.

locals {
  service  = "idp"
  stateful = true
  alone    = true
}

job "ocis-idp" {
  group "idp" {
    network {
      port "http" {}
      port "debug" {}
    }

    service {
      name     = "ocis-idp"
      port     = "http"
      provider = "consul"
      check {
        type     = "http"
        path     = "/.well-known/openid-configuration"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "idp" {
      env {
        IDP_HTTP_ADDR                 = "$${NOMAD_ADDR_http}"
        IDP_DEBUG_ADDR                = "$${NOMAD_ADDR_debug}"
        IDP_SIGNING_PRIVATE_KEY_FILES = "${local.data}/private-key.pem"
        IDP_ENCRYPTION_SECRET_FILE    = "${local.data}/encryption.key"
        IDP_ASSET_PATH                = var.placeholder_assets ? "$${NOMAD_TASK_DIR}/assets" : ""
      }

      template {
        destination = "secrets/ocis.env"
        data        = <<EOT
{{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) }}
OCIS_MACHINE_AUTH_API_KEY={{ .machine_auth_api_key }}
IDP_LDAP_BIND_PASSWORD={{ .idp_password }}
{{ end }}
EOT
      }

      dynamic "template" {
        for_each = var.placeholder_assets ? ["local/assets/identifier/index.html"] : []
        content {
          destination = template.value
          data        = "<!doctype html><title>ownCloud</title><p>This build of oCIS has no login page.</p>"
        }
      }
    }
  }
}
