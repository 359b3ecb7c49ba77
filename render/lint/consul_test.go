package lint

import (
	"testing"

	"github.com/hashicorp/nomad/api"
)

func TestReadsConsul(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		`{{ range service "web" }}{{ .Address }}{{ end }}`:                true,
		`{{- range $i, $s := service "web|any" }}{{ end }}`:               true,
		`{{ with key "a/b" }}{{ . }}{{ end }}`:                            true,
		`{{key "a/b"}}`:                                                   true,
		`{{ if (keyExists "a/b") }}x{{ end }}`:                            true,
		`{{ range services }}{{ .Name }}{{ end }}`:                        true,
		`{{ range ls (env "PREFIX") }}{{ .Value }}{{ end }}`:              true,
		`{{ range nomadService "web" }}{{ .Address }}{{ end }}`:           false,
		`{{ with nomadVar "nomad/jobs/web" }}{{ .key }}{{ end }}`:         false,
		`{{ range $key, $node := . }}{{ $key }}{{ $node }}{{ end }}`:      false,
		`{{ env "service" }} service "web" and key "x" outside {{ "a" }}`: false,
		`plain text`: false,
	} {
		if got := readsConsul.MatchString(text); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestActions_Delimiters(t *testing.T) {
	t.Parallel()
	left, right := "[[", "]]"
	for text, want := range map[string]bool{
		`summary: '{{ $labels.service }} of {{ service "x" }} is down'`: false,
		`[[ range service "web" ]]{{ .Address }}[[ end ]]`:              true,
	} {
		got := actions(&api.Template{EmbeddedTmpl: &text, LeftDelim: &left, RightDelim: &right})
		if readsConsul.MatchString(got) != want || followsServices.MatchString(got) != want {
			t.Errorf("%s: got %s, want it to read services: %t", text, got, want)
		}
	}
}
