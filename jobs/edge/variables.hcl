variable "image" {
  type        = string
  description = "HAProxy image for the docker driver; 2.6 or newer."
  default     = "haproxy:3.2.24@sha256:b89c23154f8c5df97f2bd06aceb69d2190ed97b46b35708edc104b659dce0eae"
}

variable "binary" {
  type        = string
  description = "Path of HAProxy on the nodes, for exec and raw_exec."
  default     = "/usr/sbin/haproxy"
}

variable "uid" {
  default = 99
}

variable "bind_address" {
  type        = string
  description = "Address to listen on; * is all."
  default     = "*"
}

variable "certificates" {
  type        = list(string)
  description = "Names of certificates in the store (drover cert list). The first is for clients that name no host."
  validation {
    condition     = length(var.certificates) > 0
    error_message = "The edge needs at least one certificate: name it, and make it with drover cert issue."
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

variable "body_timeout" {
  type        = string
  description = "How long a request with a body may go on while neither the client sends any of it nor the service answers."
  default     = "5m"
}

variable "passwords_per_source" {
  type        = number
  description = "Passwords a second that one address may try, on an average of 10 seconds; 0 is no limit. One that was good within a minute does not count."
  default     = 5
}
