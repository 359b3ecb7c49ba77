# HAProxy on every node. Any service in Consul is routed by its tags
# (docs/reference/routes.md). An invalid tag affects only the routes of its own
# service; 'drover edge status' shows it.
#
# Instances come and go, routes of a known service change, and certificates are
# renewed, without a reload. A new service, another option or a new ACME account
# reloads: the old worker finishes what it has.

locals {
  # Half a TLS handshake holds 46 KiB, a connection with 32 stalled requests 50 KiB, and
  # 38 KiB more in the kernel.
  connections = var.memory * 6
  # HAProxy counts idle connections too, and takes no others in their place.
  per_source = min(var.connections_per_source, var.memory)

  # The rest of the grammar is in _base.nomad.hcl.
  route  = "^drover\\.(?:route=${local.hosts}${local.path}|redirect=${local.hosts}${local.path} 30[12378] ${local.url}|tcp=[1-9][0-9]{0,4}|sni=${local.hosts})$"
  option = "^drover\\.(?:protocol=(?:http|https|h2c)|strip=/[A-Za-z0-9._~/-]*|sticky=cookie|max-body=[1-9][0-9]{0,8}[kmg]?|limit=[1-9][0-9]{0,5}/[sm]|auth=[a-z0-9][a-z0-9-]{0,62}|ca=[a-z0-9][a-z0-9-]{0,62}(?: ${local.host})?|allow=${local.range}(?:,${local.range})*|header=(?:request|response) (?:set [A-Za-z0-9-]+ [!-#%-\\[\\]-~](?:[ !-#%-\\[\\]-~]*[!-#%-\\[\\]-~])?|remove [A-Za-z0-9-]+)|http=(?:redirect|serve)${local.features}|send-proxy=v[12]|timeout=tunnel [1-9][0-9]{0,4}[smh])$"
}

