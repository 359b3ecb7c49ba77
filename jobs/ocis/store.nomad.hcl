# Key-value store of the services, one writer of its directory.

locals {
  service  = "store"
  stateful = true
  alone    = true
}

job "ocis-store" {
  group "store" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-store"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "store" {
      env {
        MICRO_REGISTRY   = "memory" # the mesh registers it
        STORE_GRPC_ADDR  = "$${NOMAD_ADDR_grpc}"
        STORE_DEBUG_ADDR = "$${NOMAD_ADDR_debug}"
        STORE_DATA_PATH  = "${local.data}/store"
      }
    }
  }
}
