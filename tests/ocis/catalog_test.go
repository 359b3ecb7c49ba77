// Package ocis checks the catalog of oCIS and OpenCloud (jobs/ocis) without a
// cluster: what the line 2.0 renders to, what a line refuses, and that each newer line
// has what the projects' own charts deploy.
package ocis

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/jobs"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/render/lint"
	"github.com/drover-nomad/drover/stack"
)

// load reads the shipped stack with values of an operator.
func load(t testing.TB, environment string, values map[string]any) (*stack.Stack, error) {
	t.Helper()
	files, err := jobs.Stack("ocis")
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "values.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return stack.Load(t.Context(), stack.Options{Path: "ocis", FS: files, Environment: environment, ValueFiles: []string{file}})
}

// rendered returns the stack and its jobs by service.
func rendered(t testing.TB, environment string, values map[string]any) (*stack.Stack, map[string]render.Job) {
	t.Helper()
	s, err := load(t, environment, values)
	if err != nil {
		t.Fatal(err)
	}
	all, err := render.Stack(t.Context(), s, render.Options{})
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]render.Job{}
	for _, j := range all {
		byName[j.Service] = j
	}
	return s, byName
}

// pruned returns a job as JSON without what is null.
func pruned(t testing.TB, job *api.Job) string {
	t.Helper()
	text, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return encoded(t, withoutNull(v))
}

func encoded(t testing.TB, v any) string {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func withoutNull(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, inner := range v {
			if inner == nil {
				delete(v, name)
			} else {
				v[name] = withoutNull(inner)
			}
		}
	case []any:
		for i, inner := range v {
			v[i] = withoutNull(inner)
		}
	}
	return v
}

// The catalog renders 2.0 to the very jobs of the stack before the catalog, so that a
// new drover restarts nothing.
func TestCatalog_2_0IsUnchanged(t *testing.T) {
	t.Parallel()
	for name, values := range map[string]map[string]any{
		"default": {"domain": "cloud.example.org"},
		"dev":     {"domain": "127.0.0.9:9443", "mesh_address": "127.0.0.9"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			environment := ""
			if name == "dev" {
				environment = name
			}
			golden, err := os.ReadFile(filepath.Join("testdata", "2.0-"+name+".ndjson"))
			if err != nil {
				t.Fatal(err)
			}
			s, got := rendered(t, environment, values)
			var order []string
			for line := range strings.Lines(string(golden)) {
				var want map[string]any
				if err := json.Unmarshal([]byte(line), &want); err != nil {
					t.Fatal(err)
				}
				service := strings.TrimPrefix(want["ID"].(string), "ocis-")
				if service == "mesh-ocis" {
					service = "mesh"
				}
				order = append(order, service)
				job, ok := got[service]
				if !ok {
					t.Errorf("there is no job of %s", service)
					continue
				}
				if g, w := pruned(t, job.Job), encoded(t, want); g != w {
					t.Errorf("%s: %s", service, firstDifference(g, w))
				}
			}
			var names []string
			for _, svc := range s.Services {
				names = append(names, svc.Name)
			}
			if !slices.Equal(names, order) {
				t.Errorf("got the order %s, want %s", names, order)
			}
		})
	}
}

// firstDifference shows where two texts differ.
func firstDifference(got, want string) string {
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	around := func(s string) string { return s[max(at-80, 0):min(at+120, len(s))] }
	return fmt.Sprintf("got\n  …%s…\nwant\n  …%s…", around(got), around(want))
}

