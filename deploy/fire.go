package deploy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/drover-nomad/drover/nomad/variables"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/schedule"
	"github.com/drover-nomad/drover/stack"
)

// Fire does what a schedule says, or does not and records why. Stack is the name of
// the stack: a schedule has no files.
type Fire struct {
	Recorded        // Person is not asked
	Name     string // of the schedule
	JobID    string // of the job that Nomad made for this run, "" outside of Nomad
	Unable   error  // what keeps it from doing anything, mostly nil
}

// Run fires. The error reports that not even the run could be recorded; whether it
// did what it should is record.Run.OK.
func (v *Fire) Run(ctx context.Context) (record.Run, error) {
	var did record.Run
	_, err := run(ctx, v.Events, v.Limits.Unreachable, func(ctx context.Context, s *stream, end *End) error {
		clients, err := v.Home.Connect(ctx, false)
		if err != nil {
			return err
		}
		name, env := v.Stack, EnvironmentName(v.Environment)
		store := record.OpenSchedules(clients.Nomad, name, env)
		m := s.newMaker(&v.Home, &v.Limits, nil, clients, name, env)
		s.resolved(&Resolved{Stack: name, Environment: env})
		m.names(end)
		if err := m.d.HideSecrets(ctx); err != nil {
			return err
		}
		if did, err = v.fire(ctx, m, store); err != nil {
			return ScheduleError(ctx, store, err)
		}
		end.Schedule, end.Run, end.Outcome = v.Name, &did, rollout.Outcome(did.Outcome)
		return nil
	})
	return did, err
}

// fire performs or skips one run of the schedule and records it. No person may watch
// it, so the run holds every failure of the action; the error reports that the run
// could not be read or recorded.
func (v *Fire) fire(ctx context.Context, m *maker, store *record.Schedules) (record.Run, error) {
	s, err := store.Read(ctx, v.Name)
	if err != nil {
		return record.Run{}, err
	}
	begun := time.Now()
	run := record.Run{At: begun.UTC(), Job: v.JobID}
	var heads []*record.Release
	if s.Paused == "" {
		heads, err = m.d.Releases.List(ctx)
	}
	var what schedule.Decision
	if err == nil {
		what = schedule.Decide(s, heads, begun)
		run.Base = what.Base
	}
	if err == nil && what.Skip == "" {
		err = v.Unable
	}
	switch {
	case err != nil:
		run.Base, run.Outcome, run.Detail = 0, "error", err.Error()
	case what.Skip != "":
		run.Skipped, run.OK, run.Outcome, run.Detail = true, true, "skipped", what.Skip
	case what.Resume == nil && s.Action == stack.ScheduleCheck:
		var drift DriftResult
		if err := drift.compare(ctx, m.d); err != nil {
			complete(ctx, &run, Result{}, err)
		} else {
			foundDrift(&run, drift)
		}
	default:
		res, err := runRelease(ctx, m, s, what.Resume != nil)
		complete(ctx, &run, res, err)
		if open := what.Resume; open != nil && run.Detail == "" {
			run.Detail = fmt.Sprintf("resumed release %d, which was %s", open.Number, open.State)
		}
	}
	run.Elapsed = time.Since(begun)
	wctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	_, err = store.Change(wctx, v.Name, func(s *record.Schedule) { s.Runs = append(s.Runs, run) })
	return run, err
}

// runRelease makes the release of a schedule, or resumes the one that an earlier run
// left open. It promotes canaries where the schedule skips approvals.
func runRelease(ctx context.Context, m *maker, s *record.Schedule, resume bool) (Result, error) {
	m.keepsRoutes = true
	opts := NewRelease{
		Message:    "schedule " + s.Name,
		unattended: &release.Unattended{Schedule: s.Name, SkipApproval: s.SkipApproval, GateCommand: s.GateCommand},
	}
	end := &End{}
	var err error
	switch {
	case resume:
		err = (&Resume{schedule: s.Name}).with(ctx, m, end)
	case s.Action == stack.ScheduleRedeploy:
		err = (&Redeploy{New: opts, Services: s.Services}).with(ctx, m, end)
	case s.Action == stack.ScheduleDeploy:
		err = m.renew(ctx, end, &opts, false, m.d.LastGood)
	default:
		err = fmt.Errorf("this drover does not know the action %q", s.Action)
	}
	for s.SkipApproval && end.Outcome == rollout.AwaitPromotion && is[*OutcomeError](err) && !undecided(end.Result) {
		end = &End{}
		err = (&Resume{Promote: true}).with(ctx, m, end)
	}
	if end.Result == nil {
		return Result{}, err
	}
	return *end.Result, nil // which has the outcome
}

// undecided reports whether canaries wait because their gate is inconclusive. A schedule
// does not promote them.
func undecided(r *Result) bool {
	return r != nil && slices.ContainsFunc(r.Services, func(s rollout.ServiceResult) bool { return s.Undecided })
}

// complete completes a run with the result of its release, or with err.
func complete(ctx context.Context, run *record.Run, res Result, err error) {
	if is[*release.AttendedError](err) {
		run.Base = 0 // nothing was begun: the next run tries again, as the schedule may be corrected
	}
	switch {
	case errors.Is(err, variables.ErrLocked), is[*release.OpenError](err), is[*release.NotOpenError](err):
		run.Skipped, run.OK, run.Outcome, run.Detail = true, true, "skipped", err.Error()
	case err != nil:
		run.Outcome, run.Detail = failureOf(ctx, err), err.Error()
	default:
		outcome := res.Outcome()
		run.Outcome, run.OK = string(outcome), outcome.OK()
		if res.Release != nil {
			run.Release, run.Detail = res.Release.Number, res.Release.Detail
		}
		for _, svc := range res.Services {
			if !svc.Outcome.OK() && svc.Outcome != rollout.Skipped {
				run.Detail = fmt.Sprintf("%s: %s", svc.Service, svc.Outcome)
				break
			}
		}
	}
}

// foundDrift completes the run of a check.
func foundDrift(run *record.Run, drift DriftResult) {
	run.Outcome, run.OK = schedule.InSync, true
	for _, w := range drift.Services {
		if w.Kind != release.DriftNone {
			run.Outcome, run.OK = schedule.Drifted, false
			run.Detail += fmt.Sprintf("%s %s; ", w.Service, w.Kind)
		}
	}
}

// failureOf returns the outcome of a run that ended with err.
func failureOf(ctx context.Context, err error) string {
	switch {
	case ctx.Err() != nil:
		return string(rollout.Cancelled)
	case rollout.Unanswered(err):
		return string(rollout.Unreachable)
	case is[*rollout.Unplaceable](err):
		return string(rollout.PlacementFailed)
	}
	return "error"
}

// ScheduleError names the schedules that there are where err reports that one is
// not there.
func ScheduleError(ctx context.Context, store *record.Schedules, err error) error {
	if !errors.Is(err, record.ErrNoSchedule) {
		return err
	}
	var names []string
	all, _ := store.List(ctx) // it is only a hint
	for _, s := range all {
		names = append(names, s.Name)
	}
	if len(names) == 0 {
		return invalidf("%w; there is none: drover schedule apply makes those of an environment", err)
	}
	return invalidf("%w; there is %s", err, strings.Join(names, ", "))
}
