# Decides by rego rules about requests and uploads. No signal ends it.

locals {
  service = "policies"
}

job "ocis-policies" {
  group "policies" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-policies"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "policies" {}
  }
}
