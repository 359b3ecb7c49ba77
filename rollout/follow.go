package rollout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/consul"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/stack"
)

// follower takes one service from its submission to its outcome.
type follower struct {
	clients nomad.Clients
	opts    Options
	step    *step
	waiting
	hub    *hub
	tell   func(Event)
	limits stack.Limits

	target   uint64 // JobModifyIndex of the version that is followed
	settling bool
	index    uint64 // of the allocations, when last read
	looked   time.Time
	watcher  *consul.Watcher

	result ServiceResult
	last   Event     // the last progress event
	since  time.Time // blocked without a break since, when not zero
	silent time.Time // Nomad has not answered since, when not zero

	evaluated time.Time // the last evaluate
	decidedOn string    // the deployment that was promoted or failed here

	// failing are the last failing Consul checks of the followed allocations. They are
	// kept because a rollback removes them from Consul before the failure is reported.
	failing []consul.Failing
}

func (f *follower) run(ctx context.Context) ServiceResult {
	s := f.step
	f.limits = f.opts.limits(s.Limits)
	limited := func() (context.Context, context.CancelFunc) {
		return context.WithTimeoutCause(ctx, f.limits.Timeout, fmt.Errorf("not healthy within %s", f.limits.Timeout))
	}
	wctx, cancel := limited()
	defer func() { cancel() }()
	watching, stop := context.WithCancel(ctx)
	defer stop()

	if err := f.submit(wctx); err != nil {
		return f.ended(ctx, wctx, err)
	}
	if names := consul.Names(s.spec.consul); len(names) > 0 && f.clients.Consul != nil {
		f.watcher = consul.Watch(watching, f.clients.Consul, f.clients.ConsulDatacenters, names)
	}

	if f.result.Submitted && !s.spec.registeredIsDeployed() && f.hub.live(s) {
		// Nothing is to be seen before the scheduler has looked at the job.
		if err := f.pause(wctx); err != nil {
			return f.ended(ctx, wctx, err)
		}
	}
	n, err := f.until(wctx)
	for err == nil && f.result.Outcome == AwaitPromotion && f.opts.Canaries != nil {
		v := f.opts.Canaries(ctx, s.submission(), func(waiting string) { f.progress(f.result.Healthy, f.result.Desired, waiting) })
		cancel()
		if wctx, cancel = limited(); ctx.Err() != nil {
			return f.ended(ctx, wctx, context.Cause(ctx))
		}
		if v.Outcome != Deployed && v.Outcome != Failed {
			f.result.Outcome, f.result.Detail, f.result.Undecided = v.Outcome, f.opts.Redact(v.Detail), v.Outcome == AwaitPromotion
			return f.result
		}
		n, err = f.decide(wctx, v)
	}
	if err != nil {
		return f.ended(ctx, wctx, err)
	}
	switch f.result.Outcome {
	case Deployed:
		f.result.Completed = s.spec.runsToCompletion() && f.result.Healthy > 0
		if !f.result.Submitted {
			f.result.Outcome = Unchanged
		}
	case FailedReverted: // for now: Nomad has begun to roll back
		f.result.Failure = f.diagnose(ctx, n)
		f.reverted(ctx, wctx)
	default:
		f.result.Failure = f.diagnose(ctx, n)
	}
	return f.result
}

// submit registers the job by check-and-set on the index that the plan saw
// (POST /v1/jobs). An unchanged job is not registered, only followed.
func (f *follower) submit(ctx context.Context) error {
	s := f.step
	f.target = s.plan.JobModifyIndex
	switch {
	case s.start != "": // the same spec: Nomad makes an evaluation and no new version
	case s.unchanged():
		f.settling = true
		return f.revive(ctx)
	case s.recreate != "":
		if err := s.allowed(f.opts); err != nil {
			return err
		}
		return f.recreate(ctx, s.recreate)
	}
	if err := f.before(ctx); err != nil {
		return err
	}
	return f.register(ctx, s.plan.JobModifyIndex)
}

