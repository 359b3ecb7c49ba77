# Storage of the users' files. The file system below it must support extended
# attributes.

locals {
  service  = "storage-users"
  stateful = true
}

job "ocis-storage-users" {
  group "storage-users" {
    network {
      port "grpc" {}
      port "http" {}
      port "debug" {}
    }

    service {
      name     = "ocis-storage-users"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    service {
      name     = "ocis-storage-users-http"
      port     = "http"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "storage-users" {
      kill_signal = "SIGQUIT" # drains, then deregisters; SIGINT would drop what is running

      env {
        STORAGE_USERS_GRPC_ADDR           = "$${NOMAD_ADDR_grpc}"
        STORAGE_USERS_HTTP_ADDR           = "$${NOMAD_ADDR_http}"
        STORAGE_USERS_DEBUG_ADDR          = "$${NOMAD_ADDR_debug}"
        STORAGE_USERS_OCIS_ROOT           = "${local.data}/users"
        STORAGE_USERS_DATA_SERVER_URL     = "http://${var.mesh_address}:9158/data"
        STORAGE_USERS_PERMISSION_ENDPOINT = "${var.mesh_address}:9191"
        STORAGE_USERS_EVENTS_ENDPOINT     = "${var.mesh_address}:9233"
      }

      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = <<EOT
{{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) }}
OCIS_JWT_SECRET={{ .jwt_secret }}
STORAGE_TRANSFER_SECRET={{ .transfer_secret }}
STORAGE_USERS_MOUNT_ID={{ .storage_users_mount_id }}
{{ end }}
EOT
      }

      resources {
        cpu    = 100
        memory = 512
      }
    }
  }
}
