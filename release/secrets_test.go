package release

import (
	"fmt"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/record"
)

func TestRestarts_Done(t *testing.T) {
	t.Parallel()
	re := restarts{tasks: map[[2]string]uint64{{"a1", "t"}: 1}}
	for name, tt := range map[string]struct {
		status, state string
		restarts      uint64
		want          bool
	}{
		"has not restarted":               {"running", "running", 1, false},
		"is about to start again":         {"pending", "pending", 2, false},
		"has restarted":                   {"running", "running", 2, true},
		"has ended":                       {"running", "dead", 1, true},
		"its allocation has been stopped": {"complete", "running", 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := re.done([]*api.AllocationListStub{{ID: "a1", ClientStatus: tt.status, TaskStates: map[string]*api.TaskState{"t": {State: tt.state, Restarts: tt.restarts}, "other": {State: "pending"}}}})
			if got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	if !re.done(nil) {
		t.Error("waits for an allocation that is gone")
	}
}

// TestTrimmed tests which items the variables of jobs keep at the end of a release.
func TestTrimmed(t *testing.T) {
	t.Parallel()
	lines := []record.Service{
		{Name: "drops", JobID: "drops", Change: record.ChangeUpdate, Spec: "2", Before: "1", Secrets: []string{"a"}, BeforeSecrets: []string{"a", "b"}},
		{Name: "none", JobID: "none", Change: record.ChangeUpdate, Spec: "2", Before: "1"},
		{Name: "first", JobID: "first", Change: record.ChangeUpdate, Spec: "2", Before: "1", Secrets: []string{"a"}, BeforeSecrets: []string{}},
		{Name: "pruned", JobID: "pruned", Change: record.ChangeStop, Before: "1", Secrets: []string{"a"}, BeforeSecrets: []string{"a"}},
		{Name: "carried", JobID: "carried", Change: record.ChangeNone, Step: record.StepUnchanged, Spec: "1", Before: "1", Secrets: []string{"a"}, BeforeSecrets: []string{"a"}},
		{Name: "new", JobID: "new", Change: record.ChangeCreate, Spec: "2", Secrets: []string{"a"}},
	}
	for name, tt := range map[string]struct {
		state record.State
		step  record.Step // of those that change
		stop  record.Step
		want  map[string]int // items by job
	}{
		"deployed":                {record.Done, record.StepDone, record.StepPruned, map[string]int{"drops": 1, "first": 1, "pruned": 0, "new": 1}},
		"back":                    {record.Reverted, record.StepReverted, record.StepPending, map[string]int{"drops": 2, "first": 0, "pruned": 1}},
		"aborted before anything": {record.Aborted, record.StepPending, record.StepPending, map[string]int{"drops": 2, "first": 0, "pruned": 1}},
		"another client's job":    {record.Reverted, record.StepSubmitted, record.StepPruning, map[string]int{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var in []record.Service
			for _, l := range lines {
				switch {
				case l.Change == record.ChangeStop:
					l.Step = tt.stop
				case l.Step == "":
					l.Step = tt.step
				}
				in = append(in, l)
			}
			got := map[string]int{}
			for _, j := range trimmed(in, tt.state) {
				got[*j.Job.ID] = len(j.Secrets)
			}
			if len(got) != len(tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			for id, n := range tt.want {
				if m, ok := got[id]; !ok || m != n {
					t.Errorf("%s: got %d items (%v), want %d", id, m, ok, n)
				}
			}
		})
	}
}

// TestSecretsLeft tests which items a job reads after a release.
func TestSecretsLeft(t *testing.T) {
	t.Parallel()
	l := record.Service{Spec: "2", Before: "1", Secrets: []string{"new"}, BeforeSecrets: []string{"old"}}
	for step, want := range map[record.Step]string{
		record.StepDone: "new", record.StepSubmitted: "new", record.StepFailed: "new", record.StepPending: "old", record.StepReverted: "old",
	} {
		l.Step = step
		if got := secretsLeft(l); len(got) != 1 || got[0] != want {
			t.Errorf("%s: got %q, want %q", step, got, want)
		}
	}
}

// Each job that gets secrets reaches them by the clients of all targets: that takes as
// little memory with many targets as with few.
func TestSecretsInNomad_ReachDoesNotGrow(t *testing.T) { //nolint:paralleltest // counts allocations
	allocations := func(targets int) float64 {
		clusters := map[string]Cluster{}
		for i := range targets {
			clusters[fmt.Sprint("t", i)] = nomadCluster{}
		}
		s := SecretsInNomad(record.OpenSecrets(nil, "shop", "prod", nil))
		return testing.AllocsPerRun(100, func() { s.Reach(clusters) })
	}
	if few, many := allocations(1), allocations(1000); many != few {
		t.Errorf("%v allocations with 1,000 targets, want %v as with one", many, few)
	}
}
