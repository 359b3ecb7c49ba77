package release

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
)

// isChanged reports whether the release has changed the job, or may have.
func isChanged(l record.Service) bool {
	switch l.Step {
	case record.StepPending, record.StepUnchanged, record.StepReverted:
		return false
	}
	return true
}

// reversal is what a revert does with the lines of a release, by their index.
type reversal struct {
	recreate []int // pruned jobs: registered again
	restore  []int // changed jobs: registered with their former spec
	stop     []int // jobs that did not run before: stopped
	settled  []int // pruned jobs that were stopped before: nothing to do
}

// all returns the lines that have to be reverted.
func (rev reversal) all() []int { return slices.Concat(rev.recreate, rev.restore, rev.stop) }

// reversalOf returns what a revert of a release does with its lines. With
// failedOnly it reverts only the services that failed.
func reversalOf(lines []record.Service, failedOnly bool) reversal {
	var rev reversal
	for i, l := range lines {
		switch {
		case !isChanged(l):
		case failedOnly && l.Step != record.StepFailed && l.Step != record.StepReverting:
		case l.Change == record.ChangeStop && l.BeforeStopped:
			rev.settled = append(rev.settled, i)
		case l.Change == record.ChangeStop:
			rev.recreate = append(rev.recreate, i)
		case l.Before == "" || l.BeforeStopped:
			rev.stop = append(rev.stop, i)
		default:
			rev.restore = append(rev.restore, i)
		}
	}
	return rev
}

// remaining returns the last line of a reversal that is not reverted, as "SERVICE:
// DETAIL"; "" if there is none. A job that another client changed does not count.
func (rev reversal) remaining(lines []record.Service) string {
	all := rev.all()
	for i, l := range slices.Backward(lines) {
		if slices.Contains(all, i) && l.Step != record.StepReverted && l.Outcome != string(rollout.Superseded) {
			return fmt.Sprintf("%s: %s", l.Name, l.Detail)
		}
	}
	return ""
}

// ending is how a release ends.
type ending struct {
	state  record.State
	cause  rollout.Outcome
	detail string
}

// endOfRevert returns how a release ends after a revert. good is its state if
// everything is restored, and reverted is the result of the revert. remaining is
// what reversal.remaining returns.
func endOfRevert(head *record.Release, good record.State, reverted rollout.Result, remaining string, interrupted bool) ending {
	outcome, cause := reverted.Outcome(), rollout.Outcome(head.Cause)
	reason := (&Result{Result: reverted}).reason(outcome)
	switch {
	case outcome.OK() && failedOnly(head, good):
		return ending{record.FailedState, cause, head.Detail}
	case outcome.OK():
		return ending{good, cause, head.Detail}
	case interrupted || remaining != "":
		// Resume and abort continue the revert.
		if cause == "" && !interrupted {
			cause = outcome // the release was aborted: this is what keeps it open
		}
		return ending{record.Reverting, cause, remaining}
	case outcome == rollout.Superseded:
		// Everything is restored but the jobs that another client changed.
		return ending{good, outcome, reason}
	}
	return ending{record.RevertFailed, outcome, "reverted, but not healthy: " + reason}
}

// failedOnly reports whether a revert restores only the services that failed.
func failedOnly(head *record.Release, good record.State) bool {
	return head.OnFailure == OnFailureRevertService && good == record.Reverted
}

// revert restores what the release changed, as far as its policy says, and ends it.
// good is its state if everything is restored.
//
// Pruned jobs come first, in the order of dependencies; then jobs get their former
// spec, each after everything that depends on it; then jobs that did not run
// before are stopped. A job that another client has changed since stays as it is.
func (r *run) revert(ctx context.Context, res *Result, good record.State) {
	rev := reversalOf(r.journal.Services(), failedOnly(r.head, good))
	for _, i := range rev.settled {
		r.stopped(i)
	}
	begun := time.Now()
	var out rollout.Result
	out.Services = append(out.Services, r.restore(ctx, rev.recreate, false)...)
	out.Services = append(out.Services, r.restore(ctx, rev.restore, true)...)
	out.Services = append(out.Services, r.stop(ctx, rev.stop)...)
	out.Elapsed = time.Since(begun)
	res.Back = &out

	wctx, cancel := r.writing(ctx, out.Outcome())
	defer cancel()
	end := endOfRevert(r.head, good, out, rev.remaining(r.journal.Services()), ctx.Err() != nil)
	if r.end(wctx, res, end.state, end.cause, end.detail) == nil && out.Outcome().OK() && end.state == good {
		r.trimSecrets(wctx, good)
	}
}

// standing is which version of a job is registered now, seen from its line.
type standing int

