package nomad

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/stack"
)

// agents is a server that counts requests by path and region, and refuses its first ones
// to /v1/agent/self.
type agents struct {
	*httptest.Server

	mu      sync.Mutex
	refused int // how many requests to /v1/agent/self are refused from now on
	counts  map[string]int
	nodes   []*api.Node
	removed string // ID of a node that is listed once and not found
}

func newAgents(t *testing.T, refused int) *agents {
	a := &agents{refused: refused, counts: map[string]int{}}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		key := r.URL.Path
		if region := r.URL.Query().Get("region"); key == "/v1/status/leader" {
			key += " " + region
		}
		if strings.HasPrefix(key, "/v1/node/") {
			key = "/v1/node"
		}
		a.counts[key]++
		switch {
		case strings.HasPrefix(key, "/v1/node"):
			a.answerNodes(w, r)
		case r.URL.Path == "/v1/regions":
			fmt.Fprint(w, `["global"]`)
		case r.URL.Path == "/v1/status/leader":
			fmt.Fprint(w, `"10.0.0.1:4647"`)
		case a.refused > 0:
			a.refused--
			http.Error(w, "ACL token not found", http.StatusForbidden)
		case r.Header.Get("X-Nomad-Token") == "reads no agents":
			http.Error(w, "Permission denied", http.StatusForbidden)
		default:
			fmt.Fprint(w, `{"config":{"Version":{"Version":"1.11.3"},"Region":"global"}}`)
		}
	}))
	t.Cleanup(a.Close)
	return a
}

// answerNodes lists the nodes that the filter does not exclude by their Consul
// datacenter, or returns one of them.
func (a *agents) answerNodes(w http.ResponseWriter, r *http.Request) {
	id, one := strings.CutPrefix(r.URL.Path, "/v1/node/")
	list := []*api.NodeListStub{}
	if a.removed != "" && !one {
		list = append(list, &api.NodeListStub{ID: a.removed, Datacenter: "dc1"})
	}
	for _, n := range a.nodes {
		excluded := fmt.Sprintf("!= %q", n.Attributes["consul.datacenter"])
		switch {
		case one && n.ID == id:
			_ = json.NewEncoder(w).Encode(n)
			return
		case !one && !strings.Contains(r.URL.Query().Get("filter"), excluded):
			list = append(list, &api.NodeListStub{ID: n.ID, Datacenter: n.Datacenter})
		}
	}
	if one {
		a.removed = ""
		http.Error(w, "node not found", http.StatusNotFound)
		return
	}
	if r.URL.Query().Get("per_page") == "1" {
		list = list[:min(1, len(list))]
	}
	_ = json.NewEncoder(w).Encode(list)
}

func (a *agents) count(path string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.counts[path]
}

// dialAll dials so many targets of each of the regions at the same time.
func dialAll(ctx context.Context, d *Dialer, each int, regions ...string) []error {
	errs := make([]error, each*len(regions))
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			t := &stack.Target{Name: fmt.Sprint("t", i), Region: regions[i%len(regions)]}
			_, errs[i] = d.Dial(ctx, t, false)
		})
	}
	wg.Wait()
	return errs
}

// The servers of a cluster are checked once, however many targets are in it.
func TestDialer_ChecksServersOnce(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]map[string]int{
		// Each request that is refused is repeated once.
		"reads no agents": {"/v1/agent/self": 2, "/v1/regions": 1, "/v1/status/leader west": 1, "/v1/status/leader east": 1},
		"reads agents":    {"/v1/agent/self": 1, "/v1/regions": 0, "/v1/status/leader west": 1, "/v1/status/leader east": 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := newAgents(t, 0)
			dialer := &Dialer{Home: func() *api.Config {
				return &api.Config{Address: srv.URL, SecretID: name, TLSConfig: &api.TLSConfig{}}
			}}
			for range 2 {
				if err := errors.Join(dialAll(t.Context(), dialer, 20, "", "west", "east")...); err != nil {
					t.Fatal(err)
				}
			}
			for path, n := range want {
				if got := srv.count(path); got != n {
					t.Errorf("%s: got %d requests, want %d", path, got, n)
				}
			}
		})
	}
}

