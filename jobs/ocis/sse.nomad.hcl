# Server-sent events to clients.

locals {
  service = "sse"
}

job "ocis-sse" {
  group "sse" {
    network {
      port "http" {}
      port "debug" {}
    }

    service {
      name     = "ocis-sse"
      port     = "http"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "sse" {
      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = local.secret_env
      }
    }
  }
}
