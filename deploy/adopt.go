package deploy

import (
	"context"
	"time"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
)

// Adopt records the jobs that run under the IDs of a stack as a release of it, with
// their present specs. No job is changed or restarted. A job that does not exist is
// left to the next deploy.
type Adopt struct {
	Home     Home
	Source   Source
	Message  string        // why, for the record
	LockWait time.Duration // how long to wait for another holder of the lock; 0 for not at all
	// Confirm reports whether to record. It gets what the next deploy will change. If
	// it reports false, Run returns ErrDeclined. Nil means yes.
	Confirm func(context.Context, *PlanResult) (bool, error)
}

// AdoptResult is what was adopted.
type AdoptResult struct {
	Plan    *PlanResult     // what the next deploy will change
	Release *record.Release // nil if there was nothing to adopt
	// Owned reports that all jobs that run belonged to the stack already.
	Owned bool
}

// Run adopts. It returns a *release.OpenError if a release is open, and a
// *release.ForeignError beside the plan if another stack or environment owns a job.
func (v Adopt) Run(ctx context.Context) (AdoptResult, error) {
	plan := Plan{Home: v.Home, Source: v.Source, message: v.Message}
	p, err := plan.Run(ctx)
	if err != nil {
		return AdoptResult{}, err
	}
	if last := p.Plan.Last(); last != nil && last.State.Open() {
		return AdoptResult{}, &release.OpenError{Release: last}
	}
	out := AdoptResult{Plan: p}
	if err := p.Plan.Conflict(); err != nil {
		return out, err
	}
	if out.Owned = p.Plan.Last() != nil && len(p.Plan.Foreign()) == 0; out.Owned {
		return out, nil
	}
	if v.Confirm != nil {
		yes, err := v.Confirm(ctx, p)
		if err != nil {
			return out, err
		}
		if !yes {
			return out, ErrDeclined
		}
	}
	clients, err := v.Home.Connect(ctx, false)
	if err != nil {
		return out, err
	}
	d := v.Home.Deployer(&Limits{LockWait: v.LockWait}, clients, p.Stack.Name, p.Stack.Environment)
	out.Release, err = d.Adopt(ctx, p.Plan)
	return out, err
}
