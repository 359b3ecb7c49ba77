# The layer under both jobs.

locals {
  # Where metrics are read: the variable, or an instance that Consul knows.
  found = "{{ range $i, $s := service \"victoria-metrics\" }}{{ if not $i }}http://{{ .Address }}:{{ .Port }}{{ end }}{{ else }}{{ range $i, $s := service \"prometheus\" }}{{ if not $i }}http://{{ .Address }}:{{ .Port }}{{ end }}{{ end }}{{ end }}"
  metrics = var.prometheus == "" ? local.found : var.prometheus
}

job "*" {
  datacenters = var.datacenters

  group "autoscaler" {
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

    # Allocations of a lost node are replaced anyway.
    reschedule {
      attempts  = 0
      unlimited = false
    }

    network {
      port "http" {}
    }

    service {
      name     = "nomad-autoscaler"
      port     = "http"
      provider = "consul"
      tags     = ["metrics"]
      meta {
        metrics_path = "/v1/metrics"
      }
      check {
        type     = "http"
        path     = "/v1/health"
        interval = "2s"
        timeout  = "2s"
      }
    }

    # A short name: the path of the API socket ends with it and may have 107
    # bytes altogether.
    task "scaler" {
      driver = var.driver
      user   = var.user

      # Its right to scale is a policy of Nomad for this job.
      identity {
        env = true
      }

      # With Consul ACLs, the template reads services by the workload's identity.
      consul {}

      config {
        image        = var.driver == "docker" ? var.image : null
        network_mode = var.driver == "docker" ? "host" : null
        command      = var.driver == "docker" ? "nomad-autoscaler" : var.binary
        args = [
          "agent", "-config", "$${NOMAD_TASK_DIR}/config", "-policy-dir", "$${NOMAD_TASK_DIR}/policies", "-plugin-dir", var.plugins,
          "-http-bind-address", "$${NOMAD_IP_http}", "-http-bind-port", "$${NOMAD_PORT_http}",
        ]
      }

      env {
        NOMAD_ADDR = "unix://$${NOMAD_SECRETS_DIR}/api.sock"
        GOMEMLIMIT = "$${NOMAD_MEMORY_LIMIT}MiB"
      }

      # Both directories must be there.
      template {
        destination   = "local/policies/README"
        data          = "Files that end in .hcl are policies.\n"
        change_mode   = "noop"
      }

      template {
        destination = "local/config/agent.hcl"
        data        = <<EOT
telemetry {
  prometheus_metrics = true
  disable_hostname   = true
}
{{ with "${local.metrics}" }}
apm "prometheus" {
  driver = "prometheus"
  config = {
    address = "{{ . }}"
  }
}
{{ end }}
EOT
      }

      dynamic "template" {
        for_each = var.config == "" ? [] : [var.config]
        content {
          destination     = "local/config/more.hcl"
          data            = template.value
          left_delimiter  = "<drover<"
          right_delimiter = ">drover>"
        }
      }

      dynamic "template" {
        for_each = var.policies
        content {
          destination     = "local/policies/${template.key}.hcl"
          data            = template.value
          left_delimiter  = "<drover<"
          right_delimiter = ">drover>"
          change_mode     = "signal"
          change_signal   = "SIGHUP"
        }
      }

      resources {
        cpu    = 50
        memory = var.memory
      }
    }
  }
}
