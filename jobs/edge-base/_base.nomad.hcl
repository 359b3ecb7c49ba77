# Shared by the edges: variables, the grammar of tags, and the job except its
# one task.

variable "name" {
  type        = string
  description = "ID of the job of this edge: edge, or edge-NAME for another one beside it."
  default     = "edge"
  validation {
    condition     = regex_replace(var.name, "^edge(?:-[a-z0-9-]*[a-z0-9])?$", "") == ""
    error_message = "The ID of an edge is edge, or edge- and lower-case letters, digits and dashes."
  }
}

variable "driver" {
  type        = string
  description = "Task driver: docker (the image), exec or raw_exec (a binary on every node)."
  default     = "docker"
  validation {
    condition     = contains(["docker", "exec", "raw_exec"], var.driver)
    error_message = "The driver is one of docker, exec and raw_exec."
  }
}

variable "user" {
  type        = string
  description = "User of the task. Ports below 1024 need root; the workers then run as uid."
  default     = "root"
}

variable "datacenters" {
  type        = list(string)
  description = "Datacenters whose nodes have an edge."
  default     = ["*"]
}

variable "public_address" {
  type        = string
  description = "Addresses at which clients reach a node, with commas between them, for DNS records; for example $${attr.unique.platform.aws.public-ipv4}. The node's own when empty."
  default     = ""
}

variable "class" {
  type        = string
  description = "Class of this edge. It takes the services that have it in a tag drover.class."
  default     = "default"
  validation {
    condition     = regex_replace(var.class, "^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$", "") == ""
    error_message = "A class has lower-case letters, digits and dashes."
  }
}

variable "default_class" {
  type        = string
  description = "Class of the services without a tag drover.class. All edges have the same."
  default     = "default"
}

variable "tenants" {
  type        = map(object({ services = list(string), hosts = list(string), tcp_ports = list(number) }))
  description = "What each Nomad namespace may claim, by its name: names of its services in Consul (* stands for any characters), hosts (NAME, *.NAME, or * for all) and TCP ports of their routes. Empty for a cluster with one namespace. See docs/reference/tenancy.md."
  default     = {}
  validation {
    condition     = length([for t in values(var.tenants) : t if length([for s in t.services : s if regex_replace(s, "^[a-z0-9*-]+$", "") != ""]) + length([for h in t.hosts : h if regex_replace(h, "^(?:\\*|(?:\\*\\.)?[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)$", "") != ""]) > 0]) == 0
    error_message = "Services are lower-case letters, digits, dashes and *. Hosts are NAME, *.NAME or *."
  }
}

variable "http_port" {
  type        = number
  description = "Port for HTTP-01 challenges and for redirects to HTTPS."
  default     = 80
}

variable "https_port" {
  type        = number
  description = "Port of HTTPS."
  default     = 443
}

variable "hsts_max_age" {
  type        = number
  description = "Seconds for which browsers are to use HTTPS only (RFC 6797); 0 says nothing about it."
  default     = 31536000
}

variable "hard_stop_after" {
  type        = string
  description = "How long uploads, downloads and websockets may go on in an old worker after a reload."
  default     = "1h"
}

variable "tls_min" {
  type        = string
  description = "Oldest version of TLS that is spoken: 1.2 (Mozilla's intermediate configuration) or 1.3 (its modern one)."
  default     = "1.2"
  validation {
    condition     = contains(["1.2", "1.3"], var.tls_min)
    error_message = "TLS is spoken from version 1.2 or from 1.3 on."
  }
}

variable "users" {
  type        = list(string)
  description = "Lists of users for basic authentication (Nomad Variables drover/users/NAME) that routes may ask for."
  default     = []
  validation {
    condition     = length([for name in var.users : name if regex_replace(name, "^[a-z0-9][a-z0-9-]{0,62}$", "") != ""]) == 0
    error_message = "The name of a list of users has lower-case letters, digits and dashes."
  }
}