// before is the hook of that name, whose error says that nothing is written.
func (f *follower) before(ctx context.Context) error {
	if f.opts.Before == nil {
		return nil
	}
	if err := f.opts.Before(ctx, f.step.submission()); err != nil {
		return fmt.Errorf("not submitted: %w", err)
	}
	return nil
}

func (f *follower) register(ctx context.Context, index uint64) error {
	s := f.step
	opts := &api.RegisterOptions{EnforceIndex: true, ModifyIndex: index}
	if len(s.HCL) > 0 && len(s.HCL) < 1e6 { // job_max_source_size
		opts.Submission = &api.JobSubmission{Source: string(s.HCL), Format: "hcl2"}
	}
	f.hub.opening(ctx, s)
	f.forget() // what was before
	answered, err := f.send(ctx, opts)
	var refusal *Refusal
	switch {
	case errors.As(err, &refusal):
		return err
	case nomad.IsStaleJob(err) && f.rescaled(ctx, index):
		err := Persist(ctx, f.opts.Silence, func(ctx context.Context) error { return s.makePlan(ctx, f.clients, f.opts) })
		if err != nil {
			return err
		}
		return f.register(ctx, s.plan.JobModifyIndex)
	case err != nil:
		return fmt.Errorf("registering job %q: %w", s.spec.id, nomad.Plain(err))
	}
	f.settling, f.target, f.result.DeploymentID = false, answered, ""
	f.hub.registered(s, answered)
	f.result.Submitted, f.result.JobModifyIndex = true, answered
	f.tell(Event{Kind: EventSubmitted, Service: s.Service, JobID: s.spec.id, Desired: s.spec.total()})
	if f.opts.After != nil {
		return f.opts.After(ctx, s.submission(), answered)
	}
	return nil
}

// rescaled is Rescaled, and no when that cannot be found out.
func (f *follower) rescaled(ctx context.Context, index uint64) bool {
	var is bool
	err := Persist(ctx, f.opts.Silence, func(ctx context.Context) (err error) {
		is, err = Rescaled(ctx, f.clients, f.step.Job.Job, index)
		return err
	})
	return err == nil && is
}

// followScaled reports whether the job differs from the followed version in
// nothing but the counts of groups with a scaling block, and follows what it is
// now. Nomad refuses to scale a job while a deployment is active, but a job with
// max_parallel = 0 has no deployment.
func (f *follower) followScaled(ctx context.Context) bool {
	if !f.rescaled(ctx, f.target) {
		return false
	}
	now, err := compare(ctx, f.clients, f.step.Job.Job)
	if err != nil || !now.unchanged() || now.plan.JobModifyIndex == f.target {
		return false
	}
	f.target, f.step.spec, f.result.DeploymentID = now.plan.JobModifyIndex, now.spec, ""
	return true
}

// rolledBack reports whether the job is what it was before the followed version, and
// which version that is: Nomad has rolled back to it, and collected the deployment that
// failed. Nomad 1.11.3 does so with each run of its collector, every five minutes, since
// it takes the deployments that have ended for ones of 1970.
func (f *follower) rolledBack(ctx context.Context) (to uint64, is bool) {
	s := f.step.spec
	err := Persist(ctx, f.opts.Silence, func(ctx context.Context) error {
		versions, _, _, err := f.clients.Nomad.Jobs().Versions(s.id, false, s.query(ctx))
		if err != nil || len(versions) < 3 || nomad.Deref(versions[1].JobModifyIndex) != f.target || !reverts(versions[1]) {
			return err
		}
		at := slices.IndexFunc(versions[2:], func(v *api.Job) bool { return nomad.Deref(v.Stable) })
		if at < 0 {
			return nil
		}
		before := versions[2:][at]
		to = nomad.Deref(before.Version)
		is, _, err = Same(ctx, f.clients, before)
		return err
	})
	return to, is && err == nil
}

// reverts reports whether Nomad rolls a job back whose deployment fails.
func reverts(job *api.Job) bool {
	return slices.ContainsFunc(job.TaskGroups, func(g *api.TaskGroup) bool { return g.Update != nil && nomad.Deref(g.Update.AutoRevert) })
}

