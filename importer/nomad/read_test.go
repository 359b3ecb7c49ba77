package nomad_test

import (
	"strings"
	"testing"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/importertest"
	"github.com/drover-nomad/drover/importer/nomad"
)

func read(t *testing.T, inputs ...importer.Input) *importer.Result {
	t.Helper()
	res, err := importer.Run(t.Context(), "nomad", nomad.Read, importer.Source{Inputs: inputs})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// file returns a file of the stack as it is written.
func file(res *importer.Result, name string) string {
	for _, f := range res.Files {
		if f.Path == name {
			return string(f.Text)
		}
	}
	return ""
}

// apiJob is a job as 'nomad job run -output' of 0.8 prints it.
const apiJob = `{
  "Job": {
    "Region": null, "Namespace": null, "ID": "shop-web", "ParentID": null, "Name": "shop-web", "Type": "service", "Priority": 50,
    "AllAtOnce": null, "Datacenters": ["dc1"],
    "Constraints": [{"LTarget": "$attr.kernel.name", "RTarget": "linux", "Operand": "="}],
    "TaskGroups": [{
      "Name": "web", "Count": 2, "Constraints": null,
      "RestartPolicy": {"Interval": 300000000000, "Attempts": 10, "Delay": 25000000000, "Mode": "delay"},
      "EphemeralDisk": {"Sticky": null, "Migrate": null, "SizeMB": 300},
      "Tasks": [{
        "Name": "web", "Driver": "docker", "User": "", "Leader": false,
        "Config": {"image": "nginx:1.25", "port_map": [{"http": 80}], "labels": [{"a.b": "c"}], "args": ["-g", "100%{x}"]},
        "Env": {"ADDR": "${NOMAD_ADDR_http}", "a.b": "c"},
        "Services": [{"Id": "", "Name": "web", "Tags": ["public"], "PortLabel": "http",
          "Checks": [{"Id": "", "Name": "alive", "Type": "tcp", "Interval": 10000000000, "Timeout": 2000000000, "Path": "", "Header": null}]}],
        "Resources": {"CPU": 500, "MemoryMB": 256, "DiskMB": null, "IOPS": null,
          "Networks": [{"Device": "", "CIDR": "", "IP": "", "MBits": 10, "ReservedPorts": null, "DynamicPorts": [{"Label": "http", "Value": 0}]}]},
        "Templates": [{"SourcePath": null, "DestPath": "local/x", "EmbeddedTmpl": "{{ key \"a\" }}\nb ${c}\n", "ChangeMode": "noop", "Splay": 5000000000, "VaultGrace": 15000000000}],
        "KillTimeout": 5000000000, "LogConfig": {"MaxFiles": 3, "MaxFileSizeMB": 10}, "Colour": "red"
      }]
    }],
    "Update": {"Stagger": 30000000000, "MaxParallel": 1},
    "Periodic": null, "Status": null, "CreateIndex": null, "ModifyIndex": 12
  }
}`

// TestRead_JSON: a job of the API becomes a job file, by the same rules.
func TestRead_JSON(t *testing.T) {
	t.Parallel()
	res := read(t, importer.Input{Name: "web.json", Text: []byte(apiJob)})
	if res.Refused() {
		t.Fatal(importertest.Findings(res))
	}
	got := file(res, "shop-web.nomad.hcl")
	for _, w := range []string{
		`job "shop-web" {`, `attribute = "${attr.kernel.name}"`, "interval = \"5m0s\"", "to = 80", `ports  = ["http"]`, `labels = [{ "a.b" = "c" }]`,
		`ADDR  = "${NOMAD_ADDR_http}"`, `"a.b" = "c"`, `interval = "10s"`, "min_healthy_time = \"30s\"", `"100%%{x}"`, "<<EOT\n{{ key \"a\" }}\nb $${c}\nEOT",
	} {
		if !strings.Contains(got, w) {
			t.Errorf("got\n%s\nwant %s", got, w)
		}
	}
	for _, w := range []string{"mbits", "port_map", "vault_grace", "operator", "static"} {
		if strings.Contains(got, w) {
			t.Errorf("got %s in\n%s", w, got)
		}
	}
	if want := "web.json:19: warning: Job.TaskGroups[0].Tasks[0].Colour is not imported"; !strings.Contains(importertest.Findings(res), want) {
		t.Errorf("got\n%s\nwant %s", importertest.Findings(res), want)
	}
}

// TestRead_Jobs: several job files are one stack, and each keeps its job ID and its
// comments.
func TestRead_Jobs(t *testing.T) {
	t.Parallel()
	res := read(t,
		importer.Input{Name: "web.nomad", Text: []byte("# the web\njob \"shop-web\" {\n  group \"g\" {\n    task \"t\" {\n      driver = \"docker\"\n      config { image = \"nginx:1\" }\n    }\n  }\n}\n")},
		importer.Input{Name: "db.nomad", Text: []byte("job \"shop_db\" {\n  task \"t\" {\n    driver = \"exec\"\n    config { command = \"db\" args = \"-v\" }\n  }\n}\n")})
	if res.Refused() {
		t.Fatal(importertest.Findings(res))
	}
	if res.Name != "shop" || len(res.Jobs) != 2 {
		t.Errorf("got the stack %q with %d jobs, want shop with 2", res.Name, len(res.Jobs))
	}
	for name, w := range map[string]string{
		"shop-web.nomad.hcl": "# the web\njob \"shop-web\" {", "shop-db.nomad.hcl": "job \"shop_db\" {\n  group \"t\" {", "stack.hcl": "service \"shop-db\"",
		"IMPORT.md": "The job files are those of the input, upgraded.",
	} {
		if got := file(res, name); !strings.Contains(got, w) {
			t.Errorf("%s: got\n%s\nwant %s", name, got, w)
		}
	}
	if got := file(res, "_base.nomad.hcl"); got != "" {
		t.Errorf("got a base that no job has:\n%s", got)
	}
}

// TestRead_ServiceName: a service without a name has the one that Nomad gives it, or a
// valid one like it.
func TestRead_ServiceName(t *testing.T) {
	t.Parallel()
	job := func(id string) string {
		return "job \"" + id + "\" {\n  group \"g\" {\n    task \"t\" {\n      driver = \"exec\"\n      service { port = \"http\" }\n    }\n  }\n}\n"
	}
	res := read(t, importer.Input{Name: "x.nomad", Text: []byte(job("web"))})
	if got := file(res, "web.nomad.hcl"); res.Refused() || strings.Contains(got, "name") || !strings.Contains(got, "port \"http\" {}") {
		t.Errorf("got %s\n%s\nwant no name, and the port that the service names", importertest.Findings(res), got)
	}
	res = read(t, importer.Input{Name: "x.nomad", Text: []byte(job("my_web"))})
	if got := file(res, "my-web.nomad.hcl"); !strings.Contains(got, `name = "my-web-g-t"`) || !strings.Contains(importertest.Findings(res), "x.nomad:5: warning: Nomad refuses the name of the service") {
		t.Errorf("got %s\n%s\nwant a valid name", importertest.Findings(res), got)
	}
}

// TestRead_Secrets: a value of env whose name looks like a secret becomes one of the
// stack, also in the text of templates; the clients have the credentials of registries.
func TestRead_Secrets(t *testing.T) {
	t.Parallel()
	const password = "kV7-tulip-42"
	res := read(t, importer.Input{Name: "shop.nomad", Text: []byte(`job "shop" {
  group "db" {
    task "db" {
      driver = "docker"
      config {
        image = "example.org/db:1"
        auth {
          username = "x"
          password = "` + password + `-registry"
        }
      }
      env {
        DB_PASSWORD = "` + password + `"
        COLOUR = "red"
      }
    }
    task "only" {
      driver = "docker"
      config { image = "example.org/db:1" }
      env { DB_PASSWORD = "` + password + `" }
      template {
        destination = "local/a"
        data = "pw = \"` + password + `\"\n"
      }
      template {
        destination = "local/b"
        left_delimiter = "[["
        right_delimiter = "]]"
        data = <<EOF
[[ key "a" ]] ` + password + ` ` + password + `
EOF
      }
    }
  }
}
`)})
	if res.Refused() {
		t.Fatal(importertest.Findings(res))
	}
	got := file(res, "shop.nomad.hcl")
	for _, w := range []string{
		"COLOUR = \"red\"", "DB_PASSWORD={{ .db_password.Value | toJSON }}", `destination = "secrets/drover.env"`,
		`"pw = \"{{ with nomadVar (printf \"nomad/jobs/%s\" (env \"NOMAD_JOB_ID\")) }}{{ .db_password.Value }}{{ end }}\"\n"`,
		`[[ key "a" ]] [[ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) ]][[ .db_password.Value ]][[ end ]] [[ with`,
	} {
		if !strings.Contains(got, w) {
			t.Errorf("got\n%s\nwant %s", got, w)
		}
	}
	if strings.Contains(got, password) || strings.Contains(got, "auth {") || strings.Contains(got, "env {}") {
		t.Errorf("got a password, or an empty env, in\n%s", got)
	}
	if got := file(res, "stack.hcl"); !strings.Contains(got, `secrets = ["db_password"]`) || strings.Count(got, `secret "`) != 1 {
		t.Errorf("got\n%s\nwant one secret, which the service reads", got)
	}
	if got := file(res, "secrets.yaml"); !strings.Contains(got, "db_password: "+password) {
		t.Errorf("got\n%s\nwant the password", got)
	}
	if want := "shop.nomad:7: warning: the password of the registry would be in the job"; !strings.Contains(importertest.Findings(res), want) {
		t.Errorf("got\n%s\nwant %s", importertest.Findings(res), want)
	}
}

// TestRead_SecretInAnAction: a value within an action of a template stays, with a warning.
// TestRead_SecretsOfARun: a run of a periodic or parameterized job reads the variable of
// its parent.
func TestRead_SecretsOfARun(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{`periodic { cron = "@daily" }`, `parameterized {}`} {
		res := read(t, importer.Input{Name: "night.nomad", Text: []byte(`
job "night" {
  type = "batch"
  ` + kind + `
  group "g" {
    task "t" {
      driver = "docker"
      config { image = "example.org/night:1" }
      env { DB_PASSWORD = "correct-horse-battery" }
      template {
        destination = "local/a"
        data = "pw = correct-horse-battery"
      }
    }
  }
}
`)})
		got := strings.ReplaceAll(file(res, "night.nomad.hcl"), `\"`, `"`)
		if res.Refused() || strings.Count(got, `(env "NOMAD_JOB_PARENT_ID")`) != 2 || strings.Contains(got, `"NOMAD_JOB_ID"`) {
			t.Errorf("%s: got\n%s\n%s\nwant two templates that read the variable of the parent", kind, got, importertest.Findings(res))
		}
	}
}

func TestRead_SecretInAnAction(t *testing.T) {
	t.Parallel()
	res := read(t, importer.Input{Name: "a.nomad", Text: []byte("job \"a\" {\n group \"g\" {\n  task \"t\" {\n   driver = \"exec\"\n   config { command = \"a\" }\n   env { API_TOKEN = \"Xk29sLw7pQ\" }\n   template {\n    destination = \"local/a\"\n    data = <<EOF\n{{ if eq \"Xk29sLw7pQ\" (key \"a\") }}x{{ end }}\nEOF\n   }\n  }\n }\n}\n")})
	if want := "a.nomad:9: warning: an action of the template has the value of the secret api_token"; !strings.Contains(importertest.Findings(res), want) {
		t.Errorf("got\n%s\nwant %s", importertest.Findings(res), want)
	}
}

// TestRead_Fabio: the tags of fabio get routes of the edge beside them.
func TestRead_Fabio(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tags, want string
		findings   string
		stack      string
	}{
		"a host":         {`["urlprefix-Shop.example/"]`, `"drover.route=shop.example/"`, "fabio's tags do not say which hosts have TLS", `names = ["shop.example"]`},
		"a path":         {`["a", "urlprefix-shop.example:443/api strip=/api",]`, `"drover.route=shop.example/api", "drover.strip=/api", ]`, "", `names = ["shop.example"]`},
		"several lines":  {"[\n\"urlprefix-shop.example/\", # one\n\"urlprefix-www.shop.example/\" # two\n]", `"drover.route=shop.example/", "drover.route=www.shop.example/"`, "", `names = ["shop.example", "www.shop.example"]`},
		"no host":        {`["urlprefix-/api"]`, `"drover.route=${var.domain}/api"`, "the route of \"urlprefix-/api\" is for all hosts", `names = [var.domain]`},
		"TLS inside":     {`["urlprefix-shop.example/ proto=https tlsskipverify=true"]`, `"drover.protocol=https", "drover.ca=none"`, "the edge does not verify the certificate", ""},
		"a redirect":     {`["urlprefix-www.shop.example/ redirect=301,https://shop.example/"]`, `"drover.redirect=www.shop.example/ 301 https://shop.example/"`, "", `names = ["www.shop.example"]`},
		"TCP":            {`["urlprefix-:5432 proto=tcp"]`, `"drover.tcp=5432"`, "Add 5432 to tcp_ports of the edge", ""},
		"a wildcard":     {`["urlprefix-*.shop.example/"]`, `"drover.route=*.shop.example/"`, "a certificate for *.shop.example needs the challenge dns-01", `names = ["*.shop.example"]`},
		"a pattern":      {`["urlprefix-a*.shop.example/"]`, "", `the edge has no route for host "a*.shop.example"`, ""},
		"another option": {`["urlprefix-shop.example/ weight=0.2"]`, `"drover.route=shop.example/"`, `the option weight of "urlprefix-shop.example/ weight=0.2" is not mapped`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			res := read(t, importer.Input{Name: "a.nomad", Text: []byte("job \"a\" {\n group \"g\" {\n  network {\n   port \"http\" {}\n  }\n  task \"t\" {\n   driver = \"exec\"\n   config { command = \"a\" }\n   service {\n    port = \"http\"\n    tags = " + c.tags + "\n   }\n  }\n }\n}\n")})
			if res.Refused() {
				t.Fatal(importertest.Findings(res))
			}
			got := file(res, "a.nomad.hcl")
			if !strings.Contains(got, c.want) || !strings.Contains(got, `"urlprefix-`) || c.want == "" && strings.Contains(got, "drover.") {
				t.Errorf("got\n%s\nwant %s beside the tag of fabio", got, c.want)
			}
			if !strings.Contains(importertest.Findings(res), c.findings) {
				t.Errorf("got\n%s\nwant %s", importertest.Findings(res), c.findings)
			}
			if got := file(res, "stack.hcl"); !strings.Contains(got, c.stack) || c.stack == "" && c.want == "" && strings.Contains(got, "certificate") {
				t.Errorf("got\n%s\nwant %s", got, c.stack)
			}
		})
	}
}

