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

  # Names in the registry of go-micro and their ports; the catalog has them.
  registry = {}
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
        healthy_deadline = "1m"
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

        # Nomad registers no names with dots, so HAProxy does it, with the agent
        # of its node. Consul asks for its health, and forgets it when it is gone.
        template {
          destination = "local/registry.lua"
          data        = <<EOT
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
