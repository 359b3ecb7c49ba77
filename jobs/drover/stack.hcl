# drover as a job: the controller, which works without a command of an operator.

stack "drover" {
  version     = "0.1.0"
  app_version = "0.1.0"
  description = "The controller: renews certificates, looks what is served, keeps DNS records"
}

service "controller" {}

precondition {
  condition     = var.consul_volume == "" || trimprefix(var.consul_address, "unix://") != var.consul_address
  error_message = "consul_volume is the directory of Consul's socket: set consul_address to unix://PATH of the socket."
}

precondition {
  condition     = var.consul_volume != "" || trimprefix(var.consul_address, "unix://") == var.consul_address || var.driver == "raw_exec"
  error_message = "docker and exec do not see Consul's socket on the node: set consul_volume to the host volume that is its directory."
}

precondition {
  condition     = (var.artifact == "") == (var.artifact_checksum == "")
  error_message = "artifact and artifact_checksum go together: what runs here reads the account key of the CA."
}
