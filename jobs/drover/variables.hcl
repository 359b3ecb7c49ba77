variable "driver" {
  type        = string
  description = "Task driver: docker (the image), exec or raw_exec (a binary on every node, or an artifact)."
  default     = "docker"
  validation {
    condition     = contains(["docker", "exec", "raw_exec"], var.driver)
    error_message = "The driver is one of docker, exec and raw_exec."
  }
}

variable "image" {
  type        = string
  description = "drover image for the docker driver; its entrypoint is drover."
  default     = "ghcr.io/drover-nomad/drover:0.1.0"
}

variable "drover_binary" {
  type        = string
  description = "Path of drover on the nodes, for exec and raw_exec without an artifact."
  default     = "/usr/local/bin/drover"
}

variable "artifact" {
  type        = string
  description = "URL of an archive with drover at its top, as Nomad's artifact block takes it, for exec and raw_exec; of a release it ends with .tar.gz//drover_VERSION_linux_amd64, the directory in it. Empty when it is on the nodes."
  default     = ""
}

variable "artifact_checksum" {
  type        = string
  description = "Checksum of the archive: sha256:…"
  default     = ""
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

variable "replicas" {
  type        = number
  description = "How many run. One works, the others wait to take over."
  default     = 2
}

variable "consul_address" {
  type        = string
  description = "HOST:PORT or unix://PATH of the Consul agent as a task sees it."
  default     = "127.0.0.1:8500"
}

variable "consul_volume" {
  type        = string
  description = "Host volume that is the directory of Consul's socket, when consul_address is one: docker and exec mount it where it is on the node."
  default     = ""
}

variable "challenge_port" {
  type        = number
  description = "Port at which CAs ask for HTTP-01; it is looked there before a CA is asked."
  default     = 80
}

variable "check_names" {
  type        = bool
  description = "Look whether names can be proven before a CA is asked. Networks that cannot reach their own public address say false."
  default     = true
}

variable "resolvers" {
  type        = list(string)
  description = "DNS servers, HOST:PORT, that must return a DNS-01 record before the CA is asked to validate it."
  default     = []
}

variable "sweep_orphans" {
  type        = bool
  description = "Remove registrations in Consul that lost clients left behind, instead of naming them."
  default     = false
}

variable "autoscale" {
  type        = string
  description = "Scale services by the scaling blocks of their jobs: off, dry-run or on. Only where no nomad-autoscaler scales jobs (docs/how-to/autoscaling.md)."
  default     = "off"
  validation {
    condition     = contains(["off", "dry-run", "on"], var.autoscale)
    error_message = "The variable autoscale is one of off, dry-run and on."
  }
}

variable "prometheus" {
  type        = string
  description = "URL of Prometheus or VictoriaMetrics for checks with source prometheus. Empty for the service victoria-metrics or prometheus in Consul."
  default     = ""
}

variable "tenancy" {
  type        = string
  description = "Text of the table of DNS providers and of what each namespace may claim (docs/reference/tenancy.md). Empty for a cluster with one namespace whose stacks bring their own DNS credentials."
  default     = ""
}

variable "arguments" {
  type        = list(string)
  description = "Further arguments of drover controller, such as --store."
  default     = []
}
