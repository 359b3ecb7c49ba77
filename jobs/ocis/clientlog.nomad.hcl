# Tells clients what changed. No signal ends it.

locals {
  service = "clientlog"
}

job "ocis-clientlog" {
  group "clientlog" {
    network {
      port "debug" {}
    }

    service {
      name     = "ocis-clientlog"
      port     = "debug"
      provider = "consul"
      check {
        type     = "http"
        path     = "/healthz"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "clientlog" {
      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = local.secret_env
      }
    }
  }
}
