package schedule

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad/variables"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// Outcomes of a check, beside those of a rollout.
const (
	InSync  = "in-sync"
	Drifted = "drifted"
)

// Fire performs or skips one run of the schedule name, and records its outcome. The
// returned run has every failure of the action; the error is not nil only if the run
// could not be read or recorded. job is the ID of the job that Nomad made for this run,
// "" outside of Nomad. unable, if not nil, is the reason why the run can do nothing, such
// as a failed login.
func Fire(ctx context.Context, d *release.Deployer, store *record.Schedules, name, job string, now func() time.Time, unable error) (record.Run, error) {
	s, err := store.Read(ctx, name)
	if err != nil {
		return record.Run{}, err
	}
	run := record.Run{At: now().UTC(), Job: job}
	base, open, why, err := mayRun(ctx, d, s, now())
	if err == nil && why == "" {
		err = unable
	}
	switch {
	case err != nil:
		run.Outcome, run.Detail = "error", err.Error()
	case why != "":
		run.Base, run.Skipped, run.OK, run.Outcome, run.Detail = base, true, true, "skipped", why
	case open != nil:
		run.Base = base
		resume(ctx, d, s, open, &run)
	default:
		run.Base = base
		act(ctx, d, s, &run, now)
	}
	run.Elapsed = now().Sub(run.At)
	wctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	_, err = store.Change(wctx, name, func(s *record.Schedule) { s.Runs = append(s.Runs, run) })
	return run, err
}

// mayRun returns why a schedule does not run now, "" if it does; the number of the
// newest good release; and the open release of this schedule that has to be resumed
// instead, nil if there is none. The window only limits the start of a release: an open
// one is resumed at any time, since it blocks every deploy.
func mayRun(ctx context.Context, d *release.Deployer, s *record.Schedule, now time.Time) (base int, open *record.Release, why string, err error) {
	if s.Paused != "" {
		return 0, nil, "paused " + s.Paused, nil
	}
	heads, err := d.Releases.List(ctx)
	if err != nil {
		return 0, nil, "", err
	}
	if len(heads) > 0 && heads[0].State == record.Destroyed {
		return 0, nil, fmt.Sprintf("release %d has destroyed the stack", heads[0].Number), nil
	}
	for _, h := range heads {
		if h.State == record.Done {
			base = h.Number
			break
		}
	}
	if len(heads) > 0 && release.Interrupted(heads[0], s.Name) {
		return base, heads[0], "", nil
	}
	if !s.MayStart(now) {
		return 0, nil, fmt.Sprintf("outside of its window: %s in %s", Window(&s.Schedule), s.TimeZone), nil
	}
	if len(heads) > 0 && heads[0].State.Open() {
		return 0, nil, fmt.Sprintf("release %d is %s", heads[0].Number, heads[0].State), nil
	}
	if base == 0 {
		return 0, nil, "there is no release that is deployed", nil
	}
	if s.Action == stack.ScheduleCheck {
		return base, nil, "", nil
	}
	// A release that failed would fail again: one attempt is enough.
	for i := len(s.Runs) - 1; i >= 0; i-- {
		if last := s.Runs[i]; !last.Skipped && !passing(last) {
			if !last.OK && last.Base == base {
				return base, nil, fmt.Sprintf("the same failed at %s (%s), and release %d has not changed since; drover schedule resume tries again",
					last.At.Format(time.RFC3339), last.Outcome, base), nil
			}
			break
		}
	}
	return base, nil, "", nil
}

// passing reports whether a run ended early for a reason that does not depend on
// the release, such as a Nomad that did not answer.
func passing(r record.Run) bool {
	return !r.OK && (r.Base == 0 || r.Outcome == string(rollout.Unreachable) || r.Outcome == string(rollout.Cancelled))
}

// failure is the outcome of a run that an error has ended.
func failure(ctx context.Context, err error) string {
	switch {
	case ctx.Err() != nil:
		return string(rollout.Cancelled)
	case rollout.Unanswered(err):
		return string(rollout.Unreachable)
	}
	var nowhere *rollout.Unplaceable
	if errors.As(err, &nowhere) {
		return string(rollout.PlacementFailed)
	}
	return "error"
}

// act performs the action of a schedule and completes the run.
func act(ctx context.Context, d *release.Deployer, s *record.Schedule, run *record.Run, now func() time.Time) {
	var res release.Result
	err := func() error {
		var req release.Request
		var err error
		switch s.Action {
		case stack.ScheduleRedeploy:
			req, err = d.Redeploy(ctx, s.Services, now())
		case stack.ScheduleDeploy:
			req, err = d.LastGood(ctx)
		case stack.ScheduleCheck:
			drift, _, err := d.Drift(ctx)
			run.Outcome, run.OK = InSync, true
			for _, w := range drift {
				if w.Kind != release.DriftNone {
					run.Outcome, run.OK = Drifted, false
					run.Detail += fmt.Sprintf("%s %s; ", w.Service, w.Kind)
				}
			}
			return err
		default:
			err = fmt.Errorf("this drover does not know the action %q", s.Action)
		}
		if err != nil {
			return err
		}
		req.Message = "schedule " + s.Name
		req.Unattended = &release.Unattended{Schedule: s.Name, SkipApproval: s.SkipApproval, GateCommand: s.GateCommand}
		d.Operator = attendant{}
		if res, err = d.Make(ctx, req); err == nil {
			err = promote(ctx, d, s, &res)
		}
		return err
	}()
	settle(ctx, s, run, res, err)
}

