package devtest_test

import (
	"os"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// Every variant of a MockJob is HCL that renders to the job that it describes.
func TestMockJob(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	spec := devtest.MockJob{
		ID: "web", Value: "1", Count: 2, MinHealthy: "3s", Config: devtest.Broken, Update: "canary = 1",
		Job: "priority = 60", Group: "scaling {\n  min = 1\n  max = 5\n}", Task: "template {\n  destination = \"a\"\n  data        = \"b\"\n}",
	}.String()
	batch := devtest.MockJob{ID: "once", Type: "batch"}.String()
	for name, text := range map[string]string{"stack.hcl": "stack \"s\" {}\n", "web.nomad.hcl": spec, "once.nomad.hcl": batch} {
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := stack.Load(t.Context(), stack.Options{Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	jobs, err := render.Stack(t.Context(), s, render.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range jobs {
		g, task := j.Job.TaskGroups[0], j.Job.TaskGroups[0].Tasks[0]
		if *j.Job.ID == "once" {
			if *j.Job.Type != "batch" || task.Config["run_for"] != "1h" || j.Job.Update != nil {
				t.Errorf("batch job: got type %s, config %v, update %v", *j.Job.Type, task.Config, j.Job.Update)
			}
			continue
		}
		if *g.Count != 2 || *g.Scaling.Max != 5 || *j.Job.Priority != 60 || *j.Job.Update.Canary != 1 || task.Env["VALUE"] != "1" || len(task.Templates) != 1 || task.Config["start_error"] != "broken" {
			t.Errorf("got %+v with group %+v and task %+v, want the given fields\n%s", j.Job, g, task, spec)
		}
	}
	if !strings.Contains(spec, "\n    min_healthy_time  = \"3s\"\n") {
		t.Errorf("got spec\n%s\nwant min_healthy_time 3s", spec)
	}
}
