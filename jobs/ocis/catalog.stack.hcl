# The catalog: one row per service, for every line of oCIS and both flavours. The
# other files of the stack say how a service runs; what differs between lines is
# here. docs/reference/ocis.md explains the columns.

locals {
  # Lines, oldest first. 7.1 and 8.0 are also the lines of the flavour opencloud: its
  # releases of 2025 have the services and variables of 7.1.
  lines  = ["2.0", "7.1", "8.0"]
  newer  = ["7.1", "8.0"]
  modern = var.line != "2.0"
  open   = var.flavour == "opencloud"
  compact = var.layout == "compact"
  prefix = local.open ? "OC_" : "OCIS_"

  image  = var.image != "" ? var.image : local.open ? "opencloudeu/opencloud:4.0.0" : { "2.0" = "owncloud/ocis:2.0.0", "7.1" = "owncloud/ocis:7.1.4", "8.0" = "owncloud/ocis:8.0.0" }[var.line]
  binary = var.binary != "" ? var.binary : local.open ? "/usr/local/bin/opencloud" : "/usr/local/bin/ocis"

  url      = "https://${var.domain}"
  insecure = var.insecure

  # Where a service finds another one: the mesh listens there. Since 7.0 a plain
  # HOST:PORT would be a name of the registry.
  at = { for name, port in local.ports : name => "${local.modern ? "dns:" : ""}${var.mesh_address}:${port}" }
  ports = {
    app-registry       = 9242
    auth-app           = 9246
    auth-basic         = 9146
    auth-bearer        = 9148
    auth-machine       = 9166
    auth-service       = 9199
    gateway            = 9142
    groups             = 9160
    ocm                = 9282
    settings           = 9191
    sharing            = 9150
    storage-publiclink = 9178
    storage-shares     = 9154
    storage-system     = 9215
    storage-users      = 9157
    users              = 9144
  }
  nats = "${var.mesh_address}:9233"

  # External parts replace services of the stack.
  external_nats  = length(var.nats) > 0
  external_ldap  = length(var.ldap) > 0
  external_oidc  = length(var.oidc) > 0
  events         = lookup(var.nats, "endpoint", local.nats)
  registry_nodes = lookup(var.nats, "registry_nodes", local.nats)
  store_nodes    = lookup(var.nats, "store_nodes", local.nats)
  issuer         = lookup(var.oidc, "issuer", local.url)
  issuer_env     = local.modern || local.external_oidc ? local.issuer : null # 2.0 takes OCIS_URL
  ldap_uri       = lookup(var.ldap, "uri", "ldaps://${var.mesh_address}:9235")

  # Groups of variables that several services of the newer lines have.
  groups = {
    events = {
      OCIS_EVENTS_ENDPOINT                = local.events
      OCIS_EVENTS_CLUSTER                 = try(var.nats["cluster"], null)
      OCIS_EVENTS_ENABLE_TLS              = try(var.nats["tls"], null)
      OCIS_EVENTS_TLS_ROOT_CA_CERTIFICATE = var.nats_ca != "" ? "$${NOMAD_TASK_DIR}/nats-ca.crt" : null
    }
    store = {
      OCIS_PERSISTENT_STORE       = "nats-js-kv"
      OCIS_PERSISTENT_STORE_NODES = local.store_nodes
    }
    cache = {
      OCIS_CACHE_STORE               = "nats-js-kv"
      OCIS_CACHE_STORE_NODES         = local.store_nodes
      OCIS_CACHE_DISABLE_PERSISTENCE = "true"
    }
    cors = { OCIS_CORS_ALLOW_ORIGINS = join(",", distinct(concat([local.url], var.cors_origins))) }
    lang = { OCIS_DEFAULT_LANGUAGE = var.language }
    ocm  = { OCIS_ENABLE_OCM = var.ocm }
    mail = { OCIS_SHOW_USER_EMAIL_IN_RESULTS = lookup(var.sharing, "show_email", "false") }
    edit = { OCIS_EDITION = var.edition }
  }

  # Secrets of the newer lines, by letter: environment variable and item.
  letters = {
    J = ["OCIS_JWT_SECRET=jwt_secret"]
    M = ["OCIS_MACHINE_AUTH_API_KEY=machine_auth_api_key"]
    T = ["OCIS_TRANSFER_SECRET=transfer_secret"]
    S = ["OCIS_SERVICE_ACCOUNT_ID=service_account_id", "OCIS_SERVICE_ACCOUNT_SECRET=service_account_secret"]
    Y = ["OCIS_SYSTEM_USER_ID=system_user_id", "OCIS_SYSTEM_USER_API_KEY=system_user_api_key"]
    A = ["OCIS_ADMIN_USER_ID=admin_user_id"]
  }

  # How a process of the newer lines stops. reva: SIGINT, since SIGTERM only
  # deregisters. events: no signal ends them, so that a short timeout does.
  stops = {
    micro  = { signal = "SIGINT", timeout = "15s" }
    reva   = { signal = local.modern ? "SIGINT" : "SIGQUIT", timeout = "15s" }
    drains = { signal = local.modern ? "SIGINT" : "SIGQUIT", timeout = local.modern ? "35s" : "15s" }
    events = { signal = "SIGINT", timeout = "5s" }
    nats   = { signal = "SIGINT", timeout = local.modern ? "20s" : "15s" }
  }

  # Names of an external LDAP server that users and groups share, and the defaults.
  ldap = merge(local.ldap_defaults, var.ldap)
  ldap_defaults = {
    bind_dn            = "cn=admin,dc=owncloud,dc=com"
    user_base          = "ou=users,dc=owncloud,dc=com"
    user_scope         = "sub"
    user_filter        = null
    user_class         = "inetOrgPerson"
    user_id            = "ownclouduuid"
    user_id_octets     = "false"
    user_name          = "uid"
    user_display_name  = "displayname"
    user_mail          = "mail"
    user_type          = local.open ? "openCloudUserType" : "ownCloudUserType"
    user_enabled       = local.open ? "openCloudUserEnabled" : "ownCloudUserEnabled"
    user_match         = "default"
    user_substring     = "any"
    group_base         = "ou=groups,dc=owncloud,dc=com"
    group_scope        = "sub"
    group_filter       = null
    group_class        = "groupOfNames"
    group_id           = "ownclouduuid"
    group_id_octets    = "false"
    group_name         = "cn"
    group_display_name = "cn"
    group_mail         = "mail"
    group_member       = "member"
    disable            = "none"
    disable_group      = "cn=DisabledUsersGroup,ou=groups,o=libregraph-idm"
    insecure           = "false"
    writable           = "true"
    read_only          = ""
    refint             = "false"
    password_exop      = "false"
    server_uuid        = "false"
  }
  ldap_names = {
    INSECURE                       = local.ldap.insecure
    BIND_DN                        = local.ldap.bind_dn
    USER_BASE_DN                   = local.ldap.user_base
    USER_SCOPE                     = local.ldap.user_scope
    USER_FILTER                    = local.ldap.user_filter
    USER_OBJECTCLASS               = local.ldap.user_class
    USER_SCHEMA_ID                 = local.ldap.user_id
    USER_SCHEMA_ID_IS_OCTETSTRING  = local.ldap.user_id_octets
    USER_SCHEMA_USERNAME           = local.ldap.user_name
    USER_SCHEMA_DISPLAYNAME        = local.ldap.user_display_name
    USER_SCHEMA_MAIL               = local.ldap.user_mail
    USER_SUBSTRING_FILTER_TYPE     = local.ldap.user_substring
    GROUP_BASE_DN                  = local.ldap.group_base
    GROUP_SCOPE                    = local.ldap.group_scope
    GROUP_FILTER                   = local.ldap.group_filter
    GROUP_OBJECTCLASS              = local.ldap.group_class
    GROUP_SCHEMA_ID                = local.ldap.group_id
    GROUP_SCHEMA_ID_IS_OCTETSTRING = local.ldap.group_id_octets
    GROUP_SCHEMA_GROUPNAME         = local.ldap.group_name
    GROUP_SCHEMA_DISPLAYNAME       = local.ldap.group_display_name
    GROUP_SCHEMA_MAIL              = local.ldap.group_mail
    GROUP_SCHEMA_MEMBER            = local.ldap.group_member
  }

  # Rules for passwords of links: FRONTEND_… and SHARING_….
  passwords = {
    MIN_CHARACTERS           = lookup(var.password_policy, "characters", "0")
    MIN_LOWERCASE_CHARACTERS = lookup(var.password_policy, "lowercase", "0")
    MIN_UPPERCASE_CHARACTERS = lookup(var.password_policy, "uppercase", "0")
    MIN_SPECIAL_CHARACTERS   = lookup(var.password_policy, "special", "0")
    MIN_DIGITS               = lookup(var.password_policy, "digits", "0")
    BANNED_PASSWORDS_LIST    = "$${NOMAD_TASK_DIR}/config/sharing-banned-passwords.txt"
  }

  # Options of the stack, and keys of options, that not every line has: whether the option
  # is set, and the lines that have it.
  newer_keys = {
    ldap = { given = keys(var.ldap), keys = ["disable", "disable_group", "group_create_base", "read_only", "refint", "user_enabled", "user_match", "user_type"] }
    oidc = { given = keys(var.oidc), keys = ["account_url", "logout_url", "role_claim", "skip_user_info"] }
    s3   = { given = keys(var.s3), keys = ["concurrent_stream_parts", "disable_content_sha256", "disable_multipart", "max_concurrency", "part_size", "send_content_md5", "threads"] }
  }
  options = merge(merge([for name, of in local.newer_keys : { for key in of.keys : "${name}.${key}" => { set = contains(of.given, key), lines = local.newer } }]...), {
    antivirus        = { set = length(var.antivirus) > 0, lines = local.newer }
    app_tokens       = { set = var.app_tokens, lines = local.newer }
    archiver         = { set = length(var.archiver) > 0, lines = local.newer }
    autoprovision    = { set = length(var.autoprovision) > 0, lines = local.newer }
    ca_bundle        = { set = var.ca_bundle != "", lines = local.newer }
    cors_origins     = { set = length(var.cors_origins) > 0, lines = local.newer }
    csp              = { set = length(var.csp) > 0, lines = local.newer }
    edition          = { set = var.edition != "Community", lines = local.newer }
    gdpr             = { set = length(var.gdpr) > 0, lines = local.newer }
    language         = { set = var.language != "en", lines = local.newer }
    maintenance      = { set = length(var.maintenance) > 0, lines = local.newer }
    mimetypes        = { set = length(var.mimetypes) > 0, lines = local.newer }
    nats             = { set = length(var.nats) > 0, lines = local.newer }
    ocm              = { set = var.ocm, lines = local.newer }
    office           = { set = length(var.office) > 0, lines = local.newer }
    password_policy  = { set = length(var.password_policy) > 0, lines = local.newer }
    policies         = { set = length(var.policies) > 0, lines = local.newer }
    profiling        = { set = var.profiling, lines = local.newer }
    quota            = { set = length(var.quota) > 0, lines = local.newer }
    storage_driver   = { set = var.storage_driver != "", lines = local.newer }
    share_roles      = { set = length(var.share_roles) > 0, lines = local.newer }
    sharing          = { set = length(var.sharing) > 0, lines = local.newer }
    tika             = { set = length(var.tika) > 0, lines = local.newer }
    tracing          = { set = length(var.tracing) > 0, lines = local.newer }
    web              = { set = length(var.web) > 0, lines = local.newer }
    "flavour"        = { set = local.open, lines = local.newer }
  })

  # Keys of the options that are maps.
  known_keys = {
    antivirus       = { given = keys(var.antivirus), known = ["handling", "max_size", "scanner", "service", "socket", "timeout", "url", "workers"] }
    archiver        = { given = keys(var.archiver), known = ["max_files", "max_size"] }
    backup          = { given = keys(var.backup), known = ["keep_daily", "keep_monthly", "keep_weekly", "prune", "repository", "schedule"] }
    autoprovision   = { given = keys(var.autoprovision), known = ["display_name", "email", "groups", "user_name"] }
    gdpr            = { given = keys(var.gdpr), known = ["base_path", "client", "client_realm", "insecure", "user_realm"] }
    ldap            = { given = keys(var.ldap), known = concat(["group_create_base", "uri"], keys(local.ldap_defaults)) }
    maintenance     = { given = keys(var.maintenance), known = keys(local.crons) }
    nats            = { given = keys(var.nats), known = ["cluster", "endpoint", "registry_nodes", "store_nodes", "tls"] }
    oidc            = { given = keys(var.oidc), known = ["account_url", "cs3_claim", "issuer", "logout_url", "role_claim", "skip_user_info", "user_claim", "verify"] }
    password_policy = { given = keys(var.password_policy), known = ["characters", "digits", "lowercase", "special", "uppercase"] }
    quota           = { given = keys(var.quota), known = ["default", "max"] }
    s3              = { given = keys(var.s3), known = ["bucket", "concurrent_stream_parts", "disable_content_sha256", "disable_multipart", "endpoint", "max_concurrency", "part_size", "region", "send_content_md5", "threads"] }
    sharing         = { given = keys(var.sharing), known = ["auto_accept", "link_password", "min_search", "show_email", "writable_link_password"] }
    smtp            = { given = keys(var.smtp), known = ["authentication", "encryption", "host", "port", "sender"] }
    tika            = { given = keys(var.tika), known = ["clean_stop_words", "size_limit", "url"] }
    tracing         = { given = keys(var.tracing), known = ["collector", "endpoint", "type"] }
    web             = { given = keys(var.web), known = keys(local.web_names) }
  }
  wrong_keys = { for name, k in local.known_keys : name => [for key in k.given : key if !contains(k.known, key)] }

  web_names = {
    account_url               = "WEB_OPTION_ACCOUNT_EDIT_LINK_HREF"
    batch_requests            = "WEB_OPTION_CONCURRENT_REQUESTS_RESOURCE_BATCH_ACTIONS"
    client                    = "WEB_OIDC_CLIENT_ID"
    context_helpers_read_more = "WEB_OPTION_CONTEXTHELPERS_READ_MORE"
    disable_feedback          = "WEB_OPTION_DISABLE_FEEDBACK_LINK"
    embed                     = "WEB_OPTION_EMBED_ENABLED"
    embed_origin              = "WEB_OPTION_EMBED_MESSAGES_ORIGIN"
    embed_target              = "WEB_OPTION_EMBED_TARGET"
    feedback_description      = "WEB_OPTION_FEEDBACKLINK_DESCRIPTION"
    feedback_label            = "WEB_OPTION_FEEDBACKLINK_ARIALABEL"
    feedback_url              = "WEB_OPTION_FEEDBACKLINK_HREF"
    login_url                 = "WEB_OPTION_LOGIN_URL"
    logout_url                = "WEB_OPTION_LOGOUT_URL"
    post_logout_url           = "WEB_OIDC_POST_LOGOUT_REDIRECT_URI"
    scope                     = "WEB_OIDC_SCOPE"
    share_create_requests     = "WEB_OPTION_CONCURRENT_REQUESTS_SHARES_CREATE"
    share_list_requests       = "WEB_OPTION_CONCURRENT_REQUESTS_SHARES_LIST"
    sse_requests              = "WEB_OPTION_CONCURRENT_REQUESTS_SSE"
    theme_path                = "WEB_UI_THEME_PATH"
    theme_server              = "WEB_UI_THEME_SERVER"
    token_in_browser          = "WEB_OPTION_TOKEN_STORAGE_LOCAL"
    user_list_needs_filter    = "WEB_OPTION_USER_LIST_REQUIRES_FILTER"
  }
  web = merge({
    client                    = "web"
    context_helpers_read_more = "true"
    disable_feedback          = "true"
    scope                     = "openid profile email"
    theme_path                = local.open ? "/themes/opencloud/theme.json" : "/themes/owncloud/theme.json"
    theme_server              = local.url
    token_in_browser          = "true"
  }, local.external_oidc ? { for to, from in { account_url = "account_url", logout_url = "logout_url" } : to => var.oidc[from] if contains(keys(var.oidc), from) } : {}, var.web)

  demo_user = local.open ? { name = "alan", password = "demo" } : { name = "einstein", password = "relativity" }

  # Storage of the files.
  s3     = length(var.s3) > 0
  driver = var.storage_driver != "" ? var.storage_driver : local.open ? (local.s3 ? "decomposeds3" : "posix") : (local.s3 ? "s3ng" : "ocis")
  s3_env = local.s3 ? { for key, value in {
    ENDPOINT                           = try(var.s3["endpoint"], null)
    REGION                             = lookup(var.s3, "region", "default")
    BUCKET                             = try(var.s3["bucket"], null)
    MAX_CONCURRENCY                    = lookup(var.s3, "max_concurrency", local.open ? "500" : "100")
    PUT_OBJECT_DISABLE_CONTENT_SHA256  = lookup(var.s3, "disable_content_sha256", "false")
    PUT_OBJECT_DISABLE_MULTIPART       = lookup(var.s3, "disable_multipart", "false")
    PUT_OBJECT_SEND_CONTENT_MD5        = lookup(var.s3, "send_content_md5", "true")
    PUT_OBJECT_CONCURRENT_STREAM_PARTS = lookup(var.s3, "concurrent_stream_parts", "true")
    PUT_OBJECT_NUM_THREADS             = lookup(var.s3, "threads", "4")
    PUT_OBJECT_PART_SIZE               = lookup(var.s3, "part_size", "0")
  } : "STORAGE_USERS_${upper(local.driver)}_${key}" => value if local.modern || contains(["ENDPOINT", "REGION", "BUCKET"], key) } : {}
  s3_secrets = local.s3 ? ["STORAGE_USERS_${upper(local.driver)}_ACCESS_KEY=s3_access_key", "STORAGE_USERS_${upper(local.driver)}_SECRET_KEY=s3_secret_key"] : []

  # Whether the mail server wants a user and a password.
  smtp_login = !contains(["", "none"], lookup(var.smtp, "authentication", ""))

  # Commands that run periodically. A schedule in var.maintenance turns one on.
  crons = {
    clean-uploads    = { of = "storage-users", args = ["storage-users", "uploads", "sessions", "--clean", "--expired", "--processing=false"] }
    purge-trash      = { of = "storage-users", args = ["storage-users", "trash-bin", "purge-expired"] }
    restart-uploads  = { of = "storage-users", args = ["storage-users", "uploads", "sessions", "--restart", "--processing=true"] }
    clean-thumbnails = { of = "thumbnails", args = ["-c", "find ${local.directory["thumbnails"]}/thumbnails -type f -atime +${var.thumbnails_days} -delete"] }
    mail-daily       = { of = "notifications", args = ["notifications", "send-email", "--daily"] }
    mail-weekly      = { of = "notifications", args = ["notifications", "send-email", "--weekly"] }
  }

  # Services with state, and where each keeps it; the others have a directory for
  # temporary files.
  # The layout compact has the same volumes: a change of the layout keeps the data.
  stateful  = ["auth-app", "idm", "idp", "nats", "ocm", "search", "storage-system", "storage-users", "store", "thumbnails", "web"]
  names     = keys(local.lines_of)
  keeps     = { for name in local.names : name => contains(local.stateful, name) && (name != "web" || local.modern) }
  directory = { for name in local.names : name => !local.keeps[name] || var.ephemeral ? "$${NOMAD_ALLOC_DIR}/data" : (var.driver == "raw_exec" ? "${var.data_dir}/ocis-${name}" : (local.compact ? "/var/lib/ocis/${name}" : "/var/lib/ocis")) }

  # Backups: what is saved of each service. Thumbnails are made again.
  backup = {
    on         = length(var.backup) > 0
    repository = lookup(var.backup, "repository", "")
    s3         = regex_replace(lookup(var.backup, "repository", ""), "^s3:.*$", "") == "" && contains(keys(var.backup), "repository")
    local      = regex_replace(lookup(var.backup, "repository", ""), "^[a-z0-9]+:.*$", "") != ""
    keep       = "--keep-daily ${lookup(var.backup, "keep_daily", "7")} --keep-weekly ${lookup(var.backup, "keep_weekly", "4")} --keep-monthly ${lookup(var.backup, "keep_monthly", "6")}"
  }
  backup_volume  = local.backup.local && var.driver != "raw_exec" ? "ocis-backup" : ""
  backup_secrets = concat(["RESTIC_PASSWORD=backup_password"], local.backup.s3 ? ["AWS_ACCESS_KEY_ID=backup_access_key", "AWS_SECRET_ACCESS_KEY=backup_secret_key"] : [])
  saved = { for name, data in local.compact ? local.server_dirs : local.kept_alone : name => {
    data   = data
    volume = var.driver == "raw_exec" ? "" : "ocis-${name}"
  } if name != "thumbnails" }
  kept_alone = { for name in local.stateful : name => local.data[name] if local.keeps[name] && local.services[name].enabled }
  archives = {
    repository = { on = local.backup.on, schedule = "", parts = { all = { data = "", volume = "" } } }
    backup     = { on = local.backup.on, schedule = lookup(var.backup, "schedule", "@daily"), parts = local.saved }
    prune      = { on = local.backup.on, schedule = lookup(var.backup, "prune", "@weekly"), parts = { all = { data = "", volume = "" } } }
    restore    = { on = local.backup.on && var.restore != "", schedule = "", parts = local.saved }
  }
  backup_items = { for name, s in {
    backup_password   = { type = "random", description = "Encrypts the backups. Without it they cannot be read: keep it outside of the cluster." }
    backup_access_key = { type = "given", description = "Access key of the object storage of backups." }
    backup_secret_key = { type = "given", description = "Secret key of the object storage of backups." }
  } : name => s if local.backup.on && (name == "backup_password" || local.backup.s3) }

  # Secrets that not every line has, or that an option needs.
  more_secrets = { for name, s in {
    service_account_id          = { type = "uuid", description = "User as which services act.", import = ["graph.service_account.service_account_id"], on = local.modern }
    service_account_secret      = { type = "random", description = "Password of that user.", import = ["graph.service_account.service_account_secret"], on = local.modern }
    graph_application_id        = { type = "uuid", description = "Identity of the application whose roles graph assigns.", import = ["graph.application.id"], on = local.modern }
    wopi_secret                 = { type = "random", description = "Signs the tokens of office suites.", import = ["collaboration.wopi.secret"], on = length(var.office) > 0 }
    url_signing_secret          = { type = "random", description = "Signs download URLs.", import = ["url_signing_secret"], on = local.open }
    smtp_username               = { type = "given", description = "User of the mail server.", import = [], on = local.smtp_login }
    smtp_password               = { type = "given", description = "Password of the mail server.", import = [], on = local.smtp_login }
    s3_access_key               = { type = "given", description = "Access key of the object storage.", import = [], on = local.s3 }
    s3_secret_key               = { type = "given", description = "Secret key of the object storage.", import = [], on = local.s3 }
    gdpr_secret                 = { type = "given", description = "Secret of the client with which graph reads personal data from Keycloak.", import = [], on = length(var.gdpr) > 0 }
    global_notifications_secret = { type = "given", description = "Lets a client send notifications to all users.", import = [], on = var.global_notifications }
  } : name => s if s.on }

  # The mesh: each address that a service of the line listens on.
  listeners = merge([for name, row in local.services : {
    for suffix, port in row.listen : "ocis-${name}${suffix}" => merge(
      { port = port, protocol = local.protocols[name == "nats" || name == "idm" || name == "proxy" ? "tcp" : (suffix == "-http" || try(row.own.ports, []) == ["http"] ? "http" : "grpc")] },
      name == "idm" ? { maxconn = 20 } : null,
      row.single ? { single = true } : null,
    ) if row.enabled && !contains(keys(local.suites), name)
  }]...)
  protocols = { tcp = "tcp", http = "http", grpc = "h2c" }

  # The addresses in the registry of go-micro. They are fixed: with the addresses of
  # instances, a client that reaches a stopped one opens its circuit breaker and fails
  # every request for a minute.
  namespace = local.open ? "eu.opencloud" : "com.owncloud"
  registry = merge([for name, row in local.services : {
    for suffix, port in row.listen : "${local.namespace}.${suffix == "-http" ? "web" : "api"}.${name}" => port
  } if row.enabled && row.hidden]...)

  # The addresses of services that share a process: those that the mesh has in the
  # other layout. Only the proxy is reached from elsewhere.
  bind = { for name, row in local.services : name => name == "proxy" ? { http = "$${NOMAD_ADDR_http}" } : {
    for port in try(row.own.ports, []) : port => "${var.mesh_address}:${lookup(row.listen, port == "http" && contains(row.own.ports, "grpc") ? "-http" : "", lookup(local.fixed, name, 0))}"
  } }
  fixed = { app-provider = 9164 }

  # Environment of each service: what all have, its bind addresses, then its row.
  env = { for name, row in local.services : name => { for key, value in merge(
    {
      OCIS_URL               = local.url
      OCIS_INSECURE          = local.insecure
      OCIS_LOG_LEVEL         = var.log_level
      OCIS_CONFIG_DIR        = "$${NOMAD_TASK_DIR}/config"
      OCIS_BASE_DATA_PATH    = local.data[name]
      MICRO_REGISTRY         = row.hidden ? "memory" : (local.modern ? "nats-js-kv" : "consul")
      MICRO_REGISTRY_ADDRESS = local.modern ? local.registry_nodes : var.consul_address
    },
    local.modern ? {
      OCIS_REVA_GATEWAY              = local.at.gateway
      OCIS_LOG_COLOR                 = var.log_color
      OCIS_LOG_PRETTY                = var.log_pretty
      OCIS_TRACING_ENABLED           = length(var.tracing) > 0
      OCIS_TRACING_TYPE              = lookup(var.tracing, "type", "jaeger")
      OCIS_TRACING_ENDPOINT          = try(var.tracing["endpoint"], null)
      OCIS_TRACING_COLLECTOR         = try(var.tracing["collector"], null)
      SSL_CERT_DIR                   = var.ca_bundle != "" ? "/etc/ssl/certs:$${NOMAD_TASK_DIR}/ca" : null
      "${row.prefix}_DEBUG_PPROF"    = var.profiling
    } : { REVA_GATEWAY = "${var.mesh_address}:9142" },
    { for port in try(row.own.ports, []) : "${row.prefix}_${upper(port)}_ADDR" => local.compact ? local.bind[name][port] : "$${NOMAD_ADDR_${port}}" },
    try(row.own.debug, true) ? { "${row.prefix}_DEBUG_ADDR" = local.compact && name != "proxy" ? "${var.mesh_address}:0" : "$${NOMAD_ADDR_debug}" } : {},
    !try(row.own.ldap, false) ? {} : local.modern ? {
      "${row.prefix}_LDAP_URI"                                  = local.ldap_uri
      "${row.prefix}_LDAP_${name == "idp" ? "TLS_" : ""}CACERT" = local.external_ldap && var.ldap_ca == "" ? "" : "$${NOMAD_SECRETS_DIR}/ldap-ca.crt"
    } : {
      LDAP_URI    = local.ldap_uri
      LDAP_CACERT = local.external_ldap && var.ldap_ca == "" ? "" : "$${NOMAD_SECRETS_DIR}/ldap-ca.crt"
    },
    row.env,
  ) : regex_replace(key, "^OCIS_", local.prefix) => value if value != null } }
  data = merge(local.directory, { for name in keys(local.suites) : name => "$${NOMAD_ALLOC_DIR}/data" })

  # What _base.nomad.hcl knows about each service.
  job = { for name, row in local.services : name => merge(try(row.own.locals, {}), {
    alone        = row.single
    stateful     = lookup(local.keeps, name, false)
    data         = local.data[name]
    image        = local.image
    binary       = local.binary
    command      = try(row.own.command, name)
    cpu          = try(row.own.cpu, 50)
    memory       = try(row.own.memory, 256)
    count        = var.offline ? 0 : lookup(var.counts, name, row.single || lookup(local.keeps, name, false) ? 1 : var.replicas)
    debug        = try(row.own.debug, true)
    kill_signal  = local.stops[try(row.own.stops, "micro")].signal
    kill_timeout = local.stops[try(row.own.stops, "micro")].timeout
    secret_env   = join("\n", concat(["{{ with nomadVar (printf \"nomad/jobs/%s\" (env \"NOMAD_JOB_ID\")) }}"], [for s in row.secrets : "${regex_replace(split("=", s)[0], "^OCIS_", local.prefix)}={{ .${split("=", s)[1]} }}"], ["{{ end }}", ""]))
    ldap_ca      = local.external_ldap ? (var.ldap_ca != "" ? var.ldap_ca : "\n") : "{{ with nomadVar (printf \"nomad/jobs/%s\" (env \"NOMAD_JOB_ID\")) }}{{ .ldap_ca }}{{ end }}\n"
    files = merge(
      row.files,
      var.ca_bundle != "" ? { "local/ca/ca.pem" = var.ca_bundle } : {},
      var.nats_ca != "" && contains(try(row.own.uses, []), "events") ? { "local/nats-ca.crt" = var.nats_ca } : {},
    )
  }) }

  # A run of a periodic job has an ID of its own, and reads the variable of its parent.
  periodic_env = { for name, job in local.job : name => replace(job.secret_env, "(env \"NOMAD_JOB_ID\")", "(or (env \"NOMAD_JOB_PARENT_ID\") (env \"NOMAD_JOB_ID\"))") }

  # The layout compact: the services of the line in one process, `ocis server`, with the
  # environment of all of them.
  inside = [for name, row in local.services : name if row.runs && !(!local.modern && contains(["audit", "auth-bearer"], name))]
  kept   = { for name in local.inside : name => local.directory[name] if lookup(local.keeps, name, false) && !contains(["auth-app", "ocm", "web"], name) }
  server = {
    env = merge(merge([for name in local.inside : local.env[name]]...), { for key, value in {
      MICRO_REGISTRY            = local.modern ? "nats-js-kv" : "memory"
      OCIS_BASE_DATA_PATH       = local.server_data
      OCIS_RUN_SERVICES         = local.modern ? join(",", distinct([for name in local.inside : local.job[name].command])) : null
      OCIS_EXCLUDE_RUN_SERVICES = !local.modern && (local.external_ldap || local.external_oidc) ? join(",", concat(local.external_ldap ? ["idm"] : [], local.external_oidc ? ["idp"] : [])) : null
      OCIS_RUNTIME_HOST         = var.mesh_address
      NATS_NATS_HOST            = local.external_nats ? null : var.mesh_address
      NATS_NATS_PORT            = local.external_nats ? null : "9233"
      IDM_LDAPS_ADDR            = local.external_ldap ? null : "${var.mesh_address}:9235"
      GATEWAY_GRPC_ADDR         = local.modern ? "0.0.0.0:9142" : "${var.mesh_address}:9142"
      APP_PROVIDER_EXTERNAL_ADDR = local.modern ? null : "${var.mesh_address}:9164"
    } : regex_replace(key, "^OCIS_", local.prefix) => value if value != null })
    secrets    = sort(distinct(flatten([for name in local.inside : local.services[name].secrets])))
    items      = distinct(flatten([for name in local.inside : local.services[name].items]))
    files      = merge([for name in local.inside : local.job[name].files]...)
    debug      = true
  }
  server_data = var.ephemeral ? "$${NOMAD_ALLOC_DIR}/data" : (var.driver == "raw_exec" ? "${var.data_dir}/ocis-server" : "/var/lib/ocis/server")
  server_dirs = merge(local.kept, { server = local.server_data })
}
