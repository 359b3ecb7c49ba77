package rollout

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
)

func one() *api.Job { return api.NewServiceJob("one", "one", "global", 50) }

func read(c *api.Client) error {
	_, _, err := c.Jobs().Info("one", nil)
	return err
}

func plan(c *api.Client) error {
	_, _, err := c.Jobs().Plan(one(), true, nil)
	return err
}

func write(c *api.Client) error {
	_, _, err := c.Jobs().Register(one(), nil)
	return err
}

// A cluster that does not answer is asked again, until that has gone on for too
// long; any answer is one, and so is that the token is refused.
func TestPersist(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answers []int // the last one again and again
		fails   bool
		least   int64 // requests
		most    int64
	}{
		"comes back":   {[]int{503, 502, 200}, false, 3, 3},
		"internal":     {[]int{500, 200}, false, 2, 2},
		"refused":      {[]int{403}, true, 2, 2},
		"not there":    {[]int{404}, true, 1, 1},
		"not for ever": {[]int{503}, true, 2, 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var n atomic.Int64
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.answers[min(int(n.Add(1)), len(c.answers))-1])
				_, _ = w.Write([]byte("{}"))
			}))
			t.Cleanup(srv.Close)
			client, err := nomad.NewClient(&api.Config{Address: srv.URL, TLSConfig: &api.TLSConfig{}})
			if err != nil {
				t.Fatal(err)
			}
			err = Persist(t.Context(), 1200*time.Millisecond, func(context.Context) error { return write(client) })
			if (err != nil) != c.fails || n.Load() < c.least || n.Load() > c.most {
				t.Errorf("%d requests, %v", n.Load(), err)
			}
		})
	}
}