// send registers the job, again and again while Nomad has no leader or does
// not answer, and returns its new JobModifyIndex.
func (f *follower) send(ctx context.Context, opts *api.RegisterOptions) (uint64, error) {
	s := f.step
	unsure := false // an earlier attempt may have arrived
	begun := time.Now()
	for n := 0; ; n++ {
		// A request that has left cannot be called back: it is not cancelled, so
		// that Ctrl-C never leaves it open whether the job was registered.
		wctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		resp, _, err := f.clients.Nomad.Jobs().RegisterOpts(s.Job.Job, opts, s.spec.write(wctx))
		cancel()
		switch {
		case err == nil:
			f.silent = time.Time{}
			if resp.EvalCreateIndex > resp.JobModifyIndex && opts.ModifyIndex > 0 {
				// It was this very job already: the answer has its ModifyIndex.
				return opts.ModifyIndex, nil
			}
			return resp.JobModifyIndex, nil
		case unsure && nomad.IsStaleJob(err):
			if ours, index, serr := Same(ctx, f.clients, s.Job.Job); serr == nil && ours {
				return index, nil // it had arrived
			}
			return 0, err
		case nomad.IsRefused(err):
			return 0, f.refusal(err)
		case nomad.StatusCode(err) != 0 && !nomad.IsUnavailable(err) && (time.Since(begun) > sendPatience || !transient(err)):
			return 0, err
		}
		unsure = true
		if err := f.silence(err, 0, s.spec.total()); err != nil {
			return 0, err
		}
		if nomad.RequestBackoff().Wait(ctx, n) != nil {
			return 0, err
		}
	}
}

// sendPatience is for how long a registration is sent again that Nomad answers
// with 500: a mistake in the job, which a plan does not show, gets the same
// answer each time, an accident on the way to the leader does not.
const sendPatience = 10 * time.Second

// revive gives an unchanged job that is dead another chance.
func (f *follower) revive(ctx context.Context) error {
	s := f.step
	var why string
	err := Persist(ctx, f.opts.Silence, func(ctx context.Context) error {
		allocs, _, err := f.clients.Nomad.Jobs().Allocations(s.spec.id, false, s.spec.query(ctx))
		if err != nil {
			return fmt.Errorf("reading the allocations of job %q: %w", s.spec.id, err)
		}
		why, err = s.spec.hopeless(ctx, f.clients, f.target, allocs)
		return err
	})
	if err != nil || why == "" {
		return err
	}
	return f.recreate(ctx, why)
}

// hopeless returns why an unchanged job at the given index has to be purged to
// be started, "" when it has not. Nomad replaces a failed allocation whose
// reschedule attempts are used up for nothing less than a changed spec: not
// for the same one registered again, not after a stop, not by a forced
// evaluation. It is purged only when no allocation is worth keeping.
func (s spec) hopeless(ctx context.Context, c nomad.Clients, index uint64, allocs []*api.AllocationListStub) (string, error) {
	live := current(allocs)
	if len(live) == 0 {
		return "", nil
	}
	if newest := slices.MaxFunc(live, byVersion).JobVersion; s.finite() {
		live = slices.DeleteFunc(live, func(a *api.AllocationListStub) bool { return a.JobVersion < newest }) // they ran to their end
	}
	d, err := s.deploymentOf(ctx, c, index)
	if err != nil {
		return "", err
	}
	for _, a := range live {
		if d != nil && inProgress(d.Status) && time.Since(time.Unix(0, a.ModifyTime)) < schedulerPatience {
			return "", nil // Nomad may be about to end the deployment
		}
		st := a.DeploymentStatus
		rejected := d != nil && d.Status == api.DeploymentStatusFailed && st != nil && st.Healthy != nil && !*st.Healthy
		if !failedForGood(a) && !rejected {
			return "", nil
		}
	}
	return nothingAlive, nil
}

func byVersion(a, b *api.AllocationListStub) int { return cmp.Compare(a.JobVersion, b.JobVersion) }

