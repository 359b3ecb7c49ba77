# The rows of the catalog.
#
# in       lines that have the service
# on       false while an option that needs the service is not set
# after    services that must be healthy first
# listen   addresses of the mesh: suffix of the Consul service = port
# ports    ports of the process beside debug; X_GRPC_ADDR and X_HTTP_ADDR bind them
# stops    how the process stops (local.stops)
# single   one instance at a time: nothing can share its data
# has      letters of its secrets in the newer lines (local.letters)
# secrets  the other secrets, VARIABLE=item: of every line (all and, after the others, more),
#          of 2.0 (old), of the newer lines (new)
# uses     groups of variables in the newer lines (local.groups)
# env      variables of every line (all), of 2.0 (old), of the newer lines (new), and
#          from 8.0 on (from8)
# files    destination = text, in the newer lines

locals {
  every = local.lines
  lines_of = {
    activitylog = local.newer, antivirus = local.newer, app-provider = ["2.0"], app-registry = local.every, audit = local.every,
    auth-app = local.newer, auth-basic = local.every, auth-bearer = ["2.0"], auth-machine = local.every, auth-service = local.newer,
    clientlog = local.newer, collaboration = local.newer, eventhistory = local.newer, frontend = local.every, gateway = local.every,
    graph = local.every, groups = local.every, idm = local.every, idp = local.every, nats = local.every, notifications = local.every,
    ocdav = local.every, ocm = local.newer, ocs = local.every, policies = local.newer, postprocessing = local.newer, proxy = local.every,
    search = local.every, settings = local.every, sharing = local.every, sse = local.newer, storage-publiclink = local.every,
    storage-shares = local.every, storage-system = local.every, storage-users = local.every, store = ["2.0"], thumbnails = local.every,
    userlog = local.newer, users = local.every, web = local.every, webdav = local.every, webfinger = local.newer
  }

  rows = {
    nats = {
      on     = !local.external_nats, after = ["mesh"], listen = { "" = 9233 }, stops = "nats", single = true, debug = local.modern
      all    = { NATS_NATS_HOST = "$${NOMAD_IP_nats}", NATS_NATS_PORT = "$${NOMAD_PORT_nats}", NATS_NATS_STORE_DIR = "${local.directory.nats}/nats" }
      memory = 256
    }

    idm = {
      on      = !local.external_ldap, after = local.modern ? ["nats"] : ["mesh"], listen = { "" = 9235 }, single = true, debug = local.modern, cpu = 100, memory = 1536
      secrets = { all = ["OCIS_ADMIN_USER_ID=admin_user_id", "IDM_ADMIN_PASSWORD=admin_password", "IDM_SVC_PASSWORD=idm_password", "IDM_REVASVC_PASSWORD=reva_password", "IDM_IDPSVC_PASSWORD=idp_password"] }
      items   = ["ldap_cert", "ldap_key"]
      all = {
        IDM_LDAPS_ADDR        = "$${NOMAD_ADDR_ldaps}"
        IDM_DATABASE_PATH     = "${local.directory.idm}/${local.open ? "idm" : "ocis"}.boltdb"
        IDM_LDAPS_CERT        = "$${NOMAD_SECRETS_DIR}/ldap.crt"
        IDM_LDAPS_KEY         = "$${NOMAD_SECRETS_DIR}/ldap.key"
        IDM_CREATE_DEMO_USERS = var.demo_users
      }
      new = { OCIS_OIDC_ISSUER = local.issuer }
    }

    storage-system = {
      after   = local.modern ? ["nats"] : ["mesh"], listen = { "" = 9215, "-http" = 9216 }, ports = ["grpc", "http"], stops = "reva", memory = 384
      has     = "JY", uses = ["cache"]
      secrets = { old = ["OCIS_JWT_SECRET=jwt_secret", "OCIS_SYSTEM_USER_ID=system_user_id", "OCIS_SYSTEM_USER_API_KEY=system_user_api_key"] }
      all     = { STORAGE_SYSTEM_DATA_SERVER_URL = "http://${var.mesh_address}:9216/data" }
      old     = { STORAGE_SYSTEM_OCIS_ROOT = "${local.directory.storage-system}/metadata" }
      new     = { STORAGE_SYSTEM_DRIVER = local.open ? "decomposed" : "ocis", "STORAGE_SYSTEM_${local.open ? "OC" : "OCIS"}_ROOT" = "${local.directory.storage-system}/metadata" }
    }

    store = {
      after = ["mesh"], listen = { "" = 9460 }, ports = ["grpc"], single = true, hidden = true
      old   = { STORE_DATA_PATH = "${local.directory.store}/store" }
    }

    settings = {
      after   = ["storage-system"], listen = { "" = 9191, "-http" = 9190 }, ports = ["grpc", "http"], hidden = true
      has     = local.external_oidc && contains(keys(var.oidc), "role_claim") ? "JY" : "JYA", uses = ["cache", "cors", "lang"]
      secrets = { old = ["OCIS_JWT_SECRET=jwt_secret", "OCIS_SYSTEM_USER_ID=system_user_id", "OCIS_SYSTEM_USER_API_KEY=system_user_api_key", "OCIS_ADMIN_USER_ID=admin_user_id"], new = ["SETTINGS_SERVICE_ACCOUNT_IDS=service_account_id"] }
      all     = { STORAGE_GATEWAY_GRPC_ADDR = local.at.storage-system, STORAGE_GRPC_ADDR = local.at.storage-system }
      new     = { SETTINGS_SETUP_DEFAULT_ASSIGNMENTS = local.external_oidc && contains(keys(var.oidc), "role_claim") ? "false" : null }
    }

    sharing = {
      after   = ["storage-system", "nats"], listen = { "" = 9150 }, ports = ["grpc"], stops = "reva", has = "JY", uses = ["events"]
      secrets = { old = ["OCIS_JWT_SECRET=jwt_secret", "OCIS_SYSTEM_USER_ID=system_user_id", "OCIS_SYSTEM_USER_API_KEY=system_user_api_key"] }
      all     = { SHARING_USER_JSONCS3_PROVIDER_ADDR = local.at.storage-system, SHARING_PUBLIC_JSONCS3_PROVIDER_ADDR = local.at.storage-system }
      old     = { SHARING_EVENTS_ENDPOINT = local.nats }
      new = merge({ for name, value in local.passwords : "SHARING_PASSWORD_POLICY_${name}" => value }, {
        SHARING_USER_DRIVER                              = "jsoncs3"
        SHARING_PUBLIC_DRIVER                            = "jsoncs3"
        SHARING_USER_JSONCS3_MAX_CONCURRENCY             = "20"
        SHARING_PUBLIC_SHARE_MUST_HAVE_PASSWORD          = lookup(var.sharing, "link_password", "false")
        SHARING_PUBLIC_WRITEABLE_SHARE_MUST_HAVE_PASSWORD = lookup(var.sharing, "writable_link_password", "false")
      })
      files = { "local/config/sharing-banned-passwords.txt" = join("\n", var.banned_passwords) }
    }

    users = {
      after   = local.external_ldap ? ["nats"] : ["idm"], listen = { "" = 9144 }, ports = ["grpc"], stops = "reva", has = "J", ldap = true
      secrets = { old = ["OCIS_JWT_SECRET=jwt_secret", "USERS_LDAP_BIND_PASSWORD=reva_password"], new = ["USERS_LDAP_BIND_PASSWORD=reva_password"] }
      all     = merge({ USERS_IDP_URL = local.issuer_env }, { for name, value in local.ldap_names : "USERS_LDAP_${name}" => local.external_ldap ? value : null })
      new = {
        USERS_LDAP_USER_ENABLED_ATTRIBUTE   = local.external_ldap ? local.ldap.user_enabled : null
        USERS_LDAP_USER_TYPE_ATTRIBUTE      = local.external_ldap ? local.ldap.user_type : null
        USERS_LDAP_DISABLE_USER_MECHANISM   = local.external_ldap ? local.ldap.disable : null
        USERS_LDAP_DISABLED_USERS_GROUP_DN  = local.external_ldap ? local.ldap.disable_group : null
      }
    }

    groups = {
      after   = local.external_ldap ? ["nats"] : ["idm"], listen = { "" = 9160 }, ports = ["grpc"], stops = "reva", has = "J", ldap = true
      secrets = { old = ["OCIS_JWT_SECRET=jwt_secret", "GROUPS_LDAP_BIND_PASSWORD=reva_password"], new = ["GROUPS_LDAP_BIND_PASSWORD=reva_password"] }
      all     = merge({ GROUPS_IDP_URL = local.issuer_env }, { for name, value in local.ldap_names : "GROUPS_LDAP_${name}" => local.external_ldap && name != "USER_SUBSTRING_FILTER_TYPE" ? value : null })
    }

    auth-basic = {
      on      = !local.modern || var.basic_auth, after = local.external_ldap ? ["nats"] : ["idm"], listen = { "" = 9146 }, ports = ["grpc"], stops = "reva", has = "J", ldap = true
      secrets = { old = ["OCIS_JWT_SECRET=jwt_secret", "AUTH_BASIC_LDAP_BIND_PASSWORD=reva_password"], new = ["AUTH_BASIC_LDAP_BIND_PASSWORD=reva_password"] }
      all     = merge({ AUTH_BASIC_IDP_URL = local.issuer_env }, { for name, value in local.ldap_names : "AUTH_BASIC_LDAP_${name}" => local.external_ldap && name != "USER_SUBSTRING_FILTER_TYPE" ? value : null })
    }

    auth-bearer = {
      after   = ["mesh"], listen = { "" = 9148 }, ports = ["grpc"], stops = "reva"
      secrets = { old = ["OCIS_JWT_SECRET=jwt_secret"] }
    }

    auth-machine = {
      after   = local.modern ? ["nats"] : ["mesh"], listen = { "" = 9166 }, ports = ["grpc"], stops = "reva", has = "JM"
      secrets = { old = ["OCIS_JWT_SECRET=jwt_secret", "OCIS_MACHINE_AUTH_API_KEY=machine_auth_api_key"] }
    }

    auth-service = { after = ["nats"], listen = { "" = 9199 }, ports = ["grpc"], stops = "reva", has = "JS" }

    auth-app = {
      on  = var.app_tokens || local.open, after = ["gateway"], listen = { "" = 9246, "-http" = 9247 }, ports = ["grpc", "http"], stops = "reva", single = true, has = local.open ? "JMY" : "JM"
      new = { AUTH_APP_HTTP_ROOT = local.open ? "/" : null }
    }

    storage-users = {
      after   = ["nats"], listen = { "" = 9157, "-http" = 9158 }, ports = ["grpc", "http"], stops = "drains", cpu = 100, memory = 512, has = "JTS", uses = ["events", "cache", "cors"]
      secrets = {
        old  = ["OCIS_JWT_SECRET=jwt_secret", "STORAGE_TRANSFER_SECRET=transfer_secret"]
        more = concat(["STORAGE_USERS_MOUNT_ID=storage_users_mount_id"], local.s3_secrets)
      }
      all = merge({
        STORAGE_USERS_DATA_SERVER_URL     = "http://${var.mesh_address}:9158/data"
        STORAGE_USERS_PERMISSION_ENDPOINT = local.at.settings
      }, local.s3_env)
      old = { STORAGE_USERS_DRIVER = local.s3 ? local.driver : null, "STORAGE_USERS_${upper(local.driver)}_ROOT" = "${local.directory.storage-users}/users", STORAGE_USERS_EVENTS_ENDPOINT = local.nats }
      new = {
        OCIS_ASYNC_UPLOADS                                   = "true"
        STORAGE_USERS_DRIVER                                 = local.driver
        "STORAGE_USERS_${upper(local.driver)}_ROOT"          = "${local.directory.storage-users}/users"
        STORAGE_USERS_OCIS_MAX_CONCURRENCY                   = local.driver == "ocis" ? "100" : null
        STORAGE_USERS_DATA_GATEWAY_URL                       = "http://${var.mesh_address}:9140/data/"
        STORAGE_USERS_GATEWAY_GRPC_ADDR                      = "${var.mesh_address}:9142"
        STORAGE_USERS_EVENTS_NUM_CONSUMERS                   = "10"
        STORAGE_USERS_UPLOAD_EXPIRATION                      = var.upload_expiration
        STORAGE_USERS_PURGE_TRASH_BIN_PERSONAL_DELETE_BEFORE = var.trash_expiration
        STORAGE_USERS_PURGE_TRASH_BIN_PROJECT_DELETE_BEFORE  = var.trash_expiration
        (local.open ? "OCIS_SPACES_MAX_QUOTA" : "STORAGE_USERS_OCIS_MAX_QUOTA") = try(var.quota["max"], null)
      }
    }

    storage-shares = {
      after   = ["sharing"], listen = { "" = 9154 }, ports = ["grpc"], stops = "reva", has = "J"
      secrets = { old = ["OCIS_JWT_SECRET=jwt_secret"] }
      all     = { STORAGE_SHARES_USER_SHARE_PROVIDER_ENDPOINT = local.at.sharing }
    }

    storage-publiclink = {
      after   = ["sharing"], listen = { "" = 9178 }, ports = ["grpc"], stops = "reva", has = "J", uses = ["store"]
      secrets = { old = ["OCIS_JWT_SECRET=jwt_secret"] }
    }

    # In memory only: after a restart it is empty until every collaboration restarts.
    app-registry = {
      after   = local.modern ? ["nats"] : ["mesh"], listen = { "" = 9242 }, ports = ["grpc"], stops = "reva", single = local.modern, has = "J"
      secrets = { old = ["OCIS_JWT_SECRET=jwt_secret"] }
      files   = { "local/config/app-registry.yaml" = yamlencode({ app_registry = { mimetypes = var.mimetypes } }) }
    }

    gateway = {
      after   = concat(["users", "groups", "settings", "auth-machine", "storage-users", "sharing"], local.modern ? ["auth-service"] : []), listen = { "" = 9142 }, ports = ["grpc"], stops = "reva", memory = 384, has = "JT"
      secrets = { old = ["OCIS_JWT_SECRET=jwt_secret", "STORAGE_TRANSFER_SECRET=transfer_secret", "GATEWAY_STORAGE_USERS_MOUNT_ID=storage_users_mount_id"], new = ["GATEWAY_STORAGE_USERS_MOUNT_ID=storage_users_mount_id"] }
      all = {
        GATEWAY_USERS_ENDPOINT               = local.at.users
        GATEWAY_GROUPS_ENDPOINT              = local.at.groups
        GATEWAY_PERMISSIONS_ENDPOINT         = local.at.settings
        GATEWAY_SHARING_ENDPOINT             = local.at.sharing
        GATEWAY_AUTH_BASIC_ENDPOINT          = local.at.auth-basic
        GATEWAY_AUTH_MACHINE_ENDPOINT        = local.at.auth-machine
        GATEWAY_STORAGE_PUBLIC_LINK_ENDPOINT = local.at.storage-publiclink
        GATEWAY_STORAGE_USERS_ENDPOINT       = local.at.storage-users
        GATEWAY_STORAGE_SHARES_ENDPOINT      = local.at.storage-shares
        GATEWAY_APP_REGISTRY_ENDPOINT        = local.at.app-registry
      }
      old = { GATEWAY_AUTH_BEARER_ENDPOINT = local.at.auth-bearer }
      new = {
        # It dials itself at 127.0.0.1.
        GATEWAY_GRPC_ADDR               = "0.0.0.0:$${NOMAD_PORT_grpc}"
        GATEWAY_FRONTEND_PUBLIC_URL     = local.url
        GATEWAY_PROVIDER_CACHE_STORE    = "noop"
        GATEWAY_CREATE_HOME_CACHE_STORE = "memory"
        GATEWAY_AUTH_APP_ENDPOINT       = local.at.auth-app
        GATEWAY_AUTH_SERVICE_ENDPOINT   = local.at.auth-service
        GATEWAY_OCM_ENDPOINT            = local.at.ocm
      }
    }

    ocm = {
      on  = var.ocm, after = ["gateway"], listen = { "" = 9282, "-http" = 9280 }, ports = ["grpc", "http"], stops = "reva", single = true, has = "JS", uses = ["events", "cors"]
      new = {
        OCM_OCM_INVITE_MANAGER_TIMEOUT          = "30s"
        OCM_OCM_INVITE_MANAGER_TOKEN_EXPIRATION = "24h0m0s"
        OCM_OCM_INVITE_MANAGER_INSECURE         = false
        OCM_OCM_SHARE_PROVIDER_INSECURE         = false
        OCM_OCM_STORAGE_PROVIDER_INSECURE       = false
        OCM_OCM_STORAGE_DATA_SERVER_URL         = "http://${var.mesh_address}:9280/data"
      }
      files = { "local/config/ocmproviders.json" = var.ocm_providers }
    }

    idp = {
      on      = !local.external_oidc, after = local.external_ldap ? ["nats"] : ["idm"], listen = { "" = 9130 }, ports = ["http"], single = true, has = "M", ldap = true
      secrets = { old = ["OCIS_MACHINE_AUTH_API_KEY=machine_auth_api_key"], more = ["IDP_LDAP_BIND_PASSWORD=${local.external_ldap ? "reva_password" : "idp_password"}"] }
      all = merge({ for name, value in {
        IDP_INSECURE              = local.ldap.insecure
        IDP_LDAP_BASE_DN          = local.ldap.user_base
        IDP_LDAP_BIND_DN          = local.ldap.bind_dn
        IDP_LDAP_EMAIL_ATTRIBUTE  = local.ldap.user_mail
        IDP_LDAP_FILTER           = local.ldap.user_filter
        IDP_LDAP_LOGIN_ATTRIBUTE  = local.ldap.user_name
        IDP_LDAP_NAME_ATTRIBUTE   = local.ldap.user_display_name
        IDP_LDAP_OBJECTCLASS      = local.ldap.user_class
        IDP_LDAP_SCOPE            = local.ldap.user_scope
        IDP_LDAP_UUID_ATTRIBUTE   = local.ldap.user_name
      } : name => local.external_ldap ? value : null }, {
        IDP_SIGNING_PRIVATE_KEY_FILES = "${local.directory.idp}/private-key.pem"
        IDP_ENCRYPTION_SECRET_FILE    = "${local.directory.idp}/encryption.key"
        IDP_ASSET_PATH                = var.placeholder_assets ? "$${NOMAD_TASK_DIR}/assets" : ""
      })
    }

    search = {
      after   = ["nats", "gateway"], listen = { "" = 9220 }, ports = ["grpc"], single = true, hidden = true, memory = 384, has = "JS", uses = ["events"]
      secrets = { old = ["OCIS_JWT_SECRET=jwt_secret", "OCIS_MACHINE_AUTH_API_KEY=machine_auth_api_key"] }
      old     = { SEARCH_DATA_PATH = "${local.directory.search}/search", SEARCH_EVENTS_ENDPOINT = local.nats }
      new = {
        OCIS_ASYNC_UPLOADS                    = "true"
        SEARCH_ENGINE_BLEVE_DATA_PATH         = "${local.directory.search}/search"
        SEARCH_EXTRACTOR_CS3SOURCE_INSECURE   = local.insecure
        SEARCH_EXTRACTOR_TYPE                 = length(var.tika) > 0 ? "tika" : "basic"
        SEARCH_EXTRACTOR_TIKA_TIKA_URL        = try(var.tika["url"], null)
        SEARCH_EXTRACTOR_TIKA_CLEAN_STOP_WORDS = length(var.tika) > 0 ? lookup(var.tika, "clean_stop_words", "true") : null
        SEARCH_CONTENT_EXTRACTION_SIZE_LIMIT  = try(var.tika["size_limit"], null)
      }
    }

    thumbnails = {
      after   = ["gateway"], listen = { "" = 9185, "-http" = 9186 }, ports = ["grpc", "http"], hidden = true, memory = 512, uses = ["cors"]
      secrets = { all = ["THUMBNAILS_TRANSFER_TOKEN=thumbnails_transfer_secret"] }
      all = {
        THUMBNAILS_FILESYSTEMSTORAGE_ROOT = "${local.directory.thumbnails}/thumbnails"
        THUMBNAILS_DATA_ENDPOINT          = "http://${var.mesh_address}:9186/thumbnails/data"
      }
      new = {
        THUMBNAILS_CS3SOURCE_INSECURE        = local.insecure
        THUMBNAILS_WEBDAVSOURCE_INSECURE     = local.insecure
        THUMBNAILS_MAX_CONCURRENT_REQUESTS   = "0"
        THUMBNAILS_MAX_INPUT_WIDTH           = "7680"
        THUMBNAILS_MAX_INPUT_HEIGHT          = "7680"
        THUMBNAILS_MAX_INPUT_IMAGE_FILE_SIZE = "50MB"
      }
    }

    graph = {
      after   = local.external_ldap ? ["gateway", "nats"] : ["gateway", "nats", "idm"], listen = { "" = 9120 }, ports = ["http"], has = "JS", ldap = true, uses = ["events", "cache", "cors", "lang", "ocm", "mail"]
      secrets = {
        old = ["OCIS_JWT_SECRET=jwt_secret", "GRAPH_LDAP_BIND_PASSWORD=${local.external_ldap ? "reva_password" : "idm_password"}"]
        new = concat(["GRAPH_APPLICATION_ID=graph_application_id", "GRAPH_LDAP_BIND_PASSWORD=${local.external_ldap ? "reva_password" : "idm_password"}"], length(var.gdpr) > 0 ? ["GRAPH_KEYCLOAK_CLIENT_SECRET=gdpr_secret"] : [])
      }
      all = { for name, value in {
        GRAPH_LDAP_BIND_DN                          = local.ldap.bind_dn
        GRAPH_LDAP_GROUP_BASE_DN                    = local.ldap.group_base
        GRAPH_LDAP_GROUP_FILTER                     = local.ldap.group_filter
        GRAPH_LDAP_GROUP_ID_ATTRIBUTE               = local.ldap.group_id
        GRAPH_LDAP_GROUP_NAME_ATTRIBUTE             = local.ldap.group_name
        GRAPH_LDAP_GROUP_OBJECTCLASS                = local.ldap.group_class
        GRAPH_LDAP_GROUP_SEARCH_SCOPE               = local.ldap.group_scope
        GRAPH_LDAP_INSECURE                         = local.ldap.insecure
        GRAPH_LDAP_SERVER_USE_PASSWORD_MODIFY_EXOP  = local.ldap.password_exop
        GRAPH_LDAP_SERVER_UUID                      = local.ldap.server_uuid
        GRAPH_LDAP_SERVER_WRITE_ENABLED             = local.ldap.writable
        GRAPH_LDAP_USER_BASE_DN                     = local.ldap.user_base
        GRAPH_LDAP_USER_DISPLAYNAME_ATTRIBUTE       = local.ldap.user_display_name
        GRAPH_LDAP_USER_EMAIL_ATTRIBUTE             = local.ldap.user_mail
        GRAPH_LDAP_USER_FILTER                      = local.ldap.user_filter
        GRAPH_LDAP_USER_NAME_ATTRIBUTE              = local.ldap.user_name
        GRAPH_LDAP_USER_OBJECTCLASS                 = local.ldap.user_class
        GRAPH_LDAP_USER_SCOPE                       = local.ldap.user_scope
        GRAPH_LDAP_USER_UID_ATTRIBUTE               = local.ldap.user_id
      } : name => local.external_ldap ? value : null }
      old = { GRAPH_EVENTS_ENDPOINT = local.nats }
      new = merge({
        GRAPH_STORE_NODES                  = local.open ? local.store_nodes : null
        GRAPH_STORE_DATABASE               = local.open ? "graph" : null
        GRAPH_SPACES_STORAGE_USERS_ADDRESS = local.at.storage-users
        GRAPH_SPACES_WEBDAV_BASE           = local.url
        GRAPH_IDENTITY_SEARCH_MIN_LENGTH   = lookup(var.sharing, "min_search", "3")
        GRAPH_SPACES_DEFAULT_QUOTA         = try(var.quota["default"], null)
        GRAPH_AVAILABLE_ROLES              = length(var.share_roles) > 0 ? join(",", var.share_roles) : null
        GRAPH_ASSIGN_DEFAULT_USER_ROLE     = local.external_oidc && contains(keys(var.oidc), "role_claim") ? "false" : null
        GRAPH_KEYCLOAK_BASE_PATH           = try(var.gdpr["base_path"], null)
        GRAPH_KEYCLOAK_CLIENT_ID           = try(var.gdpr["client"], null)
        GRAPH_KEYCLOAK_CLIENT_REALM        = try(var.gdpr["client_realm"], null)
        GRAPH_KEYCLOAK_USER_REALM          = try(var.gdpr["user_realm"], null)
        GRAPH_KEYCLOAK_INSECURE_SKIP_VERIFY = length(var.gdpr) > 0 ? lookup(var.gdpr, "insecure", "false") : null
        }, { for name, value in {
          GRAPH_DISABLED_USERS_GROUP_DN               = local.ldap.disable_group
          GRAPH_DISABLE_USER_MECHANISM                = local.ldap.disable
          GRAPH_LDAP_GROUP_CREATE_BASE_DN             = lookup(var.ldap, "group_create_base", local.ldap.group_base)
          GRAPH_LDAP_GROUP_SCHEMA_ID_IS_OCTETSTRING   = local.ldap.group_id_octets
          GRAPH_LDAP_REFINT_ENABLED                   = local.ldap.refint
          GRAPH_LDAP_USER_SCHEMA_ID_IS_OCTETSTRING    = local.ldap.user_id_octets
          GRAPH_LDAP_USER_TYPE_ATTRIBUTE              = local.ldap.user_type
          GRAPH_USERNAME_MATCH                        = local.ldap.user_match
          GRAPH_USER_ENABLED_ATTRIBUTE                = local.ldap.user_enabled
      } : name => local.external_ldap ? value : null })
    }

    ocs = {
      after   = local.modern ? ["gateway"] : ["gateway", "store"], listen = { "" = 9110 }, ports = ["http"], has = "J", uses = ["cache", "cors"]
      secrets = { old = ["OCIS_JWT_SECRET=jwt_secret", "OCIS_MACHINE_AUTH_API_KEY=machine_auth_api_key"] }
    }

    ocdav = {
      after   = ["gateway"], listen = { "" = local.modern ? 9350 : 9162 }, ports = ["http"], stops = local.modern ? "micro" : "reva", memory = 384, has = "JM", uses = ["cors", "edit"]
      secrets = { old = ["OCIS_JWT_SECRET=jwt_secret", "OCIS_MACHINE_AUTH_API_KEY=machine_auth_api_key"], new = local.signing }
      new     = { OCDAV_INSECURE = local.insecure, OCDAV_PUBLIC_URL = local.url }
    }

    webdav = { after = ["gateway"], listen = { "" = 9115 }, ports = ["http"], uses = ["cors"], new = { OCIS_PUBLIC_URL = local.url } }

    frontend = {
      after   = ["gateway"], listen = { "" = 9140 }, ports = ["http"], stops = "reva", memory = 384, has = "JTMS", uses = ["events", "cors", "ocm", "mail", "edit"]
      secrets = { old = ["OCIS_JWT_SECRET=jwt_secret", "STORAGE_TRANSFER_SECRET=transfer_secret", "OCIS_MACHINE_AUTH_API_KEY=machine_auth_api_key"] }
      new = merge({ for name, value in local.passwords : "FRONTEND_PASSWORD_POLICY_${name}" => value }, {
        FRONTEND_APP_HANDLER_INSECURE                          = local.insecure
        FRONTEND_ARCHIVER_INSECURE                             = local.insecure
        FRONTEND_ARCHIVER_MAX_NUM_FILES                        = lookup(var.archiver, "max_files", "10000")
        FRONTEND_ARCHIVER_MAX_SIZE                             = lookup(var.archiver, "max_size", "1073741824")
        FRONTEND_AUTO_ACCEPT_SHARES                            = lookup(var.sharing, "auto_accept", "true")
        FRONTEND_CONFIGURABLE_NOTIFICATIONS                    = length(var.smtp) > 0 ? "true" : null
        FRONTEND_FULL_TEXT_SEARCH_ENABLED                      = length(var.tika) > 0
        FRONTEND_MAX_CONCURRENCY                               = "100"
        FRONTEND_MAX_QUOTA                                     = try(var.quota["max"], null)
        FRONTEND_OCS_PUBLIC_SHARE_MUST_HAVE_PASSWORD           = lookup(var.sharing, "link_password", "false")
        FRONTEND_OCS_PUBLIC_WRITEABLE_SHARE_MUST_HAVE_PASSWORD = lookup(var.sharing, "writable_link_password", "false")
        FRONTEND_OCS_STAT_CACHE_STORE                          = "noop"
        FRONTEND_PUBLIC_URL                                    = local.url
        FRONTEND_SEARCH_MIN_LENGTH                             = lookup(var.sharing, "min_search", "3")
        FRONTEND_READONLY_USER_ATTRIBUTES                      = local.external_ldap ? local.ldap.read_only : null
        OCIS_LDAP_SERVER_WRITE_ENABLED                         = local.external_ldap ? local.ldap.writable : "true"
      })
      files = { "local/config/sharing-banned-passwords.txt" = join("\n", var.banned_passwords) }
    }

    web = {
      after = local.modern ? ["nats"] : ["mesh"], listen = { "" = 9100 }, ports = ["http"], has = "J", uses = ["cors"]
      all   = { WEB_OIDC_AUTHORITY = local.issuer_env }
      old   = { WEB_ASSET_PATH = var.placeholder_assets ? "$${NOMAD_TASK_DIR}/assets" : "" }
      new = merge({ for key, value in local.web : local.web_names[key] => value }, {
        WEB_UI_CONFIG_SERVER  = local.url
        WEB_GATEWAY_GRPC_ADDR = local.at.gateway
        WEB_ASSET_CORE_PATH   = var.placeholder_assets ? "$${NOMAD_TASK_DIR}/assets" : null
      })
      files = merge({ "local/config/web.yaml" = var.web_config }, var.web_apps == "" ? {} : { "local/config/apps.yaml" = var.web_apps })
    }

    webfinger = {
      after = ["nats"], listen = { "" = 9275 }, ports = ["http"], uses = ["cors"]
      new = {
        WEBFINGER_INSECURE                     = local.insecure
        WEBFINGER_OIDC_ISSUER                  = local.issuer
        "WEBFINGER_${local.open ? "OPENCLOUD" : "OWNCLOUD"}_SERVER_INSTANCE_URL" = local.url
      }
    }

    app-provider = {
      after   = ["gateway"], ports = ["grpc"], stops = "reva"
      secrets = { old = ["OCIS_JWT_SECRET=jwt_secret"] }
      old     = { APP_PROVIDER_EXTERNAL_ADDR = "$${NOMAD_ADDR_grpc}" }
    }

    # In 2.0 two consumers would handle every event twice.
    notifications = {
      on      = !local.modern || length(var.smtp) > 0, after = ["nats", "gateway"], single = !local.modern, debug = local.modern, has = "S", uses = ["events", "store", "lang"]
      secrets = { old = ["OCIS_MACHINE_AUTH_API_KEY=machine_auth_api_key"], more = local.smtp_login ? ["NOTIFICATIONS_SMTP_USERNAME=smtp_username", "NOTIFICATIONS_SMTP_PASSWORD=smtp_password"] : [] }
      all = { for name, value in {
        NOTIFICATIONS_SMTP_HOST           = try(var.smtp["host"], null)
        NOTIFICATIONS_SMTP_PORT           = try(var.smtp["port"], null)
        NOTIFICATIONS_SMTP_SENDER         = try(var.smtp["sender"], null)
        NOTIFICATIONS_SMTP_AUTHENTICATION = lookup(var.smtp, "authentication", "none")
        NOTIFICATIONS_SMTP_ENCRYPTION     = lookup(var.smtp, "encryption", "none")
      } : name => length(var.smtp) > 0 ? value : null }
      old = { NOTIFICATIONS_EVENTS_ENDPOINT = local.nats }
      new = {
        NOTIFICATIONS_WEB_UI_URL          = local.url
        NOTIFICATIONS_EMAIL_TEMPLATE_PATH = length(var.mail_templates) > 0 ? "$${NOMAD_TASK_DIR}/config/notifications" : null
      }
      files = { for name, text in var.mail_templates : "local/config/notifications/templates/${name}" => text }
    }

    audit = {
      after = ["nats"], single = !local.modern, debug = local.modern, uses = ["events"]
      old   = { AUDIT_EVENTS_ENDPOINT = local.nats }
      new   = { AUDIT_LOG_TO_CONSOLE = "true" }
    }

    proxy = {
      after   = local.modern ? concat(["ocdav", "frontend", "graph", "idp", "web", "ocs", "webdav", "webfinger"], var.basic_auth ? ["auth-basic"] : []) : ["auth-basic", "ocdav", "frontend", "graph", "idp", "web", "ocs", "webdav"]
      listen  = { "" = 9200 }, ports = ["http"], cpu = 100, memory = 384, has = "JMS", uses = ["events", "cache"]
      secrets = { old = ["OCIS_JWT_SECRET=jwt_secret", "OCIS_MACHINE_AUTH_API_KEY=machine_auth_api_key"], new = local.signing }
      all = {
        PROXY_ENABLE_BASIC_AUTH  = var.basic_auth
        PROXY_TRANSPORT_TLS_CERT = "$${NOMAD_TASK_DIR}/server.crt"
        PROXY_TRANSPORT_TLS_KEY  = "$${NOMAD_TASK_DIR}/server.key"

        PROXY_OIDC_ISSUER                     = local.issuer_env
        PROXY_OIDC_ACCESS_TOKEN_VERIFY_METHOD = local.external_oidc ? lookup(var.oidc, "verify", "jwt") : null
        PROXY_OIDC_REWRITE_WELLKNOWN          = local.external_oidc ? "true" : null
        PROXY_USER_OIDC_CLAIM                 = try(var.oidc["user_claim"], null)
        PROXY_USER_CS3_CLAIM                  = try(var.oidc["cs3_claim"], null)
      }
      new = {
        PROXY_OIDC_INSECURE                   = local.insecure
        PROXY_OIDC_SKIP_USER_INFO             = local.external_oidc ? lookup(var.oidc, "skip_user_info", "false") : null
        PROXY_AUTOPROVISION_ACCOUNTS          = length(var.autoprovision) > 0
        PROXY_AUTOPROVISION_CLAIM_EMAIL       = try(var.autoprovision["email"], null)
        PROXY_AUTOPROVISION_CLAIM_DISPLAYNAME = try(var.autoprovision["display_name"], null)
        PROXY_AUTOPROVISION_CLAIM_GROUPS      = try(var.autoprovision["groups"], null)
        PROXY_AUTOPROVISION_CLAIM_USERNAME    = try(var.autoprovision["user_name"], null)
        PROXY_CSP_CONFIG_FILE_LOCATION        = "$${NOMAD_TASK_DIR}/config/csp.yaml"
        PROXY_ENABLE_APP_AUTH                 = var.app_tokens ? "true" : null
        PROXY_POLICIES_QUERY                  = length(var.policies) > 0 ? "data.proxy.granted" : null
      }
      files  = { "local/config/csp.yaml" = yamlencode({ directives = local.csp }) }
      locals = { routes = local.modern ? yamlencode(local.proxy) : local.routes_2_0 }
    }

    activitylog    = { after = ["gateway"], listen = { "" = 9195 }, ports = ["http"], has = "JS", uses = ["events", "store", "cors"] }
    clientlog      = { after = ["gateway"], stops = "events", has = "JS", uses = ["events"] }
    eventhistory   = { after = ["nats"], listen = { "" = 9274 }, ports = ["grpc"], hidden = true, uses = ["events", "store"] }
    sse            = { after = ["nats"], listen = { "" = 9135 }, ports = ["http"], has = "J", uses = ["events", "cors"], new = { SSE_KEEPALIVE_INTERVAL = "30s" } }
    userlog = {
      after   = ["gateway", "eventhistory"], listen = { "" = 9210 }, ports = ["http"], has = "JS", uses = ["events", "store", "cors", "lang"]
      secrets = { new = var.global_notifications ? ["USERLOG_GLOBAL_NOTIFICATIONS_SECRET=global_notifications_secret"] : [] }
      new     = { USERLOG_MAX_CONCURRENCY = "1" }
    }
    postprocessing = {
      after = ["nats"], stops = "events", uses = ["events", "store"]
      new = {
        POSTPROCESSING_WORKERS = "3"
        POSTPROCESSING_STEPS   = local.steps != "" ? local.steps : null
      }
    }
    policies = {
      on    = length(var.policies) > 0, after = ["nats"], listen = { "" = 9125 }, ports = ["grpc"], stops = "events", hidden = true, uses = ["events"]
      new   = { POLICIES_ENGINE_TIMEOUT = "10s", POLICIES_POSTPROCESSING_QUERY = contains(keys(var.policies), "postprocessing.rego") ? "data.postprocessing.granted" : null }
      files = merge({ "local/config/policies.yaml" = yamlencode({ engine = { policies = [for name in keys(var.policies) : "$${NOMAD_TASK_DIR}/config/${name}"] } }) }, { for name, text in var.policies : "local/config/${name}" => text })
    }
    antivirus = {
      on  = length(var.antivirus) > 0, after = ["nats", "frontend"], stops = "events", uses = ["events"]
      new = {
        ANTIVIRUS_SCANNER_TYPE           = lookup(var.antivirus, "scanner", "icap")
        ANTIVIRUS_CLAMAV_SOCKET          = try(var.antivirus["socket"], null)
        ANTIVIRUS_ICAP_URL               = try(var.antivirus["url"], null)
        ANTIVIRUS_ICAP_SERVICE           = try(var.antivirus["service"], null)
        ANTIVIRUS_ICAP_SCAN_TIMEOUT      = lookup(var.antivirus, "timeout", "300")
        ANTIVIRUS_INFECTED_FILE_HANDLING = lookup(var.antivirus, "handling", "delete")
        ANTIVIRUS_MAX_SCAN_SIZE          = try(var.antivirus["max_size"], null)
        ANTIVIRUS_WORKERS                = lookup(var.antivirus, "workers", "10")
      }
    }
  }

  # Per office suite a service collaboration.
  suites = { for name, suite in var.office : "collaboration-${name}" => {
    after   = ["gateway", "app-registry"], listen = { "" = 9301, "-http" = 9300 }, ports = ["grpc", "http"], stops = "events", has = "J", uses = ["store"]
    command = "collaboration", file = "_collaboration.nomad.hcl"
    locals  = { suite = "collaboration-${name}", wopi = regex_replace(lookup(suite, "wopi", ""), "^https?://([^/:]*).*$", "$${1}") }
    secrets = { new = ["COLLABORATION_WOPI_SECRET=wopi_secret"] }
    new = {
      COLLABORATION_APP_NAME                     = lookup(suite, "name", name)
      COLLABORATION_APP_PRODUCT                  = lookup(suite, "product", lookup(suite, "name", name))
      COLLABORATION_APP_ADDR                     = try(suite["addr"], null)
      COLLABORATION_APP_ICON                     = try(suite["icon"], null)
      COLLABORATION_APP_INSECURE                 = lookup(suite, "insecure", "false")
      COLLABORATION_APP_PROOF_DISABLE            = lookup(suite, "disable_proof", "false")
      COLLABORATION_WOPI_DISABLE_CHAT            = lookup(suite, "disable_chat", "false")
      COLLABORATION_WOPI_SRC                     = try(suite["wopi"], null)
      COLLABORATION_CS3API_DATAGATEWAY_INSECURE  = local.insecure
    }
  } }

  # oCIS's default routes of 2.0, to the fixed addresses of the mesh instead of registry
  # names: the proxy caches those, and a replaced service would answer 502 for
  # up to a minute.
  routes_2_0 = <<EOT
policies:
  - name: ocis
    routes:
      - endpoint: /
        backend: http://${var.mesh_address}:9100
        unprotected: true
%{ if !local.external_oidc ~}
      - endpoint: /.well-known/
        backend: http://${var.mesh_address}:9130
        unprotected: true
      - endpoint: /konnect/
        backend: http://${var.mesh_address}:9130
        unprotected: true
      - endpoint: /signin/
        backend: http://${var.mesh_address}:9130
        unprotected: true
%{ endif ~}
      - endpoint: /archiver
        backend: http://${var.mesh_address}:9140
      - endpoint: /ocs/v[12].php/cloud/user/signing-key
        type: regex
        backend: http://${var.mesh_address}:9110
      - endpoint: /ocs/v[12].php/config
        type: regex
        backend: http://${var.mesh_address}:9140
        unprotected: true
      - endpoint: /ocs/
        backend: http://${var.mesh_address}:9140
      - endpoint: /remote.php/?preview=1
        type: query
        backend: http://${var.mesh_address}:9115
      - endpoint: /remote.php/dav/
        method: REPORT
        backend: http://${var.mesh_address}:9115
      - endpoint: /remote.php/webdav
        method: REPORT
        backend: http://${var.mesh_address}:9115
      - endpoint: /dav/spaces
        method: REPORT
        backend: http://${var.mesh_address}:9115
      - endpoint: /dav/?preview=1
        type: query
        backend: http://${var.mesh_address}:9115
      - endpoint: /webdav/?preview=1
        type: query
        backend: http://${var.mesh_address}:9115
      - endpoint: /remote.php/
        backend: http://${var.mesh_address}:9162
      - endpoint: /dav/
        backend: http://${var.mesh_address}:9162
      - endpoint: /webdav/
        backend: http://${var.mesh_address}:9162
      - endpoint: /status
        backend: http://${var.mesh_address}:9162
        unprotected: true
      - endpoint: /status.php
        backend: http://${var.mesh_address}:9162
        unprotected: true
      - endpoint: /index.php/
        backend: http://${var.mesh_address}:9162
      - endpoint: /apps/
        backend: http://${var.mesh_address}:9162
      - endpoint: /data
        backend: http://${var.mesh_address}:9140
        unprotected: true
      - endpoint: /app/list
        backend: http://${var.mesh_address}:9140
        unprotected: true
      - endpoint: /app/
        backend: http://${var.mesh_address}:9140
      - endpoint: /graph/
        backend: http://${var.mesh_address}:9120
      - endpoint: /api/v0/settings
        backend: http://${var.mesh_address}:9190
      - endpoint: /settings.js
        backend: http://${var.mesh_address}:9190
        unprotected: true
EOT

  # The routes of the proxy: endpoint, port of the mesh, and whether it is unprotected,
  # its type and its method. They are those of the binary, to the addresses of the mesh.
  routes = [for r in [
    ["/", 9100, true, null, null],
    ["/.well-known/ocm", var.ocm ? 9280 : 0, true, null, null],
    ["/.well-known/webfinger", 9275, true, null, null],
    ["/.well-known/openid-configuration", local.external_oidc ? 0 : 9130, true, null, null],
    ["/branding/logo", 9100, null, null, null],
    ["/konnect/", local.external_oidc ? 0 : 9130, true, null, null],
    ["/signin/", local.external_oidc ? 0 : 9130, true, null, null],
    ["/archiver", 9140, null, null, null],
    ["/ocs/v2.php/apps/notifications/api/v1/notifications/sse", 9135, null, null, null],
    ["/ocs/v2.php/apps/notifications/api/v1/notifications", 9210, null, null, null],
    ["/ocs/v[12].php/cloud/user/signing-key", 9110, null, "regex", null],
    ["/ocs/v[12].php/config", 9140, true, "regex", null],
    ["/sciencemesh/", var.ocm ? 9280 : 0, null, null, null],
    ["/ocm/", var.ocm ? 9280 : 0, null, null, null],
    ["/ocs/", 9140, null, null, null],
    ["/remote.php/?preview=1", 9115, null, "query", null],
    ["(/remote.php)?/(web)?dav", 9115, null, "regex", "REPORT"],
    ["/dav/?preview=1", 9115, null, "query", null],
    ["/webdav/?preview=1", 9115, null, "query", null],
    ["/remote.php/", 9350, null, null, null],
    ["/dav/", 9350, null, null, null],
    ["/webdav/", 9350, null, null, null],
    ["/status", 9350, true, null, null],
    ["/status.php", 9350, true, null, null],
    ["/index.php/", 9350, null, null, null],
    ["/apps/", 9350, null, null, null],
    ["/data", 9140, true, null, null],
    ["/app/list", 9140, true, null, null],
    ["/app/", 9140, null, null, null],
    ["/graph/v1beta1/extensions/org.libregraph/activities", 9195, null, null, null],
    ["/graph/", 9120, null, null, null],
    ["/api/v0/settings", 9190, null, null, null],
    ["/auth-app/tokens", var.app_tokens || local.open ? 9247 : 0, null, null, null],
    ] : { for key, value in {
      endpoint = r[0], backend = "http://${var.mesh_address}:${r[1]}", unprotected = r[2], type = r[3], method = r[4]
  } : key => value if value != null } if r[1] != 0]
  proxy = merge(
    {
      policies        = [{ name = local.open ? "default" : "ocis", routes = concat(local.routes, var.routes) }]
      policy_selector = { static = { policy = local.open ? "default" : "ocis" } }
    },
    length(var.role_quotas) > 0 ? { role_quotas = var.role_quotas } : null,
    contains(keys(var.oidc), "role_claim") ? { role_assignment = { driver = "oidc", oidc_role_mapper = {
      role_claim   = var.oidc["role_claim"]
      role_mapping = [for claim, role in var.role_mapping : { claim_value = claim, role_name = role }]
    } } } : null,
  )

  # Commands that run periodically: each takes environment, secrets and data of the
  # service that it belongs to.
  commands = { for name, cron in local.crons : "cron-${name}" => {
    enabled  = contains(keys(var.maintenance), name)
    of       = cron.of
    args     = cron.args
    schedule = lookup(var.maintenance, name, "@daily")
  } }

  signing = local.open ? ["OCIS_URL_SIGNING_SECRET=url_signing_secret"] : []
  steps   = join(",", concat(length(var.antivirus) > 0 ? ["virusscan"] : [], contains(keys(var.policies), "postprocessing.rego") ? ["policies"] : []))

  # Content security policy of the web client: the default and the sources of options.
  csp = { for directive, sources in {
    child-src       = ["'self'"]
    connect-src     = concat(["'self'"], local.external_oidc ? ["${local.issuer}/"] : [])
    default-src     = ["'none'"]
    font-src        = ["'self'"]
    frame-ancestors = ["'self'"]
    frame-src       = concat(["'self'", "blob:"], [for suite in var.office : "${lookup(suite, "addr", "")}/"])
    img-src         = concat(["'self'", "data:", "blob:"], [for suite in var.office : lookup(suite, "icon", "")])
    manifest-src    = ["'self'"]
    media-src       = ["'self'"]
    object-src      = ["'self'", "blob:"]
    script-src      = ["'self'", "'unsafe-inline'"]
    style-src       = ["'self'", "'unsafe-inline'"]
  } : directive => distinct(concat(sources, lookup(var.csp, directive, []))) }

  # Every service of the line, as stack.hcl wants it.
  services = { for name, row in merge(local.rows, local.suites) : name => {
    # runs: in a job of its own, or in that of the layout compact.
    runs    = contains(lookup(local.lines_of, name, local.newer), var.line) && try(row.on, true)
    enabled = contains(lookup(local.lines_of, name, local.newer), var.line) && try(row.on, true) && !local.compact
    after   = local.external_nats ? [for s in row.after : s == "nats" ? "mesh" : s] : row.after
    file    = try(row.file, "${name}.nomad.hcl")
    single  = try(row.single, false)
    hidden  = try(row.hidden, false) && !local.external_nats # the mesh speaks no TLS with NATS
    listen  = try(row.listen, {})
    prefix  = upper(replace(try(row.command, name), "-", "_"))
    secrets = concat(
      try(row.secrets.all, []),
      local.modern ? flatten([for letter in split("", try(row.has, "")) : lookup(local.letters, letter, [])]) : [],
      local.modern ? try(row.secrets.new, []) : try(row.secrets.old, []),
      try(row.secrets.more, []),
    )
    items = concat(try(row.items, []), try(row.ldap, false) && !local.external_ldap ? ["ldap_ca"] : [])
    files = local.modern ? try(row.files, {}) : {}
    env = merge(
      try(row.all, {}),
      [try(row.old, {}), merge(merge([for group in try(row.uses, []) : local.groups[group]]...), try(row.new, {}))][local.modern ? 1 : 0],
      [{}, try(row.from8, {})][var.line == "8.0" ? 1 : 0],
    )
    own    = row
  } }
}
