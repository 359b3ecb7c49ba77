package ui

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/doctor"
	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/record"
)

// readTime is how long one read may take.
const readTime = 30 * time.Second

// memo keeps results for a moment, so that all pages that show the same read it once.
type memo struct {
	base context.Context

	mu      sync.Mutex
	entries map[string]*entry
}

type entry struct {
	done  chan struct{}
	value any
	err   error
	until time.Time // set when done is closed
}

// recall returns the result of read of at most keep ago, or calls read. The read goes on
// when the caller's context ends, because others may wait for it.
func recall[T any](ctx context.Context, m *memo, key string, keep time.Duration, read func(context.Context) (T, error)) (T, error) {
	m.mu.Lock()
	e := m.entries[key]
	if e == nil || e.expired() {
		for k, old := range m.entries {
			if old.expired() {
				delete(m.entries, k)
			}
		}
		e = &entry{done: make(chan struct{})}
		m.entries[key] = e
		go func() {
			ctx, cancel := context.WithTimeout(m.base, readTime)
			defer cancel()
			e.value, e.err = read(ctx)
			e.until = time.Now().Add(keep)
			close(e.done)
		}()
	}
	m.mu.Unlock()
	var none T
	select {
	case <-e.done:
	case <-ctx.Done():
		return none, ctx.Err()
	}
	if v, ok := e.value.(T); ok {
		return v, e.err
	}
	return none, e.err
}

func (e *entry) expired() bool {
	select {
	case <-e.done:
		return !time.Now().Before(e.until)
	default:
		return false
	}
}

// shared is a Source whose reads are shared by all pages. Slow reads are kept longer.
type shared struct {
	Source
	memo     *memo
	interval time.Duration
	usage    *usageLog
	requests *requestLog
}

func key(parts ...string) string { return strings.Join(parts, "\x00") }

// keep is somewhat less than the interval, so that each round of a page reads once.
func (s *shared) keep(rounds int) time.Duration {
	return time.Duration(rounds)*s.interval - s.interval/4
}

func (s *shared) Stacks(ctx context.Context) ([]record.ListedStack, error) {
	return recall(ctx, s.memo, "stacks", s.keep(1), s.Source.Stacks)
}

func (s *shared) Status(ctx context.Context, name, env string) (deploy.StatusResult, error) {
	return recall(ctx, s.memo, key("status", name, env), s.keep(1), func(ctx context.Context) (deploy.StatusResult, error) {
		return s.Source.Status(ctx, name, env)
	})
}

func (s *shared) Changed(ctx context.Context) ([]deploy.ChangedStack, error) {
	return recall(ctx, s.memo, "changed", s.keep(10), s.Source.Changed)
}

func (s *shared) History(ctx context.Context, name, env string) (deploy.HistoryResult, error) {
	return recall(ctx, s.memo, key("history", name, env), s.keep(1), func(ctx context.Context) (deploy.HistoryResult, error) {
		return s.Source.History(ctx, name, env)
	})
}

func (s *shared) Show(ctx context.Context, name, env string, number int) (deploy.ShowResult, error) {
	return recall(ctx, s.memo, key("show", name, env, strconv.Itoa(number)), s.keep(1), func(ctx context.Context) (deploy.ShowResult, error) {
		return s.Source.Show(ctx, name, env, number)
	})
}

func (s *shared) Drift(ctx context.Context, name, env string) (deploy.DriftResult, error) {
	return recall(ctx, s.memo, key("drift", name, env), s.keep(5), func(ctx context.Context) (deploy.DriftResult, error) {
		return s.Source.Drift(ctx, name, env)
	})
}

func (s *shared) Inspect(ctx context.Context, name, env, service, target string) (deploy.InspectResult, error) {
	return recall(ctx, s.memo, key("inspect", name, env, service, target), s.keep(1), func(ctx context.Context) (deploy.InspectResult, error) {
		res, err := s.Source.Inspect(ctx, name, env, service, target)
		s.usage.add(res.Instances, time.Now())
		return res, err
	})
}

func (s *shared) Certificates(ctx context.Context) ([]*acme.Object, error) {
	return recall(ctx, s.memo, "certificates", s.keep(5), s.Source.Certificates)
}

func (s *shared) Edge(ctx context.Context) (*edge.Report, error) {
	return recall(ctx, s.memo, "edge", s.keep(5), s.Source.Edge)
}

func (s *shared) Requests(ctx context.Context) (*edge.Scrape, error) {
	return recall(ctx, s.memo, "requests", s.keep(5), func(ctx context.Context) (*edge.Scrape, error) {
		scrape, err := s.Source.Requests(ctx)
		s.requests.add(scrape)
		return scrape, err
	})
}

func (s *shared) Records(ctx context.Context) ([]*dns.Wanted, error) {
	return recall(ctx, s.memo, "records", s.keep(5), s.Source.Records)
}

func (s *shared) Schedules(ctx context.Context, name, env string) ([]*record.Schedule, error) {
	return recall(ctx, s.memo, key("schedules", name, env), s.keep(5), func(ctx context.Context) ([]*record.Schedule, error) {
		return s.Source.Schedules(ctx, name, env)
	})
}

func (s *shared) Doctor(ctx context.Context) (doctor.Report, error) {
	return recall(ctx, s.memo, "doctor", s.keep(15), s.Source.Doctor)
}