const nothingAlive = "none of its allocations is healthy, and Nomad starts no others"

func failedForGood(a *api.AllocationListStub) bool {
	return a.ClientStatus == api.AllocClientStatusFailed && a.FollowupEvalID == ""
}

// recreate purges the job that the plan saw, and registers it as a new one.
func (f *follower) recreate(ctx context.Context, why string) error {
	s := f.step
	var job *api.Job
	err := Persist(ctx, f.opts.Silence, func(ctx context.Context) (err error) {
		job, _, err = f.clients.Nomad.Jobs().Info(s.spec.id, s.spec.query(ctx))
		return err
	})
	if err != nil {
		return fmt.Errorf("reading job %q: %w", s.spec.id, err)
	}
	if nomad.Deref(job.JobModifyIndex) != f.target {
		if s.unchanged() {
			return nil // changed meanwhile: the follower will say so
		}
		return errMoved
	}
	if err := f.before(ctx); err != nil {
		return err
	}
	f.progress(0, s.spec.total(), "the old allocations to stop: "+why)
	if err := purgeFamily(ctx, f.clients, f.opts.Silence, s.spec, job); err != nil {
		return err
	}
	return f.register(ctx, 0)
}

// errMoved reads as Nomad's own refusal of a registration.
var errMoved = errors.New("Enforcing job modify index: the job has another one")

// until follows the target to its outcome, which it leaves in f.result.
// FailedReverted there means that a rollback has begun.
func (f *follower) until(ctx context.Context) (snapshot, error) {
	for {
		// A server that stands still accepts a request and never answers it.
		rctx, cancel := context.WithTimeoutCause(ctx, 20*time.Second, errors.New("no answer within 20 seconds"))
		n, err := f.read(rctx)
		cancel()
		if err != nil {
			if ctx.Err() != nil {
				return n, err
			}
			if nomad.IsRefused(err) {
				return n, f.refusal(err)
			}
			if !transient(err) {
				return n, err
			}
			if err := f.silence(err, f.last.Healthy, f.last.Desired); err != nil {
				return n, err
			}
		} else {
			f.silent = time.Time{}
			v := judge(f.step.spec, n)
			if v.outcome == AwaitPromotion && f.decidedOn == n.deployment.ID {
				v.outcome, v.waiting = "", "the promotion" // an answer from before it
			}
			switch {
			case v.outcome == Superseded && !n.jobGone && f.followScaled(ctx):
				continue
			case v.outcome == Superseded && !n.jobGone && n.deployment == nil:
				if to, is := f.rolledBack(ctx); is {
					v.outcome, v.reverting = Failed, true
					v.detail = fmt.Sprintf("Nomad rolled back to job version %d, and has collected the failed deployment", to)
				}
			case v.outcome == AwaitPromotion && f.opts.Promote:
				if err := f.promote(ctx, n.deployment.ID); err != nil {
					return n, err
				}
				continue
			}
			f.result.Healthy, f.result.Desired, f.result.Detail, f.result.Note = v.healthy, v.desired, v.detail, v.note
			if n.deployment != nil {
				f.result.DeploymentID = n.deployment.ID
				if f.target == f.result.JobModifyIndex {
					f.result.Version = &n.deployment.JobVersion
				}
			}
			health := f.consulHealth(ctx, n)
			if v.outcome == Deployed && health.Healthy() {
				health = f.nativeHealth(ctx, n)
			}
			if v.outcome == Deployed && !health.Healthy() {
				v.outcome, v.waiting = "", describe(health.Failing)
			} else if v.outcome == "" && len(health.Failing) > 0 && health.Failing[0].Status != consul.Missing {
				v.waiting = strings.TrimPrefix(v.waiting+", "+describe(health.Failing), ", ")
			}
			if v.outcome == "" && v.blocked && f.blockedTooLong() {
				v.outcome = PlacementFailed
				f.result.Detail = fmt.Sprintf("%s; waited for %s", noPlace(f.step.spec, n.evals), f.limits.PlacementTimeout)
			}
			if !v.blocked {
				f.since = time.Time{}
			}
			if v.collected && n.deployment == nil && f.result.DeploymentID != "" { // evaluated, it would replace more of the version before
				v.outcome, f.result.Detail = Failed, "the deployment has ended, none of its allocations is left, and Nomad has collected them"
			}
			if v.outcome != "" {
				f.result.Outcome = v.outcome
				if v.reverting {
					f.result.Outcome = FailedReverted
				}
				return n, nil
			}
			f.progress(v.healthy, v.desired, v.waiting)
			if v.undone && f.target == f.result.JobModifyIndex {
				if err := f.register(ctx, n.jobIndex); err != nil {
					return n, err
				}
			}
			if v.collected {
				if err := f.evaluate(ctx); err != nil {
					return n, err
				}
			}
		}
		if err := f.pause(ctx); err != nil {
			return n, err
		}
	}
}

