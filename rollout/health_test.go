package rollout

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/consul"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// withService is a job whose group has the port "http" and the service.
func withService(id string, s *api.Service) *api.Job {
	job := mockJob(id, runs())
	job.TaskGroups[0].Networks = []*api.NetworkResource{{DynamicPorts: []api.Port{{Label: "http"}}}}
	job.TaskGroups[0].Services = []*api.Service{s}
	return job
}

// An update in place to a label that no port has leaves the former instance in
// Consul, under another ID.
func testPortLabelOfNoPort(t *testing.T, c nomad.Clients) {
	id := prefix(t) + "label"
	cleanUp(t, c, id)
	good := withService(id, &api.Service{Name: id, PortLabel: "http"})
	res, _ := deploy(t, c, Options{}, service(good))
	wantOutcomes(t, res, Deployed)

	bad := withService(id, &api.Service{Name: id, PortLabel: "htpt"})
	res, _ = deploy(t, c, Options{Timeout: 10 * time.Second}, service(bad))
	wantOutcomes(t, res, TimedOut)
	if detail := res.Services[0].Detail; !strings.Contains(detail, id+" is missing in Consul") {
		t.Errorf("got %q, want what is missing", detail)
	}
	if st, err := Status(t.Context(), c, []render.Job{service(bad)}); err != nil || st[0].OK || !strings.Contains(st[0].Detail, "is missing in Consul") {
		t.Errorf("got %+v, %v, want a missing service", st, err)
	}
	if p, err := Prepare(t.Context(), c, []render.Job{service(bad)}, Options{}); err != nil || p.Unchanged() {
		t.Errorf("a job whose service is not registered is planned as unchanged and healthy (%v)", err)
	}
	res, _ = deploy(t, c, Options{}, service(good))
	wantOutcomes(t, res, Deployed)
}

func testServiceWithoutChecks(t *testing.T, c nomad.Clients) {
	id := prefix(t) + "bare"
	cleanUp(t, c, id)
	job := service(withService(id, &api.Service{Name: id, PortLabel: "http"}))
	res, _ := deploy(t, c, Options{}, job)
	wantOutcomes(t, res, Deployed)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// Nomad registers it again within half a minute, perhaps at once.
	err := poll(ctx, func() bool {
		entries, _, err := c.Consul.Health().Service(id, "", false, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if err := c.Consul.Agent().ServiceDeregister(e.Service.ID); err != nil {
				t.Fatal(err)
			}
		}
		st, err := Status(ctx, c, []render.Job{job})
		if err != nil {
			t.Fatal(err)
		}
		return !st[0].OK && st[0].ChecksTotal == 1 && strings.Contains(st[0].Detail, id+" is missing in Consul")
	})
	if err != nil {
		t.Error("status does not miss a service without checks that is not in Consul")
	}
}

// A node in warning keeps nothing from being deployed, and is seen in the same
// way by the plan, the status and a gate.
func testNodeCheckWarning(t *testing.T, c nomad.Clients) {
	id := prefix(t) + "warned"
	cleanUp(t, c, id)
	check := &capi.AgentCheckRegistration{ID: id, Name: "disk of " + id, AgentServiceCheck: capi.AgentServiceCheck{TTL: "10m", Status: capi.HealthWarning}}
	if err := c.Consul.Agent().CheckRegister(check); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Consul.Agent().CheckDeregister(id) })
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	u, _ := url.Parse(s.URL)
	job := service(withService(id, &api.Service{
		Name: id, Address: u.Hostname(), PortLabel: u.Port(),
		Checks: []api.ServiceCheck{{Type: "http", Path: "/", Interval: time.Second, Timeout: time.Second, InitialStatus: "passing"}},
	}))
	res, _ := deploy(t, c, Options{Timeout: time.Minute}, job)
	wantOutcomes(t, res, Deployed)
	if p, err := Prepare(t.Context(), c, []render.Job{job}, Options{}); err != nil || !p.Unchanged() {
		t.Errorf("plan: it is not unchanged and healthy (%v)", err)
	}
	if st, err := Status(t.Context(), c, []render.Job{job}); err != nil || !st[0].OK {
		t.Errorf("status: got %+v, %v", st, err)
	}
	r, err := Hold(t.Context(), []Party{{Clients: c, Jobs: []render.Job{job}}}, GateOptions{Gate: stack.Gate{Timeout: time.Minute}}, nil)
	if err != nil || !r.OK {
		t.Errorf("gate: got %+v, %v", r, err)
	}
}

