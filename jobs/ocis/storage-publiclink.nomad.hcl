# Public links as a storage.

locals {
  service = "storage-publiclink"
}

job "ocis-storage-publiclink" {
  group "storage-publiclink" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-storage-publiclink"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "storage-publiclink" {
      kill_signal = "SIGQUIT" # drains, then deregisters; SIGINT would drop what is running

      env {
        STORAGE_PUBLICLINK_GRPC_ADDR  = "$${NOMAD_ADDR_grpc}"
        STORAGE_PUBLICLINK_DEBUG_ADDR = "$${NOMAD_ADDR_debug}"
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
