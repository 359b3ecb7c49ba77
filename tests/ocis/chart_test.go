package ocis

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/render"
)

var update = flag.Bool("update", false, "write the numbers of the comparison into "+page)

// page has the table of deliberate differences, and the numbers.
const page = "../../docs/reference/ocis-chart.md"

// A chart is what a Helm chart renders with one set of values.
type chart struct {
	Deployments map[string]deployment
	Cronjobs    map[string]deployment
	Configmaps  map[string]map[string]struct{ Content string }
}

type deployment struct {
	Command, Args []string
	Env           map[string]any
	Ports         []struct {
		Name string
		Port int
	}
	Mounts []struct {
		Path, Kind, Claim, Name, SubPath string
		Items                            any
	}
	Schedule, TimeZone string
	Suspend            bool
}

// charts returns the directory of the rendered charts: DROVER_CHARTS, or
// shared/data/ocis in a directory above the repository.
func charts(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("DROVER_CHARTS"); dir != "" {
		return dir
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		data := filepath.Join(dir, "shared", "data", "ocis")
		if _, err := os.Stat(data); err == nil {
			return data
		}
	}
	t.Skip("the rendered charts are not on this machine: set DROVER_CHARTS")
	return ""
}

type object = map[string]any

// Parts of the values of several profiles.
var (
	suites = object{
		"collabora":  object{"name": "Collabora", "addr": "https://collabora.example.org", "icon": "https://collabora.example.org/favicon.ico", "wopi": "https://wopi-collabora.example.org"},
		"onlyoffice": object{"name": "OnlyOffice", "addr": "https://onlyoffice.example.org", "icon": "https://onlyoffice.example.org/favicon.ico", "wopi": "http://collaboration-onlyoffice.default.svc.cluster.local:9300"},
	}
	rego     = object{"proxy.rego": "package proxy\ndefault granted := true\n", "postprocessing.rego": "package postprocessing\ndefault granted := true\n"}
	keycloak = object{
		"oidc": object{"issuer": "https://keycloak.example.org/realms/oCIS", "user_claim": "ocis.user.uuid", "cs3_claim": "userid", "verify": "jwt", "role_claim": "roles",
			"account_url": "https://keycloak.example.org/realms/oCIS/account", "logout_url": "https://keycloak.example.org/realms/oCIS/account"},
		"role_mapping": object{"ocisAdmin": "admin", "ocisUser": "user"},
		"ldap_ca":      "-----BEGIN CERTIFICATE-----\n",
	}
	openldap = object{
		"uri": "ldaps://ldap.example.org:636", "user_id": "ownCloudUUID", "user_filter": "(objectclass=ownCloudUser)", "group_id": "ownCloudUUID",
		"disable": "attribute", "refint": "true", "password_exop": "true", "server_uuid": "false",
	}
	scanner = object{"url": "icap://icap:1344", "service": "avscan"}
	fullWeb = object{
		"theme_path": "/themes/mine/theme.json", "disable_feedback": "false", "feedback_url": "https://example.org/f", "feedback_label": "a", "feedback_description": "d",
		"post_logout_url": "https://example.org/bye", "login_url": "https://example.org/login", "user_list_needs_filter": "true",
		"embed": "true", "embed_target": "location", "embed_origin": "https://example.org",
		"batch_requests": "4", "sse_requests": "4", "share_create_requests": "4", "share_list_requests": "2",
	}
	allCrons = object{"clean-uploads": "0 * * * *", "purge-trash": "0 * * * *", "restart-uploads": "0 * * * *", "clean-thumbnails": "0 * * * *", "mail-daily": "0 0 * * *", "mail-weekly": "0 0 * * 0"}
)

// with returns the union of objects, the later ones over the earlier.
func with(all ...object) object {
	out := object{}
	for _, o := range all {
		maps.Copy(out, o)
	}
	return out
}

// profile is one set of values: of the chart (its file) and of the stack.
type profile struct {
	chart, name string
	values      object
}

const (
	ocisChart = "ocis-chart-0.7.0"
	openChart = "opencloud-microservices-0.3.10"
)

