# HAProxy on every node. Any service in Consul is routed by its tags:
#
#   drover.route=HOST/PATH   the host in lower case, and every path that begins
#                            so; the longest path wins. Repeatable.
#   drover.protocol=https    what the service speaks: http (when it says
#                            nothing), https (its certificate is not verified)
#                            or h2c.
#   drover.strip=/PREFIX     remove this from the path before passing it on.
#   drover.sticky=cookie     a client stays with the instance that it met first.
#
# Instances come and go by DNS SRV records, without a reload. A new route, a
# renewed certificate or a new ACME account reloads: the old worker finishes
# what it has.

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

    task "haproxy" {
      driver = var.driver
      user   = var.user

      kill_signal  = "SIGUSR1"
      kill_timeout = "30s"

      config {
        image        = var.driver == "docker" ? var.image : null
        network_mode = var.driver == "docker" ? "host" : null
        command      = var.driver == "docker" ? "haproxy" : var.binary
        args         = ["-W", "-db", "-f", "$${NOMAD_TASK_DIR}/haproxy.cfg"]
      }

      resources {
        cpu    = 200
        memory = 256
      }

      # Templates see variables of the node only through the environment.
      env {
        EDGE_BIND_ADDRESS = var.bind_address
      }

      # One file for certificate and key, one for all routes: of two, one is
      # read before the other is written.
      dynamic "template" {
        for_each = var.certificates
        iterator = certificate
        content {
          destination   = "secrets/certs/${format("%02d", certificate.key)}-${certificate.value}.pem"
          change_mode   = "signal"
          change_signal = "SIGUSR2"
          splay         = "0s"
          perms         = "0600"
          uid           = var.user == "root" ? 0 : var.uid
          gid           = var.user == "root" ? 0 : var.uid
          wait {
            min = "250ms"
            max = "2s"
          }
          data = "{{ with nomadVar \"drover/certs/${certificate.value}\" }}{{ .bundle }}{{ end }}\n"
        }
      }

      template {
        destination   = "local/haproxy.cfg"
        change_mode   = "signal"
        change_signal = "SIGUSR2"
        splay         = "0s"
        wait {
          min = "250ms"
          max = "2s"
        }
        data = <<EOT
global
  log stdout format raw local0 info
  hard-stop-after ${var.hard_stop_after}
%{if var.user == "root"~}
  uid ${var.uid}
  gid ${var.uid}
%{endif~}
  # Mozilla's intermediate configuration, version 5.7
  ssl-default-bind-ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:DHE-RSA-CHACHA20-POLY1305
  ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256
  ssl-default-bind-options prefer-client-ciphers ssl-min-ver TLSv1.2 no-tls-tickets
  tune.ssl.default-dh-param 2048

resolvers consul
  nameserver local 127.0.0.1:{{ env "attr.consul.dns.port" }}
  accepted_payload_size 8192
  timeout resolve 500ms
  timeout retry 500ms
  hold valid 250ms
  hold nx 1s
  hold obsolete 0s
  hold other 24h
  hold refused 24h
  hold timeout 24h

defaults
  mode http
  log global
  option dontlognull
  option idle-close-on-response
  option redispatch
  retries 3
  retry-on conn-failure empty-response
  timeout connect 2s
  timeout http-request 30s
  timeout http-keep-alive 1m
  timeout client 1h
  timeout server 1h
  timeout tunnel 24h
  # No limit and no buffering of bodies: WebDAV, TUS, server-sent events.
  log-format '{"time":"%T","client":"%ci","host":"%[var(txn.host),json(utf8s)]","method":"%HM","path":"%[var(txn.path),json(utf8s)]","status":%ST,"bytes":%B,"ms":%Ta,"backend":"%b","server":"%s","tls":"%sslv","end":"%ts"}'

frontend metrics
  bind {{ env "NOMAD_ADDR_metrics" }}
  no log
  monitor-uri /health
  http-request use-service prometheus-exporter if { path /metrics }

frontend http
  bind {{ env "EDGE_BIND_ADDRESS" }}:${var.http_port}
  http-request set-var(txn.host) req.hdr(host),field(1,:),lower
  http-request set-var(txn.path) path
  # HTTP-01 (RFC 8555, 8.3) without state: whoever holds the account key made
  # the thumbprint, and only they can use the answer.
{{ with nomadVar "drover/acme/public" }}
  http-request return status 200 content-type text/plain lf-string "%[path,field(4,/)].{{ .thumbprint }}" if { path_beg /.well-known/acme-challenge/ }
{{ end }}
  http-request redirect code 308 location https://%[var(txn.host)]%{if var.https_port != 443}:${var.https_port}%{endif}%[capture.req.uri]

frontend https
  bind {{ env "EDGE_BIND_ADDRESS" }}:${var.https_port} ssl crt {{ env "NOMAD_SECRETS_DIR" }}/certs/ alpn h2,http/1.1
  http-request set-var(txn.host) req.hdr(host),field(1,:),lower
  http-request set-var(txn.path) path
  http-request set-var(txn.route) var(txn.host),concat(,txn.path)
  http-request del-header X-Forwarded-For
  http-request del-header Forwarded
  option forwardfor
  http-request set-header X-Forwarded-Proto https
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
%{if var.hsts_max_age > 0~}
  http-response set-header Strict-Transport-Security max-age=${var.hsts_max_age}
%{endif~}
{{- range $s := services }}{{ if $s.Name | regexMatch "^[A-Za-z0-9-]+$" }}{{ range $t := $s.Tags }}{{ if $t | regexMatch "^drover\\.route=[a-z0-9.-]+/[A-Za-z0-9._~/%+-]*$" }}
{{- scratch.MapSet "routes" ($t | replaceAll "drover.route=" "") $s.Name }}
{{- end }}{{ end }}{{ end }}{{ end }}
  # In the order of the alphabet, so that the last one that fits is the longest.
{{- range $route, $service := scratch.Get "routes" }}
  http-request set-var(txn.backend) str({{ $service }}) if { var(txn.route) -m beg {{ $route }} }
{{- end }}
  use_backend %[var(txn.backend)] if { var(txn.backend) -m found }
  default_backend no-route

backend no-route
  http-request return status 404 content-type text/plain string "No service has a route for this host and path.\n"
{{- range $s := services }}
{{- $routed := false }}{{ $proto := "http" }}{{ $strip := "" }}{{ $sticky := "" }}
{{- range $t := $s.Tags }}
{{- if $t | regexMatch "^drover\\.route=[a-z0-9.-]+/[A-Za-z0-9._~/%+-]*$" }}{{ $routed = ($s.Name | regexMatch "^[A-Za-z0-9-]+$") }}{{ end }}
{{- if $t | regexMatch "^drover\\.protocol=(http|https|h2c)$" }}{{ $proto = ($t | replaceAll "drover.protocol=" "") }}{{ end }}
{{- if $t | regexMatch "^drover\\.strip=/[A-Za-z0-9._~/-]*$" }}{{ $strip = ($t | replaceAll "drover.strip=" "") }}{{ end }}
{{- if eq $t "drover.sticky=cookie" }}{{ $sticky = "yes" }}{{ end }}
{{- end }}
{{- if $routed }}

backend {{ $s.Name }}
  balance leastconn
{{- if $strip }}
  http-request set-path %[path,regsub(^{{ $strip }}/?,/)]
{{- end }}
{{- if $sticky }}
  dynamic-cookie-key {{ $s.Name }}
  cookie drover insert indirect nocache httponly secure dynamic
{{- end }}
  server-template s 8 _{{ $s.Name }}._tcp.service.consul resolvers consul resolve-opts allow-dup-ip init-addr none check inter 500ms fall 2 rise 1{{ if eq $proto "https" }} ssl verify none{{ end }}{{ if eq $proto "h2c" }} proto h2{{ end }}
{{- end }}
{{- end }}
EOT
      }
    }
  }
}
