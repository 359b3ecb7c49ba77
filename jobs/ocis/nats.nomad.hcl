# Event bus. One writer of its store directory.

locals {
  service  = "nats"
  stateful = true
  alone    = true
}

job "ocis-nats" {
  group "nats" {
    network {
      port "nats" {}
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

    task "nats" {
      env {
        NATS_NATS_HOST      = "$${NOMAD_IP_nats}"
        NATS_NATS_PORT      = "$${NOMAD_PORT_nats}"
        NATS_NATS_STORE_DIR = "${local.data}/nats"
      }
    }
  }
}
