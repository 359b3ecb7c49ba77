# User name and password, checked against the LDAP directory.

locals {
  service = "auth-basic"
}

job "ocis-auth-basic" {
  group "auth-basic" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-auth-basic"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "auth-basic" {
      template {
        destination = "secrets/ocis.env"
        data        = local.secret_env
      }
    }
  }
}
