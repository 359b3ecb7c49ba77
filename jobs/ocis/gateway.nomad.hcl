# CS3 gateway: every reva client goes through it, and it reaches all others by
# fixed addresses, which the mesh listens on.

locals {
  service = "gateway"
}

job "ocis-gateway" {
  group "gateway" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-gateway"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "gateway" {
      kill_signal = "SIGQUIT" # drains, then deregisters; SIGINT would drop what is running

      env {
        GATEWAY_GRPC_ADDR                    = "$${NOMAD_ADDR_grpc}"
        GATEWAY_DEBUG_ADDR                   = "$${NOMAD_ADDR_debug}"
        GATEWAY_USERS_ENDPOINT               = "${var.mesh_address}:9144"
        GATEWAY_GROUPS_ENDPOINT              = "${var.mesh_address}:9160"
        GATEWAY_PERMISSIONS_ENDPOINT         = "${var.mesh_address}:9191"
        GATEWAY_SHARING_ENDPOINT             = "${var.mesh_address}:9150"
        GATEWAY_AUTH_BASIC_ENDPOINT          = "${var.mesh_address}:9146"
        GATEWAY_AUTH_BEARER_ENDPOINT         = "${var.mesh_address}:9148"
        GATEWAY_AUTH_MACHINE_ENDPOINT        = "${var.mesh_address}:9166"
        GATEWAY_STORAGE_PUBLIC_LINK_ENDPOINT = "${var.mesh_address}:9178"
        GATEWAY_STORAGE_USERS_ENDPOINT       = "${var.mesh_address}:9157"
        GATEWAY_STORAGE_SHARES_ENDPOINT      = "${var.mesh_address}:9154"
        GATEWAY_APP_REGISTRY_ENDPOINT        = "${var.mesh_address}:9242"
      }

      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = <<EOT
{{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) }}
OCIS_JWT_SECRET={{ .jwt_secret }}
STORAGE_TRANSFER_SECRET={{ .transfer_secret }}
GATEWAY_STORAGE_USERS_MOUNT_ID={{ .storage_users_mount_id }}
{{ end }}
EOT
      }

      resources {
        memory = 384
      }
    }
  }
}
