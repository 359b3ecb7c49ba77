package autoscale

import (
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/hashicorp/cronexpr"
)

// Schedule is a window that returns, in UTC.
type Schedule struct {
	start, end *cronexpr.Expression
	duration   time.Duration // without end
}

// newSchedule reads a schedule block: one of end and duration is empty.
func newSchedule(start, end, duration string) (*Schedule, error) {
	if (end == "") == (duration == "") {
		return nil, errors.New("a schedule has one of end and duration")
	}
	s := &Schedule{}
	var err error
	if s.start, err = cronexpr.Parse(start); err != nil {
		return nil, fmt.Errorf("start %q is no cron expression: %w", start, err)
	}
	if end == "" {
		if s.duration, err = time.ParseDuration(duration); err != nil || s.duration <= 0 {
			return nil, fmt.Errorf("duration %q is no duration", duration)
		}
		return s, nil
	}
	if s.end, err = cronexpr.Parse(end); err != nil {
		return nil, fmt.Errorf("end %q is no cron expression: %w", end, err)
	}
	return s, nil
}

// isActive reports whether now is in a window. A nil schedule is always active.
func (s *Schedule) isActive(now time.Time) bool {
	if s == nil {
		return true
	}
	now = now.UTC()
	if s.end == nil {
		next := s.start.Next(now.Add(-s.duration))
		return !next.IsZero() && !next.After(now)
	}
	started := last(s.start, now)
	return !started.IsZero() && started.After(last(s.end, now))
}

// last returns the newest time at or before now, zero if there is none in 10 years.
func last(e *cronexpr.Expression, now time.Time) time.Time {
	const seconds = 10 * 366 * 24 * 3600
	at := func(n int) time.Time { return now.Add(-time.Duration(n) * time.Second) }
	// The smallest n for which a time follows at(n) that is not after now.
	n := sort.Search(seconds, func(n int) bool {
		next := e.Next(at(n))
		return !next.IsZero() && !next.After(now)
	})
	if n == seconds {
		return time.Time{}
	}
	return e.Next(at(n))
}
