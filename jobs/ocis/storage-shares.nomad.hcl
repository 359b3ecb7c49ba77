# Shares as a storage.

locals {
  service = "storage-shares"
}

job "ocis-storage-shares" {
  group "storage-shares" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-storage-shares"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "storage-shares" {
      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = local.secret_env
      }
    }
  }
}
