# The entrance: every request comes in here, is authenticated and routed. Its port, its
# name in Consul and its routes are in the base, since the layout compact has them too.

locals {
  service = "proxy"

  # The catalog has them.
  routes = ""
}

job "ocis-proxy" {
  group "proxy" {
    service {
      name = "ocis-proxy"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "proxy" {}
  }
}
