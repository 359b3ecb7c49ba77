# CS3 gateway: every reva client goes through it, and it reaches all others by
# fixed addresses, which the mesh listens on.

locals {
  service = "gateway"
}

job "ocis-gateway" {
  group "gateway" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-gateway"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "gateway" {
      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = local.secret_env
      }
    }
  }
}
