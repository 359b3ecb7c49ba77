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
      env {
        WEB_HTTP_ADDR  = "$${NOMAD_ADDR_http}"
        WEB_DEBUG_ADDR = "$${NOMAD_ADDR_debug}"
        WEB_ASSET_PATH = var.placeholder_assets ? "$${NOMAD_TASK_DIR}/assets" : ""
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
