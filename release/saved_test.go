package release

import (
	"bytes"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/jobs"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// planned is a rollout of which only the jobs matter.
type planned struct {
	Rollout
	jobs []render.Job
}

func (p planned) Jobs() []render.Job { return p.jobs }

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
	part := &Part{Jobs: rendered, Plan: planned{jobs: rendered}}
	for _, j := range rendered {
		part.changes = append(part.changes, rollout.Change{Service: j.Service, JobID: *j.Job.ID, Action: rollout.ActionReplace, Index: 7})
	}
	text, err := Save(&Plan{Parts: []*Part{part}}, s, rendered, false, "http://127.0.0.1:4646", "test", nil)
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