// evaluate asks the scheduler to look at the job again (PUT /v1/job/:id/evaluate), but
// not more often than every evaluateGap.
func (f *follower) evaluate(ctx context.Context) error {
	if time.Since(f.evaluated) < evaluateGap {
		return nil
	}
	f.evaluated = time.Now()
	s := f.step.spec
	err := Persist(ctx, f.opts.Silence, func(ctx context.Context) error {
		_, _, err := f.clients.Nomad.Jobs().ForceEvaluate(s.id, s.write(ctx))
		return err
	})
	if err != nil && !nomad.IsNotFound(err) { // a job that is gone is judged by the next look
		return fmt.Errorf("evaluating job %q: %w", s.id, nomad.Plain(err))
	}
	return nil
}

// evaluateGap is long enough for an evaluation and its allocations on a busy machine.
const evaluateGap = 10 * time.Second

// silence reports that Nomad has not answered. It returns an error if that has lasted
// for Options.Silence.
func (f *follower) silence(err error, healthy, desired int) error {
	if f.silent.IsZero() {
		f.silent = time.Now()
	}
	f.progress(healthy, desired, "Nomad, which does not answer: "+firstLine(nomad.Plain(err).Error()))
	if time.Since(f.silent) < f.opts.Silence {
		return nil
	}
	what := "not known whether it was submitted"
	if f.result.Submitted {
		what = "submitted"
	}
	return &Refusal{Outcome: Unreachable, Err: fmt.Errorf("%s; Nomad has not answered for %s: %w", what, f.opts.Silence, nomad.Plain(err))}
}

// refusal returns the error of a service after Nomad refused the token, which is no
// failure of the service.
func (f *follower) refusal(err error) error {
	what := "not submitted"
	if f.result.Submitted {
		what = "submitted; Nomad continues the deployment"
	}
	return &Refusal{Outcome: Unreachable, Err: fmt.Errorf("%s, and refuses the token now: %w", what, nomad.Plain(err))}
}

