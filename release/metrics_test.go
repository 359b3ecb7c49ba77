package release_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/analysis"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/release/memstore"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// measuredWorld is a world whose release 1 is good, and the request of release 2, in which
// the wave of api has a metric. Its gate ends as res.
func measuredWorld(t *testing.T, res *rollout.GateResult) (*world, release.Request) {
	w := newWorld(t)
	w.d.Hold = func(_ context.Context, _ []rollout.Party, o rollout.GateOptions, _ func(rollout.GateProgress)) (rollout.GateResult, error) {
		if len(o.Metrics) == 0 {
			return rollout.GateResult{OK: true}, nil
		}
		res.Breaks++ // counts the calls
		return *res, nil
	}
	w.wantState(w.deploy(request("1")), record.Done, rollout.Deployed)
	limit := 0.01
	req := request("2")
	req.Waves[0].Gate.Metrics = []*stack.Metric{{Name: "errors", Below: &limit}}
	return w, req
}

func TestMetrics_FailureReverts(t *testing.T) {
	w, req := measuredWorld(t, &rollout.GateResult{Detail: "metric errors: 0.03, not below 0.01"})
	last := w.wantState(w.deploy(req), record.Reverted, rollout.FailedReverted)
	if got, want := last.Detail, "wave api: metric errors: 0.03, not below 0.01"; got != want {
		t.Errorf("got detail %q, want %q", got, want)
	}
	w.wantRunning("api=1 web=1")
}

