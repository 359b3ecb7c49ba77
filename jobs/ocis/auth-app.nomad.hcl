# Passwords of applications, in a file that one process may write.

locals {
  service = "auth-app"
}

job "ocis-auth-app" {
  group "auth-app" {
    network {
      port "grpc" {}
      port "http" {}
      port "debug" {}
    }

    service {
      name     = "ocis-auth-app"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    service {
      name     = "ocis-auth-app-http"
      port     = "http"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "auth-app" {
      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = local.secret_env
      }
    }
  }
}
