package rollout

import (
	"context"
	"encoding/json"
	"net/url"
	"strconv"
	"sync"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
)

// feed reads Nomad's event stream (GET /v1/event/stream) for the hubs of plans that are
// applied at the same time: one stream per region and namespace.
type feed struct {
	ctx    context.Context //nolint:containedctx // of the streams, which serve several hubs
	stop   context.CancelFunc
	client *api.Client

	mu     sync.Mutex
	hubs   map[*hub]bool
	up     map[place]bool
	opened map[place]bool // tried at least once
}

// newFeed opens the streams of jobs. The caller adds hubs, and calls stop in the end.
func newFeed(ctx context.Context, client *api.Client, jobs []jobAt) *feed {
	f := &feed{client: client, hubs: map[*hub]bool{}, up: map[place]bool{}, opened: map[place]bool{}}
	f.ctx, f.stop = context.WithCancel(context.WithoutCancel(ctx))
	ids := map[place][]string{}
	for _, at := range jobs {
		ids[at.place] = append(ids[at.place], at.id)
	}
	for at, ids := range ids {
		go f.follow(at, ids)
	}
	return f
}

// add lets a hub receive what comes from now on.
func (f *feed) add(h *hub) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hubs[h] = true
	for at, up := range f.up {
		if up {
			h.setUp(at, true) // whatever happened before
		}
	}
	for at := range f.opened {
		h.setOpened(at)
	}
}

// remove ends add, and the streams with the last hub. It reports whether it was that.
func (f *feed) remove(h *hub) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.hubs, h)
	if len(f.hubs) > 0 {
		return false
	}
	f.stop()
	return true
}

// each calls do for each hub.
func (f *feed) each(do func(*hub)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for h := range f.hubs {
		do(h)
	}
}

func (f *feed) setUp(at place, up bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.up[at] = up
	for h := range f.hubs {
		h.setUp(at, up)
	}
}

func (f *feed) setOpened(at place) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opened[at] = true
	for h := range f.hubs {
		h.setOpened(at)
	}
}

func (f *feed) follow(at place, ids []string) {
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
	for f.ctx.Err() == nil {
		q := &api.QueryOptions{Region: at.region, Namespace: at.namespace, Params: map[string]string{"index": strconv.FormatUint(index, 10)}}
		stream, err := f.client.Raw().Response("/v1/event/stream?"+topics.Encode(), q.WithContext(f.ctx))
		if err == nil {
			f.setUp(at, true)
			f.setOpened(at)
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
						f.each(func(h *hub) { h.notify(at, id, batch.Index, decides) })
					}
				}
			}
			_ = stream.Close()
			f.setUp(at, false)
		}
		f.setOpened(at)
		_ = nomad.StreamBackoff().Wait(f.ctx, failures)
		failures++
	}
}

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
