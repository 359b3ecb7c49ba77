# Search index (bleve), one writer of its directory.

locals {
  service  = "search"
  stateful = true
  alone    = true
}

job "ocis-search" {
  group "search" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-search"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "search" {
      env {
        MICRO_REGISTRY         = "memory" # the mesh registers it
        SEARCH_GRPC_ADDR       = "$${NOMAD_ADDR_grpc}"
        SEARCH_DEBUG_ADDR      = "$${NOMAD_ADDR_debug}"
        SEARCH_DATA_PATH       = "${local.data}/search"
        SEARCH_EVENTS_ENDPOINT = "${var.mesh_address}:9233"
      }

      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = <<EOT
{{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) }}
OCIS_JWT_SECRET={{ .jwt_secret }}
OCIS_MACHINE_AUTH_API_KEY={{ .machine_auth_api_key }}
{{ end }}
EOT
      }

      resources {
        memory = 384
      }
    }
  }
}
