variable "scale_jobs" {
  type        = bool
  description = "Scale jobs by their scaling blocks, too. false scales only what `policies` name, beside the autoscaling of drover's controller."
  default     = true
}

variable "policies" {
  type        = map(string)
  description = "Policies of nodes: the text of each file by its name without .hcl."
  default     = {}
}

variable "config" {
  type        = string
  description = "More configuration of nomad-autoscaler, such as blocks apm, target and strategy: the text of a file. Put no secret into it."
  default     = ""
}

variable "prometheus" {
  type        = string
  description = "URL of Prometheus or VictoriaMetrics for the source prometheus. Empty takes an instance of the service victoria-metrics or prometheus in Consul, and none if there is none."
  default     = ""
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
  description = "Image for the docker driver."
  default     = "hashicorp/nomad-autoscaler:0.5.0"
}

variable "binary" {
  type        = string
  description = "Path of the program on the nodes for exec and raw_exec."
  default     = "/usr/local/bin/nomad-autoscaler"
}

variable "plugins" {
  type        = string
  description = "Directory with plugins, as the task sees it."
  default     = "/plugins"
}

variable "user" {
  type        = string
  description = "User of the task: a name on the nodes, or a number for docker."
  default     = "65534"
}

variable "datacenters" {
  type        = list(string)
  description = "Datacenters whose nodes may run it."
  default     = ["*"]
}

variable "memory" {
  type        = number
  description = "Memory in MB."
  default     = 256
}
