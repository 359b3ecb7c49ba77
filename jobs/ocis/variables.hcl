variable "domain" {
  type        = string
  description = "Host (and port, if not 443) under which users reach this oCIS: cloud.example.org. It must also resolve inside the cluster."
  validation {
    condition     = var.domain != "" && regex_replace(var.domain, "^[A-Za-z0-9.-]+(:[0-9]+)?$", "") == ""
    error_message = "The domain is a host name or address with an optional port, without a scheme: cloud.example.org or 127.0.0.1:9200."
  }
}

variable "line" {
  type        = string
  description = "Line of oCIS: 2.0, 7.1 or 8.0. Of OpenCloud, 7.1 has the services of its releases of 2025."
  default     = "2.0"
  validation {
    condition     = contains(["2.0", "7.1", "8.0"], var.line)
    error_message = "The line is one of 2.0, 7.1 and 8.0."
  }
}

variable "flavour" {
  type        = string
  description = "ocis or opencloud: prefix of the variables, binary, image, names in the registry, drivers."
  default     = "ocis"
  validation {
    condition     = contains(["ocis", "opencloud"], var.flavour)
    error_message = "The flavour is ocis or opencloud."
  }
}

variable "layout" {
  type        = string
  description = "distributed: one job per service, and the mesh. compact: one job with all services in one process, for one small node; a change of it interrupts oCIS."
  default     = "distributed"
  validation {
    condition     = contains(["distributed", "compact"], var.layout)
    error_message = "The layout is distributed or compact."
  }
}

variable "server_memory" {
  type        = number
  description = "Memory in MB of the job with all services of the layout compact. Each login at the same time takes 64 MB of it."
  default     = 2048
}

variable "certificate_names" {
  type        = list(string)
  description = "Names of the certificate; the domain when empty. A wildcard needs certificate_challenge = \"dns-01\"."
  default     = []
}

variable "certificate_challenge" {
  type        = string
  description = "How the CA is shown that the names are ours: http-01 at the edge, or dns-01 with the DNS provider."
  default     = "http-01"
  validation {
    condition     = contains(["http-01", "dns-01", "dns-persist-01"], var.certificate_challenge)
    error_message = "The challenge is one of http-01, dns-01 and dns-persist-01."
  }
}

variable "dns_provider" {
  type        = string
  description = "Where the record of the domain is made: powerdns, rfc2136 or cloudflare; empty for nowhere. Its credential is in the environment."
  default     = ""
}

variable "dns_server" {
  type        = string
  description = "Server of the DNS provider: the URL of PowerDNS, HOST:PORT for rfc2136."
  default     = ""
}

variable "dns_zones" {
  type        = list(string)
  description = "Zones that may be changed."
  default     = []
}

variable "dns_targets" {
  type        = list(string)
  description = "Where the domain leads: addresses, or one name; the instances of the edge when empty."
  default     = []
}

variable "dns_resolvers" {
  type        = list(string)
  description = "DNS servers, HOST:PORT, that must return a DNS-01 record before the CA is asked to validate it; if empty, those of the system."
  default     = []
}

variable "driver" {
  type        = string
  description = "Task driver: docker (the image), exec or raw_exec (a binary on every node)."
  default     = "docker"
  validation {
    condition     = contains(["docker", "exec", "raw_exec"], var.driver)
    error_message = "The driver is one of docker, exec and raw_exec."
  }
}

variable "image" {
  type        = string
  description = "Image for the docker driver; that of the line and flavour when empty."
  default     = ""
}

variable "binary" {
  type        = string
  description = "Path of the binary on the nodes, for exec and raw_exec; /usr/local/bin/ocis or /usr/local/bin/opencloud when empty."
  default     = ""
}

variable "datacenters" {
  type        = list(string)
  description = "Datacenters in which the services may run."
  default     = ["*"]
}

variable "user" {
  type        = string
  description = "User that every task runs as. The image's own user has the number 1000."
  default     = "1000"
  validation {
    condition     = !contains(["", "0", "root"], var.user)
    error_message = "No service of oCIS runs as root: name another user."
  }
}

variable "uid" {
  type        = number
  description = "Number of that user, for files with secrets that only it may read."
  default     = 1000
}

variable "data_dir" {
  type        = string
  description = "Directory on the nodes below which raw_exec keeps each service's data (raw_exec cannot mount volumes). It must exist and let the user create directories."
  default     = ""
}

variable "ephemeral" {
  type        = bool
  description = "Keep data in the allocation directory: everything is lost when a stateful job is replaced. For throw-away tests only."
  default     = false
}

variable "mesh_address" {
  type        = string
  description = "Loopback address of every node on which the mesh listens for the services that oCIS reaches by fixed addresses."
  default     = "127.0.0.1"
}

variable "mesh_driver" {
  type        = string
  description = "Task driver of the mesh (HAProxy): docker, exec or raw_exec."
  default     = "docker"
  validation {
    condition     = contains(["docker", "exec", "raw_exec"], var.mesh_driver)
    error_message = "The driver is one of docker, exec and raw_exec."
  }
}

