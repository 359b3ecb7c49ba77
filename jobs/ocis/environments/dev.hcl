# The dev cluster (`drover dev up --tool ocis`): the binary on one machine, no
# Docker engine. `drover dev env` gives domain and mesh_address.

variables {
  driver             = "raw_exec"
  binary             = "$${meta.drover_bin}/ocis"
  data_dir           = "$${meta.drover_data}"
  user               = "nobody"
  uid                = 65534
  mesh_driver        = "raw_exec"
  consul_address     = "$${meta.consul_http_addr}"
  insecure           = true
  demo_users         = true
  basic_auth         = true
  placeholder_assets = true
}

job "ocis-*" {
  group "*" {
    update {
      min_healthy_time = "1s"
    }
  }
}
