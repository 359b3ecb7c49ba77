package rollout

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/consul"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/render"
)

// Prepare finds out what each job would change, and whether what runs of an
// unchanged one is healthy. Nothing is written.
//
// A job that is as the record says (Options.Recorded) and healthy costs no
// request of its own: three requests list all jobs, and one goes to Consul. For
// each other job it asks Nomad (POST /v1/job/:id/plan).
func Prepare(ctx context.Context, c nomad.Clients, jobs []render.Job, opts Options) (*Plan, error) {
	ctx, cancel := nomad.WithTimeout(ctx, time.Minute, errors.New("no answer within a minute"))
	defer cancel()
	p := &Plan{clients: c, opts: opts.withDefaults(), begun: time.Now()}
	for _, j := range jobs {
		if j.Job == nil || j.Job.ID == nil || *j.Job.ID == "" {
			return nil, fmt.Errorf("service %q has no job ID", j.Service)
		}
		p.steps = append(p.steps, &step{Job: j, spec: specOf(j.Job)})
	}

	specs := make([]spec, len(p.steps))
	for i, s := range p.steps {
		specs[i] = s.spec
	}
	var instances map[string][]consul.Instance
	var consulErr error
	var wg sync.WaitGroup
	if c.Consul != nil {
		wg.Go(func() { instances, consulErr = readConsul(ctx, c, specs) })
	}
	err := p.findRecorded(ctx, specs)
	wg.Wait()
	if err = errors.Join(err, consulErr); err != nil {
		return nil, c.Explain(err)
	}
	err = parallel.Each(len(p.steps), 8, func(i int) error { return p.steps[i].confirm(ctx, c, p.opts, instances) })
	if err != nil {
		return nil, c.Explain(err)
	}
	var open []*step
	for _, s := range p.steps {
		if !s.healthy {
			open = append(open, s)
		}
	}
	err = parallel.Each(len(open), 16, func(i int) error { return open[i].makePlan(ctx, c, p.opts) })
	err = errors.Join(err, p.findFormer(ctx, opts.Former))
	var doubtful []spec // what of them runs may not be what is asked for
	for _, s := range open {
		if err == nil && (s.unchanged() || s.startsNothing()) && !s.spec.registeredIsDeployed() {
			doubtful = append(doubtful, s.spec)
		}
	}
	var is map[jobAt]*listed
	if err == nil {
		is, err = list(ctx, c, placesOf(doubtful))
	}
	if err != nil {
		return nil, c.Explain(err)
	}
	err = parallel.Each(len(open), 8, func(i int) error {
		return open[i].judge(ctx, c, p.opts, is[open[i].spec.at()], instances)
	})
	if err != nil {
		return nil, c.Explain(err)
	}
	p.opts.Listing.follows(p.followed())
	return p, nil
}

// findRecorded lists the jobs, if the record knows any of them, and notes which
// of them are as it says.
func (p *Plan) findRecorded(ctx context.Context, specs []spec) error {
	if p.opts.Recorded == nil {
		return nil
	}
	recorded := make([]*Recorded, len(p.steps))
	for i, s := range p.steps {
		recorded[i] = p.opts.Recorded(s.Job.Job)
	}
	if !slices.ContainsFunc(recorded, func(r *Recorded) bool { return r != nil }) {
		return nil
	}
	is, err := p.opts.Listing.read(ctx, p.clients, specs)
	if err != nil {
		return err
	}
	return parallel.Each(len(p.steps), 8, func(i int) error {
		s, l := p.steps[i], is[specs[i].at()]
		if recorded[i] == nil || l == nil || l.stub.Stop || l.stub.JobModifyIndex != recorded[i].Index {
			return nil
		}
		job := s.Job
		if mark := l.stub.Meta[RestartMeta]; mark != "" && p.opts.KeepRestarts && job.Job.Meta[RestartMeta] == "" {
			job.Job = Restarted(job.Job, mark)
		}
		same, err := recorded[i].Is(job)
		if err == nil && same {
			s.Job, s.listed = job, l
		}
		return err
	})
}

