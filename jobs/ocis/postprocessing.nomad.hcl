# Handles uploads after they have arrived: without it they stay invisible. No
# signal ends it.

locals {
  service = "postprocessing"
}

job "ocis-postprocessing" {
  group "postprocessing" {
    network {
      port "debug" {}
    }

    service {
      name     = "ocis-postprocessing"
      port     = "debug"
      provider = "consul"
      check {
        type     = "http"
        path     = "/healthz"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "postprocessing" {}
  }
}
