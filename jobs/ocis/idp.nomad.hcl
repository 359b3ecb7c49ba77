# OpenID Connect provider. Its signing keys are made at the first start and
# stay in its volume; only one instance may sign.

locals {
  service = "idp"
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
      template {
        destination = "secrets/ocis.env"
        data        = local.secret_env
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
