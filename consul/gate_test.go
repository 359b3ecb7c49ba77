package consul

import (
	"testing"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"
)

func ptr[T any](v T) *T { return &v }

func TestServices(t *testing.T) {
	t.Parallel()
	job := &api.Job{ID: ptr("web"), Name: ptr("web"), TaskGroups: []*api.TaskGroup{{
		Name: ptr("g"),
		Services: []*api.Service{
			{Name: "front", Checks: []api.ServiceCheck{{}, {OnUpdate: "ignore_warnings"}}},
			{Name: "native", Provider: "nomad"},
			{Provider: "consul"},
			{Name: "of-${node.unique.name}"},
		},
		Tasks: []*api.Task{
			{Name: "main", Services: []*api.Service{{Name: "${NOMAD_JOB_NAME}-${TASK}", OnUpdate: "ignore", Checks: []api.ServiceCheck{{}}}}},
			{Name: "before", Lifecycle: &api.TaskLifecycle{Hook: "prestart"}, Services: []*api.Service{{Name: "gone"}}},
			{Name: "beside", Lifecycle: &api.TaskLifecycle{Hook: "prestart", Sidecar: true}, Services: []*api.Service{{Name: "stays"}}},
		},
	}}}
	want := []Service{
		{Name: "front", Group: "g", Checks: 2, Tolerated: "warning"},
		{Name: "web-g-group", Group: "g", Tolerated: "passing"},
		{Name: "web-main", Group: "g", Checks: 1, Tolerated: "critical"},
		{Name: "stays", Group: "g", Tolerated: "passing"},
	}
	got := Services(job)
	if len(got) != len(want) {
		t.Fatalf("got %+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%d is %+v, want %+v", i, got[i], want[i])
		}
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	instance := func(alloc string, status ...string) Instance {
		in := Instance{ServiceID: "_nomad-task-" + alloc + "-group-g-web-http"}
		for _, s := range status {
			in.Checks = append(in.Checks, &capi.HealthCheck{Name: "c", Status: s, Output: " why \n"})
		}
		return in
	}
	web := Service{Name: "web", Group: "g", Checks: 1, Tolerated: "passing"}
	lenient := Service{Name: "web", Group: "g", Checks: 1, Tolerated: "warning"}
	for name, c := range map[string]struct {
		service        Service
		instances      []Instance
		total, passing int
		status         string // of the first that fails
	}{
		"all pass":              {web, []Instance{instance("a1", "passing"), instance("a2", "passing", "passing")}, 2, 2, ""},
		"one missing":           {web, []Instance{instance("a1", "passing")}, 2, 1, Missing},
		"old ones do not count": {web, []Instance{instance("old", "critical"), instance("a1", "passing"), instance("a2", "passing")}, 2, 2, ""},
		"old ones do not help":  {web, []Instance{instance("old", "passing"), instance("a1", "passing")}, 2, 1, Missing},
		"one critical":          {web, []Instance{instance("a1", "critical"), instance("a2", "passing")}, 2, 1, "critical"},
		"warning":               {web, []Instance{instance("a1", "warning"), instance("a2", "passing")}, 2, 1, "warning"},
		"warning tolerated":     {lenient, []Instance{instance("a1", "warning"), instance("a2", "passing")}, 2, 2, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			allocs := map[string]string{"a1": "g", "a2": "g", "b1": "other"}
			h := Judge([]Service{c.service}, allocs, map[string][]Instance{"web": c.instances})
			status := ""
			if len(h.Failing) > 0 {
				status = h.Failing[0].Status
			}
			if h.Total != c.total || h.Passing != c.passing || status != c.status {
				t.Errorf("got %+v", h)
			}
		})
	}
}
