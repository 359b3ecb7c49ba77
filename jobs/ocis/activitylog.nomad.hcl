# The activities of files and shares.

locals {
  service = "activitylog"
}

job "ocis-activitylog" {
  group "activitylog" {
    network {
      port "http" {}
      port "debug" {}
    }

    service {
      name     = "ocis-activitylog"
      port     = "http"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "activitylog" {
      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = local.secret_env
      }
    }
  }
}
