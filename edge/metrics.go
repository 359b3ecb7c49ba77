package edge

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Metric is what HAProxy's exporter says of the requests of a service.
type Metric string

// The metrics.
const (
	MetricRequests Metric = "requests" // per second, between two scrapes
	MetricQueue    Metric = "queue"    // requests that wait for an instance, now
	MetricSessions Metric = "sessions" // open now
)

// exported are the names of metrics in HAProxy's exporter.
var exported = map[Metric]string{
	MetricRequests: "haproxy_backend_http_requests_total",
	MetricQueue:    "haproxy_backend_current_queue",
	MetricSessions: "haproxy_backend_current_sessions",
}

// Known reports whether there is such a metric.
func (m Metric) Known() bool { return exported[m] != "" }

// Scrape is what the instances of the edge exported at one time: the value of each metric
// by backend and by instance.
type Scrape struct {
	At     time.Time
	values map[string]map[string]map[string]float64 // by name, backend, instance
}

// maxExposition is the longest exposition of an instance that is read, in bytes.
const maxExposition = 32 << 20

// ScrapeMetrics reads the metrics of the instances of the HAProxy edge (GET
// /metrics?scope=backend) at the addresses that [Finder.Exporters] returned. credentials
// are USER:PASSWORD, or empty. It returns an error if one does not answer: a part of the
// requests would be missing.
func ScrapeMetrics(ctx context.Context, client *http.Client, exporters map[string]string, credentials string, now time.Time) (*Scrape, error) {
	if len(exporters) == 0 {
		return nil, errors.New("no instance of the edge passes its check")
	}
	s := &Scrape{At: now, values: map[string]map[string]map[string]float64{}}
	for _, name := range exported {
		s.values[name] = map[string]map[string]float64{}
	}
	for id, address := range exporters {
		if err := s.read(ctx, client, id, address, credentials); err != nil {
			return nil, fmt.Errorf("cannot read the metrics of the edge at %s: %w", address, err)
		}
	}
	return s, nil
}

func (s *Scrape) read(ctx context.Context, client *http.Client, id, address, credentials string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics?scope=backend", nil)
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
	body := io.LimitReader(res.Body, maxExposition)
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(body, 300))
		return fmt.Errorf("the answer is %s: %s", res.Status, strings.TrimSpace(string(text)))
	}
	return s.add(id, body)
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

// Sum returns the sum over all instances of the edge for a service in Consul. A rate needs
// before, an older scrape; counters that began again count from 0. It returns an error if
// the edge has no backend for the service.
func (s *Scrape) Sum(m Metric, service string, before *Scrape) (float64, error) {
	rate := m == MetricRequests
	if rate && (before == nil || !s.At.After(before.At)) {
		return 0, errors.New("a rate needs two reads of the edge")
	}
	sum, found := 0.0, false
	for backend, instances := range s.values[exported[m]] {
		if !backendOf(backend, service) {
			continue
		}
		found = true
		for id, v := range instances {
			if rate {
				// An instance that is new counts from the next read on: it may be old and
				// unknown to this process.
				old, known := before.values[exported[m]][backend][id]
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
		return 0, fmt.Errorf("the edge has no backend for service %s", service)
	}
	return sum, nil
}
