package release

import (
	"context"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
)

// prepareEach plans jobs, without those that Nomad refuses: one of them must not
// keep the others from going back. It returns the plan, nil if there is none to
// make, and what was said of each job that is left out.
func (r *run) prepareEach(ctx context.Context, jobs []render.Job, prepare func(context.Context, []render.Job) (Rollout, error)) (Rollout, []error, error) {
	var plan Rollout
	refused := make([]error, len(jobs))
	failures := 0
	err := r.persist(ctx, func(ctx context.Context) (err error) {
		plan, err = prepare(ctx, jobs)
		if err == nil || rollout.Unanswered(err) || len(jobs) == 1 {
			return err
		}
		// Nomad answers 500 for a job that it refuses, and while it has no leader.
		if failures++; failures < refusals && nomad.IsInternal(err) {
			return err
		}
		alone := make([]error, len(jobs))
		_ = parallel.Each(len(jobs), 8, func(i int) error {
			_, alone[i] = prepare(ctx, jobs[i:i+1])
			return nil
		})
		var rest []render.Job
		for i, e := range alone {
			switch {
			case e == nil:
				rest = append(rest, jobs[i])
			case rollout.Unanswered(e):
				return e
			}
		}
		if len(rest) == 0 {
			return err // it may be about Nomad, not about each of them
		}
		if plan, err = prepare(ctx, rest); err != nil {
			return err
		}
		copy(refused, alone)
		return nil
	})
	return plan, refused, err
}

// refusals is how often a plan is answered 500 before its jobs are planned one by
// one.
const refusals = 4