// The health of services that Nomad itself registers counts, also where the
// update block does not look at it.
func testNativeServices(t *testing.T, c nomad.Clients) {
	id := prefix(t) + "native"
	cleanUp(t, c, id)
	var healthy atomic.Bool
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !healthy.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer s.Close()
	u, _ := url.Parse(s.URL)
	job := service(withService(id, &api.Service{
		Name: id, Provider: "nomad", Address: u.Hostname(), PortLabel: u.Port(),
		Checks: []api.ServiceCheck{{Type: "http", Path: "/", Interval: time.Second, Timeout: time.Second}},
	}))
	res, _ := deploy(t, c, Options{Timeout: 10 * time.Second}, job)
	wantOutcomes(t, res, TimedOut)
	if f := res.Services[0].Failure; f == nil || len(f.Checks) != 1 || f.Checks[0].Provider != "nomad" || f.Checks[0].Status != capi.HealthCritical {
		t.Errorf("the failing check is not told: %s", dump(res))
	}
	st, err := Status(t.Context(), c, []render.Job{job})
	if err != nil || st[0].OK || !strings.Contains(st[0].Detail, "is critical") {
		t.Errorf("status: got %+v, %v", st, err)
	}
	party := []Party{{Clients: c, Jobs: []render.Job{job}}}
	r, err := Hold(t.Context(), party, GateOptions{Gate: stack.Gate{Timeout: 5 * time.Second}}, nil)
	if err != nil || r.OK || !strings.Contains(r.Detail, "is critical") {
		t.Errorf("gate: got %+v, %v", r, err)
	}

	healthy.Store(true)
	res, _ = deploy(t, c, Options{Timeout: 2 * time.Minute}, job)
	wantOutcomes(t, res, Unchanged)
	if st, err = Status(t.Context(), c, []render.Job{job}); err != nil || !st[0].OK || st[0].ChecksPassing != 1 {
		t.Errorf("status: got %+v, %v", st, err)
	}
	if r, err = Hold(t.Context(), party, GateOptions{Gate: stack.Gate{Timeout: time.Minute}}, nil); err != nil || !r.OK {
		t.Errorf("gate: got %+v, %v", r, err)
	}
}

// The sidecar of a service in the mesh counts. It is registered here as Nomad
// does it, since a real one needs Envoy.
func testSidecar(t *testing.T, c nomad.Clients) {
	name, alloc := prefix(t)+"meshed", "5e1f0c3a-0000-4000-8000-000000000001"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil { // nothing listens yet
		t.Fatal(err)
	}
	job := mockJob(name, runs())
	job.TaskGroups[0].Services = []*api.Service{{Name: name, PortLabel: "9001", Connect: &api.ConsulConnect{SidecarService: &api.ConsulSidecarService{}}}}
	services := consul.Services(job)
	id := "_nomad-task-" + alloc + "-group-g-" + name + "-9001"
	t.Cleanup(func() { _ = c.Consul.Agent().ServiceDeregister(id) })
	// reads judges what a plan or status and what a deploy or gate see.
	reads := func() []consul.Health {
		err := c.Consul.Agent().ServiceRegister(&capi.AgentServiceRegistration{ // again: Nomad removes what it does not know
			ID: id, Name: name, Port: 9001,
			Connect: &capi.AgentServiceConnect{SidecarService: &capi.AgentServiceRegistration{Port: port, Checks: capi.AgentServiceChecks{
				{Name: "Connect Sidecar Aliasing " + id, AliasService: id},
				{Name: "Connect Sidecar Listening", TCP: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), Interval: "1s"},
			}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		running := map[string]string{alloc: "g"}
		instances, err := consul.Read(t.Context(), c.Consul, nil, services)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		w := consul.Watch(ctx, c.Consul, nil, consul.Names(services))
		var watched consul.Health
		if err := poll(ctx, func() (ok bool) { watched, ok, _ = w.Judge(services, running); return ok }); err != nil {
			t.Fatal(err)
		}
		return []consul.Health{consul.Judge(services, running, instances), watched}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	all := func(ok func(consul.Health) bool) error {
		return poll(ctx, func() bool { h := reads(); return ok(h[0]) && ok(h[1]) })
	}
	err = all(func(h consul.Health) bool {
		return h.Total == 2 && h.Passing == 1 && len(h.Failing) == 1 && h.Failing[0].Service == name+"-sidecar-proxy" && h.Failing[0].Check == "Connect Sidecar Listening"
	})
	if err != nil {
		t.Fatalf("a sidecar that does not listen is not seen: %+v", reads())
	}
	if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if err := all(consul.Health.Healthy); err != nil {
		t.Errorf("a sidecar that listens does not become healthy: %+v", reads())
	}
}
