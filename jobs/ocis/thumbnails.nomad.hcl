# Previews of images. Its data can be generated again.

locals {
  service  = "thumbnails"
  stateful = true
}

job "ocis-thumbnails" {
  group "thumbnails" {
    network {
      port "grpc" {}
      port "http" {}
      port "debug" {}
    }

    service {
      name     = "ocis-thumbnails"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    service {
      name     = "ocis-thumbnails-http"
      port     = "http"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "thumbnails" {
      env {
        MICRO_REGISTRY                    = "memory" # the mesh registers it
        THUMBNAILS_GRPC_ADDR              = "$${NOMAD_ADDR_grpc}"
        THUMBNAILS_HTTP_ADDR              = "$${NOMAD_ADDR_http}"
        THUMBNAILS_DEBUG_ADDR             = "$${NOMAD_ADDR_debug}"
        THUMBNAILS_FILESYSTEMSTORAGE_ROOT = "${local.data}/thumbnails"
        THUMBNAILS_DATA_ENDPOINT          = "http://${var.mesh_address}:9186/thumbnails/data"
      }

      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = <<EOT
{{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) }}
THUMBNAILS_TRANSFER_TOKEN={{ .thumbnails_transfer_secret }}
{{ end }}
EOT
      }

      resources {
        memory = 512
      }
    }
  }
}
