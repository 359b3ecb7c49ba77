package rollout

import (
	"testing"

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
