# Writes an audit log of all events. Opens no port.

locals {
  service = "audit"
}

job "ocis-audit" {
  group "audit" {
    # Two consumers would handle every event twice.
    update {
      canary       = 0
      auto_promote = false
    }

    shutdown_delay = "0s"

    task "audit" {
      env {
        AUDIT_EVENTS_ENDPOINT = "${var.mesh_address}:9233"
      }
    }
  }
}
