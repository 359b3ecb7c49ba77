# Stable addresses. The services of oCIS 2.0 find one another by fixed
# addresses (REVA_GATEWAY, LDAP_URI, …), not through the registry. HAProxy
# listens for each of them on loopback of every node and forwards to the
# healthy instances in Consul, as a ClusterIP does on Kubernetes. The services
# themselves can then take dynamic ports, and a canary starts beside its
# predecessor.
#
# The configuration is complete from the start and never reloaded: instances
# come and go through DNS SRV records. A reload would leave an old worker
# behind for as long as a NATS or LDAP connection lives.

locals {
  # Consul service = port, protocol. A single one stops before its successor
  # starts: connections wait for that instead of failing. The catalog has them.
  listeners = {}

  # A task of raw_exec sees the files of the node: it needs no volume for Consul's
  # socket.
  consul_volume = var.mesh_driver == "raw_exec" ? "" : var.consul_volume

  # Names in the registry of go-micro and their ports; the catalog has them, and which
  # registry it is: consul or nats.
  registry  = {}
  registrar = "consul"

  # Of 2.0: an entry in the agent of the node. Consul asks for its health, and forgets
  # it when it is gone.
  registrar_consul = <<EOT
local consul = os.getenv("CONSUL")
-- An agent that wants client certificates is asked by its socket.
local socket = string.match(consul, "^unix://(.*)")
local agent = "http://" .. (socket and "localhost" or consul) .. "/v1/agent/service/"
local headers = { ["X-Consul-Token"] = { os.getenv("CONSUL_HTTP_TOKEN") or "" } }
local services = {
%{for name, port in local.registry~}
  ["${name}"] = ${port},
%{endfor~}
}

local function ask(method, path, body)
  local client = core.httpclient()
  local answer = client[method](client, { url = agent .. path, dst = socket and "unix@" .. socket, headers = headers, body = body, timeout = 2000 })
  return answer and answer.status
end

core.register_task(function()
  local said
  while true do
    for name, port in pairs(services) do
      local id = name .. "-" .. os.getenv("NOMAD_ALLOC_ID")
      local status = ask("get", id)
      if status == 404 then
        status = ask("put", "register", string.format(
          '{"ID":"%s","Name":"%s","Address":"${var.mesh_address}","Port":%d,"Check":{"HTTP":"http://%s/","Interval":"2s","Timeout":"2s","Status":"passing","DeregisterCriticalServiceAfter":"1m"}}',
          id, name, port, os.getenv("NOMAD_ADDR_health")))
      end
      if status ~= 200 and said ~= status then
        core.Warning("registering " .. name .. " in Consul: status " .. tostring(status))
      end
      said = status
    end
    core.msleep(2000)
  end
end)
EOT

  # Of the newer lines: an entry in the key-value bucket of the registry, which go-micro
  # would write. The services themselves register nowhere (MICRO_REGISTRY=memory).
  registrar_nats = <<EOT
-- An entry lives 30 s: a mesh that is gone leaves none behind.
local services = {
%{for name, port in local.registry~}
  ["${name}"] = ${port},
%{endfor~}
}

local function encode(text, width, alphabet)
  local out, acc, bits = {}, 0, 0
  local function add(digit) out[#out + 1] = alphabet:sub(digit + 1, digit + 1) end
  for i = 1, #text do
    acc, bits = (acc << 8) | text:byte(i), bits + 8
    while bits >= width do
      bits = bits - width
      add(acc >> bits)
      acc = acc & ((1 << bits) - 1)
    end
  end
  if bits > 0 then add(acc << (width - bits)) end
  while (#out * width) % 8 > 0 do out[#out + 1] = "=" end
  return table.concat(out)
end

local base32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
local base64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function entry(name, port)
  local key = name .. "@" .. os.getenv("NOMAD_ALLOC_ID") .. "@mesh"
  local service = string.format('{"name":"%s","version":"mesh","metadata":{},"endpoints":[],"nodes":[{"id":"%s-%s","address":"${var.mesh_address}:%d","metadata":{}}]}',
    name, name, os.getenv("NOMAD_ALLOC_ID"), port)
  local value = string.format('{"key":"%s","data":"%s","metadata":null}', key, encode(service, 6, base64))
  return "PUB $KV.service-registry." .. encode("service-registry_" .. key, 5, base32) .. " " .. #value .. "\r\n" .. value .. "\r\n"
end

-- PONG comes after everything before PING has been taken.
local function publish()
  local nats = core.tcp()
  nats:settimeout(2)
  local ok, problem = nats:connect("${var.mesh_address}", 9233)
  if not ok then return problem or "no connection" end
  nats:send('CONNECT {"verbose":false,"pedantic":false,"lang":"lua","version":"1"}\r\n')
  for name, port in pairs(services) do nats:send(entry(name, port)) end
  nats:send("PING\r\n")
  local line
  repeat
    line, problem = nats:receive("*l")
    if line and line:sub(1, 4) == "-ERR" then problem = line end
  until not line or problem or line:sub(1, 4) == "PONG"
  nats:close()
  return problem
end

core.register_task(function()
  local said
  while true do
    local ran, problem = pcall(publish)
    if not ran or problem then
      if not said then core.Warning("registering in NATS: " .. tostring(problem)) end
      said = true
    else
      if said then core.Warning("registered in NATS") end
      said = false
    end
    core.msleep(8000)
  end
end)
EOT
}

job "mesh-ocis" {
  datacenters = var.datacenters
  type        = "system"

  # Two on each node, on the same addresses: Linux hands out connections to
  # both (SO_REUSEPORT), and one is always there.
  dynamic "group" {
    for_each = { mesh = "0s", spare = "10s" }
    labels   = [group.key]
    content {
      update {
        max_parallel     = 1
        health_check     = "checks"
        min_healthy_time = "1s"
        healthy_deadline = "3m" # an image is downloaded within it
        auto_revert      = true
      }

      restart {
        attempts = 20
        interval = "5m"
        delay    = "1s"
        mode     = "delay"
      }

      # When the job is replaced, the spare goes on until its sibling is back.
      shutdown_delay = group.value

      network {
        port "health" {}
      }

      service {
        name     = "ocis-mesh"
        port     = "health"
        provider = "consul"
        # jobs/monitoring scrapes it.
        tags = var.monitoring ? ["metrics"] : null
        check {
          type     = "http"
          path     = "/"
          interval = "2s"
          timeout  = "2s"
        }
      }

      dynamic "volume" {
        for_each = local.consul_volume == "" ? [] : ["consul"]
        labels   = [volume.value]
        content {
          type      = "host"
          source    = local.consul_volume
          read_only = true
        }
      }

      task "haproxy" {
        driver = var.mesh_driver

        # SIGUSR1 stops listening and lets what is running finish.
        kill_signal  = "SIGUSR1"
        kill_timeout = "10s"

        config {
          image        = var.mesh_driver == "docker" ? var.mesh_image : null
          network_mode = var.mesh_driver == "docker" ? "host" : null
          command      = var.mesh_driver == "docker" ? "haproxy" : var.mesh_binary
          args         = ["-db", "-f", "$${NOMAD_TASK_DIR}/haproxy.cfg"]
        }

        user = var.user

        dynamic "volume_mount" {
          for_each = local.consul_volume == "" ? [] : ["consul"]
          content {
            volume      = volume_mount.value
            destination = dirname(trimprefix(var.consul_address, "unix://"))
            read_only   = true
          }
        }

        # With Consul ACLs: the token for the registrations, in CONSUL_HTTP_TOKEN.
        consul {}

        env {
          CONSUL = var.consul_address
        }

        # HAProxy registers these addresses, since Nomad registers no names with dots.
        template {
          destination = "local/registry.lua"
          data        = local.registrar == "nats" ? local.registrar_nats : local.registrar_consul
        }

        resources {
          cpu    = 100
          memory = 128
        }

        template {
          destination = "local/haproxy.cfg"
          data        = <<EOT
global
  log stderr format raw local0 notice
  hard-stop-after 5s
  lua-load {{ env "NOMAD_TASK_DIR" }}/registry.lua

resolvers consul
  nameserver local 127.0.0.1:{{ env "attr.consul.dns.port" }}
  accepted_payload_size 8192
  timeout resolve 500ms
  timeout retry 500ms
  hold valid 250ms
  hold nx 1s
  hold obsolete 0s
  # A Consul agent that does not answer must not take a working path away.
  hold other 24h
  hold refused 24h
  hold timeout 24h

# For single services: an address that is gone from DNS is kept and tried
# again each second until the successor's appears.
resolvers successor
  nameserver local 127.0.0.1:{{ env "attr.consul.dns.port" }}
  accepted_payload_size 8192
  timeout resolve 500ms
  timeout retry 500ms
  hold valid 250ms
  hold nx 1m
  hold obsolete 0s
  hold other 24h
  hold refused 24h
  hold timeout 24h

defaults
  log global
  # An instance that is gone refuses at once. One that is only busy is slow: it
  # must not be taken for gone, least of all when there is no other.
  default-server inter 2s fastinter 500ms downinter 500ms fall 3 rise 1
  timeout connect 2s
  timeout queue 30s
  timeout client 1h
  timeout server 1h
  timeout tunnel 24h
  option redispatch
  retries 3

frontend health
  mode http
  bind {{ env "NOMAD_ADDR_health" }}
  monitor-uri /
%{if var.monitoring~}
  http-request use-service prometheus-exporter if { path /metrics }
%{endif~}
%{for name, l in local.listeners~}

listen ${name}
  bind ${var.mesh_address}:${l.port}%{if l.protocol == "h2c"} proto h2%{endif}
%{if l.protocol == "tcp"~}
  mode tcp
  balance leastconn
%{else~}
  mode http
  balance roundrobin
  option idle-close-on-response
  retry-on conn-failure empty-response
%{endif~}
%{if lookup(l, "single", false)~}
  retries 15
  server-template s 2 _${name}._tcp.service.consul resolvers successor resolve-opts allow-dup-ip init-addr none%{if lookup(l, "maxconn", 0) > 0} maxconn ${l.maxconn}%{endif}%{if l.protocol == "h2c"} proto h2%{endif}
%{else~}
  server-template s 4 _${name}._tcp.service.consul resolvers consul resolve-opts allow-dup-ip init-addr none check%{if l.protocol == "h2c"} proto h2%{endif}
%{endif~}
%{endfor~}
EOT
        }
      }
    }
  }
}
