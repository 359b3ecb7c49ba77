package rollout

import (
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/jobs"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

func TestSpecChanges(t *testing.T) {
	t.Parallel()
	spec := func(change func(*api.Job)) *api.Job {
		job := mockJob("web", map[string]any{"image": "a:1", "args": []string{"-x"}})
		job.TaskGroups[0].Tasks[0].Env = map[string]string{"LEVEL": "info", "DB_PASSWORD": "hunter2"}
		job.TaskGroups[0].Services = []*api.Service{{Name: "web", PortLabel: "http", Tags: []string{"a", "b"}}}
		job.TaskGroups[0].Tasks[0].Templates = []*api.Template{{DestPath: ptr("local/x"), EmbeddedTmpl: ptr("a < b && c")}}
		if change != nil {
			change(job)
		}
		return job
	}
	for name, c := range map[string]struct {
		change func(*api.Job)
		want   []FieldChange
	}{
		"nothing":                {nil, nil},
		"defaults of the client": {func(j *api.Job) { j.Canonicalize() }, nil},
		"fields of the server": {func(j *api.Job) {
			j.Canonicalize()
			j.Status, j.Version, j.JobModifyIndex, j.SubmitTime = ptr("running"), ptr(uint64(3)), ptr(uint64(17)), ptr(int64(5))
			j.TaskGroups[0].Constraints = append(j.TaskGroups[0].Constraints, api.NewConstraint("${attr.consul.version}", "semver", ">= 1.8.0"))
		}, nil},
		"image": {func(j *api.Job) { j.TaskGroups[0].Tasks[0].Config["image"] = "a:2" },
			[]FieldChange{{Path: "group.g.task.t.config.image", Kind: "edited", Old: "a:1", New: "a:2"}}},
		"environment": {func(j *api.Job) { j.TaskGroups[0].Tasks[0].Env["LEVEL"] = "debug" },
			[]FieldChange{{Path: "group.g.task.t.env.LEVEL", Kind: "edited", Old: "info", New: "debug"}}},
		"a secret": {func(j *api.Job) { j.TaskGroups[0].Tasks[0].Env["DB_PASSWORD"] = "hunter3" },
			[]FieldChange{{Path: "group.g.task.t.env.DB_PASSWORD", Kind: "edited", Old: "(redacted)", New: "(redacted)", Secret: true}}},
		"count and a duration": {func(j *api.Job) {
			j.TaskGroups[0].Count, j.Update.MinHealthyTime = ptr(3), ptr(2*time.Second)
		}, []FieldChange{
			{Path: "group.g.count", Kind: "edited", Old: "1", New: "3"},
			{Path: "group.g.update.min_healthy_time", Kind: "edited", Old: "100ms", New: "2s"},
		}},
		"tags": {func(j *api.Job) { j.TaskGroups[0].Services[0].Tags = []string{"a"} },
			[]FieldChange{{Path: "group.g.service[web].tags", Kind: "edited", Old: "a, b", New: "a"}}},
		"template": {func(j *api.Job) { j.TaskGroups[0].Tasks[0].Templates[0].EmbeddedTmpl = ptr("a > b && c") },
			[]FieldChange{{Path: "group.g.task.t.template[local/x].data", Kind: "edited", Old: "a < b && c", New: "a > b && c"}}},
		"a constraint that is added": {func(j *api.Job) { j.Constraints = []*api.Constraint{api.NewConstraint("${node.class}", "=", "big")} },
			[]FieldChange{
				{Path: "constraint[${node.class}].attribute", Kind: "added", New: "${node.class}"},
				{Path: "constraint[${node.class}].operator", Kind: "added", New: "="},
				{Path: "constraint[${node.class}].value", Kind: "added", New: "big"},
			}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := SpecChanges(spec(nil), spec(c.change))
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got %+v, %v, want %+v", got, err, c.want)
			}
		})
	}
}

// A spec from a file and the same spec as Nomad has stored it are the same.
func testSpecChanges(t *testing.T, c nomad.Clients) {
	files, err := jobs.Stack("ocis")
	if err != nil {
		t.Fatal(err)
	}
	s, err := stack.Load(t.Context(), stack.Options{Path: "ocis", FS: files, Environment: "dev", Environ: []string{"NOMAD_VAR_domain=127.0.0.1", "NOMAD_VAR_mesh_address=127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	rendered, err := render.Stack(t.Context(), s, render.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range rendered {
		job := j.Job
		job.Datacenters = []string{"nowhere"} // nothing starts
		job.ID = ptr("specdiff-" + *job.ID)
		cleanUp(t, c, *job.ID)
		if _, _, err := c.Nomad.Jobs().Register(job, nil); err != nil {
			t.Fatal(err)
		}
		stored, _, err := c.Nomad.Jobs().Info(*job.ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := SpecChanges(job, stored); err != nil || len(got) > 0 {
			t.Errorf("%s: got %+v, %v, want no difference", *job.ID, got, err)
		}
	}
}
