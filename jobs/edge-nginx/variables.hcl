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
  description = "nginx image for the docker driver."
  default     = "nginx:1.28"
}

variable "binary" {
  type        = string
  description = "Path of nginx on the nodes, for exec and raw_exec."
  default     = "/usr/sbin/nginx"
}

variable "user" {
  type        = string
  description = "User of the task. Ports below 1024 need root; the workers then run as uid."
  default     = "root"
}

variable "uid" {
  type        = number
  description = "Number of the user and group that the workers run as, and that may read the bundles."
  default     = 101
}

variable "datacenters" {
  type        = list(string)
  description = "Datacenters whose nodes have an edge."
  default     = ["*"]
}

variable "bind_address" {
  type        = string
  description = "Address to listen on; 0.0.0.0 is all."
  default     = "0.0.0.0"
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

variable "certificate" {
  type        = string
  description = "Name of the certificate in the store (drover cert list) that is served for all hosts."
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
