# The layout compact: all services of the line in one process. They listen on the
# addresses that the mesh has in the other layout; only the proxy has a port of Nomad's,
# for the edge. One instance: the old one stops before the new one starts.

locals {
  service = "server"
  alone   = true
  dirs    = {}
  routes  = ""
  cpu     = 500
  memory  = var.server_memory

  kill_signal  = "SIGINT"
  kill_timeout = "35s"
}

job "ocis-server" {
  group "server" {
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

      # Answered by web, behind the proxy.
      check {
        type            = "http"
        protocol        = "https"
        tls_skip_verify = true
        path            = "/config.json"
        interval        = "2s"
        timeout         = "2s"
      }
    }

    dynamic "volume" {
      for_each = var.ephemeral || var.driver == "raw_exec" ? {} : local.dirs
      labels   = [volume.key]
      content {
        type            = "host"
        source          = "ocis-${volume.key}"
        access_mode     = "single-node-multi-writer"
        attachment_mode = "file-system"
      }
    }

    # raw_exec mounts no volumes.
    dynamic "task" {
      for_each = !var.ephemeral && var.driver == "raw_exec" ? ["data"] : []
      labels   = [task.value]
      content {
        driver = "raw_exec"
        user   = var.user
        lifecycle {
          hook = "prestart"
        }
        config {
          command = "/bin/mkdir"
          args    = concat(["-p", "-m", "0700"], values(local.dirs))
        }
        resources {
          cpu    = 20
          memory = 16
        }
      }
    }

    task "server" {
      config {
        args = ["server"]
      }

      dynamic "volume_mount" {
        for_each = var.ephemeral || var.driver == "raw_exec" ? {} : local.dirs
        content {
          volume      = volume_mount.key
          destination = volume_mount.value
        }
      }

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

      template {
        destination = "secrets/ldap-ca.crt"
        perms       = "0600"
        uid         = var.uid
        gid         = var.uid
        data        = local.ldap_ca
      }

      template {
        destination = "secrets/ldap.crt"
        perms       = "0600"
        uid         = var.uid
        gid         = var.uid
        data        = <<EOT
{{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) }}{{ .ldap_cert }}{{ end }}
EOT
      }

      template {
        destination = "secrets/ldap.key"
        perms       = "0600"
        uid         = var.uid
        gid         = var.uid
        data        = <<EOT
{{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) }}{{ .ldap_key }}{{ end }}
EOT
      }

      dynamic "template" {
        for_each = var.placeholder_assets ? {
          "local/assets/index.html"            = "<!doctype html><title>ownCloud</title><p>This build of oCIS has no web client; WebDAV is at <code>/remote.php/webdav/</code>.</p>"
          "local/assets/identifier/index.html" = "<!doctype html><title>ownCloud</title><p>This build of oCIS has no login page.</p>"
        } : {}
        content {
          destination = template.key
          data        = template.value
        }
      }
    }
  }
}
