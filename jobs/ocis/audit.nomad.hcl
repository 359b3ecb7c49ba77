# Writes an audit log of all events.

locals {
  service = "audit"
}

job "ocis-audit" {
  group "audit" {
    # oCIS 2.0 opens no port.
    dynamic "network" {
      for_each = local.debug ? ["debug"] : []
      content {
        port "debug" {}
      }
    }

    task "audit" {}
  }
}
