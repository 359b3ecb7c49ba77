# Storage of metadata: settings and shares live here.

locals {
  service = "storage-system"
}

job "ocis-storage-system" {
  group "storage-system" {
    network {
      port "grpc" {}
      port "http" {}
      port "debug" {}
    }

    service {
      name     = "ocis-storage-system"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    service {
      name     = "ocis-storage-system-http"
      port     = "http"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "storage-system" {
      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = local.secret_env
      }
    }
  }
}
