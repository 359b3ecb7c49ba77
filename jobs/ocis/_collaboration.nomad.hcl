# Connects one office suite: each suite has a job of its own, made of this file. No
# signal ends the process. It looks for its suite and for app-registry at its start.

locals {
  service = "collaboration"
  suite   = "collaboration"
  wopi    = ""
}

job "ocis-collaboration" {
  group "collaboration" {
    network {
      port "grpc" {}
      port "http" {}
      port "debug" {}
    }

    service {
      name     = "ocis-${local.suite}"
      port     = "grpc"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    service {
      name     = "ocis-${local.suite}-http"
      port     = "http"
      provider = "consul"

      # The office suite reaches the files here.
      tags = local.wopi == "" ? [] : ["drover.route=${local.wopi}/"]

      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "collaboration" {
      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = local.secret_env
      }
    }
  }
}
