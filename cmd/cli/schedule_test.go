package cli

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/schedule"
)

// TestScheduleRunsOnCluster runs what the periodic job of a schedule runs, on a
// real Nomad.
func TestScheduleRunsOnCluster(t *testing.T) {
	t.Parallel()
	env := clusterEnv(t)
	together(t, env, map[string]func(*testing.T, []string){
		"refused where it needs a person or a file": scheduleRefused,
		"skips approvals and commands":              scheduleSkips,
		"promotes canaries":                         schedulePromotes,
		"resumes its own interrupted release":       scheduleResumes,
		"leaves another's interrupted release":      scheduleLeavesOthers,
		"replaces the job of an older drover":       scheduleOldJob,
	})
}

const (
	yearlyDriver  = "drover_driver \"raw_exec\" {\n  path = \"/no/such/drover\"\n}\n"
	yearlyCrons   = "  crons  = [\"0 0 1 1 *\"]\n"
	waitingWaves  = "wave \"first\" {\n  services = [\"a\"]\n}\nwave \"second\" {\n  approve = true\n  gate {\n    command = [\"./no-such-file.sh\"]\n  }\n}\n"
	yearlyNightly = "schedule \"nightly\" {\n" + yearlyCrons + "  action = \"redeploy\"\n"
)

// lastRun is the newest run of the schedule "nightly".
func (w *world) lastRun(env string) record.Run {
	w.Helper()
	lines := strings.Split(strings.TrimSpace(w.drover(exitOK, "schedule", "history", w.name, "nightly", "-e", env, "-o", "json")), "\n")
	var r record.Run
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r); err != nil {
		w.Fatalf("%v: %s", err, lines)
	}
	return r
}

func scheduleRefused(t *testing.T, env []string) {
	w := newWorld(t, env, "sched-refused")
	w.write(svc{name: "a", value: "1"}, svc{name: "b", value: "1"})
	prod := w.environment("prod", waitingWaves+yearlyDriver+yearlyNightly+"}\n")
	for _, args := range [][]string{{"lint", w.dir, "-e", prod}, {"schedule", "apply", w.dir, "-e", prod}} {
		w.want(w.drover(exitUsage, args...), `Schedule "nightly" cannot work: wave "second" waits for an approval`, "runs the command ./no-such-file.sh", `approve = "skip"`)
	}
	if all, err := record.OpenSchedules(w.nomad, w.name, "prod").List(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("schedules that cannot work are recorded: %v, %v", all, err)
	}

	// The waves were added after the schedule. Its run changes nothing and blocks no
	// other run.
	open := w.environment("prod", yearlyDriver+yearlyNightly+"}\n")
	w.drover(exitOK, "deploy", w.dir, "-e", open)
	w.drover(exitOK, "schedule", "apply", w.dir, "-e", open)
	w.write(svc{name: "a", value: "2"}, svc{name: "b", value: "1"})
	write(t, w.dir, map[string]string{"no-such-file.sh": ""})
	w.drover(exitOK, "deploy", w.dir, "-e", prod, "-m", "only a, so that no approval is needed")
	before := w.specs()
	w.want(w.drover(exitError, "schedule", "fire", w.name, "nightly", "-e", "prod"), "wave second waits for an approval", "./no-such-file.sh", "drover schedule apply")
	if now := w.specs(); now[w.job("a")] != before[w.job("a")] || now[w.job("b")] != before[w.job("b")] {
		t.Error("the run changed jobs before it was refused")
	}
	if last, err := record.OpenReleases(w.nomad, w.name, "prod").Last(t.Context()); err != nil || last.Number != 2 || last.State != record.Done {
		t.Errorf("the newest release is %+v, %v", last, err)
	}
	// It does not count as a failure, which the next run would skip.
	w.want(w.drover(exitError, "schedule", "fire", w.name, "nightly", "-e", "prod"), "wave second waits for an approval")
	w.drover(exitOK, "schedule", "apply", w.dir, "-e", w.environment("prod", waitingWaves+yearlyDriver+yearlyNightly+"  approve = \"skip\"\n  gate_command = \"skip\"\n}\n"))
	w.want(w.drover(exitOK, "schedule", "fire", w.name, "nightly", "-e", "prod"), "deployed")
}

