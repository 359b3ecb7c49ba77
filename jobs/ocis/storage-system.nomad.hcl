# Storage of metadata: settings and shares live here.

locals {
  service  = "storage-system"
  stateful = true
}

job "ocis-storage-system" {
  group "storage-system" {
    network {
      port "grpc" {}
      port "http" {}
      port "debug" {}
    }

    service {
      name     = "ocis-storage-system"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    service {
      name     = "ocis-storage-system-http"
      port     = "http"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "storage-system" {
      kill_signal = "SIGQUIT" # drains, then deregisters; SIGINT would drop what is running

      env {
        STORAGE_SYSTEM_GRPC_ADDR       = "$${NOMAD_ADDR_grpc}"
        STORAGE_SYSTEM_HTTP_ADDR       = "$${NOMAD_ADDR_http}"
        STORAGE_SYSTEM_DEBUG_ADDR      = "$${NOMAD_ADDR_debug}"
        STORAGE_SYSTEM_OCIS_ROOT       = "${local.data}/metadata"
        STORAGE_SYSTEM_DATA_SERVER_URL = "http://${var.mesh_address}:9216/data"
      }

      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = <<EOT
{{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) }}
OCIS_JWT_SECRET={{ .jwt_secret }}
OCIS_SYSTEM_USER_ID={{ .system_user_id }}
OCIS_SYSTEM_USER_API_KEY={{ .system_user_api_key }}
{{ end }}
EOT
      }

      resources {
        memory = 384
      }
    }
  }
}
