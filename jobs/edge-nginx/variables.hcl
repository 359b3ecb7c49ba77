variable "image" {
  type        = string
  description = "nginx image for the docker driver."
  default     = "nginx:1.30.5@sha256:e9f347c65f318767714e8b0eccfd6b558d00fb92630791fb6cd901fcdf7f6fdd"
}

variable "binary" {
  type        = string
  description = "Path of nginx on the nodes, for exec and raw_exec."
  default     = "/usr/sbin/nginx"
}

variable "uid" {
  default = 101
}

variable "bind_address" {
  type        = string
  description = "Address to listen on; 0.0.0.0 is all."
  default     = "0.0.0.0"
}

variable "certificate" {
  type        = string
  description = "Name of the certificate in the store (drover cert list) that is served for all hosts."
}

variable "accept_proxy" {
  type        = list(string)
  description = "Addresses and ranges of load balancers in front, which send the PROXY protocol and are believed; with any, every connection must have it."
  default     = []
}

variable "passwords_per_source" {
  type        = number
  description = "Requests a second with a password that one address may make, with a burst of ten times as many; 0 is no limit. nginx computes the hash at each request."
  default     = 50
}
