// Package analysis measures the metrics of a gate and judges the measurements.
package analysis

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/drover-nomad/drover/prometheus"
	"github.com/drover-nomad/drover/stack"
)

// Verdict is how a metric stands after a measurement.
type Verdict string

// Verdicts.
const (
	Pending  Verdict = "pending"   // not measured yet, or not often enough
	Holds    Verdict = "holds"     // the last Successes measurements kept the limit
	Breaks   Verdict = "breaks"    // the last measurement broke the limit
	Failed   Verdict = "failed"    // Failures measurements in a row broke the limit; final
	NoData   Verdict = "no-data"   // the source answered without a value
	NoAnswer Verdict = "no-answer" // the source did not answer
	Refused  Verdict = "refused"   // the source refuses the query; a retry gets the same answer
)

// Measurement is one measurement of a metric.
type Measurement struct {
	Metric  string  `json:"name"`
	Verdict Verdict `json:"verdict"`
	// Value is the worst value of all series as Prometheus' HTTP API writes it, such as
	// "0.034" or "+Inf"; "" if there is none.
	Value string `json:"value,omitempty"`
	Limit string `json:"limit"` // "below 0.01"
	// InARow is how many measurements in a row broke the limit.
	InARow int    `json:"in_a_row,omitempty"`
	Detail string `json:"detail,omitempty"` // of a source without a value
}

// String is the measurement in a few words: "metric errors: 0.034, not below 0.01 (2 in a
// row)".
func (m Measurement) String() string {
	text := "metric " + m.Metric + ": "
	switch {
	case m.Value == "" && m.Detail == "":
		return text + "its first measurement"
	case m.Value == "":
		text += m.Detail
	case m.Verdict == Breaks, m.Verdict == Failed:
		text += m.Value + ", not " + m.Limit
	default:
		text += m.Value + ", " + m.Limit
	}
	switch {
	case m.InARow > 1 && (m.Verdict == Breaks || m.Verdict == Failed):
		text += fmt.Sprintf(" (%d in a row)", m.InARow)
	case m.Verdict == Pending:
		text += ", and more measurements"
	}
	return text
}

// Tracker judges the measurements of one metric. It is for one goroutine.
type Tracker struct {
	metric *stack.Metric
	last   Measurement
	kept   int       // measurements in a row that kept the limit
	broke  int       // measurements in a row that broke it
	since  time.Time // of the last measurement that kept or broke it; at first, of the start
}

// NewTracker returns a Tracker of a metric whose gate begins at start.
func NewTracker(m *stack.Metric, start time.Time) *Tracker {
	return &Tracker{metric: m, since: start, last: Measurement{Metric: m.Name, Verdict: Pending, Limit: m.Limit()}}
}

// Last returns the newest measurement, one that is Pending before the first.
func (t *Tracker) Last() Measurement { return t.last }

// Unknown returns for how long no measurement has kept or broken the limit.
func (t *Tracker) Unknown(now time.Time) time.Duration { return now.Sub(t.since) }

// Add judges what Query returned. It reports whether the verdict has changed.
//
// Of several series the worst counts. A series that is NaN has no value. ±Inf is compared
// like any number. A measurement without data or answer changes no count of measurements
// in a row, but it ends Holds: what is not known does not hold.
func (t *Tracker) Add(now time.Time, series []float64, err error) (m Measurement, changed bool) {
	m = Measurement{Metric: t.metric.Name, Limit: t.metric.Limit(), InARow: t.broke}
	value, known := worst(t.metric, series)
	var refusal *prometheus.RefusedError
	switch {
	case t.last.Verdict == Failed:
		return t.last, false
	case errors.As(err, &refusal):
		m.Verdict, m.Detail = Refused, err.Error()
	case err != nil:
		m.Verdict, m.Detail = NoAnswer, err.Error()
	case known:
		m.Value = strconv.FormatFloat(value, 'g', -1, 64)
		t.count(&m, keeps(t.metric, value), now)
	default:
		m.Detail = "no data"
		if len(series) > 0 {
			m.Detail = "no data (NaN)"
		}
		switch t.metric.NoData {
		case stack.NoDataFail:
			t.count(&m, false, now)
		case stack.NoDataPass:
			t.count(&m, true, now)
		default:
			m.Verdict = NoData
		}
	}
	changed = m.Verdict != t.last.Verdict
	t.last = m
	return m, changed
}

// count judges a measurement that kept the limit or broke it.
func (t *Tracker) count(m *Measurement, kept bool, now time.Time) {
	t.since = now
	if kept {
		t.kept, t.broke, m.InARow = t.kept+1, 0, 0
		m.Verdict = Pending
		if t.kept >= t.metric.Successes {
			m.Verdict = Holds
		}
		return
	}
	t.kept, t.broke = 0, t.broke+1
	m.Verdict, m.InARow = Breaks, t.broke
	if t.broke >= t.metric.Failures {
		m.Verdict = Failed
	}
}

func keeps(m *stack.Metric, value float64) bool {
	if m.Below != nil {
		return value < *m.Below
	}
	return value > *m.Above
}

// worst returns the value of the series that is the furthest on the wrong side of the
// limit, and false if no series has a value.
func worst(m *stack.Metric, series []float64) (float64, bool) {
	values := slices.DeleteFunc(slices.Clone(series), math.IsNaN)
	switch {
	case len(values) == 0:
		return 0, false
	case m.Below != nil:
		return slices.Max(values), true
	}
	return slices.Min(values), true
}
