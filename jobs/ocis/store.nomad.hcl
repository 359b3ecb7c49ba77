# Key-value store of the services, one writer of its directory.

locals {
  service = "store"
}

job "ocis-store" {
  group "store" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-store"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "store" {}
  }
}
