# Mails about shares. Consumes events.

locals {
  service = "notifications"
}

job "ocis-notifications" {
  group "notifications" {
    # oCIS 2.0 opens no port.
    dynamic "network" {
      for_each = local.debug ? ["debug"] : []
      content {
        port "debug" {}
      }
    }

    task "notifications" {
      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = local.secret_env
      }
    }
  }
}
