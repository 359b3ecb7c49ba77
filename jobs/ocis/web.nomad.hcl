# The web client.

locals {
  service = "web"
}

job "ocis-web" {
  group "web" {
    network {
      port "http" {}
      port "debug" {}
    }

    service {
      name     = "ocis-web"
      port     = "http"
      provider = "consul"
      check {
        type     = "http"
        path     = "/config.json"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "web" {
      # oCIS 2.0 needs no secret here.
      dynamic "template" {
        for_each = local.secret_env == "" || var.line == "2.0" ? [] : [local.secret_env]
        content {
          destination = "secrets/ocis.env"
          env         = true
          perms       = "0600"
          data        = template.value
        }
      }

      # Without an index.html the server calls itself until its memory is used up.
      dynamic "template" {
        for_each = var.placeholder_assets ? ["local/assets/index.html"] : []
        content {
          destination = template.value
          data        = "<!doctype html><title>ownCloud</title><p>This build of oCIS has no web client; WebDAV is at <code>/remote.php/webdav/</code>.</p>"
        }
      }
    }
  }
}
