package rollout

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/consul"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
)

// A rename of a job's ID leaves a stack with two jobs of one service.
func TestDestroy_TwoJobsOfOneService(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/jobs" {
			fmt.Fprint(w, "[]")
			return
		}
		http.Error(w, "job not found", http.StatusNotFound)
	}))
	defer srv.Close()
	c, err := nomadClient(srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	id := func(s string) *api.Job { return &api.Job{ID: &s} }
	jobs := []render.Job{
		{Service: "api", Job: id("api-old")}, {Service: "api", Job: id("api-new")}, {Service: "web", DependsOn: []string{"api"}, Job: id("web")},
	}
	seen := map[int]string{}
	err = Destroy(t.Context(), nomad.Clients{Nomad: c}, jobs, Options{Timeout: time.Minute}, func(d Destroyed) { seen[d.Index] = d.JobID })
	if err != nil || len(seen) != 3 || seen[0] != "api-old" || seen[1] != "api-new" || seen[2] != "web" {
		t.Errorf("got %v, %v; want each job by its index", seen, err)
	}
}

func TestWatchedParty_OneJobIDInTwoNamespaces(t *testing.T) {
	t.Parallel()
	p := &watchedParty{
		specs: make([]spec, 2), running: make([]map[string]string, 2), native: make([]consul.Health, 2),
		list: []ServiceStatus{{Service: "a", JobID: "web", OK: true, index: 7}, {Service: "b", JobID: "web", OK: true, index: 9}},
	}
	p.judge(time.Now(), nil)
	p.judge(time.Now(), nil)
	if p.lost != "" {
		t.Errorf("got %q, want the jobs to be unchanged", p.lost)
	}
	p.list[1].index = 11
	if p.judge(time.Now(), nil); !strings.HasPrefix(p.lost, "b: ") {
		t.Errorf("got %q, want a change of b", p.lost)
	}
}

// testDestroyChildren destroys a parameterized job of which only the name is
// known, as from a record, with a child that runs; then one whose parent was
// purged by hand.
func testDestroyChildren(t *testing.T, c nomad.Clients) {
	dispatch := func(id string) string {
		t.Helper()
		job := mockJob(id, runs())
		job.Type, job.Update = ptr("batch"), nil
		job.TaskGroups[0].ReschedulePolicy = nil
		job.ParameterizedJob = &api.ParameterizedJobConfig{}
		if _, _, err := c.Nomad.Jobs().Register(job, nil); err != nil {
			t.Fatal(err)
		}
		child, _, err := c.Nomad.Jobs().Dispatch(id, nil, nil, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		return child.DispatchedJobID
	}
	destroyed := func(id, child string) {
		t.Helper()
		var got Destroyed
		err := Destroy(t.Context(), c, []render.Job{{Service: "s", Job: &api.Job{ID: &id}}}, Options{Timeout: 2 * time.Minute}, func(d Destroyed) { got = d })
		if err != nil || got.Missing {
			t.Fatalf("got %+v, %v; want the job and its child stopped", got, err)
		}
		for _, name := range []string{id, child} {
			if _, _, err := c.Nomad.Jobs().Info(name, nil); !nomad.IsNotFound(err) {
				t.Errorf("job %s: got %v, want it purged", name, err)
			}
		}
	}
	id := prefix(t) + "parent"
	cleanUp(t, c, id)
	destroyed(id, dispatch(id))

	child := dispatch(id)
	if _, _, err := c.Nomad.Jobs().Deregister(id, true, nil); err != nil {
		t.Fatal(err)
	}
	destroyed(id, child)
}

// testTwoJobsOfOneService deploys them side by side, as a rollback does to a
// release that carried the job of the former ID.
func testTwoJobsOfOneService(t *testing.T, c nomad.Clients) {
	a, b := prefix(t)+"old", prefix(t)+"new"
	cleanUp(t, c, a, b)
	jobs := []render.Job{service(mockJob(a, runs())), service(mockJob(b, runs()))}
	jobs[0].Service, jobs[1].Service = "api", "api"
	res, _ := deploy(t, c, Options{}, jobs...)
	wantOutcomes(t, res, Deployed, Deployed)
	if res.Services[0].JobID != a || res.Services[1].JobID != b {
		t.Errorf("got results of %s and %s, want %s and %s", res.Services[0].JobID, res.Services[1].JobID, a, b)
	}
}
