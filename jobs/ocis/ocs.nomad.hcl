# The remaining part of the OCS API: signing keys.

locals {
  service = "ocs"
}

job "ocis-ocs" {
  group "ocs" {
    network {
      port "http" {}
      port "debug" {}
    }

    service {
      name     = "ocis-ocs"
      port     = "http"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "ocs" {
      env {
        OCS_HTTP_ADDR  = "$${NOMAD_ADDR_http}"
        OCS_DEBUG_ADDR = "$${NOMAD_ADDR_debug}"
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
    }
  }
}