const (
	atSpec    standing = iota // what the release registered
	atBefore                  // what was there before
	elsewhere                 // another client has changed it
)

// standingOf compares a job with its line by presence and index. It reports false
// where only a comparison of the specs can tell. job is nil where Nomad has none.
func standingOf(l record.Service, job *api.Job) (st standing, decided bool) {
	there := job != nil
	stopped := there && nomad.Deref(job.Stop)
	index := uint64(0)
	if there {
		index = nomad.Deref(job.JobModifyIndex)
	}
	switch {
	case there && l.Index > 0 && index == l.Index && l.Step != record.StepReverting:
		return atSpec, true
	case index == l.Planned && l.Step != record.StepPruning:
		return atBefore, true // no registration has arrived
	case !there && (l.Change == record.ChangeStop || l.Step == record.StepSubmitting):
		return atSpec, true // the release pruned it, or purged it to create it again
	case !there && l.Before == "":
		return atBefore, true
	case !there && l.Completed != nil && l.Completed.Spec == l.Spec:
		return atSpec, true // it ran to its end, and Nomad collected it
	case !there:
		return elsewhere, true
	case stopped && (l.Change == record.ChangeStop || l.Before == "" && l.Step == record.StepReverting || l.Step == record.StepSubmitting):
		return atSpec, true // it is about to be purged
	case stopped && l.BeforeStopped:
		return atBefore, true
	case stopped:
		return elsewhere, true
	}
	return elsewhere, false
}

// standing compares the job in Nomad with the line, by index where that is
// known and by a plan (POST /v1/job/:id/plan) where it is not.
func (r *run) standing(ctx context.Context, l record.Service) (st standing, err error) {
	err = r.persist(ctx, func(ctx context.Context) error {
		st, err = r.stands(ctx, l)
		return err
	})
	return st, err
}

// stands is standing, asked once.
func (r *run) stands(ctx context.Context, l record.Service) (standing, error) {
	c := r.plan.clusters[l.Target]
	job, err := c.Job(ctx, l)
	if err != nil {
		return elsewhere, err
	}
	if st, decided := standingOf(l, job); decided {
		return st, nil
	}
	for _, try := range []struct {
		digest string
		is     standing
	}{{l.Before, atBefore}, {l.Spec, atSpec}} {
		if try.digest == "" {
			continue
		}
		j, err := r.spec(ctx, try.digest)
		if err != nil {
			return elsewhere, err
		}
		same, _, err := c.Same(ctx, j.Job)
		if err != nil {
			return elsewhere, err
		}
		if same {
			return try.is, nil
		}
	}
	return elsewhere, nil
}

// spec reads a job spec from the record.
func (r *run) spec(ctx context.Context, digest string) (j render.Job, err error) {
	err = r.persist(ctx, func(ctx context.Context) error {
		j, err = readSpec(ctx, r.d.Releases, digest)
		return err
	})
	return j, err
}

func readSpec(ctx context.Context, releases Reader, digest string) (render.Job, error) {
	b, err := releases.Blob(ctx, digest)
	if err != nil {
		return render.Job{}, err
	}
	job := &api.Job{}
	if err := json.Unmarshal(b.Job, job); err != nil {
		return render.Job{}, fmt.Errorf("job spec %s is not readable: %w", digest, err)
	}
	if job.ID == nil {
		return render.Job{}, fmt.Errorf("job spec %s has no ID", digest)
	}
	return render.Job{Job: job, HCL: []byte(b.HCL), File: b.File}, nil
}

// ofLine gives a job spec the place of a line, and the counts that the stack
// asked for in it.
func ofLine(j render.Job, l record.Service, counts map[string]int) render.Job {
	j.Service, j.Target, j.DependsOn, j.Secrets = l.Name, l.Target, l.DependsOn, l.Secrets
	j.Timeout, j.PlacementTimeout = l.Timeout, l.PlacementTimeout
	if j.Counts = counts; counts == nil {
		j.Counts = map[string]int{} // an older record does not know them
	}
	return j
}