variable "mesh_image" {
  type        = string
  description = "HAProxy image for the docker driver; 2.4 or newer."
  default     = "haproxy:2.8.12"
}

variable "mesh_binary" {
  type        = string
  description = "Path of HAProxy on the nodes, for exec and raw_exec."
  default     = "/usr/sbin/haproxy"
}

variable "consul_address" {
  type        = string
  description = "Consul's HTTP address as a service reaches it on its node, HOST:PORT or unix://PATH; services register there."
  default     = "127.0.0.1:8500"
}

variable "consul_volume" {
  type        = string
  description = "Host volume that is the directory of Consul's socket, when consul_address is one: docker and exec mount it where it is on the node."
  default     = ""
}

variable "insecure" {
  type        = bool
  description = "Do not verify the certificate of https://DOMAIN inside oCIS. Only while it is self-signed."
  default     = false
}

variable "demo_users" {
  type        = bool
  description = "Create oCIS's demo users (einstein, marie, …) when the user database is first made."
  default     = false
}

variable "basic_auth" {
  type        = bool
  description = "Accept user name and password on every request, for WebDAV clients that know no OpenID Connect."
  default     = false
}

variable "placeholder_assets" {
  type        = bool
  description = "Give idp and web a placeholder page each. For binaries built from the Go module, which carry none."
  default     = false
}

variable "log_level" {
  type        = string
  description = "Log level of every service."
  default     = "warn"
  validation {
    condition     = contains(["panic", "fatal", "error", "warn", "info", "debug", "trace"], var.log_level)
    error_message = "The log level is one of panic, fatal, error, warn, info, debug and trace."
  }
}

variable "log_color" {
  type        = bool
  description = "Colours in logs. From line 7.1 on."
  default     = false
}

variable "log_pretty" {
  type        = bool
  description = "Logs for people instead of JSON. From line 7.1 on."
  default     = false
}

variable "tracing" {
  type        = map(string)
  description = "Tracing: type (jaeger), endpoint, collector."
  default     = {}
}

variable "monitoring" {
  type        = bool
  description = "Register the debug ports of the services and the mesh in Consul, so that the stack monitoring scrapes them."
  default     = false
}

variable "profiling" {
  type        = bool
  description = "Serve pprof on the debug ports."
  default     = false
}

variable "replicas" {
  type        = number
  description = "Instances of each service that may run more than once and keeps no data."
  default     = 1
}

variable "counts" {
  type        = map(number)
  description = "Instances of single services, by name."
  default     = {}
}

variable "ca_bundle" {
  type        = string
  description = "PEM text of CAs that the services trust beside those of the system."
  default     = ""
}

variable "cors_origins" {
  type        = list(string)
  description = "Origins that may call the APIs from a browser, beside the domain."
  default     = []
}

variable "csp" {
  type        = map(list(string))
  description = "More sources for the content security policy, by directive."
  default     = {}
}

variable "language" {
  type        = string
  description = "Language of mails and notifications."
  default     = "en"
}

variable "edition" {
  type        = string
  description = "Edition in the status of the server."
  default     = "Community"
}

variable "nats" {
  type        = map(string)
  description = "NATS outside of the stack: endpoint, cluster, tls (true), registry_nodes, store_nodes."
  default     = {}
}

variable "nats_ca" {
  type        = string
  description = "PEM text of the CA of that NATS."
  default     = ""
}

variable "ldap" {
  type        = map(string)
  description = "LDAP server outside of the stack instead of idm: uri, bind_dn, user_base, … The password is the secret reva_password."
  default     = {}
}

variable "ldap_ca" {
  type        = string
  description = "PEM text of the CA of that LDAP server; the CAs of the system when empty."
  default     = ""
}

variable "oidc" {
  type        = map(string)
  description = "OpenID Connect provider outside of the stack instead of idp: issuer, user_claim, cs3_claim, verify, skip_user_info, role_claim, account_url, logout_url."
  default     = {}
}

variable "role_mapping" {
  type        = map(string)
  description = "Role of each value of the role claim."
  default     = { ocisAdmin = "admin", ocisSpaceAdmin = "spaceadmin", ocisUser = "user", ocisGuest = "guest" }
}

variable "autoprovision" {
  type        = map(string)
  description = "Create users at their first login: the claims email, display_name, groups, user_name."
  default     = {}
}

variable "s3" {
  type        = map(string)
  description = "Keep files in an object storage: endpoint, region, bucket, … The keys are the secrets s3_access_key and s3_secret_key."
  default     = {}
}

variable "storage_driver" {
  type        = string
  description = "Driver of the files: ocis or s3ng; of OpenCloud posix, decomposed or decomposeds3. That of the flavour and of s3 when empty. Data of one driver is not read by another."
  default     = ""
}

variable "smtp" {
  type        = map(string)
  description = "Send mail: host, port, sender, authentication, encryption. User and password are the secrets smtp_username and smtp_password."
  default     = {}
}

