# Bridge to a WOPI office suite.

locals {
  service = "app-provider"
}

job "ocis-app-provider" {
  group "app-provider" {
    network {
      port "grpc" {}
      port "debug" {}
    }

    service {
      name     = "ocis-app-provider"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "app-provider" {
      kill_signal = "SIGQUIT" # drains, then deregisters; SIGINT would drop what is running

      env {
        APP_PROVIDER_GRPC_ADDR     = "$${NOMAD_ADDR_grpc}"
        APP_PROVIDER_DEBUG_ADDR    = "$${NOMAD_ADDR_debug}"
        APP_PROVIDER_EXTERNAL_ADDR = "$${NOMAD_ADDR_grpc}"
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
