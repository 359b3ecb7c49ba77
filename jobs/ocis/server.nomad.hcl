# The layout compact: all services of the line in one process. They listen on the
# addresses that the mesh has in the other layout; only the proxy has a port of Nomad's,
# for the edge. One instance: the old one stops before the new one starts.

locals {
  service = "server"
  alone   = true
  dirs    = {}
  kept    = { for name, dir in local.dirs : name => { volume = "ocis-${name}", path = dir } }
  routes  = ""
  cpu     = 500
  memory  = var.server_memory

  kill_signal  = "SIGINT"
  kill_timeout = "35s"
}

job "ocis-server" {
  group "server" {
    service {
      name = "ocis-proxy"

      # Answered by web, behind the proxy.
      check {
        type            = "http"
        protocol        = "https"
        tls_skip_verify = true
        path            = "/config.json"
        interval        = "2s"
        timeout         = "2s"
      }
    }

    task "server" {
      config {
        args = ["server"]
      }

      dynamic "template" {
        for_each = var.placeholder_assets ? {
          "local/assets/index.html"            = "<!doctype html><title>ownCloud</title><p>This build of oCIS has no web client; WebDAV is at <code>/remote.php/webdav/</code>.</p>"
          "local/assets/identifier/index.html" = "<!doctype html><title>ownCloud</title><p>This build of oCIS has no login page.</p>"
        } : {}
        content {
          destination = template.key
          data        = template.value
        }
      }
    }
  }
}
