package release_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

func TestDeploy_Waves(t *testing.T) {
	w := newWorld(t)
	res := w.deploy(request("1"))
	last := w.wantState(res, record.Done, rollout.Deployed)
	w.wantLog("register api", "register web")
	w.wantSteps("api=done", "web=done")
	if last.Number != 1 || last.Changed != 2 || last.Total != 2 || last.OnFailure != release.OnFailureStop {
		t.Errorf("got release %d, %d of %d changed, on failure %s; want 1, 2 of 2, %s", last.Number, last.Changed, last.Total, last.OnFailure, release.OnFailureStop)
	}
	for i, wave := range last.Waves {
		if wave.State != record.Done || wave.Ended.IsZero() {
			t.Errorf("wave %d: got %+v, want one that has ended", i, wave)
		}
	}
	if got, want := w.cluster.Tags(), []string{"api/drover-r1", "web/drover-r1"}; !slices.Equal(got, want) {
		t.Errorf("tags: got %q, want %q", got, want)
	}
	if h, _ := w.store.Holder(t.Context()); h != nil {
		t.Errorf("the lock is held by %s after the release", h)
	}
	w.deploy(request("2"))
	w.wantRunning("api=2 web=2")
}

func TestDeploy_Unchanged(t *testing.T) {
	w := newWorld(t)
	w.deploy(request("1"))
	w.cluster.ResetLog()
	res := w.deploy(request("1"))
	w.wantLog()
	if res.Release != nil || res.Outcome() != rollout.Unchanged {
		t.Errorf("got release %v, outcome %s; want none, %s", res.Release, res.Outcome(), rollout.Unchanged)
	}
}

// The line of a job that does not change is written once, with the release. The others
// are written before the registration, after it, and with the outcome.
func TestDeploy_WritesUnchangedLinesOnce(t *testing.T) {
	w := newWorld(t)
	w.deploy(request("1"))
	var mu sync.Mutex
	ops := map[string]int{}
	w.store.Intercept = func(op string) error {
		mu.Lock()
		defer mu.Unlock()
		ops[op]++
		return nil
	}
	req := requestOf(job("api", "1"), job("web", "2", "api"))
	w.wantState(w.deploy(req), record.Done, rollout.Deployed)
	w.wantSteps("api=unchanged", "web=done")
	if ops["Update"] != 1 || ops["Note"] != 2 {
		t.Errorf("got %d writes before and %d after something is done, want 1 and 2", ops["Update"], ops["Note"])
	}
}

func TestDeploy_RecordsAnIdenticalJobThatAnotherClientRegistered(t *testing.T) {
	for name, before := range map[string]func(*world){
		"without a release": func(*world) {},
		"after a destroy": func(w *world) {
			w.deploy(request("1"))
			w.destroy(release.Only{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			before(w)
			w.cluster.Register(job("api", "1").Job)
			w.cluster.Register(job("web", "1", "api").Job)
			w.cluster.ResetLog()
			res := w.deploy(request("1"))
			w.wantLog()
			w.wantState(res, record.Done, rollout.Deployed)
			w.wantSteps("api=unchanged", "web=unchanged")
			if again := w.deploy(request("1")); again.Release != nil {
				t.Errorf("the second deploy made release %d, want none", again.Release.Number)
			}
		})
	}
}

func TestDeploy_Failure(t *testing.T) {
	for name, tt := range map[string]struct {
		onFailure string
		outcome   rollout.Outcome // of web
		state     record.State
		want      rollout.Outcome
		running   string
	}{
		"reverts both waves when the second fails": {"", rollout.Failed, record.Reverted, rollout.FailedReverted, "api=1 web=1"},
		"reverts the service that failed":          {release.OnFailureRevertService, rollout.Failed, record.FailedState, rollout.Failed, "api=2 web=1"},
		"stops":                                    {release.OnFailureStop, rollout.TimedOut, record.FailedState, rollout.TimedOut, "api=2 web=2"},
		"stays open when it is unreachable":        {"", rollout.Unreachable, record.Interrupted, rollout.Unreachable, "api=2 web=2"},
		"stays open when a canary waits":           {"", rollout.AwaitPromotion, record.NeedsPromotion, rollout.AwaitPromotion, "api=2 web=2"},
		"reverts when a node is missing":           {"", rollout.PlacementFailed, record.Reverted, rollout.FailedReverted, "api=1 web=1"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.deploy(request("1"))
			w.fail("web", "2", tt.outcome)
			req := request("2")
			req.OnFailure = tt.onFailure
			w.wantState(w.deploy(req), tt.state, tt.want)
			w.wantRunning(tt.running)
		})
	}
}

