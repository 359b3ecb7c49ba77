package nomad

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
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
		a.counts[key]++
		switch {
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
		_, _ = c.once(t.Context(), func() (string, error) {
			close(began)
			<-cancelled
			return "", context.Canceled
		}, "x")
	})
	<-began
	wg.Go(func() {
		got, err := c.once(t.Context(), func() (string, error) { return "global", nil }, "x")
		if got != "global" || err != nil {
			t.Errorf("got %q, %v, want global, nil", got, err)
		}
	})
	close(cancelled)
	wg.Wait()
}
