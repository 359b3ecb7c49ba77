package rollout

import (
	"context"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
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

	any    chan struct{}           // receives when one of the jobs should be looked at
	opened map[place]chan struct{} // closed when the stream was opened, or could not be

	mu   sync.Mutex
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

func newHub(ctx context.Context, client *api.Client, specs []spec) *hub {
	h := &hub{ctx: ctx, client: client, any: make(chan struct{}, 1), wait: map[string]waiting{}, past: map[string]uint64{}, up: map[place]bool{}, opened: map[place]chan struct{}{}}
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
		h.wait[h.key(at, s.id)] = waiting{make(chan struct{}, 1), make(chan struct{}, 1)}
		h.up[at] = false
		if h.opened[at] == nil {
			h.opened[at] = make(chan struct{})
		}
	}
	for at, ids := range jobs {
		go h.follow(at, ids)
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

func (h *hub) setUp(at place, up bool) {
	h.mu.Lock()
	h.up[at] = up
	h.mu.Unlock()
}

func (h *hub) follow(at place, ids []string) {
	if len(ids) > 100 { // the URL would become too long
		ids = []string{"*"}
	}
	topics := url.Values{}
	for _, topic := range []api.Topic{api.TopicDeployment, api.TopicAllocation, api.TopicEvaluation, api.TopicJob} {
		for _, id := range ids {
			topics.Add("topic", string(topic)+":"+id)
		}
	}
	failures := 0
	var index uint64
	opened := sync.OnceFunc(func() { close(h.opened[at]) })
	for h.ctx.Err() == nil {
		q := &api.QueryOptions{Region: at.region, Namespace: at.namespace, Params: map[string]string{"index": strconv.FormatUint(index, 10)}}
		stream, err := h.client.Raw().Response("/v1/event/stream?"+topics.Encode(), q.WithContext(h.ctx))
		if err == nil {
			h.setUp(at, true)
			h.notifyAll(at) // whatever happened before the stream was open
			opened()
			var batch events
			for decoder := json.NewDecoder(stream); ; {
				clear(batch.Events) // the array is used again, and a field that is missing keeps its value
				batch.Index = 0
				if decoder.Decode(&batch) != nil {
					break
				}
				if batch.Index == 0 { // a heartbeat
					continue
				}
				failures = 0
				index = batch.Index
				for _, e := range batch.Events {
					if id, decides := e.about(); id != "" {
						h.notify(at, id, batch.Index, decides)
					}
				}
			}
			_ = stream.Close()
			h.setUp(at, false)
			h.notifyAll(at)
		}
		opened()
		_ = nomad.StreamBackoff().Wait(h.ctx, failures)
		failures++
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

// events is a line of the event stream. Only what is needed of it is decoded: the
// payloads are whole allocations and jobs.
type events struct {
	Index  uint64
	Events []event
}

type event struct {
	Topic   api.Topic
	Type    string
	Key     string
	Payload struct{ Allocation, Deployment, Evaluation eventOf }
}

type eventOf struct{ JobID, Status string }

// about returns the job that an event is about, and whether what has happened may be
// the outcome of a deployment. The job is "" for a registration and for an evaluation
// before the scheduler has looked at it: there is nothing to see yet.
func (e event) about() (job string, decides bool) {
	switch p := e.Payload; {
	case e.Topic == api.TopicJob && e.Type == "JobRegistered":
		return "", false
	case e.Topic == api.TopicJob:
		return e.Key, true
	case p.Deployment.JobID != "":
		return p.Deployment.JobID, !inProgress(p.Deployment.Status)
	case p.Evaluation.JobID != "" && p.Evaluation.Status != api.EvalStatusPending:
		return p.Evaluation.JobID, false
	}
	return e.Payload.Allocation.JobID, false
}
