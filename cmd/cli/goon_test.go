package cli

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/record"
)

// environment writes the file of an environment, whose path is what -e gets.
func (w *world) environment(name, text string) string {
	w.Helper()
	dir := w.TempDir()
	write(w.T, dir, map[string]string{name + ".hcl": text})
	return dir + "/" + name + ".hcl"
}

// toBatch makes a service of the stack a batch job that runs to its end, which
// Nomad registers over no job of type service.
func (w *world) toBatch(service string) {
	w.Helper()
	path := w.dir + "/" + service + ".nomad.hcl"
	text, err := os.ReadFile(path)
	if err != nil {
		w.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(text), "  update {")
	_, rest, _ = strings.Cut(rest, "  }\n")
	write(w.T, w.dir, map[string]string{service + ".nomad.hcl": head + "  type = \"batch\"\n" + strings.Replace(rest, `"1h"`, `"100ms"`, 1)})
}

// approvedReplacement: what a release may purge and create again was allowed
// when it began, and is not asked about when it is gone on with.
func approvedReplacement(t *testing.T, env []string) {
	w := newWorld(t, env, "retyped")
	w.write(svc{name: "a", value: "1"}, svc{name: "b", value: "1"})
	asked := w.environment("asked", "wave \"first\" {\n  services = [\"a\"]\n}\nwave \"second\" {\n  approve = true\n}\n")
	w.want(w.drover(exitPromotion, "deploy", w.dir, "-e", asked), "awaiting-approval")
	w.drover(exitOK, "approve", w.name, "-e", "asked")
	w.write(svc{name: "a", value: "2"}, svc{name: "b", value: "2"})
	w.toBatch("b")
	w.drover(exitUsage, "deploy", w.dir, "-e", asked)
	w.drover(exitPromotion, "deploy", w.dir, "-e", asked, "--replace")
	w.want(w.drover(exitOK, "approve", w.name, "-e", "asked"), "(release 2 is deployed)")
	job, _, err := w.nomad.Jobs().Info(w.job("b"), nil)
	if err != nil || *job.Type != "batch" || w.value("a") != "2" {
		t.Errorf("b is %v, a has %s, %v", job, w.value("a"), err)
	}
}

// historyKept: how many releases are kept is said once, and holds for whatever
// makes or ends a release later.
func historyKept(t *testing.T, env []string) {
	w := newWorld(t, env, "kept-history")
	kept := func(want ...int) {
		t.Helper()
		got, err := w.releases().Numbers(t.Context())
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("releases %v are left, want %v (%v)", got, want, err)
		}
	}
	w.write(svc{name: "a", value: "1"})
	w.want(w.drover(exitUsage, "deploy", w.dir, "--history-max", "0"), "--history-max is greater than 0")
	w.drover(exitOK, "deploy", w.dir, "--history-max", "2")
	w.drover(exitOK, "redeploy", w.name)
	w.drover(exitOK, "redeploy", w.name)
	kept(2, 3)
	w.write(svc{name: "a", value: "2"}, svc{name: "b", value: "1", deps: []string{"a"}})
	slowly(w, "a", "3s")
	cmd := w.command(env, "deploy", w.dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.until("a is submitted", func() bool { return w.value("a") == "2" })
	_ = cmd.Process.Signal(os.Interrupt)
	_ = cmd.Wait()
	w.drover(exitOK, "resume", w.name)
	kept(3, 4)
	w.drover(exitOK, "rollback", w.name, "--history-max", "3")
	w.drover(exitOK, "rollback", w.name)
	kept(4, 5, 6)
	// An older record does not say it.
	if _, err := w.releases().Change(t.Context(), 6, func(h *record.Release) error { h.Keep = 0; return nil }); err != nil {
		t.Fatal(err)
	}
	w.drover(exitOK, "redeploy", w.name)
	kept(4, 5, 6, 7)
}
