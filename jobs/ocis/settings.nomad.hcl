# Settings, roles and permissions, kept in storage-system.

locals {
  service = "settings"
}

job "ocis-settings" {
  group "settings" {
    network {
      port "grpc" {}
      port "http" {}
      port "debug" {}
    }

    service {
      name     = "ocis-settings"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    service {
      name     = "ocis-settings-http"
      port     = "http"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "settings" {
      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = local.secret_env
      }
    }
  }
}
