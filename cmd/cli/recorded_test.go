package cli

import (
	"strings"
	"testing"
)

// TestRecordedOnCluster asks about what runs where the record is damaged, or the
// stack is destroyed.
func TestRecordedOnCluster(t *testing.T) {
	t.Parallel()
	env := clusterEnv(t)
	deployed := func(t *testing.T, name string) *world {
		t.Helper()
		w := newWorld(t, env, name)
		for _, value := range []string{"1", "2"} {
			w.write(svc{name: "a", value: value}, svc{name: "b", value: "1", logs: true})
			w.drover(exitOK, "deploy", w.dir)
		}
		return w
	}
	together(t, env, map[string]func(*testing.T, []string){
		"unreadable spec": func(t *testing.T, _ []string) {
			w := deployed(t, "nospec")
			head, err := w.releases().Last(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			lines, err := w.releases().Services(t.Context(), head)
			if err != nil {
				t.Fatal(err)
			}
			blob := "drover/stacks/nospec/default/blobs/" + lines[0].Spec
			if _, err := w.nomad.Variables().Delete(blob, nil); err != nil {
				t.Fatal(err)
			}
			out := w.drover(exitError, "status", w.name)
			w.want(out, "cannot read "+blob, "run `drover record check nospec`")
			for line := range strings.Lines(out) {
				if strings.HasPrefix(line, "b ") && strings.Contains(line, "cannot read") {
					t.Errorf("got the other service as unreadable: %s", line)
				}
			}
			w.want(w.drover(exitOK, "status", w.name, "--service", "b"), "1/1")
		},
		"unreadable head": func(t *testing.T, _ []string) {
			w := deployed(t, "nohead")
			path := "drover/stacks/nohead/default/releases/000002"
			w.broken("/releases/000002", "release", "{")
			w.want(w.drover(exitError, "status", w.name), "release 2: cannot read "+path, "a ", "b ", "1/1")
			w.drover(exitOK, "logs", w.name, "b")
		},
		"destroyed": func(t *testing.T, _ []string) {
			w := deployed(t, "gone")
			w.drover(exitOK, "destroy", w.name, "-y")
			w.want(w.drover(exitError, "status", w.name), "no service of stack gone is to run in environment default")
			w.want(w.drover(exitError, "status", w.name, "-o", "json"), `"services":[]`)
			w.want(w.drover(exitUsage, "logs", w.name, "a"), "service a of stack gone does not run")
		},
	})
}