func TestDeploy_FailureInTheFirstWaveSkipsTheSecond(t *testing.T) {
	w := newWorld(t)
	w.deploy(request("1"))
	w.fail("api", "2", rollout.Failed)
	w.cluster.ResetLog()
	w.wantState(w.deploy(request("2")), record.Reverted, rollout.FailedReverted)
	w.wantLog("register api", "register api")
	w.wantSteps("api=reverted", "web=pending")
}

func TestDeploy_FirstReleaseThatFailsStays(t *testing.T) {
	w := newWorld(t)
	w.fail("web", "1", rollout.Failed)
	w.wantState(w.deploy(request("1")), record.FailedState, rollout.Failed)
	w.wantRunning("api=1 web=1")
}

func TestDeploy_RevertStopsWhatIsNew(t *testing.T) {
	w := newWorld(t)
	w.deploy(requestOf(job("api", "1")))
	w.fail("web", "2", rollout.Failed)
	w.wantState(w.deploy(request("2")), record.Reverted, rollout.FailedReverted)
	w.wantRunning("api=1")
	w.wantSteps("api=reverted", "web=reverted")
}

func TestDeploy_RevertThatIsNotHealthy(t *testing.T) {
	w := newWorld(t)
	w.deploy(request("1"))
	w.cluster.Follow = func(context.Context, *api.Job) rollout.ServiceResult {
		return rollout.ServiceResult{Outcome: rollout.Failed, Detail: "scripted"}
	}
	last := w.wantState(w.deploy(request("2")), record.RevertFailed, rollout.Failed)
	w.wantRunning("api=1 web=1")
	if last.State.Open() {
		t.Errorf("release %d is open", last.Number)
	}
}

func TestDeploy_GateFails(t *testing.T) {
	for name, tt := range map[string]struct {
		res   rollout.GateResult
		err   error
		state record.State
		want  rollout.Outcome
	}{
		"reverts both waves when the second gate fails": {rollout.GateResult{Detail: "503"}, nil, record.Reverted, rollout.FailedReverted},
		"stays open when the services cannot be seen":   {rollout.GateResult{Away: true, Detail: "no answer"}, nil, record.Interrupted, rollout.Unreachable},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.deploy(request("1"))
			req := request("2")
			for _, wave := range req.Waves {
				wave.Bake = time.Minute
			}
			gates := 0
			w.d.Hold = func(_ context.Context, _ []rollout.Party, _ rollout.GateOptions, tell func(rollout.GateProgress)) (rollout.GateResult, error) {
				gates++
				tell(rollout.GateProgress{Waiting: "a look"})
				if gates == 1 {
					return rollout.GateResult{OK: true}, nil
				}
				return tt.res, tt.err
			}
			w.wantState(w.deploy(req), tt.state, tt.want)
		})
	}
}

