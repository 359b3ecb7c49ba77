# The entrance: every request comes in here, is authenticated and routed.

locals {
  service = "proxy"

  # Of the newer lines; the catalog has them.
  routes = ""

  # oCIS's default routes, to the fixed addresses of the mesh instead of registry
  # names: the proxy caches those, and a replaced service would answer 502 for
  # up to a minute.
  routes_2_0 = <<EOT
policies:
  - name: ocis
    routes:
      - endpoint: /
        backend: http://${var.mesh_address}:9100
        unprotected: true
      - endpoint: /.well-known/
        backend: http://${var.mesh_address}:9130
        unprotected: true
      - endpoint: /konnect/
        backend: http://${var.mesh_address}:9130
        unprotected: true
      - endpoint: /signin/
        backend: http://${var.mesh_address}:9130
        unprotected: true
      - endpoint: /archiver
        backend: http://${var.mesh_address}:9140
      - endpoint: /ocs/v[12].php/cloud/user/signing-key
        type: regex
        backend: http://${var.mesh_address}:9110
      - endpoint: /ocs/v[12].php/config
        type: regex
        backend: http://${var.mesh_address}:9140
        unprotected: true
      - endpoint: /ocs/
        backend: http://${var.mesh_address}:9140
      - endpoint: /remote.php/?preview=1
        type: query
        backend: http://${var.mesh_address}:9115
      - endpoint: /remote.php/dav/
        method: REPORT
        backend: http://${var.mesh_address}:9115
      - endpoint: /remote.php/webdav
        method: REPORT
        backend: http://${var.mesh_address}:9115
      - endpoint: /dav/spaces
        method: REPORT
        backend: http://${var.mesh_address}:9115
      - endpoint: /dav/?preview=1
        type: query
        backend: http://${var.mesh_address}:9115
      - endpoint: /webdav/?preview=1
        type: query
        backend: http://${var.mesh_address}:9115
      - endpoint: /remote.php/
        backend: http://${var.mesh_address}:9162
      - endpoint: /dav/
        backend: http://${var.mesh_address}:9162
      - endpoint: /webdav/
        backend: http://${var.mesh_address}:9162
      - endpoint: /status
        backend: http://${var.mesh_address}:9162
        unprotected: true
      - endpoint: /status.php
        backend: http://${var.mesh_address}:9162
        unprotected: true
      - endpoint: /index.php/
        backend: http://${var.mesh_address}:9162
      - endpoint: /apps/
        backend: http://${var.mesh_address}:9162
      - endpoint: /data
        backend: http://${var.mesh_address}:9140
        unprotected: true
      - endpoint: /app/list
        backend: http://${var.mesh_address}:9140
        unprotected: true
      - endpoint: /app/
        backend: http://${var.mesh_address}:9140
      - endpoint: /graph/
        backend: http://${var.mesh_address}:9120
      - endpoint: /api/v0/settings
        backend: http://${var.mesh_address}:9190
      - endpoint: /settings.js
        backend: http://${var.mesh_address}:9190
        unprotected: true
EOT
}

job "ocis-proxy" {
  group "proxy" {
    network {
      port "http" {}
      port "debug" {}
    }

    service {
      name     = "ocis-proxy"
      port     = "http"
      provider = "consul"

      # The edge sends the domain here (jobs/edge).
      tags = ["drover.route=${split(":", lower(var.domain))[0]}/", "drover.protocol=https", "drover.ca=none"]

      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "proxy" {
      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = local.secret_env
      }

      template {
        destination = "local/config/proxy.yaml"
        data        = var.line == "2.0" ? local.routes_2_0 : local.routes
      }
    }
  }
}
