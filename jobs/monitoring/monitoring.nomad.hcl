# The server that scrapes and keeps metrics, vmalert, which evaluates the rules with it,
# and Alertmanager, in one group: they find one another by their ports.

locals {
  # A service opts in with the tag metrics. Its meta says how it is scraped
  # (docs/reference/monitoring.md).
  scrape = <<EOT
global:
  scrape_interval: ${var.interval}
scrape_configs:
  - job_name: services
    consul_sd_configs:
      - server: '<drover< env "CONSUL_HTTP_ADDR" >drover>'
%{if var.consul_token_file != ""~}
        authorization:
          credentials_file: '${var.consul_token_file}'
%{endif~}
        tags: [metrics]
    relabel_configs:
      - source_labels: [__meta_consul_service]
        target_label: job
      - source_labels: [__meta_consul_node]
        target_label: consul_node
      - source_labels: [__meta_consul_service_id]
        regex: _nomad-task-([0-9a-f]{8})-.*
        target_label: alloc
      - source_labels: [__meta_consul_service_metadata_metrics_path]
        regex: (.+)
        target_label: __metrics_path__
      - source_labels: [__meta_consul_service_metadata_metrics_scheme]
        regex: (https?)
        target_label: __scheme__
      - source_labels: [__meta_consul_service_metadata_metrics_interval]
        regex: ([0-9]+[smh])
        target_label: __scrape_interval__
      - source_labels: [__meta_consul_service_metadata_metrics_timeout]
        regex: ([0-9]+[smh])
        target_label: __scrape_timeout__
      - source_labels: [__address__, __meta_consul_service_metadata_metrics_port]
        regex: (.+):[0-9]+;([0-9]+)
        replacement: $1:$2
        target_label: __address__
      - action: labelmap
        regex: __meta_consul_service_metadata_metrics_label_([a-zA-Z0-9_]+)
%{if var.nomad~}
  - job_name: nomad
    scheme: ${var.agent_scheme}
    metrics_path: /v1/metrics
    params:
      format: [prometheus]
    consul_sd_configs:
      - server: '<drover< env "CONSUL_HTTP_ADDR" >drover>'
%{if var.consul_token_file != ""~}
        authorization:
          credentials_file: '${var.consul_token_file}'
%{endif~}
        services: [nomad, nomad-client]
        tags: [http]
%{endif~}
%{if var.consul~}
  - job_name: consul
    scheme: ${var.agent_scheme}
    metrics_path: /v1/agent/metrics
    params:
      format: [prometheus]
%{if var.consul_token_file != ""~}
    authorization:
      credentials_file: '${var.consul_token_file}'
%{endif~}
    consul_sd_configs:
      - server: '<drover< env "CONSUL_HTTP_ADDR" >drover>'
%{if var.consul_token_file != ""~}
        authorization:
          credentials_file: '${var.consul_token_file}'
%{endif~}
        services: [consul, nomad-client]
    relabel_configs:
      - source_labels: [__meta_consul_address]
        replacement: '$1:<drover< index (split ":" (env "CONSUL_HTTP_ADDR")) 1 >drover>'
        target_label: __address__
%{endif~}
EOT

  data = var.volume == "" ? "$${NOMAD_ALLOC_DIR}/data" : "/metrics"
  args = {
    victoria-metrics = [
      "-httpListenAddr=$${NOMAD_ADDR_http}", "-storageDataPath=${local.data}/victoria-metrics", "-retentionPeriod=${var.retention}",
      "-promscrape.config=$${NOMAD_TASK_DIR}/scrape.yml", "-promscrape.suppressDuplicateScrapeTargetErrors",
      "-vmui.customDashboardsPath=$${NOMAD_TASK_DIR}/dashboards", "-memory.allowedBytes=${floor(var.memory * 3 / 10)}MB", "-loggerLevel=WARN",
    ]
    prometheus = [
      "--web.listen-address=$${NOMAD_ADDR_http}", "--storage.tsdb.path=${local.data}/prometheus", "--storage.tsdb.retention.time=${var.retention}",
      "--config.file=$${NOMAD_TASK_DIR}/scrape.yml", "--web.enable-remote-write-receiver", "--log.level=warn",
    ]
  }
  rules      = merge({ "drover.yml" = file("rules.yml") }, var.rules == "" ? {} : { "own.yml" = var.rules })
  dashboards = { for name in ["cluster", "stack", "edge"] : "${name}.json" => file("dashboards/${name}.json") }
}

