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
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
)

// changed says that the release has, or may have, changed the job.
func changed(l record.Service) bool {
	switch l.Step {
	case record.StepPending, record.StepUnchanged, record.StepReverted:
		return false
	}
	return true
}

// back brings what the release changed to what was there before, as far as
// its policy says, and ends it: good is its state when all of it is back.
//
// What was pruned comes first, in the order of dependencies; then jobs get
// their former spec, each after everything that depends on it; then jobs that
// were not there are stopped. A job that somebody else has changed since is
// theirs and stays.
func (r *run) back(ctx context.Context, res *Result, good record.State) {
	var again, former, stops []int
	lines := r.journal.Services()
	for i, l := range lines {
		switch {
		case !changed(l):
		case r.head.OnFailure == OnFailureRevertService && good == record.Reverted && l.Step != record.StepFailed && l.Step != record.StepReverting:
		case l.Change == record.ChangeStop && l.BeforeStopped:
			r.stopped(i) // nothing of it ran
		case l.Change == record.ChangeStop:
			again = append(again, i)
		case l.Before == "" || l.BeforeStopped:
			stops = append(stops, i)
		default:
			former = append(former, i)
		}
	}
	begun := time.Now()
	var out rollout.Result
	out.Services = append(out.Services, r.restore(ctx, again, false)...)
	out.Services = append(out.Services, r.restore(ctx, former, true)...)
	out.Services = append(out.Services, r.stop(ctx, stops)...)
	out.Elapsed = time.Since(begun)
	res.Back = &out

	cause, detail := rollout.Outcome(r.head.Cause), r.head.Detail
	outcome := out.Outcome()
	wctx, cancel := r.writing(ctx, outcome)
	defer cancel()
	var left string // a job that is not back
	for i, l := range r.journal.Services() {
		if (slices.Contains(again, i) || slices.Contains(former, i) || slices.Contains(stops, i)) && l.Step != record.StepReverted && l.Outcome != string(rollout.Superseded) {
			left = fmt.Sprintf("%s: %s", l.Name, l.Detail)
		}
	}
	switch {
	case outcome.OK() && r.head.OnFailure == OnFailureRevertService && good == record.Reverted:
		_ = r.end(wctx, res, record.FailedState, cause, detail)
	case outcome.OK():
		if r.end(wctx, res, good, cause, detail) == nil {
			r.trimSecrets(wctx, good)
		}
	case ctx.Err() != nil || left != "":
		// Still on its way back: resume and abort go on with that.
		if cause == "" && ctx.Err() == nil {
			cause = outcome // given up, not failed: this is what keeps it
		}
		_ = r.end(wctx, res, record.Reverting, cause, left)
	case outcome == rollout.Superseded:
		// Everything is back but what is somebody else's now.
		_ = r.end(wctx, res, good, outcome, (&Result{Result: out}).reason(outcome))
	default:
		_ = r.end(wctx, res, record.RevertFailed, outcome, "back, but not healthy: "+(&Result{Result: out}).reason(outcome))
	}
}

// standing is how a job is now, seen from its line.
type standing int

