# Previews and searches over WebDAV.

locals {
  service = "webdav"
}

job "ocis-webdav" {
  group "webdav" {
    network {
      port "http" {}
      port "debug" {}
    }

    service {
      name     = "ocis-webdav"
      port     = "http"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "webdav" {}
  }
}
