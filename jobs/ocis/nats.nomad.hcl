# Event bus. One writer of its store directory.

locals {
  service = "nats"
}

job "ocis-nats" {
  group "nats" {
    network {
      port "nats" {}

      # oCIS 2.0 opens none.
      dynamic "port" {
        for_each = local.debug ? ["debug"] : []
        labels   = [port.value]
        content {}
      }
    }

    service {
      name     = "ocis-nats"
      port     = "nats"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "nats" {}
  }
}
