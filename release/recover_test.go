package release_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/release/releasetest"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

func newWorldCluster() *releasetest.Cluster { return releasetest.NewCluster() }

// killed leaves release 2 as a process that was killed: running, with api at this
// step. With arrived, Nomad has taken its registration.
func (w *world) killed(step record.Step, arrived bool) {
	w.Helper()
	w.deploy(request("1"))
	last, err := w.store.Last(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	was, err := w.store.Services(w.Context(), last)
	if err != nil {
		w.Fatal(err)
	}
	var lines []record.Service
	var index uint64
	for i, j := range request("2").Jobs {
		text, err := json.Marshal(j.Job)
		if err != nil {
			w.Fatal(err)
		}
		p, err := record.Pack(record.Blob{Job: text})
		if err != nil {
			w.Fatal(err)
		}
		if err := w.store.Store(w.Context(), []record.Packed{p}, nil); err != nil {
			w.Fatal(err)
		}
		l := record.Service{Name: j.Service, JobID: j.Service, DependsOn: j.DependsOn, Wave: i, Change: record.ChangeUpdate, Spec: p.Digest, Before: was[i].Spec, Planned: was[i].Index, Step: record.StepPending}
		if j.Service == "api" {
			if l.Step = step; step == record.StepFailed {
				l.Outcome = string(rollout.Failed)
			}
			if arrived {
				if index = w.cluster.Register(j.Job); step != record.StepSubmitting {
					l.Index = index
				}
			}
		}
		lines = append(lines, l)
	}
	next := *last
	next.Number, next.State, next.Owner, next.OnFailure = 2, record.Running, "killed", release.OnFailureRevertRelease
	for i := range next.Waves {
		next.Waves[i].State = ""
	}
	next.SetRevision(0)
	j, err := w.store.Create(w.Context(), &next, lines)
	if err != nil {
		w.Fatal(err)
	}
	if err := j.Close(w.Context()); err != nil {
		w.Fatal(err)
	}
	w.cluster.ResetLog()
}

func TestResume_AfterEachStep(t *testing.T) {
	for name, tt := range map[string]struct {
		step    record.Step
		arrived bool
		log     []string
	}{
		"before anything is submitted":        {record.StepPending, false, []string{"register api", "register web"}},
		"submitting, and it has not arrived":  {record.StepSubmitting, false, []string{"register api", "register web"}},
		"submitting, and it has arrived":      {record.StepSubmitting, true, []string{"register web"}},
		"submitted":                           {record.StepSubmitted, true, []string{"register web"}},
		"deployed, and the next wave pending": {record.StepDone, true, []string{"register web"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.killed(tt.step, tt.arrived)
			res, err := w.d.Resume(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			w.wantState(res, record.Done, rollout.Deployed)
			w.wantRunning("api=2 web=2")
			w.wantLog(tt.log...)
		})
	}
}

func TestResume_RevertsWhatHadFailed(t *testing.T) {
	w := newWorld(t)
	w.killed(record.StepFailed, true)
	res, err := w.d.Resume(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if res.Back == nil {
		t.Error("got no revert")
	}
	last, _ := w.store.Last(t.Context())
	if last.State != record.Reverted {
		t.Errorf("got %s, want %s", last.State, record.Reverted)
	}
	w.wantRunning("api=1 web=1")
}

func TestResume_NomadRevertedMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.killed(record.StepSubmitted, true)
	w.cluster.Register(job("api", "1").Job) // as auto_revert does
	res, err := w.d.Resume(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	w.wantState(res, record.Reverted, rollout.FailedReverted)
	w.wantRunning("api=1 web=1")
}

func TestAbort_AfterEachStep(t *testing.T) {
	for name, tt := range map[string]struct {
		step    record.Step
		arrived bool
		log     []string
	}{
		"before anything is submitted":       {record.StepPending, false, nil},
		"submitting, and it has not arrived": {record.StepSubmitting, false, nil},
		"submitting, and it has arrived":     {record.StepSubmitting, true, []string{"register api"}},
		"submitted":                          {record.StepSubmitted, true, []string{"register api"}},
		"deployed":                           {record.StepDone, true, []string{"register api"}},
		"reverting, and it has not arrived":  {record.StepReverting, true, []string{"register api"}},
		"reverted":                           {record.StepReverted, false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.killed(tt.step, tt.arrived)
			res, err := w.d.Abort(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			w.wantState(res, record.Aborted, rollout.Deployed)
			w.wantRunning("api=1 web=1")
			w.wantLog(tt.log...)
		})
	}
}

func TestAbort_StopsAtAnUnreachableClusterAndContinues(t *testing.T) {
	w := newWorld(t)
	w.killed(record.StepDone, true)
	w.d.Rollout.Silence = time.Millisecond
	w.cluster.Fail = func(r string) error {
		if r == "Register api" {
			return errNoAnswer
		}
		return nil
	}
	res, err := w.d.Abort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.wantState(res, record.Reverting, rollout.Unreachable)
	w.cluster.Fail = nil
	res, err = w.d.Resume(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	w.wantState(res, record.Aborted, rollout.Deployed)
	w.wantRunning("api=1 web=1")
}

func TestAbort_KeepsAJobThatAnotherClientChanged(t *testing.T) {
	w := newWorld(t)
	w.killed(record.StepDone, true)
	w.cluster.Register(job("api", "by hand").Job)
	res, err := w.d.Abort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.wantState(res, record.Aborted, rollout.Superseded)
	w.wantRunning("api=by hand web=1")
}

func TestResume_NothingOpen(t *testing.T) {
	w := newWorld(t)
	for name, do := range map[string]func() error{
		"resume": func() error { _, err := w.d.Resume(t.Context(), false); return err },
		"abort":  func() error { _, err := w.d.Abort(t.Context()); return err },
		"pause":  func() error { _, err := w.d.Pause(t.Context(), "ann"); return err },
	} {
		if err := do(); !as[*release.NotOpenError](err) {
			t.Errorf("%s without a release: got %v, want a *release.NotOpenError", name, err)
		}
	}
	w.deploy(request("1"))
	if _, err := w.d.Resume(t.Context(), false); !as[*release.NotOpenError](err) {
		t.Errorf("resume of a release that is deployed: got %v, want a *release.NotOpenError", err)
	}
}

func TestResume_OfASchedule(t *testing.T) {
	w := newWorld(t)
	w.killed(record.StepPending, false)
	if _, err := w.d.ResumeOwn(t.Context(), "nightly"); !as[*release.NotOpenError](err) {
		t.Errorf("a release of no schedule: got %v, want a *release.NotOpenError", err)
	}
	if _, err := w.store.Change(t.Context(), 2, func(h *record.Release) error { h.Schedule = "nightly"; return nil }); err != nil {
		t.Fatal(err)
	}
	res, err := w.d.ResumeOwn(t.Context(), "nightly")
	if err != nil {
		t.Fatal(err)
	}
	w.wantState(res, record.Done, rollout.Deployed)
}

func TestPromote(t *testing.T) {
	w := newWorld(t)
	w.deploy(request("1"))
	w.fail("api", "2", rollout.AwaitPromotion)
	w.wantState(w.deploy(request("2")), record.NeedsPromotion, rollout.AwaitPromotion)
	w.cluster.Follow = nil
	w.cluster.ResetLog()
	res, err := w.d.Resume(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	w.wantState(res, record.Done, rollout.Deployed)
	w.wantLog("promote api", "register web")
}

func TestApproval(t *testing.T) {
	ask := func() release.Request {
		req := request("2")
		req.Waves[1].Approve = true
		return req
	}
	for name, tt := range map[string]struct {
		approve func(context.Context, release.Approval) (bool, error)
		state   record.State
		want    rollout.Outcome
		running string
	}{
		"without an operator": {nil, record.NeedsApproval, rollout.AwaitApproval, "api=2 web=1"},
		"approved":            {func(context.Context, release.Approval) (bool, error) { return true, nil }, record.Done, rollout.Deployed, "api=2 web=2"},
		"refused":             {func(context.Context, release.Approval) (bool, error) { return false, nil }, record.NeedsApproval, rollout.AwaitApproval, "api=2 web=1"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.deploy(request("1"))
			w.d.Operator = operator{approve: tt.approve}
			w.wantState(w.deploy(ask()), tt.state, tt.want)
			w.wantRunning(tt.running)
		})
	}
	t.Run("approved in the record, and resumed", func(t *testing.T) {
		w := newWorld(t)
		w.deploy(request("1"))
		w.deploy(ask())
		wave, holder, err := w.d.ApproveWave(t.Context(), "bob")
		if err != nil || wave != "web" || holder != nil {
			t.Fatalf("got wave %s, holder %v, %v; want web, none", wave, holder, err)
		}
		res, err := w.d.Resume(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		last := w.wantState(res, record.Done, rollout.Deployed)
		if got := last.Waves[1].Approved; got != "bob" {
			t.Errorf("approved by %q, want bob", got)
		}
		if _, _, err := w.d.ApproveWave(t.Context(), "bob"); !as[*release.NoApprovalError](err) {
			t.Errorf("when no wave waits: got %v, want a *release.NoApprovalError", err)
		}
	})
	t.Run("approved in another terminal", func(t *testing.T) {
		w := newWorld(t)
		w.deploy(request("1"))
		w.d.ApprovalWait = 10 * time.Second
		w.d.Operator = operator{approve: func(ctx context.Context, _ release.Approval) (bool, error) {
			if _, _, err := w.deployer("bob").ApproveWave(context.Background(), "bob"); err != nil {
				t.Error(err)
			}
			<-ctx.Done()
			return false, ctx.Err()
		}}
		w.wantState(w.deploy(ask()), record.Done, rollout.Deployed)
	})
	t.Run("without an approval in time", func(t *testing.T) {
		w := newWorld(t)
		w.deploy(request("1"))
		w.d.ApprovalWait = 10 * time.Millisecond
		w.wantState(w.deploy(ask()), record.NeedsApproval, rollout.AwaitApproval)
	})
}

func TestRollback(t *testing.T) {
	w := newWorld(t)
	if _, err := w.d.Rollback(t.Context(), 0); !errors.Is(err, record.ErrNoRelease) {
		t.Fatalf("without a release: got %v, want %v", err, record.ErrNoRelease)
	}
	first := request("1")
	first.Values, first.Checks = json.RawMessage(`{"domain":"example.org"}`), json.RawMessage(`[]`)
	w.deploy(first)
	if _, err := w.d.Rollback(t.Context(), 0); err == nil {
		t.Error("after one release: got no error")
	}
	w.deploy(request("2"))
	w.fail("api", "3", rollout.Failed)
	w.deploy(request("3"))
	w.cluster.Follow = nil
	req, err := w.d.Rollback(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if req.Of != 1 || req.Kind != release.KindRollback || string(req.Values) != string(first.Values) {
		t.Errorf("got a %s of %d with values %s; want a rollback of 1 with those of release 1", req.Kind, req.Of, req.Values)
	}
	w.cluster.ResetLog()
	w.wantState(w.deploy(req), record.Done, rollout.Deployed)
	w.wantRunning("api=1 web=1")
	for _, number := range []int{3, 9} { // reverted, and none
		if _, err := w.d.Rollback(t.Context(), number); err == nil {
			t.Errorf("to release %d: got no error", number)
		}
	}
}

func TestRedeploy(t *testing.T) {
	w := newWorld(t)
	w.deploy(request("1"))
	if _, err := w.d.Redeploy(t.Context(), []string{"nosuch"}, time.Now()); err == nil {
		t.Error("of a service that is not there: got no error")
	}
	req, err := w.d.Redeploy(t.Context(), []string{"web"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	w.cluster.ResetLog()
	last := w.wantState(w.deploy(req), record.Done, rollout.Deployed)
	w.wantLog("register web")
	if last.Kind != release.KindRedeploy || last.Of != 1 {
		t.Errorf("got a %s of %d, want a redeploy of 1", last.Kind, last.Of)
	}
	if req, err = w.d.LastGood(t.Context()); err != nil || !req.Partial || len(req.Jobs) != 2 {
		t.Errorf("got %d jobs, partial %t, %v", len(req.Jobs), req.Partial, err)
	}
}

func TestDestroy(t *testing.T) {
	w := newWorld(t)
	if _, err := w.d.PlanDestroy(t.Context(), release.Only{}, ""); !errors.Is(err, record.ErrNoRelease) {
		t.Fatalf("without a release: got %v, want %v", err, record.ErrNoRelease)
	}
	w.deploy(request("1"))
	if _, err := w.d.PlanDestroy(t.Context(), release.Only{Services: []string{"nosuch"}}, ""); !as[*release.NotRecordedError](err) {
		t.Errorf("of a service that is not there: got %v, want a *release.NotRecordedError", err)
	}
	do := func(only release.Only) release.Result {
		t.Helper()
		p, err := w.d.PlanDestroy(t.Context(), only, "over")
		if err != nil {
			t.Fatal(err)
		}
		if jobs, err := p.Recorded(t.Context(), w.d); err != nil || len(jobs) == 0 {
			t.Errorf("recorded: got %d jobs, %v", len(jobs), err)
		}
		if jobs, err := p.WithData(t.Context(), w.d); err != nil || len(jobs) == 0 {
			t.Errorf("with data: got %d jobs, %v", len(jobs), err)
		}
		if got := p.Absent(); len(got) != 0 {
			t.Errorf("absent: got %q", got)
		}
		res, err := w.d.Deploy(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	w.wantState(do(release.Only{Services: []string{"web"}}), record.Done, rollout.Deployed)
	w.wantRunning("api=1")
	last := w.wantState(do(release.Only{}), record.Destroyed, rollout.Deployed)
	w.wantRunning("")
	if last.Message != "over" || last.Total != 0 {
		t.Errorf("got message %q and %d services, want over and none", last.Message, last.Total)
	}
	if _, _, err := w.d.Drift(t.Context()); !as[*release.DestroyedError](err) {
		t.Errorf("drift: got %v, want a *release.DestroyedError", err)
	}
	made, err := w.d.Made(t.Context(), map[string]nomad.Clients{"": w.cluster.Clients()})
	if err != nil || len(made) != 2 {
		t.Errorf("made: got %d jobs, %v, want 2", len(made), err)
	}
	req, err := w.d.Rollback(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	w.wantState(w.deploy(req), record.Done, rollout.Deployed)
	w.wantRunning("api=1")
}

func TestDrift(t *testing.T) {
	w := newWorld(t)
	w.deploy(requestOf(job("api", "1"), job("db", "1"), job("old", "1"), job("web", "1")))
	req := requestOf(job("api", "1"), job("db", "1"), job("web", "1"))
	req.Prune = true
	w.deploy(req)
	w.cluster.Register(job("web", "by hand").Job)
	w.cluster.Purge("db")
	w.cluster.Register(job("old", "1").Job)
	got, head, err := w.d.Drift(t.Context())
	if err != nil || head.Number != 2 {
		t.Fatalf("got release %v, %v", head, err)
	}
	kinds := map[string]string{}
	for _, d := range got {
		kinds[d.Service] = d.Kind
	}
	for service, want := range map[string]string{"api": release.DriftNone, "web": release.DriftChanged, "db": release.DriftMissing, "old": release.DriftExtra} {
		if kinds[service] != want {
			t.Errorf("%s: got %q, want %q", service, kinds[service], want)
		}
	}
}

func TestAdopt(t *testing.T) {
	w := newWorld(t)
	w.cluster.Register(job("api", "by hand").Job)
	req := request("1")
	req.Adopt = true
	head, err := w.d.Adopt(t.Context(), w.plan(req))
	if err != nil || head == nil || head.State != record.Done || head.Kind != release.KindAdopt || head.Total != 1 {
		t.Fatalf("got %+v, %v, want one job that is adopted", head, err)
	}
	w.wantLog()
	w.wantState(w.deploy(request("1")), record.Done, rollout.Deployed)
	back, err := w.d.Rollback(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	back.Prune = true
	w.deploy(back)
	w.wantRunning("api=by hand")
}

func TestPause_PausesDeployments(t *testing.T) {
	w := newWorld(t)
	w.killed(record.StepSubmitted, true)
	head, err := w.d.Pause(t.Context(), "bob")
	if err != nil || head.State != record.Paused {
		t.Fatalf("got %+v, %v", head, err)
	}
	w.wantLog("pause api")
	res, err := w.d.Resume(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	w.wantState(res, record.Done, rollout.Deployed)
	w.wantLog("resume api", "register web")
}

func TestResume_TargetThatCannotBeReached(t *testing.T) {
	w := newWorld(t)
	w.killed(record.StepSubmitted, true)
	w.d.Dial = func(context.Context, *stack.Target, bool) (release.Cluster, error) { return nil, errNoAnswer }
	if _, err := w.d.Resume(t.Context(), false); !errors.Is(err, errNoAnswer) {
		t.Errorf("got %v, want %v", err, errNoAnswer)
	}
	if h, _ := w.store.Holder(t.Context()); h != nil {
		t.Errorf("the lock is held by %s", h)
	}
}

func TestDeploy_StoppedJobIsStoppedAgain(t *testing.T) {
	w := newWorld(t)
	w.deploy(request("1"))
	stop := true
	stopped := *job("web", "1").Job
	stopped.Stop = &stop
	w.cluster.Register(&stopped)
	w.cluster.Follow = func(_ context.Context, j *api.Job) rollout.ServiceResult {
		if *j.ID == "web" {
			return rollout.ServiceResult{Outcome: rollout.Failed}
		}
		return rollout.ServiceResult{Outcome: rollout.Deployed}
	}
	w.wantState(w.deploy(request("2")), record.Reverted, rollout.FailedReverted)
	w.wantRunning("api=1")
}

// A revert must not fail for all jobs because Nomad refuses the former spec of one.
func TestAbort_LeavesOutAJobThatNomadRefuses(t *testing.T) {
	w := newWorld(t)
	w.deploy(requestOf(job("api", "1"), job("web", "1")))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w.cluster.Follow = func(_ context.Context, j *api.Job) rollout.ServiceResult {
		if *j.ID == "web" {
			cancel()
			return rollout.ServiceResult{Outcome: rollout.Cancelled}
		}
		return rollout.ServiceResult{Outcome: rollout.Deployed}
	}
	req := requestOf(job("api", "2"), job("web", "2"))
	req.Waves = req.Waves[:1]
	req.Waves[0].Members = append(req.Waves[0].Members, requestOf(job("web", "2")).Waves[0].Members...)
	if _, err := w.d.Deploy(ctx, w.plan(req)); err != nil {
		t.Fatal(err)
	}
	w.cluster.Follow = nil
	w.cluster.Fail = func(request string) error {
		if request == "Plan web" {
			return errors.New("invalid job specification")
		}
		return nil
	}
	res, err := w.d.Abort(t.Context())
	if err != nil || !res.Release.State.Open() {
		t.Fatalf("got state %s, %v, want a release that can be aborted again", res.Release.State, err)
	}
	if got := w.cluster.Running("version")["api"]; got != "1" {
		t.Errorf("api runs version %q after the abort, want 1 although Nomad refuses web", got)
	}
	w.cluster.Fail = nil
	if res, err = w.d.Abort(t.Context()); err != nil || res.Release.State.Open() {
		t.Fatalf("Nomad takes web again: got state %s, %v, want a finished release", res.Release.State, err)
	}
	if got := w.cluster.Running("version"); got["api"] != "1" || got["web"] != "1" {
		t.Errorf("got %v, want version 1 of both", got)
	}
}
