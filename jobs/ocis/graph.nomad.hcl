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
      template {
        destination = "secrets/ocis.env"
        data        = local.secret_env
      }
    }
  }
}
