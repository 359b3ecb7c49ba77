package rollout

import (
	"bytes"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/jobs"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

func save(t *testing.T, c Clients, opts Options, jobs ...render.Job) *Saved {
	t.Helper()
	p, err := Prepare(t.Context(), c, jobs, opts)
	if err != nil {
		t.Fatal(err)
	}
	text, err := Save([]*Plan{p}, &stack.Stack{Name: "s", Environment: "e"}, jobs, false, c.Nomad.Address(), "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := ReadSaved(text)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Every job that ships survives the file, byte for byte, and nothing else
// passes for one.
func TestSavedRoundTrip(t *testing.T) {
	t.Parallel()
	files, err := jobs.Stack("ocis")
	if err != nil {
		t.Fatal(err)
	}
	s, err := stack.Load(t.Context(), stack.Options{Path: "ocis", FS: files, Vars: []string{"domain=cloud.example.org"}})
	if err != nil {
		t.Fatal(err)
	}
	rendered, err := render.Stack(t.Context(), s, render.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := &Plan{opts: Options{}.withDefaults()}
	for _, j := range rendered {
		p.steps = append(p.steps, &step{Job: j, spec: specOf(j.Job), plan: &api.JobPlanResponse{JobModifyIndex: 7}})
	}
	text, err := Save([]*Plan{p}, s, rendered, false, "http://127.0.0.1:4646", "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	if !IsSaved(text) {
		t.Error("it is not recognised")
	}
	f, err := ReadSaved(text)
	if err != nil {
		t.Fatal(err)
	}
	want, err := Digest(rendered)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Digest(f.Jobs()); err != nil || got != want || f.Inputs != want {
		t.Errorf("the jobs have digest %s, want %s, %v", got, want, err)
	}
	thawed, err := stack.Thaw(f.Stack)
	if err != nil {
		t.Fatal(err)
	}
	if thawed.Name != s.Name || len(thawed.Secrets) != len(s.Secrets) || len(thawed.Services) != len(s.Services) || len(thawed.Values) != len(s.Values) {
		t.Errorf("the stack came back as %+v", thawed)
	}
	for name, v := range s.Values {
		if got := thawed.Values[name]; !got.RawEquals(v) {
			t.Errorf("%s came back as %#v, was %#v", name, got, v)
		}
	}

	for name, c := range map[string]struct {
		text []byte
		want string
	}{
		"edited":          {bytes.Replace(text, []byte("ocis"), []byte("osis"), 1), "was changed after drover wrote it"},
		"index edited":    {bytes.Replace(text, []byte(`"job_modify_index": 7`), []byte(`"job_modify_index": 8`), 1), "was changed after drover wrote it"},
		"cut":             {text[:len(text)/2], "not a whole plan file"},
		"extended":        {append(bytes.Clone(text), "{}"...), "not a whole plan file"},
		"newer":           {[]byte(`{"drover_plan": 2}`), "of layout 2"},
		"other":           {[]byte(`{"drover_plan": 1, "kind": "x"}`), "unknown field"},
		"empty":           {[]byte(`{"drover_plan": 1}`), "was changed after"},
		"wrong type":      {[]byte(`{"drover_plan": "1"}`), "not a whole plan file"},
		"not JSON at all": {[]byte(`job "x" {}`), "not a whole plan file"},
	} {
		if _, err := ReadSaved(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	for text, want := range map[string]bool{"job \"x\" {}": false, `{"Job": {}}`: false, " {\n \"drover_plan\": 1": true, "": false, "{": false} {
		if IsSaved([]byte(text)) != want {
			t.Errorf("IsSaved(%q) is %v", text, !want)
		}
	}
}

func TestFieldChanges(t *testing.T) {
	t.Parallel()
	edit := func(name, before, after string) *api.FieldDiff {
		return &api.FieldDiff{Type: "Edited", Name: name, Old: before, New: after}
	}
	d := &api.JobDiff{Type: "Edited", Fields: []*api.FieldDiff{edit("Priority", "50", "60"), {Type: "None", Name: "Region"}},
		TaskGroups: []*api.TaskGroupDiff{
			{Type: "Added", Name: "new", Fields: []*api.FieldDiff{edit("Count", "", "1")}},
			{Type: "Edited", Name: "g", Objects: []*api.ObjectDiff{
				{Type: "Edited", Name: "Service", Fields: []*api.FieldDiff{{Type: "None", Name: "Name", Old: "web", New: "web"}}, Objects: []*api.ObjectDiff{
					{Type: "Edited", Name: "Tags", Fields: []*api.FieldDiff{{Type: "Added", Name: "Tags", New: "x"}, {Type: "None", Name: "Tags", New: "y"}}},
				}},
				{Type: "Edited", Name: "Update", Fields: []*api.FieldDiff{edit("MinHealthyTime", "10000000000", "5000000000"), edit("MaxParallel", "1", "2")}},
			}, Tasks: []*api.TaskDiff{{Type: "Edited", Name: "t",
				Fields: []*api.FieldDiff{edit("Env[DB_PASSWORD]", "one", "two"), edit("Env[URL]", "http://u:pw1@h/", "http://u:pw2@h/"), edit("Env[KNOWN]", "xhunter22", "y"), edit("KillTimeout", "5000000000", "6000000000")},
				Objects: []*api.ObjectDiff{
					{Type: "Edited", Name: "Config", Fields: []*api.FieldDiff{edit("image", "a:1", "a:2"), edit("args[1]", "x", "y")}},
					{Type: "Edited", Name: "Resources", Fields: []*api.FieldDiff{edit("MemoryMB", "10", "20"), edit("CPU", "1", "2")}},
					{Type: "Edited", Name: "Template", Fields: []*api.FieldDiff{{Type: "None", Name: "DestPath", New: "local/x"}, edit("EmbeddedTmpl", "a\npassword = one\nb", "c\npassword = two\ntoken: {{ .x }}")}},
				}}}},
		}}
	var got []string
	for _, f := range fieldChanges(d, func(s string) string { return strings.ReplaceAll(s, "hunter22", "…") }) {
		line := f.Kind + " " + f.Path + ": " + f.Old + " → " + f.New
		if f.Secret {
			line += " secret"
		}
		got = append(got, line)
	}
	want := []string{
		"edited priority: 50 → 60",
		"added group.new:  → ",
		"added group.g.service[web].tags:  → x",
		"edited group.g.update.min_healthy_time: 10s → 5s",
		"edited group.g.update.max_parallel: 1 → 2",
		"edited group.g.task.t.env.DB_PASSWORD: (redacted) → (redacted) secret",
		"edited group.g.task.t.env.URL: http://u:(redacted)@h/ → http://u:(redacted)@h/ secret",
		"edited group.g.task.t.env.KNOWN: x… → y",
		"edited group.g.task.t.kill_timeout: 5s → 6s",
		"edited group.g.task.t.config.image: a:1 → a:2",
		"edited group.g.task.t.config.args[1]: x → y",
		"edited group.g.task.t.resources.memory: 10 → 20",
		"edited group.g.task.t.resources.cpu: 1 → 2",
		"edited group.g.task.t.template[local/x].data: a\npassword = (redacted)\nb → c\npassword = (redacted)\ntoken: {{ .x }}",
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}
