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
