package autoscale

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drover-nomad/drover/prometheus"
)

// greatestAnswer is the greatest answer of a source that is read, in bytes.
const greatestAnswer = 32 << 20

// get returns the body of an answer with status 200.
func get(ctx context.Context, client *http.Client, address, credentials string, read func(io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	if user, password, ok := strings.Cut(credentials, ":"); ok {
		req.SetBasicAuth(user, password)
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	body := io.LimitReader(res.Body, greatestAnswer)
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(body, 300))
		return fmt.Errorf("the answer is %s: %s", res.Status, strings.TrimSpace(string(text)))
	}
	return read(body)
}

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

// edgeMetrics are the metrics of HAProxy's exporter by the word of a query.
var edgeMetrics = map[string]string{
	edgeRequests: "haproxy_backend_http_requests_total",
	"queue":      "haproxy_backend_current_queue",
	"sessions":   "haproxy_backend_current_sessions",
}

// edgeRequests is a rate per second, the others are numbers of now.
const edgeRequests = "requests"

// edgeQuery is a query of source edge.
type edgeQuery struct {
	average         bool // for each instance of the service
	metric, service string
}

// parseEdge reads OPERATION_METRIC/SERVICE, such as avg_requests/web.
func parseEdge(query string) (edgeQuery, error) {
	what, service, _ := strings.Cut(query, "/")
	operation, word, _ := strings.Cut(what, "_")
	if service == "" || edgeMetrics[word] == "" || operation != "sum" && operation != "avg" {
		return edgeQuery{}, fmt.Errorf("%s is no query of source edge", strconv.Quote(query))
	}
	return edgeQuery{operation == "avg", word, service}, nil
}

// Scrape is what the instances of the edge exported at one time: the value of each metric
// by backend and by instance.
type Scrape struct {
	At     time.Time
	values map[string]map[string]map[string]float64 // by metric, backend, instance
}

// Instance is where an instance of the edge exports its metrics.
type Instance struct{ ID, Address string } // HOST:PORT

// ScrapeEdge reads the metrics of all instances (GET /metrics?scope=backend). It returns
// an error if one does not answer: a part of the requests would be missing.
func ScrapeEdge(ctx context.Context, client *http.Client, instances []Instance, credentials string, now time.Time) (*Scrape, error) {
	if len(instances) == 0 {
		return nil, errors.New("no instance of the edge passes its check")
	}
	s := &Scrape{At: now, values: map[string]map[string]map[string]float64{}}
	for _, name := range edgeMetrics {
		s.values[name] = map[string]map[string]float64{}
	}
	for _, i := range instances {
		err := get(ctx, client, "http://"+i.Address+"/metrics?scope=backend", credentials, func(r io.Reader) error { return s.add(i.ID, r) })
		if err != nil {
			return nil, fmt.Errorf("cannot read the metrics of the edge at %s: %w", i.Address, err)
		}
	}
	return s, nil
}

// add reads the exposition of one instance.
func (s *Scrape) add(instance string, r io.Reader) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		for name, backends := range s.values {
			// Most lines are of other metrics.
			if len(lines.Bytes()) <= len(name) || lines.Bytes()[len(name)] != '{' || string(lines.Bytes()[:len(name)]) != name {
				continue
			}
			line := lines.Text()
			_, rest, ok := strings.Cut(line, `proxy="`)
			backend, rest, ok2 := strings.Cut(rest, `"`)
			value, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
			if !ok || !ok2 || err != nil {
				return fmt.Errorf("line %q is not in the format of Prometheus", line)
			}
			if backend = strings.Clone(backend); backends[backend] == nil {
				backends[backend] = map[string]float64{}
			}
			backends[backend][instance] = value
		}
	}
	return lines.Err()
}

// backendOf reports whether a backend of the edge sends requests to a Consul service: its
// versions have backends of their own, SERVICE.version.TAG.
func backendOf(backend, service string) bool {
	return backend == service || strings.HasPrefix(backend, service+".version.")
}

// Read returns the sum over all instances of the edge, for a query avg_ divided by the
// number of instances of the service that run. A rate needs before, an older scrape;
// counters that began again count from 0.
func (s *Scrape) Read(c Check, before *Scrape, running int) ([]float64, error) {
	q, err := parseEdge(c.Query)
	if err != nil {
		return nil, err
	}
	rate := q.metric == edgeRequests
	if rate && (before == nil || !s.At.After(before.At)) {
		return nil, errors.New("a rate needs two reads of the edge")
	}
	name := edgeMetrics[q.metric]
	sum, found := 0.0, false
	for backend, instances := range s.values[name] {
		if !backendOf(backend, q.service) {
			continue
		}
		found = true
		for id, v := range instances {
			if rate {
				// An instance that is new counts from the next read on: it may be old and
				// unknown to this leader.
				old, known := before.values[name][backend][id]
				switch {
				case !known:
					continue
				case v < old: // a reload or a restart
					old = 0
				}
				v = (v - old) / s.At.Sub(before.At).Seconds()
			}
			sum += v
		}
	}
	if !found {
		return nil, fmt.Errorf("the edge has no backend for service %s", q.service)
	}
	if q.average {
		sum /= float64(max(running, 1))
	}
	return []float64{sum}, nil
}
