# Tells clients which server and issuer to use.

locals {
  service = "webfinger"
}

job "ocis-webfinger" {
  group "webfinger" {
    network {
      port "http" {}
      port "debug" {}
    }

    service {
      name     = "ocis-webfinger"
      port     = "http"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "webfinger" {}
  }
}
