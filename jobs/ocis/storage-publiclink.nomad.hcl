# Public links as a storage.

locals {
  service = "storage-publiclink"
}

job "ocis-storage-publiclink" {
  group "storage-publiclink" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-storage-publiclink"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "storage-publiclink" {
      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = local.secret_env
      }
    }
  }
}
