# The dev cluster: nginx of the machine, on the cluster's own loopback
# address and on ports that need no root.

variables {
  driver       = "raw_exec"
  user         = "nobody"
  uid          = 65534
  bind_address = "$${meta.drover_loopback}"
  http_port    = 9080
  https_port   = 9443
  certificate  = "public"
  hsts_max_age = 0
}
