package rollout

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

func TestPlacement_Reason(t *testing.T) {
	t.Parallel()
	s := specOf(mockJob("j", runs()))
	for want, m := range map[string]*api.AllocationMetric{
		"memory exhausted on 1 of 1":                                                  {NodesEvaluated: 1, DimensionExhausted: map[string]int{"memory": 1}},
		"no node has a healthy mock_driver driver (1 of 1 filtered out)":              {NodesEvaluated: 1, ConstraintFiltered: map[string]int{"missing drivers": 1}},
		"1 of 3 nodes have no healthy mock_driver driver; memory exhausted on 2 of 3": {NodesEvaluated: 3, ConstraintFiltered: map[string]int{"missing drivers": 1}, DimensionExhausted: map[string]int{"memory": 2}},
		"${attr.kernel.name} = plan9 filtered out 2 of 2":                             {NodesEvaluated: 2, ConstraintFiltered: map[string]int{"${attr.kernel.name} = plan9": 2}},
		"no node in its datacenters and node pool":                                    {},
	} {
		if got := s.placementsOf(map[string]*api.AllocationMetric{"g": m})[0].Reason(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// A deployment that Nomad gave up at its progress deadline, while an allocation
// waited for a node, says so.
func TestJudge_FailedWithoutANode(t *testing.T) {
	t.Parallel()
	s := specOf(mockJob("j", runs()))
	v := judge(s, snapshot{
		deployment: &api.Deployment{Status: api.DeploymentStatusFailed, StatusDescription: "Failed due to progress deadline"},
		evals: []*api.Evaluation{
			{Status: "complete", FailedTGAllocs: map[string]*api.AllocationMetric{"g": {NodesEvaluated: 1, DimensionExhausted: map[string]int{"memory": 1}}}},
			{Status: "blocked"},
		},
	})
	if want := "Failed due to progress deadline; no node can take it: memory exhausted on 1 of 1"; v.outcome != Failed || v.detail != want {
		t.Errorf("got %q: %s, want %q: %s", v.outcome, v.detail, Failed, want)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		flags Options
		own   stack.Limits
		want  stack.Limits
	}{
		"defaults":                         {want: stack.Limits{Timeout: 15 * time.Minute, PlacementTimeout: 5 * time.Minute}},
		"the service's own":                {own: stack.Limits{Timeout: time.Hour, PlacementTimeout: time.Minute}, want: stack.Limits{Timeout: time.Hour, PlacementTimeout: time.Minute}},
		"a flag overrides":                 {flags: Options{Timeout: time.Second, PlacementTimeout: time.Second}, own: stack.Limits{Timeout: time.Hour, PlacementTimeout: time.Minute}, want: stack.Limits{Timeout: time.Second, PlacementTimeout: time.Second}},
		"a long wait leaves time to start": {own: stack.Limits{PlacementTimeout: 30 * time.Minute}, want: stack.Limits{Timeout: 40 * time.Minute, PlacementTimeout: 30 * time.Minute}},
	} {
		if got := c.flags.limits(c.own); got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

func TestPlaceable(t *testing.T) {
	t.Parallel()
	full := map[string]*api.AllocationMetric{"g": {NodesEvaluated: 1, DimensionExhausted: map[string]int{"memory": 1}}}
	filtered := map[string]*api.AllocationMetric{"g": {NodesEvaluated: 1, ConstraintFiltered: map[string]int{"missing compatible host volumes": 1}}}
	make := func(id string, index uint64, failed map[string]*api.AllocationMetric, u api.DesiredUpdates, diff *api.JobDiff) *step {
		job := service(mockJob(id, runs()))
		if diff == nil {
			diff = &api.JobDiff{Type: "Edited"}
		}
		return &step{Job: job, spec: specOf(job.Job), plan: &api.JobPlanResponse{
			JobModifyIndex: index, FailedTGAllocs: failed, Diff: diff,
			Annotations: &api.PlanAnnotations{DesiredTGUpdates: map[string]*api.DesiredUpdates{"g": &u}},
		}}
	}
	create := func(failed map[string]*api.AllocationMetric) *step {
		return make("new", 0, failed, api.DesiredUpdates{Place: 1}, &api.JobDiff{Type: "Added"})
	}
	withVolume := create(filtered)
	withVolume.Job.Job.TaskGroups[0].Volumes = map[string]*api.VolumeRequest{"v": {Type: "host", Source: "data", PerAlloc: true}}
	patient := create(full)
	patient.PlacementTimeout = time.Minute
	system := create(full)
	system.spec.kind = "system"
	replaces := make("other", 1, nil, api.DesiredUpdates{DestructiveUpdate: 1}, nil)
	inPlace := make("web", 1, full, api.DesiredUpdates{InPlaceUpdate: 1, Place: 1}, nil)
	more := make("web", 1, full, api.DesiredUpdates{InPlaceUpdate: 1, Place: 1}, &api.JobDiff{Type: "Edited", TaskGroups: []*api.TaskGroupDiff{
		{Name: "g", Type: "Edited", Fields: []*api.FieldDiff{{Name: "Count", Old: "1", New: "2"}}},
	}})
	replaced := make("web", 1, full, api.DesiredUpdates{DestructiveUpdate: 1}, nil)
	unchanged := make("web", 1, full, api.DesiredUpdates{Ignore: 1, Place: 1}, &api.JobDiff{Type: "None"})
	for name, c := range map[string]struct {
		steps   []*step
		opts    Options
		created []MissingVolume
		want    string
	}{
		"a new job without room":                {steps: []*step{create(full)}, want: "new: no node can take it: memory exhausted on 1 of 1"},
		"a new job with room":                   {steps: []*step{create(nil)}},
		"one that replaces and has no room":     {steps: []*step{replaced}, want: "web: no node can take it: memory exhausted on 1 of 1"},
		"one more of a group":                   {steps: []*step{more}, want: "web: no node can take it: memory exhausted on 1 of 1"},
		"in place, while one waits already":     {steps: []*step{inPlace}},
		"unchanged, while one waits already":    {steps: []*step{unchanged}},
		"another service makes room":            {steps: []*step{create(full), replaces}},
		"a constraint is not met by room":       {steps: []*step{create(filtered), replaces}, want: "new: no node can take it: missing compatible host volumes filtered out 1 of 1"},
		"a volume that is made":                 {steps: []*step{withVolume}, created: []MissingVolume{{Name: "data[0]"}}},
		"a volume that is not made":             {steps: []*step{withVolume}, want: "new: no node can take it: missing compatible host volumes filtered out 1 of 1"},
		"the stack says how long to wait":       {steps: []*step{patient}},
		"the command line says how long":        {steps: []*step{create(full)}, opts: Options{PlacementTimeout: time.Minute}},
		"a system job, which runs where it can": {steps: []*step{system}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := (&Plan{steps: c.steps, opts: c.opts}).Placeable(c.created)
			got := ""
			if err != nil {
				got = err.Error()
			}
			var nowhere *Unplaceable
			if got != c.want || errors.As(err, &nowhere) != (c.want != "") {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// A place that comes later than after a few seconds is still taken.
func testPlaceComesLater(t *testing.T, c nomad.Clients) {
	id := prefix(t) + "later"
	cleanUp(t, c, id)
	job := mockJob(id, runs())
	job.Constraints = []*api.Constraint{{LTarget: "${meta." + id + "}", RTarget: "yes", Operand: "="}}
	nodes, _, err := c.Nomad.Nodes().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	waits := make(chan string, 1)
	res, err := prepareAndApply(t.Context(), c, []render.Job{service(job)}, Options{}, func(e Event) {
		if strings.HasPrefix(e.Waiting, "a node with room") {
			once.Do(func() {
				waits <- e.Waiting
				time.AfterFunc(8*time.Second, func() {
					_, _ = c.Nomad.Nodes().Meta().Apply(&api.NodeMetaApplyRequest{NodeID: nodes[0].ID, Meta: map[string]*string{id: ptr("yes")}}, nil)
				})
			})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	wantOutcomes(t, res, Deployed)
	select {
	case got := <-waits:
		if want := "a node with room: ${meta." + id + "} = yes filtered out 1 of 1"; got != want {
			t.Errorf("it waited for %q, want %q", got, want)
		}
	default:
		t.Error("it did not wait")
	}
}

// What Nomad's dry run says of a job without a place, and of one that takes the
// place of what it replaces.
func testPlaceable(t *testing.T, c nomad.Clients) {
	first, second := prefix(t)+"first", prefix(t)+"second"
	cleanUp(t, c, first, second)
	nodes, _, err := c.Nomad.Nodes().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	node, _, err := c.Nomad.Nodes().Info(nodes[0].ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	large := func(id string) *api.Job {
		job := mockJob(id, runs())
		job.TaskGroups[0].Tasks[0].Resources.MemoryMB = ptr(int(node.NodeResources.Memory.MemoryMB)/2 + 1)
		return job
	}
	res, _ := deploy(t, c, Options{}, service(large(first)))
	wantOutcomes(t, res, Deployed)

	p, err := Prepare(t.Context(), c, []render.Job{service(large(second))}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := second + ": no node can take it: memory exhausted on 1 of 1"
	if err := p.Placeable(nil); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	next := large(first)
	next.TaskGroups[0].Tasks[0].Env = map[string]string{"A": "b"}
	if p, err = Prepare(t.Context(), c, []render.Job{service(next)}, Options{}); err != nil {
		t.Fatal(err)
	}
	if c := p.Changes()[0]; c.Action != ActionReplace {
		t.Errorf("got %s, want %s", c.Action, ActionReplace)
	}
	if err := p.Placeable(nil); err != nil {
		t.Errorf("a job that replaces its own allocation: %v", err)
	}
}
