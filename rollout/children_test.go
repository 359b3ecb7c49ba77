package rollout

import (
	"testing"

	"github.com/hashicorp/nomad/api"
)

// TestChildren counts the runs of a periodic or parameterized job.
func TestChildren(t *testing.T) {
	run := func(index uint64, status string, summary api.TaskGroupSummary) *api.JobListStub {
		return &api.JobListStub{
			ID: "j/periodic-" + string(rune('0'+index)), CreateIndex: index, Status: status,
			JobSummary: &api.JobSummary{Summary: map[string]api.TaskGroupSummary{"g": summary}},
		}
	}
	for name, c := range map[string]struct {
		stubs        []*api.JobListStub
		counts, note string
	}{
		"none":                         {nil, "none running", "it has not run, or Nomad has collected its runs"},
		"running":                      {[]*api.JobListStub{run(1, "dead", api.TaskGroupSummary{Complete: 1}), run(2, "running", api.TaskGroupSummary{Running: 1})}, "1 running", "j/periodic-2"},
		"running and pending":          {[]*api.JobListStub{run(1, "pending", api.TaskGroupSummary{}), run(2, "running", api.TaskGroupSummary{})}, "1 running, 1 pending", "j/periodic-2, j/periodic-1"},
		"failed":                       {[]*api.JobListStub{run(1, "dead", api.TaskGroupSummary{Complete: 1}), run(2, "dead", api.TaskGroupSummary{Failed: 2})}, "none running", "the last run, j/periodic-2, is failed"},
		"failed, then completed":       {[]*api.JobListStub{run(2, "dead", api.TaskGroupSummary{Failed: 1, Complete: 1})}, "none running", "the last run, j/periodic-2, is complete"},
		"stopped":                      {[]*api.JobListStub{{ID: "j/dispatch-1", Status: "dead", Stop: true}}, "none running", "the last run, j/dispatch-1, is stopped"},
		"more than a note has room":    {[]*api.JobListStub{run(1, "running", api.TaskGroupSummary{}), run(2, "running", api.TaskGroupSummary{}), run(3, "running", api.TaskGroupSummary{}), run(4, "running", api.TaskGroupSummary{}), run(5, "running", api.TaskGroupSummary{})}, "5 running", "j/periodic-5, j/periodic-4, j/periodic-3 and 2 more"},
		"lost with its node, and over": {[]*api.JobListStub{run(1, "dead", api.TaskGroupSummary{Lost: 1})}, "none running", "the last run, j/periodic-1, is failed"},
	} {
		t.Run(name, func(t *testing.T) {
			got := countChildren(c.stubs)
			if got.String() != c.counts || got.note() != c.note {
				t.Errorf("got %q, %q; want %q, %q", got, got.note(), c.counts, c.note)
			}
		})
	}
}

// TestReadable picks the allocations whose logs are read.
func TestReadable(t *testing.T) {
	alloc := func(id, status string, index uint64) *api.AllocationListStub {
		return &api.AllocationListStub{ID: id, ClientStatus: status, CreateIndex: index}
	}
	known := map[string]bool{}
	for _, c := range []struct {
		what   string
		allocs []*api.AllocationListStub
		first  bool
		want   string
	}{
		{"the newest when none runs", []*api.AllocationListStub{alloc("a", "complete", 1), alloc("b", "complete", 2)}, true, "b"},
		{"one that waits", []*api.AllocationListStub{alloc("a", "complete", 1), alloc("b", "complete", 2), alloc("c", "pending", 3)}, false, "c"},
		{"one that ended before it was seen running", []*api.AllocationListStub{alloc("a", "complete", 1), alloc("b", "complete", 2), alloc("c", "complete", 3)}, false, "c"},
		{"nothing new", []*api.AllocationListStub{alloc("a", "complete", 1), alloc("b", "complete", 2), alloc("c", "complete", 3)}, false, ""},
		{"one that runs", []*api.AllocationListStub{alloc("c", "complete", 3), alloc("d", "running", 4)}, false, "d"},
	} {
		got := ""
		for _, a := range readable(c.allocs, c.first, known) {
			got += a.ID
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
	}
}