// restore registers the former specs of lines.
func (r *run) restore(ctx context.Context, which []int, reverse bool) []rollout.ServiceResult {
	lines := r.journal.Services()
	jobs := make([]render.Job, len(which))
	results := make([]*rollout.ServiceResult, len(which))
	released := make([]map[string]int, len(which)) // see rollout.Options
	_ = parallel.Each(len(which), 8, func(n int) error {
		l := lines[which[n]]
		st, err := r.standing(ctx, l)
		var j render.Job
		if err == nil && st != elsewhere {
			j, err = r.spec(ctx, l.Before)
		}
		if err != nil || st == elsewhere {
			results[n] = r.keepUnreverted(ctx, which[n], l, err)
			return nil
		}
		jobs[n] = ofLine(j, l, l.BeforeCounts)
		if released[n] = l.Counts; st == atBefore {
			released[n] = l.BeforeCounts
		}
		return nil
	})
	byTarget, at := undecidedByTarget(lines, which, results, func(n int) render.Job { return jobs[n] })
	var wg sync.WaitGroup
	for target, jobs := range byTarget {
		wg.Go(func() {
			line, counts := map[jobKey]int{}, map[jobKey]map[string]int{}
			for i, n := range at[target] {
				k := r.plan.jobKey(target, jobs[i].Job)
				line[k], counts[k] = which[n], released[n]
			}
			asked := func(job *api.Job) map[string]int { return counts[r.plan.jobKey(target, job)] }
			res, refused, err := r.restoreTarget(ctx, target, jobs, asked, reverse, func(job *api.Job) int { return line[r.plan.jobKey(target, job)] })
			rest := res.Services
			for i, n := range at[target] {
				switch {
				case err != nil:
					results[n] = r.keepUnreverted(ctx, which[n], lines[which[n]], err)
				case refused[i] != nil:
					results[n] = r.keepUnreverted(ctx, which[n], lines[which[n]], refused[i])
				default:
					results[n], rest = &rest[0], rest[1:]
				}
			}
		})
	}
	wg.Wait()
	out := make([]rollout.ServiceResult, len(results))
	for i, res := range results {
		out[i] = *res
	}
	return out
}

// undecidedByTarget returns the jobs, by target, of those lines of which that have no
// result yet, and where each of them is in which.
func undecidedByTarget(lines []record.Service, which []int, results []*rollout.ServiceResult, job func(n int) render.Job) (jobs map[string][]render.Job, at map[string][]int) {
	jobs, at = map[string][]render.Job{}, map[string][]int{}
	for n, i := range which {
		if results[n] == nil {
			t := lines[i].Target
			jobs[t], at[t] = append(jobs[t], job(n)), append(at[t], n)
		}
	}
	return jobs, at
}

// restoreTarget registers the former specs of the jobs of a target. It returns
// the results of those that Nomad takes, and why it refuses each of the others.
func (r *run) restoreTarget(ctx context.Context, target string, jobs []render.Job, released func(*api.Job) map[string]int, reverse bool, at func(*api.Job) int) (rollout.Result, []error, error) {
	opts := r.d.options()
	opts.KeepGoing, opts.Replace, opts.Promote, opts.Released = true, true, true, released
	opts.Before = func(ctx context.Context, s rollout.Submission) error {
		if err := r.lock.held(ctx); err != nil {
			// Not Superseded: the job has still to be reverted.
			return &rollout.Refusal{Outcome: rollout.Failed, Err: err}
		}
		if err := r.restoreSecrets(ctx, r.journal.Service(at(s.Job))); err != nil {
			return secretsRefusal(err)
		}
		return r.journal.Update(ctx, at(s.Job), func(l *record.Service) {
			l.Step, l.Started, l.Completed = record.StepReverting, time.Now().UTC(), nil
		})
	}
	opts.After = func(_ context.Context, s rollout.Submission, index uint64) error {
		r.journal.Note(at(s.Job), func(l *record.Service) { l.Index = index })
		return nil
	}
	opts.Done = func(_ context.Context, s rollout.Submission, res rollout.ServiceResult) {
		r.journal.Note(at(s.Job), func(l *record.Service) {
			recordReverted(l, s.JobModifyIndex, res)
			r.complete(l, res, l.Before)
		})
	}
	plan, refused, err := r.prepareEach(ctx, jobs, func(ctx context.Context, jobs []render.Job) (Rollout, error) {
		return r.plan.clusters[target].Prepare(ctx, jobs, opts)
	})
	if err != nil {
		return rollout.Result{}, nil, err
	}
	if reverse {
		plan.Reverse()
	}
	return plan.Apply(ctx, func(e rollout.Event) {
		r.d.emit(Event{Event: e, Number: r.head.Number, Back: true})
	}), refused, nil
}

// recordReverted sets the outcome and the step of a line after its former spec was
// rolled out. A job that is registered and not healthy is reverted all the same;
// one that was not followed to its end is not. index is the JobModifyIndex that the
// plan saw.
func recordReverted(l *record.Service, index uint64, res rollout.ServiceResult) {
	l.Outcome, l.Detail = string(res.Outcome), res.Detail
	if !res.Submitted {
		l.Index = index
	}
	followed := res.Outcome != rollout.Cancelled && res.Outcome != rollout.Unreachable && res.Outcome != rollout.AwaitPromotion
	if res.Outcome.OK() || res.Submitted && followed {
		l.Step, l.Ended = record.StepReverted, time.Now().UTC()
	}
}