// confirm decides about a job that is as the record says, if that can be done by
// the lists alone: nothing about it is under way, and it is healthy.
func (s *step) confirm(ctx context.Context, c nomad.Clients, o Options, instances map[string][]consul.Instance) error {
	l := s.listed
	if l == nil || !s.spec.perNode() && l.GroupCountSum != s.spec.total() {
		return nil
	}
	asked := s.plan
	s.plan = &api.JobPlanResponse{JobModifyIndex: l.stub.JobModifyIndex, Diff: &api.JobDiff{Type: "None"}, NextPeriodicLaunch: nextLaunch(s.Job.Job)}
	if o.Completed != nil && s.mayHaveCompleted(l) {
		var err error
		if s.completed, err = o.Completed(ctx, s.Job.Job); err != nil || s.completed != nil {
			s.healthy = s.completed != nil
			return err
		}
	}
	native, err := s.spec.nativeInstances(ctx, c, runningOf(l.allocs))
	if err != nil {
		return err
	}
	if s.healthy = s.spec.settled(l, nil, instances, native); !s.healthy {
		s.plan = asked
	}
	return nil
}

// nextLaunch returns when Nomad starts a periodic job next, as its plan does.
func nextLaunch(job *api.Job) time.Time {
	if job.Periodic == nil {
		return time.Time{}
	}
	p := *job.Periodic
	p.Canonicalize()
	at, err := p.GetLocation()
	if err != nil || !*p.Enabled {
		return time.Time{}
	}
	next, err := p.Next(time.Now().In(at))
	if err != nil {
		return time.Time{}
	}
	return next
}

// judge finds out whether an unchanged job is healthy, and what has to be done
// with one that Nomad would not start. l is nil where the job is not listed.
func (s *step) judge(ctx context.Context, c nomad.Clients, o Options, l *listed, instances map[string][]consul.Instance) (err error) {
	if o.Completed != nil && s.mayHaveCompleted(l) {
		if s.completed, err = o.Completed(ctx, s.Job.Job); err != nil || s.completed != nil {
			s.healthy = s.completed != nil
			return err
		}
	}
	switch {
	case s.unchanged():
		var allocs []*api.AllocationListStub
		if l != nil {
			allocs = l.allocs
		}
		native, err := s.spec.nativeInstances(ctx, c, runningOf(allocs))
		if err != nil {
			return err
		}
		if s.healthy = s.spec.settled(l, s.plan.Annotations, instances, native); s.healthy || l == nil {
			return nil
		}
		// Nomad plans a finished batch job whose version has a tag as one to run
		// again, although it does not run it again.
		ended := s.spec.finite() && len(current(l.allocs)) > 0
		if !s.spec.perNode() && !ended && !l.deploying() && !l.failed() && s.wouldStart() {
			stopped, err := s.stoppedShort(ctx, c)
			if err != nil {
				return err
			}
			if stopped {
				s.start = "Nomad has stopped short of starting all of it"
				return nil
			}
		}
		if s.recreate, err = s.spec.hopeless(ctx, c, s.plan.JobModifyIndex, l.allocs); err != nil || s.recreate != "" {
			return err
		}
		if !s.spec.noDeploy && l.failed() {
			return s.planRetry(ctx, c, l.Version)
		}
	case s.recreate == "" && l != nil && s.startsNothing():
		if live := current(l.allocs); len(live) > 0 && !slices.ContainsFunc(live, func(a *api.AllocationListStub) bool { return !failedForGood(a) }) {
			s.recreate = nothingAlive
		}
	}
	return nil
}

// stoppedShort reports whether Nomad would start something of an unchanged job,
// and no evaluation is there by which it does.
func (s *step) stoppedShort(ctx context.Context, c nomad.Clients) (bool, error) {
	evals, _, err := c.Nomad.Jobs().Evaluations(s.spec.id, s.spec.query(ctx))
	if err != nil {
		return false, fmt.Errorf("reading the evaluations of job %q: %w", s.spec.id, err)
	}
	if n := (snapshot{evals: evals}); n.pending() || n.hasBlocked() {
		return false, nil
	}
	// One may have ended since the job was planned.
	if err := s.askPlan(ctx, c); err != nil {
		return false, err
	}
	return s.unchanged() && s.wouldStart(), nil
}