func profiles() []profile {
	example := object{"domain": "cloud.example.org", "log_level": "info", "basic_auth": false}
	test := with(example, object{"domain": "ocis.owncloud.test"})
	full := with(example, object{
		"demo_users": true, "language": "de", "edition": "Enterprise", "app_tokens": true, "ocm": true, "profiling": true, "ca_bundle": "-----BEGIN CERTIFICATE-----\n",
		"tracing":        object{"type": "jaeger", "endpoint": "jaeger:6831", "collector": "http://jaeger:14268/api/traces"},
		"smtp":           object{"host": "mail.example.org", "port": "465", "sender": "Cloud <noreply@example.org>", "authentication": "login", "encryption": "ssltls"},
		"mail_templates": object{"text/email.text.tmpl": "", "html/email.html.tmpl": "", "html/img/logo": ""},
		"antivirus":      with(scanner, object{"handling": "abort", "max_size": "100MB"}),
		"policies":       rego, "office": suites,
		"mimetypes": []object{{"mime_type": "application/vnd.oasis.opendocument.text", "extension": "odt", "default_app": "Collabora"}},
		"gdpr":      object{"base_path": "https://keycloak.example.org", "client": "ocis", "client_realm": "master", "user_realm": "oCIS"},
		"quota":     object{"max": "250000000000", "default": "1000000000"}, "role_quotas": object{"d7beeea8-8ff4-406b-8fb6-ab2dd81e6b11": 2000000000},
		"archiver":        object{"max_size": "1073741824", "max_files": "10000"},
		"sharing":         object{"min_search": "2", "show_email": "true", "link_password": "true", "writable_link_password": "true", "auto_accept": "true"},
		"share_roles":     []string{"b1e2218d-eef8-4d4c-b82d-0f1a1b48f3b5", "fb6c3e19-e378-47e5-b277-9732f9de6e21"},
		"password_policy": object{"characters": "8", "lowercase": "1", "uppercase": "1", "special": "1", "digits": "1"}, "banned_passwords": []string{"password", "12345678"},
		"tika": object{"url": "http://tika:9998", "clean_stop_words": "true"}, "global_notifications": true,
		"web": fullWeb, "web_apps": "{}", "routes": []object{{"endpoint": "/extra", "backend": "http://127.0.0.1:9999"}},
		"maintenance": allCrons,
	})
	features := with(example, object{
		"demo_users": true, "antivirus": with(scanner, object{"handling": "delete"}), "policies": rego, "office": suites,
		"smtp":        object{"host": "mail", "port": "2500", "sender": "Cloud <noreply@example.org>", "authentication": "none", "encryption": "none"},
		"maintenance": object{"mail-daily": "0 0 * * *", "mail-weekly": "0 0 * * 0"},
	})
	external := with(example, keycloak, object{"ldap": with(openldap, object{"group_create_base": "ou=local,ou=groups,dc=owncloud,dc=com"})})
	s3 := with(example, object{"s3": object{"endpoint": "http://s3.example.org:9000", "region": "default", "bucket": "ocis-bucket"}})
	list := []profile{
		{ocisChart, "minimal", test},
		{ocisChart, "ci-lint", with(test, object{
			"cors_origins": []string{"https://integration.owncloud.test"}, "ca_bundle": "-----BEGIN CERTIFICATE-----\n", "ocm": true,
			"smtp": object{"authentication": "auto", "encryption": "ssltls"},
			"office": object{
				"collabora":  object{"name": "Collabora", "addr": "https://collabora.owncloud.test", "icon": "https://collabora.owncloud.test/favicon.ico", "wopi": "https://collabora-wopi.owncloud.test"},
				"onlyoffice": object{"name": "OnlyOffice", "addr": "https://onlyoffice.owncloud.test", "icon": "https://onlyoffice.owncloud.test/web-apps/apps/documenteditor/main/resources/img/favicon.ico", "wopi": "https://onlyoffice-wopi.owncloud.test"},
			},
			"mimetypes": []object{{"mime_type": "application/vnd.oasis.opendocument.text", "extension": "odt"}},
			"antivirus": object{"url": "icap://clamav.clamav.svc:1344", "service": "avscan", "handling": "abort", "max_size": "50000KB"},
			"policies":  object{"proxy.rego": "package proxy\n"}, "quota": object{"max": "250000000000", "default": "0"}, "global_notifications": true,
			"maintenance": object{"clean-uploads": "0 * * * *", "purge-trash": "0 * * * *", "restart-uploads": "0 * * * *", "clean-thumbnails": "0 * * * *"},
		})},
		{ocisChart, "ci-deployment", with(test, object{"log_level": "debug", "insecure": true, "ocm": true, "antivirus": object{"handling": "delete"}, "policies": object{"proxy.rego": "package proxy\n"}})},
		{ocisChart, "full", full},
		{ocisChart, "external-users", external},
		{ocisChart, "external-users-autoprovision", with(example, object{
			"oidc":          object{"issuer": "https://idp.example.org", "user_claim": "sub", "cs3_claim": "username", "verify": "none"},
			"ldap":          object{"uri": "ldaps://ldap.example.org:636", "server_uuid": "true"},
			"autoprovision": object{"email": "email", "display_name": "name", "groups": "groups", "user_name": "preferred_username"},
		})},
		{ocisChart, "s3", s3},
		{ocisChart, "features", features},
		{ocisChart, "scaling", example},
		{ocisChart, "replicas", with(example, object{"replicas": 3})},
		{ocisChart, "external-nats", with(example, object{
			"nats":    object{"endpoint": "nats.example.org:4222", "cluster": "ocis-cluster", "tls": "true", "registry_nodes": "nats-1.example.org:4222,nats-2.example.org:4222,nats-3.example.org:4222", "store_nodes": "nats-1.example.org:4222"},
			"nats_ca": "-----BEGIN CERTIFICATE-----\n",
		})},
	}
	open := object{"flavour": "opencloud", "tika": object{"url": "http://tika.default.svc.cluster.local:9000", "clean_stop_words": "true"},
		"autoprovision": object{"email": "email", "display_name": "name", "groups": "groups", "user_name": "sub"}}
	fullOpen := with(full, open, object{"tika": object{"url": "http://tika:9998", "clean_stop_words": "true"},
		"antivirus": with(scanner, object{"handling": "abort", "max_size": "100MB", "scanner": "clamav", "socket": "tcp://clamav.clamav.svc.cluster.local:3310"})})
	return append(list,
		profile{openChart, "minimal", with(test, open, object{"domain": "cloud.example.org"})},
		profile{openChart, "external-users", with(external, open, object{"autoprovision": object{}, "ldap": with(openldap, object{
			"user_base": "ou=users,dc=opencloud,dc=eu", "group_base": "ou=groups,dc=opencloud,dc=eu", "group_create_base": "ou=local,ou=groups,dc=owncloud,dc=com", "user_match": "none",
			"read_only": "user.onPremisesSamAccountName,user.displayName,user.mail,user.passwordProfile,user.memberOf"})})},
		profile{openChart, "s3", with(s3, open)},
		profile{openChart, "features", with(features, open, object{"antivirus": with(scanner, object{"handling": "delete", "scanner": "clamav", "socket": "tcp://clamav.clamav.svc.cluster.local:3310"})})},
		profile{openChart, "scaling", with(example, open)},
		profile{openChart, "full", fullOpen},
	)
}

