package consul

import (
	"reflect"
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
			{Name: "front", PortLabel: "http", Checks: []api.ServiceCheck{{Name: "up"}, {OnUpdate: "ignore_warnings"}}},
			{Name: "native", Provider: "nomad", PortLabel: "http"},
			{Provider: "consul"},
			{Name: "of-${node.unique.name}"},
			{Name: "api", PortLabel: "9001", Connect: &api.ConsulConnect{SidecarService: &api.ConsulSidecarService{}}},
		},
		Tasks: []*api.Task{
			{Name: "main", Services: []*api.Service{{Name: "${NOMAD_JOB_NAME}-${TASK}", OnUpdate: "ignore", Checks: []api.ServiceCheck{{}}}}},
			{Name: "before", Lifecycle: &api.TaskLifecycle{Hook: "prestart"}, Services: []*api.Service{{Name: "gone"}}},
			{Name: "beside", Lifecycle: &api.TaskLifecycle{Hook: "prestart", Sidecar: true}, Services: []*api.Service{{Name: "stays"}}},
		},
	}}}
	want := []Service{
		{Name: "front", Provider: "consul", Group: "g", ID: "-group-g-front-http", Checks: []Check{{"up", "passing"}, {`service: "front" check`, "warning"}}},
		{Name: "native", Provider: "nomad", Group: "g", ID: "-group-g-native-http"},
		{Name: "web-g-group", Provider: "consul", Group: "g", ID: "-group-g-web-g-group-"},
		{Name: "api", Provider: "consul", Group: "g", ID: "-group-g-api-9001"},
		{Name: "api-sidecar-proxy", Provider: "consul", Group: "g", ID: "-group-g-api-9001-sidecar-proxy", Proxy: true},
		{Name: "web-main", Provider: "consul", Group: "g", ID: "-main-web-main-", Checks: []Check{{`service: "web-main" check`, "critical"}}},
		{Name: "stays", Provider: "consul", Group: "g", ID: "-beside-stays-"},
	}
	got := Services(job)
	if len(got) != len(want) {
		t.Fatalf("got %+v", got)
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("%d is %+v, want %+v", i, got[i], want[i])
		}
	}
}

// judged is a service with checks, and what is registered for two allocations.
func judged(service *api.Service, instances ...Instance) Health {
	service.Name, service.PortLabel = "web", "http"
	job := &api.Job{ID: ptr("j"), TaskGroups: []*api.TaskGroup{{Name: ptr("g"), Services: []*api.Service{service}}}}
	return Judge(Services(job), map[string]string{"a1": "g", "a2": "g", "b1": "other"}, map[string][]Instance{"web": instances})
}

// instance has a check "c" with each status.
func instance(alloc string, status ...string) Instance {
	in := Instance{ServiceID: "_nomad-task-" + alloc + "-group-g-web-http"}
	for _, s := range status {
		in.Checks = append(in.Checks, check(in, "c", s))
	}
	return in
}

