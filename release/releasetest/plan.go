package releasetest

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
)

// plan is a rollout on a Cluster: one service after another.
type plan struct {
	cluster *Cluster
	opts    rollout.Options
	steps   []*step
	former  []rollout.Change
	reverse bool
}

type step struct {
	render.Job
	change rollout.Change
}

// Prepare implements release.Cluster.
func (c *Cluster) Prepare(ctx context.Context, jobs []render.Job, o rollout.Options) (release.Rollout, error) {
	p := &plan{cluster: c, opts: o}
	planned := map[nomad.JobID]bool{}
	for _, j := range jobs {
		if err := c.request(ctx, "Plan", *j.Job.ID); err != nil {
			return nil, err
		}
		planned[c.defaults.Of(j.Job)] = true
		p.steps = append(p.steps, &step{j, c.change(j)})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range o.Former {
		id := c.defaults.JobID(f.Region, f.Namespace, f.JobID)
		live := c.jobs[id]
		if live == nil || planned[id] || nomad.Deref(live.Stop) && !f.Stopped {
			continue
		}
		p.former = append(p.former, rollout.Change{
			Service: f.Service, Target: f.Target, JobID: f.JobID, Namespace: f.Namespace, Region: f.Region,
			Action: rollout.ActionStop, Running: !nomad.Deref(live.Stop), Index: *live.JobModifyIndex,
		})
	}
	return p, nil
}

// change compares a job with the registered one.
func (c *Cluster) change(j render.Job) rollout.Change {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := rollout.Change{
		Service: j.Service, Target: j.Target, JobID: *j.Job.ID, Namespace: nomad.Deref(j.Job.Namespace), Region: nomad.Deref(j.Job.Region),
		Action: rollout.ActionReplace,
	}
	live := c.jobs[c.defaults.Of(j.Job)]
	if live == nil {
		out.Action = rollout.ActionCreate
		return out
	}
	out.Index = *live.JobModifyIndex
	switch {
	case nomad.Deref(live.Stop):
		out.Action = rollout.ActionCreate
	case c.spec(live) == c.spec(j.Job):
		out.Action = rollout.ActionNone
	}
	return out
}

func (p *plan) Jobs() []render.Job {
	var out []render.Job
	for _, s := range p.steps {
		out = append(out, s.Job)
	}
	return out
}

func (p *plan) Changes() []rollout.Change {
	var out []rollout.Change
	for _, s := range p.steps {
		out = append(out, s.change)
	}
	return append(out, p.former...)
}

func (p *plan) Unchanged() bool {
	return !slices.ContainsFunc(p.steps, func(s *step) bool { return s.change.Action != rollout.ActionNone })
}

func (p *plan) Watched() []render.Job                   { return p.Jobs() }
func (p *plan) Placeable([]rollout.MissingVolume) error { return nil }
func (p *plan) Allowed() error                          { return nil }
func (p *plan) Reverse()                                { p.reverse = true }

func (p *plan) Spare(spared func(rollout.Change) bool) {
	p.former = slices.DeleteFunc(p.former, spared)
}

// ordered returns the steps so that each comes after those that it depends on, or
// before them if the plan is reversed.
func (p *plan) ordered() []int {
	var out []int
	var visit func(i int)
	visit = func(i int) {
		if slices.Contains(out, i) {
			return
		}
		for k, other := range p.steps {
			if slices.Contains(p.steps[i].DependsOn, other.Service) {
				visit(k)
			}
		}
		out = append(out, i)
	}
	for i := range p.steps {
		visit(i)
	}
	if p.reverse {
		slices.Reverse(out)
	}
	return out
}

// Apply implements release.Rollout.
func (p *plan) Apply(ctx context.Context, emit func(rollout.Event)) rollout.Result {
	results := make([]rollout.ServiceResult, len(p.steps))
	halted := false
	for _, i := range p.ordered() {
		s := p.steps[i]
		res := p.run(ctx, s, halted)
		res.Target, res.Service, res.JobID = s.Target, s.Service, s.change.JobID
		if p.opts.Done != nil {
			p.opts.Done(ctx, s.submission(), res)
		}
		halted = halted || !res.Outcome.OK() && !p.opts.KeepGoing
		results[i] = res
		if emit != nil {
			emit(rollout.Event{Kind: rollout.EventDone, Target: s.Target, Service: s.Service, JobID: s.change.JobID, Result: &res})
		}
	}
	return rollout.Result{Services: results}
}

func (s *step) submission() rollout.Submission {
	return rollout.Submission{Target: s.Target, Service: s.Service, Job: s.Job.Job, JobModifyIndex: s.change.Index}
}

func (p *plan) run(ctx context.Context, s *step, halted bool) rollout.ServiceResult {
	c := p.cluster
	switch {
	case s.change.Action == rollout.ActionNone && c.waits(s.change.JobID):
		return p.decide(ctx, s)
	case s.change.Action == rollout.ActionNone:
		return rollout.ServiceResult{Outcome: rollout.Unchanged}
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return rollout.ServiceResult{Outcome: rollout.TimedOut, Detail: "not submitted"}
	case ctx.Err() != nil:
		return rollout.ServiceResult{Outcome: rollout.Cancelled, Detail: "not submitted"}
	case halted:
		return rollout.ServiceResult{Outcome: rollout.Skipped, Detail: "not submitted"}
	}
	if p.opts.Before != nil {
		if err := p.opts.Before(ctx, s.submission()); err != nil {
			return refused(ctx, err, false)
		}
	}
	if err := c.request(ctx, "Register", s.change.JobID); err != nil {
		return refused(ctx, err, false)
	}
	c.mu.Lock()
	var index uint64
	if live := c.jobs[c.defaults.Of(s.Job.Job)]; live != nil {
		index = *live.JobModifyIndex
	}
	if index != s.change.Index {
		c.mu.Unlock()
		return rollout.ServiceResult{Outcome: rollout.Superseded, Detail: "another client changed the job"}
	}
	index = c.register(s.Job.Job)
	c.log = append(c.log, "register "+s.change.JobID)
	c.mu.Unlock()
	if p.opts.After != nil {
		if err := p.opts.After(ctx, s.submission(), index); err != nil {
			return refused(ctx, err, true)
		}
	}
	res := rollout.ServiceResult{Outcome: rollout.Deployed}
	if c.Follow != nil {
		res = c.Follow(ctx, s.Job.Job)
	}
	c.mu.Lock()
	c.canaries[s.change.JobID] = res.Outcome == rollout.AwaitPromotion
	c.mu.Unlock()
	if res.Outcome == rollout.AwaitPromotion {
		res = p.decide(ctx, s)
	}
	res.Submitted = true
	return res
}

func (c *Cluster) waits(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.canaries[id]
}

// decide does with canaries what the release says: the log has "promote web" or "fail web".
func (p *plan) decide(ctx context.Context, s *step) rollout.ServiceResult {
	v := rollout.CanaryVerdict{Outcome: rollout.AwaitPromotion, Detail: "the canaries are healthy and wait for a promotion"}
	switch {
	case p.opts.Promote:
		v = rollout.CanaryVerdict{Outcome: rollout.Deployed}
	case p.opts.Canaries != nil:
		v = p.opts.Canaries(ctx, s.submission(), func(string) {})
	}
	what := map[rollout.Outcome]string{rollout.Deployed: "Promote", rollout.Failed: "Fail"}[v.Outcome]
	if what == "" {
		return rollout.ServiceResult{Outcome: v.Outcome, Detail: v.Detail, Undecided: v.Outcome == rollout.AwaitPromotion && p.opts.Canaries != nil}
	}
	c := p.cluster
	if err := c.request(ctx, what, s.change.JobID); err != nil {
		return refused(ctx, err, true)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.canaries, s.change.JobID)
	c.log = append(c.log, strings.ToLower(what)+" "+s.change.JobID)
	return rollout.ServiceResult{Outcome: v.Outcome, Detail: v.Detail}
}

// refused is the result of a service that a hook or the cluster refused.
func refused(ctx context.Context, err error, submitted bool) rollout.ServiceResult {
	res := rollout.ServiceResult{Outcome: rollout.Failed, Detail: err.Error(), Submitted: submitted}
	var refusal *rollout.Refusal
	switch {
	case errors.As(err, &refusal):
		res.Outcome = refusal.Outcome
	case ctx.Err() != nil:
		res.Outcome = rollout.Cancelled
	case rollout.Unanswered(err):
		res.Outcome = rollout.Unreachable
	}
	return res
}
