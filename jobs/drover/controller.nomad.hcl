# drover controller, twice. It talks to Nomad through the API socket of its own
# task and with its workload identity: there is no token in the job. With ACLs,
# docs/how-to/controller.md has the policy.

locals {
  consul_volume = var.driver == "raw_exec" ? "" : var.consul_volume
}

job "drover-controller" {
  datacenters = var.datacenters
  type        = "service"

  group "controller" {
    count = var.replicas

    spread {
      attribute = "$${node.unique.id}"
    }

    update {
      max_parallel     = 1
      health_check     = "checks"
      min_healthy_time = "1s"
      healthy_deadline = "3m" # an image is downloaded within it
      auto_revert      = true
    }

    # Never given up: a store that is away for an hour comes back.
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

    shutdown_delay = "1s"

    network {
      port "http" {}
    }

    service {
      name     = "drover-controller"
      port     = "http"
      provider = "consul"
      tags     = ["metrics"]
      check {
        type     = "http"
        path     = "/health"
        interval = "2s"
        timeout  = "2s"
      }
    }

    # Consul's socket, for what does not see the files of the node. The directory
    # and not the socket, which is another one when the agent starts again.
    dynamic "volume" {
      for_each = local.consul_volume == "" ? [] : ["consul"]
      labels   = [volume.value]
      content {
        type      = "host"
        source    = local.consul_volume
        read_only = true
      }
    }

    # A short name: the path of the API socket ends with it and may have 107
    # bytes altogether.
    task "drover" {
      driver = var.driver
      user   = var.user

      # The lock goes back, and another replica goes on at once.
      kill_signal  = "SIGINT"
      kill_timeout = "15s"

      identity {
        env = true
      }

      # With Consul ACLs: a token by the same identity, in CONSUL_HTTP_TOKEN.
      consul {}

      config {
        image        = var.driver == "docker" ? var.image : null
        network_mode = var.driver == "docker" ? "host" : null
        command      = var.driver == "docker" ? null : (var.artifact == "" ? var.drover_binary : "$${NOMAD_TASK_DIR}/drover")
        args = concat(
          ["controller", "--listen", "$${NOMAD_ADDR_http}", "--challenge-port", format("%d", var.challenge_port)],
          var.check_names ? [] : ["--no-check"],
          var.sweep_orphans ? ["--sweep-orphans"] : [],
          var.autoscale == "off" ? [] : ["--autoscale", var.autoscale],
          var.prometheus == "" ? [] : ["--prometheus", var.prometheus],
          var.tenancy == "" ? [] : ["--tenancy", "$${NOMAD_TASK_DIR}/tenancy.hcl"],
          flatten([for r in var.resolvers : ["--resolver", r]]),
          var.arguments,
        )
      }

      dynamic "volume_mount" {
        for_each = local.consul_volume == "" ? [] : ["consul"]
        content {
          volume      = volume_mount.value
          destination = dirname(trimprefix(var.consul_address, "unix://"))
          read_only   = true
        }
      }

      dynamic "artifact" {
        for_each = var.driver == "docker" || var.artifact == "" ? [] : [var.artifact]
        content {
          source      = artifact.value
          destination = "local/"
          options {
            checksum = var.artifact_checksum
          }
        }
      }

      dynamic "template" {
        for_each = var.tenancy == "" ? [] : [var.tenancy]
        content {
          destination = "local/tenancy.hcl"
          data        = template.value
        }
      }

      env {
        NOMAD_ADDR       = "unix://$${NOMAD_SECRETS_DIR}/api.sock"
        CONSUL_HTTP_ADDR = var.consul_address
        GOMEMLIMIT       = "$${NOMAD_MEMORY_LIMIT}MiB"
      }

      resources {
        cpu    = 50
        memory = 64
      }
    }
  }
}
