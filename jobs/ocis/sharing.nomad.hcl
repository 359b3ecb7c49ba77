# User shares and public links, kept in storage-system. It exits when that is
# not up yet, and is restarted.

locals {
  service = "sharing"
}

job "ocis-sharing" {
  group "sharing" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-sharing"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "sharing" {
      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = local.secret_env
      }
    }
  }
}
