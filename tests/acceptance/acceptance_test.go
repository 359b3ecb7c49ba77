package acceptance

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
)

// TestFacts tests drover where other deploy tools misread Nomad. If it is cheap, a test
// first shows the behaviour with Nomad's own program. The table of
// docs/reference/acceptance.md names these tests.
func TestFacts(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for name, test := range map[string]func(*testing.T, *site){
		"RolledBackIsAFailure":      rolledBackIsAFailure,
		"InPlaceIsAChange":          inPlaceIsAChange,
		"IdenticalSpecIsUnchanged":  identicalSpecIsUnchanged,
		"CanaryWaitsForAPerson":     canaryWaitsForAPerson,
		"PlanTellsTheTotal":         planTellsTheTotal,
		"NothingInMeta":             nothingInMeta,
		"TagsGoInPlace":             tagsGoInPlace,
		"OneSpecManyEnvironments":   oneSpecManyEnvironments,
		"FilesAreRead":              filesAreRead,
		"MultiregionIsSaid":         multiregionIsSaid,
		"TypeChangeIsSaidBefore":    typeChangeIsSaidBefore,
		"JobsWithoutDeployment":     jobsWithoutDeployment,
		"FailedBatchIsAFailure":     failedBatchIsAFailure,
		"SystemNowhere":             systemNowhere,
		"NewerVersionIsSomebody":    newerVersionIsSomebody,
		"OldDeploymentIsNotOurs":    oldDeploymentIsNotOurs,
		"OrderWaitsForHealth":       orderWaitsForHealth,
		"FailureSaysWhy":            failureSaysWhy,
		"ReferencesSurvive":         referencesSurvive,
		"ExactNamesOnly":            exactNamesOnly,
		"DeadJobStartsAgain":        deadJobStartsAgain,
		"ProgressDeadlineFarAway":   progressDeadlineFarAway,
		"AutoscaledCountIsKept":     autoscaledCountIsKept,
		"NomadsOwnPlanOfScaleIsOff": nomadsOwnPlanOfScaleIsOff,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, s)
		})
	}
}

// replaced returns text with replacements, given as pairs of old and new.
func replaced(text string, pairs ...string) string {
	return strings.NewReplacer(pairs...).Replace(text)
}

const (
	autoRevert = "  update {\n    auto_revert = true"
	canary     = "  update {\n    canary = 1"
)

// nomad-pack, and a wrapper of `nomad job run` that only looks at the job, exit with 0
// when the former version runs again.
func rolledBackIsAFailure(t *testing.T, s *site) {
	good := replaced(spec("web", 1, sleeps, ""), "  update {", autoRevert)
	st := s.stack(t, map[string]string{"@web.nomad.hcl": good})
	st.want(0, "deploy", ".")
	st.write(map[string]string{"@web.nomad.hcl": replaced(good, sleeps, "echo no such luck >&2; exit 7")})
	out := st.want(4, "deploy", ".")
	contains(t, out, "rolling back to job version 0", "Exit Code: 7", "no such luck")
	if n := len(st.running("web")); n != 1 {
		t.Errorf("got %d running allocations after the rollback, want 1", n)
	}
}

// `nomad job plan` exits with 0 for a change in place.
func inPlaceIsAChange(t *testing.T, s *site) {
	st := s.stack(t, map[string]string{"@web.nomad.hcl": spec("web", 1, sleeps, "")})
	st.want(0, "deploy", ".")
	st.want(0, "plan", ".", "--detailed-exitcode")
	st.write(map[string]string{"@web.nomad.hcl": spec("web", 1, sleeps, "  priority = 60\n")})
	if out, code := st.run(s.nomad, "job", "plan", filepath.Join(st.dir, st.id+"web.nomad.hcl")); code != 0 {
		t.Errorf("nomad job plan: got exit code %d, want 0; Nomad has changed\n%s", code, out)
	}
	contains(t, st.want(2, "plan", ".", "--detailed-exitcode"), "in-place", `priority: "50" → "60"`)
	before := st.running("web")
	st.want(0, "deploy", ".")
	if !slices.Equal(before, st.running("web")) {
		t.Error("the change in place restarted the task")
	}
	st.want(0, "plan", ".", "--detailed-exitcode")
}