variable "authorities" {
  type        = list(string)
  description = "Certificate authorities that services may name in drover.ca: names of Nomad Variables drover/ca/NAME, whose item ca has the certificates in PEM, and consul for the roots of Consul's mesh."
  default     = []
  validation {
    condition     = length([for name in var.authorities : name if name == "none" || regex_replace(name, "^[a-z0-9][a-z0-9-]{0,62}$", "") != ""]) == 0
    error_message = "The name of an authority has lower-case letters, digits and dashes, and is not none."
  }
}

variable "https_without_ca" {
  type        = bool
  description = "Route services with drover.protocol=https and without drover.ca, whose certificate is then not verified. For the time in which services get the tag."
  default     = false
}

variable "metrics_network" {
  type        = string
  description = "Host network of the Nomad clients (host_network) whose address the port metrics has."
  default     = "default"
}

variable "metrics_users" {
  type        = string
  description = "List of users, one of the variable users, that may read /metrics and /edge. Empty: everyone who reaches the port."
  default     = ""
  validation {
    condition     = var.metrics_users == "" || regex_replace(var.metrics_users, "^[a-z0-9][a-z0-9-]{0,62}$", "") == ""
    error_message = "The name of a list of users has lower-case letters, digits and dashes."
  }
}

variable "authenticators" {
  type        = list(string)
  description = "Names of services in Consul that routes may ask whether a request is allowed (drover.forward-auth)."
  default     = []
  validation {
    condition     = length([for name in var.authenticators : name if regex_replace(name, "^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$", "") != ""]) == 0
    error_message = "The name of an authenticator has lower-case letters, digits and dashes."
  }
}

variable "client_cas" {
  type        = list(string)
  description = "Lists of CAs (Nomad Variables drover/client-ca/NAME, item ca) whose certificates routes may ask clients for (drover.client-cert)."
  default     = []
  validation {
    condition     = length([for name in var.client_cas : name if regex_replace(name, "^[a-z0-9][a-z0-9-]{0,62}$", "") != ""]) == 0
    error_message = "The name of a list of CAs has lower-case letters, digits and dashes."
  }
}

variable "error_pages" {
  type        = map(string)
  description = "Pages in HTML for answers of the edge itself, by status: 400, 403, 404, 408, 413, 429, 500, 502, 503 and 504. They are at most 12,000 bytes long."
  default     = {}
  validation {
    condition     = length([for status, page in var.error_pages : status if !contains(["400", "403", "404", "408", "413", "429", "500", "502", "503", "504"], status) || strlen(page) > 12000]) == 0
    error_message = "Write pages of at most 12,000 bytes for 400, 403, 404, 408, 413, 429, 500, 502, 503 and 504."
  }
}

variable "maintenance_page" {
  type        = string
  description = "Page in HTML for services of stacks in maintenance (drover maintenance on)."
  default     = "<!doctype html><title>Maintenance</title><h1>Maintenance</h1><p>Please try again later.</p>\n"
  validation {
    condition     = strlen(var.maintenance_page) > 0 && strlen(var.maintenance_page) <= 12000
    error_message = "Write a page of at most 12,000 bytes."
  }
}

variable "trace_sample" {
  type        = number
  description = "Percentage of the requests without a trace context (traceparent, W3C) that begin a trace which is sampled; the others begin one which is not. -1 begins none."
  default     = -1
  validation {
    condition     = var.trace_sample >= -1 && var.trace_sample <= 100
    error_message = "Write a number from 0 to 100, or -1 for no traces."
  }
}

variable "drain" {
  type        = string
  description = "How long running requests may go on when the edge itself is stopped or replaced; its node takes no new ones meanwhile."
  default     = "10s"
}

variable "memory" {
  type        = number
  description = "Memory of the task in MB. How many connections the edge takes follows from it: 6 for each MB with HAProxy, 3 for each worker with nginx."
  default     = 256
  validation {
    condition     = var.memory >= 64
    error_message = "The edge needs 64 MB of memory or more."
  }
}

variable "header_timeout" {
  type        = string
  description = "How long a client may take to send the headers of a request, and for its TLS handshake."
  default     = "10s"
}

variable "client_timeout" {
  type        = string
  description = "How long a client may read nothing of an answer; with nginx, also how long it may send nothing of a body."
  default     = "30s"
}

