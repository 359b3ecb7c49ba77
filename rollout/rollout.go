// Package rollout brings the jobs of a stack to a Nomad cluster in
// dependency order and says truthfully what became of each.
package rollout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// Options of a rollout. The zero value is ready for use.
type Options struct {
	// Parallel is how many services may be on their way at once; 16 when 0.
	Parallel int
	// Timeout is how long one service may take from its submission until it
	// is healthy. When 0 it is what the stack says of the service, or else
	// DefaultTimeout.
	Timeout time.Duration
	// PlacementTimeout is how long a service may wait for a node while none of
	// its allocations makes progress. When 0 it is what the stack says of the
	// service, or else DefaultPlacementTimeout.
	PlacementTimeout time.Duration
	// Silence is how long Nomad may not answer before a service counts as
	// unreachable; DefaultSilence when 0.
	Silence time.Duration
	// Former are the jobs of the last release. Those that are not rolled out are in
	// Plan.Changes as jobs to stop; Apply does not stop them.
	Former []Former
	// Released returns the counts that the stack asked for in the last release
	// of a job, of groups with a scaling block and by group. It may be nil, and
	// a group that is missing is not known.
	Released func(*api.Job) map[string]int
	// Recorded returns what the record says of the registered job, nil where it
	// says nothing. It may be nil.
	Recorded func(*api.Job) *Recorded
	// Listing is what plans share that are made at the same time; it may be nil.
	Listing *Listing
	// Replace allows that a job is purged and created again where Nomad
	// refuses the change: another type, to or from periodic or parameterized.
	Replace bool

	// KeepGoing submits a service even if one of its dependencies failed. It is for
	// reverts.
	KeepGoing bool

	// Promote promotes canaries as soon as they are healthy. It is for reverts.
	Promote bool

	// Canaries is called when all canaries of a service are healthy and only a promotion
	// is missing. Its result promotes them, marks the deployment as failed, or ends the
	// service. tell reports what it waits for. The time that it takes does not count for
	// Timeout. It may be nil: the service ends as AwaitPromotion then.
	Canaries func(ctx context.Context, s Submission, tell func(waiting string)) CanaryVerdict

	// KeepRestarts gives a job that was redeployed the mark that it has of
	// that (RestartMeta), which no job spec knows of.
	KeepRestarts bool

	// Completed returns the last run to completion of a batch or sysbatch job,
	// nil if its spec never ran to completion. It is asked about jobs that have
	// no allocation, because Nomad collects those that have ended. It may be nil.
	Completed func(ctx context.Context, job *api.Job) (*Completion, error)

	// Redact removes secret values from task events, check output and logs.
	Redact func(string) string

	// Before is called directly before a service is written to Nomad for the
	// first time. An error keeps it from being written: the service ends with
	// the Outcome of a *Refusal, or Failed.
	Before func(ctx context.Context, s Submission) error
	// After is called directly after the job is registered; index is its new
	// JobModifyIndex. An error ends the service like one of Before, but the
	// job is registered.
	After func(ctx context.Context, s Submission, index uint64) error
	// Done is called when the outcome of a service is known, before anything
	// that depends on it may begin.
	Done func(ctx context.Context, s Submission, r ServiceResult)
}

// Recorded is a job as drover registered it last.
type Recorded struct {
	Index uint64                         // its JobModifyIndex then
	Is    func(render.Job) (bool, error) // reports whether a job is the one that was registered
}

// Completion is a run of a job to its end, with exit code 0.
type Completion struct {
	Release int       `json:"release,omitempty"` // 0 where an older drover did not record it
	At      time.Time `json:"at,omitzero"`
}

func (c Completion) String() string {
	if c.Release == 0 {
		return "ran to completion"
	}
	return fmt.Sprintf("ran to completion in release %d, %s", c.Release, c.At.Local().Format("2006-01-02 15:04"))
}

// Submission is what a hook learns of the service that is being written. The
// hooks of one service are called one after another, those of several
// services side by side.
type Submission struct {
	Target  string
	Service string
	Job     *api.Job // as it is registered; not to be changed
	// JobModifyIndex is that of the job that the plan saw and that the
	// registration enforces, 0 when there is to be none.
	JobModifyIndex uint64
}

// CanaryVerdict is what becomes of canaries: Deployed promotes them, Failed marks their
// deployment as failed, and another outcome ends the service and leaves them.
type CanaryVerdict struct {
	Outcome Outcome
	Detail  string
}

// Refusal is an error of a hook that says how the service ends.
type Refusal struct {
	Outcome Outcome
	Err     error
}

func (e *Refusal) Error() string { return e.Err.Error() }
func (e *Refusal) Unwrap() error { return e.Err }

const (
	// DefaultTimeout is for one service, where nothing else is said.
	DefaultTimeout = 15 * time.Minute
	// DefaultPlacementTimeout is long enough for an autoscaler that adds a node.
	DefaultPlacementTimeout = 5 * time.Minute
)