func scheduleSkips(t *testing.T, env []string) {
	w := newWorld(t, env, "sched-skips")
	w.write(svc{name: "a", value: "1"}, svc{name: "b", value: "1"})
	prod := w.environment("prod", waitingWaves+yearlyDriver+yearlyNightly+"  approve = \"skip\"\n  gate_command = \"skip\"\n}\n")
	w.drover(exitOK, "lint", w.dir, "-e", prod, "--disable", "auto-revert-off")
	w.drover(exitOK, "schedule", "apply", w.dir, "-e", prod)
	calm := w.environment("prod", "wave \"all\" {}\n")
	w.drover(exitOK, "deploy", w.dir, "-e", calm)
	w.write(svc{name: "a", value: "2"}, svc{name: "b", value: "1"})
	w.drover(exitOK, "deploy", w.dir, "-e", prod) // records the waves; only a changes
	for range 2 {
		w.drover(exitOK, "schedule", "fire", w.name, "nightly", "-e", "prod")
		if r := w.lastRun("prod"); r.Outcome != "deployed" {
			t.Errorf("the run ended as %+v", r)
		}
	}
	last, err := record.OpenReleases(w.nomad, w.name, "prod").Last(t.Context())
	if err != nil || last.Schedule != "nightly" || last.Waves[1].Approved != "schedule nightly" || !last.Waves[1].NoCommand {
		t.Errorf("the release is %+v, %v", last, err)
	}
	// Without a schedule, the wave still needs an approval.
	w.want(w.drover(exitPromotion, "redeploy", w.name, "-e", "prod"), "awaiting-approval")
	w.drover(exitOK, "abort", w.name, "-e", "prod")
}

func schedulePromotes(t *testing.T, env []string) {
	w := newWorld(t, env, "sched-canary")
	w.write(svc{name: "a", value: "1"})
	text, err := os.ReadFile(w.dir + "/a.nomad.hcl")
	if err != nil {
		t.Fatal(err)
	}
	write(t, w.dir, map[string]string{"a.nomad.hcl": strings.Replace(string(text), "update {", "update {\n    canary = 1", 1)})
	w.want(w.drover(exitUsage, "schedule", "apply", w.dir, "-e", w.environment("prod", yearlyDriver+yearlyNightly+"}\n")), "canaries of a wait for a promotion", "auto_promote")
	prod := w.environment("prod", yearlyDriver+yearlyNightly+"  approve = \"skip\"\n}\n")
	w.drover(exitOK, "deploy", w.dir, "-e", prod)
	w.drover(exitOK, "schedule", "apply", w.dir, "-e", prod)
	w.drover(exitOK, "schedule", "fire", w.name, "nightly", "-e", "prod")
	if r := w.lastRun("prod"); r.Outcome != "deployed" || r.Release != 2 {
		t.Errorf("the run ended as %+v", r)
	}
}

// interruptedRun stops the drover of a schedule in the middle of its release, as
// Nomad does when the node is drained.
func (w *world) interruptedRun(signal os.Signal) {
	w.Helper()
	cmd := w.command(w.env, "schedule", "fire", w.name, "nightly", "-e", "prod")
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	releases := record.OpenReleases(w.nomad, w.name, "prod")
	w.until("a is submitted", func() bool {
		head, err := releases.Last(w.Context())
		if err != nil || head.Number != 2 {
			return false
		}
		lines, err := releases.Services(w.Context(), head)
		return err == nil && lines[0].Step == record.StepSubmitted
	})
	_ = cmd.Process.Signal(signal)
	_ = cmd.Wait()
}