// TestRead_JSONFile: a job file in the JSON of HCL1 is the job file in HCL.
func TestRead_JSONFile(t *testing.T) {
	t.Parallel()
	const want = `job "web" {
  datacenters = ["dc1"]

  group "g" {
    count = 2

    network {
      port "http" {
        to = 80
      }
    }

    task "t" {
      driver = "docker"

      config {
        image = "nginx:1.25"
        args  = ["-g", "100%%{x}", "${NOMAD_PORT_http}"]
        ports = ["http"]
      }

      env = {
        A     = "b"
        "a.b" = "c"
      }

      service {
        name = "web"
        port = "http"

        check {
          type     = "tcp"
          interval = "10s"
          timeout  = "2s"
        }
      }

      resources {
        cpu = 100
      }
    }
  }
}
`
	for name, text := range map[string]string{
		"objects": `{"job": {"web": {"datacenters": ["dc1"], "group": {"g": {"count": 2, "task": {"t": {"driver": "docker",
			"config": {"image": "nginx:1.25", "args": ["-g", "100%{x}", "${NOMAD_PORT_http}"], "port_map": [{"http": 80}]}, "env": {"A": "b", "a.b": "c"},
			"service": {"name": "web", "port": "http", "check": {"type": "tcp", "interval": "10s", "timeout": "2s"}},
			"resources": {"cpu": 100, "network": {"mbits": 10, "port": {"http": {}}}}}}}}}}}`,
		"lists of objects": `{"job": [{"web": [{"datacenters": ["dc1"], "group": [{"g": [{"count": 2, "task": [{"t": [{"driver": "docker",
			"config": [{"image": "nginx:1.25", "args": ["-g", "100%{x}", "${NOMAD_PORT_http}"], "port_map": [{"http": 80}]}], "env": [{"A": "b"}, {"a.b": "c"}],
			"service": [{"name": "web", "port": "http", "check": [{"type": "tcp", "interval": "10s", "timeout": "2s"}]}],
			"resources": [{"cpu": 100, "network": [{"mbits": 10, "port": [{"http": [{}]}]}]}]}]}]}]}]}]}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			res := read(t, importer.Input{Name: "web.json", Text: []byte(text)})
			if got := file(res, "web.nomad.hcl"); got != want {
				t.Errorf("got\n%s\n%s\nwant\n%s", importertest.Findings(res), got, want)
			}
			if c := res.Counts; c.Values == 0 || c.Mapped != c.Values {
				t.Errorf("got %+v, want every value mapped", c)
			}
		})
	}
}

// TestRead_SeveralJobs: each job of a JSON text is a service, in a row and in a list.
func TestRead_SeveralJobs(t *testing.T) {
	t.Parallel()
	job := func(id, kind string) string {
		return `{"ID": "` + id + `", "Type": "` + kind + `", "TaskGroups": [{"Name": "g", "Tasks": [{"Name": "t", "Driver": "exec", "Config": {"command": "a"}}]}]}`
	}
	for name, text := range map[string]string{
		"in a row":  `{"Job": ` + job("shop-db", "service") + "}\n" + job("shop-once", "batch"),
		"in a list": `[` + job("shop-db", "service") + `, {"Job": ` + job("shop-once", "batch") + `}]`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			res := read(t, importer.Input{Name: "jobs.json", Text: []byte(text)})
			for id, want := range map[string]string{"shop-db": `job "shop-db" {`, "shop-once": `job "shop-once" {`} {
				if got := file(res, id+".nomad.hcl"); !strings.Contains(got, want) {
					t.Errorf("got\n%s\n%s\nwant %s", importertest.Findings(res), got, want)
				}
			}
		})
	}
}

// TestRead_Refuses: a refusal of a job has its line and a remedy.
func TestRead_Refuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ in, want string }{
		"a large file":          {"job \"a\" {\n" + strings.Repeat("# more\n", 200_000) + "}\n", "x.nomad:1: refusal: the job file has 1367 KiB, and Nomad takes 1024"},
		"no job":                {"variable \"a\" {}\n", "x.nomad:1: refusal: the file has no job"},
		"no image":              {"job \"a\" {\n group \"g\" {\n  task \"t\" {\n   driver = \"docker\"\n   config {\n   }\n  }\n }\n}\n", "x.nomad:5: refusal: the docker task t has no image"},
		"JSON of another kind":  {"{\n \"jobs\": {\"a\": {}}}", "x.nomad:1: refusal: the JSON is no job of Nomad's API"},
		"JSON without a name":   {"{\n \"job\": {\"type\": \"batch\"}}", "x.nomad:1: refusal: the JSON is no job file: its job has no name"},
		"two jobs in JSON":      {"{\"job\": {\"a\": {\"type\": \"batch\"},\n \"b\": {\"type\": \"batch\"}}}", "refusal: the file has two jobs"},
		"JSON without an end":   {"{\n \"Job\": {", "x.nomad:2: refusal"},
		"a mistake in its JSON": {`{"ID": "a", "TaskGroups": [{"Name": "g", "Tasks": [{"Name": "t", "Driver": "rkt"}]}]}`, "x.nomad:1: refusal: Nomad has no driver rkt"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := importertest.Findings(read(t, importer.Input{Name: "x.nomad", Text: []byte(c.in)})); !strings.Contains(got, c.want) {
				t.Errorf("got\n%s\nwant %s", got, c.want)
			}
		})
	}
}

// FuzzRead: no input makes a panic, and every value of JSON is in one count.
func FuzzRead(f *testing.F) {
	f.Add([]byte(apiJob))
	f.Add([]byte(`{"ID":"a","TaskGroups":[{"Tasks":[{"Resources":{"Networks":[{"DynamicPorts":["http"],"ReservedPorts":[22]}]}}]}]}`))
	f.Add([]byte("job \"a\" {}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		l := importer.NewLedger(nil)
		if _, err := nomad.Read(t.Context(), importer.Source{Inputs: []importer.Input{{Name: "x", Text: text}}}, l); err != nil {
			return
		}
		l.Finish()
		if c := l.Counts(); c.Values != c.Mapped+c.LeftOut+c.Reported {
			t.Errorf("got %+v, want every value in one count", c)
		}
	})
}
