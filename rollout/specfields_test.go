package rollout

import (
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"
)

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
