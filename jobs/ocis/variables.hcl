variable "domain" {
  type        = string
  description = "Host (and port, if not 443) under which users reach this oCIS: cloud.example.org. It must also resolve inside the cluster."
  validation {
    condition     = var.domain != "" && regex_replace(var.domain, "^[A-Za-z0-9.-]+(:[0-9]+)?$", "") == ""
    error_message = "The domain is a host name or address with an optional port, without a scheme: cloud.example.org or 127.0.0.1:9200."
  }
}

variable "certificate_names" {
  type        = list(string)
  description = "Names of the certificate; the domain when empty. A wildcard needs certificate_challenge = \"dns-01\"."
  default     = []
}

variable "certificate_challenge" {
  type        = string
  description = "How the CA is shown that the names are ours: http-01 at the edge, or dns-01 with the DNS provider."
  default     = "http-01"
  validation {
    condition     = contains(["http-01", "dns-01", "dns-persist-01"], var.certificate_challenge)
    error_message = "The challenge is one of http-01, dns-01 and dns-persist-01."
  }
}

variable "dns_provider" {
  type        = string
  description = "Where the record of the domain is made: powerdns, rfc2136 or cloudflare; empty for nowhere. Its credential is in the environment."
  default     = ""
}

variable "dns_server" {
  type        = string
  description = "Server of the DNS provider: the URL of PowerDNS, HOST:PORT for rfc2136."
  default     = ""
}

variable "dns_zones" {
  type        = list(string)
  description = "Zones that may be changed."
  default     = []
}

variable "dns_targets" {
  type        = list(string)
  description = "Where the domain leads: addresses, or one name; the instances of the edge when empty."
  default     = []
}

variable "dns_resolvers" {
  type        = list(string)
  description = "DNS servers, HOST:PORT, that must return a DNS-01 record before the CA is asked to validate it; if empty, those of the system."
  default     = []
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

variable "image" {
  type        = string
  description = "oCIS image for the docker driver. The stack is written for oCIS 2.0."
  default     = "owncloud/ocis:2.0.0"
}

variable "binary" {
  type        = string
  description = "Path of the ocis binary on the nodes, for exec and raw_exec."
  default     = "/usr/local/bin/ocis"
}

variable "datacenters" {
  type        = list(string)
  description = "Datacenters in which the services may run."
  default     = ["*"]
}

variable "user" {
  type        = string
  description = "User that every task runs as. The image's own user has the number 1000."
  default     = "1000"
  validation {
    condition     = !contains(["", "0", "root"], var.user)
    error_message = "No service of oCIS runs as root: name another user."
  }
}

variable "uid" {
  type        = number
  description = "Number of that user, for files with secrets that only it may read."
  default     = 1000
}

variable "data_dir" {
  type        = string
  description = "Directory on the nodes below which raw_exec keeps each service's data (raw_exec cannot mount volumes). It must exist and let the user create directories."
  default     = ""
}

variable "ephemeral" {
  type        = bool
  description = "Keep data in the allocation directory: everything is lost when a stateful job is replaced. For throw-away tests only."
  default     = false
}

variable "mesh_address" {
  type        = string
  description = "Loopback address of every node on which the mesh listens for the services that oCIS reaches by fixed addresses."
  default     = "127.0.0.1"
}

variable "mesh_driver" {
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

variable "consul_address" {
  type        = string
  description = "Consul's HTTP address as a service reaches it on its node, HOST:PORT or unix://PATH; services register there."
  default     = "127.0.0.1:8500"
}

variable "consul_volume" {
  type        = string
  description = "Host volume that is the directory of Consul's socket, when consul_address is one: docker and exec mount it where it is on the node."
  default     = ""
}

variable "insecure" {
  type        = bool
  description = "Do not verify the certificate of https://DOMAIN inside oCIS. Only while it is self-signed."
  default     = false
}

variable "demo_users" {
  type        = bool
  description = "Create oCIS's demo users (einstein, marie, …) when the user database is first made."
  default     = false
}

variable "basic_auth" {
  type        = bool
  description = "Accept user name and password on every request, for WebDAV clients that know no OpenID Connect."
  default     = false
}

variable "placeholder_assets" {
  type        = bool
  description = "Give idp and web a placeholder page each. For binaries built from the Go module, which carry none."
  default     = false
}

variable "log_level" {
  type        = string
  description = "Log level of every service."
  default     = "warn"
  validation {
    condition     = contains(["panic", "fatal", "error", "warn", "info", "debug", "trace"], var.log_level)
    error_message = "The log level is one of panic, fatal, error, warn, info, debug and trace."
  }
}