variable "mail_templates" {
  type        = map(string)
  description = "Templates of mails, by path below templates: text/email.text.tmpl."
  default     = {}
}

variable "antivirus" {
  type        = map(string)
  description = "Scan uploads: scanner (icap or clamav), url, service, timeout, socket, handling, max_size, workers."
  default     = {}
}

variable "policies" {
  type        = map(string)
  description = "Rego files of the service policies, by name: proxy.rego, postprocessing.rego."
  default     = {}
}

variable "office" {
  type        = map(map(string))
  description = "Office suites, by name: addr, icon, wopi, product, name, insecure, disable_proof, disable_chat."
  default     = {}
}

variable "mimetypes" {
  type        = list(map(string))
  description = "Types of files that office suites open."
  default     = []
}

variable "ocm" {
  type        = bool
  description = "Share with other clouds (Open Cloud Mesh)."
  default     = false
}

variable "ocm_providers" {
  type        = string
  description = "JSON text of the clouds that OCM trusts."
  default     = "[]"
}

variable "app_tokens" {
  type        = bool
  description = "Passwords of applications (auth-app)."
  default     = false
}

variable "tika" {
  type        = map(string)
  description = "Full text search with Apache Tika: url, clean_stop_words, size_limit."
  default     = {}
}

variable "archiver" {
  type        = map(string)
  description = "Limits of downloads as an archive: max_files, max_size."
  default     = {}
}

variable "quota" {
  type        = map(string)
  description = "Quotas of spaces in bytes: default, max."
  default     = {}
}

variable "role_quotas" {
  type        = map(number)
  description = "Quota of the personal space by the id of a role."
  default     = {}
}

variable "sharing" {
  type        = map(string)
  description = "Sharing: min_search, show_email, auto_accept, link_password, writable_link_password."
  default     = {}
}

variable "share_roles" {
  type        = list(string)
  description = "Ids of the roles that a share may give; the default ones when empty."
  default     = []
}

variable "password_policy" {
  type        = map(string)
  description = "What passwords of links need: characters, lowercase, uppercase, digits, special."
  default     = {}
}

variable "banned_passwords" {
  type        = list(string)
  description = "Passwords that links may not have."
  default     = []
}

variable "gdpr" {
  type        = map(string)
  description = "Personal data of Keycloak in reports: base_path, client, client_realm, user_realm, insecure. The secret is gdpr_secret."
  default     = {}
}

variable "global_notifications" {
  type        = bool
  description = "Let a client with the secret global_notifications_secret notify all users."
  default     = false
}

variable "web" {
  type        = map(string)
  description = "Options of the web client."
  default     = {}
}

variable "web_config" {
  type        = string
  description = "YAML text of web.yaml: apps, styles, scripts, translations."
  default     = "{}"
}

variable "web_apps" {
  type        = string
  description = "YAML text of apps.yaml: configuration of external apps."
  default     = ""
}

variable "routes" {
  type        = list(map(string))
  description = "More routes of the proxy: endpoint, backend."
  default     = []
}

variable "maintenance" {
  type        = map(string)
  description = "Cron schedules of clean-uploads, purge-trash, restart-uploads, clean-thumbnails, mail-daily, mail-weekly. A command without a schedule does not run."
  default     = {}
}

variable "time_zone" {
  type        = string
  description = "Time zone of these schedules."
  default     = "UTC"
}

variable "upload_expiration" {
  type        = number
  description = "Seconds after which an unfinished upload may be cleaned up."
  default     = 86400
}

variable "trash_expiration" {
  type        = string
  description = "Age from which purge-trash deletes."
  default     = "720h"
}

variable "thumbnails_days" {
  type        = number
  description = "Days without a read after which clean-thumbnails deletes a thumbnail."
  default     = 30
}

variable "offline" {
  type        = bool
  description = "Run no instance of any service, for a backup or a change of the data while nothing writes. The jobs, periodic commands and data stay."
  default     = false
}

variable "backup" {
  type        = map(string)
  description = "Back up with restic: repository (a directory, or an address such as s3:https://s3.example.org/bucket), schedule (@daily), prune (schedule, @weekly), keep_daily, keep_weekly, keep_monthly. Its password is the secret backup_password; the keys of S3 are the secrets backup_access_key and backup_secret_key."
  default     = {}
}

variable "backup_image" {
  type        = string
  description = "Image of restic for the docker driver; 0.14 or newer."
  default     = "restic/restic:0.17.3"
}

variable "backup_binary" {
  type        = string
  description = "Path of restic on the nodes, for exec and raw_exec."
  default     = "/usr/bin/restic"
}

variable "restore" {
  type        = string
  description = "Fill empty volumes before the services start: latest, or the number of a run of the backup."
  default     = ""
  validation {
    condition     = regex_replace(var.restore, "^(latest|[0-9]*)$", "") == ""
    error_message = "restore is latest, or the number of a run of ocis-backup, such as 1764485000."
  }
}
