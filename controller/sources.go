package controller

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/autoscale"
	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/prometheus"
)

const (
	// scrapeEvery is the least time between two reads of the edge.
	scrapeEvery = time.Second
	// scrapeKeep is how many older reads of the edge are kept for rates, and scrapeApart
	// the least time between them.
	scrapeKeep  = 13
	scrapeApart = 5 * time.Second
	// addressFor is how long the address of Prometheus is used before it is looked up again.
	addressFor = 30 * time.Second
)

// sources read the samples of checks.
type sources struct {
	c      Config
	client *http.Client

	mu        sync.Mutex
	newest    *edge.Scrape
	newestErr error
	newestAt  time.Time
	older     []*edge.Scrape // the oldest first
	address   string
	addressAt time.Time
}

func newSources(c Config) *sources {
	return &sources{c: c, client: &http.Client{Timeout: scaleTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: scaleParallel, IdleConnTimeout: time.Minute}}}
}

// read returns the samples of a check of a group, of which some instances run.
func (s *sources) read(ctx context.Context, of *scaler, g *scaledGroup, c autoscale.Check, now time.Time, running int) ([]float64, error) {
	switch c.Source {
	case autoscale.SourcePrometheus:
		address, err := s.prometheus(ctx, now)
		if err != nil {
			return nil, err
		}
		return autoscale.Samples(ctx, prometheus.Client{Address: address, HTTP: s.client}, c, now)
	case autoscale.SourceEdge:
		return s.edge(ctx, c, now, running)
	}
	return s.usage(ctx, of, g, c)
}

func (s *sources) prometheus(ctx context.Context, now time.Time) (string, error) {
	if s.c.Autoscale.Prometheus == nil {
		return "", errors.New("the controller has no address of Prometheus: set --prometheus")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.address != "" && now.Sub(s.addressAt) < addressFor {
		return s.address, nil
	}
	address, err := s.c.Autoscale.Prometheus(ctx)
	if err != nil {
		return "", err
	}
	s.address, s.addressAt = address, now
	return address, nil
}

// edge reads the edge once for all checks of a moment.
func (s *sources) edge(ctx context.Context, c autoscale.Check, now time.Time, running int) ([]float64, error) {
	if s.c.Autoscale.Edge == nil {
		return nil, errors.New("the controller knows no edge: it was started with --no-consul")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.newestAt.IsZero() || now.Sub(s.newestAt) >= scrapeEvery {
		if last := len(s.older); s.newest != nil && (last == 0 || s.newest.At.Sub(s.older[last-1].At) >= scrapeApart) {
			if s.older = append(s.older, s.newest); len(s.older) > scrapeKeep {
				s.older = append([]*edge.Scrape(nil), s.older[1:]...)
			}
		}
		s.newest, s.newestErr, s.newestAt = nil, nil, now
		instances, err := s.c.Autoscale.Edge(ctx)
		if err == nil {
			s.newest, err = edge.ScrapeMetrics(ctx, s.client, instances, s.c.Autoscale.EdgeCredentials, now)
		}
		s.newestErr = err
	}
	if s.newestErr != nil {
		return nil, s.newestErr
	}
	return autoscale.FromEdge(s.newest, s.before(c.Window), c, running)
}

// before returns the oldest read within a window, or the newest one before it. It returns
// nil if there is none.
func (s *sources) before(window time.Duration) *edge.Scrape {
	var out *edge.Scrape
	for _, o := range s.older {
		if out = o; s.newest.At.Sub(o.At) <= window {
			break
		}
	}
	return out
}

// runningIn returns the IDs of the allocations of a group that run.
func (s *scaler) runningIn(g *scaledGroup) []string {
	s.observed.mu.Lock()
	defer s.observed.mu.Unlock()
	if n := s.observed.allocations[g.job]; n != nil {
		return n.running[g.policy.Group]
	}
	return nil
}

// usage reads the resources that the allocations of a group use (GET
// /v1/client/allocation/:id/stats).
func (s *sources) usage(ctx context.Context, of *scaler, g *scaledGroup, c autoscale.Check) ([]float64, error) {
	u, err := c.Usage()
	if err != nil {
		return nil, err
	}
	var values []float64
	for _, id := range of.runningIn(g) {
		// The fields that are needed.
		var answer struct {
			ResourceUsage *struct {
				CPUStats    struct{ Percent, TotalTicks float64 } `json:"CpuStats"`
				MemoryStats struct{ Usage, RSS float64 }
			}
		}
		_, err := s.c.Nomad.Raw().Query("/v1/client/allocation/"+id+"/stats", &answer, (&api.QueryOptions{Namespace: g.job.Namespace}).WithContext(ctx))
		if nomad.IsNotFound(err) {
			continue // it ended since
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read what allocation %.8s uses: %w", id, err)
		}
		if answer.ResourceUsage == nil {
			continue
		}
		cpu, memory := answer.ResourceUsage.CPUStats, max(answer.ResourceUsage.MemoryStats.Usage, answer.ResourceUsage.MemoryStats.RSS)
		switch u.Metric {
		case "cpu":
			values = append(values, cpu.Percent)
		case "cpu-allocated":
			values = append(values, cpu.TotalTicks/float64(max(g.cpu, 1))*100)
		case "memory":
			values = append(values, memory)
		case "memory-allocated":
			values = append(values, memory/(1<<20)/float64(max(g.memory, 1))*100)
		}
	}
	return u.Of(values), nil
}
