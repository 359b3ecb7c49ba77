# Scans what is uploaded, through ICAP or clamd. No signal ends it.

locals {
  service = "antivirus"
}

job "ocis-antivirus" {
  group "antivirus" {
    network {
      port "debug" {}
    }

    service {
      name     = "ocis-antivirus"
      port     = "debug"
      provider = "consul"
      check {
        type     = "http"
        path     = "/healthz"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "antivirus" {}
  }
}
