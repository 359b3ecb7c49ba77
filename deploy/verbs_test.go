package deploy

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/rollout"
)

// deployPhases are those of a deploy without certificates, in order.
var deployPhases = []Phase{PhaseResolve, PhaseConnect, PhaseSecrets, PhaseVolumes, PhaseCheck, PhaseRollout, PhaseRecords, PhaseDone}

func TestDeploy_InMemory(t *testing.T) {
	t.Parallel()
	all := len(deployPhases)
	for name, c := range map[string]struct {
		before  func(*world)
		verb    func(*Deploy)
		phases  int // of deployPhases
		outcome rollout.Outcome
		class   Class
		state   record.State // "" for no release
		number  int
		running string
	}{
		"creates both services": {nil, nil, all, rollout.Deployed, ClassNone, record.Done, 1, "api=2 web=2"},
		"updates both services": {func(w *world) { w.deploy("1") }, nil, all, rollout.Deployed, ClassNone, record.Done, 2, "api=2 web=2"},
		"changes nothing":       {func(w *world) { w.deploy("2") }, nil, all, rollout.Unchanged, ClassNone, record.Done, 1, "api=2 web=2"},
		"deploys one service": {
			func(w *world) { w.deploy("1") }, func(v *Deploy) { v.Source.Services = []string{"api"} }, all, rollout.Deployed, ClassNone, record.Done, 2, "api=2 web=1",
		},
		"reverts both when the second fails": {
			func(w *world) { w.deploy("1"); w.fail("web", "2", rollout.Failed) }, nil, 6, rollout.FailedReverted, ClassOutcome, record.Reverted, 2, "api=1 web=1",
		},
		"reverts what timed out": {
			func(w *world) { w.deploy("1"); w.fail("api", "2", rollout.TimedOut) }, nil, 6, rollout.FailedReverted, ClassOutcome, record.Reverted, 2, "api=1 web=1",
		},
		"refuses beside an open release": {func(w *world) { w.deploy("1"); w.interrupt("3") }, nil, 6, "", ClassBusy, record.Interrupted, 2, "api=3 web=1"},
		"takes over from an open release": {
			func(w *world) { w.deploy("1"); w.interrupt("3") }, func(v *Deploy) { v.New.TakeOver = true }, all, rollout.Deployed, ClassNone, record.Done, 3, "api=2 web=2",
		},
		"refuses an unknown service": {
			func(w *world) { w.deploy("1") }, func(v *Deploy) { v.Source.Services = []string{"db"} }, 1, "", ClassInvalid, record.Done, 1, "api=1 web=1",
		},
		"refuses the job of another client": {(*world).registerWeb, nil, 6, "", ClassInvalid, "", 0, "web=by hand"},
		"refuses the job of another stack": {
			func(w *world) {
				w.registerWeb()
				w.store.OwnerOf = func(record.LiveJob) *record.Owner {
					return &record.Owner{Stack: "other", Environment: "prod", Release: 3}
				}
			}, nil, 6, "", ClassInvalid, "", 0, "web=by hand",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if c.before != nil {
				c.before(w)
			}
			w.version("2")
			v := w.deployVerb()
			if c.verb != nil {
				c.verb(v)
			}
			_, err := v.Run(t.Context())
			if c.phases == 1 { // the stack is not known yet
				if end := w.end(t); end.Stack != "" || end.Err == nil || ClassOf(err) != c.class {
					t.Errorf("got %v and end %+v, want class %d and no stack", err, end, c.class)
				}
			} else {
				w.wantEnd(err, c.outcome, c.class)
			}
			if got, want := w.phases(), deployPhases[:c.phases]; !slices.Equal(got, want) {
				t.Errorf("got phases %q, want %q", got, want)
			}
			if c.state != "" {
				w.wantState(c.number, c.state)
			}
			w.wantRunning(c.running)
		})
	}
}