// Levant waits a minute for a deployment, which Nomad does not make for an identical
// spec, and then fails.
func identicalSpecIsUnchanged(t *testing.T, s *site) {
	st := s.stack(t, map[string]string{"@web.nomad.hcl": spec("web", 1, sleeps, "")})
	st.want(0, "deploy", ".")
	before := st.job("web")
	began := time.Now()
	contains(t, st.want(0, "deploy", "."), ": unchanged: 1 unchanged")
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("the deploy took %s, want less than 15 s", took)
	}
	if after := st.job("web"); *after.ModifyIndex != *before.ModifyIndex {
		t.Error("the job was written")
	}
}

// `nomad job run` waits forever for a canary that is not promoted: the progress
// deadline does not apply.
func canaryWaitsForAPerson(t *testing.T, s *site) {
	old := replaced(spec("web", 1, sleeps, ""), "  update {", canary)
	st := s.stack(t, map[string]string{"@web.nomad.hcl": old})
	st.want(0, "deploy", ".")
	st.write(map[string]string{"@web.nomad.hcl": replaced(old, "3600", "3601")})
	contains(t, st.want(5, "deploy", "."), "awaiting-promotion", "promote")
	if n := len(st.running("web")); n != 2 {
		t.Errorf("got %d running allocations, want the old one and the canary", n)
	}
}

// Nomad's plan counts only the first batch of a rolling update (nomad#20582).
func planTellsTheTotal(t *testing.T, s *site) {
	st := s.stack(t, map[string]string{"@web.nomad.hcl": spec("web", 3, sleeps, "")})
	st.want(0, "deploy", ".")
	st.write(map[string]string{"@web.nomad.hcl": spec("web", 3, "exec sleep 3601", "")})
	out, _ := st.run(s.nomad, "job", "plan", filepath.Join(st.dir, st.id+"web.nomad.hcl"))
	contains(t, out, "1 create/destroy update, 2 ignore")
	contains(t, st.want(0, "plan", "."), "replace  3 replace (1 at first)", "1 replace (3 allocations)")
	before := st.running("web")
	st.want(0, "deploy", ".")
	for _, id := range st.running("web") {
		if slices.Contains(before, id) {
			t.Errorf("%s was not replaced", id)
		}
	}
}

// A change of meta restarts every allocation. nomad-pack and nomad-ops write the
// release into meta.
func nothingInMeta(t *testing.T, s *site) {
	st := s.stack(t, map[string]string{"@a.nomad.hcl": spec("a", 1, sleeps, ""), "@b.nomad.hcl": spec("b", 1, sleeps, "")})
	st.want(0, "deploy", ".")
	st.write(map[string]string{"@a.nomad.hcl": spec("a", 1, "exec sleep 3601", "")})
	b := st.running("b")
	st.want(0, "deploy", ".")
	if v := *st.job("b").Version; v != 0 || !slices.Equal(b, st.running("b")) {
		t.Errorf("version of the unchanged job b: got %d, want 0 and the same allocations", v)
	}
	for _, j := range []*api.Job{st.job("a"), st.job("b")} {
		if len(j.Meta)+len(j.TaskGroups[0].Meta)+len(j.TaskGroups[0].Tasks[0].Meta) > 0 {
			t.Errorf("job %s has meta", *j.ID)
		}
	}
}

func tagsGoInPlace(t *testing.T, s *site) {
	tagged := func(tag string) string {
		return replaced(spec("web", 1, sleeps, ""), "    task \"t\"", "    service {\n      name     = \"@web\"\n      provider = \"nomad\"\n      tags     = [\""+tag+"\"]\n    }\n    task \"t\"")
	}
	st := s.stack(t, map[string]string{"@web.nomad.hcl": tagged("one")})
	st.want(0, "deploy", ".")
	before := st.running("web")
	st.write(map[string]string{"@web.nomad.hcl": tagged("two")})
	contains(t, st.want(0, "plan", "."), "in-place", "1 in-place", "tags")
	st.want(0, "deploy", ".")
	if !slices.Equal(before, st.running("web")) {
		t.Error("a change of a tag restarted the task")
	}
}

