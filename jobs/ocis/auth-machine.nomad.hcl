# Impersonation by services that hold the machine key.

locals {
  service = "auth-machine"
}

job "ocis-auth-machine" {
  group "auth-machine" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-auth-machine"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "auth-machine" {
      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = local.secret_env
      }
    }
  }
}
