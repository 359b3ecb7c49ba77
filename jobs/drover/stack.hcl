# drover itself as a job: what has to go on when nobody types a command.

stack "drover" {
  version     = "0.1.0"
  app_version = "0.1.0"
  description = "The controller: renews certificates, looks what is served, keeps DNS records"
}

service "controller" {}

precondition {
  condition     = (var.artifact == "") == (var.artifact_checksum == "")
  error_message = "artifact and artifact_checksum go together: what runs here reads the account key of the CA."
}
