variable "server" {
  type        = string
  description = "What keeps the metrics: victoria-metrics, or prometheus. Both have the same scrape configuration and rules."
  default     = "victoria-metrics"
  validation {
    condition     = contains(["victoria-metrics", "prometheus"], var.server)
    error_message = "The server is victoria-metrics or prometheus."
  }
}

variable "driver" {
  type        = string
  description = "Task driver: docker (the images), exec or raw_exec (binaries on every node)."
  default     = "docker"
  validation {
    condition     = contains(["docker", "exec", "raw_exec"], var.driver)
    error_message = "The driver is one of docker, exec and raw_exec."
  }
}

variable "images" {
  type        = map(string)
  description = "Images for the docker driver that replace the defaults, by task: victoria-metrics, prometheus, vmalert, alertmanager, node-exporter."
  default     = {}
}

variable "binaries" {
  type        = map(string)
  description = "Paths of the programs on the nodes for exec and raw_exec, by task. /usr/local/bin/TASK for those that are not here."
  default     = {}
}

variable "user" {
  type        = string
  description = "User of the tasks: a name on the nodes, or a number for docker."
  default     = "65534"
}

variable "datacenters" {
  type        = list(string)
  description = "Datacenters whose nodes may run the server; node-exporter runs on all of their nodes."
  default     = ["*"]
}

variable "volume" {
  type        = string
  description = "Host volume for the metrics. Empty keeps them in the allocation, which Nomad moves to the next one on the same node."
  default     = ""
}

variable "retention" {
  type        = string
  description = "How long metrics are kept: a number and d, w or y."
  default     = "30d"
}

variable "interval" {
  type        = string
  description = "How often targets are scraped that do not say it themselves."
  default     = "15s"
}

variable "memory" {
  type        = number
  description = "Memory of the server in MB."
  default     = 512
}

variable "consul_address" {
  type        = string
  description = "HOST:PORT of the Consul agent as a task sees it."
  default     = "127.0.0.1:8500"
  validation {
    condition     = trimprefix(var.consul_address, "unix://") == var.consul_address
    error_message = "The address is HOST:PORT. The servers do not look for targets through a socket."
  }
}

variable "consul_token_file" {
  type        = string
  description = "File with a Consul token that may read services and nodes, as the task sees it, for clusters with ACLs. Empty without."
  default     = ""
}

variable "consul" {
  type        = bool
  description = "Scrape the Consul agents: at the address of each node and the port of consul_address."
  default     = true
}

variable "nomad" {
  type        = bool
  description = "Scrape the Nomad agents."
  default     = true
}

variable "agent_scheme" {
  type        = string
  description = "http or https, of the Nomad and Consul agents."
  default     = "http"
}

variable "rules" {
  type        = string
  description = "More groups of rules, in the form of Prometheus: the text of a file. Empty for none."
  default     = ""
}

variable "alertmanager" {
  type        = bool
  description = "Run Alertmanager. Without it alerts are evaluated and stored, and sent to no one."
  default     = true
}

variable "alertmanager_config" {
  type        = string
  description = "Text of Alertmanager's configuration. The default sends nothing."
  default     = "route:\n  receiver: none\nreceivers:\n  - name: none\n"
}

variable "node_exporter" {
  type        = bool
  description = "Run node-exporter on every node."
  default     = true
}
