package rollout

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/render"
)

// Destroyed is told for each service when its last allocation has stopped.
type Destroyed struct {
	Service string `json:"service"`
	JobID   string `json:"job_id"`
	Missing bool   `json:"missing,omitempty"` // it was not there
	Err     error  `json:"-"`
}

// Destroy stops and purges the jobs (DELETE /v1/job/:id?purge=true), each
// when everything that depends on it is gone, and waits until their
// allocations have stopped: all in all for Options.Timeout, and for a Nomad that
// does not answer for Options.Silence. Secrets and volumes stay.
func Destroy(ctx context.Context, c Clients, jobs []render.Job, opts Options, told func(Destroyed)) error {
	opts = opts.withDefaults()
	ctx, cancel := context.WithTimeoutCause(ctx, opts.Timeout, fmt.Errorf("not stopped within %s", opts.Timeout))
	defer cancel()
	gone := map[string]chan struct{}{}
	failed := map[string]bool{}
	dependants := map[string][]string{}
	for _, j := range jobs {
		gone[j.Service] = make(chan struct{})
		for _, d := range j.DependsOn {
			dependants[d] = append(dependants[d], j.Service)
		}
	}
	var mu sync.Mutex
	return each(len(jobs), len(jobs)+1, func(i int) error {
		j := jobs[i]
		defer close(gone[j.Service])
		s := specOf(j.Job)
		res := Destroyed{Service: j.Service, JobID: s.id}
		var err error
		for _, d := range dependants[j.Service] {
			if gone[d] == nil {
				continue
			}
			<-gone[d]
			mu.Lock()
			if failed[d] && err == nil {
				err = fmt.Errorf("job %q is not stopped: %s, which depends on it, still runs", s.id, d)
			}
			mu.Unlock()
		}
		if err == nil {
			res.Missing, err = destroyJob(ctx, c, opts.Silence, s)
		}
		res.Err = err
		mu.Lock()
		defer mu.Unlock()
		failed[j.Service] = err != nil
		if told != nil {
			told(res)
		}
		return err
	})
}

func destroyJob(ctx context.Context, c Clients, silence time.Duration, s spec) (missing bool, err error) {
	err = Persist(ctx, silence, func(ctx context.Context) error {
		_, _, err := c.Nomad.Jobs().Info(s.id, s.query(ctx))
		return err
	})
	switch {
	case notFound(err):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("reading job %q: %w", s.id, err)
	}
	ids := []string{s.id}
	if s.parent {
		// Purging a periodic or parameterized job leaves its children running.
		var children []*api.JobListStub
		err := Persist(ctx, silence, func(ctx context.Context) (err error) {
			q := s.query(ctx)
			q.Prefix = s.id + "/"
			children, _, err = c.Nomad.Jobs().List(q)
			return err
		})
		if err != nil {
			return false, fmt.Errorf("listing the children of job %q: %w", s.id, err)
		}
		for _, child := range children {
			if child.ParentID == s.id {
				ids = append(ids, child.ID)
			}
		}
	}
	return false, purge(ctx, c, silence, s, ids...)
}

// purge stops jobs first and purges them when that is done: Nomad lists no
// allocations of a job that it has forgotten. And a server of Nomad 1.11.3
// panics (planner.applyPlan) when the scheduler has to cancel the deployment
// of a job that has been purged meanwhile, so that the evaluation of the stop,
// behind which no older one waits, has to have ended too.
//
// Each step may be done twice: a Nomad that does not answer is asked again,
// until silence is over.
func purge(ctx context.Context, c Clients, silence time.Duration, s spec, ids ...string) error {
	for _, step := range []func(context.Context, Clients, time.Duration, spec, string) error{stop, stopped, forget} {
		for _, id := range ids {
			if err := step(ctx, c, silence, s, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// forget purges a job that has stopped.
func forget(ctx context.Context, c Clients, silence time.Duration, s spec, id string) error {
	err := Persist(ctx, silence, func(ctx context.Context) error {
		_, _, err := c.Nomad.Jobs().Deregister(id, true, s.write(ctx))
		return err
	})
	if err != nil && !notFound(err) {
		return fmt.Errorf("purging job %q: %w", id, err)
	}
	return nil
}

// stop stops a job and waits until the scheduler has seen it; again when Nomad
// has put the version before back (see snapshot.judge).
func stop(ctx context.Context, c Clients, silence time.Duration, s spec, id string) error {
	for {
		var eval string
		err := Persist(ctx, silence, func(ctx context.Context) (err error) {
			eval, _, err = c.Nomad.Jobs().Deregister(id, false, s.write(ctx))
			return err
		})
		switch {
		case notFound(err):
			return nil
		case err != nil:
			return fmt.Errorf("stopping job %q: %w", id, err)
		case eval == "": // periodic and parameterized jobs have none
			return nil
		}
		if err := evaluated(ctx, c, silence, s, eval); err != nil {
			return err
		}
		var job *api.Job
		err = Persist(ctx, silence, func(ctx context.Context) (err error) {
			job, _, err = c.Nomad.Jobs().Info(id, s.query(ctx))
			return err
		})
		switch {
		case notFound(err):
			return nil
		case err != nil:
			return fmt.Errorf("reading job %q: %w", id, err)
		case deref(job.Stop, false):
			return nil
		}
	}
}

// evaluated waits by a blocking query (GET /v1/evaluation/:id) until the
// scheduler has dealt with an evaluation.
func evaluated(ctx context.Context, c Clients, silence time.Duration, s spec, id string) error {
	var index uint64
	for {
		var eval *api.Evaluation
		var meta *api.QueryMeta
		err := Persist(ctx, silence, func(ctx context.Context) (err error) {
			q := s.query(ctx)
			q.WaitIndex, q.WaitTime = index, time.Minute
			eval, meta, err = c.Nomad.Evaluations().Info(id, q)
			return err
		})
		switch {
		case notFound(err):
			return nil // collected as garbage, as only an ended one is
		case err != nil && ctx.Err() != nil:
			return fmt.Errorf("waiting for evaluation %s: %w", id, context.Cause(ctx))
		case err != nil:
			return fmt.Errorf("waiting for evaluation %s: %w", id, err)
		case eval.Status != api.EvalStatusPending:
			return nil
		}
		index = meta.LastIndex
	}
}

// stopped waits by a blocking query until no allocation of the job runs.
func stopped(ctx context.Context, c Clients, silence time.Duration, s spec, id string) error {
	var index uint64
	for {
		var allocs []*api.AllocationListStub
		var meta *api.QueryMeta
		err := Persist(ctx, silence, func(ctx context.Context) (err error) {
			q := s.query(ctx)
			q.WaitIndex, q.WaitTime = index, time.Minute
			allocs, meta, err = c.Nomad.Jobs().Allocations(id, true, q)
			return err
		})
		if err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return fmt.Errorf("waiting for job %q to stop: %w", id, err)
		}
		if !slices.ContainsFunc(allocs, func(a *api.AllocationListStub) bool {
			return a.ClientStatus == api.AllocClientStatusRunning || a.ClientStatus == api.AllocClientStatusPending && a.DesiredStatus == api.AllocDesiredStatusRun
		}) {
			return nil
		}
		index = meta.LastIndex
	}
}
