# Metrics of everything in the cluster, alert rules, and the dashboards for them.

stack "monitoring" {
  version     = "0.1.0"
  app_version = "1.151.0"
  description = "VictoriaMetrics or Prometheus, vmalert with rules, Alertmanager, node-exporter"
}

service "monitoring" {}

service "node-exporter" {
  enabled = var.node_exporter
}
