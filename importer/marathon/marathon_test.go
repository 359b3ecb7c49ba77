package marathon_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/importertest"
	"github.com/drover-nomad/drover/importer/marathon"
)

func read(t *testing.T, text string, src importer.Source) *importer.Result {
	t.Helper()
	src.Inputs = []importer.Input{{Name: filepath.Join(t.TempDir(), "app.json"), Text: []byte(text)}}
	res, err := importer.Run(t.Context(), "marathon", marathon.Read, src)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

const shop = `{
  "id": "/shop",
  "groups": [
    {"id": "data", "apps": [{
      "id": "db", "cpus": 0.5, "mem": 256, "instances": 1,
      "container": {"type": "DOCKER", "docker": {"image": "postgres:16", "network": "BRIDGE",
        "portMappings": [{"containerPort": 5432, "hostPort": 0, "labels": {"VIP_0": "/db:15432"}}]},
        "volumes": [{"containerPath": "/var/lib/postgresql/data", "mode": "RW", "persistent": {"size": 100}}]},
      "env": {"POSTGRES_PASSWORD": "Xk29sLw7pQ"}
    }]}
  ],
  "apps": [{
    "id": "web", "cmd": "serve --port $PORT0", "instances": 3, "dependencies": ["/shop/data"],
    "container": {"type": "DOCKER", "docker": {"image": "nginx:1.25"},
      "portMappings": [{"containerPort": 80, "servicePort": 10001, "name": "http"}]},
    "networks": [{"mode": "container/bridge"}],
    "env": {"DB": "db.marathon.l4lb.thisdcos.directory:15432", "TOKEN": {"secret": "t"}},
    "secrets": {"t": {"source": "/shop/token"}},
    "healthChecks": [{"protocol": "MESOS_HTTP", "path": "/ok", "portIndex": 0, "intervalSeconds": 5, "gracePeriodSeconds": 30, "maxConsecutiveFailures": 2}],
    "upgradeStrategy": {"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0},
    "constraints": [["hostname", "UNIQUE"], ["rack", "LIKE", "r[12]"]],
    "labels": {"HAPROXY_GROUP": "external", "HAPROXY_0_VHOST": "Shop.example,www.shop.example", "HAPROXY_0_REDIRECT_TO_HTTPS": "true", "team": "web"},
    "taskKillGracePeriodSeconds": 60, "killSelection": "YOUNGEST_FIRST", "colour": "red"
  }]
}`

// TestRead_Group: what a group of apps becomes.
func TestRead_Group(t *testing.T) {
	t.Parallel()
	res := read(t, shop, importer.Source{})
	if res.Refused() {
		t.Fatal(importertest.Findings(res))
	}
	if res.Name != "shop" {
		t.Errorf("got stack %q, want shop", res.Name)
	}
	for name, want := range map[string][]string{
		"web.nomad.hcl": {
			"count = 3", "max_parallel = 2", "canary = 0", `operator = "distinct_hosts"`, `attribute = "$${meta.rack}"`, `value = "^(?:r[12])$"`,
			`port "http" {`, "to = 80", `"drover.route=shop.example/", "drover.route=www.shop.example/"`, `team = "web"`, `path = "/ok"`,
			"limit = 2", `grace = "30s"`, `entrypoint = ["/bin/sh"]`, `args = ["-c", "serve --port $PORT0"]`, `PORT0 = "$${NOMAD_PORT_http}"`, `PORT_HTTP = "$${NOMAD_PORT_http}"`,
			"TOKEN={{ .shop_token.Value | toJSON }}", `kill_timeout = "1m"`,
		},
		"data-db.nomad.hcl": {
			`source = "shop-data-db-data"`, "POSTGRES_PASSWORD={{ .postgres_password.Value | toJSON }}", "cpu = max(1, floor(0.5 * var.mhz_per_core))", "memory = 256", "canary = 0",
		},
		"stack.hcl":      {`depends_on = ["mesh", "data-db"]`, `secret "shop_token" {`, `names = ["shop.example", "www.shop.example"]`},
		"mesh.nomad.hcl": {":15432", `bind = "*:10001", service = "shop-web"`},
		"_base.nomad.hcl": {
			"db.marathon.l4lb.thisdcos.directory:198.18.", "web-shop.marathon.mesos:198.18.", "db-data-shop.marathon.mesos:198.18.",
		},
	} {
		for _, w := range want {
			if got := importertest.File(res, name); !strings.Contains(got, w) {
				t.Errorf("%s: got\n%s\nwant %s", name, got, w)
			}
		}
	}
	if got := importertest.File(res, "web.nomad.hcl"); strings.Contains(got, "drover.http=serve") {
		t.Errorf("got a route over HTTP beside the redirect to HTTPS:\n%s", got)
	}
	for _, w := range []string{
		"kill-timeout", "app.json:23: warning: apps[0].colour is not imported (not-imported)", "app.json:21: warning: the constraint reads ${meta.rack}",
	} {
		if got := importertest.Findings(res); !strings.Contains(got, w) {
			t.Errorf("got findings\n%s\nwant %s", got, w)
		}
	}
	if strings.Contains(importertest.File(res, "data-db.nomad.hcl"), "Xk29sLw7pQ") {
		t.Error("got a password in a job spec")
	}
}

// TestRead_Apps: single apps and what of them depends on the kind of the container and
// of the network.
func TestRead_Apps(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text     string
		job      []string // of app.nomad.hcl
		findings []string
	}{
		"what only Marathon-LB reads, and checks of ports that do not exist": {
			`{"id": "app", "container": {"type": "DOCKER", "docker": {"image": "x:1", "privileged": true, "network": "BRIDGE", "portMappings": [{"containerPort": 80, "servicePort": 10000}], "parameters": [{"key": "privileged", "value": "true"}]}, "linuxInfo": {"ipcInfo": {"mode": "SHARE_PARENT", "shmSize": 64}}},
			 "healthChecks": [{"protocol": "HTTP", "portIndex": 3}], "readinessChecks": [{"portName": "nosuch"}], "resourceLimits": {"cpus": 2, "mem": "unlimited"},
			 "fetch": [{"uri": "http://files.example/a.tgz", "destPath": "conf/a.tgz"}, {"uri": "http://files.example/b.tgz", "destPath": "b.tgz", "extract": false}]}`,
			[]string{"privileged = true", "shm_size = 67108864", "cpu = max(1, floor(2 * var.mhz_per_core))", "destination = \"local/conf\"\n", "destination = \"local/b.tgz\"\nmode = \"file\""},
			[]string{"left-out: a service port is for Marathon-LB", "the check of /app asks port 3 of the app, which has 1", "asks the port nosuch, which the app does not have", "namespaces of their own for IPC"},
		},
		"a command without an image": {
			`{"id": "app", "cmd": "python3 -m http.server $PORT", "ports": [0], "mem": 32, "fetch": [{"uri": "http://files.example/a.tgz"}]}`,
			[]string{`driver = "exec"`, `command = "/bin/sh"`, `args = ["-c", "cd \"$NOMAD_TASK_DIR\" || exit 1\npython3 -m http.server $PORT"]`, `port "port0" {`, `mode = "host"`, `source = "http://files.example/a.tgz"`, `destination = "local"`, `health_check = "task_states"`},
			[]string{"(exec-driver)"},
		},
		"a required port of the node": {
			`{"id": "app", "container": {"type": "DOCKER", "docker": {"image": "redis:7", "network": "HOST"}}, "requirePorts": true, "portDefinitions": [{"port": 6379, "name": "redis"}]}`,
			[]string{`network_mode = "host"`, "static = 6379", "canary = 0"},
			nil,
		},
		"the container has the port that the node gives": {
			`{"id": "app", "container": {"type": "DOCKER", "docker": {"image": "redis:7", "network": "BRIDGE", "portMappings": [{"containerPort": 0}]}}}`,
			[]string{`port "port0" {}`, `PORT = "$${NOMAD_PORT_port0}"`},
			nil,
		},
		"flags of docker run": {
			`{"id": "app", "container": {"type": "DOCKER", "docker": {"image": "a:1", "parameters": [{"key": "shm-size", "value": "64m"}, {"key": "cap-add", "value": "NET_ADMIN"}, {"key": "env", "value": "API_TOKEN=Xk29sLw7pQ"}, {"key": "ulimit", "value": "nofile=1024:2048"}]}}}`,
			[]string{"shm_size = 67108864", `cap_add = ["NET_ADMIN"]`, "API_TOKEN={{ .api_token.Value | toJSON }}", `ulimit = { "nofile" = "1024:2048" }`},
			[]string{"(needs-client)"},
		},
		"an unknown flag of docker run": {
			`{"id": "app", "container": {"type": "DOCKER", "docker": {"image": "a:1", "parameters": [{"key": "blkio-weight", "value": "3"}]}}}`,
			nil,
			[]string{"app.json:1: refusal: the flag --blkio-weight of docker run is not known to the importer (unsupported)"},
		},
		"a persistent volume that Docker mounts from the sandbox": {
			`{"id": "app", "container": {"type": "DOCKER", "docker": {"image": "postgres:15"}, "volumes": [{"containerPath": "/var/lib/postgresql/data", "hostPath": "pgdata", "mode": "RW"}, {"containerPath": "pgdata", "mode": "RW", "persistent": {"size": 1}}]}}`,
			[]string{"volume_mount {\nvolume = \"pgdata\"\ndestination = \"/var/lib/postgresql/data\"\n}"},
			nil,
		},
		"a directory of a persistent volume": {
			`{"id": "app", "container": {"type": "DOCKER", "docker": {"image": "a:1"}, "volumes": [{"containerPath": "data", "persistent": {"size": 1}}, {"containerPath": "/db", "hostPath": "data/db"}]}}`,
			nil,
			[]string{"app.json:1: refusal: data/db is a directory of the persistent volume data of /app, and Nomad mounts a volume as a whole (mount-kind)"},
		},
		"persistent volumes of several instances": {
			`{"id": "app", "instances": 2, "container": {"docker": {"image": "a:1"}, "volumes": [{"containerPath": "data", "persistent": {"size": 1}}]}}`,
			nil,
			[]string{"refusal: each of the 2 instances of /app has a persistent volume of its own (volume-shared)"},
		},
		"an image that is a placeholder": {
			`{"id": "app", "container": {"docker": {"image": "<image>"}}}`, nil, []string{"(needs-image); Say --image app=REF."},
		},
		"neither an image nor a command": {`{"id": "app", "mem": 1}`, nil, []string{"(invalid); Add cmd or container.docker.image."}},
		"a cycle of dependencies is cut": {
			`[{"id": "/s/app", "cmd": "a", "dependencies": ["/s/b"]}, {"id": "/s/b", "cmd": "b", "dependencies": ["/s/app"]}]`,
			[]string{`driver = "exec"`}, nil,
		},
		"text that is no JSON": {"{\n\"id\": [MESOS | DOCKER]}", nil, []string{"app.json:2: refusal: the text is not JSON"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			res := read(t, c.text, importer.Source{})
			if refused := c.job == nil; res.Refused() != refused {
				t.Fatalf("got refused %t, want %t:\n%s", res.Refused(), refused, importertest.Findings(res))
			}
			got := importertest.File(res, "app.nomad.hcl")
			for _, w := range c.job {
				if !strings.Contains(got, w) {
					t.Errorf("got\n%s\nwant %s", got, w)
				}
			}
			for _, w := range c.findings {
				if got := importertest.Findings(res); !strings.Contains(got, w) {
					t.Errorf("got findings\n%s\nwant %s", got, w)
				}
			}
			for _, f := range res.Files {
				if f.Path != "secrets.yaml" && strings.Contains(string(f.Text), "Xk29sLw7pQ") {
					t.Errorf("got a secret in %s", f.Path)
				}
			}
		})
	}
}

