# Authenticates the services themselves.

locals {
  service = "auth-service"
}

job "ocis-auth-service" {
  group "auth-service" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-auth-service"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "auth-service" {
      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = local.secret_env
      }
    }
  }
}
