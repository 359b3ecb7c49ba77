package rollout

import (
	"context"
	"sync"
	"time"

	"github.com/drover-nomad/drover/analysis"
	"github.com/drover-nomad/drover/stack"
)

// watchedMetrics measures the metrics of a gate.
type watchedMetrics struct {
	timeout time.Duration // after which a metric without a value is inconclusive
	changed chan<- struct{}
	redact  func(string) string

	mu       sync.Mutex
	trackers []*analysis.Tracker
	news     []analysis.Measurement // that changed a verdict and are not reported yet
}

// metricsState is how all metrics stand at one moment.
type metricsState struct {
	failed       string // the metric that has failed, "" for none
	inconclusive string // the metric that cannot be judged, "" for none
	waiting      string // a metric that does not hold, "" when all do
	unknown      bool   // waiting is without a value, so it has not been seen to fail
	news         []analysis.Measurement
}

// watchMetrics starts to measure. The first measurements come after one interval, when
// there is something to see of what was deployed.
func watchMetrics(ctx context.Context, o GateOptions, changed chan<- struct{}, running *sync.WaitGroup) *watchedMetrics {
	w := &watchedMetrics{timeout: o.Timeout, changed: changed, redact: o.Redact}
	for i, m := range o.Metrics {
		var auth analysis.Credentials
		if i < len(o.Credentials) {
			auth = o.Credentials[i]
		}
		t := analysis.NewTracker(m, time.Now())
		w.trackers = append(w.trackers, t)
		running.Go(func() { w.run(ctx, m, auth, t) })
	}
	return w
}

func (w *watchedMetrics) run(ctx context.Context, m *stack.Metric, auth analysis.Credentials, t *analysis.Tracker) {
	source := analysis.NewSource(m, auth)
	defer source.Close()
	tick := time.NewTicker(m.Interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		series, err := source.Query(ctx)
		if ctx.Err() != nil {
			return
		}
		w.mu.Lock()
		if measured, is := t.Add(time.Now(), series, err); is {
			measured.Detail = w.redact(measured.Detail)
			w.news = append(w.news, measured)
		}
		w.mu.Unlock()
		poke(w.changed)
	}
}

// look returns how the metrics stand.
func (w *watchedMetrics) look(now time.Time) metricsState {
	w.mu.Lock()
	defer w.mu.Unlock()
	st := metricsState{news: w.news}
	w.news = nil
	for _, t := range w.trackers {
		last := t.Last()
		text := w.redact(last.String())
		switch last.Verdict {
		case analysis.Holds:
			continue
		case analysis.Failed:
			if st.failed == "" {
				st.failed = text
			}
		case analysis.Pending, analysis.Breaks:
			if st.waiting == "" || st.unknown {
				st.waiting, st.unknown = text, last.Verdict == analysis.Pending && last.Value == ""
			}
		case analysis.Refused:
			st.inconclusive = text
		case analysis.NoData, analysis.NoAnswer:
			if st.waiting == "" {
				st.waiting, st.unknown = text, true
			}
			if st.inconclusive == "" && t.Unknown(now) >= w.timeout {
				st.inconclusive = text + " for " + w.timeout.String()
			}
		}
	}
	return st
}
