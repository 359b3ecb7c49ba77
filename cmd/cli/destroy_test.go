package cli

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
)

// TestOwnershipOnCluster tests which jobs a stack owns, and what destroy does to them.
func TestOwnershipOnCluster(t *testing.T) {
	t.Parallel()
	env := clusterEnv(t)
	together(t, env, map[string]func(*testing.T, []string){
		"namespace and region written down": identityWritten,
		"destroy is a release":              destroyIsARelease,
		"only what the record owns":         onlyWhatItOwns,
		"an open release is ended":          openIsEnded,
		"schedules are removed first":       schedulesGo,
		"children stop with their service":  childrenStop,
	})
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

// destroyIsARelease destroys a stack, restores it and destroys it again. After each
// step it runs the commands that read the record.
func destroyIsARelease(t *testing.T, env []string) {
	w := newWorld(t, env, "teardown")
	w.write(svc{name: "a", value: "1"}, svc{name: "b", value: "1", deps: []string{"a"}})
	w.drover(exitOK, "deploy", w.dir)
	out := w.drover(exitOK, "destroy", w.name, "-y", "-m", "spring") // by name: the files are not read
	w.want(out, "b: stopped\na: stopped", "teardown: destroyed: 2 of 2 services were running (release 2)")
	if left := w.specs(); len(left) > 0 {
		t.Errorf("got jobs %v, want none", left)
	}
	w.unlocked()
	w.want(w.drover(exitOK, "history", w.name), "destroyed", "destroy", "spring")
	w.want(w.drover(exitError, "status", w.dir), "release 2, destroyed by")
	w.want(w.drover(exitError, "drift", w.name), "release 2 has destroyed stack teardown")
	w.want(w.drover(exitError, "redeploy", w.name), "release 2 has destroyed stack teardown")
	w.want(w.drover(exitOK, "destroy", w.name, "-y"), "destroyed: 0 of 0 services were running")

	w.drover(exitOK, "rollback", w.name)
	if a, b := w.value("a"), w.value("b"); a != "1" || b != "1" {
		t.Errorf("got %q and %q, want the last good release back", a, b)
	}
	w.drover(exitOK, "drift", w.name, "-detailed-exitcode")

	// A part of it.
	w.want(w.drover(exitUsage, "destroy", w.name, "-y", "--service", "nothing"), `has no service "nothing"; it has a, b`)
	w.want(w.drover(exitOK, "destroy", w.name, "-y", "--service", "b"), "destroyed: 1 of 1 services were running (release 4)")
	if w.modified("a") == 0 || w.modified("b") != 0 {
		t.Error("got another job than b stopped")
	}
	w.drover(exitOK, "drift", w.name, "-detailed-exitcode")
	w.drover(exitOK, "rollback", w.name)
	if w.modified("b") == 0 {
		t.Error("a rollback has not brought b back")
	}

	// A job that is stopped already is purged, too.
	if _, _, err := w.nomad.Jobs().Deregister(w.job("b"), false, nil); err != nil {
		t.Fatal(err)
	}
	// The claims on DNS records end with the history.
	claims := "drover/dns/" + dns.Owner(w.name, "default")
	if _, _, err := w.nomad.Variables().Update(&api.Variable{Path: claims, Items: api.VariableItems{"_layout": "1", "A/www.example.org": `{"zone":"example.org"}`}}, nil); err != nil {
		t.Fatal(err)
	}
	w.drover(exitOK, "destroy", w.name, "-y", "--purge", "history")
	if v, _, err := w.nomad.Variables().Peek(claims, nil); v != nil || err != nil {
		t.Errorf("got claims %v (%v) after the history was purged, want none", v, err)
	}
	if left := w.specs(); len(left) > 0 {
		t.Errorf("got jobs %v, want none", left)
	}
	vars, _, err := w.nomad.Variables().PrefixList("drover/stacks/"+w.name+"/", nil)
	if err != nil || len(vars) > 0 {
		t.Errorf("got %d variables of the stack, %v; want none", len(vars), err)
	}
	w.want(w.drover(exitError, "destroy", w.name, "-y"), "has no releases in environment default")
}

// onlyWhatItOwns destroys environments and stacks whose files render the jobs of
// another one.
func onlyWhatItOwns(t *testing.T, env []string) {
	w := newWorld(t, env, "owned")
	w.write(svc{name: "a", value: "1"}, svc{name: "b", value: "1"}, svc{name: "c", value: "1"})
	if err := os.Mkdir(w.dir+"/environments", 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, w.dir, map[string]string{"environments/qa.hcl": ""})
	w.drover(exitOK, "deploy", w.dir, "--service", "a", "--service", "b")
	a, b := w.modified("a"), w.modified("b")
	c := byHand("owned-c")
	if _, _, err := w.nomad.Jobs().Register(c, nil); err != nil { // a job of another client
		t.Fatal(err)
	}

	w.want(w.drover(exitError, "destroy", w.dir, "-e", "qa", "-y"), "stack owned has no releases in environment qa; there are releases of", "owned/default")
	write(t, w.dir, map[string]string{"stack.hcl": "stack \"renamed\" {}\nservice \"a\" {}\nservice \"b\" {}\nservice \"c\" {}\n"})
	w.want(w.drover(exitError, "destroy", w.dir, "-y"), "stack renamed has no releases")
	if w.modified("a") != a || w.modified("b") != b || w.modified("c") == 0 {
		t.Error("a job was touched")
	}

	// A job that was edited by hand still belongs to the release. A job that was purged
	// and registered by hand does not.
	edited, _, err := w.nomad.Jobs().Info(w.job("a"), nil)
	if err != nil {
		t.Fatal(err)
	}
	edited.Priority = ptr(60)
	if _, _, err := w.nomad.Jobs().Register(edited, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.purge("b"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.nomad.Jobs().Register(byHand("owned-b"), nil); err != nil {
		t.Fatal(err)
	}
	out := w.drover(exitOK, "destroy", "owned", "-y")
	w.want(out, "a: stopped", "b: job owned-b keeps running: no release of this stack made it", "destroyed: 1 of 1 services were running")
	if w.modified("a") != 0 || w.modified("b") == 0 || w.modified("c") == 0 {
		t.Error("got other jobs than a stopped")
	}
	for _, s := range []string{"b", "c"} {
		if err := w.purge(s); err != nil {
			t.Fatal(err)
		}
	}
}

// purge purges a job when it has stopped: a purge of a running one may make
// Nomad 1.11.3 panic.
func (w *world) purge(service string) error {
	id := w.job(service)
	return rollout.Destroy(w.Context(), nomad.Clients{Nomad: w.nomad}, []render.Job{{Service: service, Job: &api.Job{ID: &id}}}, rollout.Options{}, nil)
}

func byHand(id string) *api.Job {
	return &api.Job{ID: &id, Name: &id, Datacenters: []string{"*"}, TaskGroups: []*api.TaskGroup{{
		Name: ptr("g"), Tasks: []*api.Task{{
			Name: "t", Driver: "mock_driver", LogConfig: &api.LogConfig{Disabled: ptr(true)}, Config: map[string]any{"run_for": "1h"}, Resources: &api.Resources{CPU: ptr(1), MemoryMB: ptr(10)},
		}},
	}}}
}

func ptr[T any](v T) *T { return &v }

// openIsEnded destroys a stack with a release that waits, and one whose drover
// was stopped in the middle of a destroy.
func openIsEnded(t *testing.T, env []string) {
	w := newWorld(t, env, "halfway")
	w.write(svc{name: "a", value: "1"})
	w.drover(exitOK, "deploy", w.dir)
	w.write(svc{name: "a", value: "2"}, svc{name: "b", value: "2"})
	w.edit("health_check      = \"task_states\"", "health_check      = \"task_states\"\n    canary            = 1")
	w.drover(exitPromotion, "deploy", w.dir)
	w.want(w.drover(exitOK, "destroy", w.name, "-y"), "release 2 is awaiting-promotion: it is abandoned", "destroyed: 2 of 2 services")
	w.want(w.drover(exitOK, "history", w.name), "abandoned", "destroyed")
	if left := w.specs(); len(left) > 0 {
		t.Errorf("got jobs %v, want none", left)
	}

	// Killed before its second job, a destroy is resumed, or aborted.
	for _, verb := range []string{"resume", "abort"} {
		w.write(version1()...)
		w.drover(exitOK, "deploy", w.dir)
		was := w.specs()
		k := &killer{n: 12}
		through := k.serve(t, w.env)
		if out, code := k.run(w.command(through, "destroy", w.name, "-y")); code == exitOK {
			t.Fatalf("the destroy was not killed:\n%s", out)
		}
		w.drover(exitOK, verb, w.name)
		now := w.specs()
		if verb == "resume" && len(now) > 0 || verb == "abort" && len(now) != len(was) {
			t.Errorf("%s: got %d jobs of %d", verb, len(now), len(was))
		}
		w.unlocked()
	}
	w.drover(exitOK, "destroy", w.name, "-y", "--purge", "history")
}

// schedulesGo destroys a stack with a schedule that would deploy it again.
func schedulesGo(t *testing.T, env []string) {
	w := newWorld(t, env, "nightly")
	w.write(svc{name: "a", value: "1"})
	if err := os.Mkdir(w.dir+"/environments", 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, w.dir, map[string]string{"environments/default.hcl": `
drover_driver "raw_exec" {
  path = "/bin/false"
}
schedule "again" {
  action    = "deploy"
  crons     = ["0 3 * * *"]
  time_zone = "UTC"
}
`})
	w.drover(exitOK, "deploy", w.dir, "-e", "default")
	w.drover(exitOK, "schedule", "apply", w.dir, "-e", "default")
	jobs := func() int {
		t.Helper()
		list, _, err := w.nomad.Jobs().List(&api.QueryOptions{Prefix: "drover-nightly"})
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	if jobs() != 1 {
		t.Fatalf("got %d jobs of schedules, want 1", jobs())
	}
	w.want(w.drover(exitOK, "destroy", w.name, "-y"), "- schedule again", "schedule again: removed", "a: stopped")
	if jobs() != 0 || w.modified("a") != 0 {
		t.Errorf("got %d jobs of schedules and job a at %d, want none", jobs(), w.modified("a"))
	}

	// A schedule that an older drover left behind does nothing.
	store := record.OpenSchedules(w.nomad, w.name, "default")
	if _, err := store.Change(w.Context(), "again", func(s *record.Schedule) { s.Action, s.TimeZone = "deploy", "UTC" }); err != nil {
		t.Fatal(err)
	}
	w.want(w.drover(exitOK, "schedule", "fire", w.name, "again"), "skipped", "release 2 has destroyed the stack")
	if w.modified("a") != 0 {
		t.Error("the schedule has deployed the destroyed stack")
	}
	w.drover(exitOK, "destroy", w.name, "-y", "--purge", "history")
	if all, err := store.List(w.Context()); err != nil || len(all) > 0 {
		t.Errorf("got schedules %v, %v; want none", all, err)
	}
}

// childrenStop drops, and reverts, a parameterized service with a child that
// runs.
func childrenStop(t *testing.T, env []string) {
	w := newWorld(t, env, "parent")
	parameterized := func(services ...svc) {
		w.write(services...)
		write(t, w.dir, map[string]string{"b.nomad.hcl": devtest.MockJob{ID: "parent-b", Type: "batch", Job: "parameterized {}"}.String()})
	}
	dispatch := func() string {
		t.Helper()
		child, _, err := w.nomad.Jobs().Dispatch(w.job("b"), nil, nil, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		return child.DispatchedJobID
	}
	gone := func(child, after string) {
		t.Helper()
		job, _, err := w.nomad.Jobs().Info(child, nil)
		if err == nil && !*job.Stop {
			t.Errorf("%s: the child %s still runs", after, child)
		}
	}
	a, b := svc{name: "a", value: "1"}, svc{name: "b"}
	parameterized(a, b)
	w.drover(exitOK, "deploy", w.dir)
	child := dispatch()
	w.write(a)
	w.drover(exitOK, "deploy", w.dir, "--prune")
	gone(child, "pruned")

	parameterized(a, b)
	w.drover(exitOK, "deploy", w.dir)
	child = dispatch()
	w.drover(exitOK, "rollback", w.name, "2", "--prune")
	gone(child, "rolled back")

	parameterized(a, b)
	w.drover(exitOK, "deploy", w.dir)
	child = dispatch()
	w.drover(exitOK, "destroy", w.name, "-y", "--purge", "history")
	gone(child, "destroyed")
}
