package rollout

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
)

// The only server is killed when the first service is submitted and started
// again: the rollout waits and goes on.
func TestServerRestarts(t *testing.T) {
	t.Parallel()
	dev := devtest.Cluster(t, devcluster.Options{})
	var c nomad.Clients
	var err error
	if c.Nomad, err = nomadClient(dev.NomadAddr(), nil); err != nil {
		t.Fatal(err)
	}
	jobs := []render.Job{service(mockJob("first", runs())), service(mockJob("beside", runs())), service(mockJob("after", runs()), "beside")}
	back := make(chan error, 1)
	killed := false
	res, err := prepareAndApply(t.Context(), c, jobs, Options{}, func(e Event) {
		if e.Kind != EventSubmitted || killed {
			return
		}
		killed = true
		if err := dev.Kill(t.Context(), "nomad-server"); err != nil {
			t.Error(err)
		}
		go func() { back <- dev.Restart(t.Context(), "nomad-server") }()
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-back; err != nil {
		t.Fatal(err)
	}
	wantOutcomes(t, res, Deployed, Deployed, Deployed)
	if v := *info(t, c, "after").Version; v != 0 {
		t.Errorf("registered %d times", v+1)
	}
}

// While a server starts, it refuses every token. drover retries and does not report it.
func TestServerRefusesWhileItStarts(t *testing.T) {
	t.Parallel()
	dev := devtest.Cluster(t, devcluster.Options{Secure: true})
	c, err := nomad.NewClient(dev.NomadConfig())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var back atomic.Bool
	var asking sync.WaitGroup
	defer asking.Wait()
	for range 4 {
		asking.Go(func() {
			for {
				_, _, err := c.Jobs().List((&api.QueryOptions{}).WithContext(ctx))
				switch {
				case ctx.Err() != nil:
					t.Error(ctx.Err())
					return
				case nomad.IsRefused(err):
					t.Error(err)
					return
				case err == nil && back.Load():
					return
				}
				select {
				case <-time.After(5 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		})
	}
	if err := dev.Kill(ctx, "nomad-server"); err != nil {
		t.Error(err)
	}
	if err := dev.Restart(ctx, "nomad-server"); err != nil {
		t.Error(err)
	}
	back.Store(true)
}