// The Consul datacenters of a region are read once, however many targets are in it.
func TestDialer_ReadsConsulDatacentersOnce(t *testing.T) {
	t.Parallel()
	clients := func(pairs ...string) []*api.Node { // NOMAD/CONSUL
		var out []*api.Node
		for i, p := range pairs {
			datacenter, consul, _ := strings.Cut(p, "/")
			out = append(out, &api.Node{ID: fmt.Sprint("node", i), Datacenter: datacenter, Attributes: map[string]string{"consul.datacenter": consul}})
		}
		return out
	}
	for name, c := range map[string]struct {
		nodes        []*api.Node
		removed      string
		patterns     []string // of every target
		want         []string
		lists, reads int
	}{
		"one Consul datacenter":         {clients("dc1/east", "dc2/east"), "", []string{"dc1"}, []string{"east"}, 2, 1},
		"several":                       {clients("dc1/east", "dc2/west", "dc1/north"), "", []string{"dc1"}, []string{"east", "north"}, 4, 3},
		"a pattern":                     {clients("eu-1/east", "eu-2/west", "us/north"), "", []string{"eu-*"}, []string{"east", "west"}, 4, 3},
		"a target without datacenters":  {clients("dc1/west", "dc2/east", "dc2/east"), "", nil, []string{"east", "west"}, 3, 2},
		"no client":                     {nil, "", []string{"dc1"}, nil, 1, 0},
		"a client that is just removed": {clients("dc1/east"), "gone", []string{"dc1"}, []string{"east"}, 3, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := newAgents(t, 0)
			srv.nodes, srv.removed = c.nodes, c.removed
			dialer := &Dialer{Home: func() *api.Config { return &api.Config{Address: srv.URL, TLSConfig: &api.TLSConfig{}} }}
			var wg sync.WaitGroup
			for i := range 40 {
				wg.Go(func() {
					got, err := dialer.Reach(t.Context(), &stack.Target{Name: fmt.Sprint("t", i), Datacenters: c.patterns}, true)
					if err != nil || !slices.Equal(got.ConsulDatacenters, c.want) {
						t.Errorf("target t%d: got %v, %v, want %v", i, got.ConsulDatacenters, err, c.want)
					}
				})
			}
			wg.Wait()
			if lists, reads := srv.count("/v1/nodes"), srv.count("/v1/node"); lists != c.lists || reads != c.reads {
				t.Errorf("got %d lists and %d reads of nodes, want %d and %d", lists, reads, c.lists, c.reads)
			}
		})
	}
}

// Two tokens are two checks: the second may be one that the server refuses.
func TestDialer_ChecksEachToken(t *testing.T) {
	t.Parallel()
	srv := newAgents(t, 0)
	token := "one"
	dialer := &Dialer{Home: func() *api.Config {
		return &api.Config{Address: srv.URL, SecretID: token, TLSConfig: &api.TLSConfig{}}
	}}
	for _, token = range []string{"one", "two", "one"} {
		if _, err := dialer.Dial(t.Context(), &stack.Target{}, false); err != nil {
			t.Fatal(err)
		}
	}
	if got := srv.count("/v1/agent/self"); got != 2 {
		t.Errorf("got %d requests, want 2", got)
	}
}

// Targets that share a check which fails have an error each, with their own name, and the
// next one is checked again.
func TestDialer_ChecksAgainAfterFailure(t *testing.T) {
	t.Parallel()
	srv := newAgents(t, 1<<20)
	dialer := &Dialer{Home: func() *api.Config { return &api.Config{Address: srv.URL, TLSConfig: &api.TLSConfig{}} }}
	for i, err := range dialAll(t.Context(), dialer, 20, "") {
		if want := fmt.Sprintf("Nomad of target t%d at", i); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	srv.mu.Lock()
	srv.refused = 0
	srv.mu.Unlock()
	if _, err := dialer.Dial(t.Context(), &stack.Target{}, false); err != nil {
		t.Errorf("after the server takes the token: got %v, want no error", err)
	}
}

// A caller whose context lives does not fail because that of the caller which runs the
// check was cancelled.
func TestChecks_SurvivesCancelledCaller(t *testing.T) {
	t.Parallel()
	var c checks
	began, cancelled := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = once(t.Context(), &c, func() (string, error) {
			close(began)
			<-cancelled
			return "", context.Canceled
		}, "x")
	})
	<-began
	wg.Go(func() {
		got, err := once(t.Context(), &c, func() (string, error) { return "global", nil }, "x")
		if got != "global" || err != nil {
			t.Errorf("got %q, %v, want global, nil", got, err)
		}
	})
	close(cancelled)
	wg.Wait()
}
