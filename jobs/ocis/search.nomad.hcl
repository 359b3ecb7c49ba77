# Search index (bleve), one writer of its directory.

locals {
  service = "search"
}

job "ocis-search" {
  group "search" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-search"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "search" {
      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = local.secret_env
      }
    }
  }
}
