# WebDAV. Uploads go through OCIS_URL, so the domain must resolve inside the
# cluster.

locals {
  service = "ocdav"
}

job "ocis-ocdav" {
  group "ocdav" {
    network {
      port "http" {}
      port "debug" {}
    }

    service {
      name     = "ocis-ocdav"
      port     = "http"
      provider = "consul"
      check {
        type     = "http"
        path     = "/status.php"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "ocdav" {
      template {
        destination = "secrets/ocis.env"
        env         = true
        perms       = "0600"
        data        = local.secret_env
      }
    }
  }
}
