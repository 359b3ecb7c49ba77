# The entrance: every request comes in here, is authenticated and routed.

locals {
  service = "proxy"

  # The catalog has them.
  routes = ""
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
        data        = local.routes
      }
    }
  }
}