func TestCatalog_2_0HasTheSameSecretsAndOrder(t *testing.T) {
	t.Parallel()
	golden, err := os.ReadFile(filepath.Join("testdata", "2.0-services.txt"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := load(t, "", map[string]any{"domain": "cloud.example.org"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, svc := range s.Services {
		got = append(got, fmt.Sprintf("%s: after %s; secrets %s", svc.Name, strings.Join(svc.DependsOn, " "), strings.Join(svc.Secrets, " ")))
	}
	want := strings.Split(strings.TrimSpace(string(golden)), "\n")
	slices.Sort(got)
	slices.Sort(want)
	for i := range min(len(got), len(want)) {
		if strings.TrimSpace(got[i]) != strings.TrimSpace(want[i]) {
			t.Errorf("got\n  %s\nwant\n  %s", got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %d services, want %d", len(got), len(want))
	}
	var secrets, volumes []string
	for _, sec := range s.Secrets {
		secrets = append(secrets, sec.Name)
	}
	for _, v := range s.Volumes {
		volumes = append(volumes, v.Name)
	}
	if len(secrets) != 13 || len(volumes) != 8 {
		t.Errorf("got %d secrets and %d volumes, want 13 and 8: %s %s", len(secrets), len(volumes), secrets, volumes)
	}
}

// An option that a line does not have is refused, and the message names the lines that
// have it.
func TestCatalog_OptionsOfALine(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		values map[string]any
		want   string
	}{
		"option of a newer line": {map[string]any{"ocm": true}, "oCIS 2.0 has no ocm: lines 7.1 and 8.0 have it."},
		"flavour":                {map[string]any{"flavour": "opencloud"}, "oCIS 2.0 has no flavour: lines 7.1 and 8.0 have it."},
		"key of a newer line":    {map[string]any{"ldap": map[string]any{"uri": "ldaps://ldap", "disable": "group"}}, "oCIS 2.0 has no ldap.disable: lines 7.1 and 8.0 have it."},
		"unknown key of ldap":    {map[string]any{"ldap": map[string]any{"ulr": "ldaps://ldap"}}, "ldap has no ulr; it has bind_dn"},
		"sender without address": {map[string]any{"smtp": map[string]any{"sender": "cloud@example.org"}}, "an address only if the sender is one in angle brackets"},
		"unknown line":           {map[string]any{"line": "6.0"}, "The line is one of 2.0, 7.1 and 8.0."},
		"unknown key":            {map[string]any{"line": "7.1", "smtp": map[string]any{"hots": "mail"}}, "smtp has no hots; it has authentication, encryption, host, port, sender."},
		"scaled single writer":   {map[string]any{"line": "7.1", "counts": map[string]any{"idm": 2}}, "idm runs once"},
		"unknown service":        {map[string]any{"line": "7.1", "counts": map[string]any{"store": 2}}, "store"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.values["domain"] = "cloud.example.org"
			_, err := load(t, "", c.values)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// all are values that turn everything on.
func all(line, flavour string) map[string]any {
	for _, p := range profiles() {
		if p.chart == ocisChart && p.name == "full" {
			return with(p.values, object{"line": line, "flavour": flavour, "basic_auth": true})
		}
	}
	return nil
}

// external are values with users, logins, files and mail outside of the stack.
func external(line string, without ...string) map[string]any {
	values := map[string]any{
		"domain": "cloud.example.org", "line": line, "basic_auth": true,
		"ldap": map[string]any{"uri": "ldaps://ldap.example.org", "bind_dn": "cn=reader,dc=example,dc=org", "user_base": "ou=people,dc=example,dc=org"},
		"oidc": map[string]any{"issuer": "https://id.example.org", "user_claim": "email", "cs3_claim": "mail"},
		"smtp": map[string]any{"host": "mail.example.org", "sender": "Cloud <cloud@example.org>", "authentication": "login"},
		"s3":   map[string]any{"endpoint": "https://s3.example.org", "bucket": "cloud"},
	}
	for _, name := range without {
		delete(values, name)
	}
	return values
}

// LDAP and OpenID Connect are internal or external, in the four combinations, in each
// line. idp looks users up in the directory that the others read, and with the same
// password.
func TestCatalog_ExternalUsers(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"2.0", "7.1", "8.0"} {
		for _, c := range []struct {
			name     string
			values   map[string]any
			idm, idp bool
		}{
			{"both internal", external(line, "ldap", "oidc"), true, true},
			{"external LDAP", external(line, "oidc"), false, true},
			{"external OpenID Connect", external(line, "ldap"), true, false},
			{"both external", external(line), false, false},
		} {
			t.Run(line+" "+c.name, func(t *testing.T) {
				t.Parallel()
				_, jobs := rendered(t, "", c.values)
				_, idm := jobs["idm"]
				_, idp := jobs["idp"]
				if idm != c.idm || idp != c.idp {
					t.Errorf("idm: %t, idp: %t, want %t and %t", idm, idp, c.idm, c.idp)
				}
				task := func(service string) *api.Task { return jobs[service].Job.TaskGroups[0].Tasks[0] }
				for service, name := range map[string]string{"users": "USERS_LDAP_USER_BASE_DN", "groups": "GROUPS_LDAP_USER_BASE_DN", "auth-basic": "AUTH_BASIC_LDAP_USER_BASE_DN", "graph": "GRAPH_LDAP_USER_BASE_DN", "idp": "IDP_LDAP_BASE_DN"} {
					if jobs[service].Job == nil {
						continue
					}
					want, item := "", map[string]string{"graph": "idm_password", "idp": "idp_password"}[service]
					if !c.idm {
						want, item = "ou=people,dc=example,dc=org", ""
					}
					if item == "" {
						item = "reva_password"
					}
					if got := task(service).Env[name]; got != want {
						t.Errorf("%s: %s is %q, want %q", service, name, got, want)
					}
					if !slices.Contains(jobs[service].Secrets, item) {
						t.Errorf("%s has the secrets %s, without %s", service, jobs[service].Secrets, item)
					}
				}
				issuer := "https://id.example.org"
				if c.idp && line == "2.0" {
					issuer = "" // it takes OCIS_URL
				} else if c.idp {
					issuer = "https://cloud.example.org"
				}
				for service, name := range map[string]string{"proxy": "PROXY_OIDC_ISSUER", "web": "WEB_OIDC_AUTHORITY", "users": "USERS_IDP_URL"} {
					if got := task(service).Env[name]; got != issuer {
						t.Errorf("%s: %s is %q, want %q", service, name, got, issuer)
					}
				}
			})
		}
	}
}

// Every address of the mesh leads to a service that some job registers, and every route
// of the proxy to an address of the mesh.
func TestCatalog_AddressesLeadSomewhere(t *testing.T) {
	t.Parallel()
	for name, values := range map[string]map[string]any{
		"2.0":           {"domain": "cloud.example.org"},
		"7.1":           {"domain": "cloud.example.org", "line": "7.1"},
		"8.0":           {"domain": "cloud.example.org", "line": "8.0"},
		"7.1 all":       all("7.1", "ocis"),
		"8.0 all":       all("8.0", "ocis"),
		"opencloud all": all("7.1", "opencloud"),
		"2.0 external":  external("2.0"),
		"2.0 LDAP":      external("2.0", "oidc"),
		"7.1 external":  external("7.1"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, jobs := rendered(t, "", values)
			registered := map[string]string{}
			for _, j := range jobs {
				for _, tmpl := range j.Job.TaskGroups[0].Tasks[0].Templates {
					if *tmpl.EmbeddedTmpl == "" {
						t.Errorf("%s: the text of %s is empty, which Nomad refuses", j.Service, *tmpl.DestPath)
					}
				}
				for _, s := range j.Job.TaskGroups[0].Services {
					if other := registered[s.Name]; other != "" {
						t.Errorf("%s and %s both register %s", other, j.Service, s.Name)
					}
					registered[s.Name] = j.Service
				}
			}
			ports := map[string]bool{"9999": true} // the route that the values add
			for service, port := range meshPorts(jobs["mesh"]) {
				if ports[fmt.Sprint(port)] {
					t.Errorf("two addresses of the mesh have port %d", port)
				}
				ports[fmt.Sprint(port)] = true
				if registered[service] == "" {
					t.Errorf("the mesh leads to %s, which no job registers", service)
				}
			}
			proxy := jobs["proxy"].Job.TaskGroups[0].Tasks[0]
			routes := 0
			for _, tmpl := range proxy.Templates {
				for _, m := range regexp.MustCompile(`http://127\.0\.0\.1:(\d+)`).FindAllStringSubmatch(*tmpl.EmbeddedTmpl, -1) {
					if routes++; !ports[m[1]] {
						t.Errorf("a route leads to port %s, which the mesh does not have", m[1])
					}
				}
			}
			if routes < 20 {
				t.Errorf("the proxy has %d routes", routes)
			}
		})
	}
}

// Services of the newer lines exit when NATS is not there at their start.
func TestCatalog_NATSComesFirst(t *testing.T) {
	t.Parallel()
	s, err := load(t, "", all("7.1", "ocis"))
	if err != nil {
		t.Fatal(err)
	}
	after := map[string]bool{"mesh": true, "nats": true}
	for _, svc := range s.Services { // in dependency order
		if svc.Name == "mesh" || svc.Name == "nats" || strings.HasPrefix(svc.Name, "cron-") {
			continue
		}
		after[svc.Name] = slices.ContainsFunc(svc.DependsOn, func(d string) bool { return d != "mesh" && after[d] })
		if !after[svc.Name] {
			t.Errorf("%s does not wait for nats: it waits for %s", svc.Name, svc.DependsOn)
		}
	}
}

// Each secret that a job reads is one of its items, and the other way round.
func TestCatalog_SecretsAreThoseThatJobsRead(t *testing.T) {
	t.Parallel()
	for name, values := range map[string]map[string]any{"7.1": all("7.1", "ocis"), "opencloud": all("7.1", "opencloud"), "2.0": {"domain": "cloud.example.org"}, "2.0 external": external("2.0"), "2.0 LDAP": external("2.0", "oidc"), "7.1 external": external("7.1"), "2.0 compact": with(external("2.0"), object{"layout": "compact"}), "7.1 compact": with(external("7.1"), object{"layout": "compact"})} {
		_, jobs := rendered(t, "", values)
		for _, j := range jobs {
			var read []string
			for _, r := range render.SecretReads(j.Job) {
				read = append(read, r.Items...)
			}
			slices.Sort(read)
			read = slices.Compact(read)
			if !slices.Equal(read, j.Secrets) {
				t.Errorf("%s: %s reads %s, and has %s", name, j.Service, read, j.Secrets)
			}
		}
	}
}

// The defects that rendering the chart shows.
func TestCatalog_WithoutTheDefectsOfTheChart(t *testing.T) {
	t.Parallel()
	values := all("7.1", "ocis")
	values["cors_origins"] = []string{"https://cloud.example.org", "https://other.example.org"}
	_, jobs := rendered(t, "", values)
	env := func(service, name string) string {
		t.Helper()
		return jobs[service].Job.TaskGroups[0].Tasks[len(jobs[service].Job.TaskGroups[0].Tasks)-1].Env[name]
	}
	for what, c := range map[string]struct{ got, want string }{
		"an origin is listed once":                  {env("graph", "OCIS_CORS_ALLOW_ORIGINS"), "https://cloud.example.org,https://other.example.org"},
		"an option of the web client has its value": {env("web", "WEB_OPTION_CONCURRENT_REQUESTS_SHARES_LIST"), "2"},
		"uploads run the policies that are given":   {env("postprocessing", "POSTPROCESSING_STEPS"), "virusscan,policies"},
		"thumbnails older than the limit go":        {fmt.Sprint(jobs["cron-clean-thumbnails"].Job.TaskGroups[0].Tasks[0].Config["args"]), "[-c find /var/lib/ocis/thumbnails -type f -atime +30 -delete]"},
		"one writer of the app tokens":              {fmt.Sprint(*jobs["auth-app"].Job.TaskGroups[0].Update.Canary), "0"},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %q, want %q", what, c.got, c.want)
		}
	}
	_, again := rendered(t, "", values)
	for name, j := range jobs {
		if string(j.HCL) != string(again[name].HCL) {
			t.Errorf("%s: rendered twice, the job differs: a secret is made by rendering", name)
		}
	}
}

// Lint has nothing to say about the stack, with every option.
func TestCatalog_LintFindsNothing(t *testing.T) {
	t.Parallel()
	for name, values := range map[string]map[string]any{
		"2.0": {"domain": "cloud.example.org"}, "7.1": all("7.1", "ocis"), "8.0": all("8.0", "ocis"), "opencloud": all("7.1", "opencloud"), "2.0 external": external("2.0"),
	} {
		s, err := load(t, "", values)
		if err != nil {
			t.Fatal(err)
		}
		jobs, err := render.Stack(t.Context(), s, render.Options{})
		if err != nil {
			t.Fatal(err)
		}
		findings, err := lint.Stack(t.Context(), jobs, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range findings {
			t.Errorf("%s: %s:%d: %s (%s)", name, f.File, f.Line, f.Message, f.Rule)
		}
	}
}

// A newer line finds the data and the secrets of the older one: each volume, and each
// directory in it, has the same name; each secret stays.
func TestCatalog_UpgradeFindsTheData(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from, to string
		gone     []string // volumes of services that the newer line does not have
	}{
		{"7.1", "8.0", nil},
		{"2.0", "7.1", []string{"ocis-store"}},
	} {
		for _, layout := range []string{"distributed", "compact"} {
			t.Run(c.from+" to "+c.to+" "+layout, func(t *testing.T) {
				t.Parallel()
				values := object{"domain": "cloud.example.org", "basic_auth": true, "layout": layout}
				old, oldJobs := rendered(t, "", with(values, object{"line": c.from}))
				s, jobs := rendered(t, "", with(values, object{"line": c.to}))
				names := func(s *stack.Stack) (volumes, secrets []string) {
					for _, v := range s.Volumes {
						volumes = append(volumes, v.Name)
					}
					for _, v := range s.Secrets {
						secrets = append(secrets, v.Name)
					}
					return volumes, secrets
				}
				oldVolumes, oldSecrets := names(old)
				volumes, secrets := names(s)
				for _, v := range oldVolumes {
					if slices.Contains(volumes, v) == slices.Contains(c.gone, v) {
						t.Errorf("the volume %s: it is one of %s to be %t", v, volumes, !slices.Contains(c.gone, v))
					}
				}
				for _, v := range oldSecrets {
					if !slices.Contains(secrets, v) {
						t.Errorf("the secret %s is gone", v)
					}
				}
				where := regexp.MustCompile(`_(ROOT|DATABASE_PATH|DATA_PATH|STORE_DIR|KEY_FILES|SECRET_FILE)$`)
				found := 0
				for name, j := range oldJobs {
					if jobs[name].Job == nil {
						continue
					}
					env := jobs[name].Job.TaskGroups[0].Tasks[0].Env
					for key, path := range j.Job.TaskGroups[0].Tasks[0].Env {
						// The index of search has another format and is built again.
						if !where.MatchString(key) || key == "OCIS_BASE_DATA_PATH" || key == "SEARCH_DATA_PATH" || strings.HasPrefix(key, "STORE_") {
							continue
						}
						if found++; env[key] != path {
							t.Errorf("%s: %s is %s, and was %s", name, key, env[key], path)
						}
					}
				}
				if found < 6 {
					t.Errorf("compared %d directories", found)
				}
			})
		}
	}
}

// Each line says which data it reads: its own, and that of the line before where the
// project has an upgrade between the two.
func TestCatalog_UpgradeFrom(t *testing.T) {
	t.Parallel()
	versions := map[string]string{}
	from := map[string][]string{}
	for name, values := range map[string]map[string]any{
		"2.0": {"line": "2.0"}, "7.1": {"line": "7.1"}, "8.0": {"line": "8.0"}, "opencloud": {"line": "7.1", "flavour": "opencloud"},
	} {
		s, err := load(t, "", with(object{"domain": "cloud.example.org"}, values))
		if err != nil {
			t.Fatal(err)
		}
		versions[name], from[name] = s.AppVersion, s.UpgradeFrom
	}
	allowed := map[string]string{"2.0": "2.0", "7.1": "7.1", "8.0": "7.1 8.0", "opencloud": "opencloud"}
	for line, patterns := range from {
		var got []string
		for other, version := range versions {
			if slices.ContainsFunc(patterns, func(p string) bool { ok, _ := filepath.Match(p, version); return ok }) {
				got = append(got, other)
			}
		}
		slices.Sort(got)
		if want := allowed[line]; strings.Join(got, " ") != want {
			t.Errorf("%s replaces %s, want %s", line, got, want)
		}
	}
}
