# Mails about shares. Consumes events; opens no port.

locals {
  service = "notifications"
  alone   = true # two consumers would handle every event twice
}

job "ocis-notifications" {
  group "notifications" {
    task "notifications" {
      env {
        NOTIFICATIONS_EVENTS_ENDPOINT = "${var.mesh_address}:9233"
      }

      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = <<EOT
{{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) }}
OCIS_MACHINE_AUTH_API_KEY={{ .machine_auth_api_key }}
{{ end }}
EOT
      }
    }
  }
}