// The label of a job block is literal. Its id may use variables.
func oneSpecManyEnvironments(t *testing.T, s *site) {
	st := s.stack(t, map[string]string{
		"web.nomad.hcl":         replaced(spec("web", 1, sleeps, "  id = \"@${var.site}\"\n")),
		"variables.hcl":         "variable \"site\" {\n  type = string\n}\n",
		"environments/east.hcl": "variables {\n  site = \"east\"\n}\n",
		"environments/west.hcl": "variables {\n  site = \"west\"\n}\n",
	})
	st.want(0, "deploy", ".", "-e", "east")
	st.want(0, "deploy", ".", "-e", "west")
	if len(st.running("east")) != 1 || len(st.running("west")) != 1 {
		t.Error("want one running allocation in each environment")
	}
}

// Nomad's API refuses file(). drover reads the file before it submits the job.
func filesAreRead(t *testing.T, s *site) {
	st := s.stack(t, map[string]string{
		"@web.nomad.hcl": replaced(spec("web", 1, "cat local/words; exec sleep 3600", ""), "      resources {",
			"      template {\n        destination = \"local/words\"\n        data        = file(\"words.txt\")\n      }\n      resources {"),
		"words.txt": "from a file\n",
	})
	st.want(0, "deploy", ".")
	contains(t, st.want(0, "logs", ".", st.id+"web", "--tail", "1"), "from a file")
}

func multiregionIsSaid(t *testing.T, s *site) {
	st := s.stack(t, map[string]string{"@web.nomad.hcl": spec("web", 1, sleeps, "  multiregion {\n    region \"global\" {}\n  }\n")})
	contains(t, st.want(1, "deploy", "."), "planning job", "Multiregion jobs are unlicensed")
	if _, _, err := s.client.Jobs().Info(st.id+"web", nil); err == nil {
		t.Error("the job was registered")
	}
}

// Nomad's plan does not show a change of type, and the registration is refused.
func typeChangeIsSaidBefore(t *testing.T, s *site) {
	st := s.stack(t, map[string]string{"@a.nomad.hcl": spec("a", 1, sleeps, ""), "@b.nomad.hcl": spec("b", 1, sleeps, "")})
	st.want(0, "deploy", ".")
	st.write(map[string]string{"@a.nomad.hcl": spec("a", 1, "exec sleep 3601", ""), "@b.nomad.hcl": batch(spec("b", 1, "true", ""), "batch")})
	contains(t, st.want(0, "plan", "."), "recreate  its type changes from service to batch")
	contains(t, st.want(2, "deploy", "."), "--replace")
	if *st.job("a").Version != 0 {
		t.Error("a was changed before b was refused")
	}
	st.want(0, "deploy", ".", "--replace")
	if *st.job("b").Type != "batch" {
		t.Errorf("type of b: got %s, want batch", *st.job("b").Type)
	}
}

// Nomad makes no deployment for these jobs: a tool that waits for one waits forever.
func jobsWithoutDeployment(t *testing.T, s *site) {
	st := s.stack(t, map[string]string{
		"@batch.nomad.hcl":    batch(spec("batch", 1, "true", ""), "batch"),
		"@sysbatch.nomad.hcl": replaced(batch(spec("sysbatch", 1, "true", ""), "sysbatch"), "    count = 1\n", ""),
		"@periodic.nomad.hcl": batch(spec("periodic", 1, "true", "  periodic {\n    crons = [\"0 0 1 1 *\"]\n  }\n"), "batch"),
		"@called.nomad.hcl":   batch(spec("called", 1, "true", "  parameterized {}\n"), "batch"),
		"@zero.nomad.hcl":     spec("zero", 0, sleeps, ""),
		"@atonce.nomad.hcl":   replaced(spec("atonce", 2, sleeps, ""), "    min_healthy_time  = \"1s\"\n    healthy_deadline  = \"1m\"\n    progress_deadline = \"2m\"\n    health_check      = \"task_states\"", "    max_parallel = 0"),
	})
	contains(t, st.want(0, "deploy", "."), ": deployed: 6 deployed")
	contains(t, st.want(0, "deploy", "."), ": unchanged: 6 unchanged")
	st.want(0, "plan", ".", "--detailed-exitcode")
}