// keepUnreverted records that a job is not reverted, because of err or because another
// client has changed it, and returns its result.
func (r *run) keepUnreverted(ctx context.Context, i int, l record.Service, err error) *rollout.ServiceResult {
	out := unreverted(l, err, ctx.Err() != nil)
	r.journal.Note(i, func(l *record.Service) { l.Outcome, l.Detail = string(out.Outcome), out.Detail })
	return &out
}

// unreverted returns the result of a job that is not reverted. err is nil if
// another client has changed it.
func unreverted(l record.Service, err error, interrupted bool) rollout.ServiceResult {
	out := rollout.ServiceResult{Service: l.Name, JobID: l.JobID, Outcome: rollout.Superseded, Detail: "not reverted: another client has changed the job"}
	switch {
	case interrupted:
		out.Outcome, out.Detail = rollout.Cancelled, "not reverted"
	case err != nil && rollout.Unanswered(err):
		out.Outcome, out.Detail = rollout.Unreachable, "not reverted: "+err.Error()
	case err != nil:
		out.Outcome, out.Detail = rollout.Failed, "not reverted: "+err.Error()
	}
	return out
}

// stop stops the jobs that were not there, or stopped, before the release.
func (r *run) stop(ctx context.Context, which []int) []rollout.ServiceResult {
	lines := r.journal.Services()
	results := make([]*rollout.ServiceResult, len(which))
	_ = parallel.Each(len(which), 8, func(n int) error {
		i := which[n]
		l := lines[i]
		st, err := r.standing(ctx, l)
		if err == nil && st == atSpec {
			if err = r.lock.held(ctx); err == nil {
				err = r.journal.Update(ctx, i, func(l *record.Service) { l.Step, l.Started = record.StepReverting, time.Now().UTC() })
			}
		}
		switch {
		case err != nil || st == elsewhere:
			results[n] = r.keepUnreverted(ctx, i, l, err)
		case st == atSpec && l.BeforeStopped:
			if err := r.persist(ctx, func(ctx context.Context) error { return r.stopAgain(ctx, l) }); err != nil {
				results[n] = r.keepUnreverted(ctx, i, l, err)
				return nil
			}
			r.stopped(i)
			results[n] = &rollout.ServiceResult{Service: l.Name, JobID: l.JobID, Outcome: rollout.Deployed, Submitted: true}
		case st == atBefore:
			r.stopped(i)
			results[n] = &rollout.ServiceResult{Service: l.Name, JobID: l.JobID, Outcome: rollout.Unchanged}
		}
		return nil
	})
	byTarget, at := undecidedByTarget(lines, which, results, func(n int) render.Job { return named(lines[which[n]]) })
	for target, jobs := range byTarget {
		_ = r.plan.clusters[target].Destroy(ctx, jobs, r.d.options(), func(ds rollout.Destroyed) {
			n := at[target][ds.Index]
			l := lines[which[n]]
			if ds.Err != nil {
				results[n] = r.keepUnreverted(ctx, which[n], l, ds.Err)
				return
			}
			r.stopped(which[n])
			results[n] = &rollout.ServiceResult{Service: l.Name, JobID: l.JobID, Outcome: rollout.Deployed, Submitted: true}
			r.d.emit(Event{Event: rollout.Event{Kind: EventPruned, Target: target, Service: ds.Service, JobID: ds.JobID}, Number: r.head.Number, Back: true})
		})
	}
	out := make([]rollout.ServiceResult, len(results))
	for i, res := range results {
		out[i] = *res
	}
	return out
}

func (r *run) stopped(i int) {
	r.journal.Note(i, func(l *record.Service) { l.Step, l.Index, l.Ended = record.StepReverted, 0, time.Now().UTC() })
}

// stopAgain registers the former spec of a job that was stopped, and stops it.
func (r *run) stopAgain(ctx context.Context, l record.Service) error {
	j, err := r.spec(ctx, l.Before)
	if err != nil {
		return err
	}
	return r.plan.clusters[l.Target].RegisterStopped(ctx, l, j.Job, r.d.options())
}

// reversible reports whether every job that a plan writes exists, so that dependants
// can be written before their dependencies. A job that has to be created needs its
// dependencies first.
func reversible(parts []*Part) bool {
	return !slices.ContainsFunc(parts, func(p *Part) bool {
		for _, c := range p.changes {
			if c.Action == rollout.ActionCreate || c.Action == rollout.ActionRecreate {
				return true
			}
		}
		return false
	})
}
