package render

import (
	"slices"
	"testing"

	"github.com/hashicorp/nomad/api"
)

func TestSecretReads(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		text  string
		items []string
		all   bool
	}{
		"with":                    {text: `{{ with nomadVar "nomad/jobs/web" }}A={{ .a }} B={{ .b.Value }}{{ end }}`, items: []string{"a", "b"}},
		"by the job's ID":         {text: `{{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) }}{{ .a }}{{ end }}`, items: []string{"a"}},
		"by its parent's ID":      {text: `{{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_PARENT_ID")) }}{{ .a }}{{ end }}`, items: []string{"a"}},
		"of a namespace":          {text: `{{ with nomadVar "nomad/jobs/web@team.global" }}{{ .a }}{{ end }}`, items: []string{"a"}},
		"in a chain":              {text: `{{ (nomadVar "nomad/jobs/web").a }}`, items: []string{"a"}},
		"piped":                   {text: `{{ with "nomad/jobs/web" | nomadVar }}{{ .a | toJSON }}{{ end }}`, items: []string{"a"}},
		"in a variable":           {text: `{{ $v := nomadVar "nomad/jobs/web" }}{{ if true }}{{ $v.a }}{{ end }}`, items: []string{"a"}},
		"in a variable of with":   {text: `{{ with $v := nomadVar "nomad/jobs/web" }}{{ range services }}{{ .Name }} {{ $v.a }}{{ end }}{{ end }}`, items: []string{"a"}},
		"by index":                {text: `{{ with nomadVar "nomad/jobs/web" }}{{ index . "a-b" }}{{ end }}`, items: []string{"a-b"}},
		"under another condition": {text: `{{ if nomadVarExists "nomad/jobs/web" }}{{ with nomadVar "nomad/jobs/web" }}{{ if .a }}{{ .b }}{{ else }}{{ .c }}{{ end }}{{ end }}{{ end }}`, items: []string{"a", "b", "c"}},
		"dot is another value":    {text: `{{ with nomadVar "nomad/jobs/web" }}{{ with key "x" }}{{ .y }}{{ end }}{{ .a }}{{ end }}`, items: []string{"a"}},
		"else of with":            {text: `{{ with nomadVar "nomad/jobs/web" }}{{ .a }}{{ else }}{{ .no }}{{ end }}`, items: []string{"a"}},
		"another variable":        {text: `{{ with nomadVar "nomad/jobs/other" }}{{ .a }}{{ end }}{{ with nomadVar "nomad/jobs" }}{{ .b }}{{ end }}`},
		"all of it":               {text: `{{ range $k, $v := nomadVar "nomad/jobs/web" }}{{ $k }}={{ $v }}{{ end }}`, all: true},
		"handed on":               {text: `{{ with nomadVar "nomad/jobs/web" }}{{ . | toJSON }}{{ end }}`, all: true},
		"its items":               {text: `{{ with nomadVar "nomad/jobs/web" }}{{ range .Items }}{{ . }}{{ end }}{{ end }}`, all: true},
		"in a named template":     {text: `{{ define "x" }}{{ .a }}{{ end }}{{ with nomadVar "nomad/jobs/web" }}{{ template "x" . }}{{ end }}`, items: []string{"a"}},
		"none":                    {text: `{{ range service "web" }}{{ .Address }}{{ end }}`},
		"not readable":            {text: `{{ with nomadVar "nomad/jobs/web" }}{{ .a }}`, all: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id, group := "web", "g"
			job := &api.Job{ID: &id, TaskGroups: []*api.TaskGroup{{Name: &group, Tasks: []*api.Task{{Name: "t", Templates: []*api.Template{{EmbeddedTmpl: &tt.text}}}}}}}
			var items []string
			all := false
			for _, r := range SecretReads(job) {
				items, all = r.Items, r.All
			}
			if !slices.Equal(items, tt.items) || all != tt.all {
				t.Errorf("got %q, all %v; want %q, all %v", items, all, tt.items, tt.all)
			}
		})
	}
}
