# Groups, read from the LDAP directory.

locals {
  service = "groups"
}

job "ocis-groups" {
  group "groups" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-groups"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "groups" {
      template {
        destination = "secrets/ocis.env"
        data        = local.secret_env
      }
    }
  }
}