func check(in Instance, name, status string) *capi.HealthCheck {
	return &capi.HealthCheck{Name: name, Status: status, ServiceID: in.ServiceID, Node: "n1", Output: " why \n"}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	strict := func() *api.Service { return &api.Service{Checks: []api.ServiceCheck{{Name: "c"}}} }
	lenient := func() *api.Service {
		return &api.Service{Checks: []api.ServiceCheck{{Name: "c", OnUpdate: "ignore_warnings"}}}
	}
	for name, c := range map[string]struct {
		service        *api.Service
		instances      []Instance
		total, passing int
		status         string // of the first that fails
	}{
		"all pass":              {strict(), []Instance{instance("a1", "passing"), instance("a2", "passing", "passing")}, 2, 2, ""},
		"one missing":           {strict(), []Instance{instance("a1", "passing")}, 2, 1, Missing},
		"old ones do not count": {strict(), []Instance{instance("old", "critical"), instance("a1", "passing"), instance("a2", "passing")}, 2, 2, ""},
		"old ones do not help":  {strict(), []Instance{instance("old", "passing"), instance("a1", "passing")}, 2, 1, Missing},
		"one critical":          {strict(), []Instance{instance("a1", "critical"), instance("a2", "passing")}, 2, 1, "critical"},
		"warning":               {strict(), []Instance{instance("a1", "warning"), instance("a2", "passing")}, 2, 1, "warning"},
		"warning tolerated":     {lenient(), []Instance{instance("a1", "warning"), instance("a2", "passing")}, 2, 2, ""},
		"critical is more than a warning": {
			lenient(), []Instance{instance("a1", "critical"), instance("a2", "passing")}, 2, 1, "critical",
		},
		"a check is not registered yet": {strict(), []Instance{instance("a1"), instance("a2", "passing")}, 2, 1, Missing},
		"one of two checks is not registered yet": {
			&api.Service{Checks: []api.ServiceCheck{{Name: "c"}, {Name: "d"}}},
			[]Instance{instance("a1", "passing"), instance("a2", "passing")}, 2, 0, Missing,
		},
		"one of two checks of the same name is not registered yet": {
			&api.Service{Checks: []api.ServiceCheck{{Name: "c"}, {Name: "c"}}},
			[]Instance{instance("a1", "passing", "passing"), instance("a2", "passing")}, 2, 1, Missing,
		},
		"registered with another port": {
			strict(), []Instance{instance("a1", "passing"), {ServiceID: "_nomad-task-a2-group-g-web-htpt", Checks: instance("a2", "passing").Checks}}, 2, 1, Missing,
		},
		"a name that a client fills in": {
			&api.Service{Checks: []api.ServiceCheck{{Name: "c${attr.x}", OnUpdate: "ignore"}}},
			[]Instance{instance("a1", "critical"), instance("a2", "passing")}, 2, 2, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := judged(c.service, c.instances...)
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

func TestJudge_NodeChecks(t *testing.T) {
	t.Parallel()
	node := func(status string) Instance {
		in := instance("a1", "passing")
		in.Checks = append(in.Checks, &capi.HealthCheck{Name: "disk", Status: status, Node: "n1"})
		return in
	}
	other := func(name, kind, status string) Instance { // a check of the instance that the spec does not declare
		in := instance("a1", "passing")
		c := check(in, name, status)
		c.Type = kind
		in.Checks = append(in.Checks, c)
		return in
	}
	for name, c := range map[string]struct {
		first Instance
		want  string // what fails
	}{
		"a warning of the node is ignored":                     {node("warning"), ""},
		"a critical node takes its instances out":              {node("critical"), `check "disk" of node n1, where web runs, is critical`},
		"maintenance of the instance takes it out":             {other("Service Maintenance Mode", "", "critical"), `check "Service Maintenance Mode" of web is critical`},
		"a warning of a check that is not declared is ignored": {other("extra", "", "warning"), ""},
		"an alias check repeats what is judged itself":         {other("Connect Sidecar Aliasing x", "alias", "critical"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := judged(&api.Service{Checks: []api.ServiceCheck{{Name: "c"}}}, c.first, instance("a2", "passing"))
			got := ""
			if len(h.Failing) > 0 {
				got = h.Failing[0].String()
			}
			if got != c.want || h.Healthy() != (c.want == "") {
				t.Errorf("got %q, want %q (%+v)", got, c.want, h)
			}
		})
	}
}

func TestJudge_ToleranceIsPerCheck(t *testing.T) {
	t.Parallel()
	both := func(ready, slow string) Instance {
		in := instance("a1")
		in.Checks = capi.HealthChecks{check(in, `service: "web" check`, ready), check(in, "slow", slow)}
		return in
	}
	for name, c := range map[string]struct {
		ready, slow string
		want        bool
	}{
		"the ignored check may be critical": {"passing", "critical", true},
		"the other one may not":             {"critical", "passing", false},
		"not even in warning":               {"warning", "passing", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service := &api.Service{Checks: []api.ServiceCheck{{}, {Name: "slow", OnUpdate: "ignore"}}}
			second := both("passing", "passing")
			second.ServiceID = "_nomad-task-a2-group-g-web-http"
			if h := judged(service, both(c.ready, c.slow), second); h.Healthy() != c.want {
				t.Errorf("healthy is %v, want %v: %+v", h.Healthy(), c.want, h)
			}
		})
	}
}
