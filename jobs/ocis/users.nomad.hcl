# Users, read from the LDAP directory.

locals {
  service = "users"
}

job "ocis-users" {
  group "users" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-users"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "users" {
      template {
        destination = "secrets/ocis.env"
        data        = local.secret_env
      }
    }
  }
}
