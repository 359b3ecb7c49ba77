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
	"github.com/drover-nomad/drover/render"
)

// The only server is killed when the first service is submitted and started
// again: the rollout waits and goes on.
func TestServerRestarts(t *testing.T) {
	t.Parallel()
	dev := devtest.Cluster(t, devcluster.Options{})
	var c Clients
	var err error
	if c.Nomad, err = nomadClient(dev.NomadAddr(), nil); err != nil {
		t.Fatal(err)
	}
	jobs := []render.Job{service(mockJob("first", runs())), service(mockJob("beside", runs())), service(mockJob("after", runs()), "beside")}
	back := make(chan error, 1)
	killed := false
	res, err := Run(t.Context(), c, jobs, Options{}, func(e Event) {
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

// While a server starts, it refuses every token: nobody is told so.
func TestServerRefusesWhileItStarts(t *testing.T) {
	t.Parallel()
	dev := devtest.Cluster(t, devcluster.Options{Secure: true})
	c, err := NewNomad(dev.NomadConfig())
	if err != nil {
		t.Fatal(err)
	}
	var answers atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	for range 4 {
		asking.Go(func() {
			for ctx.Err() == nil {
				_, _, err := c.Jobs().List((&api.QueryOptions{}).WithContext(ctx))
				if refused(err) {
					t.Error(err)
					return
				}
				if err == nil {
					answers.Add(1)
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
	// It answers again.
	for n := answers.Load(); answers.Load() < n+100 && !t.Failed(); {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("no answers")
		}
	}
	cancel()
	asking.Wait()
}
