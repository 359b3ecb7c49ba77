# Keeps events, so that others can look them up.

locals {
  service = "eventhistory"
}

job "ocis-eventhistory" {
  group "eventhistory" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-eventhistory"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "eventhistory" {}
  }
}
