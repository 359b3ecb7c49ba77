# The server that scrapes and keeps metrics, vmalert, which evaluates the rules with it,
# and Alertmanager, in one group: they find one another by their ports.

locals {
  # Where the targets come from, by scrape configuration. A service opts in with the tag
  # metrics. Its meta says how it is scraped (docs/reference/monitoring.md).
  discovery = { for name, query in {
    services = ["tags: [metrics]"]
    nomad    = ["services: [nomad, nomad-client]", "tags: [http]"]
    consul   = ["services: [consul, nomad-client]"]
    } : name => join("\n", var.server == "prometheus" ? [
      "    file_sd_configs:",
      "      - files: ['<drover< env \"NOMAD_TASK_DIR\" >drover>/targets/${name}.yml']",
      ] : concat([
        "    consul_sd_configs:",
        "      - server: '<drover< env \"CONSUL_HTTP_ADDR\" >drover>'",
        ], var.consul_token_file == "" ? [] : [
        "        authorization:",
        "          credentials_file: '${var.consul_token_file}'",
    ], formatlist("        %s", query)))
  }

  # Not each build of Prometheus has Consul discovery: Debian's has not. Nomad writes the
  # targets for it, with the labels that Consul discovery has.
  target   = <<EOT
<drover< define "target" >drover>
- targets: [<drover< if regexMatch ":" .Address >drover>"[<drover< .Address >drover>]:<drover< .Port >drover>"<drover< else >drover>"<drover< .Address >drover>:<drover< .Port >drover>"<drover< end >drover>]
  labels:
    __meta_consul_address: <drover< .NodeAddress | toJSON >drover>
    __meta_consul_node: <drover< .Node | toJSON >drover>
    __meta_consul_service: <drover< .Name | toJSON >drover>
    __meta_consul_service_id: <drover< .ID | toJSON >drover>
<drover< range $name, $value := .ServiceMeta >drover>
    __meta_consul_service_metadata_<drover< $name | replaceAll "-" "_" >drover>: <drover< $value | toJSON >drover>
<drover< end >drover><drover< end >drover>
EOT
  targets = var.server != "prometheus" ? {} : {
    services = "<drover< range services >drover><drover< if .Tags | contains \"metrics\" >drover><drover< range service (printf \"metrics.%s|any\" .Name) >drover><drover< template \"target\" . >drover><drover< end >drover><drover< end >drover><drover< end >drover>"
    nomad    = join("", [for s in ["http.nomad", "http.nomad-client"] : "<drover< range service \"${s}|any\" >drover><drover< template \"target\" . >drover><drover< end >drover>"])
    consul   = join("", [for s in ["consul", "nomad-client"] : "<drover< range service \"${s}|any\" >drover><drover< template \"target\" . >drover><drover< end >drover>"])
  }

  scrape = <<EOT
global:
  scrape_interval: ${var.interval}
scrape_configs:
  - job_name: services
${local.discovery.services}
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
${local.discovery.nomad}
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
${local.discovery.consul}
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

      # With ACLs, the templates of targets read Consul by the workload's identity.
      dynamic "consul" {
        for_each = var.server == "prometheus" ? [""] : []
        content {}
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

      # Prometheus watches the files.
      dynamic "template" {
        for_each = local.targets
        content {
          destination     = "local/targets/${template.key}.yml"
          data            = "${local.target}${template.value}"
          left_delimiter  = "<drover<"
          right_delimiter = ">drover>"
          change_mode     = "noop"
        }
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