// wouldStart reports whether Nomad would start an allocation if the job was
// registered.
func (s *step) wouldStart() bool {
	if s.plan.Annotations != nil {
		for _, u := range s.plan.Annotations.DesiredTGUpdates {
			if u.Place > 0 || u.DestructiveUpdate > 0 || u.Canary > 0 {
				return true
			}
		}
	}
	return false
}

// mayHaveCompleted reports whether Nomad may have collected a job, or the
// allocations of a job, that ran to its end. l is nil where the job is not
// listed.
func (s *step) mayHaveCompleted(l *listed) bool {
	if !s.spec.runsToCompletion() || s.retyped {
		return false
	}
	return s.plan.JobModifyIndex == 0 || s.restarted() || s.unchanged() && l != nil && len(l.allocs) == 0
}

// planRetry plans a job whose deployment has failed so that Nomad deploys it again,
// which Nomad does for a changed spec only. The mark is the same for each plan of that
// version.
func (s *step) planRetry(ctx context.Context, c nomad.Clients, version uint64) error {
	s.Job.Job = Restarted(s.Job.Job, fmt.Sprintf("after the failed version %d", version))
	s.retry = fmt.Sprintf("the deployment of this same spec failed (version %d)", version)
	return s.askPlan(ctx, c)
}

// startsNothing reports whether the job is there and Nomad would register a
// changed spec without starting an allocation: what has failed stays failed.
func (s *step) startsNothing() bool {
	if s.unchanged() || s.plan.JobModifyIndex == 0 || s.restarted() || s.plan.Annotations == nil || s.spec.perNode() || s.spec.finite() {
		return false
	}
	return !s.wouldStart()
}

// makePlan plans one job.
func (s *step) makePlan(ctx context.Context, c nomad.Clients, o Options) error {
	if err := s.setCounts(ctx, c, o.Released, false); err != nil {
		return err
	}
	if err := s.askPlan(ctx, c); err != nil {
		return err
	}
	if mark := restartMark(s.plan.Diff); mark != "" && o.KeepRestarts {
		s.Job.Job = Restarted(s.Job.Job, mark)
		if err := s.askPlan(ctx, c); err != nil {
			return err
		}
	}
	s.recreate = retyped(s.plan)
	s.retyped = s.recreate != ""
	return nil
}

func (s *step) askPlan(ctx context.Context, c nomad.Clients) error {
	var err error
	if s.plan, _, err = c.Nomad.Jobs().Plan(s.Job.Job, true, s.spec.write(ctx)); err != nil {
		return fmt.Errorf("planning job %q: %w", s.spec.id, nomad.Plain(err))
	}
	quiet(s.plan)
	if d := s.plan.Diff; d != nil && s.plan.JobModifyIndex == 0 {
		s.plan.Diff = &api.JobDiff{Type: d.Type, ID: d.ID} // that of a new job is its whole spec
	}
	return nil
}

// Same reports whether the registered job equals job, except for the counts of groups
// with a scaling block, and returns its JobModifyIndex. Nomad's own plan does not show
// that: see setCounts and quiet.
func Same(ctx context.Context, c nomad.Clients, job *api.Job) (bool, uint64, error) {
	s, err := compare(ctx, c, job)
	if err != nil {
		return false, 0, err
	}
	return s.unchanged(), s.plan.JobModifyIndex, nil
}

// compare plans a job as it would be with the counts that it has now.
func compare(ctx context.Context, c nomad.Clients, job *api.Job) (*step, error) {
	s := &step{Job: render.Job{Job: job}, spec: specOf(job)}
	if err := s.setCounts(ctx, c, nil, true); err != nil {
		return nil, err
	}
	return s, s.askPlan(ctx, c)
}

// RestartMeta is the job's meta that says when it was last redeployed. It is
// the one thing that drover ever writes into a job beside what the stack says:
// a change of meta is what makes Nomad replace allocations by the job's own
// update block, with its health checks, canaries and rollback.
const RestartMeta = "drover_redeploy"

