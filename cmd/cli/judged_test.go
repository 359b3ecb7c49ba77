package cli

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/record"
)

// TestJudgedOnCluster tests how a real Nomad's jobs are judged after a release.
func TestJudgedOnCluster(t *testing.T) {
	t.Parallel()
	env := clusterEnv(t)
	together(t, env, map[string]func(*testing.T, []string){
		"remembers a job that completed": func(t *testing.T, env []string) {
			// In sequence, because each lets Nomad collect all jobs that have ended.
			t.Run("deploys", func(t *testing.T) { completedBatch(t, env) })
			t.Run("approves", func(t *testing.T) { collectedBeforeApproval(t, env) })
			t.Run("starts a collected failure", func(t *testing.T) { collectedFailure(t, env) })
		},
		"reverts a promoted canary": revertsPromotedCanary,
	})
}

// files writes the files of a stack. A name without .hcl is that of a service.
func (w *world) files(texts map[string]string) {
	w.Helper()
	files := map[string]string{}
	for name, body := range texts {
		if strings.HasSuffix(name, ".hcl") {
			files[name] = body
			continue
		}
		files[name+".nomad.hcl"] = body
	}
	write(w.T, w.dir, files)
}

// mockService returns a job whose allocations run until they are stopped, or do not
// start.
func (w *world) mockService(service string, count int, value string, starts bool, update string) string {
	job := devtest.MockJob{ID: w.job(service), Count: count, Value: value, MinHealthy: "100ms", Update: update}
	if !starts {
		job.Config = devtest.Broken
	}
	return job.String()
}

// runningBy counts the running allocations of a service by the VALUE of their job
// version.
func (w *world) runningBy(service string) map[string]int {
	w.Helper()
	allocs, _, err := w.nomad.Jobs().Allocations(w.job(service), false, nil)
	if err != nil {
		w.Fatal(err)
	}
	versions, _, _, err := w.nomad.Jobs().Versions(w.job(service), false, nil)
	if err != nil {
		w.Fatal(err)
	}
	values := map[uint64]string{}
	for _, v := range versions {
		values[*v.Version] = v.TaskGroups[0].Tasks[0].Env["VALUE"]
	}
	out := map[string]int{}
	for _, a := range allocs {
		if a.ClientStatus == api.AllocClientStatusRunning && a.DesiredStatus == api.AllocDesiredStatusRun {
			out[values[a.JobVersion]]++
		}
	}
	return out
}