// items are the secrets of the chart and the items of the stack.
var items = map[string]string{
	"jwt-secret/jwt-secret": "jwt_secret", "storage-system-jwt-secret/storage-system-jwt-secret": "jwt_secret",
	"machine-auth-api-key/machine-auth-api-key": "machine_auth_api_key", "transfer-secret/transfer-secret": "transfer_secret",
	"auth-service/service-account-id": "service_account_id", "service-account-secret/service-account-secret": "service_account_secret",
	"storage-system/user-id": "system_user_id", "storage-system/api-key": "system_user_api_key",
	"admin-user/user-id": "admin_user_id", "admin-user/password": "admin_password", "graph/application-id": "graph_application_id",
	"ldap-bind-secrets/reva-ldap-bind-password": "reva_password", "ldap-bind-secrets/graph-ldap-bind-password": "idm_password", "ldap-bind-secrets/idp-ldap-bind-password": "idp_password",
	"storage-users/storage-uuid": "storage_users_mount_id", "thumbnails-transfer-secret/thumbnails-transfer-secret": "thumbnails_transfer_secret",
	"collaboration-wopi-secret/wopi-secret": "wopi_secret", "smtp-secret/smtp-username": "smtp_username", "smtp-secret/smtp-password": "smtp_password",
	"s3secret/accessKey": "s3_access_key", "s3secret/secretKey": "s3_secret_key", "gdpr-secret/oidc-secret": "gdpr_secret",
	"global-notification-secret/notifications-secret": "global_notifications_secret", "url-signing-secret/url-signing-secret": "url_signing_secret",
}

