package rollout

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"
)

// looks reads several followed jobs together: those that are to be read while
// others of their region and namespace are read wait for the next round. A round
// lists deployments, allocations and, where they decide, evaluations, however many
// jobs it is for. A job that is alone in its round, or that a list does not
// decide about, is read by itself.
type looks struct {
	ctx    context.Context //nolint:containedctx // of the rounds, which serve several calls
	client *api.Client
	gap    func() time.Duration // least time between two rounds

	mu sync.Mutex
	of map[place]*rounds
}

// rounds are those of one region and namespace.
type rounds struct {
	waiting []*reading
	running bool
	begun   time.Time // the last round
}

// reading is one look at one job.
type reading struct {
	spec   spec
	target uint64
	done   chan struct{} // closed when what follows is set

	alone    bool // it has to be read by itself
	snapshot snapshot
	index    uint64 // of the allocations
	err      error
}

// read takes a snapshot of the version of a job that has that JobModifyIndex and
// a deployment.
func (l *looks) read(ctx context.Context, s spec, target uint64) (*reading, error) {
	k := &reading{spec: s, target: target, done: make(chan struct{}), snapshot: snapshot{target: target}}
	at := s.at().place
	l.mu.Lock()
	if l.of == nil {
		l.of = map[place]*rounds{}
	}
	if l.of[at] == nil {
		l.of[at] = &rounds{}
	}
	r := l.of[at]
	r.waiting = append(r.waiting, k)
	if !r.running {
		r.running = true
		go l.serve(at, r)
	}
	l.mu.Unlock()
	select {
	case <-k.done:
		return k, k.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// serve makes rounds until no look waits.
func (l *looks) serve(at place, r *rounds) {
	for {
		if rest := l.gap() - time.Since(r.begun); rest > 0 {
			timer := time.NewTimer(rest)
			select {
			case <-timer.C:
			case <-l.ctx.Done():
				timer.Stop()
			}
		}
		l.mu.Lock()
		batch := r.waiting
		r.waiting, r.running = nil, len(batch) > 0
		l.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		r.begun = time.Now()
		if len(batch) == 1 {
			batch[0].alone = true
		} else {
			err := l.round(at, batch)
			for _, k := range batch {
				k.err = err
			}
		}
		for _, k := range batch {
			close(k.done)
		}
	}
}

// round reads the jobs of a batch, in the order of [follower.read].
func (l *looks) round(at place, batch []*reading) error {
	ctx, cancel := context.WithTimeoutCause(l.ctx, 20*time.Second, errors.New("no answer within 20 seconds"))
	defer cancel()
	deployments, _, err := l.client.Deployments().List(l.query(ctx, at, batch))
	if err != nil {
		return fmt.Errorf("listing deployments: %w", err)
	}
	byJob := map[string][]*api.Deployment{}
	for _, d := range deployments {
		byJob[d.JobID] = append(byJob[d.JobID], d)
	}
	var found, without []*reading
	for _, k := range batch {
		if d := newestDeployment(byJob[k.spec.id], k.target); d != nil {
			k.snapshot.deployment, k.snapshot.version = d, d.JobVersion
			found = append(found, k)
		} else {
			without = append(without, k)
		}
	}
	if err := l.evaluations(ctx, at, without); err != nil {
		return err
	}
	for _, k := range without {
		k.alone = !k.snapshot.pending() // else the scheduler has yet to look at it
	}
	if err := l.allocations(ctx, at, found); err != nil {
		return err
	}
	var undecided []*reading
	for _, k := range found {
		if !k.snapshot.underWay() {
			undecided = append(undecided, k)
		}
	}
	return l.evaluations(ctx, at, undecided)
}

func (l *looks) allocations(ctx context.Context, at place, batch []*reading) error {
	if len(batch) == 0 {
		return nil
	}
	list, meta, err := l.client.Allocations().List(l.query(ctx, at, batch))
	if err != nil {
		return fmt.Errorf("listing allocations: %w", err)
	}
	of := byID(batch)
	for _, k := range batch {
		k.index = meta.LastIndex
	}
	for _, a := range list {
		if k := of[a.JobID]; k != nil && a.JobVersion == k.snapshot.version {
			k.snapshot.allocs = append(k.snapshot.allocs, a)
		}
	}
	return nil
}

func (l *looks) evaluations(ctx context.Context, at place, batch []*reading) error {
	if len(batch) == 0 {
		return nil
	}
	list, _, err := l.client.Evaluations().List(l.query(ctx, at, batch))
	if err != nil {
		return fmt.Errorf("listing evaluations: %w", err)
	}
	of := byID(batch)
	for _, e := range list {
		if k := of[e.JobID]; k != nil {
			k.snapshot.evals = append(k.snapshot.evals, e)
		}
	}
	return nil
}

// query narrows a list to the jobs of a batch.
func (l *looks) query(ctx context.Context, at place, batch []*reading) *api.QueryOptions {
	q := &api.QueryOptions{Region: at.region, Namespace: at.namespace}
	if len(batch) <= filterLimit {
		ids := make([]string, len(batch))
		for i, k := range batch {
			ids[i] = k.spec.id
		}
		q.Filter = oneOf("JobID", ids)
	}
	return q.WithContext(ctx)
}

// byID finds the look at a job; a job is followed once.
func byID(batch []*reading) map[string]*reading {
	out := make(map[string]*reading, len(batch))
	for _, k := range batch {
		out[k.spec.id] = k
	}
	return out
}
