# Memory, disks and network of every node.

job "node-exporter" {
  type = "system"

  group "node-exporter" {
    network {
      port "http" {}
    }

    service {
      name     = "node-exporter"
      port     = "http"
      provider = "consul"
      tags     = ["metrics"]
      meta {
        metrics_label_node = "$${node.unique.name}"
      }
      check {
        type     = "http"
        path     = "/"
        interval = "5s"
        timeout  = "2s"
      }
    }

    task "node-exporter" {
      config {
        image   = var.driver == "docker" ? local.images["node-exporter"] : null
        command = var.driver == "docker" ? null : local.programs["node-exporter"]
        args = concat(
          ["--web.listen-address=$${NOMAD_ADDR_http}"],
          var.driver == "docker" ? ["--path.rootfs=/host"] : [],
        )
        volumes  = var.driver == "docker" ? ["/:/host:ro,rslave"] : null
        pid_mode = var.driver == "docker" ? "host" : null
      }

      resources {
        cpu    = 50
        memory = 48
      }
    }
  }
}