job "monitoring" {
  type = "service"

  group "monitoring" {
    # Allocations of a lost node are replaced anyway.
    reschedule {
      attempts  = 0
      unlimited = false
    }

    ephemeral_disk {
      sticky = true
      size   = 2000
    }

    network {
      port "http" {}
      port "vmalert" {}
      port "alertmanager" {}
    }

    service {
      name     = var.server
      port     = "http"
      provider = "consul"
      tags     = ["metrics"]
      check {
        type     = "http"
        path     = var.server == "prometheus" ? "/-/ready" : "/health"
        interval = "2s"
        timeout  = "5s"
      }
    }

    service {
      name     = "vmalert"
      port     = "vmalert"
      provider = "consul"
      tags     = ["metrics"]
      check {
        type     = "http"
        path     = "/health"
        interval = "5s"
        timeout  = "5s"
      }
    }

    dynamic "service" {
      for_each = var.alertmanager ? ["alertmanager"] : []
      content {
        name     = service.value
        port     = "alertmanager"
        provider = "consul"
        tags     = ["metrics"]
        check {
          type     = "http"
          path     = "/-/ready"
          interval = "5s"
          timeout  = "5s"
        }
      }
    }

    dynamic "volume" {
      for_each = var.volume == "" ? [] : ["metrics"]
      labels   = [volume.value]
      content {
        type   = "host"
        source = var.volume
      }
    }

    task "server" {
      config {
        image   = var.driver == "docker" ? local.images[var.server] : null
        command = var.driver == "docker" ? null : local.programs[var.server]
        args    = local.args[var.server]
      }

      dynamic "volume_mount" {
        for_each = var.volume == "" ? [] : ["metrics"]
        content {
          volume      = volume_mount.value
          destination = "/metrics"
        }
      }

      env {
        CONSUL_HTTP_ADDR = var.consul_address
        # The caches of VictoriaMetrics are beside it.
        GOMEMLIMIT = "${floor(var.memory * 5 / 10)}MiB"
      }

      template {
        destination     = "local/scrape.yml"
        data            = local.scrape
        left_delimiter  = "<drover<"
        right_delimiter = ">drover>"
        change_mode     = "signal"
        change_signal   = "SIGHUP"
      }

      # Read at each request. Only VictoriaMetrics has a page for them.
      dynamic "template" {
        for_each = var.server == "victoria-metrics" ? local.dashboards : {}
        content {
          destination     = "local/dashboards/${template.key}"
          data            = template.value
          left_delimiter  = "<drover<"
          right_delimiter = ">drover>"
          change_mode     = "noop"
        }
      }

      resources {
        cpu    = 200
        memory = var.memory
      }
    }

    task "vmalert" {
      config {
        image   = var.driver == "docker" ? local.images["vmalert"] : null
        command = var.driver == "docker" ? null : local.programs["vmalert"]
        args = concat([
          "-httpListenAddr=$${NOMAD_ADDR_vmalert}", "-rule=$${NOMAD_TASK_DIR}/rules/*.yml", "-evaluationInterval=${var.interval}",
          "-datasource.url=http://$${NOMAD_ADDR_http}", "-remoteWrite.url=http://$${NOMAD_ADDR_http}", "-remoteRead.url=http://$${NOMAD_ADDR_http}",
          "-loggerLevel=WARN",
        ], var.alertmanager ? ["-notifier.url=http://$${NOMAD_ADDR_alertmanager}"] : ["-notifier.blackhole"])
      }

      # Rules have braces of their own.
      dynamic "template" {
        for_each = local.rules
        content {
          destination     = "local/rules/${template.key}"
          data            = template.value
          left_delimiter  = "<drover<"
          right_delimiter = ">drover>"
          change_mode     = "signal"
          change_signal   = "SIGHUP"
          splay           = "0s"
          wait {
            min = "200ms"
            max = "1s"
          }
        }
      }

      resources {
        cpu    = 50
        memory = 64
      }
    }

    dynamic "task" {
      for_each = var.alertmanager ? ["alertmanager"] : []
      labels   = [task.value]
      content {
        driver = var.driver
        user   = var.user

        config {
          network_mode = var.driver == "docker" ? "host" : null

          image   = var.driver == "docker" ? local.images["alertmanager"] : null
          command = var.driver == "docker" ? null : local.programs["alertmanager"]
          args = [
            "--config.file=$${NOMAD_SECRETS_DIR}/alertmanager.yml", "--storage.path=$${NOMAD_ALLOC_DIR}/data/alertmanager",
            "--web.listen-address=$${NOMAD_ADDR_alertmanager}", "--cluster.listen-address=", "--log.level=warn",
          ]
        }

        template {
          destination     = "secrets/alertmanager.yml"
          data            = var.alertmanager_config
          left_delimiter  = "<drover<"
          right_delimiter = ">drover>"
          change_mode     = "signal"
          change_signal   = "SIGHUP"
        }

        resources {
          cpu    = 50
          memory = 64
        }
      }
    }
  }
}
