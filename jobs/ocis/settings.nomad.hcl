# Settings, roles and permissions, kept in storage-system.

locals {
  service = "settings"
}

job "ocis-settings" {
  group "settings" {
    network {
      port "grpc" {}
      port "http" {}
      port "debug" {}
    }

    service {
      name     = "ocis-settings"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    service {
      name     = "ocis-settings-http"
      port     = "http"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "settings" {
      env {
        MICRO_REGISTRY            = "memory" # the mesh registers it
        SETTINGS_GRPC_ADDR        = "$${NOMAD_ADDR_grpc}"
        SETTINGS_HTTP_ADDR        = "$${NOMAD_ADDR_http}"
        SETTINGS_DEBUG_ADDR       = "$${NOMAD_ADDR_debug}"
        STORAGE_GATEWAY_GRPC_ADDR = "${var.mesh_address}:9215"
        STORAGE_GRPC_ADDR         = "${var.mesh_address}:9215"
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
OCIS_ADMIN_USER_ID={{ .admin_user_id }}
{{ end }}
EOT
      }
    }
  }
}
