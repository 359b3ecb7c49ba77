package importer

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// app is a model of two services in one scope: web with an environment, and db.
func app(image string, env map[string]string) *Model {
	web := &Task{Name: "web", At: Position{File: "in", Line: 3}}
	for k, v := range env {
		web.Env = append(web.Env, EnvVar{k, Lit(v)})
	}
	return &Model{Name: "shop", Services: []*Service{
		{Name: "web", Scopes: []string{"default"}, Hosts: []Host{{Name: "web"}}, Tasks: []*Task{web}},
		{Name: "db", Scopes: []string{"default"}, Hosts: []Host{{Name: "db"}, {Name: "Data"}}, Tasks: []*Task{{Name: "db", Image: Lit(image), ImageRef: image}}},
	}}
}

func TestInferPorts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		image string
		env   map[string]string
		given map[string][]int
		want  string // the ports of db, or the rule of the refusal
	}{
		{"name and port", "app", map[string]string{"X": "db:7000"}, nil, "7000"},
		{"another of its names, in any case", "app", map[string]string{"X": "data:7000"}, nil, "7000"},
		{"URL with a port", "app", map[string]string{"X": "tcp://user:pw@db:7000/x"}, nil, "7000"},
		{"scheme", "app", map[string]string{"X": "jdbc:postgresql://db/x"}, nil, "5432"},
		{"port in a variable beside", "app", map[string]string{"DB_HOST": "db", "DB_PORT": "7000"}, nil, "7000"},
		{"list of hosts", "app", map[string]string{"HOSTS": "db:7000,db:7001"}, nil, "7000 7001"},
		{"known image", "postgres:16", map[string]string{"DB_HOST": "db"}, nil, "5432"},
		{"known image in a registry", "registry.example.org:5000/library/redis@sha256:0", nil, nil, "6379"},
		{"given", "app", map[string]string{"DB_HOST": "db"}, map[string][]int{"db": {7000}}, "7000"},
		{"a tag is no port", "redis", map[string]string{"X": "db:7"}, nil, "6379"},
		{"named and unknown", "app", map[string]string{"DB_HOST": "db"}, nil, "unknown-port"},
		{"a word is no name", "app", map[string]string{"X": "use the db now"}, nil, ""},
		{"part of a longer name", "app", map[string]string{"X": "http://db.example.org:7000"}, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := app(c.image, c.env)
			l := NewLedger(nil)
			inferPorts(m, Source{Ports: c.given}, l)
			var got []string
			for _, p := range m.Services[1].Ports {
				got = append(got, fmt.Sprint(p.Number))
			}
			for _, f := range l.Findings() {
				if f.Severity == Refusal {
					got = append(got, f.Rule)
				}
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// A service without a port has those of another one that runs the same program, and no
// check: it may have another purpose.
func TestInferPorts_SameProgram(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		args []Text
		want string
	}{
		{"the same command", nil, "8080"},
		{"another command", []Text{Lit("worker")}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := app("shop/app", nil)
			web, db := m.Services[0], m.Services[1]
			web.Tasks[0].ImageRef, web.Ports, db.Tasks[0].Args = "shop/app", []Port{{Number: 8080}}, c.args
			complete(m, Source{Inputs: []Input{{Name: "x"}}}, NewLedger(nil))
			var got []string
			for _, p := range db.Ports {
				got = append(got, fmt.Sprint(p.Number))
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got ports %q, want %q", got, c.want)
			}
			if spec := string(write(m).out["db.nomad.hcl"].Text); strings.Contains(spec, "check {") || !strings.Contains(spec, `health_check = "task_states"`) {
				t.Errorf("got\n%s\nwant no check", spec)
			}
		})
	}
}

// TestInferPorts_Unnamed: a service without a known port has no name, which is a warning
// although the input names it nowhere: its name may be in the program of an image.
func TestInferPorts_Unnamed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, kind, scope, want string }{
		{"a service that others may reach", KindService, "default", "unknown-port"},
		{"a batch job", KindBatch, "default", ""},
		{"a service that shares no network", KindService, "alone", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := app("app", nil)
			m.Services[0].Ports = []Port{{Number: 80}}
			m.Services[1].Kind, m.Services[1].Scopes = c.kind, []string{c.scope}
			l := NewLedger(nil)
			inferPorts(m, Source{}, l)
			got := ""
			for _, f := range l.Findings() {
				got += f.Rule
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestPlan_Names(t *testing.T) {
	t.Parallel()
	m := app("postgres", nil)
	m.Services = append(m.Services, &Service{Name: "alone", Scopes: []string{"other"}, Hosts: []Host{{Name: "alone"}}, Ports: []Port{{Number: 80}}, Tasks: []*Task{{}}})
	inferPorts(m, Source{}, NewLedger(nil))
	n := plan(m)
	if n.addresses["db"] == "" || n.addresses["alone"] != "" {
		t.Errorf("got %v, want an address for db only: no service shares a network with alone", n.addresses)
	}
	if got := n.hosts["web"]; len(got) != 2 || !slices.Contains(got, "db:"+n.addresses["db"]) {
		t.Errorf("got %v for web, want both names of db", got)
	}
	if got := n.hosts["alone"]; len(got) != 0 {
		t.Errorf("got %v for alone, want nothing", got)
	}
	if second := plan(m); second.addresses["db"] != n.addresses["db"] {
		t.Errorf("got %s, then %s: an address must not change", n.addresses["db"], second.addresses["db"])
	}
}

func TestAddress_Collisions(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	for i := range 1000 {
		a := virtualAddress(fmt.Sprint(i), used)
		if !strings.HasPrefix(a, "198.18.") || strings.HasSuffix(a, ".0") || strings.HasSuffix(a, ".255") {
			t.Errorf("got %s", a)
		}
	}
	if len(used) != 1000 {
		t.Errorf("got %d addresses for 1000 services", len(used))
	}
}