func TestDeploy_Timeout(t *testing.T) {
	w := newWorld(t)
	w.deploy(request("1"))
	w.d.Timeout = 20 * time.Millisecond
	w.cluster.Follow = func(ctx context.Context, j *api.Job) rollout.ServiceResult {
		if j.Meta["version"] == "2" {
			<-ctx.Done()
			return rollout.ServiceResult{Outcome: rollout.TimedOut, Detail: "scripted"}
		}
		return rollout.ServiceResult{Outcome: rollout.Deployed}
	}
	w.wantState(w.deploy(request("2")), record.Reverted, rollout.FailedReverted)
	w.wantRunning("api=1 web=1")
}

func TestDeploy_Prunes(t *testing.T) {
	w := newWorld(t)
	w.deploy(request("1"))
	p := w.plan(requestOf(job("api", "1")))
	if _, err := w.d.Deploy(t.Context(), p); !as[*release.PruneError](err) {
		t.Fatalf("without --prune: got %v, want a *release.PruneError", err)
	}
	p.AllowPrune()
	w.cluster.ResetLog()
	res, err := w.d.Deploy(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	last := w.wantState(res, record.Done, rollout.Deployed)
	w.wantLog("purge web")
	if !slices.Equal(res.Pruned, []string{"web"}) || last.Pruned != 1 || last.Total != 1 {
		t.Errorf("pruned %q; head: %d pruned, %d in all; want web, 1, 1", res.Pruned, last.Pruned, last.Total)
	}
}

func TestDeploy_PruneThatFailsIsReverted(t *testing.T) {
	w := newWorld(t)
	w.deploy(request("1"))
	w.cluster.Fail = func(r string) error {
		if r == "Purge web" {
			return errors.New("refused")
		}
		return nil
	}
	req := requestOf(job("api", "2"))
	req.Prune = true
	w.wantState(w.deploy(req), record.Reverted, rollout.FailedReverted)
	w.wantRunning("api=1 web=1")
}

func TestDeploy_PruneOfAJobThatChanged(t *testing.T) {
	w := newWorld(t)
	w.deploy(request("1"))
	req := requestOf(job("api", "2"))
	req.Prune = true
	p := w.plan(req)
	w.cluster.Register(job("web", "by hand").Job)
	res, err := w.d.Deploy(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	w.wantState(res, record.Reverted, rollout.Superseded)
	w.wantRunning("api=1 web=by hand")
}

func TestDeploy_Partial(t *testing.T) {
	w := newWorld(t)
	w.deploy(request("1"))
	req := requestOf(job("api", "2"))
	req.Partial = true
	last := w.wantState(w.deploy(req), record.Done, rollout.Deployed)
	w.wantRunning("api=2 web=1")
	w.wantSteps("api=done", "web=unchanged")
	if last.Total != 2 || last.Changed != 1 {
		t.Errorf("got %d of %d changed, want 1 of 2", last.Changed, last.Total)
	}
}

func TestDeploy_AnotherClientChangesAJob(t *testing.T) {
	w := newWorld(t)
	w.deploy(request("1"))
	w.cluster.Follow = func(_ context.Context, j *api.Job) rollout.ServiceResult {
		if *j.ID == "web" && j.Meta["version"] == "2" {
			w.cluster.Register(job("api", "by hand").Job)
			return rollout.ServiceResult{Outcome: rollout.Failed, Detail: "scripted"}
		}
		return rollout.ServiceResult{Outcome: rollout.Deployed}
	}
	w.wantState(w.deploy(request("2")), record.Reverted, rollout.Superseded)
	w.wantRunning("api=by hand web=1")
}

func TestDeploy_LockIsLostToAnotherProcess(t *testing.T) {
	w := newWorld(t)
	w.deploy(request("1"))
	w.cluster.Follow = func(_ context.Context, j *api.Job) rollout.ServiceResult {
		if *j.ID == "api" && j.Meta["version"] == "2" {
			w.store.Break()
			if _, err := w.store.Lock(context.Background(), record.Holder{User: "bob", PID: 8}, 0, nil); err != nil {
				t.Error(err)
			}
		}
		return rollout.ServiceResult{Outcome: rollout.Deployed}
	}
	w.cluster.ResetLog()
	res := w.deploy(request("2"))
	w.wantLog("register api") // and nothing without the lock
	if res.Outcome().OK() {
		t.Errorf("outcome: got %s, want one that is not good", res.Outcome())
	}
}

func TestDeploy_LockIsTakenAgain(t *testing.T) {
	w := newWorld(t)
	w.cluster.Follow = func(_ context.Context, j *api.Job) rollout.ServiceResult {
		if *j.ID == "api" {
			w.store.Break()
		}
		return rollout.ServiceResult{Outcome: rollout.Deployed}
	}
	w.wantState(w.deploy(request("1")), record.Done, rollout.Deployed)
}

func TestDeploy_SecondProcessIsRefused(t *testing.T) {
	w := newWorld(t)
	w.deploy(request("1"))
	p := w.plan(request("2"))
	l, err := w.store.Lock(t.Context(), w.deployer("bob").Holder, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.d.Deploy(t.Context(), p); !as[*record.LockedError](err) {
		t.Errorf("got %v, want a *record.LockedError", err)
	}
	if err := l.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.wantRunning("api=1 web=1")
}

func TestDeploy_WaitsForTheOtherAndPlansAgain(t *testing.T) {
	w := newWorld(t)
	w.deploy(request("1"))
	p := w.plan(request("3"))
	if _, err := w.deployer("bob").Deploy(t.Context(), w.plan(request("2"))); err != nil {
		t.Fatal(err)
	}
	agreed := 0
	w.d.Operator = operator{agree: func(p *release.Plan) error {
		agreed++
		if p.Last().Number != 2 {
			t.Errorf("the new plan follows release %d, want 2", p.Last().Number)
		}
		return nil
	}}
	res, err := w.d.Deploy(t.Context(), p)
	if err != nil || agreed != 1 {
		t.Fatalf("got %v after %d questions, want one question", err, agreed)
	}
	w.wantState(res, record.Done, rollout.Deployed)
	w.wantRunning("api=3 web=3")
	no := errors.New("no")
	stale := w.plan(request("4"))
	w.deploy(request("5"))
	w.d.Operator = operator{agree: func(*release.Plan) error { return no }}
	if _, err := w.d.Deploy(t.Context(), stale); !errors.Is(err, no) {
		t.Errorf("a plan that is not agreed to: got %v, want %v", err, no)
	}
}

func TestDeploy_OpenRelease(t *testing.T) {
	w := newWorld(t)
	w.deploy(request("1"))
	ctx := w.interrupt("api", "2")
	if _, err := w.d.Deploy(ctx, w.plan(request("2"))); err != nil {
		t.Fatal(err)
	}
	if _, err := w.d.Plan(t.Context(), request("3")); !as[*release.OpenError](err) {
		t.Errorf("over an open release: got %v, want a *release.OpenError", err)
	}
	l, err := w.store.Lock(t.Context(), record.Holder{User: "bob", PID: 8}, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.d.Plan(t.Context(), request("3")); !as[*record.LockedError](err) {
		t.Errorf("over a release that is being made: got %v, want a *record.LockedError", err)
	}
	if err := l.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.cluster.Follow = nil
	req := request("3")
	req.TakeOver = true
	w.wantState(w.deploy(req), record.Done, rollout.Deployed)
	w.wantRunning("api=3 web=3")
	abandoned, err := w.store.Read(t.Context(), 2)
	if err != nil || abandoned.State != record.Abandoned {
		t.Errorf("release 2: got %+v, %v, want %s", abandoned, err, record.Abandoned)
	}
}

func TestDeploy_Interrupted(t *testing.T) {
	w := newWorld(t)
	w.deploy(request("1"))
	ctx := w.interrupt("api", "2")
	res, err := w.d.Deploy(ctx, w.plan(request("2")))
	if err != nil {
		t.Fatal(err)
	}
	w.wantState(res, record.Interrupted, rollout.Cancelled)
	w.wantSteps("api=submitted", "web=pending")
}

func TestDeploy_RecordCannotBeWritten(t *testing.T) {
	w := newWorld(t)
	w.deploy(request("1"))
	p := w.plan(request("2"))
	w.store.Intercept = func(op string) error {
		if op == "Update" {
			return errors.New("403")
		}
		return nil
	}
	w.cluster.ResetLog()
	res, err := w.d.Deploy(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	w.wantLog() // nothing is submitted that is not recorded
	w.wantState(res, record.Running, rollout.Unreachable)
}

func TestDeploy_TakenOverMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.deploy(request("1"))
	w.cluster.Follow = func(_ context.Context, j *api.Job) rollout.ServiceResult {
		if *j.ID == "api" && j.Meta["version"] == "2" {
			if _, err := w.deployer("bob").Pause(context.Background(), "bob"); err != nil {
				t.Error(err)
			}
		}
		return rollout.ServiceResult{Outcome: rollout.Deployed}
	}
	w.cluster.ResetLog()
	res := w.deploy(request("2"))
	w.wantState(res, record.Paused, rollout.Cancelled)
	if log := w.cluster.Log(); slices.Contains(log, "register web") {
		t.Errorf("written: got %q, want nothing after the release was taken over", log)
	}
	w.cluster.Follow = nil
	resumed, err := w.d.Resume(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	w.wantState(resumed, record.Done, rollout.Deployed)
	w.wantRunning("api=2 web=2")
}

func TestDeploy_Foreign(t *testing.T) {
	w := newWorld(t)
	w.cluster.Register(job("web", "by hand").Job)
	if _, err := w.d.Plan(t.Context(), request("1")); !as[*release.ForeignError](err) {
		t.Fatalf("over a job of no record: got %v, want a *release.ForeignError", err)
	}
	owner := &record.Owner{Stack: "other", Environment: "prod", Release: 3, Exact: true}
	w.store.OwnerOf = func(j record.LiveJob) *record.Owner {
		if j.ID == "web" {
			return owner
		}
		return nil
	}
	req := request("1")
	req.Adopt = true
	p := w.plan(req)
	if err := p.Conflict(); !as[*release.ForeignError](err) {
		t.Errorf("over a job of another stack: got %v, want a *release.ForeignError", err)
	}
	if got := p.Foreign(); len(got) != 1 || got[0].Owner != owner || got[0].JobID != "web" {
		t.Errorf("foreign: got %+v, want web of the other stack", got)
	}
}

func TestDeploy_SparesAJobThatAnotherStackOwns(t *testing.T) {
	w := newWorld(t)
	w.deploy(request("1"))
	w.cluster.Register(job("web", "other").Job)
	w.store.OwnerOf = func(j record.LiveJob) *record.Owner {
		return &record.Owner{Stack: "other", Environment: "prod", Release: 3, Exact: true}
	}
	p := w.plan(requestOf(job("api", "1")))
	if got := p.Spared(); len(got) != 1 || got[0].JobID != "web" || len(p.Prunes()) != 0 {
		t.Errorf("spared %+v, prunes %+v; want web, none", got, p.Prunes())
	}
}

func TestDeploy_BeginFails(t *testing.T) {
	w := newWorld(t)
	no := errors.New("no")
	w.d.Operator = operator{begin: func() error { return no }}
	if _, err := w.d.Deploy(t.Context(), w.plan(request("1"))); !errors.Is(err, no) {
		t.Errorf("got %v, want %v", err, no)
	}
	w.wantLog()
}

func TestDeploy_CreatesVolumesFirst(t *testing.T) {
	w := newWorld(t)
	req := request("1")
	req.Volumes = map[string][]rollout.MissingVolume{"": {{Name: "data"}}}
	w.cluster.Fail = func(request string) error {
		if request == "CreateVolume data" {
			return errors.New("no room")
		}
		return nil
	}
	if _, err := w.d.Deploy(t.Context(), w.plan(req)); err == nil || err.Error() != "no room" {
		t.Errorf("got %v, want: no room", err)
	}
	w.wantLog()
	w.cluster.Fail = nil
	w.wantState(w.deploy(req), record.Done, rollout.Deployed)
	w.wantLog("volume data", "register api", "register web")
	i := slices.IndexFunc(w.events, func(e release.Event) bool { return e.Kind == release.EventVolume })
	if i < 0 || w.events[i].Volume != "data" {
		t.Errorf("got events %+v, want one of volume data", w.events)
	}
}

func TestMake_AsksTheOperator(t *testing.T) {
	w := newWorld(t)
	no := errors.New("no")
	w.d.Operator = operator{agree: func(*release.Plan) error { return no }}
	if _, err := w.d.Make(t.Context(), request("1")); !errors.Is(err, no) {
		t.Errorf("got %v, want %v", err, no)
	}
	w.wantLog()
	w.d.Operator = nil
	res, err := w.d.Make(t.Context(), request("1"))
	if err != nil {
		t.Fatal(err)
	}
	w.wantState(res, record.Done, rollout.Deployed)
}

func TestDeploy_TwoTargets(t *testing.T) {
	w := newWorld(t)
	east, west := w.cluster, newWorldCluster()
	targets := []*stack.Target{
		{Name: "east"}, {Name: "west", Cluster: &stack.Cluster{Access: stack.Access{Address: "http://west:4646"}}},
	}
	w.d.Dial = func(_ context.Context, t *stack.Target, _ bool) (release.Cluster, error) {
		if t.Name == "west" {
			return west, nil
		}
		return east, nil
	}
	ask := func(version string, names ...string) release.Request {
		var jobs []render.Job
		for _, n := range names {
			j := job("api", version)
			j.Target = n
			jobs = append(jobs, j)
		}
		req := release.Request{Kind: release.KindDeploy, Jobs: jobs, Targets: targets, KeepRestarts: true}
		for _, n := range names {
			req.Waves = append(req.Waves, &stack.Wave{Name: n, Members: []stack.Member{{Target: n, Service: "api"}}})
		}
		return req
	}
	w.wantState(w.deploy(ask("1", "east", "west")), record.Done, rollout.Deployed)
	west.Follow = func(_ context.Context, j *api.Job) rollout.ServiceResult {
		if j.Meta["version"] == "2" {
			return rollout.ServiceResult{Outcome: rollout.Failed}
		}
		return rollout.ServiceResult{Outcome: rollout.Deployed}
	}
	w.wantState(w.deploy(ask("2", "east", "west")), record.Reverted, rollout.FailedReverted)
	if east, west := east.Running("version")["api"], west.Running("version")["api"]; east != "1" || west != "1" {
		t.Errorf("running: got east %s, west %s; want 1 and 1", east, west)
	}

	// West leaves the environment.
	targets = targets[:1]
	gone := ask("3", "east")
	gone.Targets = targets
	gone.Prune = true
	w.wantState(w.deploy(gone), record.Done, rollout.Deployed)
	if got := west.Running("version"); len(got) != 0 {
		t.Errorf("west runs %v after it left the environment", got)
	}
}

func TestDeploy_Forget(t *testing.T) {
	w := newWorld(t)
	west := newWorldCluster()
	w.d.Dial = func(_ context.Context, t *stack.Target, _ bool) (release.Cluster, error) {
		if t.Name == "west" {
			return west, nil
		}
		return w.cluster, nil
	}
	east, far := job("api", "1"), job("api", "1")
	east.Target, far.Target = "east", "west"
	req := release.Request{Kind: release.KindDeploy, Jobs: []render.Job{east, far}, KeepRestarts: true,
		Targets: []*stack.Target{{Name: "east"}, {Name: "west", Cluster: &stack.Cluster{Access: stack.Access{Address: "http://west:4646"}}}},
		Waves:   []*stack.Wave{{Name: "all", Members: []stack.Member{{Target: "east", Service: "api"}, {Target: "west", Service: "api"}}}},
	}
	w.deploy(req)
	req.Jobs, req.Targets = req.Jobs[:1], req.Targets[:1]
	req.Waves = []*stack.Wave{{Name: "all", Members: []stack.Member{{Target: "east", Service: "api"}}}}
	w.d.Dial = func(_ context.Context, t *stack.Target, _ bool) (release.Cluster, error) {
		if t.Name == "west" {
			return nil, errNoAnswer
		}
		return w.cluster, nil
	}
	if _, err := w.d.Plan(t.Context(), req); !as[*release.RetiredError](err) {
		t.Fatalf("a removed target that cannot be reached: got %v, want a *release.RetiredError", err)
	}
	req.Forget = []string{"west"}
	p := w.plan(req)
	if got := p.Forgotten(); !slices.Equal(got, []string{"api@west"}) {
		t.Errorf("forgotten: got %q, want api@west", got)
	}
	w.wantState(w.deploy(req), record.Done, rollout.Deployed)
	w.wantSteps("api=unchanged")
	if got := west.Running("version")["api"]; got != "1" {
		t.Errorf("west runs %q, want 1", got)
	}
}

func TestChanged_ComparesIndexesWithTheLastRelease(t *testing.T) {
	w := newWorld(t)
	elsewhere := newWorldCluster()
	w.d.Dial = func(_ context.Context, t *stack.Target, _ bool) (release.Cluster, error) {
		if t.Cluster != nil {
			return elsewhere, nil
		}
		return w.cluster, nil
	}
	scaled := job("scaled", "1")
	scaled.Job.TaskGroups[0].Scaling = &api.ScalingPolicy{}
	far := job("far", "1")
	far.Target = "west"
	req := requestOf(job("same", "1"), job("edited", "1"), job("stopped", "1"), job("purged", "1"), scaled, far)
	req.Targets = append(req.Targets, &stack.Target{Name: "west", Cluster: &stack.Cluster{Access: stack.Access{Address: "http://west:4646"}}})
	req.Waves[len(req.Waves)-1].Members[0].Target = "west"
	changed := func() string {
		t.Helper()
		head, drift, err := release.Changed(t.Context(), w.store, w.cluster)
		if err != nil {
			t.Fatal(err)
		}
		if head == nil {
			return "no release"
		}
		out := []string{fmt.Sprint("release ", head.Number)}
		for _, d := range drift {
			out = append(out, d.JobID+" "+d.Kind)
		}
		return strings.Join(out, ", ")
	}
	if got := changed(); got != "no release" {
		t.Errorf("before the first release: got %q, want %q", got, "no release")
	}
	w.deploy(req)
	if got := changed(); got != "release 1" {
		t.Errorf("after a release: got %q, want %q", got, "release 1")
	}
	w.cluster.Register(job("edited", "2").Job)
	w.cluster.Register(scaled.Job)
	stop := job("stopped", "1").Job
	stop.Stop = new(bool)
	*stop.Stop = true
	w.cluster.Register(stop)
	w.cluster.Purge("purged")
	if got, want := changed(), "release 1, edited changed, stopped stopped, purged missing"; got != want {
		t.Errorf("after other clients changed jobs: got %q, want %q", got, want)
	}
	w.cluster.Follow = func(context.Context, *api.Job) rollout.ServiceResult {
		return rollout.ServiceResult{Outcome: rollout.Failed}
	}
	req = requestOf(job("same", "2"))
	req.Partial = true
	w.deploy(req)
	if got := changed(); got != "no release" {
		t.Errorf("after a release that failed: got %q, want %q", got, "no release")
	}
}