func TestRecordedVerbs_InMemory(t *testing.T) {
	t.Parallel()
	type verb = func(context.Context, *world) (Result, error)
	resume := func(ctx context.Context, w *world) (Result, error) { return (&Resume{Recorded: w.recorded()}).Run(ctx) }
	abort := func(ctx context.Context, w *world) (Result, error) { return (&Abort{w.recorded()}).Run(ctx) }
	approve := func(ctx context.Context, w *world) (Result, error) { return (&Approve{w.recorded()}).Run(ctx) }
	rollback := func(to int) verb {
		return func(ctx context.Context, w *world) (Result, error) {
			return (&Rollback{Recorded: w.recorded(), To: to}).Run(ctx)
		}
	}
	redeploy := func(services ...string) verb {
		return func(ctx context.Context, w *world) (Result, error) {
			return (&Redeploy{Recorded: w.recorded(), Services: services}).Run(ctx)
		}
	}
	deployed := func(w *world) { w.deploy("1") }
	twice := func(w *world) { w.deploy("1"); w.deploy("2") }
	open := func(w *world) { w.deploy("1"); w.interrupt("2") }
	for name, c := range map[string]struct {
		before  func(*world)
		verb    verb
		outcome rollout.Outcome
		class   Class
		state   record.State // "" for no release
		number  int
		running string
	}{
		"resume finishes an interrupted release": {open, resume, rollout.Deployed, ClassNone, record.Done, 2, "api=2 web=2"},
		"resume reverts when a service fails": {
			func(w *world) { open(w); w.fail("web", "2", rollout.Failed) }, resume, rollout.FailedReverted, ClassOutcome, record.Reverted, 2, "api=1 web=1",
		},
		"resume refuses without an open release": {deployed, resume, "", ClassBusy, record.Done, 1, "api=1 web=1"},
		"resume refuses without a release":       {nil, resume, "", ClassBusy, "", 0, ""},
		"resume refuses beside another process":  {func(w *world) { open(w); w.lock() }, resume, "", ClassBusy, record.Interrupted, 2, "api=2 web=1"},
		"abort restores the former release":      {open, abort, rollout.Deployed, ClassNone, record.Aborted, 2, "api=1 web=1"},
		"abort refuses without an open release":  {deployed, abort, "", ClassBusy, record.Done, 1, "api=1 web=1"},
		"approve refuses if no wave waits":       {open, approve, "", ClassBusy, record.Interrupted, 2, "api=2 web=1"},
		"rollback restores the release before":   {twice, rollback(0), rollout.Deployed, ClassNone, record.Done, 3, "api=1 web=1"},
		"rollback restores a release by number":  {twice, rollback(1), rollout.Deployed, ClassNone, record.Done, 3, "api=1 web=1"},
		"rollback refuses an unknown release":    {twice, rollback(9), "", ClassOther, record.Done, 2, "api=2 web=2"},
		"rollback refuses without another":       {deployed, rollback(0), "", ClassOther, record.Done, 1, "api=1 web=1"},
		"rollback refuses beside an open one":    {open, rollback(1), "", ClassBusy, record.Interrupted, 2, "api=2 web=1"},
		"redeploy replaces all allocations":      {deployed, redeploy(), rollout.Deployed, ClassNone, record.Done, 2, "api=1 web=1"},
		"redeploy replaces those of one service": {deployed, redeploy("web"), rollout.Deployed, ClassNone, record.Done, 2, "api=1 web=1"},
		"redeploy refuses an unknown service":    {deployed, redeploy("db"), "", ClassOther, record.Done, 1, "api=1 web=1"},
		"redeploy refuses without a release":     {nil, redeploy(), "", ClassOther, "", 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if c.before != nil {
				c.before(w)
			}
			w.cluster.ResetLog()
			res, err := c.verb(t.Context(), w)
			end := w.wantEnd(err, c.outcome, c.class)
			if (end.Err != nil) != (c.outcome == "") {
				t.Errorf("got error %v in the end, want one: %v", end.Err, c.outcome == "")
			}
			if c.state != "" {
				w.wantState(c.number, c.state)
			}
			if refused := c.outcome == ""; refused && (res.Release != nil || len(w.cluster.Log()) > 0) {
				t.Errorf("got release %+v and wrote %q, want nothing done", res.Release, w.cluster.Log())
			}
			w.wantRunning(c.running)
		})
	}
}

// registerWeb registers the job web as another client does.
func (w *world) registerWeb() {
	id := "web"
	w.cluster.Register(&api.Job{ID: &id, Meta: map[string]string{"version": "by hand"}})
}

// lock takes the lock of the stack for another process.
func (w *world) lock() {
	w.Helper()
	holder := w.home.Holder
	holder.User = "bob"
	if _, err := w.store.Lock(w.Context(), holder, 0, nil); err != nil {
		w.Fatal(err)
	}
}

