package rollout

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/nomad"
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
func testRequests(t *testing.T, c nomad.Clients) {
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

// Many jobs that are followed at the same time are read together: a plan and a
// registration are all that each of them costs, beside a few looks at one alone and
// the lists, which come no faster than the followers may look.
func testRequestsOfMany(t *testing.T, c nomad.Clients) {
	const many = 20
	p := prefix(t)
	counted, n := counting(t, c)
	var jobs []render.Job
	for i := range many {
		id := fmt.Sprint(p, i)
		cleanUp(t, c, id)
		jobs = append(jobs, service(mockJob(id, runs())))
	}
	begun := time.Now()
	res, _ := deploy(t, counted, Options{Parallel: many}, jobs...)
	elapsed := time.Since(begun)
	if res.Outcome() != Deployed {
		t.Fatal(dump(res))
	}
	var writes, lists, alone int
	for _, line := range n.seen() {
		method, path, _ := strings.Cut(line, " ")
		switch {
		case method != http.MethodGet:
			writes++
		case path == "/v1/deployments", path == "/v1/allocations", path == "/v1/evaluations":
			lists++
		default:
			alone++
		}
	}
	rounds := int(elapsed/lookGap(crowd)) + 2
	if writes != 2*many || lists > 3*rounds || alone > 3*many {
		t.Errorf("%d services in %s: got %d plans and registrations, want %d; %d lists, want at most %d; %d requests about one job, want at most %d",
			many, elapsed, writes, 2*many, lists, 3*rounds, alone, 3*many)
	}
	t.Logf("%d services in %s: %d writes, %d lists, %d about one job", many, elapsed, writes, lists, alone)
}

// A service that is deployed alone is looked at when its first allocation is placed,
// when that has become healthy, and when the deployment has ended; a look is two or
// three requests.
func testRequestsOfOne(t *testing.T, c nomad.Clients) {
	counted, n := counting(t, c)
	id := prefix(t) + "one"
	cleanUp(t, c, id)
	res, _ := deploy(t, counted, Options{}, service(mockJob(id, runs())))
	if res.Outcome() != Deployed {
		t.Fatal(dump(res))
	}
	looks := 0
	for _, line := range n.seen() {
		if strings.HasPrefix(line, http.MethodGet) && line != "GET /v1/event/stream" {
			looks++
		}
	}
	if looks > 11 {
		t.Errorf("got %d requests that read, want at most 11: %v", looks, n.seen())
	}
}
