# The dev cluster (`drover dev up --tool nomad-autoscaler`).

variables {
  driver  = "raw_exec"
  user    = "nobody"
  binary  = "$${meta.drover_bin}/nomad-autoscaler"
  plugins = "$${NOMAD_TASK_DIR}/plugins"
}
