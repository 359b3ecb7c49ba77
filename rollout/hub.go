package rollout

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
)

// hub wakes the followers of jobs when Nomad's event stream
// (GET /v1/event/stream) mentions them: one stream per region and namespace.
// An event only says "look again"; truth is read from the API, because the
// stream may repeat and drop events.
type hub struct {
	ctx    context.Context
	client *api.Client

	looks *looks

	any chan struct{} // receives when one of the jobs should be looked at

	mu   sync.Mutex
	wait map[string]chan struct{} // by place and job ID
	up   map[place]bool
	busy int // how many followers there are
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

func newHub(ctx context.Context, client *api.Client, specs []spec) *hub {
	h := &hub{ctx: ctx, client: client, any: make(chan struct{}, 1), wait: map[string]chan struct{}{}, up: map[place]bool{}}
	h.looks = &looks{ctx: ctx, client: client, gap: func() time.Duration {
		if n := h.following(); n >= crowd {
			return lookGap(n)
		}
		return 0
	}}
	jobs := map[place][]string{}
	for _, s := range specs {
		at := place{s.region, s.namespace}
		jobs[at] = append(jobs[at], s.id)
		h.wait[h.key(at, s.id)] = make(chan struct{}, 1)
		h.up[at] = false
	}
	for at, ids := range jobs {
		go h.follow(at, ids)
	}
	return h
}

func (h *hub) key(at place, id string) string { return at.region + "\x00" + at.namespace + "\x00" + id }

// wake is the channel that receives when s should be looked at again.
func (h *hub) wake(s *step) <-chan struct{} {
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

func (h *hub) notify(at place, id string) {
	if ch := h.wait[h.key(at, id)]; ch != nil {
		poke(ch)
		poke(h.any)
	}
}

func (h *hub) setUp(at place, up bool) {
	h.mu.Lock()
	h.up[at] = up
	h.mu.Unlock()
}

func (h *hub) follow(at place, ids []string) {
	topics := map[api.Topic][]string{api.TopicDeployment: ids, api.TopicAllocation: ids, api.TopicEvaluation: ids, api.TopicJob: ids}
	if len(ids) > 100 { // the URL would become too long
		all := []string{"*"}
		topics = map[api.Topic][]string{api.TopicDeployment: all, api.TopicAllocation: all, api.TopicEvaluation: all, api.TopicJob: all}
	}
	failures := 0
	var index uint64
	for h.ctx.Err() == nil {
		q := &api.QueryOptions{Region: at.region, Namespace: at.namespace}
		stream, err := h.client.EventStream().Stream(h.ctx, topics, index, q)
		if err == nil {
			h.setUp(at, true)
			for _, id := range ids {
				h.notify(at, id) // whatever happened before the stream was open
			}
			for events := range stream {
				if events.Err != nil {
					break
				}
				failures = 0
				index = events.Index
				for _, e := range events.Events {
					h.notify(at, jobOf(e))
				}
			}
			h.setUp(at, false)
			for _, id := range ids {
				h.notify(at, id)
			}
		}
		_ = nomad.StreamBackoff().Wait(h.ctx, failures)
		failures++
	}
}

// crowd is how many followers are so many that they wait for one another to read
// together.
const crowd = 8

// jobOf finds the job that an event is about without decoding all of it. It is ""
// for the registration of a job and for its evaluation before the scheduler has
// looked at it: there is nothing to see yet.
func jobOf(e api.Event) string {
	if e.Topic == api.TopicJob {
		if e.Type == "JobRegistered" {
			return ""
		}
		return e.Key
	}
	for _, v := range e.Payload {
		if m, ok := v.(map[string]any); ok {
			if e.Topic == api.TopicEvaluation && m["Status"] == api.EvalStatusPending {
				return ""
			}
			if id, ok := m["JobID"].(string); ok {
				return id
			}
		}
	}
	return ""
}
