# The remaining part of the OCS API: signing keys.

locals {
  service = "ocs"
}

job "ocis-ocs" {
  group "ocs" {
    network {
      port "http" {}
      port "debug" {}
    }

    service {
      name     = "ocis-ocs"
      port     = "http"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "ocs" {
      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = local.secret_env
      }
    }
  }
}
