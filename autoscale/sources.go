package autoscale

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/prometheus"
)

// promSteps is the number of samples in a window, at most. The step is at least a second.
const promSteps = 60

// Samples returns the samples of the window of a check from Prometheus, or the newest
// one. It returns an error if the query has more than one series.
func Samples(ctx context.Context, p prometheus.Client, c Check, now time.Time) ([]float64, error) {
	to := now.Add(-c.Offset)
	if c.Instant {
		values, err := p.Query(ctx, c.Query, to)
		if err == nil && len(values) > 1 {
			return nil, severalSeries(len(values))
		}
		return values, err
	}
	step := max(time.Second, (c.Window / promSteps).Round(time.Second))
	series, err := p.QueryRange(ctx, c.Query, to.Add(-c.Window), to, step)
	switch {
	case err != nil || len(series) == 0:
		return nil, err
	case len(series) > 1:
		return nil, severalSeries(len(series))
	}
	return series[0], nil
}

func severalSeries(n int) error {
	return fmt.Errorf("the query has %d series, one is needed: use sum or avg", n)
}

// Usage is a query of nomad-apm about the allocations of a group.
type Usage struct {
	Operation string // sum, avg, min or max
	Metric    string // cpu, memory, cpu-allocated or memory-allocated
}

// parseUsage reads a query of nomad-apm: avg_cpu, or its long form
// taskgroup_avg_cpu/GROUP/JOB@NAMESPACE, whose group is taken to be that of the policy.
func parseUsage(query string) (Usage, error) {
	short, _, _ := strings.Cut(strings.TrimPrefix(query, "taskgroup_"), "/")
	operation, metric, _ := strings.Cut(short, "_")
	u := Usage{operation, metric}
	if !slices.Contains([]string{"sum", "avg", "min", "max"}, operation) || !slices.Contains([]string{"cpu", "memory", "cpu-allocated", "memory-allocated"}, metric) {
		return u, fmt.Errorf("%s is no query of nomad-apm about a group", strconv.Quote(query))
	}
	return u, nil
}

// Usage returns the query of a check of source nomad-apm.
func (c Check) Usage() (Usage, error) { return parseUsage(c.Query) }

// Of returns the result for values, one for each allocation that runs: per cent of a core
// or of what is allocated, or bytes.
func (u Usage) Of(values []float64) []float64 {
	if len(values) == 0 {
		return nil
	}
	var sum float64
	for _, v := range values {
		sum += v
	}
	switch u.Operation {
	case "sum":
		return []float64{sum}
	case "min":
		return []float64{slices.Min(values)}
	case "max":
		return []float64{slices.Max(values)}
	}
	return []float64{sum / float64(len(values))}
}

// edgeQuery is a query of source edge.
type edgeQuery struct {
	average bool // for each instance of the service
	metric  edge.Metric
	service string
}

// parseEdge reads OPERATION_METRIC/SERVICE, such as avg_requests/web.
func parseEdge(query string) (edgeQuery, error) {
	what, service, _ := strings.Cut(query, "/")
	operation, word, _ := strings.Cut(what, "_")
	if service == "" || !edge.Metric(word).Known() || operation != "sum" && operation != "avg" {
		return edgeQuery{}, fmt.Errorf("%s is no query of source edge", strconv.Quote(query))
	}
	return edgeQuery{operation == "avg", edge.Metric(word), service}, nil
}

// FromEdge returns the sum over all instances of the edge in a scrape, for a query avg_
// divided by the number of instances of the service that run. A rate needs before, an
// older scrape.
func FromEdge(now, before *edge.Scrape, c Check, running int) ([]float64, error) {
	q, err := parseEdge(c.Query)
	if err != nil {
		return nil, err
	}
	sum, err := now.Sum(q.metric, q.service, before)
	if err != nil {
		return nil, err
	}
	if q.average {
		sum /= float64(max(running, 1))
	}
	return []float64{sum}, nil
}
