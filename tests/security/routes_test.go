package security

import (
	"io"
	"slices"
	"strings"
	"testing"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acl"
	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/jobs"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// restrict lets a namespace register services of these names only.
func (s *site) restrict(t *testing.T, namespace string, services, prefixes, jobs []string) {
	t.Helper()
	keys, err := acl.Keys(t.Context(), s.nomad)
	if err != nil {
		t.Fatal(err)
	}
	w := acl.Workload{Keys: keys, Namespaces: []string{namespace}, Services: services, TaskServices: prefixes, TaskJobs: jobs}
	if _, err := acl.BootstrapConsul(t.Context(), s.consul, acl.Scope{Namespace: namespace}, w); err != nil {
		t.Fatal(err)
	}
}

// instances are the passing instances of a service, by their allocation.
func (s *site) instances(t *testing.T, name string) []*capi.ServiceEntry {
	t.Helper()
	entries, _, err := s.consul.Health().Service(name, "", true, nil)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// deployEdge runs the edge's job and returns how to read its configuration.
func (s *site) deployEdge(t *testing.T, vars ...string) func() string {
	t.Helper()
	return s.deployStack(t, "edge", "haproxy/local/haproxy.cfg", vars...)
}

// deployStack is deployEdge for a stack, whose configuration is in file.
func (s *site) deployStack(t *testing.T, name, file string, vars ...string) func() string {
	t.Helper()
	m := acme.NewManager(acme.Config{Store: acme.NewStore(acme.NomadVariables(s.nomad))})
	defer m.Close()
	if _, err := m.Prepare(t.Context(), acme.Spec{Name: "public", Names: []string{"victim.example.org"}}); err != nil {
		t.Fatal(err)
	}
	files, err := jobs.Stack(name)
	if err != nil {
		t.Fatal(err)
	}
	st, err := stack.Load(t.Context(), stack.Options{Path: name, FS: files, Environment: "dev", Vars: vars})
	if err != nil {
		t.Fatal(err)
	}
	rendered, err := render.Stack(t.Context(), st, render.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.nomad.Jobs().Register(rendered[0].Job, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _, _ = s.nomad.Jobs().Deregister("edge", true, nil) })
	var alloc *api.Allocation
	t.Cleanup(func() {
		if alloc == nil || !t.Failed() {
			return
		}
		for task, state := range alloc.TaskStates {
			for _, e := range state.Events {
				t.Logf("%s: %s", task, e.DisplayMessage)
			}
		}
	})
	until(t, "the edge runs", func() bool {
		allocs, _, err := s.nomad.Jobs().Allocations("edge", false, nil)
		if err != nil || len(allocs) == 0 {
			return false
		}
		alloc, _, err = s.nomad.Allocations().Info(allocs[0].ID, nil)
		return err == nil && len(s.instances(t, "edge")) > 0
	})
	return func() string {
		f, err := s.nomad.AllocFS().Cat(alloc, file, nil)
		if err != nil {
			return err.Error()
		}
		defer func() { _ = f.Close() }()
		text, err := io.ReadAll(f)
		if err != nil {
			return err.Error()
		}
		return string(text)
	}
}

// A tenant claims a path, a redirect and a name of the victim's host, an instance
// behind the victim's route, and a name in Consul that only oCIS registers.
func TestRoutes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	attacker := s.as(t, acl.Deployer, evil)
	s.restrict(t, evil, []string{"evil-*"}, []string{"com.owncloud."}, []string{"ocis-*"})

	victim := service("default", "web", "web", []string{"drover.route=victim.example.org/"}, nil)
	s.run(t, s.nomad, victim)
	s.run(t, attacker, service(evil, "evil-web", "evil-web", []string{
		"drover.route=victim.example.org/login/", "drover.redirect=victim.example.org/pay 301 https://evil.example.org/", "drover.sni=victim.example.org",
		"drover.route=evil.example.org/",
	}, nil))
	config := s.deployEdge(t, `tenants={default={services=["web","edge"],hosts=["victim.example.org"],tcp_ports=[]},evil={services=["evil-*"],hosts=["evil.example.org"],tcp_ports=[]}}`)

	// Its own host is the last line that the template writes of the attacker.
	until(t, "the edge has both hosts", func() bool {
		text := config()
		return strings.Contains(text, "#: evil.example.org/ ") && strings.Contains(text, "#: victim.example.org/ ")
	})
	text := config()
	for _, stolen := range []string{"victim.example.org/login", "victim.example.org/pay", "tcp.evil-web"} {
		if strings.Contains(text, stolen) {
			t.Errorf("the edge has the attacker's claim %s", stolen)
		}
	}
	report, err := edge.Look(t.Context(), s.nomad, s.consul, edge.Options{Store: acme.NewStore(acme.NomadVariables(s.nomad))})
	if err != nil {
		t.Fatal(err)
	}
	for _, claim := range []string{"victim.example.org/login/", "victim.example.org/pay", "victim.example.org"} {
		if !slices.ContainsFunc(report.Problems, func(p edge.Problem) bool {
			return p.Service == "evil-web" && p.Message == "Namespace evil may not claim "+claim
		}) {
			t.Errorf("got problems %+v, want one of %s", report.Problems, claim)
		}
	}

	// An instance behind the victim's route: Consul gives no token for its name.
	spoiler := service(evil, "spoiler", "web", []string{"drover.alow=typo"}, nil)
	if _, _, err := attacker.Jobs().Register(spoiler, nil); err != nil {
		t.Fatal(err)
	}
	until(t, "the attacker's instance is refused", func() bool {
		allocs, _, err := attacker.Jobs().Allocations("spoiler", false, nil)
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(allocs, func(a *api.AllocationListStub) bool { return a.ClientStatus == api.AllocClientStatusFailed })
	})
	if got := s.instances(t, "web"); len(got) != 1 {
		t.Errorf("got %d instances of the victim's service, want its own", len(got))
	}
	s.run(t, s.nomad, service("default", "anything", "anything", nil, nil)) // a namespace of before keeps its rights

	// A task that is not of oCIS registers a service by itself.
	for _, c := range []struct {
		job     string
		allowed bool
	}{{"ocis-web", true}, {"other", false}} {
		job := service(evil, c.job, "evil-"+c.job, nil, nil)
		task := job.TaskGroups[0].Tasks[0]
		task.Consul = &api.Consul{}
		task.SetConfig("command", "/bin/sh")
		task.SetConfig("args", []string{"-c", "cat $NOMAD_SECRETS_DIR/consul_token >$NOMAD_ALLOC_DIR/token; exec sleep 600"})
		s.run(t, attacker, job)
		var text string
		until(t, "the task has its token", func() bool {
			allocs, _, err := attacker.Jobs().Allocations(c.job, false, nil)
			if err != nil || len(allocs) == 0 {
				return false
			}
			a, _, err := s.nomad.Allocations().Info(allocs[0].ID, &api.QueryOptions{Namespace: evil})
			if err != nil {
				return false
			}
			f, err := s.nomad.AllocFS().Cat(a, "alloc/token", &api.QueryOptions{Namespace: evil})
			if err != nil {
				return false
			}
			defer func() { _ = f.Close() }()
			b, _ := io.ReadAll(f)
			text = strings.TrimSpace(string(b))
			return len(text) == 36
		})
		kc := s.ConsulConfig()
		kc.Token = text
		k, err := capi.NewClient(kc)
		if err != nil {
			t.Fatal(err)
		}
		err = k.Agent().ServiceRegister(&capi.AgentServiceRegistration{ID: c.job, Name: "com.owncloud.web", Address: "192.0.2.1", Port: 80})
		if (err == nil) != c.allowed {
			t.Errorf("a task of %s registers com.owncloud.web: got %v, want allowed %v", c.job, err, c.allowed)
		}
		if err == nil {
			_ = s.consul.Agent().ServiceDeregister(c.job)
		}
	}
}