func failedBatchIsAFailure(t *testing.T, s *site) {
	st := s.stack(t, map[string]string{"@job.nomad.hcl": batch(spec("job", 1, "echo broken >&2; exit 5", ""), "batch")})
	contains(t, st.want(3, "deploy", "."), "Exit Code: 5", "broken")
}

// Nomad registers a system job that no node can take, and reports its deployment as
// successful. `nomad job run` prints no warning.
func systemNowhere(t *testing.T, s *site) {
	nowhere := replaced(spec("agent", 1, sleeps, "  type = \"system\"\n  constraint {\n    attribute = \"${attr.kernel.name}\"\n    value     = \"plan9\"\n  }\n"), "    count = 1\n", "")
	from, to := strings.Index(nowhere, "    reschedule {"), strings.Index(nowhere, "    task ")
	st := s.stack(t, map[string]string{"@agent.nomad.hcl": nowhere[:from] + nowhere[to:]})
	contains(t, st.want(0, "plan", "."), "no place: group g", "plan9")
	contains(t, st.want(0, "deploy", "."), "no node takes it", "plan9")
	contains(t, st.want(0, "deploy", "."), "no node takes it", "plan9")
}

// Another client registers a version during the deployment. drover must not wait for
// that version.
func newerVersionIsSomebody(t *testing.T, s *site) {
	slow := replaced(spec("web", 1, sleeps, ""), `"1s"`, `"30s"`) // the other version ends the deploy
	st := s.stack(t, map[string]string{"@web.nomad.hcl": slow})
	done := make(chan error, 1)
	go func() {
		job, err := s.client.Jobs().ParseHCL(replaced(slow, "@", st.id, "3600", "3601"), true)
		for err == nil {
			if _, _, err = s.client.Jobs().Info(st.id+"web", nil); err == nil {
				_, _, err = s.client.Jobs().Register(job, nil)
				break
			} else if strings.Contains(err.Error(), "404") {
				err = pause(t.Context())
			}
		}
		done <- err
	}()
	contains(t, st.want(6, "deploy", ".", "--on-failure", "stop"), "superseded")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// pause waits a moment, for a loop outside of the goroutine of the test.
func pause(ctx context.Context) error {
	timer := time.NewTimer(100 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// The events and deployments of an earlier job of the same name are still listed.
func oldDeploymentIsNotOurs(t *testing.T, s *site) {
	bad := spec("web", 1, "exit 3", "")
	st := s.stack(t, map[string]string{"@web.nomad.hcl": bad})
	st.want(3, "deploy", ".")
	st.write(map[string]string{"@web.nomad.hcl": spec("web", 1, sleeps, "")})
	st.want(0, "deploy", ".")
	st.write(map[string]string{"@web.nomad.hcl": bad})
	st.want(3, "deploy", ".", "--on-failure", "stop")
}

// Nomad has no dependencies between jobs; users have asked for them since 2015.
func orderWaitsForHealth(t *testing.T, s *site) {
	st := s.stack(t, map[string]string{
		"stack.hcl":    "stack \"order\" {}\nservice \"@a\" {}\nservice \"@b\" {\n  depends_on = [\"@a\"]\n}\n",
		"@a.nomad.hcl": spec("a", 1, "exit 1", ""),
		"@b.nomad.hcl": spec("b", 1, sleeps, ""),
	})
	contains(t, st.want(3, "deploy", "."), "1 skipped")
	if _, _, err := s.client.Jobs().Info(st.id+"b", nil); err == nil {
		t.Error("b was registered although a failed")
	}
}

func failureSaysWhy(t *testing.T, s *site) {
	st := s.stack(t, map[string]string{"@web.nomad.hcl": spec("web", 1, "echo cannot open the till >&2; exit 9", "")})
	contains(t, st.want(3, "deploy", "."), "Exit Code: 9", "cannot open the till", "last lines of stderr")
}

// References that drover does not know are left for the node to interpolate.
func referencesSurvive(t *testing.T, s *site) {
	st := s.stack(t, map[string]string{"@web.nomad.hcl": replaced(spec("web", 1, "echo $KERNEL $TASK; exec sleep 3600", ""), "      resources {",
		"      env {\n        KERNEL = \"${attr.kernel.name}\"\n        TASK   = \"${NOMAD_TASK_NAME}\"\n      }\n      resources {")})
	st.want(0, "deploy", ".")
	contains(t, st.want(0, "logs", ".", st.id+"web", "--tail", "1"), "linux t")
}

// A job whose name has the name of another job as prefix is not that job.
func exactNamesOnly(t *testing.T, s *site) {
	st := s.stack(t, map[string]string{"@web.nomad.hcl": spec("web", 1, sleeps, "")})
	other := s.stack(t, map[string]string{"@web-two.nomad.hcl": spec("web-two", 1, sleeps, "")})
	other.want(0, "deploy", ".")
	st.want(0, "deploy", ".")
	st.want(0, "destroy", ".", "-y")
	if len(other.running("web-two")) != 1 {
		t.Error("destroy stopped the other job")
	}
}

// Nomad starts no allocation if a stopped job is registered again unchanged and its
// reschedule attempts are used up.
func deadJobStartsAgain(t *testing.T, s *site) {
	st := s.stack(t, map[string]string{"@web.nomad.hcl": spec("web", 1, sleeps, "")})
	st.want(0, "deploy", ".")
	if _, _, err := s.client.Jobs().Deregister(st.id+"web", false, nil); err != nil {
		t.Fatal(err)
	}
	until(t, "web has stopped", func() bool { return len(st.running("web")) == 0 })
	contains(t, st.want(2, "plan", ".", "--detailed-exitcode"), "create  1 create")
	st.want(0, "deploy", ".")
	if len(st.running("web")) != 1 {
		t.Error("the job does not run")
	}
}

// With the default reschedule block, which waits longer than the deadlines
// here, a crash only shows at the progress deadline. It is waited for, and
// meanwhile said.
func progressDeadlineFarAway(t *testing.T, s *site) {
	text := replaced(spec("web", 1, "exit 1", ""), `"1m"`, `"5s"`, `"2m"`, `"10s"`)
	from, to := strings.Index(text, "    reschedule {"), strings.Index(text, "    task ")
	st := s.stack(t, map[string]string{"@web.nomad.hcl": text[:from] + text[to:]})
	contains(t, st.want(3, "deploy", "."), "Exit Code: 1")
}

func scaled(count int, command string) string {
	return replaced(spec("web", count, command, ""), "    task \"t\"", "    scaling {\n      min = 1\n      max = 5\n    }\n    task \"t\"")
}

// A deploy sets back what the autoscaler has done, nomad#9839.
func autoscaledCountIsKept(t *testing.T, s *site) {
	st := s.stack(t, map[string]string{"@web.nomad.hcl": scaled(1, sleeps)})
	st.want(0, "deploy", ".")
	n := 2
	if _, _, err := s.client.Jobs().Scale(st.id+"web", "g", &n, "busy", false, nil, nil); err != nil {
		t.Fatal(err)
	}
	st.want(0, "deploy", ".") // waits for the second one
	st.write(map[string]string{"@web.nomad.hcl": scaled(1, "exec sleep 3601")})
	contains(t, st.want(0, "plan", "."), "2 replace", "count of group g stays 2")
	st.want(0, "deploy", ".")
	if n := len(st.running("web")); n != 2 {
		t.Errorf("%d run", n)
	}
}

// Nomad calls a job with a scaling block edited right after its first
// registration, and makes a version of it when it is registered again.
func nomadsOwnPlanOfScaleIsOff(t *testing.T, s *site) {
	st := s.stack(t, map[string]string{"@web.nomad.hcl": scaled(1, sleeps)})
	st.want(0, "deploy", ".")
	out, _ := st.run(s.nomad, "job", "plan", filepath.Join(st.dir, st.id+"web.nomad.hcl"))
	contains(t, out, "+/- Scaling")
	contains(t, st.want(0, "plan", ".", "--detailed-exitcode"), "unchanged")
	contains(t, st.want(0, "deploy", "."), "1 unchanged")
}
