package deploy

import (
	"context"
	"fmt"
	"time"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
)

// Recorded names a stack that is worked on from its record, without its source.
type Recorded struct {
	Home        Home
	Stack       string // its name, or where its source is; see StackName
	Environment string // see EnvironmentName
	Limits      Limits
	Person      Person // nil without a terminal or another way to ask
	Events      func(Event)
}

// run opens the record of the stack and calls f.
func (r *Recorded) run(ctx context.Context, f func(context.Context, *maker, *End) error) (Result, error) {
	return run(ctx, r.Events, r.Limits.Unreachable, func(ctx context.Context, s *stream, end *End) error {
		m, err := s.recordedMaker(ctx, &r.Home, &r.Limits, r.Person, r.Stack, r.Environment)
		if err != nil {
			return err
		}
		m.names(end)
		return f(ctx, m, end)
	})
}

// renew makes a release out of the record of others.
func (m *maker) renew(ctx context.Context, end *End, opts *NewRelease, replace bool, request func(context.Context) (release.Request, error)) error {
	m.d.Keep, m.replace, m.d.Rollout.Replace = opts.Keep, replace, replace
	req, err := request(ctx)
	if err != nil {
		return err
	}
	opts.apply(&req)
	req.Prune = opts.Prune
	res, err := m.d.Make(ctx, req)
	if err != nil {
		return err
	}
	return m.settle(ctx, res, end)
}

func (o *NewRelease) apply(req *release.Request) {
	req.Message, req.OnFailure, req.TakeOver, req.AllowUnplaceable = o.Message, o.OnFailure, o.TakeOver, o.AllowUnplaceable
	req.Unattended = o.unattended
}

// Resume continues with a release that was interrupted, paused, or waits: forward,
// or back when it was being reverted.
type Resume struct {
	Recorded
	Promote bool // promote the canaries that wait

	schedule string // only a release that this schedule made and that was interrupted
}

// Run resumes. It returns a *release.NotOpenError if no release is open.
func (v *Resume) Run(ctx context.Context) (Result, error) {
	return v.run(ctx, v.with)
}

func (v *Resume) with(ctx context.Context, m *maker, end *End) error {
	resume := func(ctx context.Context) (Result, error) { return m.d.Resume(ctx, v.Promote) }
	if v.schedule != "" {
		resume = func(ctx context.Context) (Result, error) { return m.d.ResumeOwn(ctx, v.schedule) }
	}
	res, err := resume(ctx)
	if err != nil {
		return err
	}
	return m.settle(ctx, res, end)
}

// Approve approves the wave that a release waits with. The drover that waits goes
// on; where none does, Run resumes the release.
type Approve struct{ Recorded }

// Run approves. Where another process goes on, the result is empty, and the end has
// the outcome Approved. It returns a *release.NoApprovalError if no wave waits.
func (v *Approve) Run(ctx context.Context) (Result, error) {
	return v.run(ctx, func(ctx context.Context, m *maker, end *End) error {
		wave, holder, err := m.d.ApproveWave(ctx, by(m.d.Holder))
		if err != nil {
			return err
		}
		if holder != nil {
			end.Outcome, end.Wave, end.Holder = Approved, wave, holder
			return nil
		}
		return (&Resume{}).with(ctx, m, end)
	})
}

// Abort gives up the release that is open and restores what it changed.
type Abort struct{ Recorded }

// Run aborts. It returns a *release.NotOpenError if no release is open.
func (v *Abort) Run(ctx context.Context) (Result, error) {
	return v.run(ctx, func(ctx context.Context, m *maker, end *End) error {
		res, err := m.d.Abort(ctx)
		if err != nil {
			return err
		}
		return m.settle(ctx, res, end)
	})
}

// Rollback makes a release out of an earlier one.
type Rollback struct {
	Recorded
	New NewRelease
	To  int // the number of the release; 0 is the newest good one before what runs
}

// Run rolls back. Jobs that Nomad cannot update in place are recreated.
func (v *Rollback) Run(ctx context.Context) (Result, error) {
	return v.run(ctx, func(ctx context.Context, m *maker, end *End) error {
		return m.renew(ctx, end, &v.New, true, func(ctx context.Context) (release.Request, error) { return m.d.Rollback(ctx, v.To) })
	})
}

// Plan returns what Run would do. It writes nothing.
func (v *Rollback) Plan(ctx context.Context) (*release.Plan, error) {
	return v.plan(ctx, &v.New, true, func(ctx context.Context, d *release.Deployer) (release.Request, error) { return d.Rollback(ctx, v.To) })
}

// Redeploy replaces every allocation by one of the same job.
type Redeploy struct {
	Recorded
	New      NewRelease
	Services []string // all that keep running when empty
}

// Run redeploys what the last good release left.
func (v *Redeploy) Run(ctx context.Context) (Result, error) {
	return v.run(ctx, v.with)
}

func (v *Redeploy) with(ctx context.Context, m *maker, end *End) error {
	return m.renew(ctx, end, &v.New, false, func(ctx context.Context) (release.Request, error) {
		return m.d.Redeploy(ctx, v.Services, time.Now())
	})
}

// Plan returns what Run would do. It writes nothing.
func (v *Redeploy) Plan(ctx context.Context) (*release.Plan, error) {
	return v.plan(ctx, &v.New, false, func(ctx context.Context, d *release.Deployer) (release.Request, error) {
		return d.Redeploy(ctx, v.Services, time.Now())
	})
}

// plan plans the release that renew would make.
func (r *Recorded) plan(ctx context.Context, opts *NewRelease, replace bool, request func(context.Context, *release.Deployer) (release.Request, error)) (*release.Plan, error) {
	clients, releases, err := r.Home.Releases(ctx, r.Stack, r.Environment)
	if err != nil {
		return nil, err
	}
	d := r.Home.Deployer(&r.Limits, clients, releases.Stack(), releases.Environment())
	d.Rollout.Replace = replace
	if err := d.HideSecrets(ctx); nomad.IsForbidden(err) { // which values are secret cannot be known: show none
		d.Rollout.Redact = HideAll
	} else if err != nil {
		return nil, err
	}
	req, err := request(ctx, d)
	if err != nil {
		return nil, err
	}
	opts.apply(&req)
	req.Prune = opts.Prune
	return d.Plan(ctx, req)
}

// Pause stops the release that is being made where it is.
type Pause struct {
	Home        Home
	Stack       string // see Recorded
	Environment string
}

// Run pauses and returns the release. It returns a *PauseError if some of its
// deployments in Nomad go on, and a *release.NotOpenError if none is being made.
func (v *Pause) Run(ctx context.Context) (*record.Release, error) {
	clients, r, err := v.Home.Releases(ctx, v.Stack, v.Environment)
	if err != nil {
		return nil, err
	}
	d := v.Home.Deployer(&Limits{}, clients, r.Stack(), r.Environment())
	head, err := d.Pause(ctx, by(d.Holder))
	if err != nil && head != nil {
		return head, &PauseError{Release: head, Err: err}
	}
	return head, err
}

// PauseError reports that a release is paused and that some of its deployments in
// Nomad are not.
type PauseError struct {
	Release *record.Release
	Err     error
}

func (e *PauseError) Error() string {
	return fmt.Sprintf("release %d is paused, but not all of its deployments in Nomad: %s; pause it again", e.Release.Number, e.Err)
}

func (e *PauseError) Unwrap() error { return e.Err }

// by names a holder in a record.
func by(h record.Holder) string { return h.User + "@" + h.Host }
