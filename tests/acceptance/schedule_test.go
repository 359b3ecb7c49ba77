package acceptance

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/record"
)

// Schedules by Nomad's own clock.
func TestSchedules(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env = s.admin // who applies a schedule writes the policy of its job
	if err := os.Chmod(s.drover, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]func(*testing.T, *site){
		"Fires":          scheduleFires,
		"DoesNotOverlap": scheduleDoesNotOverlap,
		"WaitsForNobody": scheduleWaitsForNobody,
		"OutOfWindow":    scheduleOutOfWindow,
		"OtherClock":     scheduleOtherClock,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, s)
		})
	}
}

// driver is how drover gets to the nodes of the tests.
func (s *site) driver() string {
	return "drover_driver \"raw_exec\" {\n  path = \"" + s.drover + "\"\n  env = {\n    CONSUL_HTTP_ADDR = \"$${meta.consul_http_addr}\"\n  }\n}\n"
}

// runsOf returns the recorded runs of a schedule.
func (s *stack) runsOf(name string) []record.Run {
	s.t.Helper()
	var out []record.Run
	for line := range strings.Lines(s.want(0, "schedule", "history", ".", name, "-e", "prod", "-o", "json")) {
		var r record.Run
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			s.t.Fatalf("%v: %s", err, line)
		}
		out = append(out, r)
	}
	return out
}

// runs waits until the recorded runs of a schedule are enough, and returns them.
func (s *stack) runs(name string, enough func([]record.Run) bool) []record.Run {
	s.t.Helper()
	var runs []record.Run
	until(s.t, "the runs of schedule "+name, func() bool {
		runs = s.runsOf(name)
		return enough(runs)
	})
	return runs
}

// lastIs waits until the last run of a schedule has an outcome.
func (s *stack) lastIs(name, outcome string) record.Run {
	s.t.Helper()
	runs := s.runs(name, func(r []record.Run) bool { return len(r) > 0 && r[len(r)-1].Outcome == outcome })
	return runs[len(runs)-1]
}

// A run that takes longer than the time between two: the clock leaves out what
// would overlap, and no run is refused by the lock of another.
func scheduleDoesNotOverlap(t *testing.T, s *site) {
	st := s.stack(t, map[string]string{
		"stack.hcl":             "stack \"@\" {}\nservice \"@web\" {}\n",
		"@web.nomad.hcl":        replaced(spec("web", 1, sleeps, ""), `min_healthy_time  = "1s"`, `min_healthy_time  = "4s"`),
		"environments/prod.hcl": s.driver() + "schedule \"often\" {\n  crons  = [\"*/2 * * * * * *\"]\n  action = \"redeploy\"\n}\n",
	})
	st.want(0, "deploy", ".", "-e", "prod")
	st.want(0, "schedule", "apply", ".", "-e", "prod")
	runs := st.runs("often", func(r []record.Run) bool { return len(r) >= 2 })
	st.want(0, "schedule", "pause", ".", "often", "-e", "prod")
	for i, r := range runs {
		if r.Outcome != "deployed" || r.Elapsed < 4*time.Second {
			t.Errorf("run %d: %+v", i, r)
		}
		if i > 0 && r.At.Before(runs[i-1].At.Add(runs[i-1].Elapsed)) {
			t.Errorf("run %d began before the one before had ended: %+v", i, runs)
		}
	}
}

// If another deploy runs, or a release is open, a scheduled run is skipped and names
// the holder or the release.
func scheduleWaitsForNobody(t *testing.T, s *site) {
	slow := replaced(spec("web", 1, sleeps, ""), `min_healthy_time  = "1s"`, `min_healthy_time  = "8s"`)
	st := s.stack(t, map[string]string{
		"stack.hcl":             "stack \"@\" {}\nservice \"@web\" {}\n",
		"@web.nomad.hcl":        spec("web", 1, sleeps, ""),
		"environments/prod.hcl": s.driver() + "schedule \"often\" {\n  crons  = [\"*/2 * * * * * *\"]\n  action = \"deploy\"\n}\n",
	})
	st.want(0, "deploy", ".", "-e", "prod")
	st.write(map[string]string{"@web.nomad.hcl": replaced(slow, "3600", "3601")})
	st.want(0, "schedule", "apply", ".", "-e", "prod")
	st.lastIs("often", "unchanged")
	st.want(0, "deploy", ".", "-e", "prod", "--lock-wait", "3m")
	runs := st.runs("often", func(r []record.Run) bool { return r[len(r)-1].Outcome == "unchanged" })
	st.want(0, "schedule", "pause", ".", "often", "-e", "prod")
	told := false
	for _, r := range runs {
		told = told || r.Skipped && (strings.Contains(r.Detail, "release 2 is running") || strings.Contains(r.Detail, "is being changed by"))
		if !r.OK {
			t.Errorf("a run failed: %+v", r)
		}
	}
	if !told {
		t.Errorf("no run was skipped: %+v", runs)
	}
}

// The clock fires outside of the window.
func scheduleOutOfWindow(t *testing.T, s *site) {
	opens := time.Now().UTC().Add(6 * time.Hour).Truncate(time.Hour)
	st := s.stack(t, map[string]string{
		"stack.hcl":      "stack \"@\" {}\nservice \"@web\" {}\n",
		"@web.nomad.hcl": spec("web", 1, sleeps, ""),
		"environments/prod.hcl": s.driver() + "schedule \"closed\" {\n  crons  = [\"* * * * *\"]\n  action = \"redeploy\"\n  window = \"" +
			opens.Format("15:04") + "-" + opens.Add(time.Hour).Format("15:04") + "\"\n}\n",
	})
	st.want(0, "deploy", ".", "-e", "prod")
	before := st.running("web")
	st.want(0, "schedule", "apply", ".", "-e", "prod")
	run := st.lastIs("closed", "skipped")
	contains(t, run.Detail, "outside of its window: "+opens.Format("15:04")+"-", "UTC")
	if now := st.running("web"); len(now) != 1 || now[0] != before[0] {
		t.Error("it was restarted nevertheless")
	}
	contains(t, st.want(0, "schedule", "list", ".", "-e", "prod"), "skipped at")
}

