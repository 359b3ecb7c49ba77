# Which application opens which file type.

locals {
  service = "app-registry"
}

job "ocis-app-registry" {
  group "app-registry" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-app-registry"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "app-registry" {
      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = local.secret_env
      }
    }
  }
}
