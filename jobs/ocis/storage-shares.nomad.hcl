# Shares as a storage.

locals {
  service = "storage-shares"
}

job "ocis-storage-shares" {
  group "storage-shares" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-storage-shares"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "storage-shares" {
      kill_signal = "SIGQUIT" # drains, then deregisters; SIGINT would drop what is running

      env {
        STORAGE_SHARES_GRPC_ADDR                    = "$${NOMAD_ADDR_grpc}"
        STORAGE_SHARES_DEBUG_ADDR                   = "$${NOMAD_ADDR_debug}"
        STORAGE_SHARES_USER_SHARE_PROVIDER_ENDPOINT = "${var.mesh_address}:9150"
      }

      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = <<EOT
{{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) }}
OCIS_JWT_SECRET={{ .jwt_secret }}
{{ end }}
EOT
      }
    }
  }
}
