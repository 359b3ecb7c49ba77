package rollout

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

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
func testPortLabelOfNoPort(t *testing.T, c Clients) {
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

func testServiceWithoutChecks(t *testing.T, c Clients) {
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
func testNodeCheckWarning(t *testing.T, c Clients) {
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
func testNativeServices(t *testing.T, c Clients) {
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
