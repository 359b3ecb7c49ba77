# The entrance from outside with nginx, where that is preferred to HAProxy
# (stack edge). One certificate with as many names as needed.

stack "edge-nginx" {
  version     = "0.1.0"
  app_version = "1.22"
  description = "nginx as the edge: routes from Consul tags, a certificate from the store"
}

service "nginx" {}