// Restarted is the job with that mark.
func Restarted(j *api.Job, mark string) *api.Job {
	job := *j
	job.Meta = maps.Clone(job.Meta)
	if job.Meta == nil {
		job.Meta = map[string]string{}
	}
	job.Meta[RestartMeta] = mark
	return &job
}

// restartMark is the mark that the registered job has and the planned one
// has not.
func restartMark(d *api.JobDiff) string {
	if d != nil {
		for _, f := range d.Fields {
			if f.Name == "Meta["+RestartMeta+"]" && f.New == "" {
				return f.Old
			}
		}
	}
	return ""
}

// Rescaled reports whether the registered job had the given JobModifyIndex, and only
// the counts of groups with a scaling block have changed since (GET
// /v1/job/:id/versions?diffs=true).
func Rescaled(ctx context.Context, c nomad.Clients, job *api.Job, index uint64) (bool, error) {
	if index == 0 || !slices.ContainsFunc(job.TaskGroups, scaled) {
		return false, nil
	}
	s := specOf(job)
	versions, diffs, _, err := c.Nomad.Jobs().Versions(s.id, true, s.query(ctx))
	if err != nil {
		return false, fmt.Errorf("reading the versions of job %q: %w", s.id, err)
	}
	for i, v := range versions { // the newest first; each diff is to the next
		if nomad.Deref(v.JobModifyIndex) == index {
			return i > 0, nil
		}
		if i >= len(diffs) || !onlyCounts(diffs[i], v) {
			return false, nil
		}
	}
	return false, nil
}

// quiet corrects a plan that calls a job with a scaling block changed when
// nothing is: Nomad compares the indices of the scaling policy too, which the
// first version of a job has and no spec. Registered, it would even become a
// new version.
//
// Nomad also compares the tag of the version, which no spec has either: a
// tagged job without any difference is planned as an update in place.
func quiet(p *api.JobPlanResponse) {
	if p.Diff == nil || (p.Diff.Type != "None" && !onlyScaling(p.Diff)) {
		return
	}
	p.Diff.Type = "None"
	if p.Annotations != nil {
		for _, u := range p.Annotations.DesiredTGUpdates {
			u.Ignore, u.InPlaceUpdate = u.Ignore+u.InPlaceUpdate, 0
		}
	}
}

// onlyScaling reports whether only the indices of scaling policies differ.
func onlyScaling(d *api.JobDiff) bool { return onlyIn(d, nil) }

// onlyCounts reports whether a version of a job differs only in these indices and in the
// counts of groups with a scaling block.
func onlyCounts(d *api.JobDiff, job *api.Job) bool {
	return onlyIn(d, func(group string) bool {
		return slices.ContainsFunc(job.TaskGroups, func(g *api.TaskGroup) bool { return nomad.Deref(g.Name) == group && scaled(g) })
	})
}

// onlyIn is onlyScaling with groups whose count may differ too.
func onlyIn(d *api.JobDiff, counted func(group string) bool) bool {
	if d.Type != "Edited" {
		return false
	}
	field := func(f *api.FieldDiff) bool { return f.Type != "None" }
	object := func(o *api.ObjectDiff) bool {
		return o.Type != "None" && (o.Name != "Scaling" || len(o.Fields)+len(o.Objects) > 0)
	}
	if slices.ContainsFunc(d.Fields, field) || slices.ContainsFunc(d.Objects, object) {
		return false
	}
	for _, g := range d.TaskGroups {
		count := func(f *api.FieldDiff) bool { return f.Name == "Count" && counted != nil && counted(g.Name) }
		other := func(f *api.FieldDiff) bool { return field(f) && !count(f) }
		if g.Type == "Added" || g.Type == "Deleted" || slices.ContainsFunc(g.Fields, other) || slices.ContainsFunc(g.Objects, object) ||
			slices.ContainsFunc(g.Tasks, func(t *api.TaskDiff) bool { return t.Type != "None" }) {
			return false
		}
	}
	return true
}

