package nomad_test

import (
	"strings"
	"testing"

	"github.com/drover-nomad/drover/importer"
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

func file(res *importer.Result, name string) string {
	for _, f := range res.Files {
		if f.Path == name {
			return string(f.Text)
		}
	}
	return ""
}

func findings(res *importer.Result) string {
	var all []string
	for _, f := range res.Findings {
		all = append(all, f.String())
	}
	return strings.Join(all, "\n")
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
		t.Fatal(findings(res))
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
	if want := "web.json:19: warning: Job.TaskGroups[0].Tasks[0].Colour is not imported"; !strings.Contains(findings(res), want) {
		t.Errorf("got\n%s\nwant %s", findings(res), want)
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
		t.Fatal(findings(res))
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
		t.Errorf("got %s\n%s\nwant no name, and the port that the service names", findings(res), got)
	}
	res = read(t, importer.Input{Name: "x.nomad", Text: []byte(job("my_web"))})
	if got := file(res, "my-web.nomad.hcl"); !strings.Contains(got, `name = "my-web-g-t"`) || !strings.Contains(findings(res), "x.nomad:5: warning: Nomad refuses the name of the service") {
		t.Errorf("got %s\n%s\nwant a valid name", findings(res), got)
	}
}

// TestRead_Refuses: a refusal of a job has its line and a remedy.
func TestRead_Refuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ in, want string }{
		"no job":                {"variable \"a\" {}\n", "x.nomad:1: refusal: the file has no job"},
		"no image":              {"job \"a\" {\n group \"g\" {\n  task \"t\" {\n   driver = \"docker\"\n   config {\n   }\n  }\n }\n}\n", "x.nomad:5: refusal: the docker task t has no image"},
		"JSON of a job file":    {"{\n \"job\": {\"a\": {}}}", "x.nomad:1: refusal: the JSON is no job of Nomad's API"},
		"JSON without an end":   {"{\n \"Job\": {", "x.nomad:2: refusal"},
		"a mistake in its JSON": {`{"ID": "a", "TaskGroups": [{"Name": "g", "Tasks": [{"Name": "t", "Driver": "rkt"}]}]}`, "x.nomad:1: refusal: Nomad has no driver rkt"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := findings(read(t, importer.Input{Name: "x.nomad", Text: []byte(c.in)})); !strings.Contains(got, c.want) {
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