const (
	atSpec    standing = iota // what the release registered
	atBefore                  // what was there before
	elsewhere                 // something else: it is somebody else's
)

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
	c := r.plan.clients[l.Target]
	job, _, err := c.Nomad.Jobs().Info(l.JobID, query(ctx, l))
	if err != nil && !nomad.IsNotFound(err) {
		return elsewhere, fmt.Errorf("reading job %q: %w", l.JobID, err)
	}
	there := err == nil
	stopped := there && deref(job.Stop)
	index := uint64(0)
	if there {
		index = deref(job.JobModifyIndex)
	}
	switch {
	case there && l.Index > 0 && index == l.Index && l.Step != record.StepReverting:
		return atSpec, nil
	case index == l.Planned && l.Step != record.StepPruning:
		return atBefore, nil // nothing has arrived
	case !there && (l.Change == record.ChangeStop || l.Step == record.StepSubmitting):
		return atSpec, nil // gone: pruned by us, or purged by us to be created again
	case !there && l.Before == "":
		return atBefore, nil
	case !there && l.Completed != nil && l.Completed.Spec == l.Spec:
		return atSpec, nil // it ran to its end, and Nomad collected it
	case !there:
		return elsewhere, nil
	case stopped && (l.Change == record.ChangeStop || l.Before == "" && l.Step == record.StepReverting || l.Step == record.StepSubmitting):
		return atSpec, nil // on its way to be purged
	case stopped && l.BeforeStopped:
		return atBefore, nil
	}
	for _, try := range []struct {
		digest string
		is     standing
	}{{l.Before, atBefore}, {l.Spec, atSpec}} {
		if try.digest == "" || stopped {
			continue
		}
		j, err := r.spec(ctx, try.digest)
		if err != nil {
			return elsewhere, err
		}
		same, _, err := rollout.Same(ctx, c, j.Job)
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

func readSpec(ctx context.Context, releases *record.Releases, digest string) (render.Job, error) {
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
	_ = each(len(which), func(n int) error {
		l := lines[which[n]]
		st, err := r.standing(ctx, l)
		var j render.Job
		if err == nil && st != elsewhere {
			j, err = r.spec(ctx, l.Before)
		}
		if err != nil || st == elsewhere {
			results[n] = r.stays(ctx, which[n], l, err)
			return nil
		}
		jobs[n] = ofLine(j, l, l.BeforeCounts)
		if released[n] = l.Counts; st == atBefore {
			released[n] = l.BeforeCounts
		}
		return nil
	})
	byTarget := map[string][]render.Job{}
	at := map[string][]int{} // where the jobs of byTarget are in which
	for n, i := range which {
		if results[n] == nil {
			t := lines[i].Target
			byTarget[t], at[t] = append(byTarget[t], jobs[n]), append(at[t], n)
		}
	}
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
					results[n] = r.stays(ctx, which[n], lines[which[n]], err)
				case refused[i] != nil:
					results[n] = r.stays(ctx, which[n], lines[which[n]], refused[i])
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

// restoreTarget registers the former specs of the jobs of a target. It returns
// the results of those that Nomad takes, and why it refuses each of the others.
func (r *run) restoreTarget(ctx context.Context, target string, jobs []render.Job, released func(*api.Job) map[string]int, reverse bool, at func(*api.Job) int) (rollout.Result, []error, error) {
	opts := r.d.Rollout
	opts.KeepGoing, opts.Replace, opts.Promote, opts.Released = true, true, true, released
	opts.Before = func(ctx context.Context, s rollout.Submission) error {
		if err := r.lock.held(ctx); err != nil {
			// The job is nobody else's for that: it is still to go back.
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
			l.Outcome, l.Detail = string(res.Outcome), res.Detail
			if !res.Submitted {
				l.Index = s.JobModifyIndex
			}
			// One that is there and not healthy is back all the same; of one that
			// was not followed to its end nothing is known.
			known := res.Outcome != rollout.Cancelled && res.Outcome != rollout.Unreachable && res.Outcome != rollout.AwaitPromotion
			if res.Outcome.OK() || res.Submitted && known {
				l.Step, l.Ended = record.StepReverted, time.Now().UTC()
			}
			r.complete(l, res, l.Before)
		})
	}
	plan, refused, err := r.prepareEach(ctx, jobs, func(ctx context.Context, jobs []render.Job) (*rollout.Plan, error) {
		return rollout.Prepare(ctx, r.plan.clients[target], jobs, opts)
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

// stays is the result of a job that does not go back.
func (r *run) stays(ctx context.Context, i int, l record.Service, err error) *rollout.ServiceResult {
	out := &rollout.ServiceResult{Service: l.Name, JobID: l.JobID, Outcome: rollout.Superseded, Detail: "not brought back: somebody else has changed the job"}
	switch {
	case ctx.Err() != nil:
		out.Outcome, out.Detail = rollout.Cancelled, "not brought back"
	case err != nil && rollout.Unanswered(err):
		out.Outcome, out.Detail = rollout.Unreachable, "not brought back: "+err.Error()
	case err != nil:
		out.Outcome, out.Detail = rollout.Failed, "not brought back: "+err.Error()
	}
	r.journal.Note(i, func(l *record.Service) { l.Outcome, l.Detail = string(out.Outcome), out.Detail })
	return out
}

// stop stops the jobs that were not there, or stopped, before the release.
func (r *run) stop(ctx context.Context, which []int) []rollout.ServiceResult {
	lines := r.journal.Services()
	results := make([]*rollout.ServiceResult, len(which))
	_ = each(len(which), func(n int) error {
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
			results[n] = r.stays(ctx, i, l, err)
		case st == atSpec && l.BeforeStopped:
			if err := r.persist(ctx, func(ctx context.Context) error { return r.stopAgain(ctx, l) }); err != nil {
				results[n] = r.stays(ctx, i, l, err)
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
	byTarget := map[string][]render.Job{}
	at := map[string][]int{} // where the jobs of byTarget are in which
	for n, i := range which {
		if results[n] == nil {
			t := lines[i].Target
			byTarget[t], at[t] = append(byTarget[t], named(lines[i])), append(at[t], n)
		}
	}
	for target, jobs := range byTarget {
		_ = rollout.Destroy(ctx, r.plan.clients[target], jobs, r.d.Rollout, func(ds rollout.Destroyed) {
			n := at[target][ds.Index]
			l := lines[which[n]]
			if ds.Err != nil {
				results[n] = r.stays(ctx, which[n], l, ds.Err)
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

// stopAgain leaves a job as the stopped one that it was.
func (r *run) stopAgain(ctx context.Context, l record.Service) error {
	j, err := r.spec(ctx, l.Before)
	if err != nil {
		return err
	}
	job := *j.Job
	stop := true
	job.Stop = &stop
	c := r.plan.clients[l.Target]
	if _, _, err := c.Nomad.Jobs().Register(&job, write(ctx, l)); err != nil {
		return fmt.Errorf("registering the stopped job %q: %w", l.JobID, err)
	}
	return rollout.PurgeChildren(ctx, c, &job, r.d.Rollout)
}

// reversible says that every job that a plan writes is there already, so that
// it can go from dependants to what they depend on. A job that has to be
// created needs what it depends on first.
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