func scheduleResumes(t *testing.T, env []string) {
	for name, signal := range map[string]os.Signal{"stopped": os.Interrupt, "killed": os.Kill} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, env, "sched-"+name)
			w.write(svc{name: "a", value: "1"}, svc{name: "b", value: "1", deps: []string{"a"}})
			slowly(w, "a", "6s")
			prod := w.environment("prod", yearlyDriver+yearlyNightly+"}\n")
			w.drover(exitOK, "deploy", w.dir, "-e", prod)
			w.drover(exitOK, "schedule", "apply", w.dir, "-e", prod)
			w.interruptedRun(signal)
			w.drover(exitBusy, "deploy", w.dir, "-e", prod)
			// Its window has closed meanwhile; a window only limits the start of a release.
			closed := time.Duration((time.Now().UTC().Hour()+6)%24) * time.Hour
			if _, err := record.OpenSchedules(w.nomad, w.name, "prod").Change(t.Context(), "nightly", func(s *record.Schedule) {
				s.WindowFrom, s.WindowFor = closed, time.Hour
			}); err != nil {
				t.Fatal(err)
			}
			w.drover(exitOK, "schedule", "fire", w.name, "nightly", "-e", "prod")
			r := w.lastRun("prod")
			if r.Outcome != "deployed" || r.Release != 2 || r.Base != 1 || !strings.Contains(r.Detail, "resumed release 2") {
				t.Errorf("the run ended as %+v", r)
			}
			w.want(w.drover(exitOK, "deploy", w.dir, "-e", prod), "unchanged")
		})
	}
}

func scheduleLeavesOthers(t *testing.T, env []string) {
	w := newWorld(t, env, "sched-others")
	w.write(svc{name: "a", value: "1"})
	prod := w.environment("prod", yearlyDriver+yearlyNightly+"}\nschedule \"other\" {\n"+yearlyCrons+"  action = \"deploy\"\n}\n")
	w.drover(exitOK, "deploy", w.dir, "-e", prod)
	w.drover(exitOK, "schedule", "apply", w.dir, "-e", prod)
	slowly(w, "a", "6s")
	w.drover(exitOK, "deploy", w.dir, "-e", prod)
	_, err := record.OpenReleases(w.nomad, w.name, "prod").Change(t.Context(), 2, func(h *record.Release) error {
		h.State, h.Schedule = record.Interrupted, "other"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.want(w.drover(exitOK, "schedule", "fire", w.name, "nightly", "-e", "prod"), "skipped", "release 2 is interrupted")
	_, err = record.OpenReleases(w.nomad, w.name, "prod").Change(t.Context(), 2, func(h *record.Release) error {
		h.State, h.Schedule = record.Paused, "nightly"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.want(w.drover(exitOK, "schedule", "fire", w.name, "nightly", "-e", "prod"), "skipped", "release 2 is paused")
}

// scheduleOldJob tests jobs of older versions of drover, which gave two schedules the
// same job ID.
func scheduleOldJob(t *testing.T, env []string) {
	w := newWorld(t, env, "sched-old")
	w.write(svc{name: "a", value: "1"})
	prod := w.environment("prod-eu", yearlyDriver+yearlyNightly+"}\n")
	w.want(w.drover(exitOK, "schedule", "apply", w.dir, "-e", prod), "nightly: registered")
	id, old := schedule.JobID(w.name, "prod-eu", "nightly"), "drover-"+w.name+"-prod-eu-nightly"
	if id == old {
		t.Fatalf("the ID is %s, as of the schedule of stack %s-prod in environment eu", id, w.name)
	}
	store := record.OpenSchedules(w.nomad, w.name, "prod-eu")
	job, _, err := w.nomad.Jobs().Info(id, nil)
	if err != nil {
		t.Fatal(err)
	}
	pretend := func(args ...any) {
		t.Helper()
		former := *job
		former.ID, former.Name = &old, &old
		if len(args) > 0 {
			former.TaskGroups[0].Tasks[0].Config["args"] = args
		}
		if _, _, err := w.nomad.Jobs().Register(&former, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Change(t.Context(), "nightly", func(s *record.Schedule) { s.JobID = old; s.Paused = "for a test" }); err != nil {
			t.Fatal(err)
		}
	}
	pretend()
	w.drover(exitOK, "schedule", "apply", w.dir, "-e", prod)
	if _, _, err := w.nomad.Jobs().Info(old, nil); err == nil {
		t.Error("the job with the old ID is still there")
	}
	if s, err := store.Read(t.Context(), "nightly"); err != nil || s.JobID != id || s.Paused == "" {
		t.Errorf("the schedule is %+v, %v", s, err)
	}
	pretend("schedule", "fire", w.name+"-prod", "nightly", "-e", "eu")
	w.drover(exitOK, "schedule", "apply", w.dir, "-e", prod)
	if _, _, err := w.nomad.Jobs().Info(old, nil); err != nil {
		t.Errorf("the job of another schedule under the old ID: %v", err)
	}
}
