# A command that runs periodically: each has a job of its own, made of this file. Run
# one by hand with `nomad job periodic force`.

locals {
  schedule  = "@daily"
  time_zone = "UTC"
  command   = ""
  args      = []
  volume    = ""
}

job "cron-ocis" {
  group "cron" {
    restart {
      attempts = 1
      interval = "5m"
      delay    = "15s"
      mode     = "fail"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    dynamic "volume" {
      for_each = local.volume == "" ? [] : ["data"]
      labels   = [volume.value]
      content {
        type            = "host"
        source          = local.volume
        access_mode     = "single-node-multi-writer"
        attachment_mode = "file-system"
      }
    }

    task "cron" {
      driver = var.driver
      user   = var.user

      config {
        image        = var.driver == "docker" ? local.image : null
        network_mode = var.driver == "docker" ? "host" : null
        command      = local.command
        args         = local.args
      }

      dynamic "volume_mount" {
        for_each = local.volume == "" ? [] : ["data"]
        content {
          volume      = volume_mount.value
          destination = local.data
        }
      }

      env {
        HOME       = "$${NOMAD_TASK_DIR}"
        GOMEMLIMIT = "$${NOMAD_MEMORY_LIMIT}MiB"
      }

      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = local.secret_env
      }

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
        cpu    = 50
        memory = 128
      }
    }
  }
}
