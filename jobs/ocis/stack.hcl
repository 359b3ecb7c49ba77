# ownCloud Infinite Scale 2.0: one Nomad job per service.

stack "ocis" {
  version     = "0.1.0"
  app_version = "2.0.0"
  description = "ownCloud Infinite Scale, one job per service"
}

precondition {
  condition     = var.ephemeral || var.driver != "raw_exec" || var.data_dir != ""
  error_message = "raw_exec cannot mount volumes, and services with state need a place that outlives their jobs: set data_dir to a directory that exists on the nodes, or ephemeral = true to lose all data with each job."
}

precondition {
  condition     = var.consul_volume == "" || trimprefix(var.consul_address, "unix://") != var.consul_address
  error_message = "consul_volume is the directory of Consul's socket: set consul_address to unix://PATH of the socket."
}

precondition {
  condition     = var.consul_volume != "" || trimprefix(var.consul_address, "unix://") == var.consul_address || (var.driver == "raw_exec" && var.mesh_driver == "raw_exec")
  error_message = "docker and exec do not see Consul's socket on the node: set consul_volume to the host volume that is its directory."
}

service "mesh" {}

service "nats" {
  depends_on = ["mesh"]
}

service "idm" {
  depends_on = ["mesh"]
  secrets    = ["admin_password", "admin_user_id", "idm_password", "idp_password", "ldap_cert", "ldap_key", "reva_password"]
}

service "storage-system" {
  depends_on = ["mesh"]
  secrets    = ["jwt_secret", "system_user_api_key", "system_user_id"]
}

service "store" {
  depends_on = ["mesh"]
}

service "settings" {
  depends_on = ["storage-system"]
  secrets    = ["admin_user_id", "jwt_secret", "system_user_api_key", "system_user_id"]
}

service "sharing" {
  depends_on = ["storage-system", "nats"]
  secrets    = ["jwt_secret", "system_user_api_key", "system_user_id"]
}

service "users" {
  depends_on = ["idm"]
  secrets    = ["jwt_secret", "ldap_ca", "reva_password"]
}

service "groups" {
  depends_on = ["idm"]
  secrets    = ["jwt_secret", "ldap_ca", "reva_password"]
}

service "auth-basic" {
  depends_on = ["idm"]
  secrets    = ["jwt_secret", "ldap_ca", "reva_password"]
}

service "auth-bearer" {
  depends_on = ["mesh"]
  secrets    = ["jwt_secret"]
}

service "auth-machine" {
  depends_on = ["mesh"]
  secrets    = ["jwt_secret", "machine_auth_api_key"]
}

service "storage-users" {
  depends_on = ["nats"]
  secrets    = ["jwt_secret", "storage_users_mount_id", "transfer_secret"]
}

service "storage-shares" {
  depends_on = ["sharing"]
  secrets    = ["jwt_secret"]
}

service "storage-publiclink" {
  depends_on = ["sharing"]
  secrets    = ["jwt_secret"]
}

service "app-registry" {
  depends_on = ["mesh"]
  secrets    = ["jwt_secret"]
}

service "gateway" {
  depends_on = ["users", "groups", "settings", "auth-machine", "storage-users", "sharing"]
  secrets    = ["jwt_secret", "storage_users_mount_id", "transfer_secret"]
}

service "idp" {
  depends_on = ["idm"]
  secrets    = ["idp_password", "ldap_ca", "machine_auth_api_key"]
}

service "search" {
  depends_on = ["nats", "gateway"]
  secrets    = ["jwt_secret", "machine_auth_api_key"]
}

service "thumbnails" {
  depends_on = ["gateway"]
  secrets    = ["thumbnails_transfer_secret"]
}

service "graph" {
  depends_on = ["gateway", "nats", "idm"]
  secrets    = ["idm_password", "jwt_secret", "ldap_ca"]
}

service "ocs" {
  depends_on = ["gateway", "store"]
  secrets    = ["jwt_secret", "machine_auth_api_key"]
}

service "ocdav" {
  depends_on = ["gateway"]
  secrets    = ["jwt_secret", "machine_auth_api_key"]
}

service "webdav" {
  depends_on = ["gateway"]
}

service "frontend" {
  depends_on = ["gateway"]
  secrets    = ["jwt_secret", "machine_auth_api_key", "transfer_secret"]
}

service "web" {
  depends_on = ["mesh"]
}