job "edge" {
  group "edge" {
    network {
      dynamic "port" {
        for_each = var.tcp_ports
        labels   = ["tcp-${port.value}"]
        content {
          static = port.value
        }
      }
    }

    task "haproxy" {
      kill_signal = "SIGUSR1"

      config {
        args = ["$${NOMAD_TASK_DIR}/run.sh", "$${NOMAD_TASK_DIR}/haproxy.pid", var.driver == "docker" ? "haproxy" : var.binary, "-W", "-db", "-f", "$${NOMAD_TASK_DIR}/loaded.cfg", "-f", "$${NOMAD_SECRETS_DIR}/users.cfg"]
      }

      # One file for certificate and key, one for all routes: of two, one is
      # read before the other is written.
      dynamic "template" {
        for_each = var.certificates
        iterator = certificate
        content {
          destination = "secrets/certs/${format("%02d", certificate.key)}-${replace(certificate.value, "*", "~wild")}.pem"
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
          data = "{{ with nomadVar \"drover/certs/${replace(replace(certificate.value, ".", "~"), "*", "~wild")}\" }}{{ .bundle }}{{ end }}\n"
        }
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

      # HAProxy loses a SIGUSR2 that arrives at the end of a reload, and would serve the
      # old certificate until the next change. The script sends one whenever the files
      # differ from those that HAProxy has read. local.reload only triggers a check: if
      # the clock of the node is set back, Nomad reports no change until the time of the
      # last one.
      template {
        destination = "local/run.sh"
        change_mode = "noop"
        data        = <<EOT
pid_file=$1
shift
cd "$(dirname "$pid_file")"
certs=$NOMAD_SECRETS_DIR/certs
next=$NOMAD_SECRETS_DIR/next
# A file that is written in place would be read half.
put() { cat >"$1.new" && mv "$1.new" "$1"; }
# Lines that begin with "#: " are the map of routes. They are in haproxy.cfg, so that
# routes and backends are of one moment.
map() { sed -n 's/^#: //p' current.cfg; }
# The generation of the files: first of what only a reload loads, then of the rest.
generation() {
  put current.cfg <haproxy.cfg # which Nomad may replace at any time
  configuration=$(grep -v '^#: ' current.cfg | cat - "$NOMAD_SECRETS_DIR/users.cfg" ca/* "$NOMAD_SECRETS_DIR"/ca/* 2>/dev/null | cksum | tr ' ' .)
  newest=$configuration-$( (map; cat "$certs"/*) | cksum | tr ' ' .)
  echo $newest | put newest
}
# HAProxy reads a copy of haproxy.cfg that names the generation, so that a worker
# can say which one it has. The other files are never older than it says. Each
# generation has a map of its own: a HAProxy that starts slowly reads the one that
# belongs to its configuration, and the whole of it.
load() {
  rm -f worker
  first=routes.$newest.map
  map | put "$first"
  put routes.map <"$first"
  cksum "$certs"/* >loaded.certs
  sed "s/@generation@/$newest/g" current.cfg | put loaded.cfg
}
confirmed() { [ "$(cat worker 2>/dev/null)" = "$newest" ]; }
await() {
  for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    sleep 0.25
    confirmed && return 0
  done
  return 1
}
# The former maps are of no use once a worker has the newest files.
settle() {
  reloading=no
  for map in routes.*.map; do
    [ "$map" = "$first" ] || rm -f "$map"
  done
}
check() {
  echo "Checking whether HAProxy takes its files" >&2
  "$@" -c >/dev/null
}
# The worker takes routes (commit map) and renewed certificates (set ssl cert) while
# it runs, if it has the configuration: a worker from before a refused reload may say so
# late. It cannot read the files of root, so that it gets a copy for as long as it needs
# it.
renew() {
  confirmed && return 0
  [ "$(cut -d - -f 1 worker 2>/dev/null)" = "$configuration" ] || return 1
  (umask 077 && mkdir -p "$next") || return 1
  echo $newest >renew.new
  map >routes.new
  [ "$(cksum <routes.new)" = "$(cksum <routes.map)" ] || echo routes >>renew.new
  mv routes.new routes.map
  cksum "$certs"/* | grep -vxFf loaded.certs | while read -r sum size file; do
    (umask 077 && grep . "$file" >"$next/$${file##*/}")
    echo $${file##*/} >>renew.new
  done
%{if var.user == "root"~}
  chown -R ${var.uid} "$next"
%{endif~}
  mv renew.new renew
  await
  done=$?
  rm -rf renew "$next"
  [ $done = 0 ] && cksum "$certs"/* >loaded.certs
  return $done
}
# With a key that clients could guess, they could choose their instance.
EDGE_COOKIE_KEY=$(cat "$NOMAD_SECRETS_DIR/cookie_key" 2>/dev/null)
export EDGE_COOKIE_KEY="$${EDGE_COOKIE_KEY:-$NOMAD_ALLOC_ID}"
# A process that is replaced has a successor as long as this file is there.
: >successor
rm -rf reload renew "$next" "$pid_file"
generation
load
"$@" -p "$pid_file" &
haproxy=$!
trap ': >worker; : >reload' USR2
trap 'rm -f successor; kill -USR1 $haproxy' USR1
trap 'rm -f successor; kill -TERM $haproxy' TERM INT
late=0
pause=8
started=0
reloading=no # and not confirmed by a worker
while kill -0 $haproxy 2>/dev/null; do
  late=$((late + 1))
  # A signal ends a HAProxy that is still starting: it writes its pid when it takes
  # signals.
  [ $started -lt 4 ] && [ -s "$pid_file" ] && started=$((started + 1))
  if [ -e reload ] || [ $late -ge $pause ]; then
    rm -f reload
    late=0
    asked=$newest
    generation
    # A generation that HAProxy refuses, or whose signal it lost, is loaded again,
    # at first after 2 s and at last every minute.
    [ "$newest" = "$asked" ] && [ $pause -lt 240 ] && pause=$((pause * 2))
    [ "$newest" = "$asked" ] || pause=8
    if [ $started -lt 4 ] || confirmed || renew; then
      pause=8
      [ "$reloading" = no ] || ! confirmed || settle
    else
      load
      # HAProxy counts the reloads that it refuses too: the first good one after nine of
      # them would end the worker with all its connections (mworker-max-reloads).
      if [ "$reloading" = no ] || check "$@"; then
        reloading=yes
        kill -USR2 $haproxy
        await && pause=8 && settle
      fi
    fi
  fi
  sleep 0.25
done
wait $haproxy
EOT
      }

      # A process that has just started does not know the servers for some
      # milliseconds, and a service that may run only once has none while it is
      # replaced. A request waits for one.
      #
      # A replaced process gets no more updates of servers, and counts none. It forwards
      # requests on idle connections of clients to its successor.
      template {
        destination = "local/edge.lua"
        change_mode = "noop"
        data        = <<EOT
local function yes(value)
  return value == true or value == 1
end

local function await(txn)
  local till = core.now().sec + 5
  while txn.f:nbsrv() == 0 and not yes(txn.f:stopping()) and core.now().sec < till do
    core.msleep(10)
  end
end
core.register_action("await_server", { "http-req", "tcp-req" }, await)

-- segments takes a path apart as services read it: decoded, without empty and
-- dot segments. It returns nil for a path that services read in different ways.
local function segments(path)
  if path:sub(1, 1) ~= "/" or path:find("\\", 1, true) or path:gsub("%%%x%x", ""):find("%", 1, true) or path:find("%00", 1, true) then
    return nil
  end
  local hidden = path:find("%%2[fF]") or path:find("%%5[cC]")
  local text = path:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
  local out, dots = {}, false
  for segment in text:gmatch("[^/]+") do
    for part in (segment .. "\\"):gmatch("([^\\]*)\\") do
      dots = dots or part == "." or part == ".."
    end
    if segment == ".." then
      if #out == 0 then
        return nil
      end
      table.remove(out)
    elseif segment ~= "." then
      table.insert(out, segment)
    end
  end
  if hidden and dots then
    return nil
  end
  if #out > 0 and (text:sub(-1) == "/" or text:find("/%.%.?$")) then
    table.insert(out, "")
  end
  return out
end
core.register_converters("normal_path", function(path)
  local found = segments(path)
  return found and "/" .. table.concat(found, "/") or ""
end)
core.register_converters("encoded_path", function(path)
  local found = segments(path) or {}
  for i, segment in ipairs(found) do
    found[i] = segment:gsub("[^%w%-%._~!$&'()*+,;=:@]", function(c) return string.format("%%%02X", c:byte()) end)
  end
  return "/" .. table.concat(found, "/")
end)

local directory = os.getenv("NOMAD_TASK_DIR")
local secrets = os.getenv("NOMAD_SECRETS_DIR")
local generation = os.getenv("EDGE_GENERATION") or "" -- of the files that this worker has

local function read(path)
  local file = io.open(path)
  if not file then
    return ""
  end
  local text = file:read("a") or ""
  file:close()
  return text
end
local function confirm()
  local file = io.open(directory .. "/worker", "w")
  if file then
    file:write(generation)
    file:close()
  end
end
local function newest()
  return (read(directory .. "/newest"):gsub("%s", ""))
end
-- The map of routes that this worker begins with, and its name in HAProxy from then on.
local routes = directory .. "/routes." .. generation .. ".map"
-- The tags from which the routes are made.
local function digest(map)
  return map:match("# tags (%x+)") or ""
end
local tags = digest(read(routes))
core.register_fetches("generation", function() return generation end)
core.register_fetches("newest", newest)
core.register_fetches("tags", function() return tags end)


-- wild_host returns the wildcard with routes that covers a host, of several the longest,
-- and the host itself if none does.
local hosts = Map.new(routes, Map._str)
core.register_converters("wild_host", function(host)
  local below = host:match("^[^.]*(%..+)$")
  while below do
    if hosts:lookup("*" .. below) then
      return "*" .. below
    end
    below = below:match("^%.[^.]*(%..+)$")
  end
  return host
end)

local function admin(command)
  local socket = core.tcp()
  socket:settimeout(2)
  if not socket:connect("unix@admin.sock") then
    return ""
  end
  socket:send(command .. "\n")
  local answer = socket:receive("*a")
  socket:close()
  return answer or ""
end
local function renew(name)
  local bundle = read(secrets .. "/next/" .. name)
  local certificate = secrets .. "/certs/" .. name
  if bundle == "" or not admin("set ssl cert " .. certificate .. " <<\n" .. bundle):find("Transaction") then
    return false
  end
  if admin("commit ssl cert " .. certificate):find("Success!") then
    return true
  end
  admin("abort ssl cert " .. certificate)
  return false
end

-- Replaces the map of routes by the newest. All routes change at the commit.
local function route()
  local map = read(directory .. "/routes.map")
  local version = admin("prepare map " .. routes):match("New version created: (%d+)")
  if not version then
    return false
  end
  local lines, size = {}, 0
  local function add()
    local answer = #lines == 0 and "" or admin("add map @" .. version .. " " .. routes .. " <<\n" .. table.concat(lines, "\n") .. "\n")
    lines, size = {}, 0
    return not answer:find("%S")
  end
  for line in map:gmatch("[^\n]+") do
    if line:sub(1, 1) ~= "#" then
      -- A command has to fit a buffer of 16 KiB.
      if size + #line > 8000 and not add() then
        return false
      end
      table.insert(lines, line)
      size = size + #line + 1
    end
  end
  if not add() or admin("commit map @" .. version .. " " .. routes):find("%S") then
    return false
  end
  tags = digest(map)
  return true
end

-- Confirms to run.sh what this worker has loaded, and renews its routes and
-- certificates.
core.register_task(function()
  local done = ""
  confirm()
  while tonumber(core.get_info().Stopping) ~= 1 do
    core.msleep(200)
    local request = read(directory .. "/renew")
    if request ~= "" and request ~= done then
      done = request
      local wanted, all = nil, true
      for line in request:gmatch("%S+") do
        if not wanted then
          wanted = line
          if wanted:match("^[^-]*") ~= generation:match("^[^-]*") then
            all = false -- it is for a worker with another configuration
            break
          end
        elseif line == "routes" then
          all = route() and all
        else
          all = renew(line) and all
        end
      end
      if all then
        generation = wanted
        confirm()
      end
    end
  end
end)

-- The server worker of the backend edge.generation is in maintenance while this
-- worker does not have the newest files: a metric that HAProxy exports.
core.register_task(function()
  local current, behind = true, 0
  while tonumber(core.get_info().Stopping) ~= 1 do
    core.msleep(1000)
    behind = newest() == generation and 0 or behind + 1
    local server = core.backends["edge.generation"].servers["worker"]
    if (behind < 5) ~= current then
      current = behind < 5
      if current then
        server:set_ready()
      else
        server:set_maint()
      end
    end
  end
end)

-- The servers of the backend edge.memory are in maintenance while the buffers and
-- connections of HAProxy, and of the kernel for it, take more than a quarter (short)
-- or a half (full) of the task's memory, or of the file descriptors. OpenSSL, the
-- configuration and old workers need the rest.
core.register_task(function()
  local total = tonumber(os.getenv("EDGE_MEMORY"))
  local up = { short = true, full = true }
  local idle = 0 -- tasks that are there without a client: one for each server, and some
  for _, backend in pairs(core.backends) do
    for _ in pairs(backend.servers) do
      idle = idle + 2
    end
  end
  while tonumber(core.get_info().Stopping) ~= 1 do
    core.msleep(100)
    local info = core.get_info()
    -- A request or connection has two tasks, and about 6 KB in the kernel.
    local open = math.max(tonumber(info.Tasks) - idle, 0) / 2
    local used = math.max((tonumber(info.PoolUsed_MB) + open * 0.006) / total, open / tonumber(info["Ulimit-n"]))
    for name, share in pairs({ short = 0.25, full = 0.5 }) do
      -- It is up again when a tenth less is used, so that it does not flap.
      local ok = used < share * (up[name] and 1 or 0.9)
      if ok ~= up[name] then
        up[name] = ok
        local server = core.backends["edge.memory"].servers[name]
        if ok then
          server:set_ready()
        else
          server:set_maint()
        end
      end
    end
  end
end)

local function successor()
  local file = io.open(directory .. "/successor")
  if file then
    file:close()
  end
  return file ~= nil
end
core.register_fetches("succeeded", function(txn)
  return yes(txn.f:stopping()) and successor() and 1 or 0
end)

-- Without a successor, nothing listens until this process has ended. It waits for
-- requests and not for idle connections: a client that sent a request in the last
-- second got the answer with "Connection: close".
core.register_task(function()
  local quiet = 0
  while quiet < 10 do
    core.msleep(100)
    if tonumber(core.get_info().Stopping) ~= 1 or successor() then
      quiet = 0
    else
      quiet = quiet + 1
      for _, backend in pairs(core.backends) do
        if backend:get_stats().scur > 0 then
          quiet = 0
        end
      end
    end
  end
  os.exit(0)
end)
EOT
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
          destination     = "local/pages/${page.key}.http"
          change_mode     = "noop"
          left_delimiter  = "<<<drover:"
          right_delimiter = ":drover>>>"
          data            = "HTTP/1.1 ${page.key} ${lookup({ "400" = "Bad Request", "403" = "Forbidden", "404" = "Not Found", "408" = "Request Timeout", "413" = "Payload Too Large", "429" = "Too Many Requests", "500" = "Internal Server Error", "502" = "Bad Gateway", "503" = "Service Unavailable", "504" = "Gateway Timeout" }, page.key, "Error")}\r\nCache-Control: no-store\r\nContent-Type: text/html; charset=utf-8\r\n\r\n${page.value}"
        }
      }

      # forward_auth asks an authenticator about a request, as Traefik's ForwardAuth.
      # 2xx lets it pass, with the headers that the tag names. Any other answer is the
      # client's.
      template {
        destination = "local/ingress.lua"
        change_mode = "noop"
        data        = <<EOT
-- Headers of a message or a connection, and those that the edge sets.
local own = {}
for name in ("connection content-length expect host keep-alive proxy-connection te trailer transfer-encoding upgrade x-forwarded-method x-forwarded-uri"):gmatch("%S+") do
  own[name] = true
end

-- ask sends a request to an authenticator. It returns nil if that does not answer.
-- Headers that it is to set are not the client's to send.
local function ask(txn, service, path, copied)
  local socket = core.tcp()
  socket:settimeout(15)
  if not socket:connect("unix@auth." .. service .. ".sock") then
    return nil
  end
  local query = txn.sf:query()
  local lines = {
    "GET " .. path .. " HTTP/1.0", "Host: " .. txn.sf:req_hdr("host"),
    "X-Forwarded-Method: " .. txn.sf:method(),
    "X-Forwarded-Uri: " .. txn:get_var("txn.uri") .. (query ~= "" and "?" .. query or ""),
  }
  for name, values in pairs(txn.http:req_get_headers()) do
    for _, value in pairs(values) do
      if not own[name] and not copied[name] then
        table.insert(lines, name .. ": " .. value)
      end
    end
  end
  socket:send(table.concat(lines, "\r\n") .. "\r\n\r\n")
  local answer = { status = tonumber((socket:receive("*l") or ""):match("^HTTP/1%.%d (%d%d%d)")), headers = {} }
  while answer.status do
    local line = socket:receive("*l")
    if not line then
      answer.status = nil -- an answer that ends too early may lack a header
    elseif line:gsub("\r$", "") == "" then
      break
    else
      local name, value = line:match("^([^:]+):%s*(.-)%s*$")
      if name then
        table.insert(answer.headers, { name:lower(), value })
      end
    end
  end
  if answer.status and (answer.status < 200 or answer.status > 299) then
    answer.body = socket:receive("*a") or ""
  end
  socket:close()
  return answer.status and answer or nil
end

core.register_action("forward_auth", { "http-req" }, function(txn, service, path, copied)
  local names = {}
  for name in (copied ~= "-" and copied or ""):lower():gmatch("[^,]+") do
    names[name] = true
  end
  local answer = ask(txn, service, path, names)
  if not answer then
    return
  end
  if answer.status >= 200 and answer.status <= 299 then
    for name in pairs(names) do
      txn.http:req_del_header(name)
      for _, header in ipairs(answer.headers) do
        if header[1] == name then
          txn.http:req_add_header(name, header[2])
        end
      end
    end
    txn:set_var("txn.authorized", true)
    return
  end
  local reply = txn:reply({ status = answer.status })
  for _, header in ipairs(answer.headers) do
    if not own[header[1]] then
      reply:add_header(header[1], header[2])
    end
  end
  -- An answer has to fit a buffer.
  reply:set_body(#answer.body <= 8192 and answer.body or "")
  txn:done(reply)
end, 3)
EOT
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
        destination = "secrets/cookie_key"
        change_mode = "noop"
        perms       = "0600"
        uid         = var.user == "root" ? 0 : var.uid
        gid         = var.user == "root" ? 0 : var.uid
        data        = "{{ with env \"NOMAD_JOB_ID\" | printf \"nomad/jobs/%s\" }}{{ if nomadVarExists . }}{{ with nomadVar . }}{{ .cookie_key }}{{ end }}{{ end }}{{ end }}"
      }

      # Hashes of passwords are not for everybody who may look at a job's files.
      # Each list has its section, so that the file below never names one that
      # this file does not have yet.
      template {
        destination = "secrets/users.cfg"
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
        data = <<EOT
# Lists of users, from Nomad Variables.
%{for list in var.users~}
userlist ${list}
{{- if nomadVarExists "drover/users/${list}" }}{{ with nomadVar "drover/users/${list}" }}{{ range $user, $hash := . }}
{{- if and ($user | regexMatch `^[A-Za-z0-9._@-]+$`) ($hash.Value | regexMatch `^\$[0-9a-z]+\$[A-Za-z0-9./$=,]+$`) }}
  user {{ $user }} password '{{ $hash }}'
{{- end }}{{ end }}{{ end }}{{ end }}

%{endfor~}
EOT
      }

      template {
        destination = "local/haproxy.cfg"
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
{{- scratch.MapSet "tcp" "" "" -}}
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
{{- $ours := "" }}{{ $good := $s.Name | regexMatch `${local.name}` }}{{ $tls := "" }}{{ $ca := "" }}{{ $auth := false -}}
{{- range $t := $s.Tags }}{{ if $t | regexMatch `^drover\.` -}}
{{- $ours = printf "%s\t%s" $ours $t -}}
{{- if $t | regexMatch `^drover\.(?:route|redirect|tcp|sni)=` -}}
{{- else if gt (len $t) 2000 }}{{ $good = false -}}
{{- else if $t | regexMatch `${local.reserved}` }}{{ $good = false -}}
{{- else if not ($t | regexMatch `${local.option}`) }}{{ $good = false -}}
{{- else if $t | regexMatch `^drover\.forward-auth=` }}{{ $auth = true -}}
{{- if not ($t | regexMatch `^drover\.forward-auth=(?:${join("|", var.authenticators)})/`) }}{{ $good = false }}{{ end -}}
{{- else if $t | regexMatch `^drover\.(?:weight|canary)=.* service ` -}}
{{- template "tenant" $s.Name }}{{ $tenant := scratch.Get "tenant" }}{{ template "tenant" (regexReplaceAll `^.* ` "" $t) -}}
{{- if ne (scratch.Get "tenant") $tenant }}{{ $good = false }}{{ end -}}
{{- else if $t | regexMatch `^drover\.client-cert=` }}{{ $auth = true -}}
{{- if not ($t | regexMatch `^drover\.client-cert=(?:${join("|", var.client_cas)})$`) }}{{ $good = false }}{{ end -}}
{{- else if $t | regexMatch `^drover\.auth=` }}{{ $auth = true -}}
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
{{- $value := index ($t | split "=") 1 -}}
{{- if $t | regexMatch `^drover\.route=` -}}
{{- scratch.MapSetX "routes" $value $s.Name }}{{ scratch.MapSet "http" $s.Name $s.Tags }}{{ scratch.MapSet "hosts" (index ($value | split "/") 0) "" -}}
{{- range $o := $s.Tags }}{{ if $o | regexMatch `^drover\.(?:weight|canary)=` -}}
{{- scratch.MapSet "http" (regexReplaceAll `^.* (version|service) (.*)$` (printf "%s.$1.$2" $s.Name) $o) $s.Tags }}{{ scratch.MapSet "canary" $s.Name $s.Tags -}}
{{- else if $o | regexMatch `^drover\.client-cert=` }}{{ scratch.MapSetX "certified" (index ($value | split "/") 0) (index ($o | split "=") 1) -}}
{{- end }}{{ end -}}
{{- if $s.Tags | join "\n" | regexMatch `(?m)^drover\.http=serve$` }}{{ scratch.MapSet "serve" $s.Name "" }}{{ end -}}
{{- else if $t | regexMatch `^drover\.redirect=` -}}
{{- scratch.MapSetX "routes" (index ($value | split " ") 0) ($t | sha256Hex | printf "redirect.%.12s") }}{{ scratch.MapSet "hosts" (index ($value | split "/") 0) "" -}}
{{- scratch.MapSet "redirects" ($t | sha256Hex | printf "redirect.%.12s") $t -}}
{{- else if $auth -}}
{{- else if $t | regexMatch `^drover\.sni=` -}}
{{- scratch.MapSetX "sni" $value $s.Name }}{{ scratch.MapSet "hosts" $value "" }}{{ scratch.MapSet "raw" $s.Name $s.Tags -}}
{{- else if $t | regexMatch `^drover\.tcp=(?:${join("|", var.tcp_ports)})$` -}}
{{- scratch.MapSetX "tcp" $value $s.Name }}{{ scratch.MapSet "raw" $s.Name $s.Tags -}}
{{- end -}}
{{- end }}{{ end }}{{ end -}}
{{- end -}}
#: # tags {{ $input | sha256Hex }}
{{- range $route, $target := scratch.Get "routes" }}
#: {{ $route }} {{ $target }}
{{- end }}
{{- $wild := false }}{{ range $host, $_ := scratch.Get "hosts" }}{{ if $host | regexMatch `^\*` }}{{ $wild = true }}{{ end }}{{ end }}
{{- if $wild }}{{ scratch.Set "wild" "yes" }}
{{- range $host, $_ := scratch.Get "hosts" }}
#: {{ $host }} no.route
{{- end }}{{ end }}
global
  log stdout format raw local0 info
  setenv EDGE_GENERATION @generation@
  setenv EDGE_MEMORY ${var.memory}
.if version_atleast(3.1)
  tune.lua.bool-sample-conversion normal
.endif
  lua-load {{ env "NOMAD_TASK_DIR" }}/edge.lua
  lua-load {{ env "NOMAD_TASK_DIR" }}/ingress.lua
  stats socket unix@admin.sock mode 600%{if var.user == "root"} uid ${var.uid}%{endif} level admin
  hard-stop-after ${var.hard_stop_after}
  # Old workers with connections use memory of the task too.
  mworker-max-reloads 8
  # The frontends have limits that fit the task's memory. This one has to be above
  # their sum, so that /health answers when they are full. File descriptors follow from
  # it: each request of HTTP/2 needs one for its connection to a service.
  maxconn ${local.connections * 8 + length(var.tcp_ports) * local.connections + 200}
  no strict-limits
  # Each stream of HTTP/2 costs as much as a connection of HTTP/1.1.
  tune.h2.max-concurrent-streams 32
%{if var.user == "root"~}
  uid ${var.uid}
  gid ${var.uid}
%{endif~}
  # Mozilla's intermediate configuration, version 5.7
  ssl-default-bind-ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:DHE-RSA-CHACHA20-POLY1305
  ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256
  ssl-default-bind-options prefer-client-ciphers ssl-min-ver TLSv${var.tls_min} no-tls-tickets
  tune.ssl.default-dh-param 2048
%{if length(var.client_cas) > 1~}
  # A session that is resumed for another host would bring a certificate that was
  # verified with the CAs of the first.
  tune.ssl.cachesize 0
%{endif~}

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

backend edge.generation
  server worker 127.0.0.1:9

backend edge.connections
  stick-table type ipv6 size 50k expire 1m store conn_cur

# Two servers: memory is plentiful. One: it is short. None: it is used up.
backend edge.memory
  server short 127.0.0.1:9
  server full 127.0.0.1:9

# conn_cur counts the requests of a source that are under way: with HTTP/2, 32 of
# each connection. gpc0 counts its passwords that are not known to be good.
backend edge.requests
  stick-table type ipv6 size 50k expire 1m store http_req_rate(10s),conn_cur,gpc0_rate(10s)

defaults tcp
  mode tcp
  log global
  option dontlognull
  option redispatch 1
  # Each retry takes another server, so that one that lives is found.
  retries ${var.max_instances}
  # An instance that is gone refuses at once. One that is only busy is slow: it
  # must not be taken for gone, least of all when there is no other.
  default-server inter 2s fastinter 500ms downinter 500ms fall 3 rise 1 observe layer4 error-limit 1 on-error mark-down
  timeout connect 2s
  timeout client 24h
  timeout server 24h
  log-format '{"time":"%T","client":"%ci","frontend":"%f","bytes":%B,"ms":%Tt,"backend":"%b","server":"%s","end":"%ts"}'

defaults http
  mode http
  log global
  option dontlognull
  option idle-close-on-response
  option redispatch 1
  # Each retry takes another server, so that one that lives is found.
  retries ${var.max_instances}
  # A request that was sent is sent again only if twice does what once does.
  retry-on conn-failure empty-response
  default-server inter 2s fastinter 500ms downinter 500ms fall 3 rise 1 observe layer4 error-limit 1 on-error mark-down
  timeout connect 2s
  # For clients that read nothing, and for TLS handshakes before HAProxy 3.0. While
  # the service has to answer, timeout server counts.
  timeout client ${var.client_timeout}
  timeout client-fin ${var.client_timeout}
  timeout http-request ${var.header_timeout}
.if version_atleast(3.0)
  timeout client-hs ${var.header_timeout}
.endif
  timeout http-keep-alive 1m
  timeout server 1h
  timeout tunnel 24h
%{for status, page in var.error_pages~}
  errorfile ${status} {{ env "NOMAD_TASK_DIR" }}/pages/${status}.http
%{endfor~}
  # No limit and no buffering of bodies: WebDAV, TUS, server-sent events.
  log-format '{"time":"%T","client":"%ci","host":"%[var(txn.host),json(utf8s)]","method":"%HM","path":"%[var(txn.path),json(utf8s)]","status":%ST,"bytes":%B,"ms":%Ta,"backend":"%b","server":"%s","tls":"%sslv","end":"%ts","request":"%[var(txn.request),json(utf8s)]"}'

{{- define "source" }}
%{for range in var.accept_proxy~}
  acl balancer src ${range}
%{endfor~}
%{if length(var.accept_proxy) > 0~}
  tcp-request connection expect-proxy layer4 if balancer
%{endif~}
%{if var.connections_per_source > 0~}
%{for range in var.trusted_proxies~}
  acl proxy src ${range}
%{endfor~}
  tcp-request connection track-sc0 src table edge.connections%{if length(var.accept_proxy) + length(var.trusted_proxies) > 0} unless%{endif}%{if length(var.accept_proxy) > 0} balancer%{endif}%{if length(var.accept_proxy) > 0 && length(var.trusted_proxies) > 0} or%{endif}%{if length(var.trusted_proxies) > 0} proxy%{endif}

  tcp-request connection reject if { sc0_conn_cur(edge.connections) gt ${local.per_source} }
%{if length(var.accept_proxy) > 0~}
  # Behind a balancer, the address is known after the PROXY header.
  tcp-request session track-sc0 src table edge.connections unless { sc0_tracked }%{if length(var.trusted_proxies) > 0} or proxy%{endif}

  tcp-request session reject if { sc0_conn_cur(edge.connections) gt ${local.per_source} }
%{endif~}
%{endif~}
{{- end }}
{{- define "trace" }}
  http-request set-header X-Request-ID %[uuid] unless { req.hdr_cnt(X-Request-ID) eq 1 } { req.fhdr(X-Request-ID) -m reg ^[A-Za-z0-9._-]{1,128}$ }
  http-request set-var(txn.request) req.fhdr(X-Request-ID)
  http-after-response set-header X-Request-ID %[var(txn.request)] if { var(txn.request) -m found }
  acl traced req.fhdr(traceparent) -m reg ^[0-9a-e][0-9a-f]-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$
  acl untraced req.fhdr(traceparent) -m sub -- -00000000000000000000000000000000- -0000000000000000-
  http-request del-header tracestate unless traced !untraced
  http-request del-header traceparent unless traced !untraced
%{if var.trace_sample >= 0~}
  http-request set-var(txn.flags) str(00)
  http-request set-var(txn.flags) str(01) if { rand(100) lt ${var.trace_sample} }
  http-request set-header traceparent 00-%[uuid,regsub(-,,g)]-%[uuid,regsub(-,,g),bytes(16,16)]-%[var(txn.flags)] unless traced !untraced
%{endif~}
{{- end }}
{{- define "filter" }}
%{if length(var.trusted_proxies) > 0~}
  http-request set-var(txn.trusted) bool(true) if { src ${join(" ", var.trusted_proxies)} }
  http-request set-src req.hdr_ip(X-Forwarded-For,-1) if { var(txn.trusted) -m bool } { req.hdr_ip(X-Forwarded-For,-1) -m found }
%{endif~}
  http-request track-sc1 src table edge.requests
%{if var.requests_per_source > 0~}
  http-request return status 429 content-type text/plain string "Too many requests.\n" if { sc1_http_req_rate(edge.requests) gt ${var.requests_per_source * 10} }
%{endif~}
%{if var.connections_per_source > 0~}
  http-request return status 429 content-type text/plain string "Too many requests at a time.\n" if { sc1_conn_cur(edge.requests) gt ${var.connections_per_source * 4} }
%{endif~}
  # A worker that ends counts no servers (nbsrv is 0).
  http-request return status 503 content-type text/plain string "The edge has no memory left.\n" if { nbsrv(edge.memory) eq 0 } !{ stopping }
  # From HAProxy 3.0 on, timeout client ends a body that stalls.
.if version_atleast(3.0)
  acl short_of_memory nbsrv(edge.memory) lt 2
  acl short_of_memory sc1_conn_cur(edge.requests) gt 32
  http-request set-timeout client ${var.body_timeout} if { method POST PUT PATCH } !short_of_memory or { req.hdr(content-length) -m int gt 0 } !short_of_memory or { req.hdr(transfer-encoding) -m found } !short_of_memory
  http-request set-timeout client 1h if { req.hdr(content-type) -m beg application/grpc } !short_of_memory
.endif
  http-request return status 405 content-type text/plain string "This method is not allowed.\n" if { method CONNECT TRACE }
  # The route, drover.auth and drover.allow hold for a path however it is written.
  http-request set-var(txn.path) path
  http-request set-var(txn.path) path,lua.normal_path if { path -m sub // /. % \\ }
  http-request return status 400 content-type text/plain string "The path is ambiguous.\n" if { var(txn.path) -m len 0 } !{ method OPTIONS }
  # Services believe these headers: only the edge or a trusted proxy may send them.
{{- template "trace" }}
%{if length(var.trusted_proxies) > 0~}
  http-request del-header '^(${lower(join("|", local.spoofable))})$' -m reg unless { var(txn.trusted) -m bool }
  http-request del-header '^(proxy|x-forwarded-for|x-real-ip)$|_' -m reg
%{else~}
  http-request del-header '^(proxy|x-forwarded-for|x-real-ip|${lower(join("|", local.spoofable))})$|_' -m reg
%{endif~}
  http-request add-header X-Forwarded-For %[src]
  http-request add-header X-Real-IP %[src]
  http-request add-header X-Forwarded-Host %[req.hdr(host)]%{if length(var.trusted_proxies) > 0} unless { req.hdr(X-Forwarded-Host) -m found }%{endif}

  # Headers that a client names here would be dropped by the next proxy.
  acl upgrade req.fhdr(connection) -m sub -i upgrade
  http-request del-header Connection unless upgrade
  http-request set-header Connection upgrade if upgrade
{{- end }}

{{- define "own" }}
  # Instances of another namespace have this name too. DNS does not tell them apart. An ID
  # is unique on a node only.
{{- range $i := service . }}{{ if and ($i.Address | regexMatch `${local.address}`) (index (scratch.Get "own") (printf "%s %.16s" (scratch.Get "key") ($i.ID | sha256Hex))) }}
  server {{ printf "%s %s" $i.Node $i.ID | sha256Hex | printf "s%.16s" }} {{ $i.Address }}:{{ $i.Port }} init-addr last,libc,none {{ scratch.Get "options" }}
{{- end }}{{ end }}
{{- end }}
{{- define "seconds" }}
{{- $unit := regexReplaceAll `^[0-9]*` "" . }}{{ $n := regexReplaceAll `[a-z]*$` "" . | parseInt }}
{{- if eq $unit "m" }}{{ $n = multiply 60 $n }}{{ else if eq $unit "h" }}{{ $n = multiply 3600 $n }}{{ else if eq $unit "d" }}{{ $n = multiply 86400 $n }}{{ else if ne $unit "s" }}{{ $n = divide 1000 $n }}{{ end }}
{{- scratch.Set "seconds" $n }}
{{- end }}
{{- define "denied" }}
{{- range $t := . }}{{ if $t | regexMatch `^drover\.deny=` }}{{ range regexReplaceAll `^[^=]*=` "" $t | split "," }}
  acl denied src {{ . }}
{{- end }}{{ end }}{{ end }}
{{- end }}
{{- define "before" }}
{{- template "denied" . }}
{{- range $t := . }}{{ $f := regexReplaceAll `^[^=]*=` "" $t | split " " }}
{{- if $t | regexMatch `^drover\.timeout=` }}
  timeout {{ index $f 0 | replaceAll "response" "server" }} {{ index $f 1 }}
{{- else if $t | regexMatch `^drover\.retries=` }}
  retries {{ index $f 0 }}
{{- if gt (len $f) 1 }}
  retry-on conn-failure empty-response {{ index $f 1 | replaceAll "," " " }}
{{- end }}
{{- else if $t | regexMatch `^drover\.compress=` }}
  # An event stream would wait for a block.
  compression algo gzip
  compression type text/html text/plain text/css text/csv text/xml text/javascript text/markdown application/javascript application/json application/manifest+json application/xml application/wasm image/svg+xml
{{- end }}
{{- end }}
{{- if . | join "\n" | regexMatch `(?m)^drover\.deny=` }}
  http-request deny deny_status 403 if denied
{{- end }}
{{- range $t := . }}{{ if $t | regexMatch `^drover\.client-cert=` }}
  # A connection for another name was not asked, or asked for one of other CAs.
  http-request return status 421 content-type text/plain string "Connect for this host.\n" unless { so_name ca.{{ index ($t | split "=") 1 }} }
  http-request return status 403 content-type text/plain string "A certificate of the client is needed.\n" unless { ssl_c_used } { ssl_c_verify 0 }
  http-request set-header X-Client-Cert-Subject %[ssl_c_s_dn(,0,rfc2253)]
  http-request set-header Client-Cert :%[ssl_c_der,base64]:
{{- end }}{{ end }}
{{- range $t := . }}{{ if $t | regexMatch `^drover\.cors=` }}
{{- $f := regexReplaceAll `^[^=]*=` "" $t | split " " }}{{ $origin := "%[var(txn.origin)]" }}{{ if eq (index $f 0) "*" }}{{ $origin = "*" }}{{ end }}
  acl preflight req.hdr(access-control-request-method) -m found
  http-request set-var(txn.origin) req.fhdr(origin)
  http-request set-var(txn.cors) bool(false)
  http-request set-var(txn.cors) bool(true) if { var(txn.origin) -m {{ if eq (index $f 0) "*" }}found{{ else }}str {{ index $f 0 | replaceAll "," " " }}{{ end }} }
  http-after-response del-header Access-Control-Allow-Origin unless { var(txn.cors) -m bool }
  http-after-response del-header Access-Control-Allow-Credentials
  http-after-response set-header Access-Control-Allow-Origin {{ $origin }} if { var(txn.cors) -m bool }
{{- if gt (len $f) 1 }}
  http-after-response set-header Access-Control-Allow-Credentials true if { var(txn.cors) -m bool }
{{- end }}
  http-after-response add-header Vary Origin
  http-request return status 403 content-type text/plain string "The origin is not allowed.\n" if METH_OPTIONS preflight !{ var(txn.cors) -m bool }
  http-request return status 204 hdr Access-Control-Allow-Methods "%[req.fhdr(access-control-request-method)]" hdr Access-Control-Allow-Headers "%[req.fhdr(access-control-request-headers)]" hdr Access-Control-Max-Age 600 if METH_OPTIONS preflight
{{- break }}
{{- end }}{{ end }}
{{- end }}
{{- define "rewrite" }}
{{- if . | join "\n" | regexMatch `(?m)^drover\.rewrite=` }}
  http-request set-path %[path,lua.encoded_path] if { path -m sub // /. %2e %2E }
{{- range $i, $t := . }}{{ if $t | regexMatch `^drover\.rewrite=` }}
{{- $f := regexReplaceAll `^[^=]*=` "" $t | split " " }}
{{- $from := index $f 0 | replaceAll "." "\\." | replaceAll "**" "@" | replaceAll "*" "([^/]+)" | replaceAll "@" "(.*)" }}
  http-request set-var(txn.rewrite) int({{ $i }}) if { path -m reg '^{{ $from }}$' } !{ var(txn.rewrite) -m found }
  http-request replace-path '^{{ $from }}$' '{{ index $f 1 | regexReplaceAll `\{([1-9])\}` `\$1` }}' if { var(txn.rewrite) -m int {{ $i }} }
{{- end }}{{ end }}
{{- end }}
{{- end }}
{{- define "forward" }}
{{- range $t := . }}{{ if $t | regexMatch `^drover\.forward-auth=` }}
{{- $f := regexReplaceAll `^[^=]*=` "" $t | split " " }}{{ $service := index (index $f 0 | split "/") 0 }}
  # After an error in Lua, HAProxy continues with the next rule.
  http-request set-var(txn.uri) path,lua.encoded_path
  http-request unset-var(txn.authorized)
  http-request lua.forward_auth {{ $service }} {{ regexReplaceAll `^[^/]*` "" (index $f 0) }} {{ if gt (len $f) 1 }}{{ index $f 1 }}{{ else }}-{{ end }}
  http-request return status 503 content-type text/plain string "The authenticator does not answer.\n" unless { var(txn.authorized) -m bool }
{{- end }}{{ end }}
{{- end }}

{{- define "key" }}
{{- if scratch.Key "wild" }}
  # A host with routes of its own has none of a wildcard.
  http-request set-var(txn.key) var(txn.host)
  http-request set-var(txn.key) var(txn.host),lua.wild_host unless { var(txn.host),map_str({{ env "NOMAD_TASK_DIR" }}/routes.@generation@.map) -m found }
  http-request set-var(txn.route) var(txn.key),concat(,txn.path)
{{- else }}
  http-request set-var(txn.route) var(txn.host),concat(,txn.path)
{{- end }}
{{- end }}

{{- define "canary" }}
{{- if scratch.Key "canary" }}
  # Of several that hold, the last counts. A target without instances gets nothing.
  http-request set-var(txn.roll) rand(100)
{{- range $name, $tags := scratch.Get "canary" }}{{ $sum := 0 }}
{{- if $tags | join "\n" | regexMatch `(?m)^drover\.sticky=cookie$` }}
  http-request set-var(txn.roll) src,crc32(1),mod(100) if { var(txn.backend) -m str {{ $name }} }
{{- end }}
{{- range $kind := "weight canary" | split " " }}{{ range $t := $tags }}{{ if $t | regexMatch (printf `^drover\.%s=` $kind) }}
{{- $f := regexReplaceAll `^[^=]*=` "" $t | split " " }}
{{- $to := regexReplaceAll `^.* (version|service) (.*)$` (printf "%s.$1.$2" $name) $t }}
{{- if eq $kind "weight" }}{{ $from := $sum }}{{ $sum = index $f 0 | parseInt | add $sum }}{{ if eq $from $sum }}{{ continue }}{{ end }}
  http-request set-var(txn.target) str({{ $to }}) if { var(txn.backend) -m str {{ $name }} } { var(txn.roll) -m int {{ $from }}:{{ subtract 1 $sum }} } { nbsrv({{ $to }}) gt 0 }
{{- else }}
  http-request set-var(txn.target) str({{ $to }}) if { var(txn.backend) -m str {{ $name }} } { req.{{ if eq (index $f 0) "header" }}hdr{{ else }}cook{{ end }}({{ index $f 1 }}) -m str {{ index $f 2 }} } { nbsrv({{ $to }}) gt 0 }
{{- end }}
{{- end }}{{ end }}{{ end }}
{{- end }}
  http-request set-var(txn.backend) var(txn.target) if { var(txn.target) -m found }
{{- end }}
{{- end }}

frontend metrics from http
  bind {{ env "NOMAD_ADDR_metrics" }}
  no log
  monitor-uri /health
%{if var.metrics_users != ""~}
  http-request auth realm edge unless { http_auth(${var.metrics_users}) }
%{endif~}
  http-request use-service prometheus-exporter if { path /metrics }
  # What this is, and which tags it was made from, for drover edge status.
  http-request return status 200 content-type application/json lf-string '{"edge":"haproxy","class":"${var.class}","default_class":"${var.default_class}","generation":{"files":"%[lua.newest]","worker":"%[lua.generation]"},"https":"{{ env "EDGE_BIND_ADDRESS" }}:${var.https_port}","certificates":${jsonencode(var.certificates)},"users":${jsonencode(var.users)},"authenticators":${jsonencode(var.authenticators)},"client_cas":${jsonencode(var.client_cas)},"authorities":${jsonencode(var.authorities)},"https_without_ca":${var.https_without_ca},"tcp_ports":${jsonencode(var.tcp_ports)},"tenants":${jsonencode(var.tenants)},"tags":"%[lua.tags]"}' if { path /edge }
  http-request return status 404

frontend http.plain from http
  maxconn ${local.connections}
  bind {{ env "EDGE_BIND_ADDRESS" }}:${var.http_port}
{{- template "source" }}
  http-request set-var(txn.host) req.hdr(host),field(1,:),lower
  # Stateless HTTP-01 (RFC 8555, 8.3): only the holder of the account key can use an
  # answer with its thumbprint.
{{ with nomadVar "drover/acme/public" }}
  http-request return status 200 content-type text/plain lf-string "%[path,field(4,/)].{{ .thumbprint }}" if { path_beg /.well-known/acme-challenge/ }
{{ end }}
{{- if scratch.Key "serve" }}
{{- template "filter" }}
  http-request add-header X-Forwarded-Proto http%{if length(var.trusted_proxies) > 0} unless { req.hdr(X-Forwarded-Proto) -m found }%{endif}

  http-request add-header X-Forwarded-Port ${var.http_port}%{if length(var.trusted_proxies) > 0} unless { req.hdr(X-Forwarded-Port) -m found }%{endif}

{{- template "key" }}
  http-request set-var(txn.backend) var(txn.route),map_beg({{ env "NOMAD_TASK_DIR" }}/routes.@generation@.map)
{{- range $service, $_ := scratch.Get "serve" }}
  acl serve var(txn.backend) -m str {{ $service }}
{{- end }}
  http-request redirect code 308 location https://%[var(txn.host)]%{if var.https_port != 443}:${var.https_port}%{endif}%[pathq] unless serve
{{- template "canary" }}
  http-request disable-l7-retry unless { method GET HEAD OPTIONS PUT DELETE PROPFIND REPORT }
  bind unix@http.sock mode 600 accept-proxy%{if var.user == "root"} uid ${var.uid}%{endif}
  http-request set-log-level silent if { stopping } { lua.succeeded -m int 1 }
  use_backend successor.http if { stopping } { lua.succeeded -m int 1 }
  use_backend %[var(txn.backend)]

backend successor.http from http
  server s unix@http.sock send-proxy-v2
{{- else }}
  http-request redirect code 308 location https://%[var(txn.host)]%{if var.https_port != 443}:${var.https_port}%{endif}%[pathq]
{{- end }}
{{- if or (scratch.Key "sni") (scratch.Key "certified") }}

# Connections to some names are passed on as they are, and those to others are asked
# for the certificate of a client. All these go on to the frontend below, which listens
# where only this node can connect.
frontend sni from tcp
  maxconn ${local.connections}
  bind {{ env "EDGE_BIND_ADDRESS" }}:${var.https_port}
{{- template "source" }}
  tcp-request inspect-delay 5s
  tcp-request content set-var(sess.sni) req.ssl_sni,lower
{{- if scratch.Key "wild" }}
  tcp-request content set-var(sess.sni) var(sess.sni),lua.wild_host unless { var(sess.sni),map_str({{ env "NOMAD_TASK_DIR" }}/routes.@generation@.map) -m found }
{{- end }}
{{- range $host, $service := scratch.Get "sni" }}
  acl raw var(sess.sni) -m str {{ $host }}
{{- end }}
{{- if scratch.Key "sni" }}
  tcp-request content set-log-level silent unless raw
{{- else }}
  tcp-request content set-log-level silent
{{- end }}
  tcp-request content accept if { req.ssl_hello_type 1 }
  tcp-request content reject
{{- range $host, $service := scratch.Get "sni" }}
  use_backend tcp.{{ $service }} if { var(sess.sni) -m str {{ $host }} }
{{- end }}
{{- range $host, $ca := scratch.Get "certified" }}
  use_backend sni.ca.{{ $ca }} if { var(sess.sni) -m str {{ $host }} }
{{- end }}
  default_backend sni.https

backend sni.https from tcp
  server https unix@tls.sock send-proxy-v2
%{for name in var.client_cas~}

backend sni.ca.${name} from tcp
  server https unix@tls.${name}.sock send-proxy-v2
%{endfor~}
{{- end }}

frontend https from http
  maxconn ${local.connections}
{{- if or (scratch.Key "sni") (scratch.Key "certified") }}
%{for name in var.client_cas~}
  bind unix@tls.${name}.sock name ca.${name} mode 600 accept-proxy%{if var.user == "root"} uid ${var.uid}%{endif} ssl crt {{ env "NOMAD_SECRETS_DIR" }}/certs/ alpn h2,http/1.1 ca-file {{ env "NOMAD_SECRETS_DIR" }}/ca/${name}.pem verify optional
%{endfor~}
  bind unix@tls.sock mode 600 accept-proxy%{if var.user == "root"} uid ${var.uid}%{endif} ssl crt {{ env "NOMAD_SECRETS_DIR" }}/certs/ alpn h2,http/1.1
{{- else }}
  bind {{ env "EDGE_BIND_ADDRESS" }}:${var.https_port} ssl crt {{ env "NOMAD_SECRETS_DIR" }}/certs/ alpn h2,http/1.1
{{- template "source" }}
{{- end }}
  bind unix@https.sock mode 600 accept-proxy%{if var.user == "root"} uid ${var.uid}%{endif}
  http-request set-log-level silent if { stopping } { lua.succeeded -m int 1 }
  http-request set-var(txn.host) req.hdr(host),field(1,:),lower
{{- template "filter" }}
  http-request add-header X-Forwarded-Proto https%{if length(var.trusted_proxies) > 0} unless { req.hdr(X-Forwarded-Proto) -m found }%{endif}

  http-request add-header X-Forwarded-Port ${var.https_port}%{if length(var.trusted_proxies) > 0} unless { req.hdr(X-Forwarded-Port) -m found }%{endif}

{{- template "key" }}
  http-request disable-l7-retry unless { method GET HEAD OPTIONS PUT DELETE PROPFIND REPORT }
%{if var.hsts_max_age > 0~}
  http-response set-header Strict-Transport-Security max-age=${var.hsts_max_age} unless { res.hdr(Strict-Transport-Security) -m found }
%{endif~}
  # The longest route that fits.
  http-request set-var(txn.backend) var(txn.route),map_beg({{ env "NOMAD_TASK_DIR" }}/routes.@generation@.map)
{{- template "canary" }}
  # The successor would not have the certificate of the client.
  use_backend successor.https if { stopping } { lua.succeeded -m int 1 } !{ so_name -m beg ca. }
  use_backend %[var(txn.backend)] if { var(txn.backend) -m found }
  default_backend no.route

backend successor.https from http
  server s unix@https.sock send-proxy-v2
%{for name in var.authenticators~}

# For forward_auth of ingress.lua.
listen auth.${name} from http
  bind unix@auth.${name}.sock mode 600%{if var.user == "root"} uid ${var.uid}%{endif}

  no log
  timeout server 5s
  http-request lua.await_server if { nbsrv eq 0 }
{{- if index (scratch.Get "own") "${name}" }}{{ scratch.Set "key" "${name}" }}{{ scratch.Set "options" "check" }}
{{- template "own" "${name}" }}
{{- else }}
  server-template s ${var.max_instances} _${name}._tcp.service.consul resolvers consul resolve-opts allow-dup-ip init-addr none check
{{- end }}
%{endfor~}

backend no.route from http
%{if contains(keys(var.error_pages), "404")~}
  http-request return status 404 default-errorfiles
%{else~}
  http-request return status 404 content-type text/plain string "No service has a route for this host and path.\n"
%{endif~}
{{- range $name, $tag := scratch.Get "redirects" }}
{{- $f := $tag | split "=" }}{{ $f = $tag | replaceAll (printf "%s=" (index $f 0)) "" | split " " }}
{{- $from := regexReplaceAll `^[^/]*` "" (index $f 0) }}{{ $to := index $f 2 | replaceAll "%" "%%" }}

backend {{ $name }} from http
{{- if $from | regexMatch `/$` }}
  # A rest that begins with a slash would be the name of a host.
  http-request set-path %[path,lua.encoded_path] unless { path_beg -- {{ $from }} }
  http-request replace-path '^{{ $from | replaceAll "." "\\." | replaceAll "+" "\\+" }}/+(.*)$' '{{ $from }}\1'
{{- end }}
  http-request redirect code {{ index $f 1 }} location "{{ $to }}{{ if and ($from | regexMatch `/$`) ($to | regexMatch `/$`) }}%[pathq,bytes({{ len $from }})]{{ end }}"
{{- end }}
{{- range $name, $tags := scratch.Get "http" }}
{{- $server := "" }}{{ $ca := "" }}{{ $srv := regexReplaceAll `^(?:.*\.service\.)?(.*)$` "_$1._tcp.service.consul" $name }}{{ $sticky := false }}
{{- if $name | regexMatch `\.version\.` }}{{ $srv = regexReplaceAll `^(.*)\.version\.(.*)$` "_$1._$2.service.consul" $name }}{{ end }}{{ $owner := index ($name | split ".") 0 }}{{ $strip := "" }}{{ $body := "" }}{{ $limit := "" }}{{ $breaker := "" }}

backend {{ $name }} from http
{{- if index (scratch.Get "maintenance") $owner }}
  http-request return status 503 content-type "text/html; charset=utf-8" hdr Retry-After 300 hdr Cache-Control no-store file {{ env "NOMAD_TASK_DIR" }}/pages/maintenance.html
{{- end }}
  balance leastconn
{{- range $i, $t := $tags }}
{{- $value := regexReplaceAll `^[^=]*=` "" $t }}
{{- if $t | regexMatch `^drover\.protocol=https$` }}{{ $server = " ssl verify none" }}
{{- else if $t | regexMatch `^drover\.ca=none$` }}
{{- else if $t | regexMatch `^drover\.ca=` }}{{ $ca = $value }}
{{- else if $t | regexMatch `^drover\.protocol=h2c$` }}{{ $server = " proto h2" }}
{{- else if $t | regexMatch `^drover\.protocol=http$` }}{{ $server = "" }}
{{- else if $t | regexMatch `^drover\.sticky=` }}{{ $sticky = true }}
{{- else if $t | regexMatch `^drover\.strip=` }}{{ $strip = $value | trimSuffix "/" | replaceAll "." "\\." }}
{{- else if $t | regexMatch `^drover\.max-body=` }}{{ $body = $value }}
{{- else if $t | regexMatch `^drover\.limit=` }}{{ $limit = $value }}
{{- else if $t | regexMatch `^drover\.breaker=` }}{{ $breaker = printf " observe layer7 error-limit %s rise 2 fastinter %s downinter %s" (index ($value | split " ") 0) (index ($value | split " ") 1) (index ($value | split " ") 1) }}
{{- else if $t | regexMatch `^drover\.allow=` }}
{{- range $value | split "," }}
  acl allowed.{{ $i }} src {{ . }}
{{- end }}
  http-request deny deny_status 403 unless allowed.{{ $i }}
{{- end }}
{{- end }}
{{- template "before" $tags }}
{{- $response := "" }}{{ range $t := $tags }}{{ if $t | regexMatch `^drover\.timeout=response ` }}{{ $response = regexReplaceAll `^.* ` "" $t }}{{ end }}{{ end }}
{{- $long := true }}{{ if $response }}{{ template "seconds" $response }}{{ $seconds := scratch.Get "seconds" }}{{ template "seconds" "${var.client_timeout}" }}{{ $long = gt $seconds (scratch.Get "seconds") }}{{ end }}
{{- if $long }}
  # timeout client does not end a body that stalls (HAProxy 2.6).
  acl body req.hdr(content-length) -m int gt 0
  acl body req.hdr(transfer-encoding) -m found
  # HTTP/2 does not say whether there is a body.
  http-request set-var(txn.open) bool(true) if { req.ver 2.0 } { req.hdr_cnt(content-length) eq 0 }
  acl open var(txn.open) -m bool
  acl writes method POST PUT PATCH
  acl grpc req.hdr(content-type) -m beg application/grpc
  acl many sc1_conn_cur(edge.requests) gt 32
  acl busy nbsrv(edge.memory) lt 2
{{- if not $response }}
  http-request set-timeout server ${var.body_timeout} if body !grpc or open writes !grpc or busy open
{{- end }}
  http-request set-timeout server ${var.client_timeout} if many busy or many body !grpc or many open writes !grpc or busy body !grpc or busy open writes !grpc
{{- end }}
{{- if $limit }}
  http-request track-sc2 src table limit.{{ $owner }}
  http-request return status 429 content-type text/plain string "Too many requests.\n" if { sc2_http_req_rate(limit.{{ $owner }}) gt {{ index ($limit | split "/") 0 }} }
{{- end }}
{{- if $tags | join "\n" | regexMatch `(?m)^drover\.auth=` }}
  # Hashes of passwords take some milliseconds on purpose. Credentials that were
  # good a minute ago are good without one: only requests that pass are stored.
  stick-table type binary len 32 size 10k expire 1m
  acl known req.hdr(authorization),sha2(256),in_table({{ $name }})
  stick store-request req.hdr(authorization),sha2(256)
%{if var.passwords_per_source > 0~}
  acl password req.hdr(authorization) -m found
  http-request return status 429 content-type text/plain string "Too many passwords.\n" if password !known { sc1_gpc0_rate(edge.requests) ge ${var.passwords_per_source * 10} }
  http-request sc-inc-gpc0(1) if password !known
%{endif~}
{{- end }}
{{- range $t := $tags }}{{ if $t | regexMatch `^drover\.auth=` }}
{{- $list := regexReplaceAll `^[^=]*=` "" $t }}
  http-request auth realm {{ $list }} unless known or { http_auth({{ $list }}) }
{{- end }}{{ end }}
{{- template "forward" $tags }}
{{- if $body }}
{{- $bytes := regexReplaceAll `[kmg]` "" $body | parseInt }}
{{- if $body | regexMatch `k` }}{{ $bytes = multiply 1024 $bytes }}{{ else if $body | regexMatch `m` }}{{ $bytes = multiply 1048576 $bytes }}{{ else if $body | regexMatch `g` }}{{ $bytes = multiply 1073741824 $bytes }}{{ end }}
  http-request return status 413 content-type text/plain string "The body is larger than {{ $bytes }} bytes.\n" if { req.hdr(content-length) -m int gt {{ $bytes }} }
  http-request return status 411 content-type text/plain string "The length of the body must be given.\n" if { req.hdr_cnt(transfer-encoding) gt 0 }
  # HTTP/2 does not say whether there is a body: it begins, or the request ends.
  acl unsized req.hdr_cnt(content-length) eq 0
  http-request wait-for-body time ${var.header_timeout} at-least 1 if { req.ver 2.0 } unsized
  http-request return status 411 content-type text/plain string "The length of the body must be given.\n" if { req.ver 2.0 } unsized { req.body_size gt 0 }
{{- end }}
{{- range $t := $tags }}
{{- $f := regexReplaceAll `^[^=]*=` "" $t | split " " }}
{{- if $t | regexMatch `^drover\.header=` }}
{{- if eq (index $f 1) "remove" }}
  http-{{ index $f 0 }} del-header {{ index $f 2 }}
{{- else }}
  http-{{ index $f 0 }} set-header {{ index $f 2 }} "{{ regexReplaceAll `^[^=]*=[^ ]* set [^ ]* ` "" $t | replaceAll "%" "%%" | replaceAll "\"" "\\\"" }}"
{{- end }}
{{- end }}
{{- end }}
{{- if $strip }}
  http-request set-path %[path,lua.encoded_path] unless { path_beg -- {{ $strip | replaceAll "\\." "." }} }
  http-request set-path %[path,lua.encoded_path] if { path -m sub // /. %2e %2E }
  http-request replace-path '^{{ $strip }}(/(.*))?$' '/\2'
{{- end }}
{{- template "rewrite" $tags }}
{{- if and $ca (eq $server " ssl verify none") }}
{{- $f := $ca | split " " }}{{ $peer := printf "%s.service.consul" $owner }}{{ if gt (len $f) 1 }}{{ $peer = index $f 1 }}{{ end }}
{{- $server = printf " ssl verify required ca-file %s/ca/%s.pem" (env "NOMAD_TASK_DIR") (index $f 0) }}
{{- if or (gt (len $f) 1) (ne $ca "consul") }}{{ $server = printf "%s sni str(%s) check-sni %s verifyhost %s" $server $peer $peer $peer }}{{ end }}
{{- end }}
{{- if $sticky }}
  dynamic-cookie-key "$${EDGE_COOKIE_KEY}"
  cookie drover insert indirect nocache httponly secure dynamic
{{- end }}
{{- $sp := $tags | join "\n" }}
{{- if not $breaker }}
  http-request lua.await_server if { nbsrv eq 0 }
{{- end }}
{{- $options := printf "check%s%s" $server $breaker }}{{ if $sp | regexMatch `(?m)^drover\.send-proxy=v2$` }}{{ $options = printf "%s send-proxy-v2" $options }}{{ else if $sp | regexMatch `(?m)^drover\.send-proxy=v1$` }}{{ $options = printf "%s send-proxy" $options }}{{ end }}
{{- $key := $owner }}{{ if $name | regexMatch `\.service\.` }}{{ $key = $name }}{{ end }}
{{- if index (scratch.Get "own") $key }}{{ scratch.Set "key" $key }}{{ scratch.Set "options" $options }}
{{- template "own" (regexReplaceAll `^(?:.*\.service\.)?(.*)$` "$1" $name | regexReplaceAll `^(.*)\.version\.(.*)$` "$2.$1") }}
{{- else }}
  server-template s ${var.max_instances} {{ $srv }} resolvers consul resolve-opts allow-dup-ip init-addr none {{ $options }}
{{- end }}
{{- end }}
{{- range $name, $tags := scratch.Get "http" }}{{ range $t := $tags }}{{ if and ($t | regexMatch `^drover\.limit=`) (not ($name | regexMatch `\.`)) }}

backend limit.{{ $name }} from http
  stick-table type ipv6 size 20k expire 2m store http_req_rate(1{{ index ($t | split "/") 1 }})
{{- break }}{{ end }}{{ end }}{{ end }}
{{- range $name, $tags := scratch.Get "raw" }}

backend tcp.{{ $name }} from tcp
{{- if index (scratch.Get "maintenance") $name }}
  tcp-request content reject
{{- end }}
  balance leastconn
{{- range $i, $t := $tags }}{{ if $t | regexMatch `^drover\.allow=` }}
{{- range regexReplaceAll `^[^=]*=` "" $t | split "," }}
  acl allowed.{{ $i }} src {{ . }}
{{- end }}
  tcp-request content reject unless allowed.{{ $i }}
{{- end }}{{ end }}
{{- template "denied" $tags }}
{{- if $tags | join "\n" | regexMatch `(?m)^drover\.deny=` }}
  tcp-request content reject if denied
{{- end }}
{{- $sp := $tags | join "\n" }}
  tcp-request content lua.await_server if { nbsrv eq 0 }
{{- $options := "check" }}{{ if $sp | regexMatch `(?m)^drover\.send-proxy=v2$` }}{{ $options = "check send-proxy-v2" }}{{ else if $sp | regexMatch `(?m)^drover\.send-proxy=v1$` }}{{ $options = "check send-proxy" }}{{ end }}
{{- if index (scratch.Get "own") $name }}{{ scratch.Set "key" $name }}{{ scratch.Set "options" $options }}
{{- template "own" $name }}
{{- else }}
  server-template s ${var.max_instances} _{{ $name }}._tcp.service.consul resolvers consul resolve-opts allow-dup-ip init-addr none {{ $options }}
{{- end }}
{{- end }}
%{for port in var.tcp_ports~}

frontend tcp.${port} from tcp
  maxconn ${local.connections}
  bind {{ env "EDGE_BIND_ADDRESS" }}:${port}
{{- template "source" }}
{{- with index (scratch.Get "tcp") "${port}" }}
  default_backend tcp.{{ . }}
{{- else }}
  tcp-request connection reject
{{- end }}
%{endfor~}
EOT
      }
    }
  }
}
