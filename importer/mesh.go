package importer

import (
	"fmt"
	"strings"
)

// meshJob returns the job that listens for the services on every node.
func (w *writer) meshJob() []byte {
	d := &document{}
	switch {
	case w.m.byDNS():
		d.comment("Published ports. HAProxy on every node listens on them and forwards to the healthy instances in Consul.")
	case w.m.network == NetworkGateway:
		d.comment("Names and published ports. HAProxy on every node listens for all services on the address of Nomad's bridge " +
			"and forwards to the healthy instances in Consul. The services find this address by their names in /etc/hosts, and " +
			"have dynamic ports, so that a new instance starts beside the old one. The bridge may be made later: transparent lets HAProxy listen before.")
	default:
		d.comment("Names and published ports. HAProxy on every node listens for each service on an address of var.mesh_cidr " +
			"and forwards to the healthy instances in Consul, as a ClusterIP does on Kubernetes. The services find these addresses " +
			"by their names in /etc/hosts, and have dynamic ports, so that a new instance starts beside the old one.")
		d.comment("The whole range must be local on each node: ip route replace local 198.18.0.0/16 dev lo. With mesh_prepare, the job does this itself.")
	}
	d.gap()
	d.line("locals {")
	d.comment("Listening address of a port, and its service in Consul. single: one instance stops before the next one starts, so that connections wait for the successor. The addresses do not change: they are in the containers' /etc/hosts.")
	d.line("listeners = {")
	several := false
	for _, l := range w.net.listeners {
		extra := ""
		for _, s := range w.m.Services {
			for _, p := range registered(s) {
				if w.net.consulName(s, p) == l.service && s.Single && len(l.more) == 0 {
					extra = ", single = true"
				}
			}
		}
		if len(l.more) > 0 {
			extra += ", more = " + quotes(l.more)
		}
		if len(l.servers) > 0 {
			extra += ", servers = " + quotes(l.servers)
		}
		if l.sticky {
			extra += ", sticky = true"
		}
		if strings.HasPrefix(l.bind, gateway+":") {
			l.bind += " transparent"
		}
		several = several || len(l.more)+len(l.servers) > 0 || l.sticky
		d.line("%s = { bind = %s, service = %s%s }", Quote(l.name), Quote(l.bind), Quote(l.service), extra)
	}
	d.line("}")
	d.line("}")
	d.gap()
	text := fmt.Sprintf(meshText, w.net.meshJob, w.net.meshJob)
	if w.m.network != "" {
		text = strings.Replace(text, meshPrepare, "", 1)
	}
	if several {
		text = strings.Replace(text, meshServers, meshSeveral, 1)
	}
	d.b.WriteString(text)
	return d.bytes()
}

// meshVariables are the variables of the mesh.
const meshVariables = `variable "mesh_driver" {
  type        = string
  description = "Task driver of the mesh (HAProxy): docker, exec or raw_exec."
  default     = "docker"
  validation {
    condition     = contains(["docker", "exec", "raw_exec"], var.mesh_driver)
    error_message = "The driver is one of docker, exec and raw_exec."
  }
}

variable "mesh_image" {
  type        = string
  description = "HAProxy image for the docker driver; 2.4 or newer."
  default     = "haproxy:2.8.12"
}

variable "mesh_binary" {
  type        = string
  description = "Path of HAProxy on the nodes, for exec and raw_exec."
  default     = "/usr/sbin/haproxy"
}

variable "mesh_user" {
  type        = string
  description = "User of the mesh. Ports below 1024 need root."
  default     = "root"
}
`

// meshRange are the variables of the addresses of the mesh.
const meshRange = `
variable "mesh_cidr" {
  type        = string
  description = "Range of the addresses in mesh.nomad.hcl, which is local on every node."
  default     = "198.18.0.0/16"
}

variable "mesh_prepare" {
  type        = bool
  description = "Make the range local on each node with a task of raw_exec. Without it, do so when you prepare the node."
  default     = false
}
`

// meshPrepare is what meshText has for addresses that must be made local.
const meshPrepare = `      dynamic "task" {
        for_each = var.mesh_prepare ? ["route"] : []
        labels   = [task.value]
        content {
          driver = "raw_exec"
          user   = "root"
          lifecycle {
            hook = "prestart"
          }
          config {
            command = "/bin/sh"
            args    = ["-c", "PATH=$PATH:/sbin:/usr/sbin; exec ip route replace local ${var.mesh_cidr} dev lo"]
          }
          resources {
            cpu    = 20
            memory = 16
          }
        }
      }

`

