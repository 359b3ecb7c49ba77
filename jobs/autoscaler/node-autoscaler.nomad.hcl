# Scales by policies only, and no jobs.

job "node-autoscaler" {
  group "autoscaler" {
    task "scaler" {
      template {
        destination = "local/config/nodes.hcl"
        data        = "policy {\n  source \"nomad\" {\n    enabled = false\n  }\n}\n"
      }
    }
  }
}
