package rollout

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"
)

// hub wakes the followers of jobs when Nomad's event stream (see feed) mentions them.
// An event only says "look again"; truth is read from the API, because the
// stream may repeat and drop events.
type hub struct {
	looks *looks

	any    chan struct{}           // receives when one of the jobs should be looked at
	opened map[place]chan struct{} // closed when the stream was opened, or could not be

	mu   sync.Mutex
	open map[place]bool     // whose channel in opened is closed
	wait map[string]waiting // by place and job ID
	past map[string]uint64  // by place and job ID: events up to this index are of what was before
	up   map[place]bool
	busy int // how many followers there are
}

// waiting is how the follower of a job is woken.
type waiting struct {
	wake    chan struct{} // something has happened
	decided chan struct{} // what has happened may be the outcome
}

// follows counts a follower, which is over when the function is called.
func (h *hub) follows() (over func()) {
	add := func(n int) {
		h.mu.Lock()
		h.busy += n
		h.mu.Unlock()
	}
	add(1)
	return func() { add(-1) }
}

// following is how many followers there are.
func (h *hub) following() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.busy
}

type place struct{ region, namespace string }

// newHub returns the hub of some jobs, which ends with ctx. The plans of a listing,
// which may be nil, share the streams.
func newHub(ctx context.Context, client *api.Client, specs []spec, listing *Listing) *hub {
	h := &hub{
		any: make(chan struct{}, 1), wait: map[string]waiting{}, past: map[string]uint64{},
		up: map[place]bool{}, opened: map[place]chan struct{}{}, open: map[place]bool{},
	}
	h.looks = &looks{ctx: ctx, client: client, gap: func() time.Duration {
		if n := h.following(); n >= crowd {
			return lookGap(n)
		}
		return 0
	}}
	for _, s := range specs {
		at := place{s.region, s.namespace}
		h.wait[h.key(at, s.id)] = waiting{make(chan struct{}, 1), make(chan struct{}, 1)}
		h.up[at] = false
		if h.opened[at] == nil {
			h.opened[at] = make(chan struct{})
		}
	}
	if len(specs) > 0 {
		listing.subscribe(ctx, client, h, specs)
	}
	return h
}

func (h *hub) key(at place, id string) string { return at.region + "\x00" + at.namespace + "\x00" + id }

// waiting returns the channels that receive when s should be looked at again.
func (h *hub) waiting(s *step) waiting {
	return h.wait[h.key(place{s.spec.region, s.spec.namespace}, s.spec.id)]
}

// live reports whether the stream for s is open. Without it, a follower has to poll.
func (h *hub) live(s *step) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.up[place{s.spec.region, s.spec.namespace}]
}

// allLive reports whether all streams are open.
func (h *hub) allLive() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, up := range h.up {
		if !up {
			return false
		}
	}
	return true
}

// opening waits until the stream for s was opened, or could not be, for at most a
// second: a follower does not look at a job because of the opening itself then.
func (h *hub) opening(ctx context.Context, s *step) {
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-h.opened[place{s.spec.region, s.spec.namespace}]:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// registered ignores the events of s up to that index from now on.
func (h *hub) registered(s *step, index uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.past[h.key(place{s.spec.region, s.spec.namespace}, s.spec.id)] = index
}

// notify wakes the follower of a job for an event of that index.
func (h *hub) notify(at place, id string, index uint64, decides bool) {
	key := h.key(at, id)
	w, follows := h.wait[key]
	h.mu.Lock()
	past := h.past[key]
	h.mu.Unlock()
	if !follows || index <= past {
		return
	}
	if decides {
		poke(w.decided)
	}
	poke(w.wake)
	poke(h.any)
}

// setUp notes whether the stream of a place is open. It notifies the followers there,
// because events may have been missed.
func (h *hub) setUp(at place, up bool) {
	h.mu.Lock()
	_, mine := h.up[at]
	if mine {
		h.up[at] = up
	}
	h.mu.Unlock()
	if mine {
		h.notifyAll(at)
	}
}

// setOpened notes that the stream of a place was opened, or could not be.
func (h *hub) setOpened(at place) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ch := h.opened[at]; ch != nil && !h.open[at] {
		h.open[at] = true
		close(ch)
	}
}

// notifyAll notifies the followers of all jobs there.
func (h *hub) notifyAll(at place) {
	for key, w := range h.wait {
		if strings.HasPrefix(key, h.key(at, "")) {
			poke(w.decided)
			poke(w.wake)
			poke(h.any)
		}
	}
}

// crowd is how many followers are so many that they wait for one another to read
// together.
const crowd = 8
