# nginx on every node, with the same tags on services as the stack edge:
#
#   drover.route=HOST/PATH   the host in lower case, and every path that begins
#                            so; the longest path wins. Repeatable.
#   drover.protocol=https    what the service speaks: http (when it says
#                            nothing) or https (its certificate is not verified).
#   drover.strip=/PREFIX     remove this from the path before passing it on.
#   drover.sticky=cookie     a client address stays with one instance.
#
# nginx does not follow DNS SRV records: instances that come and go reload it,
# and a routed service needs a shutdown_delay of 3 s or more.

job "edge" {
  datacenters = var.datacenters
  type        = "system"

  group "edge" {
    update {
      max_parallel     = 1
      health_check     = "checks"
      min_healthy_time = "2s"
      healthy_deadline = "1m"
      auto_revert      = true
    }

    restart {
      attempts = 20
      interval = "5m"
      delay    = "1s"
      mode     = "delay"
    }

    shutdown_delay = "2s"

    network {
      port "metrics" {}
    }

    service {
      name     = "edge"
      port     = "metrics"
      provider = "consul"
      tags     = ["metrics"]
      check {
        type     = "http"
        path     = "/health"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "nginx" {
      driver = var.driver
      user   = var.user

      kill_signal  = "SIGQUIT"
      kill_timeout = "30s"

      config {
        image        = var.driver == "docker" ? var.image : null
        network_mode = var.driver == "docker" ? "host" : null
        command      = var.driver == "docker" ? "nginx" : var.binary
        args         = ["-c", "$${NOMAD_TASK_DIR}/nginx.conf", "-p", "$${NOMAD_TASK_DIR}", "-e", "stderr"]
      }

      resources {
        cpu    = 200
        memory = 256
      }

      # Templates see variables of the node only through the environment.
      env {
        EDGE_BIND_ADDRESS = var.bind_address
      }

      # One file for certificate and key: of two, one is read before the other
      # is written.
      template {
        destination   = "secrets/public.pem"
        change_mode   = "signal"
        change_signal = "SIGHUP"
        splay         = "0s"
        perms         = "0600"
        uid           = var.user == "root" ? 0 : var.uid
        gid           = var.user == "root" ? 0 : var.uid
        wait {
          min = "250ms"
          max = "2s"
        }
        data = "{{ with nomadVar \"drover/certs/${var.certificate}\" }}{{ .bundle }}{{ end }}\n"
      }

      template {
        destination   = "local/nginx.conf"
        change_mode   = "signal"
        change_signal = "SIGHUP"
        splay         = "0s"
        wait {
          min = "250ms"
          max = "2s"
        }
        data = <<EOT
daemon off;
worker_processes auto;
worker_shutdown_timeout ${var.hard_stop_after};
pid {{ env "NOMAD_TASK_DIR" }}/nginx.pid;
error_log stderr notice;
events {
  worker_connections 4096;
}
http {
  client_body_temp_path {{ env "NOMAD_TASK_DIR" }}/body;
  proxy_temp_path {{ env "NOMAD_TASK_DIR" }}/proxy;
  fastcgi_temp_path {{ env "NOMAD_TASK_DIR" }}/fastcgi;
  uwsgi_temp_path {{ env "NOMAD_TASK_DIR" }}/uwsgi;
  scgi_temp_path {{ env "NOMAD_TASK_DIR" }}/scgi;

  log_format json escape=json '{"time":"$time_iso8601","client":"$remote_addr","host":"$host","method":"$request_method","path":"$uri","status":$status,"bytes":$bytes_sent,"seconds":$request_time,"backend":"$upstream_addr","tls":"$ssl_protocol"}';
%{ if var.user == "root" ~}
  access_log /dev/stdout json;
%{ else ~}
  access_log off; # only root may open the pipe that stdout is
%{ endif ~}
  server_tokens off;

  # Mozilla's intermediate configuration, version 5.7
  ssl_protocols TLSv1.2 TLSv1.3;
  ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305;
  ssl_prefer_server_ciphers off;
  ssl_session_cache shared:tls:10m;
  ssl_session_tickets off;
  ssl_certificate {{ env "NOMAD_SECRETS_DIR" }}/public.pem;
  ssl_certificate_key {{ env "NOMAD_SECRETS_DIR" }}/public.pem;

  # No limit and no buffering of bodies: WebDAV, TUS, server-sent events.
  client_max_body_size 0;
  proxy_request_buffering off;
  proxy_buffering off;
  proxy_http_version 1.1;
  proxy_connect_timeout 2s;
  proxy_read_timeout 1h;
  proxy_send_timeout 1h;
  proxy_next_upstream error timeout;
  proxy_set_header Host $http_host;
  proxy_set_header X-Forwarded-For $remote_addr;
  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header X-Forwarded-Host $http_host;
  proxy_set_header Forwarded "";
  map $http_upgrade $connection_upgrade {
    default upgrade;
    "" "";
  }
  proxy_set_header Upgrade $http_upgrade;
  proxy_set_header Connection $connection_upgrade;

  server {
    listen {{ env "NOMAD_ADDR_metrics" }};
    access_log off;
    location = /health {
      return 200 "ok\n";
    }
    location = /metrics {
      stub_status;
    }
  }
{{- range $s := services }}{{ if $s.Name | regexMatch "^[A-Za-z0-9-]+$" }}{{ range $t := $s.Tags }}{{ if $t | regexMatch "^drover\\.route=[a-z0-9.-]+/[A-Za-z0-9._~/%+-]*$" }}
{{- $host := index ($t | replaceAll "drover.route=" "" | split "/") 0 }}
{{- scratch.MapSet "hosts" $host "y" }}
{{- scratch.MapSet "services" $s.Name "y" }}
{{- end }}{{ end }}{{ end }}{{ end }}
{{- range $name, $_ := scratch.Get "services" }}

  upstream {{ $name }} {
{{- range $s := services }}{{ if eq $s.Name $name }}{{ range $t := $s.Tags }}{{ if eq $t "drover.sticky=cookie" }}
    ip_hash;
{{- end }}{{ end }}{{ end }}{{ end }}
{{- range $i := service $name }}
    server {{ $i.Address }}:{{ $i.Port }} max_fails=0;
{{- else }}
    server 127.0.0.1:9 down;
{{- end }}
  }
{{- end }}

  server {
    listen {{ env "EDGE_BIND_ADDRESS" }}:${var.http_port} default_server;
    # HTTP-01 (RFC 8555, 8.3) without state: whoever holds the account key made
    # the thumbprint, and only they can use the answer.
{{ with nomadVar "drover/acme/public" }}
    location ~ "^/\.well-known/acme-challenge/([-_a-zA-Z0-9]+)$" {
      default_type text/plain;
      return 200 "$1.{{ .thumbprint }}";
    }
{{ end }}
    location / {
      return 308 https://$host%{if var.https_port != 443}:${var.https_port}%{endif}$request_uri;
    }
  }

  server {
    listen {{ env "EDGE_BIND_ADDRESS" }}:${var.https_port} ssl http2 default_server;
    default_type text/plain;
    location / {
      return 404 "No service has a route for this host and path.\n";
    }
  }
{{- range $host, $_ := scratch.Get "hosts" }}

  server {
    listen {{ env "EDGE_BIND_ADDRESS" }}:${var.https_port} ssl http2;
    server_name {{ $host }};
%{if var.hsts_max_age > 0~}
    add_header Strict-Transport-Security max-age=${var.hsts_max_age} always;
%{endif~}
{{- range $s := services }}{{ if $s.Name | regexMatch "^[A-Za-z0-9-]+$" }}
{{- $proto := "http" }}{{ $strip := "" }}
{{- range $t := $s.Tags }}
{{- if eq $t "drover.protocol=https" }}{{ $proto = "https" }}{{ end }}
{{- if $t | regexMatch "^drover\\.strip=/[A-Za-z0-9._~/-]*$" }}{{ $strip = ($t | replaceAll "drover.strip=" "") }}{{ end }}
{{- end }}
{{- range $t := $s.Tags }}{{ if $t | regexMatch (printf "^drover\\.route=%s/[A-Za-z0-9._~/%%+-]*$" $host) }}
    location {{ $t | replaceAll (printf "drover.route=%s" $host) "" }} {
{{- if $strip }}
      rewrite ^{{ $strip }}/?(.*)$ /$1 break;
{{- end }}
      proxy_pass {{ $proto }}://{{ $s.Name }};
    }
{{- end }}{{ end }}{{ end }}{{ end }}
  }
{{- end }}
}
EOT
      }
    }
  }
}
