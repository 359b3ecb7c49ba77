# A stack is a directory: this file, one job file per service, and variables.hcl.
# Deploy it: drover deploy examples/shop
stack "shop" {
  version = "0.1.0"
}

# The cache starts first. The web service is submitted when the cache is healthy.
service "cache" {}

service "web" {
  depends_on = ["cache"]
  secrets    = ["session_key"] # drover makes it, and the job reads it from its own variable
}

secret "session_key" {
  type   = "random"
  length = 32
}