variable "connections_per_source" {
  type        = number
  description = "Connections that one address may have at a time; 0 is no limit."
  default     = 128
}

variable "requests_per_source" {
  type        = number
  description = "Requests a second that one address may make, on an average of 10 seconds; 0 is no limit."
  default     = 1000
}

variable "trusted_proxies" {
  type        = list(string)
  description = "Addresses and ranges of HTTP proxies in front, whose headers say who the client is: the last address of X-Forwarded-For is the client's."
  default     = []
}

variable "uid" {
  type        = number
  description = "Number of the user and group that the workers run as, and that may read the bundles."
}

locals {
  # The grammar, which package edge has in the same words. Nothing that does
  # not fit it gets into the configuration.
  host  = "[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"
  hosts = "(?:\\*\\.)?${local.host}" # or all below one
  path  = "/[A-Za-z0-9._~/+-]*"
  url   = "(?:https?:/)?/[A-Za-z0-9._~/?#@!&()*+,;=%:-]*"
  v4    = "(?:(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\\.){3}(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
  ipv4  = "${local.v4}(?:/(?:3[0-2]|[12]?[0-9]))?"
  hex   = "[0-9a-f]{1,4}"
  v6    = "(?:(?:${local.hex}:){7}${local.hex}|(?:${local.hex}:){1,7}:|(?:${local.hex}:){1,6}:${local.hex}|(?:${local.hex}:){1,5}(?::${local.hex}){1,2}|(?:${local.hex}:){1,4}(?::${local.hex}){1,3}|(?:${local.hex}:){1,3}(?::${local.hex}){1,4}|(?:${local.hex}:){1,2}(?::${local.hex}){1,5}|${local.hex}:(?::${local.hex}){1,6}|:(?::${local.hex}){1,7}|::)"
  ipv6  = "${local.v6}(?:/(?:12[0-8]|1[01][0-9]|[1-9]?[0-9]))?"
  range = "(?:${local.ipv4}|${local.ipv6})"

  # An address of an instance. The job that registers it writes it. A name would be
  # resolved when the configuration is read, and one without an address refuse it.
  address = "^(?:${local.v4}|${local.v6})$"

  # Options that both edges have, in package edge in features.go.
  features = "|class=[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?|forward-auth=[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?${local.path}(?: [A-Za-z0-9-]+(?:,[A-Za-z0-9-]+)*)?|weight=(?:100|[1-9]?[0-9]) ${local.target}|canary=(?:header [A-Za-z0-9-]+|cookie [A-Za-z0-9_]+) [A-Za-z0-9._~-]+ ${local.target}|deny=${local.range}(?:,${local.range})*|cors=(?:\\*|${local.origin}(?:,${local.origin})*(?: credentials)?)|compress=gzip|timeout=(?:connect|response) [1-9][0-9]{0,4}[smh]|client-cert=[a-z0-9][a-z0-9-]{0,62}|retries=[0-9](?: 50[0234](?:,50[0234])*)?|breaker=[1-9][0-9]{0,2} [1-9][0-9]{0,3}[sm]|rewrite=(?:/(?:\\*|[A-Za-z0-9._~-]+))*(?:/|/\\*\\*)? /(?:[A-Za-z0-9._~/-]|\\{[1-9]\\})*"
  origin   = "https?://[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?(?::[1-9][0-9]{0,4})?"
  target   = "(?:version|service) [a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"

  # An expression for the tags by which a service of no tenant may ask for routes:
  # all without a table, none with one.
  untenanted = length(var.tenants) == 0 ? "" : "^$"
  # For each tenant: an expression for the names of its services, and one for the
  # tags by which they may ask for routes.
  tenants = [for t in values(var.tenants) : {
    services = length(t.services) == 0 ? "[.]" : join("|", [for s in t.services : replace(s, "*", "[a-z0-9-]*")])
    claims = join("|", concat(
      [for h in t.hosts : "(?:route|redirect|sni)=${h == "*" ? "[a-z0-9.*-]+" : replace(replace(h, ".", "\\."), "*", "[a-z0-9.*-]+")}(?:[/ ].*)?"],
      [for p in t.tcp_ports : "tcp=${p}"],
    ))
  }]

  name = "^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$"
  # What a changed template does in the task. Of a signal that finds no task,
  # because it is just being restarted, Nomad makes a failed allocation, which it
  # does not replace in a system job; a script may fail.
  reload = ["-c", ": >\"$NOMAD_TASK_DIR/reload\""]
  # Headers by which services believe who a client is and what it asked for. Only
  # a trusted proxy may send them. Proxy and names with an underscore are removed
  # always (httpoxy; CGI reads X_Real_IP as X-Real-IP).
  spoofable = [
    "Forwarded", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Protocol", "X-Forwarded-Scheme",
    "X-Forwarded-Server", "X-Forwarded-Ssl", "X-Forwarded-Prefix", "X-Forwarded-By", "X-Forwarded-Uri", "X-Forwarded-Method",
    "X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Preferred-Username", "X-Forwarded-Access-Token",
    "X-Auth-Request-User", "X-Auth-Request-Email", "X-Auth-Request-Groups", "X-Auth-Request-Preferred-Username",
    "Remote-User", "Remote-Groups", "Remote-Name", "Remote-Email", "X-Remote-User", "X-Remote-Group", "X-Webauth-User",
    "X-Client-IP", "X-Cluster-Client-IP", "X-Originating-IP", "X-Remote-IP", "X-Remote-Addr", "Client-IP", "True-Client-IP",
    "CF-Connecting-IP", "CF-Connecting-IPv6", "Fastly-Client-IP", "X-Azure-ClientIP",
    "X-Original-URL", "X-Original-URI", "X-Original-Host", "X-Original-Method", "X-Rewrite-URL", "X-Host", "X-HTTP-Host-Override",
    "X-Url-Scheme", "Front-End-Https",
    "Client-Cert", "Client-Cert-Chain", "X-Client-Cert-Subject", "X-Client-Cert", "X-SSL-Client-Cert", "X-SSL-Client-Verify",
    "X-SSL-Client-S-Dn", "SSL-Client-Cert", "SSL-Client-Verify", "SSL-Client-Subject-Dn", "X-Forwarded-Client-Cert",
    "X-Forwarded-Tls-Client-Cert", "X-Forwarded-Tls-Client-Cert-Info",
  ]
  # Headers that say where a message ends, or that the edge itself answers for.
  reserved = "^drover\\.(?:header=[a-z]+ [a-z]+ |forward-auth=[^ ]+ (?:[^ ]*,)?)(?i:connection|keep-alive|proxy-connection|te|trailer|transfer-encoding|upgrade|content-length|forwarded|x-forwarded-for|x-forwarded-proto|x-forwarded-host)(?:[ ,]|$)|^drover\\.forward-auth=[^ ]+ (?:[^ ]*,)?(?i:host)(?:,|$)"
}

