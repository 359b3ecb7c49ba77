# User shares and public links, kept in storage-system. It exits when that is
# not up yet, and is restarted.

locals {
  service = "sharing"
}

job "ocis-sharing" {
  group "sharing" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-sharing"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "sharing" {
      kill_signal = "SIGQUIT" # drains, then deregisters; SIGINT would drop what is running

      env {
        SHARING_GRPC_ADDR                    = "$${NOMAD_ADDR_grpc}"
        SHARING_DEBUG_ADDR                   = "$${NOMAD_ADDR_debug}"
        SHARING_USER_JSONCS3_PROVIDER_ADDR   = "${var.mesh_address}:9215"
        SHARING_PUBLIC_JSONCS3_PROVIDER_ADDR = "${var.mesh_address}:9215"
        SHARING_EVENTS_ENDPOINT              = "${var.mesh_address}:9233"
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
    }
  }
}
