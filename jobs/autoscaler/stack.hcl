# HashiCorp's nomad-autoscaler: counts of jobs and of nodes.

stack "autoscaler" {
  version     = "0.1.0"
  app_version = "0.5.0"
  description = "nomad-autoscaler: scales jobs by their scaling blocks, and nodes by policies"
}

# The controller scales no job while one of this name runs.
service "autoscaler" {
  enabled = var.scale_jobs
}

service "node-autoscaler" {
  enabled = !var.scale_jobs
}