// TestRead_Pod: a pod is a group with one task for each container.
func TestRead_Pod(t *testing.T) {
	t.Parallel()
	res := read(t, `{
  "id": "/pod", "scaling": {"kind": "fixed", "instances": 2},
  "networks": [{"mode": "container", "name": "dcos"}],
  "environment": {"A": "1"}, "secrets": {"k": {"source": "key"}},
  "volumes": [{"name": "share"}, {"name": "key", "secret": "k"}],
  "containers": [
    {"name": "one", "image": {"kind": "DOCKER", "id": "a:1"}, "resources": {"cpus": 0.1, "mem": 32},
     "endpoints": [{"name": "web", "containerPort": 8080, "hostPort": 0, "protocol": ["tcp"]}],
     "healthCheck": {"http": {"endpoint": "web", "path": "/live"}, "gracePeriodSeconds": 10},
     "volumeMounts": [{"name": "share", "mountPath": "/share"}, {"name": "key", "mountPath": "/etc/key"}]},
    {"name": "two", "image": {"kind": "DOCKER", "id": "b:1"}, "exec": {"command": {"shell": "sleep 1"}},
     "volumeMounts": [{"name": "share", "mountPath": "data", "readOnly": true}]}
  ]}`, importer.Source{})
	if res.Refused() {
		t.Fatal(importertest.Findings(res))
	}
	got := importertest.File(res, "pod.nomad.hcl")
	for _, w := range []string{
		"count = 2", `task "one" {`, `task "two" {`, `port "web" {`, "to = 8080", `path = "/live"`, `"../alloc/data/share:/share"`,
		`"../alloc/data/share:/mnt/mesos/sandbox/data:ro"`, `"secrets/etc/key:/etc/key:ro"`, `A = "1"`,
	} {
		if !strings.Contains(got, w) {
			t.Errorf("got\n%s\nwant %s", got, w)
		}
	}
	if want := "(network-address)"; !strings.Contains(importertest.Findings(res), want) {
		t.Errorf("got findings\n%s\nwant %s", importertest.Findings(res), want)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(shop))
	f.Add([]byte(`{"id":"a","cmd":"b","container":{"volumes":[{"containerPath":"..","hostPath":"../../etc"}]}}`))
	f.Add([]byte(`[{"id":"/","containers":[{}]}]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		src := importer.Source{Inputs: []importer.Input{{Name: "app.json", Text: text}}}
		l := importer.NewLedger(nil)
		if _, err := marathon.Read(t.Context(), src, l); err != nil {
			return
		}
		l.Finish()
		if c := l.Counts(); c.Values != c.Mapped+c.LeftOut+c.Reported {
			t.Errorf("got %+v, want every value in one count", c)
		}
	})
}

// TestRead_Restricted: what Marathon-LB lets only some clients do, the edge lets only
// them do, and no port of a node goes around it.
func TestRead_Restricted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, label, value, want string }{
		{"users", "HAPROXY_0_AUTH", "realm:user:hash", "drover.auth=shop-web"},
		{"addresses", "HAPROXY_0_HTTP_BACKEND_NETWORK_ALLOWED_ACL", "10.0.0.0/8 192.0.2.1", "drover.allow=10.0.0.0/8,192.0.2.1"},
		{"a prefix of the path", "HAPROXY_0_HTTP_BACKEND_PROXYPASS_PATH", "/app", "drover.strip=/app"},
		{"a template", "HAPROXY_0_BACKEND_HEAD", "http-request deny unless { src 10.0.0.1 }", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text := strings.Replace(shop, `"team": "web"`, `"`+c.label+`": "`+c.value+`"`, 1)
			res := read(t, text, importer.Source{})
			if c.want == "" {
				if !res.Refused() || !strings.Contains(importertest.Findings(res), c.label+" may restrict the requests (route)") {
					t.Errorf("got no refusal:\n%s", importertest.Findings(res))
				}
				res = read(t, text, importer.Source{Allow: []string{"route"}})
				if got := importertest.File(res, "web.nomad.hcl"); res.Refused() || strings.Contains(got, "drover.") {
					t.Errorf("allowed, got a refusal or a route:\n%s%s", importertest.Findings(res), got)
				}
			} else if got := importertest.File(res, "web.nomad.hcl"); !strings.Contains(got, c.want) {
				t.Errorf("got\n%s\nwant %s\n%s", got, c.want, importertest.Findings(res))
			}
			if open := strings.Contains(importertest.File(res, "mesh.nomad.hcl"), "*:10001"); open != (c.name == "a prefix of the path") {
				t.Errorf("got a port of every node: %v", open)
			}
		})
	}
}