// limits are those of one service.
func (o Options) limits(own stack.Limits) stack.Limits {
	l := stack.Limits{
		Timeout:          cmp.Or(o.Timeout, own.Timeout),
		PlacementTimeout: cmp.Or(o.PlacementTimeout, own.PlacementTimeout, DefaultPlacementTimeout),
	}
	if l.Timeout == 0 { // leaves time to start after a long wait for a node
		l.Timeout = max(DefaultTimeout, l.PlacementTimeout+DefaultTimeout-DefaultPlacementTimeout)
	}
	return l
}

// DefaultSilence is Options.Silence where nothing else is said.
const DefaultSilence = 2 * time.Minute

func (o Options) withDefaults() Options {
	if o.Parallel <= 0 {
		o.Parallel = 16
	}
	if o.Silence <= 0 {
		o.Silence = DefaultSilence
	}
	if o.Redact == nil {
		o.Redact = func(s string) string { return s }
	}
	return o
}

// Event kinds, in the order in which a service sees them.
const (
	EventPlanned   = "planned"   // Change is set
	EventSubmitted = "submitted" // the job is registered
	EventProgress  = "progress"  // Healthy, Desired or Waiting changed
	EventDone      = "done"      // Result is set
)

// Event is one step of one service.
type Event struct {
	Time    time.Time      `json:"time"`
	Kind    string         `json:"event"`
	Target  string         `json:"target,omitempty"`
	Service string         `json:"service"`
	JobID   string         `json:"job_id"`
	Change  string         `json:"change,omitempty"` // none, create or update
	Healthy int            `json:"healthy"`
	Desired int            `json:"desired"`
	Waiting string         `json:"waiting,omitempty"` // what it waits for, for a person
	Result  *ServiceResult `json:"result,omitempty"`
}

// Name is the service, and where there are several the target, for a person.
func (e Event) Name() string { return render.Job{Service: e.Service, Target: e.Target}.Name() }

// Plan is what a rollout is going to do. Nothing has been written yet.
type Plan struct {
	clients nomad.Clients
	opts    Options
	steps   []*step
	former  []Former
	begun   time.Time
}

// Former is a job of an earlier release.
type Former struct {
	Service   string
	Target    string // of the environment, "" where it has none
	JobID     string
	Namespace string // "" for the client's own
	Region    string
	Stopped   bool // it is purged also if it is stopped already

	index   uint64 // its JobModifyIndex now
	running bool   // its status in Nomad
}

// step is one service on its way.
type step struct {
	render.Job
	spec     spec
	plan     *api.JobPlanResponse
	listed   *listed  // of a job that is as the record says; nil where that is not known
	healthy  bool     // planned as unchanged, and what runs is healthy
	asked    *api.Job // as Prepare was given it, before setCounts
	kept     []KeptCount
	replaced []ReplacedCount
	// recreate is why the job has to be purged and created, "" when it has not.
	recreate string
	retyped  bool // by a change that Nomad refuses
	// retry is why an unchanged spec is registered with a new mark, "" when it
	// is not.
	retry string
	// start is why an unchanged job is registered once more: Nomad then starts
	// what is missing. "" when it is not.
	start string
	// completed is why a job that Nomad does not have any more is as it is meant
	// to be, nil where it is not.
	completed *Completion

	// Of Apply, guarded by applying.mu until the step has ended.
	result ServiceResult
	ended  bool
	next   []func() // steps that wait for this one
}

func (s *step) submission() Submission {
	return Submission{Target: s.Target, Service: s.Service, Job: s.Job.Job, JobModifyIndex: s.plan.JobModifyIndex}
}

// blank returns a result without an outcome.
func (s *step) blank() ServiceResult {
	return ServiceResult{Target: s.Target, Service: s.Service, JobID: s.spec.id}
}

func (s *step) unchanged() bool {
	return s.completed != nil || s.plan.Diff != nil && s.plan.Diff.Type == "None"
}

func (s *step) change() string {
	switch {
	case s.unchanged() && s.start == "":
		return "none"
	case s.plan.JobModifyIndex == 0:
		return "create"
	}
	return "update"
}

// Apply submits the changed services, each when all its dependencies are healthy, and
// follows them to their end. After a service has failed it submits no other one, and
// follows the submitted ones to their end. When ctx ends, Apply returns with what is
// known so far: Nomad continues the submitted jobs.
//
// emit is called from one goroutine at a time and may be nil.
func (p *Plan) Apply(ctx context.Context, emit func(Event)) Result {
	watchCtx, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	a := &applying{
		plan: p, emit: emit, byService: map[string][]*step{}, slots: make(chan struct{}, p.opts.Parallel), halted: make(chan struct{}),
		hub: newHub(watchCtx, p.clients.Nomad, p.followed(), p.opts.Listing),
	}
	for _, s := range p.steps {
		a.byService[s.Service] = append(a.byService[s.Service], s)
		a.report(s, Event{Kind: EventPlanned, Service: s.Service, JobID: s.spec.id, Change: s.change()})
	}
	for _, s := range p.steps {
		a.running.Go(func() { a.begin(ctx, s) })
	}
	a.running.Wait()

	r := Result{Elapsed: time.Since(p.begun)}
	for _, s := range p.steps {
		r.Services = append(r.Services, s.result)
	}
	return r
}

