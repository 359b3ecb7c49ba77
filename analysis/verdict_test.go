package analysis

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/prometheus"
	"github.com/drover-nomad/drover/stack"
)

// measured is what a source returned for one measurement.
type measured struct {
	series []float64
	err    error
}

func values(vs ...float64) measured { return measured{series: vs} }

func TestTracker_Verdicts(t *testing.T) {
	t.Parallel()
	nan, inf := math.NaN(), math.Inf(1)
	limit := func(v float64) *float64 { return &v }
	below := func(m stack.Metric) stack.Metric { m.Below = limit(0.01); return m }
	away := measured{err: errors.New("no answer: connection refused")}
	for name, c := range map[string]struct {
		metric stack.Metric
		given  []measured
		want   string // verdicts
		text   string // of the last measurement
	}{
		"below the limit":                      {below(stack.Metric{}), []measured{values(0.009)}, "holds", "metric m: 0.009, below 0.01"},
		"the limit itself is not below it":     {below(stack.Metric{}), []measured{values(0.01)}, "failed", "metric m: 0.01, not below 0.01"},
		"above the limit":                      {stack.Metric{Above: limit(99)}, []measured{values(99.5)}, "holds", "metric m: 99.5, above 99"},
		"the limit itself is not above it":     {stack.Metric{Above: limit(99)}, []measured{values(99)}, "failed", "metric m: 99, not above 99"},
		"two failures in a row":                {below(stack.Metric{Failures: 2}), []measured{values(0.03), values(0.04)}, "breaks failed", "metric m: 0.04, not below 0.01 (2 in a row)"},
		"failures that are not in a row":       {below(stack.Metric{Failures: 2}), []measured{values(0.03), values(0), values(0.03), values(0)}, "breaks holds breaks holds", "metric m: 0, below 0.01"},
		"no data between two failures":         {below(stack.Metric{Failures: 2}), []measured{values(1), values(), values(1)}, "breaks no-data failed", "metric m: 1, not below 0.01 (2 in a row)"},
		"no answer between two failures":       {below(stack.Metric{Failures: 2}), []measured{values(1), away, values(1)}, "breaks no-answer failed", "metric m: 1, not below 0.01 (2 in a row)"},
		"a failed metric stays failed":         {below(stack.Metric{}), []measured{values(1), values(0)}, "failed failed", "metric m: 1, not below 0.01"},
		"three successes in a row":             {below(stack.Metric{Successes: 3, Failures: 9}), []measured{values(0), values(0), values(1), values(0), values(0), values(0)}, "pending pending breaks pending pending holds", "metric m: 0, below 0.01"},
		"one success of two":                   {below(stack.Metric{Successes: 2}), []measured{values(0)}, "pending", "metric m: 0, below 0.01, and more measurements"},
		"no series":                            {below(stack.Metric{}), []measured{values()}, "no-data", "metric m: no data"},
		"no series counts as failed":           {below(stack.Metric{NoData: "fail", Failures: 2}), []measured{values(), values()}, "breaks failed", "metric m: no data (2 in a row)"},
		"no series counts as passed":           {below(stack.Metric{NoData: "pass"}), []measured{values()}, "holds", "metric m: no data"},
		"NaN is no data":                       {below(stack.Metric{}), []measured{values(nan)}, "no-data", "metric m: no data (NaN)"},
		"NaN counts as failed":                 {below(stack.Metric{NoData: "fail"}), []measured{values(nan)}, "failed", "metric m: no data (NaN)"},
		"+Inf is not below":                    {below(stack.Metric{}), []measured{values(inf)}, "failed", "metric m: +Inf, not below 0.01"},
		"-Inf is below":                        {below(stack.Metric{}), []measured{values(-inf)}, "holds", "metric m: -Inf, below 0.01"},
		"+Inf is above":                        {stack.Metric{Above: limit(1)}, []measured{values(inf)}, "holds", "metric m: +Inf, above 1"},
		"the greatest of several series":       {below(stack.Metric{}), []measured{values(0, 0.5, 0.1)}, "failed", "metric m: 0.5, not below 0.01"},
		"the least of several series":          {stack.Metric{Above: limit(1)}, []measured{values(9, 0.5, 2)}, "failed", "metric m: 0.5, not above 1"},
		"a series that is NaN among others":    {below(stack.Metric{}), []measured{values(nan, 0.001)}, "holds", "metric m: 0.001, below 0.01"},
		"no answer never passes":               {below(stack.Metric{NoData: "pass"}), []measured{away}, "no-answer", "metric m: no answer: connection refused"},
		"no answer never fails":                {below(stack.Metric{NoData: "fail"}), []measured{away, away, away}, "no-answer no-answer no-answer", "metric m: no answer: connection refused"},
		"what held is not known to hold later": {below(stack.Metric{}), []measured{values(0), away}, "holds no-answer", "metric m: no answer: connection refused"},
		"a refused query":                      {below(stack.Metric{NoData: "pass"}), []measured{{err: &prometheus.RefusedError{Text: "parse error"}}}, "refused", "metric m: the source refuses the query: parse error"},
		"before the first measurement":         {below(stack.Metric{}), nil, "", "metric m: its first measurement"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := c.metric
			m.Name, m.Failures, m.Successes = "m", max(m.Failures, 1), max(m.Successes, 1)
			if m.NoData == "" {
				m.NoData = stack.NoDataInconclusive
			}
			at := time.Unix(0, 0)
			tr := NewTracker(&m, at)
			var got []string
			was := Pending
			for _, g := range c.given {
				at = at.Add(time.Second)
				last, changed := tr.Add(at, g.series, g.err)
				if changed != (last.Verdict != was) {
					t.Errorf("after %s, a change to %s: got %v", was, last.Verdict, changed)
				}
				was = last.Verdict
				got = append(got, string(last.Verdict))
			}
			if got := strings.Join(got, " "); got != c.want {
				t.Errorf("got verdicts %q, want %q", got, c.want)
			}
			if got := tr.Last().String(); got != c.text {
				t.Errorf("got text %q, want %q", got, c.text)
			}
		})
	}
}

func TestTracker_UnknownSince(t *testing.T) {
	t.Parallel()
	limit := 1.0
	tr := NewTracker(&stack.Metric{Below: &limit, Failures: 1, Successes: 1, NoData: stack.NoDataInconclusive}, time.Unix(0, 0))
	for _, c := range []struct {
		at   int64
		give measured
		want time.Duration // at the time of the measurement
	}{
		{10, values(), 10 * time.Second},
		{20, values(0), 0},
		{30, measured{err: errors.New("no answer")}, 10 * time.Second},
		{40, values(math.NaN()), 20 * time.Second},
	} {
		now := time.Unix(c.at, 0)
		tr.Add(now, c.give.series, c.give.err)
		if got := tr.Unknown(now); got != c.want {
			t.Errorf("at %d: got %s without a verdict, want %s", c.at, got, c.want)
		}
	}
}
