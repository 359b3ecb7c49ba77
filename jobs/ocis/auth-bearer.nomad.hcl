# OpenID Connect tokens, checked against the idp.

locals {
  service = "auth-bearer"
}

job "ocis-auth-bearer" {
  group "auth-bearer" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-auth-bearer"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "auth-bearer" {
      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = local.secret_env
      }
    }
  }
}