service "app-provider" {
  depends_on = ["gateway"]
  secrets    = ["jwt_secret"]
}

service "notifications" {
  depends_on = ["nats", "gateway"]
  secrets    = ["machine_auth_api_key"]
}

service "audit" {
  depends_on = ["nats"]
}

service "proxy" {
  depends_on = ["auth-basic", "ocdav", "frontend", "graph", "idp", "web", "ocs", "webdav"]
  secrets    = ["jwt_secret", "machine_auth_api_key"]
}

secret "jwt_secret" {
  description = "Signs the tokens that services pass one another."
  import      = ["token_manager.jwt_secret"]
}

secret "transfer_secret" {
  description = "Signs up- and download URLs."
  import      = ["transfer_secret"]
}

secret "machine_auth_api_key" {
  description = "Lets services act for a user."
  import      = ["machine_auth_api_key"]
}

secret "system_user_id" {
  type        = "uuid"
  description = "User that owns storage-system."
  import      = ["system_user_id"]
}

secret "system_user_api_key" {
  description = "Key of that user."
  import      = ["system_user_api_key"]
}

secret "admin_user_id" {
  type        = "uuid"
  description = "The administrator in idm and settings."
  import      = ["admin_user_id"]
}

secret "admin_password" {
  description = "Password of the user admin, when the user database is first made."
  import      = ["idm.service_user_passwords.admin_password"]
}

secret "idm_password" {
  description = "LDAP password of graph."
  import      = ["idm.service_user_passwords.idm_password"]
}

secret "reva_password" {
  description = "LDAP password of users, groups and auth-basic."
  import      = ["idm.service_user_passwords.reva_password"]
}

secret "idp_password" {
  description = "LDAP password of idp."
  import      = ["idm.service_user_passwords.idp_password"]
}

secret "storage_users_mount_id" {
  type        = "uuid"
  description = "Identity of the users' storage; gateway and storage-users must agree."
  import      = ["gateway.storage_registry.storage_users_mount_id"]
}

secret "thumbnails_transfer_secret" {
  description = "Signs preview URLs."
  import      = ["thumbnails.thumbnail.transfer_secret"]
}

# LDAPS between the services is verified against this CA; the certificate is
# renewed by `drover deploy` when a third of its life is left.
secret "ldap" {
  type         = "certificate"
  description  = "CA and certificate of idm's LDAPS."
  ip_addresses = [var.mesh_address]
}

volume "ocis-nats" {
  parameters = {
    uid  = var.uid
    gid  = var.uid
    mode = "0700"
  }
}

volume "ocis-idm" {
  parameters = {
    uid  = var.uid
    gid  = var.uid
    mode = "0700"
  }
}

volume "ocis-idp" {
  parameters = {
    uid  = var.uid
    gid  = var.uid
    mode = "0700"
  }
}

volume "ocis-search" {
  parameters = {
    uid  = var.uid
    gid  = var.uid
    mode = "0700"
  }
}

volume "ocis-storage-system" {
  parameters = {
    uid  = var.uid
    gid  = var.uid
    mode = "0700"
  }
}

volume "ocis-storage-users" {
  parameters = {
    uid  = var.uid
    gid  = var.uid
    mode = "0700"
  }
}

volume "ocis-store" {
  parameters = {
    uid  = var.uid
    gid  = var.uid
    mode = "0700"
  }
}

volume "ocis-thumbnails" {
  parameters = {
    uid  = var.uid
    gid  = var.uid
    mode = "0700"
  }
}

# For the edge, where TLS of the outside ends. The route is a tag of the
# service proxy; with a DNS provider, its record is made too.
certificate "public" {
  names     = length(var.certificate_names) > 0 ? var.certificate_names : [split(":", var.domain)[0]]
  challenge = var.certificate_challenge
}

dns {
  provider  = var.dns_provider
  server    = var.dns_server
  zones     = var.dns_zones
  targets   = var.dns_targets
  resolvers = var.dns_resolvers
}

# The proof: a demo user lists their files over WebDAV; where there are no demo
# users, the whole chain is asked and refuses.
check "webdav" {
  method = "PROPFIND"
  url    = "https://${var.domain}/remote.php/webdav/"
  status = var.demo_users ? [207] : [401]

  basic_auth {
    username = "einstein"
    password = "relativity"
  }

  contains        = var.demo_users ? "<d:multistatus" : ""
  timeout         = "30s"
  tls_skip_verify = var.insecure
}
