# ownCloud Infinite Scale and OpenCloud: one Nomad job per service.

stack "ocis" {
  version     = "0.1.0"
  app_version = var.flavour == "opencloud" ? "4.0.0" : { "2.0" = "2.0.0", "7.1" = "7.1.4", "8.0" = "8.0.0" }[var.line]

  # Versions whose data this one reads. The projects upgrade by one major version at a
  # time, and never back.
  upgrade_from = var.flavour == "opencloud" ? ["4.*"] : { "2.0" = ["2.0.*"], "7.1" = ["7.1.*"], "8.0" = ["7.1.*", "8.0.*"] }[var.line]

  # One process and one job per service must not have the data open at the same time.
  exclusive   = var.offline ? "" : var.layout
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

precondition {
  condition     = !local.backup.on || (local.backup.repository != "" && !var.ephemeral)
  error_message = var.ephemeral ? "backup has nothing to save: with ephemeral = true no data is kept. Remove one of them." : "backup needs a repository: a directory, or an address of restic such as s3:https://s3.example.org/bucket."
}

precondition {
  condition     = var.restore == "" || local.backup.on
  error_message = "restore needs backup, which names the repository to restore from."
}

precondition {
  condition     = !local.compact || (var.replicas == 1 && length(var.counts) == 0)
  error_message = "layout = \"compact\" has one process: remove replicas and counts, or the layout."
}

precondition {
  condition     = !local.compact || length(var.office) == 0
  error_message = "layout = \"compact\" has no office suites: each needs a process of its own that finds the others at fixed addresses. Use the layout distributed."
}

precondition {
  condition     = local.modern || regex_replace(lookup(var.smtp, "sender", "<a@b>"), "^[^<>]*<[^<>@]+@[^<>@]+>$", "") == ""
  error_message = "oCIS 2.0 sends mail from \"USER via SENDER\", which is an address only if the sender is one in angle brackets: set the sender of smtp to \"Cloud <cloud@example.org>\"."
}

# Options that the line does not have, and keys that no option has.
dynamic "precondition" {
  for_each = local.options
  content {
    condition     = !precondition.value.set || contains(precondition.value.lines, var.line)
    error_message = "oCIS ${var.line} has no ${precondition.key}: lines ${join(" and ", precondition.value.lines)} have it. Set line, or remove ${precondition.key}."
  }
}

dynamic "precondition" {
  for_each = local.wrong_keys
  content {
    condition     = length(precondition.value) == 0
    error_message = "${precondition.key} has no ${join(", ", precondition.value)}; it has ${join(", ", sort(local.known_keys[precondition.key].known))}."
  }
}

dynamic "precondition" {
  for_each = var.counts
  content {
    condition     = precondition.value <= 1 || try(local.services[precondition.key].enabled && !local.services[precondition.key].single, false)
    error_message = try(local.services[precondition.key].enabled, false) ? "${precondition.key} runs once: nothing may share its data or its memory. Remove it from counts." : "counts names ${precondition.key}, which is no service of line ${var.line} with these options."
  }
}

service "mesh" {
  enabled = !local.compact
  locals  = { listeners = local.listeners, registry = local.registry, registrar = local.modern ? "nats" : "consul" }
}

# services.stack.hcl has the rows.
dynamic "service" {
  for_each = local.services
  labels   = [service.key]
  content {
    enabled    = service.value.enabled
    id         = contains(keys(local.suites), service.key) ? "ocis-${service.key}" : ""
    file       = service.value.file
    depends_on = concat(service.value.after, local.archives.restore.on && contains(keys(local.saved), service.key) ? ["restore"] : [])
    secrets    = sort(distinct(concat([for s in service.value.secrets : split("=", s)[1]], service.value.items)))
    env        = local.env[service.key]
    locals     = local.job[service.key]
  }
}

# All services in one process (layout = "compact").
service "server" {
  enabled    = local.compact
  depends_on = local.archives.restore.on ? ["restore"] : []
  secrets    = sort(distinct(concat([for s in local.server.secrets : split("=", s)[1]], local.server.items)))
  env        = local.server.env
  locals = {
    image      = local.image
    binary     = local.binary
    ldap_ca    = local.job["users"].ldap_ca
    serves_ldap = !local.external_ldap
    count      = var.offline ? 0 : 1
    data       = local.server_data
    dirs       = local.server_dirs
    routes     = local.job["proxy"].routes
    files      = local.server.files
    secret_env = join("\n", concat(["{{ with nomadVar (printf \"nomad/jobs/%s\" (env \"NOMAD_JOB_ID\")) }}"], [for s in local.server.secrets : "${regex_replace(split("=", s)[0], "^OCIS_", local.prefix)}={{ .${split("=", s)[1]} }}"], ["{{ end }}", ""]))
  }
}

# Periodic commands.
dynamic "service" {
  for_each = local.commands
  iterator = cron
  labels   = [cron.key]
  content {
    enabled = cron.value.enabled
    id      = "ocis-${cron.key}"
    file    = "_cron.nomad.hcl"
    secrets = sort(distinct([for s in local.services[cron.value.of].secrets : split("=", s)[1]]))
    env     = { for key, value in local.env[cron.value.of] : key => value if replace(value, "NOMAD_ADDR_", "") == value }
    locals = {
      schedule   = cron.value.schedule
      time_zone  = var.time_zone
      command    = cron.value.of == "thumbnails" ? "/bin/sh" : (var.driver == "docker" ? null : local.binary)
      args       = cron.value.args
      image      = local.image
      volume     = local.keeps[cron.value.of] && !var.ephemeral && var.driver != "raw_exec" ? "ocis-${cron.value.of}" : ""
      data       = local.data[cron.value.of]
      secret_env = local.periodic_env[cron.value.of]
      files      = local.job[cron.value.of].files
    }
  }
}

# Backups (docs/how-to/ocis-backup.md).
dynamic "service" {
  for_each = local.archives
  iterator = archive
  labels   = [archive.key]
  content {
    enabled    = archive.value.on
    id         = "ocis-${archive.key}"
    file       = "_archive.nomad.hcl"
    depends_on = archive.key == "repository" ? [] : ["repository"]
    secrets    = sort([for s in local.backup_secrets : split("=", s)[1]])
    locals = {
      action     = archive.key
      schedule   = archive.value.schedule
      time_zone  = var.time_zone
      parts      = archive.value.parts
      repository = local.backup.repository
      volume     = local.backup_volume
      keep       = local.backup.keep
      run        = archive.key == "restore" ? var.restore : ""
      secret_env = join("\n", concat(["{{ with nomadVar (printf \"nomad/jobs/%s\" (or (env \"NOMAD_JOB_PARENT_ID\") (env \"NOMAD_JOB_ID\"))) }}"], [for s in local.backup_secrets : "${split("=", s)[0]}={{ .${split("=", s)[1]} }}"], ["{{ end }}", ""]))
    }
  }
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

dynamic "secret" {
  for_each = local.more_secrets
  labels   = [secret.key]
  content {
    type        = secret.value.type
    description = secret.value.description
    import      = secret.value.import
  }
}

dynamic "secret" {
  for_each = local.backup_items
  labels   = [secret.key]
  content {
    type        = secret.value.type
    description = secret.value.description
  }
}

# LDAPS between the services is verified against this CA; the certificate is
# renewed by `drover deploy` when a third of its life is left.
secret "ldap" {
  type         = "certificate"
  description  = "CA and certificate of idm's LDAPS."
  ip_addresses = [var.mesh_address]
}

dynamic "volume" {
  for_each = concat(local.compact ? [for name in keys(local.server_dirs) : "ocis-${name}"] : [for name in local.stateful : "ocis-${name}" if local.keeps[name] && local.services[name].enabled], local.backup_volume == "" ? [] : [local.backup_volume])
  labels   = [volume.value]
  content {
    parameters = {
      uid  = var.uid
      gid  = var.uid
      mode = "0700"
    }
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
    username = local.demo_user.name
    password = local.demo_user.password
  }

  contains        = var.demo_users ? "<d:multistatus" : ""
  timeout         = "30s"
  tls_skip_verify = var.insecure
}