job "edge" {
  id          = var.name
  datacenters = var.datacenters
  type        = "system"

  group "edge" {
    update {
      max_parallel     = 1
      health_check     = "checks"
      min_healthy_time = "2s"
      healthy_deadline = "3m" # an image is downloaded within it
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
      port "metrics" {
        host_network = var.metrics_network
      }
    }

    service {
      name     = "edge"
      port     = "metrics"
      provider = "consul"
      tags     = ["metrics"]
      # Where drover asks what is served, and where DNS records lead.
      meta {
        https_address  = var.bind_address == "*" ? "" : var.bind_address
        https_port     = var.https_port
        public_address = var.public_address
        class          = var.class
        default_class  = var.default_class
      }
      check {
        type     = "http"
        path     = "/health"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "*" {
      driver = var.driver
      user   = var.user

      kill_timeout = var.drain

      # With Consul ACLs, templates read services by the token of the task's
      # workload identity. Without this block they would find none.
      consul {}

      config {
        image        = var.driver == "docker" ? var.image : null
        network_mode = var.driver == "docker" ? "host" : null
        command      = "/bin/sh"
      }

      resources {
        cpu    = 200
        memory = var.memory
      }

      # Templates see variables of the node only through the environment.
      env {
        EDGE_BIND_ADDRESS = var.bind_address
      }
    }
  }
}
