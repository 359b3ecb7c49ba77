# nginx on every node, with the same tags on services as the stack edge
# (docs/reference/routes.md says which of them nginx does not have).
#
# nginx does not follow DNS SRV records: instances that come and go reload it,
# and a routed service needs a shutdown_delay of 3 s or more.

locals {
  # The rest of the grammar is in _base.nomad.hcl.
  route  = "^drover\\.(?:route=${local.hosts}${local.path}|redirect=${local.hosts}${local.path} 30[12378] ${local.url})$"
  option = "^drover\\.(?:protocol=(?:http|https|h2c)|strip=/[A-Za-z0-9._~/-]*|sticky=cookie|max-body=[1-9][0-9]{0,8}[kmg]?|limit=[1-9][0-9]{0,5}/[sm]|auth=[a-z0-9][a-z0-9-]{0,62}|ca=[a-z0-9][a-z0-9-]{0,62}(?: ${local.host})?|allow=${local.range}(?:,${local.range})*|header=(?:request|response) (?:set [A-Za-z0-9-]+ [!-#%-\\[\\]-~](?:[ !-#%-\\[\\]-~]*[!-#%-\\[\\]-~])?|remove [A-Za-z0-9-]+)|http=(?:redirect|serve)${local.features})$"
}

job "edge" {
  group "edge" {
    task "nginx" {
      kill_signal = "SIGQUIT"

      config {
        args = ["$${NOMAD_TASK_DIR}/run.sh", var.driver == "docker" ? "nginx" : var.binary, "-c", "$${NOMAD_TASK_DIR}/loaded.conf", "-p", "$${NOMAD_TASK_DIR}", "-e", "stderr"]
      }

      # The script makes nginx reload when the files differ from those that it has read.
      # local.reload only triggers a check: if the clock of the node is set back, Nomad
      # reports no change until the time of the last one.
      template {
        destination = "local/run.sh"
        change_mode = "noop"
        data        = <<EOT
cd "$NOMAD_TASK_DIR"
# A file that is written in place would be read half.
put() { cat >"$1.new" && mv "$1.new" "$1"; }
generation() {
  put current.conf <nginx.conf # which Nomad may replace at any time
  newest=$(cat current.conf "$NOMAD_SECRETS_DIR/public.pem" ca/* "$NOMAD_SECRETS_DIR"/ca/* 2>/dev/null | cksum | tr ' ' .)
  printf %s $newest | put newest
}
# nginx reads a copy of nginx.conf that names the generation. When a worker answers a
# health check, it writes to the file worker which one it has.
load() {
  loaded=$newest
  : >worker
  sed "s/@generation@/$newest/g" current.conf | put loaded.conf
}
rm -f reload
printf 1 | put current
generation
load
"$@" &
nginx=$!
trap 'loaded=; : >reload' HUP
trap 'kill -QUIT $nginx' QUIT
trap 'kill -TERM $nginx' TERM INT
late=0
pause=8
while kill -0 $nginx 2>/dev/null; do
  late=$((late + 1))
  if [ -e reload ] || [ $late -ge $pause ]; then
    rm -f reload
    late=0
    generation
    said=$(tail -n 1 worker)
    if [ "$newest" != "$loaded" ]; then
      load
      kill -HUP $nginx
      pause=20
    elif [ -n "$said" ] && [ "$said" != "$newest" ]; then
      # A generation that nginx refuses, or whose signal it lost, is loaded again, at
      # first after 5 s and at last every minute.
      printf 0 | put current
      load
      kill -HUP $nginx
      [ $pause -lt 240 ] && pause=$((pause * 2))
    else
      pause=8
      [ -z "$said" ] || printf 1 | put current
      [ "$(wc -c <worker)" -lt 65536 ] || echo $newest >worker
    fi
  fi
  sleep 0.25
done
wait $nginx
EOT
      }

      # One file for certificate and key: of two, one is read before the other
      # is written.
      template {
        destination = "secrets/public.pem"
        change_mode = "script"
        change_script {
          command = "/bin/sh"
          args    = local.reload
        }
        splay = "0s"
        perms = "0600"
        uid   = var.user == "root" ? 0 : var.uid
        gid   = var.user == "root" ? 0 : var.uid
        wait {
          min = "250ms"
          max = "2s"
        }
        data = "{{ with nomadVar \"drover/certs/${replace(replace(var.certificate, ".", "~"), "*", "~wild")}\" }}{{ .bundle }}{{ end }}\n"
      }

      dynamic "template" {
        for_each = var.client_cas
        iterator = ca
        content {
          destination = "secrets/ca/${ca.value}.pem"
          change_mode = "script"
          change_script {
            command = "/bin/sh"
            args    = local.reload
          }
          splay = "0s"
          perms = "0600"
          uid   = var.user == "root" ? 0 : var.uid
          gid   = var.user == "root" ? 0 : var.uid
          wait {
            min = "250ms"
            max = "2s"
          }
          data = "{{ with nomadVar \"drover/client-ca/${ca.value}\" }}{{ .ca }}{{ end }}\n"
        }
      }

      # Pages have no actions of templates.
      template {
        destination     = "local/pages/maintenance.html"
        change_mode     = "noop"
        left_delimiter  = "<<<drover:"
        right_delimiter = ":drover>>>"
        data            = var.maintenance_page
      }

      dynamic "template" {
        for_each = var.error_pages
        iterator = page
        content {
          destination     = "local/pages/${page.key}.html"
          change_mode     = "noop"
          left_delimiter  = "<<<drover:"
          right_delimiter = ":drover>>>"
          data            = page.value
        }
      }

      # Lists of users: the workers read them at each request.
      dynamic "template" {
        for_each = var.users
        iterator = list
        content {
          destination = "secrets/users/${list.value}"
          change_mode = "noop"
          perms       = "0600"
          uid         = var.uid
          gid         = var.uid
          wait {
            min = "250ms"
            max = "2s"
          }
          data = <<EOT
# A list of users, from a Nomad Variable.
{{- if nomadVarExists "drover/users/${list.value}" }}{{ with nomadVar "drover/users/${list.value}" }}{{ range $user, $hash := . }}
{{- if and ($user | regexMatch `^[A-Za-z0-9._@-]+$`) ($hash.Value | regexMatch `^\$[0-9a-z]+\$[A-Za-z0-9./$=,]+$`) }}
{{ $user }}:{{ $hash }}
{{- end }}{{ end }}{{ end }}{{ end }}
EOT
        }
      }

      # Authorities that certificates of services are verified with.
      dynamic "template" {
        for_each = var.authorities
        iterator = ca
        content {
          destination = "local/ca/${ca.value}.pem"
          change_mode = "script"
          change_script {
            command = "/bin/sh"
            args    = local.reload
          }
          splay = "0s"
          wait {
            min = "250ms"
            max = "2s"
          }
          data = ca.value == "consul" ? "{{ range caRoots }}{{ .RootCertPEM }}\n{{ end }}" : "{{ if nomadVarExists \"drover/ca/${ca.value}\" }}{{ with nomadVar \"drover/ca/${ca.value}\" }}{{ .ca }}{{ end }}{{ end }}\n"
        }
      }

      template {
        destination = "local/nginx.conf"
        change_mode = "script"
        change_script {
          command = "/bin/sh"
          args    = local.reload
        }
        splay = "0s"
        wait {
          min = "250ms"
          max = "2s"
        }
        data = <<EOT
{{- define "tenant" -}}
{{- $tenant := "" -}}
%{for name, t in var.tenants~}
{{- if . | regexMatch `^(?:${length(t.services) == 0 ? "[.]" : join("|", [for n in t.services : replace(n, "*", "[a-z0-9-]*")])})$` }}{{ $tenant = "${name}" }}{{ end -}}
%{endfor~}
{{- scratch.Set "tenant" $tenant -}}
{{- end -}}
{{- /* What is wanted: every service with tags of ours, judged as a whole. */ -}}
{{- scratch.MapSet "maintenance" "" "" -}}
{{- with printf "nomad/jobs/%s/%s" (env "NOMAD_JOB_ID") (env "NOMAD_GROUP_NAME") }}{{ if nomadVarExists . }}{{ with nomadVar . -}}
{{- range $item, $services := . }}{{ if $item | regexMatch `^_maintenance/` }}{{ range $services.Value | split " " }}{{ scratch.MapSet "maintenance" . "on" }}{{ end }}{{ end }}{{ end -}}
{{- end }}{{ end }}{{ end -}}
{{- $input := "" -}}
{{- scratch.MapSet "cas" "none" "-" -}}
%{for ca in var.authorities~}
%{if ca == "consul"~}
{{- scratch.MapSet "cas" "consul" "-" -}}
%{else~}
{{- if nomadVarExists "drover/ca/${ca}" }}{{ scratch.MapSet "cas" "${ca}" "-" }}{{ end -}}
%{endif~}
%{endfor~}
{{- $cas := scratch.Get "cas" -}}
{{- /* Whose routes are whose, and which tags do not count, if a controller decides it. */ -}}
{{- scratch.MapSet "owners" "" "" }}{{ scratch.MapSet "refused" "" "" }}{{ scratch.MapSet "own" "" "" }}{{ $strict := false -}}
{{- with env "NOMAD_JOB_ID" | printf "nomad/jobs/%s/edge" }}{{ if nomadVarExists . }}{{ with nomadVar . }}{{ range $item, $text := . -}}
{{- if $item | regexMatch `^_own/` }}{{ $key := regexReplaceAll `^_own/` "" $item }}{{ scratch.MapSet "own" $key "yes" -}}
{{- range $id := $text.Value | split "\n" }}{{ scratch.MapSet "own" (printf "%s %s" $key $id) "yes" }}{{ end -}}
{{- else if $item | regexMatch `^_` }}{{ if eq $item "_strict" }}{{ $strict = true }}{{ end -}}
{{- else if $item | regexMatch `^!` }}{{ range $line := $text.Value | split "\n" }}{{ scratch.MapSet "refused" (printf "%s %.16s" $item $line) "yes" }}{{ end -}}
{{- else }}{{ range $route := $text.Value | split "\n" }}{{ scratch.MapSet "owners" (printf "%s %s" $route $item) "yes" }}{{ scratch.MapSet "owners" $route "yes" }}{{ end -}}
{{- end }}{{ end }}{{ end }}{{ end }}{{ end -}}
{{- range $service := services -}}
{{- $tags := "." }}{{ range $t := $service.Tags -}}
{{- $route := "" }}{{ if $t | regexMatch `^drover\.(?:route|redirect|sni|tcp)=` -}}
{{- $route = regexReplaceAll `(?s)^drover\.([a-z]+)=([^ ]*).*$` "$1 $2" $t | regexReplaceAll `^(?:route|redirect) ` "http " }}{{ end -}}
{{- if index (scratch.Get "refused") (printf "!%s %.16s" $service.Name ($t | sha256Hex)) -}}
{{- else if and $route (index (scratch.Get "owners") $route) (not (index (scratch.Get "owners") (printf "%s %s" $route $service.Name))) -}}
{{- else if and $route $strict (not (index (scratch.Get "owners") $route)) -}}
{{- else }}{{ $tags = $t | replaceAll "\n" "\t" | printf "%s\n%s" $tags }}{{ end -}}
{{- end }}{{ $s := sprig_dict "Name" $service.Name "Tags" (printf "%s\n." $tags | split "\n") -}}
{{- $classed := false }}{{ $class := false }}{{ range $t := $s.Tags }}{{ if $t | regexMatch `^drover\.class=` }}{{ $classed = true }}{{ if eq $t "drover.class=${var.class}" }}{{ $class = true }}{{ end }}{{ end }}{{ end -}}
%{if var.class == var.default_class~}
{{- if not $classed }}{{ $class = true }}{{ end -}}
%{endif~}
{{- if not $class }}{{ $s = sprig_dict "Name" $service.Name "Tags" (split "\n" ".") }}{{ end -}}
{{- $ours := "" }}{{ $good := $s.Name | regexMatch `${local.name}` }}{{ $tls := "" }}{{ $ca := "" -}}
{{- range $t := $s.Tags }}{{ if $t | regexMatch `^drover\.` -}}
{{- $ours = printf "%s\t%s" $ours $t -}}
{{- if $t | regexMatch `^drover\.(?:route|redirect|tcp|sni)=` -}}
{{- else if gt (len $t) 2000 }}{{ $good = false -}}
{{- else if $t | regexMatch `${local.reserved}` }}{{ $good = false -}}
{{- else if not ($t | regexMatch `${local.option}`) }}{{ $good = false -}}
{{- else if $t | regexMatch `^drover\.forward-auth=` -}}
{{- if not ($t | regexMatch `^drover\.forward-auth=(?:${join("|", var.authenticators)})/`) }}{{ $good = false }}{{ end -}}
{{- else if $t | regexMatch `^drover\.client-cert=` -}}
{{- if not ($t | regexMatch `^drover\.client-cert=(?:${join("|", var.client_cas)})$`) }}{{ $good = false }}{{ end -}}
{{- else if $t | regexMatch `^drover\.(?:weight|canary)=.* service ` -}}
{{- template "tenant" $s.Name }}{{ $tenant := scratch.Get "tenant" }}{{ template "tenant" (regexReplaceAll `^.* ` "" $t) -}}
{{- if ne (scratch.Get "tenant") $tenant }}{{ $good = false }}{{ end -}}
{{- else if $t | regexMatch `^drover\.auth=` -}}
{{- if not ($t | regexMatch `^drover\.auth=(?:${join("|", var.users)})$`) }}{{ $good = false }}{{ end -}}
{{- else if $t | regexMatch `^drover\.protocol=` }}{{ $tls = $t -}}
{{- else if $t | regexMatch `^drover\.ca=` }}{{ $ca = $t -}}
{{- if not (index $cas (regexReplaceAll `^drover\.ca=([^ ]*).*$` "$1" $t)) }}{{ $good = false }}{{ end -}}
{{- end }}{{ end }}{{ end -}}
%{if !var.https_without_ca~}
{{- if and (eq $tls "drover.protocol=https") (not $ca) }}{{ $good = false }}{{ end -}}
%{endif~}
{{- if $ours }}{{ $input = printf "%s%s%s\n" $input $s.Name $ours }}{{ end -}}
{{- $may := `${local.untenanted}` -}}
%{for t in local.tenants~}
{{- if $s.Name | regexMatch `^(?:${t.services})$` }}{{ $may = `^drover\.(?:${t.claims})$` }}{{ end -}}
%{endfor~}
{{- if and $ours $good }}{{ range $t := $s.Tags }}{{ if and (le (len $t) 2000) ($t | regexMatch `${local.route}`) ($t | regexMatch $may) -}}
{{- $value := index ($t | split "=") 1 }}{{ $from := index ($value | split " ") 0 }}{{ $host := index ($from | split "/") 0 -}}
{{- scratch.MapSet "hosts" $host "" -}}
{{- range $o := $s.Tags }}{{ if $o | regexMatch `^drover\.forward-auth=` }}{{ scratch.MapSet (printf "auth.%s" $host) ($o | sha256Hex | printf "%.12s") $o }}{{ else if $o | regexMatch `^drover\.client-cert=` }}{{ scratch.MapSetX "certified" $host (index ($o | split "=") 1) }}{{ end }}{{ end -}}
{{- if $t | regexMatch `^drover\.route=` -}}
{{- scratch.MapSetX "routes" $from $s.Name }}{{ scratch.MapSet "http" $s.Name $s.Tags -}}
{{- if $s.Tags | join "\n" | regexMatch `(?m)^drover\.http=serve$` }}{{ scratch.MapSet "serve" $s.Name "" }}{{ scratch.MapSet "plain" $host "" }}{{ end -}}
{{- else -}}
{{- scratch.MapSetX "routes" $from $t -}}
{{- end -}}
{{- end }}{{ end }}{{ end -}}
{{- end -}}
{{- /* A wildcard must not serve a host of others on the HTTP port. */ -}}
{{- range $host, $_ := scratch.Get "plain" }}{{ if $host | regexMatch `^\*` }}{{ range $other, $_ := scratch.Get "hosts" }}{{ scratch.MapSet "plain" $other "" }}{{ end }}{{ end }}{{ end -}}
{{- /* Whether an instance gets requests: one of another namespace with the same name does not. */ -}}
{{- define "own" -}}
{{- scratch.Set "mine" "" -}}
{{- if .Address | regexMatch `${local.address}` }}{{ scratch.Set "mine" "yes" }}{{ end -}}
{{- if index (scratch.Get "own") (scratch.Get "key") }}{{ if not (index (scratch.Get "own") (printf "%s %.16s" (scratch.Get "key") (.ID | sha256Hex))) }}{{ scratch.Set "mine" "" }}{{ end }}{{ end -}}
{{- end -}}
{{- define "at" }}{{ if .Address | regexMatch `:` }}[{{ .Address }}]{{ else }}{{ .Address }}{{ end }}:{{ .Port }}{{ end -}}
{{- define "challenge" }}
    # Stateless HTTP-01 (RFC 8555, 8.3): only the holder of the account key can use an
    # answer with its thumbprint.
{{- with nomadVar "drover/acme/public" }}
    location ~ "^/\.well-known/acme-challenge/([-_a-zA-Z0-9]+)$" {
      default_type text/plain;
      return 200 "$1.{{ .thumbprint }}";
    }
{{- end }}
{{- end }}
{{- define "fails" }}
{{- $fails := "max_fails=0" }}
{{- range $t := . }}{{ if $t | regexMatch `^drover\.breaker=` }}{{ $fails = regexReplaceAll `^[^=]*=([0-9]+) (.*)$` "max_fails=$1 fail_timeout=$2" $t }}{{ end }}{{ end }}
{{- scratch.Set "fails" $fails }}
{{- end }}
{{- define "before" }}
{{- $next := "" }}
{{- range $t := . }}{{ $f := regexReplaceAll `^[^=]*=` "" $t | split " " }}
{{- if $t | regexMatch `^drover\.timeout=connect ` }}
      {{ scratch.Get "proxy" }}_connect_timeout {{ index $f 1 }};
{{- else if $t | regexMatch `^drover\.timeout=response ` }}
      {{ scratch.Get "proxy" }}_read_timeout {{ index $f 1 }};
      {{ scratch.Get "proxy" }}_send_timeout {{ index $f 1 }};
{{- else if $t | regexMatch `^drover\.retries=` }}
      {{ scratch.Get "proxy" }}_next_upstream_tries {{ index $f 0 | parseInt | add 1 }};
{{- if and (gt (len $f) 1) (not $next) }}{{ $next = index $f 1 | replaceAll "," " http_" | printf " http_%s" }}{{ end }}
{{- else if $t | regexMatch `^drover\.breaker=` }}{{ $next = " http_500 http_502 http_503 http_504" }}
{{- else if $t | regexMatch `^drover\.compress=` }}
      gzip on;
      gzip_proxied any;
      gzip_vary on;
      gzip_types text/plain text/css text/csv text/xml text/javascript text/markdown application/javascript application/json application/manifest+json application/xml application/wasm image/svg+xml;
{{- else if $t | regexMatch `^drover\.cors=` }}
{{- $id := $t | sha256Hex | printf "%.12s" }}
      set $preflight "$request_method:$http_access_control_request_method:$cors_{{ $id }}";
      if ($preflight ~ "^OPTIONS:[^:]+:$") {
        return 403;
      }
      if ($preflight ~ "^OPTIONS:[^:]+:.") {
        add_header Access-Control-Allow-Origin $cors_{{ $id }};
{{- if gt (len $f) 1 }}
        add_header Access-Control-Allow-Credentials true;
{{- end }}
        add_header Access-Control-Allow-Methods $http_access_control_request_method;
        add_header Access-Control-Allow-Headers $http_access_control_request_headers;
        add_header Access-Control-Max-Age 600;
        add_header Vary Origin;
        return 204;
      }
      {{ scratch.Get "proxy" }}_hide_header Access-Control-Allow-Origin;
      {{ scratch.Get "proxy" }}_hide_header Access-Control-Allow-Credentials;
      add_header Access-Control-Allow-Origin $cors_{{ $id }} always;
{{- if gt (len $f) 1 }}
      add_header Access-Control-Allow-Credentials $credentials_{{ $id }} always;
{{- end }}
      add_header Vary Origin always;
{{- end }}
{{- end }}
{{- if $next }}
      {{ scratch.Get "proxy" }}_next_upstream error timeout{{ $next }};
{{- end }}
{{- end }}
{{- define "forward" }}
{{- $before := "" }}
{{- range $t := . }}{{ if $t | regexMatch `^drover\.forward-auth=` }}
{{- $f := $t | split " " }}{{ $id := $t | sha256Hex | printf "%.12s" }}
{{- if $before }}
      deny all; # nginx asks one authenticator, and both have to hold
{{- else }}
      # The authenticator gets the path as the client wrote it.
      if ($odd_path) {
        return 400;
      }
      auth_request /.drover/auth/{{ $id }};
      auth_request_set $auth_status $upstream_status;
      auth_request_set $auth_location $upstream_http_location;
      auth_request_set $auth_cookie $upstream_http_set_cookie;
      error_page 401 = @denied.{{ $id }};
%{for status, page in var.error_pages~}
      error_page ${status} /.drover/pages/${status}.html;
%{endfor~}
{{- if gt (len $f) 1 }}{{ range $i, $h := index $f 1 | split "," }}
      auth_request_set $auth_{{ $id }}_{{ $i }} $upstream_http_{{ $h | toLower | replaceAll "-" "_" }};
      {{ scratch.Get "proxy" }}_set_header {{ $h }} $auth_{{ $id }}_{{ $i }};
{{- end }}{{ end }}
{{- end }}{{ $before = $t }}
{{- end }}{{ end }}
{{- end }}
{{- define "pages" }}
    location @maintenance {
      root {{ env "NOMAD_TASK_DIR" }}/pages;
      add_header Retry-After 300 always;
      add_header Cache-Control no-store always;
      default_type text/html;
      rewrite ^ /maintenance.html break;
    }
%{if length(var.error_pages) > 0~}
    location ^~ /.drover/pages/ {
      internal;
      alias {{ env "NOMAD_TASK_DIR" }}/pages/;
      default_type text/html;
      add_header Cache-Control no-store always;
    }
%{endif~}
{{- end }}
{{- define "question" }}
      proxy_pass_request_body off;
      proxy_read_timeout 5s;
      proxy_send_timeout 5s;
%{for header in [for h in local.spoofable : h if !contains(["X-Forwarded-Method", "X-Forwarded-Uri"], h)]~}
      proxy_set_header ${header} %{if length(var.trusted_proxies) > 0 || contains(["X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port"], header)}$sent_${lower(replace(header, "-", "_"))}%{else}""%{endif};
%{endfor~}
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-Method $request_method;
      proxy_set_header X-Forwarded-Uri $request_uri;
{{- $f := . | split " " }}{{ if gt (len $f) 1 }}{{ range index $f 1 | split "," }}
      proxy_set_header {{ . }} "";
{{- end }}{{ end }}
      proxy_set_header Content-Length "";
      proxy_set_header Connection "";
      proxy_set_header Proxy "";
{{- end }}
{{- define "authenticators" }}
{{- template "pages" }}
{{- if . }}
    # Without the body of a request, and the cookies after the first, of the answer.
    location @denied {
      add_header Set-Cookie $auth_cookie always;
      if ($auth_location) {
        return 302 $auth_location;
      }
      return 401;
    }
    location @redirected {
      return 401;
    }
{{- end }}
{{- range $id, $t := . }}
{{- $to := index (regexReplaceAll `^[^=]*=` "" $t | split " ") 0 }}
    location = /.drover/auth/{{ $id }} {
      internal;
      proxy_pass http://auth.{{ $to }};
      # Only 401 and 403 deny a request, everything else is an error.
      proxy_intercept_errors on;
      error_page 300 301 302 303 307 308 400 402 403 404 405 406 409 410 411 412 413 414 415 416 417 421 422 423 424 425 426 428 429 431 451 500 501 503 505 = @redirected;
{{- template "question" $t }}
    }
    # auth_request has only some headers of an answer. The authenticator is asked again,
    # and the answer is the client's.
    location @denied.{{ $id }} {
      if ($auth_status = "") {
        return 401; # of drover.auth
      }
      rewrite ^ {{ regexReplaceAll `^[^/]*` "" $to }}? break;
      proxy_pass http://auth.{{ index ($to | split "/") 0 }};
      proxy_method GET;
      # nginx would store a body before it asks.
      client_max_body_size 16k;
      recursive_error_pages on;
      error_page 413 = @denied;
      add_header X-Request-ID $request_name always;
%{if var.hsts_max_age > 0~}
      add_header Strict-Transport-Security $hsts always;
%{endif~}
{{- template "question" $t }}
    }
{{- end }}
{{- end }}
{{- define "location" }}
{{- $from := scratch.Get "from" }}{{ $target := scratch.Get "target" }}{{ $path := regexReplaceAll `^[^/]*` "" $from }}
{{- if $target | regexMatch `^drover\.` }}
{{- $f := regexReplaceAll `^[^=]*=` "" $target | split " " }}
    location {{ $path }} {
{{- if and ($path | regexMatch `/$`) (index $f 2 | regexMatch `/$`) }}
      # A rest that begins with a slash would be the name of a host.
      if ($request_uri ~ "^{{ $path | replaceAll "." "\\." | replaceAll "+" "\\+" }}/*(.*)$") {
        return {{ index $f 1 }} "{{ index $f 2 }}$1";
      }
{{- end }}
      return {{ index $f 1 }} "{{ index $f 2 }}";
    }
{{- else }}
{{- $tags := index (scratch.Get "http") $target }}{{ $proto := "http" }}{{ $host := "$http_host" }}
{{- range $t := $tags }}{{ if $t | regexMatch `^drover\.protocol=` }}{{ $proto = regexReplaceAll `^[^=]*=` "" $t }}{{ end }}{{ end }}
{{- scratch.Set "proxy" "proxy" }}{{ if eq $proto "h2c" }}{{ scratch.Set "proxy" "grpc" }}{{ end }}
    location {{ $path }} {
{{- if index (scratch.Get "maintenance") $target }}
      error_page 503 @maintenance;
      return 503;
{{- end }}
{{- range $t := $tags }}
{{- $value := regexReplaceAll `^[^=]*=` "" $t }}{{ $f := $value | split " " }}
{{- if $t | regexMatch `^drover\.allow=` }}
      if ($allowed_{{ $t | sha256Hex | printf "%.12s" }} = 0) {
        return 403;
      }
{{- else if $t | regexMatch `^drover\.auth=` }}
{{- if scratch.Get "auth" }}
      deny all; # nginx asks for one list, and both have to hold
{{- end }}{{ scratch.Set "auth" $value }}
{{- else if $t | regexMatch `^drover\.ca=none$` }}
{{- else if $t | regexMatch `^drover\.ca=` }}{{ scratch.Set "ca" $value }}
{{- else if $t | regexMatch `^drover\.deny=` }}
      if ($denied_{{ $t | sha256Hex | printf "%.12s" }}) {
        return 403;
      }
{{- else if $t | regexMatch `^drover\.limit=` }}{{ scratch.Set "limit" (index ($value | split "/") 0) }}
{{- else if $t | regexMatch `^drover\.max-body=` }}{{ scratch.Set "body" $value }}
{{- else if $t | regexMatch `^drover\.strip=` }}{{ scratch.Set "strip" ($value | trimSuffix "/" | replaceAll "." "\\.") }}
{{- else if $t | regexMatch `^drover\.header=` }}
{{- $name := index $f 2 }}{{ $text := regexReplaceAll `^[^ ]* [^ ]* [^ ]* ?` "" $value | replaceAll "\"" "\\\"" }}
{{- if eq (index $f 0) "response" }}
      {{ scratch.Get "proxy" }}_hide_header {{ $name }};
{{- if $text }}
      add_header {{ $name }} "{{ $text }}" always;
{{- end }}
{{- else if eq ($name | toLower) "host" }}{{ $host = printf "\"%s\"" $text }}
{{- else }}
      {{ scratch.Get "proxy" }}_set_header {{ $name }} "{{ $text }}";
{{- end }}
{{- end }}
{{- end }}
{{- range $t := $tags }}{{ if $t | regexMatch `^drover\.client-cert=` }}
{{- if ne (index (scratch.Get "certified") (index ($from | split "/") 0)) (index ($t | split "=") 1) }}
      return 403; # the host asks for a certificate of other CAs
{{- end }}
      if ($ssl_client_verify != SUCCESS) {
        return 403;
      }
      {{ scratch.Get "proxy" }}_set_header X-Client-Cert-Subject $ssl_client_s_dn;
{{- end }}{{ end }}
{{- template "before" $tags }}
{{- template "forward" $tags }}
{{- with scratch.Get "auth" }}
      auth_basic {{ . }};
      auth_basic_user_file {{ env "NOMAD_SECRETS_DIR" }}/users/{{ . }};
%{if var.passwords_per_source > 0~}
      limit_req zone=passwords burst=${var.passwords_per_source * 10} nodelay;
%{endif~}
{{- end }}
%{if var.connections_per_source > 0~}
      limit_conn connections ${var.connections_per_source};
%{endif~}
%{if var.requests_per_source > 0~}
      limit_req zone=requests burst=${var.requests_per_source * 10} nodelay;
%{endif~}
{{- with scratch.Get "limit" }}
      limit_req zone=limit.{{ $target }} burst={{ . }} nodelay;
{{- end }}
{{- with scratch.Get "body" }}
      client_max_body_size {{ . }};
{{- end }}
{{- $rewrites := $tags | join "\n" | regexMatch `(?m)^drover\.rewrite=` }}
{{- with scratch.Get "strip" }}
      rewrite ^{{ . }}(?:/(.*))?$ /$1{{ if not $rewrites }} break{{ end }};
{{- end }}
{{- range $t := $tags }}{{ if $t | regexMatch `^drover\.rewrite=` }}
{{- $f := regexReplaceAll `^[^=]*=` "" $t | split " " }}
      rewrite "^{{ index $f 0 | replaceAll "." "\\." | replaceAll "**" "@" | replaceAll "*" "([^/]+)" | replaceAll "@" "(.*)" }}$" "{{ index $f 1 | regexReplaceAll `\{([1-9])\}` `$$$1` }}" break;
{{- end }}{{ end }}
{{- if $rewrites }}
      break;
{{- end }}
{{- with scratch.Get "ca" }}
{{- $f := . | split " " }}{{ $peer := printf "%s.service.consul" $target }}{{ if gt (len $f) 1 }}{{ $peer = index $f 1 }}{{ end }}
      proxy_ssl_verify on;
      proxy_ssl_verify_depth 4;
      proxy_ssl_trusted_certificate {{ env "NOMAD_TASK_DIR" }}/ca/{{ index $f 0 }}.pem;
      proxy_ssl_name {{ $peer }};
      proxy_ssl_server_name on;
{{- end }}
{{- scratch.Set "ca" "" }}{{ scratch.Set "auth" "" }}{{ scratch.Set "limit" "" }}{{ scratch.Set "body" "" }}{{ scratch.Set "strip" "" }}
      {{ scratch.Get "proxy" }}_set_header Host {{ $host }};
      {{ scratch.Get "proxy" }}_set_header X-Forwarded-For $remote_addr;
      {{ scratch.Get "proxy" }}_set_header X-Real-IP $remote_addr;
      {{ scratch.Get "proxy" }}_set_header Proxy "";
      {{ scratch.Get "proxy" }}_set_header X-Request-ID $request_name;
      add_header X-Request-ID $request_name always;
      {{ scratch.Get "proxy" }}_set_header traceparent $trace;
      {{ scratch.Get "proxy" }}_set_header tracestate $trace_state;
%{for header in local.spoofable~}
      {{ scratch.Get "proxy" }}_set_header ${header} %{if length(var.trusted_proxies) > 0 || contains(["X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port"], header)}$sent_${lower(replace(header, "-", "_"))}%{else}""%{endif};
%{endfor~}
{{- if eq $proto "h2c" }}
      # The client of a stream may be quiet.
      client_body_timeout 1h;
{{- else }}
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
{{- end }}
%{if var.hsts_max_age > 0~}
      add_header Strict-Transport-Security $hsts always;
%{endif~}
      {{ scratch.Get "proxy" }}_pass {{ if eq $proto "h2c" }}grpc{{ else }}{{ $proto }}{{ end }}://{{ if $tags | join "\n" | regexMatch `(?m)^drover\.(?:weight|canary)=` }}$to_{{ $target | sha256Hex | printf "%.12s" }}{{ else }}{{ $target }}{{ end }};
    }
{{- end }}
{{- end -}}
daemon off;
# The connections of all workers fit the task's memory; each request has two.
worker_processes 4;
worker_shutdown_timeout ${var.hard_stop_after};
pid {{ env "NOMAD_TASK_DIR" }}/nginx.pid;
error_log stderr notice;
events {
  worker_connections ${var.memory * 3};
}
http {
  client_body_temp_path {{ env "NOMAD_TASK_DIR" }}/body;
  proxy_temp_path {{ env "NOMAD_TASK_DIR" }}/proxy;
  fastcgi_temp_path {{ env "NOMAD_TASK_DIR" }}/fastcgi;
  uwsgi_temp_path {{ env "NOMAD_TASK_DIR" }}/uwsgi;
  scgi_temp_path {{ env "NOMAD_TASK_DIR" }}/scgi;
  server_names_hash_bucket_size 512;
  server_names_hash_max_size 4096;
  proxy_headers_hash_bucket_size 128;
  proxy_headers_hash_max_size 2048;

  log_format json escape=json '{"time":"$time_iso8601","client":"$remote_addr","host":"$host","method":"$request_method","path":"$uri","status":$status,"bytes":$bytes_sent,"seconds":$request_time,"backend":"$upstream_addr","tls":"$ssl_protocol","request":"$request_name"}';
%{if var.user == "root"~}
  access_log /dev/stdout json;
%{else~}
  access_log off; # only root may open the pipe that stdout is
%{endif~}
  log_format generation @generation@;
  server_tokens off;

  # Mozilla's intermediate configuration, version 5.7
  ssl_protocols %{if var.tls_min == "1.2"}TLSv1.2 %{endif}TLSv1.3;
  ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305;
  ssl_prefer_server_ciphers off;
  ssl_session_cache shared:tls:10m;
  ssl_session_tickets off;
  ssl_certificate {{ env "NOMAD_SECRETS_DIR" }}/public.pem;
  ssl_certificate_key {{ env "NOMAD_SECRETS_DIR" }}/public.pem;
%{if length(var.accept_proxy) > 0~}
%{for range in var.accept_proxy~}
  set_real_ip_from ${range};
%{endfor~}
  real_ip_header proxy_protocol;
%{else~}
%{for range in var.trusted_proxies~}
  set_real_ip_from ${range};
%{endfor~}
  real_ip_header X-Forwarded-For;
%{endif~}

  # Services believe these headers: only the edge or a trusted proxy may send them.
  geo $realip_remote_addr $trusted {
    default "";
%{for range in var.trusted_proxies~}
    ${range} 1;
%{endfor~}
  }
%{for header in local.spoofable~}
%{if length(var.trusted_proxies) > 0 || contains(["X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port"], header)~}
  map $trusted:$http_${lower(replace(header, "-", "_"))} $sent_${lower(replace(header, "-", "_"))} {
    default ${lookup({ "X-Forwarded-Host" = "$http_host", "X-Forwarded-Proto" = "$scheme", "X-Forwarded-Port" = "$https_or_http_port" }, header, "\"\"")};
    "~^1:(.+)$" $1;
  }
%{endif~}
%{endfor~}
  map $scheme $https_or_http_port {
    https ${var.https_port};
    default ${var.http_port};
  }

  # Paths that services read in different ways.
  map $request_uri $ambiguous {
    default "";
    "~^[^?]*\x5c" 1;
    "~*^(?=[^?]*%(?:2f|5c))[^?]*(?:/|%2f|%5c)(?:\.|%2e){1,2}(?:/|%2f|%5c|\?|$)" 1;
  }
  map $http_x_request_id $request_name {
    default $request_id;
    "~^[A-Za-z0-9._-]{1,128}$" $http_x_request_id;
  }
  # The trace context of W3C: passed on if it is valid.
  map $http_traceparent $traced {
    default "";
    "~^[0-9a-e][0-9a-f]-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$" 1;
  }
  map $traced $trace_state {
    default "";
    1 $http_tracestate;
  }
%{if var.trace_sample >= 0~}
  map $request_id $span {
    "~^(?<first>.{16})" $first;
  }
  split_clients $request_id $sampled {
%{if var.trace_sample > 0~}
    ${var.trace_sample}% 01;
%{endif~}
%{if var.trace_sample < 100~}
    * 00;
%{endif~}
  }
  map $traced $trace {
    default 00-$request_id-$span-$sampled;
    1 $http_traceparent;
  }
%{else~}
  map $traced $trace {
    default "";
    1 $http_traceparent;
  }
%{endif~}

  # Paths that are not in their normal form, for authenticators.
  map $request_uri $odd_path {
    default "";
    "~*^[^?]*(?://|%2f|%5c|/(?:\.|%2e){1,2}(?:/|\?|$))" 1;
  }

  # Of a client in the midst of a message, and of its handshake. While only the
  # service has to say something, proxy_read_timeout counts.
  client_header_timeout ${var.header_timeout};
  client_body_timeout ${var.client_timeout};
  send_timeout ${var.client_timeout};
  limit_conn_status 429;
  limit_req_status 429;
%{if var.connections_per_source > 0~}
  limit_conn_zone $binary_remote_addr zone=connections:5m;
%{endif~}
%{if var.requests_per_source > 0~}
  limit_req_zone $binary_remote_addr zone=requests:5m rate=${var.requests_per_source}r/s;
%{endif~}
%{if var.passwords_per_source > 0~}
  # Only requests with a password count: nginx computes the hash of each.
  map $http_authorization $with_password {
    default $binary_remote_addr;
    "" "";
  }
  limit_req_zone $with_password zone=passwords:5m rate=${var.passwords_per_source}r/s;
%{endif~}
{{- range $name, $tags := scratch.Get "http" }}{{ range $t := $tags }}{{ if $t | regexMatch `^drover\.limit=` }}
  limit_req_zone $binary_remote_addr zone=limit.{{ $name }}:1m rate={{ regexReplaceAll `^[^=]*=` "" $t | replaceAll "/" "r/" }};
{{- break }}{{ end }}{{ end }}{{ end }}

%{for status, page in var.error_pages~}
  error_page ${status} /.drover/pages/${status}.html;
%{endfor~}
  # No limit and no buffering of bodies: WebDAV, TUS, server-sent events.
  client_max_body_size 0;
  proxy_request_buffering off;
  proxy_buffering off;
  proxy_http_version 1.1;
  proxy_connect_timeout 2s;
  proxy_read_timeout 1h;
  proxy_send_timeout 1h;
  proxy_next_upstream error timeout;
  grpc_connect_timeout 2s;
  grpc_read_timeout 1h;
  grpc_send_timeout 1h;
  # A worker that ends closes the HTTP/2 connections it has, but not one whose
  # handshake it is at: that one stays, with instances that will be gone.
  keepalive_time 1m;
  map $http_upgrade $connection_upgrade {
    default upgrade;
    "" "";
  }
%{if var.hsts_max_age > 0~}
  # Only over TLS, and not when the service says so itself.
  map $https$upstream_http_strict_transport_security $hsts {
    on max-age=${var.hsts_max_age};
    default "";
  }
%{endif~}

  server {
    listen {{ env "NOMAD_ADDR_metrics" }};
    access_log off;
    ssi_types application/json text/plain;
    root {{ env "NOMAD_TASK_DIR" }};
    location = /health {
      access_log {{ env "NOMAD_TASK_DIR" }}/worker generation;
      return 200 "ok\n";
    }
    # What run.sh writes, for the two below.
    location = /newest {
      internal;
    }
    location = /current {
      internal;
    }
    location = /stub_status {
%{if var.metrics_users != ""~}
      auth_basic edge;
      auth_basic_user_file {{ env "NOMAD_SECRETS_DIR" }}/users/${var.metrics_users};
%{endif~}
      stub_status;
    }
    # auth_basic is later than return, and try_files is later than auth_basic.
    location = /metrics {
%{if var.metrics_users != ""~}
      auth_basic edge;
      auth_basic_user_file {{ env "NOMAD_SECRETS_DIR" }}/users/${var.metrics_users};
%{endif~}
      try_files /none @metrics;
    }
    location @metrics {
      ssi on;
      default_type text/plain;
      return 200 'edge_generation_current <!--# include virtual="/current" -->
nginx_connections_active $connections_active
nginx_connections_reading $connections_reading
nginx_connections_writing $connections_writing
nginx_connections_waiting $connections_waiting
';
    }
    # What this is, and which tags it was made from, for drover edge status.
    location = /edge {
%{if var.metrics_users != ""~}
      auth_basic edge;
      auth_basic_user_file {{ env "NOMAD_SECRETS_DIR" }}/users/${var.metrics_users};
%{endif~}
      try_files /none @edge;
    }
    location @edge {
      default_type application/json;
      ssi on;
      return 200 '{"edge":"nginx","class":"${var.class}","default_class":"${var.default_class}","generation":{"files":"<!--# include virtual="/newest" -->","worker":"@generation@"},"https":"{{ env "EDGE_BIND_ADDRESS" }}:${var.https_port}","certificates":["${var.certificate}"],"users":${jsonencode(var.users)},"authenticators":${jsonencode(var.authenticators)},"client_cas":${jsonencode(var.client_cas)},"authorities":${jsonencode(var.authorities)},"https_without_ca":${var.https_without_ca},"tcp_ports":[],"tenants":${jsonencode(var.tenants)},"tags":"{{ $input | sha256Hex }}"}';
    }
  }
{{- range $name, $tags := scratch.Get "http" }}
{{- range $t := $tags }}{{ if $t | regexMatch `^drover\.allow=` }}{{ scratch.MapSet "allow" ($t | sha256Hex | printf "%.12s") $t }}{{ else if $t | regexMatch `^drover\.deny=` }}{{ scratch.MapSet "deny" ($t | sha256Hex | printf "%.12s") $t }}{{ else if $t | regexMatch `^drover\.cors=` }}{{ scratch.MapSet "cors" ($t | sha256Hex | printf "%.12s") $t }}{{ end }}{{ end }}

  upstream {{ $name }} {
{{- if $tags | join "\n" | regexMatch `(?m)^drover\.sticky=cookie$` }}
    ip_hash;
{{- end }}
{{- scratch.Set "some" "" }}
{{- range $i := service $name }}{{ scratch.Set "key" $name }}{{ template "own" $i }}{{ if scratch.Get "mine" }}{{ scratch.Set "some" "yes" }}
    server {{ template "at" $i }} {{ template "fails" $tags }}{{ scratch.Get "fails" }};
{{- end }}{{ end }}
{{- if not (scratch.Get "some") }}
    server 127.0.0.1:9 down;
{{- end }}
  }
{{- end }}
{{- range $name, $tags := scratch.Get "http" }}{{ if $tags | join "\n" | regexMatch `(?m)^drover\.(?:weight|canary)=` }}
{{- $id := $name | sha256Hex | printf "%.12s" }}{{ $roll := "$request_id" }}{{ $sum := 0 }}
{{- if $tags | join "\n" | regexMatch `(?m)^drover\.sticky=cookie$` }}{{ $roll = "$remote_addr" }}{{ end }}
{{- range $t := $tags }}{{ if $t | regexMatch `^drover\.(?:weight|canary)=` }}
{{- scratch.Set "query" (regexReplaceAll `^.* service ` "" $t) }}
{{- if $t | regexMatch ` version [^ ]+$` }}{{ scratch.Set "query" (printf "%s.%s" (regexReplaceAll `^.* ` "" $t) $name) }}{{ end }}
{{- $to := regexReplaceAll `^.* (version|service) (.*)$` (printf "%s.$1.$2" $name) $t }}
{{- scratch.Set "key" $name }}{{ if $t | regexMatch ` service [^ ]+$` }}{{ scratch.Set "key" $to }}{{ end }}
{{- range $i := service (scratch.Get "query") }}{{ template "own" $i }}{{ if scratch.Get "mine" }}
{{- scratch.MapSet (printf "to.%s" $name) $to (service (scratch.Get "query")) }}
{{- end }}{{ end }}
{{- end }}{{ end }}
{{- range $to, $instances := scratch.Get (printf "to.%s" $name) }}

  upstream {{ $to }} {
{{- if $tags | join "\n" | regexMatch `(?m)^drover\.sticky=cookie$` }}
    ip_hash;
{{- end }}
{{- scratch.Set "key" $name }}{{ if $to | regexMatch `\.service\.` }}{{ scratch.Set "key" $to }}{{ end }}
{{- range $i := $instances }}{{ template "own" $i }}{{ if scratch.Get "mine" }}
    server {{ template "at" $i }} {{ template "fails" $tags }}{{ scratch.Get "fails" }};
{{- end }}{{ end }}
  }
{{- end }}

  # Of several that hold, the last counts. A target without instances gets nothing.
  split_clients {{ $roll }} $roll_{{ $id }} {
{{- range $t := $tags }}{{ if $t | regexMatch `^drover\.weight=[1-9]` }}
{{- $to := regexReplaceAll `^.* (version|service) (.*)$` (printf "%s.$1.$2" $name) $t }}
{{- $weight := regexReplaceAll `^[^=]*=| .*$` "" $t | parseInt }}
{{- if gt (add $sum $weight) 100 }}{{ $weight = subtract $sum 100 }}{{ end }}
{{- range $there, $_ := scratch.Get (printf "to.%s" $name) }}{{ if and (eq $there $to) (gt $weight 0) }}{{ $sum = add $sum $weight }}
    {{ $weight }}% {{ $to }};
{{- end }}{{ end }}
{{- end }}{{ end }}
{{- if lt $sum 100 }}
    * {{ $name }};
{{- end }}
  }
{{- scratch.Set "last" (printf "roll_%s" $id) }}
{{- range $t := $tags }}{{ if $t | regexMatch `^drover\.canary=` }}
{{- $f := regexReplaceAll `^[^=]*=` "" $t | split " " }}
{{- $to := regexReplaceAll `^.* (version|service) (.*)$` (printf "%s.$1.$2" $name) $t }}
{{- range $there, $_ := scratch.Get (printf "to.%s" $name) }}{{ if eq $there $to }}
  map $${{ if eq (index $f 0) "header" }}http_{{ index $f 1 | toLower | replaceAll "-" "_" }}{{ else }}cookie_{{ index $f 1 }}{{ end }} $canary_{{ $t | sha256Hex | printf "%.12s" }}_{{ $id }} {
    default $${{ scratch.Get "last" }};
    "~^{{ index $f 2 | replaceAll "." "\\." }}$" {{ $to }};
  }
{{- scratch.Set "last" (printf "canary_%s_%s" ($t | sha256Hex | printf "%.12s") $id) }}
{{- end }}{{ end }}
{{- end }}{{ end }}
  map 1 $to_{{ $id }} {
    default $${{ scratch.Get "last" }};
  }
{{- end }}{{ end }}
%{for name in var.authenticators~}

  upstream auth.${name} {
{{- scratch.Set "some" "" }}{{ scratch.Set "key" "${name}" }}
{{- range $i := service "${name}" }}{{ template "own" $i }}{{ if scratch.Get "mine" }}{{ scratch.Set "some" "yes" }}
    server {{ template "at" $i }} max_fails=0;
{{- end }}{{ end }}
{{- if not (scratch.Get "some") }}
    server 127.0.0.1:9 down;
{{- end }}
  }
%{endfor~}
{{- range $id, $tag := scratch.Get "deny" }}

  geo $denied_{{ $id }} {
    default "";
{{- range regexReplaceAll `^[^=]*=` "" $tag | split "," }}
    {{ . }} 1;
{{- end }}
  }
{{- end }}
{{- range $id, $tag := scratch.Get "cors" }}
{{- $origins := index (regexReplaceAll `^[^=]*=` "" $tag | split " ") 0 | split "," }}

  map $http_origin $cors_{{ $id }} {
    default "";
{{- range $origins }}
    {{ if eq . "*" }}~. *{{ else }}"~^{{ . | replaceAll "." "\\." }}$" $http_origin{{ end }};
{{- end }}
  }
  map $cors_{{ $id }} $credentials_{{ $id }} {
    default "";
    ~. true;
  }
{{- end }}
{{- range $name, $tag := scratch.Get "allow" }}

  geo $allowed_{{ $name }} {
    default 0;
{{- range regexReplaceAll `^[^=]*=` "" $tag | split "," }}
    {{ . }} 1;
{{- end }}
  }
{{- end }}

  server {
    listen {{ env "EDGE_BIND_ADDRESS" }}:${var.http_port}%{if length(var.accept_proxy) > 0} proxy_protocol%{endif} default_server;
{{- template "challenge" }}
    location / {
      return 308 https://$host%{if var.https_port != 443}:${var.https_port}%{endif}$request_uri;
    }
  }

  server {
    listen {{ env "EDGE_BIND_ADDRESS" }}:${var.https_port} ssl http2%{if length(var.accept_proxy) > 0} proxy_protocol%{endif} default_server;
    default_type text/plain;
{{- template "pages" }}
    location / {
%{if contains(keys(var.error_pages), "404")~}
      return 404;
%{else~}
      return 404 "No service has a route for this host and path.\n";
%{endif~}
    }
  }
{{- range $host, $_ := scratch.Get "plain" }}

  server {
    listen {{ env "EDGE_BIND_ADDRESS" }}:${var.http_port}%{if length(var.accept_proxy) > 0} proxy_protocol%{endif};
    server_name {{ $host }};
    if ($ambiguous) {
      return 400;
    }
{{- template "challenge" }}
{{- template "authenticators" (scratch.Get (printf "auth.%s" $host)) }}
{{- $all := false }}
{{- range $from, $target := scratch.Get "routes" }}{{ if eq (index ($from | split "/") 0) $host }}
{{- $path := regexReplaceAll `^[^/]*` "" $from }}{{ if eq $path "/" }}{{ $all = true }}{{ end }}
{{- $serve := false }}{{ range $name, $_ := scratch.Get "serve" }}{{ if eq $name $target }}{{ $serve = true }}{{ end }}{{ end }}
{{- if $serve }}{{ scratch.Set "from" $from }}{{ scratch.Set "target" $target }}
{{- template "location" }}
{{- else }}
    location {{ $path }} {
      return 308 https://$host%{if var.https_port != 443}:${var.https_port}%{endif}$request_uri;
    }
{{- end }}
{{- end }}{{ end }}
{{- if not $all }}
    location / {
      return 308 https://$host%{if var.https_port != 443}:${var.https_port}%{endif}$request_uri;
    }
{{- end }}
  }
{{- end }}
{{- range $host, $_ := scratch.Get "hosts" }}

  server {
    listen {{ env "EDGE_BIND_ADDRESS" }}:${var.https_port} ssl http2%{if length(var.accept_proxy) > 0} proxy_protocol%{endif};
    server_name {{ $host }};
{{- range $certified, $ca := scratch.Get "certified" }}{{ if eq $certified $host }}
    ssl_client_certificate {{ env "NOMAD_SECRETS_DIR" }}/ca/{{ $ca }}.pem;
    ssl_verify_client optional;
    ssl_verify_depth 4;
{{- end }}{{ end }}
    if ($ambiguous) {
      return 400;
    }
{{- template "authenticators" (scratch.Get (printf "auth.%s" $host)) }}
{{- $all := false }}
{{- range $from, $target := scratch.Get "routes" }}{{ if eq (index ($from | split "/") 0) $host }}
{{- if eq (regexReplaceAll `^[^/]*` "" $from) "/" }}{{ $all = true }}{{ end }}
{{- scratch.Set "from" $from }}{{ scratch.Set "target" $target }}
{{- template "location" }}
{{- end }}{{ end }}
{{- if not $all }}
    location / {
      default_type text/plain;
%{if contains(keys(var.error_pages), "404")~}
      return 404;
%{else~}
      return 404 "No service has a route for this host and path.\n";
%{endif~}
    }
{{- end }}
  }
{{- end }}
}
EOT
      }
    }
  }
}
