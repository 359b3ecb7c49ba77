# WebDAV. Uploads go through OCIS_URL, so the domain must resolve inside the
# cluster.

locals {
  service = "ocdav"
}

job "ocis-ocdav" {
  group "ocdav" {
    network {
      port "http" {}
      port "debug" {}
    }

    service {
      name     = "ocis-ocdav"
      port     = "http"
      provider = "consul"
      check {
        type     = "http"
        path     = "/status.php"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "ocdav" {
      kill_signal = "SIGQUIT" # drains, then deregisters; SIGINT would drop what is running

      env {
        OCDAV_HTTP_ADDR  = "$${NOMAD_ADDR_http}"
        OCDAV_DEBUG_ADDR = "$${NOMAD_ADDR_debug}"
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
