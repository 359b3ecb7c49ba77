package analysis

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/stack"
)

// TestServers measures metrics of a program that fails every 33rd request in Debian's
// Prometheus and in VictoriaMetrics.
func TestServers(t *testing.T) {
	t.Parallel()
	devtest.NeedsServers(t)
	var scrapes atomic.Int64
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := scrapes.Add(1) * 100
		fmt.Fprintf(w, "requests_total{code=\"5xx\"} %d\nrequests_total{code=\"2xx\"} %d\nidle_total 7\n", 3*n/100, 97*n/100)
	}))
	t.Cleanup(app.Close)
	for _, kind := range []string{devtest.Prometheus, devtest.VictoriaMetrics} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			url, stop := devtest.MetricsServer(t, kind, strings.TrimPrefix(app.URL, "http://"))
			limit := 0.01
			verdict := func(query, noData string) Measurement {
				m := &stack.Metric{Name: "m", Prometheus: url, Query: query, Below: &limit, Failures: 1, Successes: 1, NoData: noData}
				s := NewSource(m, Credentials{})
				defer s.Close()
				series, err := s.Query(t.Context())
				last, _ := NewTracker(m, time.Now()).Add(time.Now(), series, err)
				return last
			}
			const errors = `sum(rate(requests_total{code="5xx"}[10s])) / sum(rate(requests_total[10s]))`
			devtest.Until(t, time.Minute, "there are rates", func() bool { return verdict(errors, stack.NoDataInconclusive).Value != "" })
			for _, c := range []struct {
				what, query, noData string
				want                Verdict
				value               string // or its beginning
			}{
				{"3 % of errors", errors, stack.NoDataInconclusive, Failed, "0.0"},
				{"no errors", `sum(rate(requests_total{code="4xx"}[10s])) / sum(rate(requests_total[10s])) or vector(0)`, stack.NoDataInconclusive, Holds, "0"},
				{"a scalar", "scalar(vector(0.001))", stack.NoDataInconclusive, Holds, "0.001"},
				{"several series", "requests_total", stack.NoDataInconclusive, Failed, ""},
				{"a series that is not there", "nothing_total", stack.NoDataInconclusive, NoData, ""},
				{"a series that is not there counts as failed", "nothing_total", stack.NoDataFail, Failed, ""},
				{"+Inf", `sum(requests_total) / (sum(idle_total) - 7)`, stack.NoDataInconclusive, Failed, "+Inf"},
				{"NaN", `sum(rate(idle_total[10s])) / sum(rate(idle_total[10s]))`, stack.NoDataInconclusive, NoData, ""},
				{"a query of another type", `requests_total[10s]`, stack.NoDataPass, Refused, ""},
				{"a query that is none", `sum(`, stack.NoDataPass, Refused, ""},
			} {
				got := verdict(c.query, c.noData)
				// VictoriaMetrics leaves out NaN, and returns +Inf as it is.
				if got.Verdict != c.want || !strings.HasPrefix(got.Value, c.value) {
					t.Errorf("%s: got %s (%+v), want %s and value %q", c.what, got, got, c.want, c.value)
				}
			}
			stop()
			if got := verdict(errors, stack.NoDataPass); got.Verdict != NoAnswer {
				t.Errorf("after the end of the server: got %s (%+v), want %s", got, got, NoAnswer)
			}
		})
	}
}