func TestPlan_InMemory(t *testing.T) {
	t.Parallel()
	t.Run("lists what a deploy creates", func(t *testing.T) {
		w := newWorld(t)
		p, err := (&Plan{Home: w.home, Source: Source{Path: w.dir}}).Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := []rollout.Action{p.Changes[0].Action, p.Changes[1].Action}; !p.Changed() || !slices.Equal(got, []rollout.Action{rollout.ActionCreate, rollout.ActionCreate}) {
			t.Errorf("got %v, changed %v, want two that are created", got, p.Changed())
		}
		if log := w.cluster.Log(); len(log) > 0 {
			t.Errorf("wrote %q, want nothing", log)
		}
	})
	t.Run("finds no change after a deploy", func(t *testing.T) {
		w := newWorld(t)
		w.deploy("1")
		p, err := (&Plan{Home: w.home, Source: Source{Path: w.dir}}).Run(t.Context())
		if err != nil || p.Changed() {
			t.Errorf("got %v, changed %v, want no change", err, p.Changed())
		}
	})
	t.Run("a saved plan is carried out, and is stale then", func(t *testing.T) {
		w := newWorld(t)
		p, err := (&Plan{Home: w.home, Source: Source{Path: w.dir}}).Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		text, err := p.Save("test")
		if err != nil {
			t.Fatal(err)
		}
		w.write("saved.plan", string(text))
		saved, err := ReadSavedPlan(w.dir + "/saved.plan")
		if err != nil || saved == nil {
			t.Fatalf("ReadSavedPlan() = %v, %v, want a plan", saved, err)
		}
		v := w.deployVerb()
		v.Saved = saved
		_, err = v.Run(t.Context())
		w.wantEnd(err, rollout.Deployed, ClassNone)
		w.wantRunning("api=1 web=1")
		w.deploy("2")
		w.events = nil
		_, err = v.Run(t.Context())
		w.wantEnd(err, "", ClassStale)
		w.wantRunning("api=2 web=2")
	})
}

func TestPause_InMemory(t *testing.T) {
	t.Parallel()
	t.Run("refuses without a release", func(t *testing.T) {
		w := newWorld(t)
		if _, err := (&Pause{Home: w.home, Stack: "shop"}).Run(t.Context()); !errors.Is(err, record.ErrNoRelease) && ClassOf(err) != ClassBusy {
			t.Errorf("got %v, want no release", err)
		}
	})
	t.Run("refuses a finished release", func(t *testing.T) {
		w := newWorld(t)
		w.deploy("1")
		if _, err := (&Pause{Home: w.home, Stack: "shop"}).Run(t.Context()); ClassOf(err) != ClassBusy {
			t.Errorf("got class %d of %v, want %d", ClassOf(err), err, ClassBusy)
		}
	})
	t.Run("pauses a release that is made, which resume finishes", func(t *testing.T) {
		w := newWorld(t)
		w.deploy("1")
		var head *record.Release
		var perr error
		w.cluster.Follow = func(ctx context.Context, j *api.Job) rollout.ServiceResult {
			if head == nil {
				head, perr = (&Pause{Home: w.home, Stack: "shop"}).Run(context.WithoutCancel(ctx))
				<-ctx.Done() // the deploy sees that
			}
			return rollout.ServiceResult{Outcome: rollout.Cancelled}
		}
		w.version("2")
		_, err := w.deployVerb().Run(t.Context())
		w.wantEnd(err, rollout.Cancelled, ClassOutcome)
		if perr != nil || head.State != record.Paused {
			t.Fatalf("got %+v, %v, want a paused release", head, perr)
		}
		w.wantState(2, record.Paused)
		w.cluster.Follow, w.events = nil, nil
		_, err = (&Resume{Recorded: w.recorded()}).Run(t.Context())
		w.wantEnd(err, rollout.Deployed, ClassNone)
		w.wantRunning("api=2 web=2")
	})
}

