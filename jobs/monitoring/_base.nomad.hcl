# The layer under both jobs.

locals {
  images = merge({
    victoria-metrics = "victoriametrics/victoria-metrics:v1.151.0"
    prometheus       = "prom/prometheus:v2.42.0"
    vmalert          = "victoriametrics/vmalert:v1.151.0"
    alertmanager     = "prom/alertmanager:v0.25.0"
    node-exporter    = "prom/node-exporter:v1.5.0"
  }, var.images)
  programs = { for name in keys(local.images) : name => lookup(var.binaries, name, "/usr/local/bin/${name}") }
}

job "{monitoring,node-exporter}" {
  datacenters = var.datacenters

  group "*" {
    update {
      max_parallel     = 1
      health_check     = "checks"
      min_healthy_time = "2s"
      healthy_deadline = "3m"
      auto_revert      = true
    }

    restart {
      attempts = 20
      interval = "5m"
      delay    = "1s"
      mode     = "delay"
    }

    shutdown_delay = "2s"

    task "*" {
      driver = var.driver
      user   = var.user

      config {
        network_mode = var.driver == "docker" ? "host" : null
      }

      # At its limit of memory, a program reads its own code from the disk again and
      # again.
      env {
        GOMEMLIMIT = "$${NOMAD_MEMORY_LIMIT}MiB"
      }
    }
  }
}