// followed returns the jobs that Apply follows.
func (p *Plan) followed() []spec {
	var out []spec
	for _, s := range p.steps {
		if !s.unchanged() || !s.healthy {
			out = append(out, s.spec)
		}
	}
	return out
}

// applying is a plan while it is applied. A step that waits for others has no
// goroutine of its own: there may be thousands.
type applying struct {
	plan      *Plan
	byService map[string][]*step
	hub       *hub
	slots     chan struct{}  // of the services that are followed at once
	running   sync.WaitGroup // steps that do not wait for others

	halting sync.Once
	halted  chan struct{} // closed when a service has failed

	emitting sync.Mutex
	emit     func(Event) // may be nil

	mu sync.Mutex // of ended and next of the steps
}

func (a *applying) report(s *step, e Event) {
	if a.emit == nil {
		return
	}
	a.emitting.Lock()
	defer a.emitting.Unlock()
	e.Time, e.Target = time.Now(), s.Target
	a.emit(e)
}

// end ends a step and continues those that wait for it.
func (a *applying) end(ctx context.Context, s *step, r ServiceResult) {
	s.result = r
	if a.plan.opts.Done != nil {
		a.plan.opts.Done(ctx, s.submission(), r)
	}
	if !r.Outcome.OK() && !a.plan.opts.KeepGoing {
		a.halting.Do(func() { close(a.halted) })
	}
	a.report(s, Event{Kind: EventDone, Service: s.Service, JobID: s.spec.id, Healthy: r.Healthy, Desired: r.Desired, Result: &r})
	a.mu.Lock()
	next := s.next
	s.ended, s.next = true, nil
	a.mu.Unlock()
	for _, f := range next {
		a.running.Go(f)
	}
}

// waits reports whether s has to wait for the first of deps. It then lets the end of
// that step continue s.
func (a *applying) waits(ctx context.Context, s *step, deps []*step) bool {
	dep := deps[0]
	a.mu.Lock()
	ended := dep.ended
	a.mu.Unlock()
	if ended {
		return false
	}
	a.report(s, Event{Kind: EventProgress, Service: s.Service, JobID: s.spec.id, Desired: s.spec.total(), Waiting: dep.Service})
	a.mu.Lock()
	defer a.mu.Unlock()
	if !dep.ended {
		dep.next = append(dep.next, func() { a.proceed(ctx, s, deps) })
	}
	return !dep.ended
}

// Reverse turns the order of the plan round: each service is submitted when
// everything that depends on it is done.
func (p *Plan) Reverse() {
	before := map[string][]string{}
	for _, s := range p.steps {
		for _, d := range s.DependsOn {
			before[d] = append(before[d], s.Service)
		}
	}
	for _, s := range p.steps {
		s.DependsOn = before[s.Service]
	}
}

// ended is the outcome of what was under way when ctx ended.
func ended(ctx context.Context) Outcome {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return TimedOut
	}
	return Cancelled
}

// begin ends a step at once that is unchanged and healthy. Another one waits for
// those that it depends on.
func (a *applying) begin(ctx context.Context, s *step) {
	if s.unchanged() && s.healthy {
		r := s.blank()
		r.Outcome = Unchanged
		r.Healthy, r.Desired = s.spec.total(), s.spec.total()
		r.Completed = s.completed == nil && s.spec.runsToCompletion()
		a.end(ctx, s, r)
		return
	}
	var deps []*step
	for _, name := range s.DependsOn {
		deps = append(deps, a.byService[name]...) // none when it is not part of this rollout
	}
	a.proceed(ctx, s, deps)
}

// proceed submits and follows a step after deps, those of its dependencies that have
// not been looked at yet.
func (a *applying) proceed(ctx context.Context, s *step, deps []*step) {
	for ; len(deps) > 0; deps = deps[1:] {
		if a.waits(ctx, s, deps) {
			return
		}
		dep := deps[0]
		if dep.result.Outcome.OK() || a.plan.opts.KeepGoing && ctx.Err() == nil {
			continue
		}
		r := s.blank()
		r.Outcome, r.Detail = Skipped, "not started, because "+dep.Service+" ended as "+string(dep.result.Outcome)
		if ctx.Err() != nil {
			r.Outcome, r.Detail = ended(ctx), "not submitted"
		}
		a.end(ctx, s, r)
		return
	}
	a.end(ctx, s, a.follow(ctx, s))
}

// follow submits and follows a step when it has a slot.
func (a *applying) follow(ctx context.Context, s *step) ServiceResult {
	base := s.blank()
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	case <-a.halted:
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		base.Outcome, base.Detail = ended(ctx), "not submitted"
		return base
	}
	select {
	case <-a.halted:
		base.Outcome, base.Detail = Skipped, "not started, because another service failed"
		return base
	default:
	}

	defer a.hub.follows()()
	start := time.Now()
	f := &follower{
		clients: a.plan.clients, opts: a.plan.opts, step: s, waiting: a.hub.waiting(s), hub: a.hub,
		tell: func(e Event) { a.report(s, e) }, result: base,
	}
	r := f.run(ctx)
	r.Elapsed = time.Since(start)
	return r
}
