package rollout

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/consul"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/stack"
)

// Real servers pass the preflight, and Nomad understands the filters by which Dial finds
// the Consul datacenters.
func testDial(t *testing.T, cluster *stack.Cluster) {
	for _, datacenters := range [][]string{nil, {"*"}, {"nowhere"}} {
		target := &stack.Target{Name: "dev", Cluster: cluster, Datacenters: datacenters}
		c, err := nomad.Dial(t.Context(), target, true)
		if err != nil {
			t.Fatal(err)
		}
		self, err := c.Consul.Agent().Self()
		if err != nil {
			t.Fatal(err)
		}
		want := []string{self["Config"]["Datacenter"].(string)}
		if slices.Equal(datacenters, []string{"nowhere"}) {
			want = nil
		}
		if !slices.Equal(c.ConsulDatacenters, want) {
			t.Errorf("datacenters %q: got the Consul datacenters %q, want %q", datacenters, c.ConsulDatacenters, want)
		}
	}
}

// A region whose Nomad clients are in two Consul datacenters: services of both
// are seen.
func TestServicesInSeveralConsulDatacenters(t *testing.T) {
	of := map[string]string{"n1": "east", "n2": "west", "n3": "west"}
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("X-Nomad-Index", "1")
		w.Header().Set("X-Nomad-LastContact", "0")
		_ = json.NewEncoder(w).Encode(v)
	}
	nomadServer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, isNode := strings.CutPrefix(r.URL.Path, "/v1/node/")
		switch {
		case isNode:
			answer(w, api.Node{ID: id, Attributes: map[string]string{"consul.datacenter": of[id]}})
		case r.URL.Path == "/v1/nodes":
			nodes := []*api.NodeListStub{}
			for _, id := range slices.Sorted(maps.Keys(of)) {
				if !strings.Contains(r.URL.Query().Get("filter"), `!= "`+of[id]+`"`) {
					nodes = append(nodes, &api.NodeListStub{ID: id, Datacenter: "dc1"})
				}
			}
			answer(w, nodes)
		case r.URL.Path == "/v1/regions":
			answer(w, []string{"global"})
		default:
			answer(w, map[string]any{})
		}
	}))
	defer nomadServer.Close()
	consulServer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		dc := r.URL.Query().Get("dc")
		switch r.URL.Path {
		case "/v1/catalog/datacenters":
			answer(w, []string{"east", "west", "empty"})
		case "/v1/health/service/bare":
			answer(w, []capi.ServiceEntry{{Node: &capi.Node{}, Service: &capi.AgentService{ID: "_nomad-task-" + dc + "-group-g-bare-"}}})
		case "/v1/health/state/any":
			id := "_nomad-task-" + dc + "-group-g-checked-"
			answer(w, capi.HealthChecks{{Name: "up", Status: "passing", ServiceName: "checked", ServiceID: id}})
		default:
			answer(w, map[string]any{})
		}
	}))
	defer consulServer.Close()
	t.Setenv("NOMAD_ADDR", nomadServer.URL)
	t.Setenv("CONSUL_HTTP_ADDR", consulServer.URL)

	job := mockJob("j", runs())
	job.TaskGroups[0].Services = []*api.Service{{Name: "bare"}, {Name: "checked", Checks: []api.ServiceCheck{{Name: "up"}}}}
	s := specOf(job)
	for _, target := range []*stack.Target{{}, {Name: "all", Datacenters: []string{"*"}}} {
		c, err := nomad.Dial(t.Context(), target, true)
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{"east", "west"}; !slices.Equal(c.ConsulDatacenters, want) {
			t.Errorf("target %q: got %v, want %v", target.Name, c.ConsulDatacenters, want)
		}
		running := map[string]string{"east": "g", "west": "g"}
		instances, err := readConsul(t.Context(), c, []spec{s})
		if err != nil {
			t.Fatal(err)
		}
		if h := consul.Judge(s.consul, running, instances); !h.Healthy() || h.Total != 4 {
			t.Errorf("target %q: got %+v", target.Name, h)
		}
	}
}
