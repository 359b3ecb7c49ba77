package rollout

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// Destroyed is the end of one job that Destroy was given.
type Destroyed struct {
	Index   int    `json:"-"` // of the job in what Destroy was given
	Service string `json:"service"`
	JobID   string `json:"job_id"`
	Missing bool   `json:"missing,omitempty"` // neither the job nor children of it were there
	Err     error  `json:"-"`
}

// Destroy stops and purges the jobs (DELETE /v1/job/:id?purge=true) and their
// children, each job after everything that depends on it, and waits until their
// allocations have stopped: all in all for Options.Timeout, and for a Nomad that
// does not answer for Options.Silence. Only the ID, the namespace and the region
// of a job matter. Several jobs may have one service. Secrets and volumes stay.
// done is called for each job, one at a time, and may be nil.
func Destroy(ctx context.Context, c nomad.Clients, jobs []render.Job, opts Options, done func(Destroyed)) error {
	opts = opts.withDefaults()
	timeout := opts.limits(stack.Limits{}).Timeout
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not stopped within %s", timeout))
	defer cancel()
	gone := make([]chan struct{}, len(jobs))
	failed := make([]bool, len(jobs))
	dependants := map[string][]int{} // by service
	for i, j := range jobs {
		gone[i] = make(chan struct{})
		for _, d := range j.DependsOn {
			dependants[d] = append(dependants[d], i)
		}
	}
	var mu sync.Mutex
	return parallel.Each(len(jobs), len(jobs)+1, func(i int) error {
		j := jobs[i]
		defer close(gone[i])
		s := specOf(j.Job)
		res := Destroyed{Index: i, Service: j.Service, JobID: s.id}
		var err error
		for _, d := range dependants[j.Service] {
			<-gone[d]
			mu.Lock()
			if failed[d] && err == nil {
				err = fmt.Errorf("job %q is not stopped: %s, which depends on it, still runs", s.id, jobs[d].Service)
			}
			mu.Unlock()
		}
		if err == nil {
			res.Missing, err = destroyJob(ctx, c, opts.Silence, s)
		}
		res.Err = err
		mu.Lock()
		defer mu.Unlock()
		failed[i] = err != nil
		if done != nil {
			done(res)
		}
		return err
	})
}

// destroyJob purges a job and its children. missing reports whether neither was
// there.
func destroyJob(ctx context.Context, c nomad.Clients, silence time.Duration, s spec) (missing bool, err error) {
	var job *api.Job
	err = Persist(ctx, silence, func(ctx context.Context) (err error) {
		job, _, err = c.Nomad.Jobs().Info(s.id, s.query(ctx))
		return err
	})
	switch {
	case nomad.IsNotFound(err): // children outlive a parent that was purged
		children, err := childrenOf(ctx, c, silence, s)
		if err != nil || len(children) == 0 {
			return err == nil, err
		}
		return false, purge(ctx, c, silence, s, children...)
	case err != nil:
		return false, fmt.Errorf("reading job %q: %w", s.id, err)
	}
	return false, purgeFamily(ctx, c, silence, s, job)
}

// purgeFamily purges a registered job and its children, which Nomad leaves
// running when it purges a periodic or parameterized job. The registered job
// tells whether it is one, not the spec, which may be another or none.
func purgeFamily(ctx context.Context, c nomad.Clients, silence time.Duration, s spec, job *api.Job) error {
	ids := []string{s.id}
	if job.Periodic != nil || job.ParameterizedJob != nil {
		// The parent stops first, so that it starts no child meanwhile.
		if err := stop(ctx, c, silence, s, s.id); err != nil {
			return err
		}
		children, err := childrenOf(ctx, c, silence, s)
		if err != nil {
			return err
		}
		ids = append(ids, children...)
	}
	return purge(ctx, c, silence, s, ids...)
}

// PurgeChildren stops and purges the children of a periodic or parameterized
// job, and waits as Destroy does. The job itself stays.
func PurgeChildren(ctx context.Context, c nomad.Clients, job *api.Job, opts Options) error {
	opts = opts.withDefaults()
	timeout := opts.limits(stack.Limits{}).Timeout
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not stopped within %s", timeout))
	defer cancel()
	s := specOf(job)
	children, err := childrenOf(ctx, c, opts.Silence, s)
	if err != nil || len(children) == 0 {
		return err
	}
	return purge(ctx, c, opts.Silence, s, children...)
}

// childrenOf lists the IDs of the jobs that a periodic or parameterized job has
// started (GET /v1/jobs?prefix=).
func childrenOf(ctx context.Context, c nomad.Clients, silence time.Duration, s spec) ([]string, error) {
	var list []*api.JobListStub
	err := Persist(ctx, silence, func(ctx context.Context) (err error) {
		q := s.query(ctx)
		q.Prefix = s.id + "/"
		list, _, err = c.Nomad.Jobs().List(q)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing the children of job %q: %w", s.id, err)
	}
	var out []string
	for _, child := range list {
		if child.ParentID == s.id {
			out = append(out, child.ID)
		}
	}
	return out, nil
}

// purge stops jobs first and purges them when that is done: Nomad lists no
// allocations of a job that it has forgotten. And a server of Nomad 1.11.3
// panics (planner.applyPlan) when the scheduler has to cancel the deployment
// of a job that has been purged meanwhile, so that the evaluation of the stop,
// behind which no older one waits, has to have ended too.
//
// Each step may be done twice: a Nomad that does not answer is asked again,
// until silence is over.
func purge(ctx context.Context, c nomad.Clients, silence time.Duration, s spec, ids ...string) error {
	for _, step := range []func(context.Context, nomad.Clients, time.Duration, spec, string) error{stop, stopped, forget} {
		for _, id := range ids {
			if err := step(ctx, c, silence, s, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// forget purges a job that has stopped.
func forget(ctx context.Context, c nomad.Clients, silence time.Duration, s spec, id string) error {
	err := Persist(ctx, silence, func(ctx context.Context) error {
		_, _, err := c.Nomad.Jobs().Deregister(id, true, s.write(ctx))
		return err
	})
	if err != nil && !nomad.IsNotFound(err) {
		return fmt.Errorf("purging job %q: %w", id, err)
	}
	return nil
}

// stop stops a job and waits until the scheduler has seen it; again when Nomad
// has put the version before back (see snapshot.judge).
func stop(ctx context.Context, c nomad.Clients, silence time.Duration, s spec, id string) error {
	for {
		var eval string
		err := Persist(ctx, silence, func(ctx context.Context) (err error) {
			eval, _, err = c.Nomad.Jobs().Deregister(id, false, s.write(ctx))
			return err
		})
		switch {
		case nomad.IsNotFound(err):
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
		case nomad.IsNotFound(err):
			return nil
		case err != nil:
			return fmt.Errorf("reading job %q: %w", id, err)
		case nomad.Deref(job.Stop):
			return nil
		}
	}
}

// evaluated waits by a blocking query (GET /v1/evaluation/:id) until the
// scheduler has dealt with an evaluation.
func evaluated(ctx context.Context, c nomad.Clients, silence time.Duration, s spec, id string) error {
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
		case nomad.IsNotFound(err):
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
func stopped(ctx context.Context, c nomad.Clients, silence time.Duration, s spec, id string) error {
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
