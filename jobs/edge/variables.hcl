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
  description = "HAProxy image for the docker driver; 2.4 or newer."
  default     = "haproxy:2.8.12"
}

variable "binary" {
  type        = string
  description = "Path of HAProxy on the nodes, for exec and raw_exec."
  default     = "/usr/sbin/haproxy"
}

variable "user" {
  type        = string
  description = "User of the task. Ports below 1024 need root; the workers then run as uid."
  default     = "root"
}

variable "uid" {
  type        = number
  description = "Number of the user and group that the workers run as, and that may read the bundles."
  default     = 99
}

variable "datacenters" {
  type        = list(string)
  description = "Datacenters whose nodes have an edge."
  default     = ["*"]
}

variable "bind_address" {
  type        = string
  description = "Address to listen on; * is all."
  default     = "*"
}

variable "public_address" {
  type        = string
  description = "Addresses at which clients reach a node, with commas between them, for DNS records; for example $${attr.unique.platform.aws.public-ipv4}. The node's own when empty."
  default     = ""
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

variable "certificates" {
  type        = list(string)
  description = "Names of certificates in the store (drover cert list). The first is for clients that name no host."
  validation {
    condition     = length(var.certificates) > 0
    error_message = "The edge needs at least one certificate: name it, and make it with drover cert issue."
  }
}

variable "hsts_max_age" {
  type        = number
  description = "Seconds for which browsers are to use HTTPS only (RFC 6797); 0 says nothing about it."
  default     = 31536000
}

variable "hard_stop_after" {
  type        = string
  description = "How long uploads, downloads and websockets may go on in an old worker after a reload."
  default     = "300s"
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

variable "tcp_ports" {
  type        = list(number)
  description = "Ports beside HTTP and HTTPS that routes may have for TCP connections."
  default     = []
  validation {
    condition     = length([for port in var.tcp_ports : port if port < 1 || port > 65535]) == 0
    error_message = "A port is a number from 1 to 65535."
  }
}

variable "accept_proxy" {
  type        = list(string)
  description = "Addresses and ranges of load balancers in front, which send the PROXY protocol and are believed."
  default     = []
}

variable "max_instances" {
  type        = number
  description = "How many instances of one service are used."
  default     = 16
}

variable "drain" {
  type        = string
  description = "How long running requests may go on when the edge itself is stopped or replaced; its node takes no new ones meanwhile."
  default     = "10s"
}
