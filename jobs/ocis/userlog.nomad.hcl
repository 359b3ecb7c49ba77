# Notifications of each user.

locals {
  service = "userlog"
}

job "ocis-userlog" {
  group "userlog" {
    network {
      port "http" {}
      port "debug" {}
    }

    service {
      name     = "ocis-userlog"
      port     = "http"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "userlog" {
      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = local.secret_env
      }
    }
  }
}