// A rule is one row of the table of deliberate differences.
type rule struct {
	what, service, name, instead string
	line                         int
}

var cell = regexp.MustCompile("`([^`]*)`")

// rules reads the table.
func rules(t *testing.T) []rule {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var out []rule
	for i, line := range strings.Split(string(text), "\n") {
		cells := strings.Split(line, " | ")
		if len(cells) != 5 || !slices.Contains([]string{"env", "port", "mount", "cron", "service"}, strings.Trim(cells[0], "| ")) {
			continue
		}
		code := func(s string) string {
			if m := cell.FindStringSubmatch(s); m != nil {
				return m[1]
			}
			return strings.TrimSpace(s)
		}
		for _, name := range strings.Split(cells[2], ", ") {
			out = append(out, rule{strings.Trim(cells[0], "| "), code(cells[1]), code(name), code(cells[3]), i + 1})
		}
	}
	if len(out) == 0 {
		t.Fatalf("%s has no table of differences", page)
	}
	return out
}

func glob(pattern, name string) bool {
	ok, err := path.Match(strings.ReplaceAll(pattern, "/", "\x01"), strings.ReplaceAll(name, "/", "\x01"))
	return err == nil && ok
}

// tally is what a comparison found.
type tally struct {
	equal, different, missing int
	gone                      []string
}

// comparison compares one profile.
type comparison struct {
	rules []rule
	used  map[int]bool
	tally
}

// differs reports whether a row of the table explains the difference; ok checks what
// the row says is there instead.
func (c *comparison) differs(what, service, name string, ok func(instead string) bool) {
	for _, r := range c.rules {
		if r.what == what && glob(r.service, service) && glob(r.name, name) && ok(r.instead) {
			c.used[r.line] = true
			c.different++
			return
		}
	}
	c.missing++
	c.gone = append(c.gone, fmt.Sprintf("%s %s %s", service, what, name))
}

func (c *comparison) check(same bool, what, service, name string, ok func(string) bool) {
	if same {
		c.equal++
		return
	}
	c.differs(what, service, name, ok)
}

var secretLine = regexp.MustCompile(`(?m)^([A-Z0-9_]+)=\{\{ \.(\w+) \}\}$`)

// deployed is one service of the stack.
type deployed struct {
	env     map[string]string // literal values
	secrets map[string]string // variable to item
	files   map[string]string // base name of a file of a template to its destination
	ports   map[string]int    // label to the port of the mesh, 0 when the mesh has none
	data    bool              // a volume, or a directory of the node
	task    *api.Task
}

func taskOf(j render.Job, mesh map[string]int) deployed {
	g := j.Job.TaskGroups[0]
	task := g.Tasks[len(g.Tasks)-1]
	o := deployed{env: task.Env, secrets: map[string]string{}, files: map[string]string{}, ports: map[string]int{}, data: len(g.Volumes) > 0, task: task}
	for _, tmpl := range task.Templates {
		o.files[path.Base(*tmpl.DestPath)] = *tmpl.DestPath
		for _, m := range secretLine.FindAllStringSubmatch(*tmpl.EmbeddedTmpl, -1) {
			o.secrets[m[1]] = m[2]
		}
	}
	for _, n := range g.Networks {
		for _, p := range n.DynamicPorts {
			o.ports[p.Label] = 0
		}
	}
	for _, s := range g.Services {
		o.ports[s.PortLabel] = mesh[s.Name]
	}
	return o
}

// meshPorts are the addresses of the mesh: Consul service to port.
func meshPorts(j render.Job) map[string]int {
	out := map[string]int{}
	for _, tmpl := range j.Job.TaskGroups[0].Tasks[0].Templates {
		for _, m := range regexp.MustCompile(`(?m)^listen (\S+)\n  bind \S+:(\d+)`).FindAllStringSubmatch(*tmpl.EmbeddedTmpl, -1) {
			var port int
			_, _ = fmt.Sscan(m[2], &port)
			out[m[1]] = port
		}
	}
	return out
}

// text is a value of the chart's environment; ref is set for a reference.
func text(v any) (value, ref string) {
	switch v := v.(type) {
	case nil:
		return "", ""
	case string:
		return v, ""
	case map[string]any:
		return "", fmt.Sprintf("%v/%v", cmp.Or(v["secret"], v["configmap"]), v["key"])
	}
	return fmt.Sprint(v), ""
}

