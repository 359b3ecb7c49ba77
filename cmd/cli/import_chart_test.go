package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/devcluster/devtest"
)

// TestImport_Chart: --chart calls the helm on PATH and imports what it prints. The helm of
// the test prints its arguments.
func TestImport_Chart(t *testing.T) {
	dir := t.TempDir()
	chart := filepath.Join(dir, "charts", "shop")
	if err := os.MkdirAll(chart, 0o750); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (string, int) {
		var out, msg bytes.Buffer
		code := Run(t.Context(), &IO{In: strings.NewReader(""), Out: &out, Err: &msg}, append([]string{"import"}, args...))
		return out.String() + msg.String(), code
	}
	t.Setenv("PATH", dir)
	if text, code := run("--chart", chart); code != exitUsage || !strings.Contains(text, "needs helm on PATH") {
		t.Errorf("without helm, got exit code %d and %s", code, text)
	}
	script := `#!/bin/sh
[ "$5" = bad.yaml ] && { echo "values are bad" >&2; exit 1; }
echo '{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {containers: [{name: c, image: "example.org/a:1", args: ["'"$*"'"]}]}}'
`
	devtest.Script(t, filepath.Join(dir, "helm"), script)
	out := filepath.Join(dir, "stack")
	if text, code := run("--chart", chart, "--values", "a.yaml", "--values", "b.yaml", "--out", out); code != 0 {
		t.Fatalf("got exit code %d: %s", code, text)
	}
	job, err := os.ReadFile(filepath.Join(out, "web.nomad.hcl"))
	if want := "template shop " + chart + " --values a.yaml --values b.yaml"; err != nil || !strings.Contains(string(job), want) {
		t.Errorf("got %v and\n%s\nwant %s", err, job, want)
	}
	if !strings.Contains(string(job), "shop (rendered):1") {
		t.Errorf("got\n%s\nwant the place in the rendered chart", job)
	}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"a mistake of the chart":    {[]string{"--chart", chart, "--values", "bad.yaml"}, "values are bad"},
		"a chart that is not there": {[]string{"--chart", filepath.Join(dir, "none")}, "'helm pull'"},
		"a chart of another format": {[]string{"compose", "--chart", chart}, "--chart"},
		"values without a chart":    {[]string{"x.yaml", "--values", "a.yaml"}, "--values"},
		"nothing":                   {nil, "give FILE…"},
	} {
		t.Run(name, func(t *testing.T) {
			if text, code := run(c.args...); code != exitUsage || !strings.Contains(text, c.want) {
				t.Errorf("got exit code %d and %s, want %d and %q", code, text, exitUsage, c.want)
			}
		})
	}
}
