package rollout

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// asks is a job whose task has one environment variable.
func asks(id, value string) *api.Job {
	j := mockJob(id, runs())
	j.TaskGroups[0].Tasks[0].Env = map[string]string{"FOO": value}
	return j
}

func with(j *api.Job, change ...func(*api.Job)) *api.Job {
	for _, f := range change {
		f(j)
	}
	return j
}

func counted(n int) func(*api.Job) {
	return func(j *api.Job) { j.TaskGroups[0].Count = &n }
}

func typed(kind string) func(*api.Job) {
	return func(j *api.Job) {
		j.Type = &kind
		if kind != "service" && kind != "system" {
			j.Update = nil
		}
		if kind != "service" && kind != "batch" {
			j.TaskGroups[0].Count, j.TaskGroups[0].ReschedulePolicy = nil, nil
		}
	}
}

func ends(j *api.Job) { j.TaskGroups[0].Tasks[0].Config = map[string]any{"run_for": "100ms"} }

func nightly(j *api.Job) {
	j.Periodic = &api.PeriodicConfig{Enabled: ptr(true), Spec: ptr("0 0 1 1 *"), SpecType: ptr("cron")}
}

// The plan shows all steps, while Nomad's shows the first one only. The test counts the
// allocations before and after, and compares.
func testPlanIsWhatHappens(t *testing.T, c nomad.Clients) {
	canary := func(j *api.Job) { j.Update.Canary, j.Update.AutoPromote = ptr(1), ptr(true) }
	batch, system, sysbatch := typed("batch"), typed("system"), typed("sysbatch")
	urgent := func(j *api.Job) { j.Priority = ptr(60) }
	atOnce := func(j *api.Job) {
		j.Update.MaxParallel = ptr(0)
		j.Update.MinHealthyTime, j.Update.HealthyDeadline, j.Update.ProgressDeadline = nil, nil, nil
	}
	takes := func(j *api.Job) { j.ParameterizedJob = &api.ParameterizedJobConfig{} }
	g := func(g GroupChange) []GroupChange { g.Group = "g"; return []GroupChange{g} }
	type change = func(*api.Job)
	for name, test := range map[string]struct {
		old, new []change
		value    string // of the new one's FOO; the old one's is a
		action   Action
		groups   []GroupChange
	}{
		"same":             {[]change{counted(2)}, []change{counted(2)}, "a", ActionNone, nil},
		"rolling":          {[]change{counted(3)}, []change{counted(3)}, "b", ActionReplace, g(GroupChange{Replace: 3, FirstStep: 1})},
		"more":             {[]change{counted(1)}, []change{counted(3)}, "a", ActionInPlace, g(GroupChange{Create: 2, InPlace: 1})},
		"less":             {[]change{counted(3)}, []change{counted(1)}, "a", ActionInPlace, g(GroupChange{Stop: 2, InPlace: 1})},
		"more and other":   {[]change{counted(2)}, []change{counted(3)}, "b", ActionReplace, g(GroupChange{Create: 1, Replace: 2})},
		"less and other":   {[]change{counted(3)}, []change{counted(2)}, "b", ActionReplace, g(GroupChange{Stop: 1, Replace: 2, FirstStep: 1})},
		"to none":          {[]change{counted(2)}, []change{counted(0)}, "a", ActionInPlace, g(GroupChange{Stop: 2})},
		"in place":         {[]change{counted(2)}, []change{counted(2), urgent}, "a", ActionInPlace, g(GroupChange{InPlace: 2})},
		"canary":           {[]change{counted(2), canary}, []change{counted(2), canary}, "b", ActionReplace, g(GroupChange{Replace: 2, Canaries: 1})},
		"max_parallel 0":   {[]change{counted(3), atOnce}, []change{counted(3), atOnce}, "b", ActionReplace, g(GroupChange{Replace: 3, FirstStep: 3})},
		"system":           {[]change{system}, []change{system}, "b", ActionReplace, g(GroupChange{Replace: 1, FirstStep: 1})},
		"system in place":  {[]change{system}, []change{system, urgent}, "a", ActionInPlace, g(GroupChange{InPlace: 1})},
		"batch ended":      {[]change{counted(2), batch, ends}, []change{counted(2), batch, ends}, "b", ActionReplace, g(GroupChange{Replace: 2, FirstStep: 2})},
		"sysbatch ended":   {[]change{sysbatch, ends}, []change{sysbatch, ends}, "b", ActionReplace, g(GroupChange{Replace: 1, FirstStep: 1})},
		"periodic":         {[]change{batch, nightly}, []change{batch, nightly}, "b", ActionInPlace, nil},
		"parameterized":    {[]change{batch, takes}, []change{batch, takes}, "b", ActionInPlace, nil},
		"another type":     {[]change{counted(2)}, []change{counted(2), batch, ends}, "a", ActionRecreate, g(GroupChange{Create: 2})},
		"becomes periodic": {[]change{batch, ends}, []change{batch, nightly}, "a", ActionRecreate, nil},
		"periodic no more": {[]change{batch, nightly}, []change{batch, ends}, "a", ActionRecreate, g(GroupChange{Create: 1})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id := strings.ReplaceAll(prefix(t), " ", "-") + "job"
			cleanUp(t, c, id)
			res, _ := deploy(t, c, Options{}, service(with(asks(id, "a"), test.old...)))
			wantOutcomes(t, res, Deployed)
			before := allocsOf(t, c, id)

			p, err := Prepare(t.Context(), c, []render.Job{service(with(asks(id, test.value), test.new...))}, Options{Replace: true})
			if err != nil {
				t.Fatal(err)
			}
			got := p.Changes()[0]
			if got.Action != test.action || !slices.Equal(got.Groups, test.groups) {
				t.Fatalf("planned %s %+v, want %s %+v", got.Action, got.Groups, test.action, test.groups)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
			defer cancel()
			if res := p.Apply(ctx, nil); !res.Outcome().OK() || res.Services[0].Submitted != (test.action != ActionNone) {
				t.Fatal(dump(res))
			}
			started, stopped := 0, 0
			after := allocsOf(t, c, id)
			for a, status := range after {
				if _, old := before[a]; !old {
					started++
				} else if status != "run" {
					stopped++
				}
			}
			var want GroupChange
			for _, g := range test.groups {
				want = g
			}
			ended := test.action == ActionRecreate || strings.HasSuffix(name, "ended") // there is nothing to stop, or nothing is left to see
			if started != want.Create+want.Replace || (!ended && stopped != want.Stop+want.Replace) {
				t.Errorf("%d started, %d stopped; planned %+v", started, stopped, want)
			}
			again, err := Prepare(t.Context(), c, p.Jobs(), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if a := again.Changes()[0]; a.Action != ActionNone {
				t.Errorf("deployed, and the plan says %+v", a)
			}
		})
	}
}

// allocsOf is the desired status of all allocations of a job, by ID.
func allocsOf(t *testing.T, c nomad.Clients, id string) map[string]string {
	t.Helper()
	list, _, err := c.Nomad.Jobs().Allocations(id, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, a := range list {
		out[a.ID] = a.DesiredStatus
	}
	return out
}

// A change that Nomad refuses needs a word more.
func testNeedsReplace(t *testing.T, c nomad.Clients) {
	id := prefix(t) + "job"
	cleanUp(t, c, id)
	res, _ := deploy(t, c, Options{}, service(asks(id, "a")))
	wantOutcomes(t, res, Deployed)
	p, err := Prepare(t.Context(), c, []render.Job{service(with(asks(id, "a"), typed("batch")))}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var needs *NeedsReplace
	if err := p.Allowed(); !errors.As(err, &needs) || !strings.Contains(err.Error(), "type changes from service to batch") {
		t.Errorf("%v", err)
	}
	res = p.Apply(t.Context(), nil)
	wantOutcomes(t, res, Failed)
	if v := *info(t, c, id).Version; v != 0 || res.Services[0].Submitted {
		t.Error(dump(res))
	}
}

// The count of a group that is scaled from outside is not the stack's.
func testKeepsScaledCount(t *testing.T, c nomad.Clients) {
	id := prefix(t) + "job"
	cleanUp(t, c, id)
	scaled := func(value string, maximum int64) render.Job {
		j := asks(id, value)
		j.TaskGroups[0].Scaling = &api.ScalingPolicy{Min: ptr(int64(1)), Max: &maximum, Enabled: ptr(true)}
		return service(j)
	}
	res, _ := deploy(t, c, Options{}, scaled("a", 5))
	wantOutcomes(t, res, Deployed)
	if _, _, err := c.Nomad.Jobs().Scale(id, "g", ptr(3), "busy", false, nil, nil); err != nil {
		t.Fatal(err)
	}
	res, _ = deploy(t, c, Options{}, scaled("a", 5))
	wantOutcomes(t, res, Unchanged)

	p, err := Prepare(t.Context(), c, []render.Job{scaled("b", 2)}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	got := p.Changes()[0]
	if !slices.Equal(got.Kept, []KeptCount{{Group: "g", Spec: 1, Live: 2, Scaled: 3}}) {
		t.Errorf("kept %+v", got.Kept)
	}
	res, _ = deploy(t, c, Options{}, scaled("b", 5))
	wantOutcomes(t, res, Deployed)
	if n := *info(t, c, id).TaskGroups[0].Count; n != 3 || res.Services[0].Healthy != 3 {
		t.Errorf("count is %d\n%s", n, dump(res))
	}
}

// A job that an autoscaler scales is still the same, whenever it does so: also
// right after its first registration, when Nomad's own plan says otherwise.
func testScaledIsOurs(t *testing.T, c nomad.Clients) {
	p := prefix(t)
	scaling := func(name, value string) render.Job {
		j := asks(p+name, value)
		j.TaskGroups[0].Count = ptr(2)
		j.TaskGroups[0].Scaling = &api.ScalingPolicy{Min: ptr(int64(1)), Max: ptr(int64(5)), Enabled: ptr(true)}
		cleanUp(t, c, *j.ID)
		return service(j)
	}
	scale := func(t *testing.T, j render.Job, n int) {
		t.Helper()
		if _, _, err := c.Nomad.Jobs().Scale(*j.Job.ID, "g", &n, "load", false, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("same", func(t *testing.T) {
		t.Parallel()
		j := scaling("same", "a")
		deploy(t, c, Options{}, j)
		same := func(value string, want bool) {
			t.Helper()
			is, index, err := Same(t.Context(), c, scaling("same", value).Job)
			if err != nil || is != want || index != *info(t, c, *j.Job.ID).JobModifyIndex {
				t.Errorf("the same as %s: %v at %d, %v", value, is, index, err)
			}
		}
		same("a", true)
		same("b", false)
		scale(t, j, 3)
		same("a", true)
		same("b", false)
	})
	t.Run("lost answer", func(t *testing.T) {
		t.Parallel()
		proxy := devtest.NewProxy(t, &api.Config{Address: c.Nomad.Address(), TLSConfig: &api.TLSConfig{}})
		j := scaling("answer", "a")
		var lost atomic.Bool
		proxy.Before(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPut || r.URL.Path != "/v1/jobs" || lost.Swap(true) {
				return true
			}
			if _, _, err := c.Nomad.Jobs().Register(j.Job, nil); err != nil {
				t.Error(err)
			}
			http.Error(w, "bad gateway", http.StatusBadGateway)
			return false
		})
		there := c
		var err error
		if there.Nomad, err = nomadClient(proxy.URL, nil); err != nil {
			t.Fatal(err)
		}
		res, _ := deploy(t, there, Options{}, j)
		wantOutcomes(t, res, Deployed)
	})
	t.Run("since the plan", func(t *testing.T) {
		t.Parallel()
		deploy(t, c, Options{}, scaling("plan", "a"))
		plan, err := Prepare(t.Context(), c, []render.Job{scaling("plan", "b")}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		scale(t, scaling("plan", "b"), 3)
		wantOutcomes(t, plan.Apply(t.Context(), nil), Deployed)
		if n := *info(t, c, p+"plan").TaskGroups[0].Count; n != 3 {
			t.Errorf("the count is %d", n)
		}
	})
	t.Run("changed since the plan", func(t *testing.T) {
		t.Parallel()
		deploy(t, c, Options{}, scaling("raced", "a"))
		plan, err := Prepare(t.Context(), c, []render.Job{scaling("raced", "b")}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		deploy(t, c, Options{}, scaling("raced", "theirs"))
		scale(t, scaling("raced", "theirs"), 3)
		wantOutcomes(t, plan.Apply(t.Context(), nil), Superseded)
	})
	t.Run("in a gate", func(t *testing.T) {
		t.Parallel()
		j := scaling("gate", "a")
		party := deployed(t, c, j)
		for _, n := range []int{4, 1} {
			deploy(t, c, Options{}, j) // Nomad scales nothing that is being deployed
			var once sync.Once
			r, err := Hold(t.Context(), []Party{party}, GateOptions{Gate: stack.Gate{Timeout: 2 * time.Second}, Bake: 5 * time.Second}, func(p GateProgress) {
				if p.Waiting == "" {
					once.Do(func() { scale(t, j, n) })
				}
			})
			if err != nil || !r.OK {
				t.Errorf("scaled to %d: %+v, %v", n, r, err)
			}
		}
	})
}

// Jobs of the last release that are in the stack no more.
func testFormer(t *testing.T, c nomad.Clients) {
	kept, gone, never := prefix(t)+"kept", prefix(t)+"gone", prefix(t)+"never"
	cleanUp(t, c, kept, gone)
	deploy(t, c, Options{}, service(asks(kept, "a")), service(asks(gone, "a")))
	p, err := Prepare(t.Context(), c, []render.Job{service(asks(kept, "a"))}, Options{Former: []Former{
		{Service: kept, JobID: kept}, {Service: gone, JobID: gone}, {Service: never, JobID: never},
	}})
	if err != nil {
		t.Fatal(err)
	}
	changes := p.Changes()
	if len(changes) != 2 || changes[0].Action != ActionNone || changes[1].Action != ActionStop || changes[1].JobID != gone || changes[1].Index == 0 {
		t.Errorf("%+v", changes)
	}
}

// A job without a place, and one that only stays because it is dead.
func testPlanTrouble(t *testing.T, c nomad.Clients) {
	id, dead := prefix(t)+"nowhere", prefix(t)+"dead"
	cleanUp(t, c, id, dead)
	nowhere := asks(id, "a")
	nowhere.Constraints = []*api.Constraint{{LTarget: "${attr.kernel.name}", RTarget: "plan9", Operand: "="}}
	res, _ := deploy(t, c, Options{}, service(mockJob(dead, crashes())))
	wantOutcomes(t, res, Failed)
	p, err := Prepare(t.Context(), c, []render.Job{service(nowhere), service(mockJob(dead, crashes()))}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	changes := p.Changes()
	if len(changes[0].Placement) != 1 || !strings.Contains(fmt.Sprint(changes[0].Placement[0]), "plan9 filtered out 1 of 1") {
		t.Errorf("%+v", changes[0])
	}
	if changes[1].Action != ActionRecreate || changes[1].Index == 0 || !strings.Contains(changes[1].Reason, "none of its allocations is healthy") {
		t.Errorf("%+v", changes[1])
	}
}
