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

func write(c *api.Client) error {
	_, _, err := c.Jobs().Register(one(), nil)
	return err
}

func TestPersist_RetriesUntilAnAnswerOrSilence(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answers []int // the last one repeats
		fails   bool
		least   int64 // requests
		most    int64
	}{
		"unavailable twice":              {[]int{503, 502, 200}, false, 3, 3},
		"internal error once":            {[]int{500, 200}, false, 2, 2},
		"the token is refused":           {[]int{403}, true, 2, 2},
		"not found":                      {[]int{404}, true, 1, 1},
		"unavailable for the whole time": {[]int{503}, true, 2, 4},
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
				t.Errorf("got %d requests, error %v; want %d to %d requests, an error: %v", n.Load(), err, c.least, c.most, c.fails)
			}
		})
	}
}
