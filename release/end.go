package release

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/rollout"
)

// writing returns a context for recording the outcome of a release. It is valid after
// ctx has ended. Its limit is a minute after Ctrl-C or if Nomad did not answer, and
// longer otherwise.
func (r *run) writing(ctx context.Context, outcome rollout.Outcome) (context.Context, context.CancelFunc) {
	limit := time.Minute
	if ctx.Err() == nil && outcome != rollout.Unreachable {
		limit += cmp.Or(r.d.Rollout.Silence, rollout.DefaultSilence)
	}
	return context.WithTimeout(context.WithoutCancel(ctx), limit)
}

// finish ends the release by its outcome: deployed, left open, or reverted.
func (r *run) finish(ctx context.Context, res *Result, outcome rollout.Outcome) {
	wctx, cancel := r.writing(ctx, outcome)
	defer cancel()
	if err := r.journal.Flush(wctx); err != nil {
		r.lost(wctx, res, err)
		return
	}
	state, detail := stateAfter(outcome, ctx.Err() != nil, r.head.OnFailure), res.reason(outcome)
	switch {
	case state == record.Done:
		state = successState(r.head.Kind, r.journal.Services())
		if r.end(wctx, res, state, "", "") == nil {
			if state == record.Done { // secrets outlive a destroy
				r.trimSecrets(wctx, state)
			}
			r.tag(wctx)
			r.tidy(wctx)
		}
	case state == record.Interrupted && outcome != rollout.Unreachable:
		_ = r.end(wctx, res, state, "", "")
	case state == record.Reverting:
		if r.end(wctx, res, state, outcome, detail) == nil {
			r.revert(ctx, res, record.Reverted)
		}
	default:
		_ = r.end(wctx, res, state, outcome, detail)
	}
}

// stateAfter returns the state of a release after its rollout: Done, one in which
// it can be resumed, FailedState, or Reverting. A cluster that cannot be reached
// has not failed, and could not be reverted either.
func stateAfter(outcome rollout.Outcome, interrupted bool, onFailure string) record.State {
	switch {
	case outcome.OK():
		return record.Done
	case outcome == rollout.AwaitPromotion:
		return record.NeedsPromotion
	case outcome == rollout.AwaitApproval:
		return record.NeedsApproval
	case outcome == rollout.Unreachable, interrupted:
		return record.Interrupted
	case onFailure == OnFailureStop:
		return record.FailedState
	}
	return record.Reverting
}

// successState returns the state of a release of that kind that has succeeded:
// Destroyed if it is a destroy that left no job running.
func successState(kind string, lines []record.Service) record.State {
	if kind == KindDestroy && !slices.ContainsFunc(lines, record.Service.Runs) {
		return record.Destroyed
	}
	return record.Done
}

// lost ends this process's part in a release that another process has taken over, or
// whose record cannot be written. The release stays open.
func (r *run) lost(ctx context.Context, res *Result, err error) {
	_ = r.journal.Close(ctx) // it fails at once, and its writers end
	r.journal = nil
	head := *r.head
	head.Cause, head.Detail = string(rollout.Unreachable), err.Error()
	if errors.Is(err, record.ErrTakenOver) {
		head.Cause = string(rollout.Superseded)
		if now, rerr := r.d.Releases.Read(ctx, head.Number); rerr == nil && now.State == record.Paused {
			head = *now
		}
	}
	r.head = &head
	res.Release = r.head
	if head.State != record.Paused {
		r.d.warn("release %d: %s", head.Number, err)
	}
}

// end writes the state of the release, and closes its journal unless a revert follows.
// If that fails, it calls lost and returns the error.
func (r *run) end(ctx context.Context, res *Result, state record.State, cause rollout.Outcome, detail string) error {
	var err error
	if r.returning = state == record.Reverting && !r.returning; !r.returning {
		err = r.journal.Close(ctx)
	}
	if err == nil {
		err = r.save(ctx, func(h *record.Release) {
			h.State, h.Cause, h.Detail = state, string(cause), detail
			if !state.Open() {
				h.Ended = time.Now().UTC()
			}
		})
	}
	if err != nil {
		r.lost(ctx, res, err)
		return err
	}
	res.Release = r.head
	r.d.emitRelease(EventRelease, r.head)
	return nil
}

// save changes the head, if it is still ours. It reads the head only if another
// process has written it: to approve a wave, or to take the release over.
func (r *run) save(ctx context.Context, change func(*record.Release)) error {
	f := change
	if also := r.withNext; also != nil {
		f = func(h *record.Release) { also(h); change(h) }
	}
	return r.persist(ctx, func(ctx context.Context) error {
		head := *r.head
		head.Waves = slices.Clone(head.Waves)
		f(&head)
		err := r.d.Releases.Save(ctx, &head)
		if err == nil {
			r.head, r.withNext = &head, nil
		}
		if !errors.Is(err, record.ErrTakenOver) {
			return err
		}
		now, err := r.d.Releases.Change(ctx, r.head.Number, func(h *record.Release) error {
			if h.Owner != r.head.Owner {
				return record.ErrTakenOver
			}
			f(h)
			return nil
		})
		if err == nil {
			r.head, r.withNext = now, nil
		}
		return err
	})
}

// tagName is the version tag by which Nomad's own UI shows a release.
func tagName(n int) string { return fmt.Sprintf("drover-r%d", n) }

// tag names the versions that the release made (PUT
// /v1/job/:id/versions/:tag/tag). It is a convenience: what fails is said and
// no more.
func (r *run) tag(ctx context.Context) {
	lines := r.journal.Services()
	err := parallel.Each(len(lines), 8, func(i int) error {
		l := lines[i]
		if l.Step != record.StepDone {
			return nil
		}
		c := r.plan.clusters[l.Target]
		if version, known := r.version(i, l.Index); known {
			return c.Tag(ctx, l, version, tagName(r.head.Number), r.head.Message)
		}
		job, err := c.Job(ctx, l)
		switch {
		case err != nil:
			return err
		case job == nil && l.Completed != nil:
			return nil // Nomad collected it
		case job == nil:
			return fmt.Errorf("job %q is not there any more", l.JobID)
		case nomad.Deref(job.JobModifyIndex) != l.Index:
			return nil
		}
		return c.Tag(ctx, l, nomad.Deref(job.Version), tagName(r.head.Number), r.head.Message)
	})
	if err != nil {
		r.d.warn("release %d is not tagged in Nomad everywhere: %s", r.head.Number, err)
	}
}

// tidy removes releases that are too old, and their tags, and secrets that older
// drovers recorded in clear.
func (r *run) tidy(ctx context.Context) {
	if !r.head.IsScrubbed(r.plan.req.SecretVariables) {
		if _, err := r.d.Releases.Scrub(ctx, r.plan.req.SecretVariables); err != nil {
			r.d.warn("secrets that an older drover recorded in clear are not all removed: %s", err)
		}
	}
	most := cmp.Or(r.d.keep(r.head), DefaultKeep)
	if r.head.Number <= most { // numbers begin with 1: there are not more releases
		return
	}
	removed, err := r.d.Releases.Keep(ctx, most)
	if err != nil {
		r.d.warn("old releases are not all removed: %s", err)
	}
	for _, old := range removed {
		_ = parallel.Each(len(old.Services), 8, func(i int) error { // a tag that is not there is no loss
			l := old.Services[i]
			if c, ok := r.plan.clusters[l.Target]; ok && l.Step == record.StepDone {
				_ = c.Untag(ctx, l, tagName(old.Number))
			}
			return nil
		})
	}
}
