# Which application opens which file type.

locals {
  service = "app-registry"
}

job "ocis-app-registry" {
  group "app-registry" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-app-registry"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "app-registry" {
      kill_signal = "SIGQUIT" # drains, then deregisters; SIGINT would drop what is running

      env {
        APP_REGISTRY_GRPC_ADDR  = "$${NOMAD_ADDR_grpc}"
        APP_REGISTRY_DEBUG_ADDR = "$${NOMAD_ADDR_debug}"
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