// meshText is the job of the mesh; its verbs are the job's name and the name of its
// service in Consul.
const meshText = `job "%s" {
  datacenters = var.datacenters
  type        = "system"

  # Two on each node, on the same addresses: Linux hands out connections to both
  # (SO_REUSEPORT), and one is always there.
  dynamic "group" {
    for_each = { mesh = "0s", spare = "10s" }
    labels   = [group.key]
    content {
      update {
        max_parallel      = 1
        health_check      = "checks"
        min_healthy_time  = "1s"
        healthy_deadline  = "5m" # the image is downloaded within it
        progress_deadline = "10m"
        auto_revert       = true
      }

      restart {
        attempts = 20
        interval = "5m"
        delay    = "1s"
        mode     = "delay"
      }

      # When the job is replaced, the spare listens until its sibling is there.
      shutdown_delay = group.value

      network {
        port "health" {}
      }

      service {
        name     = "%s"
        port     = "health"
        provider = "consul"
        check {
          type     = "http"
          path     = "/"
          interval = "2s"
          timeout  = "2s"
        }
      }

` + meshPrepare + `      task "haproxy" {
        driver = var.mesh_driver
        user   = var.mesh_user

        # SIGUSR1 stops listening and lets running connections finish.
        kill_signal  = "SIGUSR1"
        kill_timeout = "10s"

        config {
          image        = var.mesh_driver == "docker" ? var.mesh_image : null
          network_mode = var.mesh_driver == "docker" ? "host" : null
          command      = var.mesh_driver == "docker" ? "haproxy" : var.mesh_binary
          args         = ["-db", "-f", "$${NOMAD_TASK_DIR}/haproxy.cfg"]
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

# For single services: an address that is gone from DNS is kept and tried again
# each second until the successor's appears, as long as timeout queue.
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
  mode tcp
  log global
  balance leastconn
  default-server inter 2s fastinter 500ms downinter 500ms fall 3 rise 1
  timeout connect 2s
  timeout queue 30s
  timeout client 24h
  timeout server 24h
  option redispatch
  retries 3

frontend health
  mode http
  timeout client 10s
  bind {{ env "NOMAD_ADDR_health" }}
  monitor-uri /
%%{for name, l in local.listeners~}

listen ${name}
  bind ${l.bind}
%%{if lookup(l, "single", false)~}
  retries 30
  server-template s 2 _${l.service}._tcp.service.consul resolvers successor resolve-opts allow-dup-ip init-addr none
%%{else~}
  server-template s 10 _${l.service}._tcp.service.consul resolvers consul resolve-opts allow-dup-ip init-addr none check
%%{endif~}
%%{endfor~}
EOT
        }
      }
    }
  }
}
`

// meshServers is what meshSeveral replaces in meshText if a listener has more than one
// service behind it.
const (
	meshServers = `%{if lookup(l, "single", false)~}
  retries 30
  server-template s 2 _${l.service}._tcp.service.consul resolvers successor resolve-opts allow-dup-ip init-addr none
%{else~}
  server-template s 10 _${l.service}._tcp.service.consul resolvers consul resolve-opts allow-dup-ip init-addr none check
%{endif~}
`
	meshSeveral = `%{if lookup(l, "sticky", false)~}
  balance source
%{endif~}
%{if l.service != "" && lookup(l, "single", false)~}
  retries 30
  server-template s 2 _${l.service}._tcp.service.consul resolvers successor resolve-opts allow-dup-ip init-addr none
%{endif~}
%{if l.service != "" && !lookup(l, "single", false)~}
  server-template s 10 _${l.service}._tcp.service.consul resolvers consul resolve-opts allow-dup-ip init-addr none check
%{endif~}
%{for i, name in lookup(l, "more", [])~}
  server-template s${i}- 10 _${name}._tcp.service.consul resolvers consul resolve-opts allow-dup-ip init-addr none check
%{endfor~}
%{for i, a in lookup(l, "servers", [])~}
  server a${i} ${a} check
%{endfor~}
`
)
