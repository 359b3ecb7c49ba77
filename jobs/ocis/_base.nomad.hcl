# The layer under every job of the stack but the mesh. A service's own file has
# its ports, addresses and secrets, and sets the locals below.

locals {
  # The row of a service in the catalog (services.stack.hcl) sets what follows.
  # `service` names its volume (ocis-<service>).
  service  = "unset"
  command  = local.service
  image    = var.image
  binary   = var.binary
  stateful = false
  data     = "$${NOMAD_ALLOC_DIR}/data"

  # alone: an instance that must not run beside another one of its service, such
  # as one that opens its database. The old one stops before the new one starts.
  alone = false
  count = 1

  # go-micro services deregister and stop on SIGINT. Reva services of 2.0 drain on
  # SIGQUIT only.
  kill_signal  = "SIGINT"
  kill_timeout = "15s"

  cpu    = 50
  memory = 256
  debug  = true

  # Text of the file with the secrets of the service, and other files of it.
  secret_env = ""
  files      = {}

  ldap_ca = <<EOT
{{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) }}{{ .ldap_ca }}{{ end }}
EOT

  # Directories that outlive the job, by the name of the volume in the job. raw_exec
  # mounts no volumes.
  kept      = { for name in ["data"] : name => { volume = "ocis-${local.service}", path = local.data } if local.stateful }
  mounted   = { for name, dir in local.kept : name => dir if !var.ephemeral && var.driver != "raw_exec" }
  host_dirs = [for dir in values(local.kept) : dir.path if !var.ephemeral && var.driver == "raw_exec"]

  # Whether the task serves LDAP, with the certificate that the stack keeps.
  serves_ldap = true

  # A task of raw_exec sees the files of the node: it needs no volume for Consul's
  # socket.
  consul_volume = var.driver == "raw_exec" ? "" : var.consul_volume
}

job "ocis-*" {
  datacenters = var.datacenters
  type        = "service"

  group "*" {
    count = local.count

    # The new instance starts beside the old one and takes over when its
    # checks pass.
    update {
      max_parallel      = 1
      canary            = local.alone ? 0 : 1
      auto_promote      = !local.alone
      auto_revert       = true
      health_check      = "checks"
      min_healthy_time  = "2s"
      healthy_deadline  = "3m"
      progress_deadline = "5m"
    }

    # A process that dies comes back at once on the same node and port, and
    # is never given up: sharing, for one, exits when storage-system is late.
    restart {
      attempts = 20
      interval = "5m"
      delay    = "1s"
      mode     = "delay"
    }

    # Rescheduling a failed first allocation would keep a bad version alive
    # until progress_deadline; allocations of a lost node are replaced anyway.
    reschedule {
      attempts  = 0
      unlimited = false
    }

    # Deregister from Consul first; the signal follows when clients have stopped sending
    # requests.
    shutdown_delay = local.alone ? "0s" : "2s"

    # Where jobs/monitoring finds the metrics. All services have one name here; the label
    # service distinguishes their instances.
    dynamic "service" {
      for_each = var.monitoring && local.debug ? ["ocis-metrics"] : []
      content {
        name     = service.value
        port     = "debug"
        provider = "consul"
        tags     = ["metrics"]
        meta {
          metrics_label_service = local.service
        }
        # A deployment does not wait for it.
        check {
          type           = "tcp"
          interval       = "10s"
          timeout        = "2s"
          initial_status = "passing"
          on_update      = "ignore"
        }
      }
    }

    dynamic "volume" {
      for_each = local.mounted
      labels   = [volume.key]
      content {
        type            = "host"
        source          = volume.value.volume
        access_mode     = "single-node-multi-writer"
        attachment_mode = "file-system"
      }
    }

    # The directory and not the socket, which is another one when the agent
    # starts again.
    dynamic "volume" {
      for_each = local.consul_volume == "" ? [] : ["consul"]
      labels   = [volume.value]
      content {
        type      = "host"
        source    = local.consul_volume
        read_only = true
      }
    }

    # raw_exec mounts no volumes: the directories are made before the service
    # starts, as its own user.
    dynamic "task" {
      for_each = length(local.host_dirs) > 0 ? ["data"] : []
      labels   = [task.value]
      content {
        driver = "raw_exec"
        user   = var.user
        lifecycle {
          hook = "prestart"
        }
        config {
          command = "/bin/mkdir"
          args    = concat(["-p", "-m", "0700"], local.host_dirs)
        }
        resources {
          cpu    = 20
          memory = 16
        }
      }
    }

    task "*" {
      driver = var.driver
      user   = var.user

      kill_signal  = local.kill_signal
      kill_timeout = local.kill_timeout

      config {
        image        = var.driver == "docker" ? local.image : null
        network_mode = var.driver == "docker" ? "host" : null
        command      = var.driver == "docker" ? null : local.binary
        args         = [local.command, "server"]
      }

      dynamic "volume_mount" {
        for_each = local.mounted
        content {
          volume      = volume_mount.key
          destination = volume_mount.value.path
        }
      }

      dynamic "volume_mount" {
        for_each = local.consul_volume == "" ? [] : ["consul"]
        content {
          volume      = volume_mount.value
          destination = dirname(trimprefix(var.consul_address, "unix://"))
          read_only   = true
        }
      }

      # oCIS registers itself in Consul: with Consul ACLs, by the token of its
      # workload identity in CONSUL_HTTP_TOKEN.
      consul {}

      env {
        HOME       = "$${NOMAD_TASK_DIR}"
        GOMEMLIMIT = "$${NOMAD_MEMORY_LIMIT}MiB"
      }

      # The text is not read as a template.
      dynamic "template" {
        for_each = local.files
        content {
          destination     = template.key
          data            = template.value == "" ? "\n" : template.value # Nomad refuses an empty text
          left_delimiter  = "<drover<"
          right_delimiter = ">drover>"
        }
      }

      resources {
        cpu    = local.cpu
        memory = local.memory
      }

      logs {
        max_files     = 3
        max_file_size = 10
      }
    }
  }
}