func (w *world) state() record.State {
	w.Helper()
	last, err := w.releases().Last(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	return last.State
}

// The next service fails after a canary was promoted. The revert promotes the former
// version itself.
func revertsPromotedCanary(t *testing.T, env []string) {
	w := newWorld(t, env, "promoted")
	const order = "service \"a\" {}\nservice \"b\" {\n  depends_on = [\"a\"]\n}\n"
	version := func(value string, starts bool) {
		w.files(map[string]string{
			"stack.hcl": "stack \"promoted\" {}\n" + order,
			"a":         w.mockService("a", 3, value, true, "canary = 1"),
			"b":         w.mockService("b", 1, value, starts, ""),
		})
	}
	version("1", true)
	w.drover(exitOK, "deploy", w.dir)
	version("2", false)
	w.drover(exitPromotion, "deploy", w.dir)
	w.drover(exitReverted, "promote", w.name)
	if got := w.runningBy("a"); fmt.Sprint(got) != "map[1:3]" {
		t.Errorf("running of a, by version: got %v, want 3 of version 1", got)
	}
	if got := w.state(); got != record.Reverted {
		t.Errorf("the release is %s, want %s", got, record.Reverted)
	}
	version("1", true)
	w.want(w.drover(exitOK, "status", w.dir), "3/3")
	w.want(w.drover(exitOK, "deploy", w.dir), "unchanged")
}

// mockBatch returns a batch job that ends at once.
func (w *world) mockBatch(service, value string) string {
	return devtest.MockJob{ID: w.job(service), Type: "batch", Value: value, Config: `run_for = "50ms"`}.String()
}

// collect makes Nomad collect a job that has ended. Without it, Nomad does so some
// hours after the last release that tags the job has left the history.
func (w *world) collect(service string) {
	w.Helper()
	id := w.job(service)
	versions, _, _, err := w.nomad.Jobs().Versions(id, false, nil)
	if err != nil {
		w.Fatal(err)
	}
	for _, v := range versions {
		if v.VersionTag != nil {
			if _, err := w.nomad.Jobs().UntagVersion(id, v.VersionTag.Name, nil); err != nil {
				w.Fatal(err)
			}
		}
	}
	w.until("Nomad collects "+id, func() bool {
		if err := w.nomad.System().GarbageCollect(); err != nil {
			w.Fatal(err)
		}
		return w.gone(service)
	})
}

func (w *world) gone(service string) bool {
	_, _, err := w.nomad.Jobs().Info(w.job(service), nil)
	return err != nil && strings.Contains(err.Error(), "404")
}

// drover remembers a migration that ran after Nomad has collected its job.
func completedBatch(t *testing.T, env []string) {
	w := newWorld(t, env, "once")
	const stack = "stack \"once\" {}\nservice \"migrate\" {}\nservice \"web\" {}\n"
	deploy := func(migration, web string) string {
		w.files(map[string]string{"stack.hcl": stack, "migrate": w.mockBatch("migrate", migration), "web": w.mockService("web", 1, web, true, "")})
		return w.drover(exitOK, "deploy", w.dir)
	}
	deploy("1", "1")
	w.want(w.drover(exitOK, "plan", w.dir, "--detailed-exitcode"), "migrate  unchanged") // its version has a tag now
	w.collect("migrate")
	w.want(w.drover(exitOK, "plan", w.dir, "--detailed-exitcode"), "migrate  unchanged: ran to completion in release 1, ")
	w.want(w.drover(exitOK, "status", w.dir), "completed", "ran to completion in release 1, ")
	w.drover(exitOK, "drift", w.dir, "--detailed-exitcode")
	w.want(deploy("1", "1"), "unchanged")
	deploy("1", "2")
	w.drover(exitOK, "redeploy", w.name)
	w.files(map[string]string{"stack.hcl": stack, "migrate": "# A comment is no change of the job.\n" + w.mockBatch("migrate", "1"), "web": w.mockService("web", 1, "2", true, "")})
	w.want(w.drover(exitOK, "deploy", w.dir), "unchanged")
	w.want(w.drover(exitOK, "status", w.dir), "release 3", "ran to completion in release 1, ")

	deploy("3", "2")
	if w.gone("migrate") {
		t.Error("a changed spec did not run")
	}
	w.collect("migrate")
	w.drover(exitOK, "redeploy", w.name, "migrate")
	if w.gone("migrate") {
		t.Error("the job that was named did not run again")
	}
	w.collect("migrate")
	w.want(deploy("3", "2"), "unchanged")
	w.drover(exitOK, "destroy", w.dir, "-y")
	deploy("3", "2")
	if w.gone("migrate") {
		t.Error("the job did not run after the stack was destroyed")
	}
}

// Nomad collects a job that ended while its release waits for an approval.
func collectedBeforeApproval(t *testing.T, env []string) {
	w := newWorld(t, env, "waits")
	const stack = "stack \"waits\" {}\nservice \"migrate\" {}\nservice \"web\" {}\n"
	w.files(map[string]string{"stack.hcl": stack, "migrate": w.mockBatch("migrate", "1"), "web": w.mockService("web", 1, "1", true, "")})
	if err := os.Mkdir(w.dir+"/environments", 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, w.dir, map[string]string{"environments/prod.hcl": `
wave "first" {
  services = ["migrate"]
}
wave "second" {
  services = ["web"]
  approve  = true
}
`})
	w.drover(exitPromotion, "deploy", w.dir, "-e", "prod")
	w.collect("migrate")
	w.drover(exitOK, "approve", w.name, "-e", "prod")
	w.want(w.drover(exitOK, "status", w.dir, "-e", "prod"), "ran to completion in release 1, ")
}

// Nomad collects the allocations of a failed version. The job exists with an unchanged
// spec and has no allocation: the next deploy starts it.
func collectedFailure(t *testing.T, env []string) {
	w := newWorld(t, env, "nothing")
	version := func(starts bool) {
		w.files(map[string]string{"stack.hcl": "stack \"nothing\" {}\nservice \"web\" {}\n", "web": w.mockService("web", 1, "1", starts, "")})
	}
	version(false)
	w.drover(exitFailed, "deploy", w.dir)
	w.until("Nomad collects the allocations", func() bool {
		if err := w.nomad.System().GarbageCollect(); err != nil {
			t.Fatal(err)
		}
		allocs, _, err := w.nomad.Jobs().Allocations(w.job("web"), false, nil)
		return err == nil && len(allocs) == 0
	})
	if !w.gone("web") { // or Nomad collected the job too
		w.want(w.drover(exitUsage, "plan", w.dir, "--detailed-exitcode"), "web  create", "Nomad has stopped short of starting all of it")
	}
	w.drover(exitFailed, "deploy", w.dir, "--service-timeout", "90s")
	version(true)
	w.drover(exitOK, "deploy", w.dir)
}
