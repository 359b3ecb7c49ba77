package rollout

import (
	"fmt"
	"testing"
	"time"

	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

func (c *counter) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all, c.writes = nil, nil
}

func (c *counter) seen() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.all...)
}

// A gate makes at most three requests in two seconds, however much happens
// meanwhile: here, ten tasks restart all the time. Status takes three requests
// for any number of services.
func testRequests(t *testing.T, c Clients) {
	p := prefix(t)
	var jobs []render.Job
	for i := range 10 {
		job := mockJob(fmt.Sprint(p, i), map[string]any{"run_for": "700ms", "exit_code": 1})
		job.TaskGroups[0].RestartPolicy.Attempts, job.TaskGroups[0].RestartPolicy.Delay = ptr(1000), ptr(50*time.Millisecond)
		jobs = append(jobs, service(job))
	}
	party := deployed(t, c, jobs...)
	var n *counter
	party.Clients, n = counting(t, c)

	if _, err := Status(t.Context(), party.Clients, jobs); err != nil {
		t.Fatal(err)
	}
	if seen := n.seen(); len(seen) != 3 {
		t.Errorf("status made %d requests: %v", len(seen), seen)
	}

	n.reset()
	r, err := Hold(t.Context(), []Party{party}, GateOptions{Gate: stack.Gate{Timeout: 8 * time.Second}, Bake: time.Minute}, nil)
	if err != nil || r.OK {
		t.Fatalf("%+v, %v", r, err)
	}
	const first = 4 // a look at once, and the event stream
	if seen := n.seen(); len(seen) > first+3*int(r.Elapsed/(2*time.Second)) {
		t.Errorf("%d requests in %s: %v", len(seen), r.Elapsed, seen)
	}
}