# The entrance: of the service proxy, or of the process with all services.
job "ocis-{proxy,server}" {
  group "*" {
    network {
      port "http" {}
      port "debug" {}
    }

    service {
      name     = "ocis-proxy"
      port     = "http"
      provider = "consul"

      # The edge sends the domain here (jobs/edge).
      tags = ["drover.route=${split(":", lower(var.domain))[0]}/", "drover.protocol=https", "drover.ca=none"]
    }

    task "*" {
      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = local.secret_env
      }

      template {
        destination = "local/config/proxy.yaml"
        data        = local.routes
      }
    }
  }
}

# These read the LDAP directory, and check its certificate.
job "ocis-{auth-basic,graph,groups,idp,server,users}" {
  group "*" {
    task "*" {
      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
      }

      template {
        destination = "secrets/ldap-ca.crt"
        perms       = "0600"
        uid         = var.uid
        gid         = var.uid
        data        = local.ldap_ca
      }
    }
  }
}

# These serve it.
job "ocis-{idm,server}" {
  group "*" {
    task "*" {
      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
      }

      dynamic "template" {
        for_each = local.serves_ldap ? ["crt", "key"] : []
        content {
          destination = "secrets/ldap.${template.value}"
          perms       = "0600"
          uid         = var.uid
          gid         = var.uid
          data        = "{{ with nomadVar (printf \"nomad/jobs/%s\" (env \"NOMAD_JOB_ID\")) }}{{ .ldap_${template.value == "crt" ? "cert" : "key"} }}{{ end }}\n"
        }
      }
    }
  }
}

# Jobs that run and end: periodic commands, backup and restore.
job "{archive,cron}-ocis" {
  datacenters = var.datacenters
  type        = "batch"

  dynamic "periodic" {
    for_each = local.schedule == "" ? [] : [local.schedule]
    content {
      crons            = [periodic.value]
      time_zone        = local.time_zone
      prohibit_overlap = true
    }
  }
}