func TestMetrics_Inconclusive(t *testing.T) {
	const unknown = "metric errors: no data for 5m0s"
	paused := func(t *testing.T) (*world, *rollout.GateResult) {
		res := &rollout.GateResult{Unknown: true, Detail: unknown}
		w, req := measuredWorld(t, res)
		last := w.wantState(w.deploy(req), record.NeedsApproval, rollout.AwaitApproval)
		if got := last.Waves[0]; got.State != record.NeedsApproval || got.Detail != "its gate is inconclusive: "+unknown || !got.Inconclusive {
			t.Errorf("got wave %+v, want one that waits because its gate is inconclusive", got)
		}
		w.wantRunning("api=2 web=1")
		return w, res
	}
	t.Run("an approval continues without another measurement", func(t *testing.T) {
		w, res := paused(t)
		wave, _, err := w.d.ApproveWave(t.Context(), "bob")
		if err != nil || wave != "api" {
			t.Fatalf("got wave %q and %v, want api", wave, err)
		}
		resumed, err := w.d.Resume(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		last := w.wantState(resumed, record.Done, rollout.Deployed)
		w.wantRunning("api=2 web=2")
		if got := last.Waves[0]; got.Passed != "bob" || got.Approved != "" || got.State != record.Done || got.Detail != "" {
			t.Errorf("got wave %+v, want one that bob approved at its end", got)
		}
		if res.Breaks != 1 {
			t.Errorf("the gate was evaluated %d times, want once", res.Breaks)
		}
	})
	t.Run("resume measures again", func(t *testing.T) {
		w, res := paused(t)
		*res = rollout.GateResult{OK: true}
		resumed, err := w.d.Resume(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		last := w.wantState(resumed, record.Done, rollout.Deployed)
		if got := last.Waves[0]; got.Inconclusive || got.Passed != "" || res.Breaks != 1 {
			t.Errorf("got wave %+v and %d evaluations, want one that held", got, res.Breaks)
		}
	})
	t.Run("resume pauses again", func(t *testing.T) {
		w, _ := paused(t)
		resumed, err := w.d.Resume(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		w.wantState(resumed, record.NeedsApproval, rollout.AwaitApproval)
	})
	t.Run("resume reverts if the metric fails then", func(t *testing.T) {
		w, res := paused(t)
		*res = rollout.GateResult{Detail: "metric errors: 1, not below 0.01"}
		resumed, err := w.d.Resume(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		w.wantState(resumed, record.Reverted, rollout.FailedReverted)
		w.wantRunning("api=1 web=1")
	})
	t.Run("abort reverts", func(t *testing.T) {
		w, _ := paused(t)
		aborted, err := w.d.Abort(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.wantState(aborted, record.Aborted, rollout.Deployed)
		w.wantRunning("api=1 web=1")
	})
	t.Run("a person at the terminal continues at once", func(t *testing.T) {
		w, req := measuredWorld(t, &rollout.GateResult{Unknown: true, Detail: unknown})
		var asked []string
		w.d.Operator = operator{approve: func(_ context.Context, a release.Approval) (bool, error) {
			asked = append(asked, a.Wave+": "+a.Inconclusive)
			return true, nil
		}}
		w.wantState(w.deploy(req), record.Done, rollout.Deployed)
		w.wantRunning("api=2 web=2")
		if want := []string{"api: its gate is inconclusive: " + unknown}; !slices.Equal(asked, want) {
			t.Errorf("got questions %q, want %q", asked, want)
		}
	})
	t.Run("the approval before the wave is not the one after it", func(t *testing.T) {
		res := &rollout.GateResult{Unknown: true, Detail: unknown}
		w, req := measuredWorld(t, res)
		req.Waves[0].Approve = true
		for _, want := range []int{0, 1} { // evaluations before the approval
			w.d.Operator = nil
			if want == 0 {
				w.wantState(w.deploy(req), record.NeedsApproval, rollout.AwaitApproval)
			}
			if res.Breaks != want {
				t.Errorf("the gate was evaluated %d times, want %d", res.Breaks, want)
			}
			if _, _, err := w.d.ApproveWave(t.Context(), "bob"); err != nil {
				t.Fatal(err)
			}
			if _, err := w.d.Resume(t.Context(), false); err != nil {
				t.Fatal(err)
			}
		}
		w.wantState(release.Result{}, record.Done, rollout.Unchanged)
		w.wantRunning("api=2 web=2")
	})
}

func TestMetrics_RollbackDoesNotMeasure(t *testing.T) {
	res := &rollout.GateResult{OK: true}
	w, req := measuredWorld(t, res)
	w.deploy(req)
	w.deploy(request("3"))
	res.Breaks, res.OK = 0, false
	w.wantState(w.deploy(w.rollback(2)), record.Done, rollout.Deployed)
	if res.Breaks != 0 {
		t.Errorf("a rollback evaluated metrics %d times, want never", res.Breaks)
	}
}

func TestMetrics_CredentialsAreNotRecorded(t *testing.T) {
	w := newWorld(t)
	w.d.Secrets = memstore.NewSecrets(map[string]string{"a": "a long value", "prom": "hunter22hunter22"})
	var got []analysis.Credentials
	w.d.Hold = func(_ context.Context, _ []rollout.Party, o rollout.GateOptions, _ func(rollout.GateProgress)) (rollout.GateResult, error) {
		got = append(got, o.Credentials...)
		if o.Measured != nil && len(o.Metrics) > 0 {
			o.Measured(analysis.Measurement{Metric: "a", Verdict: analysis.NoAnswer, Limit: "below 1", Detail: o.Redact("said hunter22hunter22")})
		}
		return rollout.GateResult{OK: true}, nil
	}
	limit := 1.0
	req := requestOf(reads("web", "1", "a")) // and no job reads the credential
	req.Waves[0].Gate.Metrics = []*stack.Metric{
		{Name: "a", Below: &limit, Username: "u", Secret: "prom"}, {Name: "b", Below: &limit}, {Name: "c", Below: &limit, Secret: "prom"},
	}
	last := w.wantState(w.deploy(req), record.Done, rollout.Deployed)
	want := []analysis.Credentials{{Username: "u", Secret: "hunter22hunter22"}, {}, {Secret: "hunter22hunter22"}}
	if !slices.Equal(got, want) {
		t.Errorf("got credentials %+v, want %+v", got, want)
	}
	head, err := json.Marshal(last)
	if err != nil {
		t.Fatal(err)
	}
	events, err := json.Marshal(w.events)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(head)+string(events), "hunter22") {
		t.Errorf("the record or the events have the secret:\n%s\n%s", head, events)
	}
	if !strings.Contains(string(events), `"metric":{"name":"a","verdict":"no-answer","limit":"below 1"`) {
		t.Errorf("got events without the measurement:\n%s", events)
	}

	req = requestOf(reads("web", "2", "a"))
	req.Waves[0].Gate.Metrics = []*stack.Metric{{Name: "a", Below: &limit, Secret: "missing"}}
	if res := w.deploy(req); res.Halt == nil || !strings.Contains(res.Halt.Detail, "the credential of metric a cannot be read") {
		t.Errorf("got halt %v, want one for the credential", res.Halt)
	}
}
