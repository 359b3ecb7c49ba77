package cli

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"
)

// Who owns a job, and what becomes of it at the end, through the program as it
// is run.
func TestOwnershipOnCluster(t *testing.T) {
	t.Parallel()
	env := clusterEnv(t)
	for name, test := range map[string]func(*testing.T, []string){
		"namespace and region written down": identityWritten,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, env)
		})
	}
}

// edit replaces text in every job of the stack.
func (w *world) edit(old, text string) {
	w.Helper()
	files, err := filepath.Glob(w.dir + "/*.nomad.hcl")
	if err != nil {
		w.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			w.Fatal(err)
		}
		if err := os.WriteFile(f, []byte(strings.ReplaceAll(string(b), old, text)), 0o600); err != nil {
			w.Fatal(err)
		}
	}
}

// in changes the namespace that the program and the test use.
func (w *world) in(namespace string) {
	w.Helper()
	if _, err := w.nomad.Namespaces().Register(&api.Namespace{Name: namespace}, nil); err != nil {
		w.Fatal(err)
	}
	w.nomad.SetNamespace(namespace)
	w.env = append(slices.Clone(w.env), "NOMAD_NAMESPACE="+namespace)
}

// modified is the JobModifyIndex of a job, 0 when it is not there or stopped.
func (w *world) modified(service string) uint64 {
	w.Helper()
	job, _, err := w.nomad.Jobs().Info(w.job(service), nil)
	if err != nil || *job.Stop {
		return 0
	}
	return *job.JobModifyIndex
}

func identityWritten(t *testing.T, env []string) {
	w := newWorld(t, env, "identity")
	w.in("identity-team")
	w.write(svc{name: "a", value: "1"})
	w.drover(exitOK, "deploy", w.dir)
	was := w.modified("a")
	for _, step := range []struct{ name, namespace, region string }{
		{"the namespace is written down", "identity-team", ""},
		{"the region is written down", "identity-team", "global"},
		{"the namespace is left out", "", "global"},
		{"both are left out", "", ""},
	} {
		head := `job "identity-a" {`
		w.write(svc{name: "a", value: "1"})
		if step.namespace != "" {
			head += "\n  namespace = \"" + step.namespace + "\""
		}
		if step.region != "" {
			head += "\n  region = \"" + step.region + "\""
		}
		w.edit(`job "identity-a" {`, head)
		w.drover(exitOK, "plan", w.dir, "-detailed-exitcode") // 2 when anything would change
		w.drover(exitOK, "deploy", w.dir)
		if now := w.modified("a"); now != was || was == 0 {
			t.Fatalf("%s: got job index %d, want %d", step.name, now, was)
		}
		// A new version has the spec as it is written now in its record.
		w.edit(`VALUE = "1"`, `VALUE = "`+step.name+`"`)
		w.drover(exitOK, "deploy", w.dir)
		w.write(svc{name: "a", value: "1"})
		w.edit(`job "identity-a" {`, head)
		w.drover(exitOK, "deploy", w.dir)
		was = w.modified("a")
	}
}
