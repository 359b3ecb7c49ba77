package acceptance

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/record"
)

// A schedule fires by Nomad's own clock, through the API socket of its task,
// and leaves a release; it stays away when it is paused, outside of its window,
// and after the same has failed.
func TestSchedule(t *testing.T) {
	t.Parallel()
	s := newSite(t, devcluster.Options{})
	if err := os.Chmod(s.drover, 0o755); err != nil {
		t.Fatal(err)
	}
	environment := func(crons, more string) string {
		return "drover_driver \"raw_exec\" {\n  path = \"" + s.drover + "\"\n  env = {\n    CONSUL_HTTP_ADDR = \"$${meta.consul_http_addr}\"\n  }\n}\n" +
			"schedule \"often\" {\n  crons  = [\"" + crons + "\"]\n  action = \"redeploy\"\n  services = [\"@web\"]\n}\n" + more
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
	runs := func(want string) record.Run {
		t.Helper()
		var last record.Run
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
			for line := range strings.Lines(st.want(0, "schedule", "history", ".", "often", "-e", "prod", "-o", "json")) {
				if err := json.Unmarshal([]byte(line), &last); err != nil {
					t.Fatalf("%v: %s", err, line)
				}
			}
			if last.Outcome == want {
				return last
			}
			if err := pause(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		t.Fatalf("no run is %s; the last is %+v", want, last)
		return last
	}
	run := runs("deployed")
	contains(t, st.want(0, "schedule", "pause", ".", "often", "-e", "prod"), "often: paused")
	if run.Release < 2 {
		t.Errorf("it made release %d", run.Release)
	}
	contains(t, st.want(0, "history", ".", "-e", "prod"), "redeploy", "schedule often")
	contains(t, runs("skipped").Detail, "paused by")
	if now := st.running("other"); len(now) != 1 || now[0] != other[0] {
		t.Error("the other service was restarted too")
	}
	// What was redeployed is not restarted by a deploy from files.
	before := st.running("web")
	contains(t, st.want(0, "deploy", ".", "-e", "prod"), "2 unchanged")
	if now := st.running("web"); len(now) != 1 || now[0] != before[0] {
		t.Error("the deploy restarted it")
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

	// What the environment has no more goes.
	st.write(map[string]string{"environments/prod.hcl": environment("0 0 1 1 *", "")})
	contains(t, st.want(0, "schedule", "apply", ".", "-e", "prod"), "often: registered", "closed: removed", "look: removed")
	if _, _, err := s.client.Jobs().Info("drover-"+st.id+"-prod-closed", nil); err == nil {
		t.Error("the job of the removed schedule is there")
	}
	contains(t, st.want(2, "schedule", "run", ".", "closed", "-e", "prod"), "no such schedule: closed; there is often")
}
