package rollout

import (
	"reflect"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/consul"
	"github.com/drover-nomad/drover/jobs"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// statusOf is what Status reads of a spec.
func statusOf(j *api.Job) map[string]any {
	s := specOf(j)
	return map[string]any{
		"id": s.id, "namespace": s.namespace, "region": s.region, "type": s.kind, "parent": s.parent, "counts": s.counts,
		"consul": s.consul, "native": s.native, "volumes": len(volumeGroups(j)) > 0,
	}
}

func checkOutline(t *testing.T, job *api.Job) {
	t.Helper()
	got := FromOutline(Outline(job))
	if got == nil {
		t.Fatalf("job %s has no outline", nomad.Deref(job.ID))
	}
	if got, want := statusOf(got), statusOf(job); !reflect.DeepEqual(got, want) {
		t.Errorf("the outline of job %s has\n%v, want\n%v", nomad.Deref(job.ID), got, want)
	}
}

func TestOutline_ShippedStacks(t *testing.T) {
	t.Parallel()
	outlined := 0
	for name, env := range map[string]string{"ocis": "dev", "edge": "", "edge-nginx": "", "drover": ""} {
		files, err := jobs.Stack(name)
		if err != nil {
			t.Fatal(err)
		}
		s, err := stack.Load(t.Context(), stack.Options{Path: name, FS: files, Environment: env, Environ: []string{"NOMAD_VAR_domain=127.0.0.1", "NOMAD_VAR_mesh_address=127.0.0.1", `NOMAD_VAR_certificates=["x"]`, "NOMAD_VAR_certificate=x"}})
		if err != nil {
			t.Fatal(err)
		}
		list, err := render.Stack(t.Context(), s, render.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, j := range list {
			if Outline(j.Job) != nil {
				outlined++
				checkOutline(t, j.Job)
			}
		}
	}
	if outlined < 20 {
		t.Errorf("got outlines of %d jobs, want most of them", outlined)
	}
}

func TestOutline_Kinds(t *testing.T) {
	t.Parallel()
	p := func(s string) *string { return &s }
	group := func(count *int) []*api.TaskGroup {
		return []*api.TaskGroup{{Name: p("g"), Count: count, Tasks: []*api.Task{{Name: "t", Driver: "docker"}}}}
	}
	zero, two := 0, 2
	for name, job := range map[string]*api.Job{
		"a service":                  {ID: p("j"), Name: p("other"), TaskGroups: group(&two)},
		"a service without a count":  {ID: p("j"), TaskGroups: group(nil)},
		"a service of 0 allocations": {ID: p("j"), TaskGroups: group(&zero)},
		"a system job":               {ID: p("j"), Type: p(api.JobTypeSystem), Region: p("eu"), Namespace: p("prod"), TaskGroups: group(nil)},
		"a periodic job":             {ID: p("j"), Type: p(api.JobTypeBatch), Periodic: &api.PeriodicConfig{Spec: p("@daily")}, TaskGroups: group(nil)},
		"a parameterized job":        {ID: p("j"), Type: p(api.JobTypeBatch), ParameterizedJob: &api.ParameterizedJobConfig{}, TaskGroups: group(nil)},
	} {
		t.Run(name, func(t *testing.T) { checkOutline(t, job) })
	}
	mounts := group(nil)
	mounts[0].Volumes = map[string]*api.VolumeRequest{"data": {Type: "host", Source: "data"}}
	for name, job := range map[string]*api.Job{
		"a batch job":                {ID: p("j"), Type: p(api.JobTypeBatch), TaskGroups: group(nil)},
		"a job that mounts a volume": {ID: p("j"), TaskGroups: mounts},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Outline(job); got != nil {
				t.Errorf("got the outline %s, want none", got)
			}
		})
	}
	if FromOutline(nil) != nil || FromOutline([]byte(`{`)) != nil || FromOutline([]byte(`{}`)) != nil {
		t.Error("got a job of an outline without one")
	}
}

// Every field of a service that package consul reads is in the outline: each in turn is
// set to what makes a difference.
func TestOutline_FieldsOfServices(t *testing.T) {
	t.Parallel()
	p := func(s string) *string { return &s }
	jobOf := func(atTask bool, s *api.Service, l *api.TaskLifecycle) *api.Job {
		g := &api.TaskGroup{Name: p("g"), Tasks: []*api.Task{{Name: "t", Lifecycle: l}}}
		if atTask {
			g.Tasks[0].Services = []*api.Service{s}
		} else {
			g.Services = []*api.Service{s}
		}
		return &api.Job{ID: p("j"), TaskGroups: []*api.TaskGroup{g}}
	}
	service := func() *api.Service { return &api.Service{Name: "web", Checks: []api.ServiceCheck{{Name: "up"}}} }
	values := map[reflect.Kind][]any{reflect.String: {"nomad", "ignore", "ignore_warnings", "x", ""}, reflect.Bool: {true}, reflect.Int: {7}}
	set := 0
	try := func(make func() (*api.Service, reflect.Value)) {
		_, of := make()
		for i := range of.NumField() {
			for _, v := range values[of.Field(i).Kind()] {
				s, of := make()
				of.Field(i).Set(reflect.ValueOf(v).Convert(of.Field(i).Type()))
				set++
				checkOutline(t, jobOf(false, s, nil))
				checkOutline(t, jobOf(true, s, nil))
			}
		}
	}
	try(func() (*api.Service, reflect.Value) { s := service(); return s, reflect.ValueOf(s).Elem() })
	try(func() (*api.Service, reflect.Value) { s := service(); return s, reflect.ValueOf(&s.Checks[0]).Elem() })
	for _, connect := range []*api.ConsulConnect{{}, {Native: true}, {SidecarService: &api.ConsulSidecarService{Port: "proxy"}}} {
		s := service()
		s.Connect = connect
		checkOutline(t, jobOf(false, s, nil))
	}
	for _, l := range []*api.TaskLifecycle{{}, {Hook: api.TaskLifecycleHookPrestart}, {Hook: api.TaskLifecycleHookPrestart, Sidecar: true}, {Hook: api.TaskLifecycleHookPoststop, Sidecar: true}} {
		checkOutline(t, jobOf(true, service(), l))
	}
	if set < 50 || len(consul.Services(jobOf(false, service(), nil))) != 1 {
		t.Errorf("only %d values of fields were tried", set)
	}
}
