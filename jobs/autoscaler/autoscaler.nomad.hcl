# Scales jobs by their scaling blocks, and nodes by policies.

job "autoscaler" {
  group "autoscaler" {
    task "scaler" {}
  }
}
