# The dev cluster. `drover dev env` gives drover_binary: the one that runs.

variables {
  driver         = "raw_exec"
  user           = "nobody"
  consul_address = "$${meta.consul_http_addr}"
  challenge_port = 9080
}

job "drover-controller" {
  group "*" {
    update {
      min_healthy_time = "0s"
    }
  }
}
