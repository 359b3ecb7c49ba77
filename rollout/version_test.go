package rollout

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// ofJob is an allocation of one version of a job.
func ofJob(id string, version uint64, status string, healthy *bool) *api.AllocationListStub {
	a := alloc(status, healthy)
	a.ID, a.JobVersion = id, version
	return a
}

func TestCurrent(t *testing.T) {
	t.Parallel()
	with := func(a *api.AllocationListStub, next string, desired ...string) *api.AllocationListStub {
		a.NextAllocation = next
		if len(desired) > 0 {
			a.DesiredStatus = desired[0]
		}
		return a
	}
	for name, c := range map[string]struct {
		allocs []*api.AllocationListStub
		want   []string
	}{
		"replaced":                          {[]*api.AllocationListStub{with(ofJob("a", 0, "failed", nil), "b"), ofJob("b", 0, "running", nil)}, []string{"b"}},
		"replaced, and the other collected": {[]*api.AllocationListStub{with(ofJob("a", 0, "failed", nil), "b")}, nil},
		"disconnected":                      {[]*api.AllocationListStub{with(ofJob("a", 0, "unknown", nil), "b"), ofJob("b", 0, "running", nil)}, []string{"b"}},
		"reconnected, the original kept":    {[]*api.AllocationListStub{with(ofJob("a", 0, "running", nil), "b"), with(ofJob("b", 0, "complete", nil), "", "stop")}, []string{"a"}},
		"reconnected, the other kept":       {[]*api.AllocationListStub{with(ofJob("a", 0, "complete", nil), "b", "stop"), ofJob("b", 0, "running", nil)}, []string{"b"}},
		"reconnected, the other collected":  {[]*api.AllocationListStub{with(ofJob("a", 0, "running", nil), "b")}, []string{"a"}},
		"replaced twice":                    {[]*api.AllocationListStub{with(ofJob("a", 0, "unknown", nil), "b"), with(ofJob("b", 0, "complete", nil), "c", "stop"), ofJob("c", 0, "running", nil)}, []string{"c"}},
		"a circle":                          {[]*api.AllocationListStub{with(ofJob("a", 0, "running", nil), "b"), with(ofJob("b", 0, "complete", nil), "a", "stop")}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, a := range current(c.allocs) {
				got = append(got, a.ID)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// TestHealthByVersion tests the results of status, plan and gate for a job whose current
// version is 1.
func TestHealthByVersion(t *testing.T) {
	t.Parallel()
	yes, no := ptr(true), ptr(false)
	job := func(kind string, count int) *api.Job {
		j := mockJob("j", runs())
		j.Type, j.TaskGroups[0].Count = &kind, &count
		return j
	}
	old := func(a *api.AllocationListStub) *api.AllocationListStub { a.ModifyTime = 1; return a }
	deployment := func(version uint64, status string) *latestDeployment {
		return &latestDeployment{JobVersion: version, Status: status}
	}
	allocs := func(list ...*api.AllocationListStub) []*api.AllocationListStub { return list }
	for name, c := range map[string]struct {
		job        *api.Job
		deployment *latestDeployment
		allocs     []*api.AllocationListStub
		status     string // of the job; "running" when ""

		ok      bool
		healthy int
		detail  string // or the note
		settled bool
	}{
		"all of the current version": {
			job: job("service", 2), deployment: deployment(1, "successful"),
			allocs: allocs(ofJob("a", 1, "running", yes), ofJob("b", 1, "running", yes)),
			ok:     true, healthy: 2, settled: true,
		},
		"the deployment failed and the older version serves": {
			job: job("service", 2), deployment: deployment(1, "failed"),
			allocs: allocs(ofJob("a", 0, "running", yes), ofJob("b", 0, "running", yes)),
			detail: "the deployment of version 1 failed, and an older version runs (2 allocations)",
		},
		"the deployment failed half-way": {
			job: job("service", 2), deployment: deployment(1, "failed"),
			allocs:  allocs(ofJob("a", 1, "running", yes), ofJob("b", 0, "running", yes)),
			healthy: 1, detail: "the deployment of version 1 failed, and an older version runs (1 allocation)",
		},
		"an older canary is left over": {
			job: job("service", 1), deployment: deployment(0, "cancelled"),
			allocs:  allocs(ofJob("a", 1, "running", yes), ofJob("b", 0, "running", yes)),
			healthy: 1, detail: "1 of 1 allocations healthy; an older version runs (1 allocation)",
		},
		"the deployment is in progress": {
			job: job("service", 2), deployment: deployment(1, "running"),
			allocs:  allocs(ofJob("a", 1, "running", yes), ofJob("b", 1, "running", nil)),
			healthy: 1, detail: "1 of 2 allocations healthy",
		},
		"canaries wait": {
			job: job("service", 2), deployment: &latestDeployment{JobVersion: 1, Status: "running", RequiresPromotion: true},
			allocs:  allocs(ofJob("a", 0, "running", yes), ofJob("b", 0, "running", yes), ofJob("c", 1, "running", yes)),
			healthy: 1, detail: "version 1 waits for a promotion; 1 of 2 allocations healthy",
		},
		"unhealthy": {
			job: job("service", 1), deployment: deployment(1, "failed"),
			allocs: allocs(ofJob("a", 1, "running", no)), detail: "0 of 1 allocations healthy",
		},
		"its node is lost": {
			job: job("service", 1), allocs: allocs(ofJob("a", 1, "lost", yes)), detail: "0 of 1 allocations healthy",
		},
		"its node is disconnected": {
			job: job("service", 2), allocs: allocs(ofJob("a", 1, "unknown", yes), ofJob("b", 1, "running", yes)),
			healthy: 1, detail: "1 of 2 allocations healthy",
		},
		"an allocation is missing": {
			job: job("service", 2), allocs: allocs(ofJob("a", 1, "running", yes)),
			healthy: 1, detail: "1 of 2 allocations healthy",
		},
		"failed for good": {
			job: job("service", 1), deployment: deployment(1, "successful"),
			allocs: allocs(old(ofJob("a", 1, "failed", yes))), detail: "0 of 1 allocations healthy: one failed, and Nomad starts no other: redeploy it",
		},
		"an older one failed for good": {
			job: job("service", 1), allocs: allocs(old(ofJob("a", 0, "failed", yes))),
			detail: "0 of 1 allocations healthy: one failed, and Nomad starts no other: redeploy it",
		},
		"a batch job that ended": {
			job: job("batch", 1), allocs: allocs(ofJob("a", 1, "complete", nil)), status: "dead",
			ok: true, healthy: 1, settled: true,
		},
		"a batch job that failed after a version that ended": {
			job: job("batch", 1), allocs: allocs(ofJob("a", 0, "complete", nil), old(ofJob("b", 1, "failed", nil))), status: "dead",
			detail: "0 of 1 allocations healthy: one failed, and Nomad starts no other: redeploy it",
		},
		"a batch job that ended in both versions": {
			job: job("batch", 1), allocs: allocs(ofJob("a", 0, "complete", nil), ofJob("b", 1, "complete", nil)), status: "dead",
			ok: true, healthy: 1, settled: true,
		},
		"a system job that no node takes":  {job: job("system", 1), ok: true, detail: noNode},
		"a sysbatch job without a node":    {job: job("sysbatch", 1), status: "dead", ok: true, detail: noNode},
		"a system job, not yet placed":     {job: job("system", 1), status: "pending", detail: "the scheduler has not placed it yet"},
		"a system job, half of it updated": {job: job("system", 1), allocs: allocs(ofJob("a", 0, "running", yes), ofJob("b", 1, "running", yes)), healthy: 1, detail: "1 of 1 allocations healthy; an older version runs (1 allocation)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := specOf(c.job)
			status := c.status
			if status == "" {
				status = "running"
			}
			l := &listed{
				stub: &api.JobListStub{ID: "j", Type: s.kind, Status: status}, allocs: c.allocs,
				versioned: versioned{Version: 1, GroupCountSum: s.total(), LatestDeployment: c.deployment},
			}
			st, _ := s.status(service(c.job), l, s.total())
			if detail := st.Detail + st.Note; st.OK != c.ok || st.Healthy != c.healthy || detail != c.detail || st.Version != 1 {
				t.Errorf("status: got ok %v, %d healthy, version %d, %q; want ok %v, %d healthy, version 1, %q", st.OK, st.Healthy, st.Version, detail, c.ok, c.healthy, c.detail)
			}
			if got := s.settled(l, nil, nil, nil); got != c.settled {
				t.Errorf("settled: got %v, want %v", got, c.settled)
			}
		})
	}
}

// Nomad collects an allocation that failed; a restart of another one is seen
// nevertheless.
func TestGate_CollectedAllocation(t *testing.T) {
	t.Parallel()
	marks, sum := highWater{}, 0
	var got []int
	for _, troubles := range []map[string]int{
		{"a": 1},         // failed
		{"a": 1, "b": 0}, // replaced
		{"b": 0},         // collected
		{"b": 1},         // the new one restarts
		{"b": 1},
		{"b": 2},
	} {
		sum += marks.raise(troubles)
		got = append(got, sum)
	}
	if want := []int{1, 1, 1, 2, 2, 3}; !slices.Equal(got, want) {
		t.Errorf("troubles are %v, want %v", got, want)
	}
}

// An allocation fails between the reading of the evaluations and that of the
// allocations. Its replacement is planned before the evaluations are read again.
func TestFollow_FailsBetweenReadings(t *testing.T) {
	t.Parallel()
	failed := ofJob("a", 0, "failed", nil)
	later := ofJob("a", 0, "failed", nil)
	later.FollowupEvalID = "next"
	first := &api.Evaluation{ID: "first", Status: "complete", ModifyIndex: 10}
	retry := &api.Evaluation{ID: "retry", Status: "complete", ModifyIndex: 20}
	evals := [][]*api.Evaluation{{first}, {first, retry}, {first, retry}}
	allocs := [][]*api.AllocationListStub{{failed}, {later}}
	next := func(n *int, length int) int { *n++; return min(*n, length) - 1 }
	var e, a int
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var answer any
		switch r.URL.Path {
		case "/v1/job/j":
			answer = api.Job{ID: ptr("j"), Version: ptr(uint64(0)), JobModifyIndex: ptr(uint64(5))}
		case "/v1/job/j/evaluations":
			answer = evals[next(&e, len(evals))]
		case "/v1/job/j/allocations":
			answer = allocs[next(&a, len(allocs))]
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	defer srv.Close()
	c, err := nomadClient(srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	job := mockJob("j", crashes())
	job.Type, job.Update = ptr("batch"), nil
	f := &follower{clients: nomad.Clients{Nomad: c}, step: &step{Job: service(job), spec: specOf(job)}, target: 5}
	n, err := f.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if v := judge(f.step.spec, n); v.outcome != "" {
		t.Errorf("got %s (%s), want it to wait for the next attempt", v.outcome, v.detail)
	}
}

// A version fails and the older one keeps serving: nothing calls that healthy
// or unchanged, and the next deploy tries the version again.
func testFailedVersion(t *testing.T, c nomad.Clients) {
	id := prefix(t) + "web"
	cleanUp(t, c, id)
	version := func(config map[string]any) render.Job {
		j := mockJob(id, config)
		j.TaskGroups[0].Count, j.Update.Canary, j.Update.AutoPromote = ptr(2), ptr(1), ptr(true)
		return service(j)
	}
	good, bad := version(runs()), version(crashes())
	res, _ := deploy(t, c, Options{}, good)
	wantOutcomes(t, res, Deployed)
	res, _ = deploy(t, c, Options{}, bad)
	wantOutcomes(t, res, Failed)

	st, err := Status(t.Context(), c, []render.Job{bad})
	if err != nil {
		t.Fatal(err)
	}
	if st[0].OK || st[0].Healthy != 0 || st[0].Version != 1 || !strings.Contains(st[0].Detail, "the deployment of version 1 failed, and an older version runs (2 allocations)") {
		t.Errorf("status of a failed version: %+v", st[0])
	}
	gate, err := Hold(t.Context(), []Party{{Clients: c, Jobs: []render.Job{bad}}}, GateOptions{Gate: stack.Gate{Timeout: time.Second}}, nil)
	if err != nil || gate.OK {
		t.Errorf("a gate before a failed version: %+v, %v", gate, err)
	}
	plan, err := Prepare(t.Context(), c, []render.Job{bad}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if ch := plan.Changes()[0]; plan.Unchanged() || ch.Action != ActionReplace || !ch.Retry || ch.Reason != "the deployment of this same spec failed (version 1)" {
		t.Errorf("plan of a failed version: %+v", ch)
	}
	if res := plan.Apply(t.Context(), nil); res.Outcome() != Failed || !res.Services[0].Submitted {
		t.Errorf("the failed version once more: %s", dump(res))
	}
	res, _ = deploy(t, c, Options{}, good)
	wantOutcomes(t, res, Deployed)
}

// A system job that no node takes is all right for deploy, status, gate and the
// next deploy.
func testSystemNowhere(t *testing.T, c nomad.Clients) {
	for _, kind := range []string{"system", "sysbatch"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			id := prefix(t) + "job"
			cleanUp(t, c, id)
			j := mockJob(id, runs())
			typed(kind)(j)
			j.Constraints = []*api.Constraint{{LTarget: "${attr.kernel.name}", RTarget: "plan9", Operand: "="}}
			res, _ := deploy(t, c, Options{}, service(j))
			wantOutcomes(t, res, Deployed)
			st, err := Status(t.Context(), c, []render.Job{service(j)})
			if err != nil {
				t.Fatal(err)
			}
			if !st[0].OK || st[0].Note != noNode || !strings.HasPrefix(res.Services[0].Note, noNode) {
				t.Errorf("status %+v, outcome %+v; want both to be good, with a note", st[0], res.Services[0])
			}
			gate, err := Hold(t.Context(), []Party{{Clients: c, Jobs: []render.Job{service(j)}}}, GateOptions{Gate: stack.Gate{Timeout: 5 * time.Second}, Bake: time.Second}, nil)
			if err != nil || !gate.OK {
				t.Errorf("gate: %+v, %v", gate, err)
			}
			res, _ = deploy(t, c, Options{}, service(j))
			wantOutcomes(t, res, Unchanged)
		})
	}
}

// An autoscaler changes the count of a job that has no deployment, while it
// starts: the rollout follows what the job is now.
func testScaledWhileStarting(t *testing.T, c nomad.Clients) {
	id := prefix(t) + "web"
	cleanUp(t, c, id)
	j := mockJob(id, map[string]any{"run_for": "1h", "start_block_for": "3s"})
	j.Update = &api.UpdateStrategy{MaxParallel: ptr(0)}
	j.TaskGroups[0].Scaling = &api.ScalingPolicy{Min: ptr(int64(1)), Max: ptr(int64(5)), Enabled: ptr(true)}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	res, err := prepareAndApply(ctx, c, []render.Job{service(j)}, Options{}, func(e Event) {
		if e.Kind == EventSubmitted {
			if _, _, err := c.Nomad.Jobs().Scale(id, "g", ptr(3), "load", false, nil, nil); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	wantOutcomes(t, res, Deployed)
	if s := res.Services[0]; s.Healthy != 3 || s.Desired != 3 {
		t.Errorf("%d/%d are healthy, want 3/3", s.Healthy, s.Desired)
	}
}

// The only allocation has failed for good, and the next version would change
// nothing but the service: Nomad would update that in place and start nothing.
func testNothingAlive(t *testing.T, c nomad.Clients) {
	id := prefix(t) + "web"
	cleanUp(t, c, id)
	j := checked(mockJob(id, map[string]any{"run_for": "2s", "exit_code": 1}), openPort(t))
	res, _ := deploy(t, c, Options{}, service(j))
	wantOutcomes(t, res, Deployed)
	if err := poll(t.Context(), func() bool {
		allocs, _, err := c.Nomad.Jobs().Allocations(id, false, nil)
		return err == nil && len(allocs) == 1 && failedForGood(allocs[0])
	}); err != nil {
		t.Fatal(err)
	}
	next := checked(mockJob(id, map[string]any{"run_for": "2s", "exit_code": 1}), openPort(t))
	next.TaskGroups[0].Services[0].Tags = []string{"former"}
	plan, err := Prepare(t.Context(), c, []render.Job{service(next)}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if ch := plan.Changes()[0]; ch.Action != ActionRecreate || ch.Reason != nothingAlive {
		t.Errorf("the plan: %+v", ch)
	}
	wantOutcomes(t, plan.Apply(t.Context(), nil), Deployed)

	// If such a change is registered by hand, the job stays dead.
	if err := poll(t.Context(), func() bool {
		allocs, _, err := c.Nomad.Jobs().Allocations(id, false, nil)
		return err == nil && len(allocs) == 1 && failedForGood(allocs[0]) && time.Since(time.Unix(0, allocs[0].ModifyTime)) > schedulerPatience
	}); err != nil {
		t.Fatal(err)
	}
	hand := checked(mockJob(id, map[string]any{"run_for": "2s", "exit_code": 1}), openPort(t))
	hand.TaskGroups[0].Services[0].Tags = []string{"by hand"}
	if _, _, err := c.Nomad.Jobs().Register(hand, nil); err != nil {
		t.Fatal(err)
	}
	if err := poll(t.Context(), func() bool {
		evals, _, err := c.Nomad.Jobs().Evaluations(id, nil)
		return err == nil && !slices.ContainsFunc(evals, func(e *api.Evaluation) bool { return e.Status == api.EvalStatusPending })
	}); err != nil {
		t.Fatal(err)
	}
	res, _ = deploy(t, c, Options{}, service(hand))
	wantOutcomes(t, res, Deployed)
}

// Nomad collects a failed deployment before drover sees its end, as `nomad system gc`
// does: nothing of the version is left, and nothing would ever be.
func testCollectedFailure(t *testing.T, c nomad.Clients) {
	collect := func(ctx context.Context, id string) error {
		seen := false
		return poll(ctx, func() bool {
			list, _, err := c.Nomad.Jobs().Deployments(id, false, nil)
			if err != nil {
				return false
			}
			list = slices.DeleteFunc(list, func(d *api.Deployment) bool { return d.Status != api.DeploymentStatusFailed })
			if len(list) > 0 {
				seen = true
				_ = c.Nomad.System().GarbageCollect()
			}
			return seen && len(list) == 0
		})
	}
	t.Run("before the first look", func(t *testing.T) {
		id := prefix(t) + "web"
		cleanUp(t, c, id)
		var once sync.Once
		opts := Options{Timeout: 40 * time.Second, After: func(ctx context.Context, _ Submission, _ uint64) (err error) {
			once.Do(func() { err = collect(ctx, id) })
			return err
		}}
		res, _ := deploy(t, c, opts, service(mockJob(id, broken())))
		wantOutcomes(t, res, Failed)
		if f := res.Services[0].Failure; f == nil || len(f.Tasks) != 1 || !strings.Contains(f.Tasks[0].Message, "broken") {
			t.Errorf("why it failed is not told: %s", dump(res))
		}
	})
	// hold collects the failed deployment before the second look at it. Nomad fails to
	// answer the first question for versions.
	hold := func(t *testing.T, id string) nomad.Clients {
		t.Helper()
		proxy := devtest.NewProxy(t, &api.Config{Address: c.Nomad.Address(), TLSConfig: &api.TLSConfig{}})
		through, err := nomadClient(proxy.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		var once, unwell sync.Once
		proxy.Before(func(w http.ResponseWriter, r *http.Request) bool {
			answered := false
			if strings.HasSuffix(r.URL.Path, "/versions") {
				unwell.Do(func() {
					answered = true
					http.Error(w, "no leader", http.StatusInternalServerError)
				})
			}
			if strings.HasPrefix(r.URL.Path, "/v1/deployment/") { // it was seen before
				once.Do(func() {
					if err := collect(r.Context(), id); err != nil {
						t.Error(err)
					}
				})
			}
			return !answered
		})
		return nomad.Clients{Nomad: through, Consul: c.Consul}
	}
	t.Run("between two looks", func(t *testing.T) {
		id := prefix(t) + "web"
		cleanUp(t, c, id)
		res, _ := deploy(t, hold(t, id), Options{Timeout: 40 * time.Second}, service(mockJob(id, crashes())))
		wantOutcomes(t, res, Failed)
		if got := res.Services[0].Detail; !strings.Contains(got, "collected") {
			t.Errorf("got detail %q, want what Nomad did", got)
		}
	})
	t.Run("and rolled back", func(t *testing.T) {
		id := prefix(t) + "web"
		cleanUp(t, c, id)
		job := mockJob(id, runs())
		job.Update.AutoRevert = ptr(true)
		res, _ := deploy(t, c, Options{}, service(job))
		wantOutcomes(t, res, Deployed)
		bad := mockJob(id, crashes())
		bad.Update.AutoRevert = ptr(true)
		res, _ = deploy(t, hold(t, id), Options{Timeout: 40 * time.Second}, service(bad))
		wantOutcomes(t, res, FailedReverted)
	})
}
