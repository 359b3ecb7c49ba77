# The dev cluster (`drover dev up --tool victoria-metrics --tool vmalert`), with
# Prometheus, Alertmanager and node-exporter of Debian where they are asked for.

variables {
  driver         = "raw_exec"
  user           = "nobody"
  interval       = "5s"
  memory         = 256
  consul_address = "$${meta.consul_http_addr}"
  alertmanager   = false
  node_exporter  = false
  binaries = {
    victoria-metrics = "$${meta.drover_bin}/victoria-metrics"
    prometheus       = "/usr/bin/prometheus"
    vmalert          = "$${meta.drover_bin}/vmalert"
    alertmanager     = "/usr/bin/prometheus-alertmanager"
    node-exporter    = "/usr/bin/prometheus-node-exporter"
  }
}

job "{monitoring,node-exporter}" {
  group "*" {
    update {
      min_healthy_time = "0s"
    }
  }
}
