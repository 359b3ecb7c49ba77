package importer

import (
	"strings"
	"testing"
)

// TestGiveRoutes: --route gives a service a route and the host a certificate.
func TestGiveRoutes(t *testing.T) {
	t.Parallel()
	model := func() *Model {
		task := func() []*Task { return []*Task{{Name: "a", Image: Lit("a:1"), ImageRef: "a:1"}} }
		return &Model{Name: "s", Services: []*Service{
			{Name: "web", Tasks: task(), Ports: []Port{{Number: 80}}, Tags: []Text{Lit("drover.route=a.example/")}},
			{Name: "worker", Tasks: task()}, {Name: "job", Spec: []byte("job \"job\" {}")},
		}}
	}
	for name, c := range map[string]struct {
		service, route string
		want           string // in the job, or in the findings
		refused        bool
	}{
		"a host":          {"web", "b.example", `["drover.route=a.example/", "drover.route=b.example/"]`, false},
		"a path":          {"web", "a.example/api", `"drover.route=a.example/api"`, false},
		"the same":        {"web", "a.example", `= ["drover.route=a.example/"]`, false},
		"no port":         {"worker", "a.example", "Say --port worker=PORT.", true},
		"a job file":      {"job", "a.example", "is a job file with services of its own", true},
		"another service": {"api", "a.example", "Name one of the services: job, web, worker.", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, l := model(), NewLedger(nil)
			complete(m, Source{Inputs: []Input{{Name: "x"}}, Routes: map[string][]string{c.service: {c.route}}}, l)
			if l.Refused() != c.refused {
				t.Fatalf("got %v, want refused %t", l.Findings(), c.refused)
			}
			if c.refused {
				if got := l.Findings()[0].String(); !strings.Contains(got, c.want) {
					t.Errorf("got %s, want %s", got, c.want)
				}
				return
			}
			w := write(m)
			host, _, _ := strings.Cut(c.route, "/")
			if got := string(w.out["web.nomad.hcl"].Text); !strings.Contains(got, c.want) {
				t.Errorf("got\n%s\nwant %s", got, c.want)
			}
			if got := string(w.out["stack.hcl"].Text); !strings.Contains(got, `names = ["`+host+`"]`) {
				t.Errorf("got\n%s\nwant a certificate for %s", got, host)
			}
		})
	}
}