// env compares the environment of one service.
func (c *comparison) env(service string, d deployment, o deployed) {
	for _, name := range slices.Sorted(maps.Keys(d.Env)) {
		value, ref := text(d.Env[name])
		has, here := o.env[name]
		same := here && has == value && ref == "" || ref != "" && items[ref] != "" && o.secrets[name] == items[ref] || !here && value == "" && ref == ""
		c.check(same, "env", service, name, func(instead string) bool {
			switch other, secret := strings.CutPrefix(instead, "secret "); {
			case secret:
				return o.secrets[other] != ""
			case instead == "none":
				return !here && o.secrets[name] == ""
			case instead == "bind":
				return strings.Contains(has, "${NOMAD_")
			case instead == "file":
				return o.files[path.Base(has)] != "" || strings.Contains(has, "/private-key.pem") || strings.Contains(has, "/encryption.key")
			case instead == "mesh":
				_, port, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(value, "http://"), "ldaps://"), ":")
				return port != "" && strings.HasSuffix(has, port) && strings.Contains(has, "127.0.0.1")
			case instead == "value":
				return here && has != ""
			}
			// Another variable has the value, or the item.
			for _, other := range strings.Fields(instead) {
				if ref != "" && o.secrets[other] == items[ref] && items[ref] != "" || ref == "" && o.env[other] == value {
					return true
				}
			}
			return false
		})
	}
}

func (c *comparison) service(ch chart, service string, d deployment, o deployed) {
	c.env(service, d, o)
	for _, p := range d.Ports {
		label := p.Name
		if label == "metrics-debug" {
			label = "debug"
		}
		port, here := o.ports[label]
		c.check(here && port == p.Port, "port", service, fmt.Sprintf("%s:%d", p.Name, p.Port), func(instead string) bool {
			return here && (instead == "dynamic" || instead == "mesh" && port > 0)
		})
	}
	for _, m := range d.Mounts {
		same := false
		var absent []string
		switch m.Kind {
		case "pvc":
			same = o.data
		case "configmap", "secret", "projected":
			for file := range ch.Configmaps[m.Name] {
				if o.files[file] == "" {
					absent = append(absent, file)
				}
			}
			same = len(ch.Configmaps[m.Name]) > 0 && len(absent) == 0
		}
		c.check(same, "mount", service, m.Path, func(instead string) bool {
			switch instead {
			case "none":
				return true
			case "unused":
				return m.Kind == "emptyDir"
			case "volume":
				return o.data
			}
			return !slices.ContainsFunc(strings.Fields(instead), func(file string) bool { return o.files[file] == "" })
		})
	}
}

// cronNames are the periodic jobs of the chart and those of the stack.
var cronNames = map[string]string{
	"storage-users-clean-expired-uploads": "cron-clean-uploads", "storage-users-purge-expired-trash-bin-items": "cron-purge-trash",
	"storage-users-restart-postprocessing": "cron-restart-uploads", "thumbnails-cleanup": "cron-clean-thumbnails",
	"notifications-daily-notifications": "cron-mail-daily", "notifications-weekly-notifications": "cron-mail-weekly",
}

func (c *comparison) cron(name string, d deployment, all map[string]render.Job) {
	job, here := all[cronNames[name]]
	same := here && job.Job.Periodic != nil && slices.Equal(job.Job.Periodic.Specs, []string{d.Schedule}) &&
		fmt.Sprint(job.Job.TaskGroups[0].Tasks[0].Config["args"]) == fmt.Sprint(d.Args)
	suspended := "running"
	if d.Suspend {
		suspended = "suspended"
	}
	c.check(same && !d.Suspend, "cron", name, suspended, func(instead string) bool {
		return instead == "none" && !here || instead == "command" && here && slices.Equal(job.Job.Periodic.Specs, []string{d.Schedule})
	})
	if here {
		c.env(name, d, taskOf(job, nil))
	}
}

