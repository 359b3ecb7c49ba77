# OCS API, up- and downloads, archiver.

locals {
  service = "frontend"
}

job "ocis-frontend" {
  group "frontend" {
    network {
      port "http" {}
      port "debug" {}
    }

    service {
      name     = "ocis-frontend"
      port     = "http"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "frontend" {
      kill_signal = "SIGQUIT" # drains, then deregisters; SIGINT would drop what is running

      env {
        FRONTEND_HTTP_ADDR  = "$${NOMAD_ADDR_http}"
        FRONTEND_DEBUG_ADDR = "$${NOMAD_ADDR_debug}"
      }

      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = <<EOT
{{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) }}
OCIS_JWT_SECRET={{ .jwt_secret }}
STORAGE_TRANSFER_SECRET={{ .transfer_secret }}
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
