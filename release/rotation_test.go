package release

import (
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/render"
)

func TestEffectsOf(t *testing.T) {
	t.Parallel()
	template := func(item, mode string) *api.Template {
		text := `{{ with nomadVar "nomad/jobs/web" }}{{ .` + item + ` }}{{ end }}`
		t := &api.Template{EmbeddedTmpl: &text, ChangeMode: &mode}
		switch mode {
		case "signal":
			sig := "SIGHUP"
			t.ChangeSignal = &sig
		case "script":
			cmd := "/bin/reload"
			t.ChangeScript = &api.ChangeScript{Command: &cmd}
		}
		return t
	}
	alloc := func(status string, states map[string]string) *api.AllocationListStub {
		a := &api.AllocationListStub{TaskGroup: "g", ClientStatus: status, TaskStates: map[string]*api.TaskState{}}
		for task, state := range states {
			a.TaskStates[task] = &api.TaskState{State: state}
		}
		return a
	}
	running := []*api.AllocationListStub{alloc("running", map[string]string{"init": "dead", "app": "running"}), alloc("complete", nil)}
	for name, tt := range map[string]struct {
		kind   string // of the job
		tasks  map[string][]*api.Template
		allocs []*api.AllocationListStub
		want   []string
		stale  []string
	}{
		"restarts":             {tasks: map[string][]*api.Template{"app": {template("a", "restart")}}, allocs: running, want: []string{"web: task app restarts"}},
		"gets a signal":        {tasks: map[string][]*api.Template{"app": {template("a", "signal")}}, allocs: running, want: []string{"web: task app gets SIGHUP"}},
		"runs a script":        {tasks: map[string][]*api.Template{"app": {template("a", "script")}}, allocs: running, want: []string{"web: task app runs /bin/reload"}},
		"is not told":          {tasks: map[string][]*api.Template{"app": {template("a", "noop")}}, allocs: running, want: []string{"web: task app is not told, its template has change_mode noop"}, stale: []string{"web"}},
		"the strongest counts": {tasks: map[string][]*api.Template{"app": {template("a", "noop"), template("a", "restart"), template("a", "signal")}}, allocs: running, want: []string{"web: task app restarts"}},
		"has ended":            {tasks: map[string][]*api.Template{"init": {template("a", "restart")}}, allocs: running, want: []string{"web: task init has ended and does not see the new value"}, stale: []string{"web"}},
		"reads another item":   {tasks: map[string][]*api.Template{"app": {template("b", "restart")}}, allocs: running, want: []string{"web: no template reads it"}, stale: []string{"web"}},
		"nothing runs":         {tasks: map[string][]*api.Template{"app": {template("a", "restart")}}, allocs: running[1:], want: []string{"web: nothing of it runs; its next allocation reads the new value"}},
		"a batch job that has ended is not redeployed": {kind: "batch", tasks: map[string][]*api.Template{"init": {template("a", "restart")}}, allocs: running, want: []string{"web: task init has ended and does not see the new value"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id, group := "web", "g"
			g := &api.TaskGroup{Name: &group}
			for task, templates := range tt.tasks {
				g.Tasks = append(g.Tasks, &api.Task{Name: task, Templates: templates})
			}
			job := &api.Job{ID: &id, TaskGroups: []*api.TaskGroup{g}}
			if tt.kind != "" {
				job.Type = &tt.kind
			}
			effects := effectsOf(render.Job{Service: "web", Job: job}, tt.allocs, []string{"a"})
			var got []string
			for _, e := range effects {
				got = append(got, e.String())
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", strings.Join(got, "; "), strings.Join(tt.want, "; "))
			}
			if stale := Stale(effects); !slices.Equal(stale, tt.stale) {
				t.Errorf("to redeploy: got %q, want %q", stale, tt.stale)
			}
		})
	}
}