// resume finishes the release that an earlier run of the schedule left open, because
// that run was stopped or Nomad did not answer. It takes the lock, so that it does not
// change a release that another process makes.
func resume(ctx context.Context, d *release.Deployer, s *record.Schedule, open *record.Release, run *record.Run) {
	res, err := d.ResumeOwn(ctx, s.Name)
	if err == nil {
		err = promote(ctx, d, s, &res)
	}
	settle(ctx, s, run, res, err)
	if run.Detail == "" {
		run.Detail = fmt.Sprintf("resumed release %d, which was %s", open.Number, open.State)
	}
}

// promote promotes canaries if the schedule allows it, wave after wave.
func promote(ctx context.Context, d *release.Deployer, s *record.Schedule, res *release.Result) error {
	for s.SkipApproval && res.Release != nil && res.Outcome() == rollout.AwaitPromotion {
		next, err := d.Resume(ctx, true)
		if err != nil {
			return err
		}
		*res = next
	}
	return nil
}

// settle completes a run with the result of its release.
func settle(ctx context.Context, s *record.Schedule, run *record.Run, res release.Result, err error) {
	var open *release.OpenError
	var notOpen *release.NotOpenError
	var attended *release.AttendedError
	if errors.As(err, &attended) {
		run.Base = 0 // nothing was begun: the next run tries again, as the schedule may be mended
	}
	switch {
	case errors.Is(err, variables.ErrLocked), errors.As(err, &open), errors.As(err, &notOpen):
		run.Skipped, run.OK, run.Outcome, run.Detail = true, true, "skipped", err.Error()
	case err != nil:
		run.OK, run.Outcome, run.Detail = false, failure(ctx, err), err.Error()
	case s.Action != stack.ScheduleCheck:
		outcome := res.Outcome()
		run.Outcome, run.OK = string(outcome), outcome.OK()
		if res.Release != nil {
			run.Release = res.Release.Number
			run.Detail = res.Release.Detail
		}
		for _, svc := range res.Services {
			if !svc.Outcome.OK() && svc.Outcome != rollout.Skipped {
				run.Detail = fmt.Sprintf("%s: %s", svc.Service, svc.Outcome)
				break
			}
		}
	}
}

// attendant is the operator of a release that a schedule makes.
type attendant struct{ release.Consent }

// Agree returns an error for each job that has to be purged to be what it
// was, and for what needs a person or a file: a schedule has neither, and resuming
// a release takes what it does as allowed.
func (attendant) Agree(_ context.Context, p *release.Plan) error {
	errs := []error{p.CheckAttended(), p.Placeable()}
	for _, r := range p.Rollouts() {
		errs = append(errs, r.Allowed())
	}
	return errors.Join(errs...)
}

// Window is the window of a schedule as it is written, "" for any time.
func Window(s *stack.Schedule) string {
	if s.WindowFor == 0 {
		return ""
	}
	clock := func(d time.Duration) string {
		d %= 24 * time.Hour
		return fmt.Sprintf("%02d:%02d", int(d.Hours()), int(d.Minutes())%60)
	}
	return clock(s.WindowFrom) + "-" + clock(s.WindowFrom+s.WindowFor)
}

// Await waits for a forced run of a schedule: until the run is recorded, or
// until its job ends without a record. s is the schedule before the run.
func Await(ctx context.Context, c *api.Client, store *record.Schedules, s *record.Schedule, evalID string) (record.Run, error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	jobID := ""
	var failed error // told after one more look: a run that failed remembers that first
	for {
		if jobID == "" {
			if eval, _, err := c.Evaluations().Info(evalID, (&api.QueryOptions{}).WithContext(ctx)); err == nil {
				jobID = eval.JobID
			}
		}
		now, err := store.Read(ctx, s.Name)
		if err != nil {
			return record.Run{}, err
		}
		if run := runOf(jobID, s.Runs, now.Runs); run != nil {
			return *run, nil
		}
		if failed != nil {
			return record.Run{}, failed
		}
		if jobID != "" {
			if failed = ended(ctx, c, jobID); failed != nil {
				continue
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return record.Run{}, context.Cause(ctx)
		}
	}
}

// runOf returns the run of a job, nil before there is one. A run of an older drover has
// no job: then, and if the job is unknown, it returns the newest run that was not there
// before. It does not compare times, since each node has its own clock.
func runOf(jobID string, before, now []record.Run) *record.Run {
	for i := range now {
		if now[i].Job != "" && now[i].Job == jobID {
			return &now[i]
		}
	}
	if len(now) == 0 {
		return nil
	}
	newest := &now[len(now)-1]
	if newest.Job != "" && jobID != "" || len(before) > 0 && newest.At.Equal(before[len(before)-1].At) {
		return nil
	}
	return newest
}

// ended returns an error if the job has failed without a record.
func ended(ctx context.Context, c *api.Client, jobID string) error {
	allocs, _, err := c.Jobs().Allocations(jobID, false, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("reading the allocations of job %q: %w", jobID, err)
	}
	for _, a := range allocs {
		if a.ClientStatus != api.AllocClientStatusFailed {
			continue
		}
		for _, st := range a.TaskStates {
			if why := rollout.TaskFailed(st); why != "" {
				return fmt.Errorf("drover did not do its work in the cluster: %s; see nomad alloc logs -stderr %.8s", why, a.ID)
			}
		}
		return fmt.Errorf("drover did not run in the cluster: allocation %.8s of job %s failed", a.ID, jobID)
	}
	return nil
}
