# LDAP directory of the users, in a BoltDB file that one process may open. A
# login costs 64 MiB (argon2), so memory is generous and the mesh limits how
# many run at once. Its certificate is of the CA that the stack keeps.

locals {
  service = "idm"
}

job "ocis-idm" {
  group "idm" {
    network {
      port "ldaps" {}

      # oCIS 2.0 opens none.
      dynamic "port" {
        for_each = local.debug ? ["debug"] : []
        labels   = [port.value]
        content {}
      }
    }

    service {
      name     = "ocis-idm"
      port     = "ldaps"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "idm" {
      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = local.secret_env
      }
    }
  }
}