func TestDestroy_InMemory(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before  func(*world)
		verb    func(*Destroy)
		outcome rollout.Outcome
		class   Class
		stopped int
		running string
	}{
		"stops all jobs":             {nil, nil, rollout.Deployed, ClassNone, 2, ""},
		"stops one service":          {nil, func(v *Destroy) { v.Only = release.Only{Services: []string{"web"}} }, rollout.Deployed, ClassNone, 1, "api=1"},
		"refuses an unknown service": {nil, func(v *Destroy) { v.Only = release.Only{Services: []string{"db"}} }, "", ClassInvalid, 0, "api=1 web=1"},
		"abandons an open release":   {func(w *world) { w.interrupt("2") }, nil, rollout.Deployed, ClassNone, 2, ""},
		"does nothing without a yes": {
			nil, func(v *Destroy) { v.Confirm = func(context.Context, DestroyPlan) (bool, error) { return false, nil } }, "", ClassCancelled, 0, "api=1 web=1",
		},
		"refuses beside another process": {(*world).lock, nil, "", ClassBusy, 0, "api=1 web=1"},
		"purges secrets, data and history": {
			nil, func(v *Destroy) { v.PurgeSecrets, v.PurgeData, v.PurgeHistory = true, true, true }, rollout.Deployed, ClassNone, 2, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.deploy("1")
			if c.before != nil {
				c.before(w)
			}
			v := Destroy{Home: w.home, Stack: "shop", Events: w.add}
			if c.verb != nil {
				c.verb(&v)
			}
			res, err := v.Run(t.Context())
			w.wantEnd(err, c.outcome, c.class)
			if res.Stopped != c.stopped {
				t.Errorf("stopped %d jobs, want %d", res.Stopped, c.stopped)
			}
			w.wantRunning(c.running)
			if last, err := w.store.Last(t.Context()); err != nil || (last == nil) != v.PurgeHistory {
				t.Errorf("got newest release %+v, %v, want none: %v", last, err, v.PurgeHistory)
			}
		})
	}
	t.Run("refuses without a release", func(t *testing.T) {
		w := newWorld(t)
		_, err := Destroy{Home: w.home, Stack: "shop", Events: w.add}.Run(t.Context())
		w.wantEnd(err, "", ClassOther)
		if !is[*NoReleaseError](err) {
			t.Errorf("got %v, want a *NoReleaseError", err)
		}
	})
}

func TestDestroy_PurgesTheSecretsOfItsStore(t *testing.T) {
	t.Parallel()
	eachRecord(t, func(t *testing.T, w *world) {
		w.write("stack.hcl", "stack \"shop\" {}\nsecret \"key\" {}\nservice \"api\" {}\nservice \"web\" {\n  secrets = [\"key\"]\n}\n")
		w.deploy("1")
		clients, err := w.home.Connect(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		store := w.home.secretStore(clients, "shop", "default")
		if _, err := store.Item(t.Context(), "key"); err != nil {
			t.Fatalf("before the purge: %v", err)
		}
		if _, err := (Destroy{Home: w.home, Stack: "shop", PurgeSecrets: true}).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Item(t.Context(), "key"); !errors.Is(err, record.ErrNotFound) {
			t.Errorf("after the purge: got %v, want %v", err, record.ErrNotFound)
		}
	})
}

func TestDeploy_PrerequisiteStack(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		outcome rollout.Outcome
		failed  bool
	}{
		"succeeds":                     {rollout.Deployed, false},
		"is reported when it fails":    {rollout.Failed, true},
		"cannot be placed on any node": {rollout.PlacementFailed, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.fail("api", "1", c.outcome)
			v := w.deployVerb()
			st, jobs, err := v.Source.Render(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			err = v.prerequisite(t.Context(), &stream{sink: w.add}, st, jobs, map[string]bool{})
			if is[*PrerequisiteError](err) != c.failed || (err != nil) != c.failed {
				t.Errorf("got %v, want a *PrerequisiteError: %v", err, c.failed)
			}
			if c.failed && !is[*OutcomeError](err) {
				t.Errorf("got %v, want the outcome of the stack in it", err)
			}
			i := slices.IndexFunc(w.events, func(e Event) bool { return e.Kind == KindPrerequisite })
			if i < 0 || w.events[i].End.Stack != "shop" {
				t.Errorf("got events %+v, want the end of the stack that runs first", w.events)
			}
		})
	}
}

func TestPlan_Save_CanBeReadAndDeployed(t *testing.T) {
	w := newWorld(t)
	p, err := (&Plan{Home: w.home, Source: Source{Path: w.dir}}).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text, err := p.Save("test")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "shop.plan")
	for name, c := range map[string]struct {
		text  []byte
		saved bool
		class Class
	}{
		"the plan":           {text, true, ClassNone},
		"a job file":         {[]byte("job \"web\" {}\n"), false, ClassNone},
		"half of the plan":   {text[:len(text)/2], false, ClassInvalid},
		"nothing in a file ": {nil, false, ClassNone},
	} {
		if err := os.WriteFile(path, c.text, 0o600); err != nil {
			t.Fatal(err)
		}
		saved, err := ReadSavedPlan(path)
		if (saved != nil) != c.saved || ClassOf(err) != c.class {
			t.Errorf("%s: got %v, %v of class %v; want a plan: %v, class %v", name, saved, err, ClassOf(err), c.saved, c.class)
		}
	}
	if saved, err := ReadSavedPlan(filepath.Dir(path)); saved != nil || err != nil {
		t.Errorf("a directory: got %v, %v, want nil, nil", saved, err)
	}
}
