# Bridge to a WOPI office suite.

locals {
  service = "app-provider"
}

job "ocis-app-provider" {
  group "app-provider" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-app-provider"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "app-provider" {
      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = local.secret_env
      }
    }
  }
}
