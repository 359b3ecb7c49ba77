# The web client.

locals {
  service = "web"
}

job "ocis-web" {
  group "web" {
    network {
      port "http" {}
      port "debug" {}
    }

    service {
      name     = "ocis-web"
      port     = "http"
      provider = "consul"
      check {
        type     = "http"
        path     = "/config.json"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "web" {
      env {
        WEB_HTTP_ADDR  = "$${NOMAD_ADDR_http}"
        WEB_DEBUG_ADDR = "$${NOMAD_ADDR_debug}"
      }
    }
  }
}
