package ui

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/rollout"
)

// Of the usage of each allocation keptSamples values are kept, while somewhere a page
// shows it, and forgotten usageTime after the last one.
const (
	keptSamples = 120
	usageTime   = 10 * time.Minute
)

// usageLog keeps what allocations used lately.
type usageLog struct {
	mu      sync.Mutex
	byAlloc map[string]*samples
}

type samples struct {
	cpu, memory []float64 // MHz, MiB
	last        time.Time
}

// add takes the usage of instances that were read at a time.
func (u *usageLog) add(list []rollout.Instance, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for id, s := range u.byAlloc {
		if at.Sub(s.last) > usageTime {
			delete(u.byAlloc, id)
		}
	}
	for _, in := range list {
		if in.Usage == nil {
			continue
		}
		s := u.byAlloc[in.AllocID]
		if s == nil {
			s = &samples{}
			u.byAlloc[in.AllocID] = s
		}
		s.last = at
		s.cpu = keep(append(s.cpu, in.Usage.CPU))
		s.memory = keep(append(s.memory, float64(in.Usage.Memory)/(1<<20)))
	}
}

func keep(values []float64) []float64 { return values[max(0, len(values)-keptSamples):] }

// spark is a small graph of the last values.
type spark struct {
	Path string
	Text string // the same in words
}

// Sizes of a spark in units of the SVG.
const sparkWidth, sparkHeight = 120, 24

// sparks returns the graphs of CPU and memory of an allocation, nil with fewer than two
// values.
func (u *usageLog) sparks(alloc string) (cpu, memory *spark) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.byAlloc[alloc]
	if s == nil || len(s.cpu) < 2 {
		return nil, nil
	}
	return drawSpark("CPU", "MHz", s.cpu), drawSpark("Memory", "MiB", s.memory)
}

func drawSpark(name, unit string, values []float64) *spark {
	top := max(slices.Max(values), 1)
	var b strings.Builder
	for i, v := range values {
		x := float64(i) * sparkWidth / float64(len(values)-1)
		y := sparkHeight - 1 - v/top*(sparkHeight-2)
		fmt.Fprintf(&b, "%s%.1f %.1f", map[bool]string{true: "M", false: " L"}[i == 0], x, y)
	}
	return &spark{Path: b.String(), Text: fmt.Sprintf("%s of the last %d reads: %.0f to %.0f %s", name, len(values), slices.Min(values), slices.Max(values), unit)}
}

// requestLog keeps the last two reads of what the edge has counted.
type requestLog struct {
	mu             sync.Mutex
	newest, before *edge.Scrape
}

// add takes a read; nil if there is none.
func (l *requestLog) add(s *edge.Scrape) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.newest, l.before = s, l.newest
}

// rate returns the requests per second to a service between the last two reads in words,
// "" if that is unknown.
func (l *requestLog) rate(service string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.newest == nil {
		return ""
	}
	rate, err := l.newest.Sum(edge.MetricRequests, service, l.before)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%.1f/s", rate)
}
