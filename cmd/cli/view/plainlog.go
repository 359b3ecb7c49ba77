package view

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/drover-nomad/drover/rollout"
)

// plainLog writes a rollout as lines of a log: starts and ends of services at once,
// and at intervals the services that are still in progress.
type plainLog struct {
	line func(format string, args ...any)

	mu       sync.Mutex
	inFlight map[string]flight
	stop     chan struct{}
	stopped  chan struct{}
}

type flight struct {
	since time.Time
	last  rollout.Event
}

func newPlainLog(line func(string, ...any), every time.Duration) *plainLog {
	p := &plainLog{line: line, inFlight: map[string]flight{}, stop: make(chan struct{}), stopped: make(chan struct{})}
	go p.run(every)
	return p
}

// run prints the progress of every service that is still in progress.
func (p *plainLog) run(every time.Duration) {
	defer close(p.stopped)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			p.mu.Lock()
			p.remind(now, every)
			p.mu.Unlock()
		case <-p.stop:
			return
		}
	}
}

func (p *plainLog) remind(now time.Time, after time.Duration) {
	var lines []string
	for service, f := range p.inFlight {
		if took := now.Sub(f.since); took >= after {
			line := fmt.Sprintf("%s: %d/%d healthy after %s", service, f.last.Healthy, f.last.Desired, Round(took))
			if f.last.Waiting != "" {
				line += ", waits for " + f.last.Waiting
			}
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	for _, l := range lines {
		p.line("%s", l)
	}
}

func (p *plainLog) event(e rollout.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e.Kind {
	case rollout.EventSubmitted:
		p.line("%s: submitted", e.Name())
		p.inFlight[e.Name()] = flight{since: time.Now(), last: e}
	case rollout.EventProgress:
		if f, ok := p.inFlight[e.Name()]; ok {
			f.last = e
			p.inFlight[e.Name()] = f
		}
	case rollout.EventDone:
		delete(p.inFlight, e.Name())
		if e.Result.Outcome != rollout.Unchanged || e.Result.Note != "" {
			p.line("%s", resultLine(*e.Result))
		}
	}
}

func (p *plainLog) close() {
	close(p.stop)
	<-p.stopped
}
