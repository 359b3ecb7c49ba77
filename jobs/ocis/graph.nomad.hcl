# LibreGraph API: users, groups, drives.

locals {
  service = "graph"
}

job "ocis-graph" {
  group "graph" {
    network {
      port "http" {}
      port "debug" {}
    }

    service {
      name     = "ocis-graph"
      port     = "http"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "graph" {
      env {
        GRAPH_HTTP_ADDR       = "$${NOMAD_ADDR_http}"
        GRAPH_DEBUG_ADDR      = "$${NOMAD_ADDR_debug}"
        GRAPH_EVENTS_ENDPOINT = "${var.mesh_address}:9233"
      }

      template {
        destination = "secrets/ocis.env"
        data        = <<EOT
{{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) }}
OCIS_JWT_SECRET={{ .jwt_secret }}
GRAPH_LDAP_BIND_PASSWORD={{ .idm_password }}
{{ end }}
EOT
      }
    }
  }
}