// retyped says why Nomad would refuse to register the job over the one that
// is there; its plan does not. A periodic or parameterized job and one of
// another type can only be purged first.
func retyped(p *api.JobPlanResponse) string {
	if p.Diff == nil || p.JobModifyIndex == 0 {
		return ""
	}
	for _, f := range p.Diff.Fields {
		if f.Name == "Type" && f.Type == "Edited" {
			return fmt.Sprintf("its type changes from %s to %s", f.Old, f.New)
		}
	}
	for _, o := range p.Diff.Objects {
		kind := map[string]string{"Periodic": "periodic", "ParameterizedJob": "parameterized"}[o.Name]
		switch {
		case kind != "" && o.Type == "Added":
			return "it becomes " + kind
		case kind != "" && o.Type == "Deleted":
			return "it is " + kind + " no more"
		}
	}
	return ""
}

// findFormer keeps those of the last release's jobs that are still there and
// have no successor in the plan.
func (p *Plan) findFormer(ctx context.Context, former []Former) error {
	planned := map[nomad.JobID]bool{}
	for _, s := range p.steps {
		planned[p.clients.Defaults.Of(s.Job.Job)] = true
	}
	there := make([]bool, len(former))
	err := parallel.Each(len(former), 8, func(i int) error {
		f := &former[i]
		if planned[p.clients.Defaults.JobID(f.Region, f.Namespace, f.JobID)] {
			return nil
		}
		q := (&api.QueryOptions{Namespace: f.Namespace, Region: f.Region}).WithContext(ctx)
		job, _, err := p.clients.Nomad.Jobs().Info(f.JobID, q)
		switch {
		case nomad.IsNotFound(err):
			return nil
		case err != nil:
			return fmt.Errorf("reading job %q: %w", f.JobID, err)
		}
		f.index, f.running = nomad.Deref(job.JobModifyIndex), nomad.Deref(job.Status) == "running"
		// A child of a periodic or dispatched job is its parent's.
		there[i] = (f.Stopped || !nomad.Deref(job.Stop)) && nomad.Deref(job.ParentID) == ""
		return nil
	})
	for i, f := range former {
		if there[i] {
			p.former = append(p.former, f)
		}
	}
	return err
}

// Jobs are the jobs as Apply registers them: those that Prepare was given,
// with the counts that autoscaled groups have now.
func (p *Plan) Jobs() []render.Job {
	out := make([]render.Job, len(p.steps))
	for i, s := range p.steps {
		out[i] = s.Job
	}
	return out
}

// Spare removes jobs from those that the plan stops.
func (p *Plan) Spare(spared func(Change) bool) {
	p.former = slices.DeleteFunc(p.former, func(f Former) bool { return spared(f.change()) })
}

// Watched returns the jobs that run, or have run, in the cluster once the plan
// is applied: all but those that Nomad collected after their end.
func (p *Plan) Watched() []render.Job {
	var out []render.Job
	for _, s := range p.steps {
		if s.completed == nil {
			out = append(out, s.Job)
		}
	}
	return out
}

// NeedsReplace is the error of a job that Nomad can only recreate, which was not
// allowed.
type NeedsReplace struct {
	JobID  string
	Reason string // "its type changes from service to batch"
}

func (e *NeedsReplace) Error() string {
	return fmt.Sprintf("job %q has to be recreated: %s, which Nomad refuses for a registered job; allow it with --replace", e.JobID, e.Reason)
}

// Allowed is an error for each job that needs Options.Replace and is applied
// without.
func (p *Plan) Allowed() error {
	var errs []error
	for _, s := range p.steps {
		errs = append(errs, s.allowed(p.opts))
	}
	return errors.Join(errs...)
}

func (s *step) allowed(o Options) error {
	if s.retyped && !o.Replace {
		return &NeedsReplace{s.spec.id, s.recreate}
	}
	return nil
}

// Unchanged reports whether applying the plan would write nothing.
func (p *Plan) Unchanged() bool {
	return !slices.ContainsFunc(p.steps, func(s *step) bool { return !s.unchanged() || !s.healthy })
}
