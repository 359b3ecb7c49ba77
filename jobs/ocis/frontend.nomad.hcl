# OCS API, up- and downloads, archiver.

locals {
  service = "frontend"
}

job "ocis-frontend" {
  group "frontend" {
    network {
      port "http" {}
      port "debug" {}
    }

    service {
      name     = "ocis-frontend"
      port     = "http"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "frontend" {
      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = local.secret_env
      }
    }
  }
}
