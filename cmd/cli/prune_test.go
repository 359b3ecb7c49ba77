package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/record"
)

func (w *world) releasesIn(env string) int {
	w.Helper()
	numbers, err := record.OpenReleases(w.nomad, w.name, env).Numbers(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	return len(numbers)
}

// A running job is not pruned unless its plan was seen.
func prunesWhatWasSeen(t *testing.T, env []string) {
	w := customers(t, env, "prunes")
	w.drover(exitOK, "deploy", w.dir, "-e", "dev")
	before := w.specs()
	two := []string{"-e", "dev", "-var", "customer=two"}

	plan := w.drover(exitOK, append([]string{"plan", w.dir}, two...)...)
	if want := "- web  stop (job prunes-one)"; !strings.HasPrefix(plan, want) {
		t.Errorf("the plan begins without %q:\n%s", want, plan)
	}
	w.want(plan, "service web becomes job prunes-two: did a variable rename it?")
	var asJSON struct{ Services []map[string]any }
	out, err := w.command(w.env, append([]string{"plan", w.dir, "-o", "json"}, two...)...).Output()
	if err == nil {
		err = json.Unmarshal(out, &asJSON)
	}
	if err != nil || len(asJSON.Services) != 2 {
		t.Fatalf("%v: %s", err, out)
	}
	if s := asJSON.Services[0]; s["action"] != "stop" || s["running"] != true || s["renamed_to"] != "prunes-two" {
		t.Errorf("plan -o json: got %v first, want the running job that stops", s)
	}

	w.want(w.drover(exitUsage, append([]string{"deploy", w.dir}, two...)...), "prunes-one", "--prune", "did a variable rename it?")
	if got := w.specs(); fmt.Sprint(got) != fmt.Sprint(before) || w.releasesIn("dev") != 1 {
		t.Errorf("a refused deploy wrote something: jobs %v, want %v; %d releases, want 1", got, before, w.releasesIn("dev"))
	}

	// A terminal is asked.
	s := onTerminal(t, w.env, "drover deploy "+w.dir+" "+strings.Join(two, " "))
	s.sees("Stop 1 running job? [y/N]")
	s.types("n\n")
	s.ends(exitCancelled)
	if n := w.releasesIn("dev"); n != 1 {
		t.Errorf("a refused deploy made a release: got %d, want 1", n)
	}
	s = onTerminal(t, w.env, "drover deploy "+w.dir+" "+strings.Join(two, " "))
	s.sees("Stop 1 running job? [y/N]")
	s.types("y\n")
	s.ends(exitOK)

	// So is a rollback.
	w.want(w.drover(exitUsage, "rollback", w.name, "-e", "dev"), "prunes-two", "--prune")
	w.drover(exitOK, "rollback", w.name, "-e", "dev", "-y")

	// A saved plan was seen.
	file := t.TempDir() + "/web.plan"
	w.drover(exitOK, append([]string{"plan", w.dir, "-out", file}, two...)...)
	w.want(w.drover(exitOK, "deploy", file), "web: stopped")

	// A dead job is pruned without a question.
	if _, _, err := w.nomad.Jobs().Deregister("prunes-two", false, nil); err != nil {
		t.Fatal(err)
	}
	w.until("prunes-two is dead", func() bool {
		job, _, err := w.nomad.Jobs().Info("prunes-two", nil)
		return err == nil && *job.Status == "dead"
	})
	w.drover(exitOK, "deploy", w.dir, "-e", "dev")
}

// A redeploy, which asks for no confirmation, prunes nothing.
func redeployPrunesNothing(t *testing.T, env []string) {
	w := newWorld(t, env, "unattended")
	w.write(svc{name: "a", value: "1"})
	w.drover(exitOK, "deploy", w.dir)
	w.write(svc{name: "a", value: "1"}, svc{name: "b", value: "1"}, svc{name: "c", value: "1", deps: []string{"b"}, crash: true})
	w.drover(exitFailed, "deploy", w.dir, "--on-failure", "stop")
	b := w.running(w.job("b"))
	w.drover(exitOK, "redeploy", w.name)
	if got := w.running(w.job("b")); len(b) != 1 || fmt.Sprint(got) != fmt.Sprint(b) {
		t.Errorf("b: got allocations %v, want %v", got, b)
	}
}
