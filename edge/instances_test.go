package edge_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/edge"
)

func TestFinder_Public(t *testing.T) {
	t.Parallel()
	const (
		own     = "11111111-1111-1111-1111-111111111111"
		target  = "22222222-2222-2222-2222-222222222222"
		broken  = "33333333-3333-3333-3333-333333333333"
		ended   = "44444444-4444-4444-4444-444444444444"
		another = "55555555-5555-5555-5555-555555555555"
		foreign = "66666666-6666-6666-6666-666666666666"
		twice   = "77777777-7777-7777-7777-777777777777"
		classed = "88888888-8888-8888-8888-888888888888"
	)
	var namespace string
	nomad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		namespace = r.URL.Query().Get("namespace")
		// As a Nomad that ignores the filter.
		_ = json.NewEncoder(w).Encode([]api.AllocationListStub{
			{ID: own, JobID: "edge", ClientStatus: "running"},
			{ID: target, JobID: "edge-dc2", ClientStatus: "running"},
			{ID: broken, JobID: "edge", ClientStatus: "running"},
			{ID: twice, JobID: "edge", ClientStatus: "running"},
			{ID: classed, JobID: "edge-internal", ClientStatus: "running"},
			{ID: ended, JobID: "edge", ClientStatus: "complete"},
			{ID: another, JobID: "web", ClientStatus: "running"},
		})
	}))
	t.Cleanup(nomad.Close)
	entry := func(id, address string) *capi.ServiceEntry {
		return &capi.ServiceEntry{
			Node:    &capi.Node{Node: "n-" + id[:1], Address: "192.0.2.1"},
			Service: &capi.AgentService{ID: "_nomad-task-" + id + "-group-edge-edge-metrics", Meta: map[string]string{"public_address": address}},
		}
	}
	internal := entry(classed, "10.0.0.1") // routes of the default class do not lead there
	internal.Service.Meta["class"], internal.Service.Meta["default_class"] = "internal", "default"
	byHand := entry(own, "198.51.100.9")
	byHand.Service.ID = "edge-by-hand"
	consul := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode([]*capi.ServiceEntry{
			entry(own, "203.0.113.1,2001:db8::1"), entry(target, ""), internal, entry(broken, "203.0.113.3,nowhere"),
			entry(ended, "198.51.100.4"), entry(another, "198.51.100.5"), entry(foreign, "198.51.100.6"),
			entry(twice, "198.51.100.7"), entry(twice, "198.51.100.8"), byHand,
		})
	}))
	t.Cleanup(consul.Close)
	n, err := api.NewClient(&api.Config{Address: nomad.URL})
	if err != nil {
		t.Fatal(err)
	}
	c, err := capi.NewClient(&capi.Config{Address: consul.URL})
	if err != nil {
		t.Fatal(err)
	}
	got, skipped, err := edge.Finder{Nomad: n, Consul: c, Namespace: "infra"}.Public(t.Context())
	if want := []string{"192.0.2.1", "2001:db8::1", "203.0.113.1"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if namespace != "infra" {
		t.Errorf("got namespace %q, want that of the edge's job", namespace)
	}
	var texts []string
	for _, err := range skipped {
		texts = append(texts, err.Error())
	}
	all := strings.Join(texts, "\n")
	for _, want := range []string{"n-4 is skipped: it is no running", "n-5 is skipped: it is no running", "n-6 is skipped: it is no running allocation of the job edge in namespace infra", "n-7 is skipped: its allocation is registered twice", `n-3 is skipped: its public address "nowhere" is no address`} {
		if !strings.Contains(all, want) {
			t.Errorf("got %q, want %q", all, want)
		}
	}
	if len(skipped) != 7 {
		t.Errorf("got %d skipped instances, want 7:\n%s", len(skipped), all)
	}
}