// pause waits until there is a reason to look again.
func (f *follower) pause(ctx context.Context) error {
	var changed <-chan struct{}
	if f.watcher != nil {
		changed = f.watcher.Changed()
	}
	// A belt, since events may be dropped: a look is about four requests.
	again := max(15*time.Second, 4*time.Second*time.Duration(f.hub.following()))
	if !f.hub.live(f.step) {
		// No event stream: the token may not read it, or the server is away.
		q := f.step.spec.query(ctx)
		q.WaitIndex, q.WaitTime = f.index, 2*time.Second
		bctx, cancel := context.WithTimeout(ctx, 15*time.Second)
		_, _, err := f.clients.Nomad.Jobs().Allocations(f.step.spec.id, false, q.WithContext(bctx))
		cancel()
		if err == nil {
			return nil
		}
		again = time.Second
	}
	if !f.silent.IsZero() {
		again = min(again, time.Second) // no event says that Nomad is back
	}
	if !f.since.IsZero() {
		again = min(again, f.limits.PlacementTimeout-time.Since(f.since)+10*time.Millisecond)
	}
	if slices.ContainsFunc(f.failing, func(c consul.Failing) bool {
		return c.Provider != "" || c.Output == "" && c.Check != ""
	}) {
		again = min(again, time.Second) // the check has not run yet, or no event tells of it
	}
	timer := time.NewTimer(max(again, time.Millisecond))
	defer timer.Stop()
	following := f.hub.following()
	gap := lookGap(following)
	select {
	case <-f.decided:
	case <-f.wake:
		// Nomad sends events in bursts: look once for each burst. Many followers are read
		// together anyway.
		if !f.settling && !f.step.spec.noDeploy && following < crowd {
			timer.Reset(gap)
			select {
			case <-f.decided:
			case <-changed:
			case <-timer.C:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if rest := gap - time.Since(f.looked); rest > 0 {
		timer.Reset(rest)
		select {
		case <-timer.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	f.forget() // seen by the look that comes now
	return nil
}

// forget drops the events that were received so far.
func (f *follower) forget() {
	for _, ch := range []chan struct{}{f.wake, f.decided} {
		select {
		case <-ch:
		default:
		}
	}
}

// lookGap is the least time between two looks at one service while so many are
// followed: what happens to one is on the screen within a fifth of a second, and
// Nomad is not kept from its work by those who watch it.
func lookGap(following int) time.Duration {
	return min(max(150*time.Millisecond, time.Duration(following)*10*time.Millisecond), time.Second)
}

func (f *follower) blockedTooLong() bool {
	if f.since.IsZero() {
		f.since = time.Now()
	}
	return time.Since(f.since) >= f.limits.PlacementTimeout
}

// read takes a snapshot of the followed version, together with other followers
// where that saves requests.
func (f *follower) read(ctx context.Context) (snapshot, error) {
	f.looked = time.Now()
	if f.hub != nil && !f.settling && !f.step.spec.noDeploy && f.hub.live(f.step) {
		k, err := f.hub.looks.read(ctx, f.step.spec, f.target)
		if err != nil {
			return snapshot{target: f.target}, err
		}
		if !k.alone {
			f.index = k.index
			return k.snapshot, nil
		}
	}
	return f.readAlone(ctx)
}

// readAlone is read for one job.
func (f *follower) readAlone(ctx context.Context) (snapshot, error) {
	s := f.step.spec
	jobs := f.clients.Nomad.Jobs()
	n := snapshot{target: f.target, settling: f.settling}
	d, err := f.findDeployment(ctx)
	if err != nil {
		return n, err
	}
	n.deployment = d
	followed := d != nil && (!f.settling || inProgress(d.Status))
	if d != nil {
		n.version = d.JobVersion
	}
	if !followed {
		job, _, err := jobs.Info(s.id, s.query(ctx))
		switch {
		case nomad.IsNotFound(err):
			n.jobGone = true
			return n, nil
		case err != nil:
			return n, fmt.Errorf("reading job %q: %w", s.id, err)
		}
		n.jobIndex, n.version = nomad.Deref(job.JobModifyIndex), nomad.Deref(job.Version)
	}
	evaluations := func() error {
		if n.evals, _, err = jobs.Evaluations(s.id, s.query(ctx)); err != nil {
			return fmt.Errorf("reading the evaluations of job %q: %w", s.id, err)
		}
		return nil
	}
	allocations := func() error {
		all, meta, err := jobs.Allocations(s.id, false, s.query(ctx))
		if err != nil {
			return fmt.Errorf("reading the allocations of job %q: %w", s.id, err)
		}
		f.index, n.allocs = meta.LastIndex, nil
		for _, a := range all {
			if a.JobVersion == n.version {
				n.allocs = append(n.allocs, a)
			}
		}
		return nil
	}
	if !followed {
		// After the deployment and before the allocations: an evaluation that is
		// seen as done has its allocations in the next answer.
		if err := evaluations(); err != nil {
			return n, err
		}
	}
	if !followed && !n.pending() && !s.noDeploy {
		// The scheduler may have made the deployment since the first look.
		if d, err = f.findDeployment(ctx); err != nil {
			return n, err
		}
		if n.deployment = d; d != nil {
			n.version = d.JobVersion
		}
	}
	if err := allocations(); err != nil {
		return n, err
	}
	if followed && !n.underWay() {
		return n, evaluations()
	}
	// An allocation that failed after the evaluations were read may be replaced
	// by one that came since: Nomad writes both at the same index.
	for range 3 {
		n.unsettled = false
		if followed || !slices.ContainsFunc(current(n.allocs), isDead) {
			break
		}
		before := n.evals
		if err := evaluations(); err != nil {
			return n, err
		}
		if n.unsettled = !sameEvaluations(before, n.evals); !n.unsettled {
			break
		}
		if err := allocations(); err != nil {
			return n, err
		}
	}
	return n, nil
}

// sameEvaluations reports whether no evaluation came, went or changed between
// two readings.
func sameEvaluations(before, after []*api.Evaluation) bool {
	was := make(map[string]uint64, len(before))
	for _, e := range before {
		was[e.ID] = e.ModifyIndex
	}
	return len(before) == len(after) && !slices.ContainsFunc(after, func(e *api.Evaluation) bool {
		index, there := was[e.ID]
		return !there || index != e.ModifyIndex
	})
}

// findDeployment reads the deployment of the followed version, nil when
// there is none: by ID when it is known, else by the index of the job spec
// (GET /v1/job/:id/deployments).
func (f *follower) findDeployment(ctx context.Context) (*api.Deployment, error) {
	s := f.step.spec
	if s.noDeploy {
		return nil, nil
	}
	if id := f.result.DeploymentID; id != "" {
		d, _, err := f.clients.Nomad.Deployments().Info(id, s.query(ctx))
		if err == nil && d.JobSpecModifyIndex == f.target {
			return d, nil
		}
		if err != nil && !nomad.IsNotFound(err) {
			return nil, fmt.Errorf("reading the deployment of job %q: %w", s.id, err)
		}
	}
	return s.deploymentOf(ctx, f.clients, f.target)
}

// deploymentOf is the newest deployment of the version with that
// JobModifyIndex, nil when there is none.
func (s spec) deploymentOf(ctx context.Context, c nomad.Clients, index uint64) (*api.Deployment, error) {
	if s.noDeploy {
		return nil, nil
	}
	list, _, err := c.Nomad.Jobs().Deployments(s.id, false, s.query(ctx))
	if err != nil {
		return nil, fmt.Errorf("reading the deployments of job %q: %w", s.id, err)
	}
	return newestDeployment(list, index), nil
}

// newestDeployment returns the newest deployment of the version with that
// JobModifyIndex, nil if there is none.
func newestDeployment(list []*api.Deployment, index uint64) *api.Deployment {
	var newest *api.Deployment
	for _, d := range list {
		if d.JobSpecModifyIndex == index && (newest == nil || d.CreateIndex > newest.CreateIndex) {
			newest = d
		}
	}
	return newest
}

// consulHealth judges the services of the allocations that run now.
func (f *follower) consulHealth(ctx context.Context, n snapshot) consul.Health {
	if f.watcher == nil {
		return consul.Health{}
	}
	h, ok, err := f.watcher.Judge(f.step.spec.consul, runningOf(n.allocs))
	switch {
	case err != nil:
		return consul.Health{Total: h.Total + 1, Failing: []consul.Failing{{Service: "Consul", Status: "not answering", Output: err.Error()}}}
	case !ok:
		return consul.Health{Total: h.Total + 1, Failing: []consul.Failing{{Service: "Consul", Status: consul.Missing}}}
	}
	for _, c := range h.Failing {
		if c.Status != consul.Missing {
			f.failing = consul.Outputs(ctx, f.clients.Consul, h.Failing, f.failing)
			break
		}
	}
	return h
}

// nativeHealth judges the services that Nomad itself registers for the
// allocations that run now. No event tells of their checks: while they fail they
// are read every second.
func (f *follower) nativeHealth(ctx context.Context, n snapshot) consul.Health {
	running := runningOf(n.allocs)
	instances, err := f.step.spec.nativeInstances(ctx, f.clients, running)
	if err != nil {
		return consul.Health{Total: 1, Failing: []consul.Failing{{Service: "the health of its services", Provider: consul.ProviderNomad, Status: "not known", Output: err.Error()}}}
	}
	h := consul.Judge(f.step.spec.native, running, instances)
	f.failing = h.Failing
	return h
}

func describe(failing []consul.Failing) string {
	if len(failing) == 0 {
		return ""
	}
	c := failing[0]
	text := c.String()
	if len(failing) > 1 {
		text += fmt.Sprintf(" (and %d more)", len(failing)-1)
	}
	return text
}

// reverted follows the version that Nomad went back to.
func (f *follower) reverted(ctx, wctx context.Context) {
	first := f.result
	f.failing, f.opts.Promote = nil, true // its canaries, too: no person decides
	s := f.step.spec
	job, _, err := f.clients.Nomad.Jobs().Info(s.id, s.query(wctx))
	if err == nil {
		f.target, f.result.DeploymentID, f.settling = nomad.Deref(job.JobModifyIndex), "", false
		f.progress(0, 0, "rollback to the version before")
		_, err = f.until(wctx)
	}
	second := f.result
	f.result = first
	f.result.Healthy, f.result.Desired = second.Healthy, second.Desired
	switch {
	case err != nil && ctx.Err() != nil:
		f.result.Detail += "; interrupted while Nomad rolls back"
	case err != nil:
		f.result.Outcome = Failed
		f.result.Detail += fmt.Sprintf("; the rollback is not finished: %s", err)
	case second.Outcome != Deployed:
		f.result.Outcome = Failed
		f.result.Detail += "; the rollback by Nomad also failed: " + string(second.Outcome)
	}
}

// ended gives an outcome to a service that could not be followed to its end.
func (f *follower) ended(ctx, wctx context.Context, err error) ServiceResult {
	var refusal *Refusal
	switch {
	case errors.As(err, &refusal):
		f.result.Outcome, f.result.Detail = refusal.Outcome, err.Error()
	case ctx.Err() != nil:
		f.result.Outcome, f.result.Detail = ended(ctx), "not submitted"
		if f.result.Submitted {
			f.result.Detail = "submitted; Nomad continues the deployment"
		}
		if f.result.Outcome == TimedOut {
			f.result.Detail = context.Cause(ctx).Error() + "; " + f.result.Detail
		}
	case wctx.Err() != nil:
		f.result.Outcome, f.result.Detail = TimedOut, context.Cause(wctx).Error()
		if f.last.Waiting != "" {
			f.result.Detail += "; it waited for: " + f.last.Waiting
		}
		rctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if n, err := f.read(rctx); err == nil {
			f.result.Failure = f.diagnose(ctx, n)
		}
	case nomad.IsStaleJob(err):
		f.result.Outcome, f.result.Detail = Superseded, "not submitted: another client changed the job since it was planned"
	case Unanswered(err):
		f.result.Outcome, f.result.Detail = Unreachable, err.Error()
	default:
		f.result.Outcome, f.result.Detail = Failed, err.Error()
	}
	return f.result
}

// progress sends an event if anything has changed since the last one.
func (f *follower) progress(healthy, desired int, waiting string) {
	e := Event{Kind: EventProgress, Service: f.step.Service, JobID: f.step.spec.id, Healthy: healthy, Desired: desired, Waiting: f.opts.Redact(waiting)}
	if e == f.last {
		return
	}
	f.last = e
	f.tell(e)
}

// Unanswered reports whether err is a failure of the cluster, which was unreachable, did
// not serve the request, or refused the token.
func Unanswered(err error) bool {
	_, ok := nomad.AsClusterError(err, "")
	return ok
}

// transient reports whether the same request may succeed a moment later: there
// was no answer, or the server is restarting, electing a leader or busy.
func transient(err error) bool {
	code := nomad.StatusCode(err)
	return code == 0 || code >= 500 || code == http.StatusTooManyRequests
}
