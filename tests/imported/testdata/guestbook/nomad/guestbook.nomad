# The guestbook, for Nomad 0.5 with Consul 0.7 and fabio.
job "guestbook" {
  region = "global"
  datacenters = ["dc1"]
  type = "service"

  constraint {
    attribute = "$attr.kernel.name"
    value = "linux"
  }

  update {
    stagger = "10s"
    max_parallel = 1
  }

  # PostgreSQL keeps its data on the node that is marked for it.
  group "db" {
    constraint {
      attribute = "${meta.storage}"
      value = "guestbook"
    }

    restart {
      attempts = 10
      interval = "5m"
      delay = "5s"
      mode = "delay"
    }

    task "postgres" {
      driver = "docker"

      config {
        image = "postgres:15"
        volumes = ["/srv/guestbook/db:/var/lib/postgresql/data"]
        port_map { db = 5432 }
      }

      env {
        "POSTGRES_DB" = "guestbook"
        "POSTGRES_USER" = "guestbook"
        "POSTGRES_PASSWORD" = "kV7!tulip-harbour-42"
      }

      service {
        name = "guestbook-db"
        tags = ["postgres"]
        port = "db"

        check {
          type = "tcp"
          interval = "5s"
          timeout = "2s"
        }
      }

      resources {
        cpu = 200
        memory = 256
        disk = 300
        network { mbits = 10 port "db" {} }
      }

      kill_timeout = "20s"
    }
  }

  group "backend" {
    count = 2

    task "backend" {
      driver = "docker"

      config {
        image = "registry.example.org/guestbook/backend:1.0"
        args = ["-config", "/local/backend.json"]
        port_map { http = 8080 }
      }

      # Consul says where the database is.
      template {
        destination = "local/backend.json"
        data = <<EOH
{ {{ range service "guestbook-db" }}
  "host": "{{ .Address }}",
  "port": "{{ .Port }}",{{ end }}
  "user": "guestbook",
  "password": "kV7!tulip-harbour-42"
}
EOH
      }

      service {
        name = "guestbook-backend"
        port = "http"

        check {
          type = "http"
          path = "/alive"
          interval = "5s"
          timeout = "2s"
        }
      }

      resources {
        cpu = 100
        memory = 64
        network { mbits = 5 port "http" {} }
      }
    }
  }

  group "frontend" {
    count = 2

    task "frontend" {
      driver = "docker"

      config {
        image = "registry.example.org/guestbook/frontend:1.0"
        args = ["-config", "/local/frontend.json"]
        port_map { http = 8080 }
      }

      env {
        "GUESTBOOK_TITLE" = "Our guestbook"
      }

      template {
        destination = "local/frontend.json"
        data = <<EOH
{ {{ range service "guestbook-backend" }}
  "backend": "http://{{ .Address }}:{{ .Port }}",{{ end }}
  "listen": ":8080"
}
EOH
      }

      service {
        name = "guestbook"
        tags = ["urlprefix-guestbook.example.org/"]
        port = "http"

        check {
          type = "http"
          path = "/healthz"
          interval = "5s"
          timeout = "2s"
        }
      }

      resources {
        cpu = 100
        memory = 64
        network { mbits = 5 port "http" {} }
      }
    }
  }
}