// Each profile of the charts has in the stack what the chart deploys, or a row of the
// table says why not.
func TestCatalog_HasWhatTheChartsDeploy(t *testing.T) {
	dir := charts(t)
	table := rules(t)
	used := map[int]bool{}
	var numbers strings.Builder
	numbers.WriteString("| chart | profile | equal | deliberately different | missing |\n|---|---|---:|---:|---:|\n")
	for _, p := range profiles() {
		raw, err := os.ReadFile(filepath.Join(dir, p.chart, p.name+".json"))
		if errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s has no profile %s", p.chart, p.name)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		var ch chart
		if err := json.Unmarshal(raw, &ch); err != nil {
			t.Fatal(err)
		}
		_, all := rendered(t, "", with(p.values, object{"line": "7.1"}))
		mesh := meshPorts(all["mesh"])
		c := &comparison{rules: table, used: used}
		for _, name := range slices.Sorted(maps.Keys(ch.Deployments)) {
			d := ch.Deployments[name]
			service := name
			if len(d.Args) == 2 && d.Args[1] == "server" && d.Args[0] != "collaboration" {
				service = d.Args[0]
			}
			job, here := all[service]
			if !here {
				c.differs("service", service, "all", func(instead string) bool { return instead == "none" })
				continue
			}
			c.service(ch, service, d, taskOf(job, mesh))
		}
		for _, name := range slices.Sorted(maps.Keys(ch.Cronjobs)) {
			c.cron(name, ch.Cronjobs[name], all)
		}
		fmt.Fprintf(&numbers, "| %s | %s | %d | %d | %d |\n", p.chart, p.name, c.equal, c.different, c.missing)
		t.Logf("%s %s: %d equal, %d deliberately different, %d missing", p.chart, p.name, c.equal, c.different, c.missing)
		for _, gone := range c.gone {
			t.Errorf("%s %s: %s is missing", p.chart, p.name, gone)
		}
	}
	for _, r := range table {
		if !used[r.line] {
			t.Errorf("%s:%d: no profile has the difference of %s %s", page, r.line, r.service, r.name)
		}
	}
	compareNumbers(t, numbers.String())
}

// The snapshot of OpenCloud ran with the environment of the data (opencloud-run.env.json,
// opencloud-mesh.env.json) as separate processes with a mesh: the stack has each of its
// variables.
func TestCatalog_HasWhatRan(t *testing.T) {
	t.Parallel()
	dir := charts(t)
	read := func(name string, into any) {
		t.Helper()
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, into); err != nil {
			t.Fatal(err)
		}
	}
	var ran map[string]map[string]any
	var mesh struct{ Env map[string]map[string]any }
	read("opencloud-run.env.json", &ran)
	read("opencloud-mesh.env.json", &mesh)
	_, all := rendered(t, "", object{"domain": "cloud.example.org", "line": "7.1", "flavour": "opencloud", "storage_driver": "decomposed", "basic_auth": true, "placeholder_assets": true,
		"ocm": true, "policies": object{"proxy.rego": ""}, "demo_users": true})
	compared := 0
	for service, env := range ran {
		job, ok := all[service]
		if !ok {
			t.Errorf("%s ran, and is no service", service)
			continue
		}
		o := taskOf(job, nil)
		for name := range with(env, mesh.Env[service]) {
			// The names of the LDAP server are those of the service.
			own := strings.Replace(name, "OC_LDAP_", strings.ToUpper(strings.ReplaceAll(service, "-", "_"))+"_LDAP_", 1)
			own = strings.Replace(own, "IDP_LDAP_CACERT", "IDP_LDAP_TLS_CACERT", 1)
			_, here := o.env[own]
			if compared++; !here && o.secrets[own] == "" && !strings.HasPrefix(name, "_") {
				t.Errorf("%s ran with %s, which the stack does not set", service, name)
			}
		}
	}
	if compared < 300 {
		t.Errorf("only %d variables were compared", compared)
	}
}

// compareNumbers compares the numbers with those of the page, or writes them.
func compareNumbers(t *testing.T, got string) {
	t.Helper()
	const begin, end = "<!-- numbers -->\n", "<!-- end of numbers -->"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(text), begin)
	old, tail, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no place for the numbers", page)
	}
	if strings.TrimSpace(old) == strings.TrimSpace(got) {
		return
	}
	if !*update {
		t.Errorf("the numbers of %s are not those of the catalog: run go test ./tests/ocis -run Charts -update", page)
		return
	}
	if err := os.WriteFile(page, []byte(head+begin+got+end+tail), 0o600); err != nil {
		t.Fatal(err)
	}
}
