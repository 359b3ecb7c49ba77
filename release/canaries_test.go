package release_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// gates counts how often gates are evaluated, before and after a promotion.
type gates struct{ canaries, whole int }

// canaryWorld is a world whose release 1 is good, and the request of release 2, in which
// the canaries of api wait and its wave promotes them. Their gate ends as res.
func canaryWorld(t *testing.T, res *rollout.GateResult) (*world, release.Request, *gates) {
	w, seen := newWorld(t), &gates{}
	w.wantState(w.deploy(request("1")), record.Done, rollout.Deployed)
	w.d.Hold = func(ctx context.Context, ps []rollout.Party, o rollout.GateOptions, _ func(rollout.GateProgress)) (rollout.GateResult, error) {
		if ctx.Err() != nil {
			return rollout.GateResult{}, context.Cause(ctx)
		}
		if !o.Canaries {
			seen.whole++
			return rollout.GateResult{OK: true}, nil
		}
		seen.canaries++
		if len(ps) != 1 || len(ps[0].Jobs) != 1 || ps[0].Jobs[0].Service != "api" {
			t.Errorf("got parties %+v, want api alone", ps)
		}
		return *res, nil
	}
	w.cluster.Follow = func(_ context.Context, j *api.Job) rollout.ServiceResult {
		if *j.ID == "api" && j.Meta["version"] == "2" {
			return rollout.ServiceResult{Outcome: rollout.AwaitPromotion}
		}
		return rollout.ServiceResult{Outcome: rollout.Deployed}
	}
	limit := 0.01
	req := request("2")
	req.Waves[0].Promote, req.Waves[0].Gate.Metrics = true, []*stack.Metric{{Name: "errors", Below: &limit}}
	w.cluster.ResetLog()
	return w, req, seen
}

func wantGates(t *testing.T, got *gates, canaries, whole int) {
	t.Helper()
	if *got != (gates{canaries, whole}) {
		t.Errorf("got %d gates of canaries and %d of all, want %d and %d", got.canaries, got.whole, canaries, whole)
	}
}

func TestCanaries_PromotedWhenTheGateHolds(t *testing.T) {
	w, req, seen := canaryWorld(t, &rollout.GateResult{OK: true})
	w.wantState(w.deploy(req), record.Done, rollout.Deployed)
	w.wantLog("register api", "promote api", "register web")
	wantGates(t, seen, 1, 0)
}

func TestCanaries_FailedDeploymentReverts(t *testing.T) {
	w, req, seen := canaryWorld(t, &rollout.GateResult{Detail: "metric errors: 0.03, not below 0.01"})
	last := w.wantState(w.deploy(req), record.Reverted, rollout.FailedReverted)
	w.wantLog("register api", "fail api", "register api")
	w.wantRunning("api=1 web=1")
	if want := "api: the gate of its canaries: metric errors: 0.03, not below 0.01"; last.Detail != want {
		t.Errorf("got detail %q, want %q", last.Detail, want)
	}
	wantGates(t, seen, 1, 0)
}

// With --on-failure stop the canaries do not go on serving either.
func TestCanaries_FailedDeploymentStops(t *testing.T) {
	w, req, _ := canaryWorld(t, &rollout.GateResult{Detail: "too slow"})
	req.OnFailure = release.OnFailureStop
	w.wantState(w.deploy(req), record.FailedState, rollout.Failed)
	w.wantLog("register api", "fail api")
}

func TestCanaries_Inconclusive(t *testing.T) {
	for name, c := range map[string]struct {
		do           func(*world, *rollout.GateResult) (release.Result, error)
		state        record.State
		log          []string
		canaries     int
		wantServices string
	}{
		"a person promotes": {func(w *world, _ *rollout.GateResult) (release.Result, error) { return w.d.Resume(w.Context(), true) },
			record.Done, []string{"promote api", "register web"}, 1, "api=2 web=2"},
		"resume evaluates again": {func(w *world, res *rollout.GateResult) (release.Result, error) {
			*res = rollout.GateResult{OK: true}
			return w.d.Resume(w.Context(), false)
		}, record.Done, []string{"promote api", "register web"}, 2, "api=2 web=2"},
		"resume fails them": {func(w *world, res *rollout.GateResult) (release.Result, error) {
			*res = rollout.GateResult{Detail: "bad"}
			return w.d.Resume(w.Context(), false)
		}, record.Reverted, []string{"fail api", "register api"}, 2, "api=1 web=1"},
		"abort": {func(w *world, _ *rollout.GateResult) (release.Result, error) { return w.d.Abort(w.Context()) },
			record.Aborted, []string{"register api"}, 1, "api=1 web=1"},
	} {
		t.Run(name, func(t *testing.T) {
			res := &rollout.GateResult{Unknown: true, Detail: "metric errors: no data for 5m0s"}
			w, req, seen := canaryWorld(t, res)
			paused := w.deploy(req)
			last := w.wantState(paused, record.NeedsPromotion, rollout.AwaitPromotion)
			if !paused.Services[0].Undecided {
				t.Error("the result does not say that only a person may promote the canaries")
			}
			if !strings.HasSuffix(last.Detail, "their gate is inconclusive: metric errors: no data for 5m0s") {
				t.Errorf("got detail %q, want one that the gate is inconclusive", last.Detail)
			}
			w.wantLog("register api")
			if _, err := c.do(w, res); err != nil {
				t.Fatal(err)
			}
			if last, err := w.store.Last(t.Context()); err != nil || last.State != c.state {
				t.Errorf("got release %+v and %v, want state %s", last, err, c.state)
			}
			w.wantLog(c.log...)
			w.wantRunning(c.wantServices)
			wantGates(t, seen, c.canaries, 0) // a promotion is a decision: the whole is not measured after it
		})
	}
}

