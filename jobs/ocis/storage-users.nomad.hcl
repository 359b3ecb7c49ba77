# Storage of the users' files. The file system below it must support extended
# attributes.

locals {
  service = "storage-users"
}

job "ocis-storage-users" {
  group "storage-users" {
    network {
      port "grpc" {}
      port "http" {}
      port "debug" {}
    }

    service {
      name     = "ocis-storage-users"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    service {
      name     = "ocis-storage-users-http"
      port     = "http"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "storage-users" {
      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = local.secret_env
      }
    }
  }
}
