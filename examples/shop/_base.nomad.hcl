# Every job of the stack inherits what is here.
job "*" {
  update {
    health_check     = "task_states"
    min_healthy_time = "1s"
    healthy_deadline = "30s"
    auto_revert      = true
  }
}