// TestCanaries_Interrupted kills drover before, between and after the verdict and the
// promotion: the release is resumed with the same end.
func TestCanaries_Interrupted(t *testing.T) {
	for name, c := range map[string]struct {
		at        string // the request that fails
		canaries  int    // gates in all
		wantFirst []string
		wantThen  []string
	}{
		"between the verdict and the promotion": {"Promote api", 2, []string{"register api"}, []string{"promote api", "register web"}},
		"after the promotion":                   {"Register web", 1, []string{"register api", "promote api"}, []string{"register web"}},
	} {
		t.Run(name, func(t *testing.T) {
			w, req, seen := canaryWorld(t, &rollout.GateResult{OK: true})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w.cluster.Fail = func(request string) error {
				if request == c.at {
					cancel()
					return errors.New("killed")
				}
				return nil
			}
			if _, err := w.d.Deploy(ctx, w.plan(req)); err != nil {
				t.Fatal(err)
			}
			w.wantLog(c.wantFirst...)
			w.cluster.Fail = nil
			res, err := w.d.Resume(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			w.wantState(res, record.Done, rollout.Deployed)
			w.wantLog(c.wantThen...)
			w.wantRunning("api=2 web=2")
			wantGates(t, seen, c.canaries, 0)
		})
	}
}

func TestCanaries_WholeIsJudgedWithoutCanaries(t *testing.T) {
	w, req, seen := canaryWorld(t, &rollout.GateResult{OK: true})
	w.cluster.Follow = nil // the change is made in place
	w.wantState(w.deploy(req), record.Done, rollout.Deployed)
	wantGates(t, seen, 0, 1)
}

func TestCanaries_RollbackPromotesWithoutMetrics(t *testing.T) {
	w, req, _ := canaryWorld(t, &rollout.GateResult{OK: true})
	w.deploy(req)
	w.cluster.Follow = nil
	w.deploy(request("3"))
	var metrics, canaries int
	w.d.Hold = func(_ context.Context, _ []rollout.Party, o rollout.GateOptions, _ func(rollout.GateProgress)) (rollout.GateResult, error) {
		metrics += len(o.Metrics)
		if o.Canaries {
			canaries++
		}
		return rollout.GateResult{OK: true}, nil
	}
	w.cluster.Follow = func(context.Context, *api.Job) rollout.ServiceResult {
		return rollout.ServiceResult{Outcome: rollout.AwaitPromotion}
	}
	back := w.rollback(2)
	back.Waves = slices.Clone(back.Waves)
	back.Waves[1].Promote, back.Waves[1].Bake = true, 1
	w.wantState(w.deploy(back), record.Done, rollout.Deployed)
	if metrics != 0 || canaries != 2 {
		t.Errorf("got %d metrics and %d gates of canaries, want none and 2", metrics, canaries)
	}
}

func TestCanaries_ScheduleNeedsNoPerson(t *testing.T) {
	w := newWorld(t)
	one := 1
	jobs := func(version string) release.Request {
		j := job("web", version)
		j.Job.Update = &api.UpdateStrategy{Canary: &one}
		return requestOf(j)
	}
	w.deploy(jobs("1"))
	req := jobs("2")
	req.Unattended = &release.Unattended{Schedule: "nightly"}
	if err := w.plan(req).CheckAttended(); !as[*release.AttendedError](err) {
		t.Errorf("got %v, want an error: a person promotes", err)
	}
	req.Waves[0].Promote, req.Waves[0].Bake = true, 1
	if err := w.plan(req).CheckAttended(); err != nil {
		t.Errorf("got %v, want none: the gate promotes", err)
	}
}
