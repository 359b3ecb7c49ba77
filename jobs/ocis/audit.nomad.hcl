# Writes an audit log of all events. Opens no port.

locals {
  service = "audit"
  alone   = true # two consumers would handle every event twice
}

job "ocis-audit" {
  group "audit" {
    task "audit" {
      env {
        AUDIT_EVENTS_ENDPOINT = "${var.mesh_address}:9233"
      }
    }
  }
}
