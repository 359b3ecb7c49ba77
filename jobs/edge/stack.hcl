# The entrance from outside: routes of all services, TLS, HTTP-01 challenges.

stack "edge" {
  version     = "0.1.0"
  app_version = "2.6"
  description = "HAProxy as the edge: routes from Consul tags, certificates from the store"
}

# The key of the cookies of drover.sticky.
secret "cookie_key" {}

service "haproxy" {
  secrets = ["cookie_key"]
}