// The run before was on a node whose clock is fast: the one that is waited for
// is known by its job, not by its time.
func scheduleOtherClock(t *testing.T, s *site) {
	st := s.stack(t, map[string]string{
		"stack.hcl":             "stack \"@\" {}\nservice \"@web\" {}\n",
		"@web.nomad.hcl":        spec("web", 1, sleeps, ""),
		"environments/prod.hcl": s.driver() + "schedule \"look\" {\n  crons  = [\"0 0 1 1 *\"]\n  action = \"check\"\n}\n",
	})
	st.want(0, "deploy", ".", "-e", "prod")
	st.want(0, "schedule", "apply", ".", "-e", "prod")
	ahead := record.Run{At: time.Now().Add(time.Hour).UTC(), OK: true, Outcome: "deployed"}
	if _, err := record.OpenSchedules(s.client, st.id, "prod").Change(t.Context(), "look", func(r *record.Schedule) { r.Runs = append(r.Runs, ahead) }); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		contains(t, st.want(0, "schedule", "run", ".", "look", "-e", "prod", "--timeout", "3m"), "in-sync")
	}
	runs := st.runsOf("look")
	if len(runs) != 3 || runs[1].Job == "" || runs[1].Job == runs[2].Job {
		t.Errorf("%+v", runs)
	}
}

// A schedule fires, through the API socket of its task, and leaves a release;
// it stays away when it is paused, outside of its window, and after the same
// has failed.
func scheduleFires(t *testing.T, s *site) {
	environment := func(crons, more string) string {
		return s.driver() + "schedule \"often\" {\n  crons  = [\"" + crons + "\"]\n  action = \"redeploy\"\n  services = [\"@web\"]\n}\n" + more
	}
	closed := time.Now().UTC().Add(6 * time.Hour).Truncate(time.Hour)
	st := s.stack(t, map[string]string{
		"stack.hcl":        "stack \"@\" {}\nservice \"@web\" {}\nservice \"@other\" {}\n",
		"@web.nomad.hcl":   spec("web", 1, sleeps, ""),
		"@other.nomad.hcl": spec("other", 1, sleeps, ""),
		"environments/prod.hcl": environment("*/5 * * * * * *", "schedule \"closed\" {\n  crons  = [\"0 "+closed.Format("15")+" * * *\"]\n  action = \"redeploy\"\n  window = \""+closed.Format("15:04")+"-"+closed.Add(time.Hour).Format("15:04")+"\"\n}\n"+
			"schedule \"look\" {\n  crons  = [\"0 0 1 1 *\"]\n  action = \"check\"\n}\n"),
	})
	st.want(0, "deploy", ".", "-e", "prod")
	other := st.running("other")
	contains(t, st.want(0, "schedule", "apply", ".", "-e", "prod"), "often: registered", "closed: registered", "look: registered")
	run := st.lastIs("often", "deployed")
	contains(t, st.want(0, "schedule", "pause", ".", "often", "-e", "prod"), "often: paused")
	if run.Release < 2 {
		t.Errorf("it made release %d", run.Release)
	}
	contains(t, st.want(0, "history", ".", "-e", "prod"), "redeploy", "schedule often")
	contains(t, st.lastIs("often", "skipped").Detail, "paused by")
	if now := st.running("other"); len(now) != 1 || now[0] != other[0] {
		t.Error("the other service was restarted too")
	}
	// A deploy from files does not restart a redeployed service.
	before := st.running("web")
	contains(t, st.want(0, "deploy", ".", "-e", "prod"), "2 unchanged")
	if now := st.running("web"); len(now) != 1 || now[0] != before[0] {
		t.Error("the deploy restarted the service")
	}
	contains(t, st.want(0, "schedule", "run", ".", "closed", "-e", "prod"), "skipped", "outside of its window")
	contains(t, st.want(0, "schedule", "run", ".", "look", "-e", "prod"), "in-sync")

	// Behind drover's back: the check says so, and the redeploy of it fails,
	// once.
	n := 0
	if _, _, err := s.client.Jobs().Scale(st.id+"other", "g", &n, "gone", false, nil, nil); err != nil {
		t.Fatal(err)
	}
	contains(t, st.want(1, "schedule", "run", ".", "look", "-e", "prod"), "drifted", "other changed")
	contains(t, st.want(2, "drift", ".", "-e", "prod", "--detailed-exitcode"), `group.g.count: "1" → "0"`)

	// The job of a removed schedule block is removed.
	st.write(map[string]string{"environments/prod.hcl": environment("0 0 1 1 *", "")})
	contains(t, st.want(0, "schedule", "apply", ".", "-e", "prod"), "often: registered", "closed: removed", "look: removed")
	if _, _, err := s.client.Jobs().Info("drover-"+st.id+"-prod-closed", nil); err == nil {
		t.Error("the job of the removed schedule is there")
	}
	contains(t, st.want(2, "schedule", "run", ".", "closed", "-e", "prod"), "no such schedule: closed; there is often")
}
