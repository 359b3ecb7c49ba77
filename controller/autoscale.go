package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/autoscale"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
)

const (
	// scaleTick is how often due policies are looked for.
	scaleTick = time.Second
	// scaleParallel is how many policies are evaluated at the same time.
	scaleParallel = 4
	// scaleTimeout is how long an evaluation may take.
	scaleTimeout = 10 * time.Second
	// foreignFor is how long an event of nomad-autoscaler keeps drover from scaling a
	// group. The longest cooldowns are shorter.
	foreignFor = time.Hour
)

// Autoscale is how the controller scales.
type Autoscale struct {
	// DryRun reports decisions and changes no count.
	DryRun bool
	// Prometheus returns the address of the API for source prometheus, such as
	// http://127.0.0.1:8428. nil disables the source.
	Prometheus func(context.Context) (string, error)
	// Edge returns where the instances of the edge export metrics, by ID, for source edge.
	// nil disables the source.
	Edge func(context.Context) (map[string]string, error)
	// EdgeCredentials are USER:PASSWORD for these metrics; empty for none.
	EdgeCredentials string
}

// The states of a scaled group, as drover_autoscale_state has them.
const (
	scaleSteady     = "steady"     // the count is as the checks want it
	scaleChanged    = "changed"    // the count was changed by the last evaluation
	scaleCooldown   = "cooldown"   // a change waits for the cooldown
	scaleRelease    = "release"    // an open release changes the service
	scaleDeployment = "deployment" // a deployment of the job runs
	scaleNoData     = "no-data"    // a check has no data
	scaleConflict   = "conflict"   // nomad-autoscaler scales it
	scaleInvalid    = "invalid"    // the scaling block has a mistake
	scaleFailed     = "failed"     // Nomad refused the change
	scaleDryRun     = "dry-run"    // a change was left out
)

var scaleStates = []string{
	scaleSteady, scaleChanged, scaleCooldown, scaleRelease, scaleDeployment, scaleNoData, scaleConflict, scaleInvalid, scaleFailed, scaleDryRun,
}

// scaler is what the leader knows of groups with a scaling block.
type scaler struct {
	c        *controller
	observed *observed
	sources  *sources

	mu     sync.Mutex
	jobs   map[nomad.JobID]*scaledJob
	counts map[[2]string]int // changes by direction and whether they are of a dry run
}

// scaledJob is a job of a stack. Most have no groups: they have no scaling block.
type scaledJob struct {
	index  uint64 // JobModifyIndex
	groups []*scaledGroup
}

// scaledGroup is one group with a scaling block.
type scaledGroup struct {
	job    nomad.JobID
	stack  string // STACK/ENVIRONMENT
	line   observedLine
	policy autoscale.Policy
	labels []string // of its metrics
	// cpu and memory are what its tasks reserve, in MHz and MB.
	cpu, memory int
	invalid     string

	next    time.Time // of the next evaluation
	desired int
	want    int
	state   string
	reason  string
}

// autoscale evaluates the scaling blocks of the services of all stacks.
func (c *controller) autoscale(ctx context.Context) {
	if c.c.Nomad == nil || c.c.Autoscale == nil {
		return
	}
	var o *observed
	for o == nil && wait(ctx, scaleTick/10) { // observe begins at the same time
		o = c.metrics.observing()
	}
	s := &scaler{c: c, observed: o, sources: newSources(c.c), jobs: map[nomad.JobID]*scaledJob{}, counts: map[[2]string]int{}}
	c.metrics.scale(s)
	var last string
	for wait(ctx, scaleTick) {
		err := s.tick(ctx)
		if ctx.Err() != nil {
			return
		}
		if c.warn("autoscale", &last, err); err == nil {
			c.metrics.done("autoscale")
		}
	}
}

// tick reads the jobs that have changed and evaluates the policies that are due.
func (s *scaler) tick(ctx context.Context) error {
	stale, due := s.look(s.c.clock.Now())
	var errs []error
	for _, g := range stale {
		if err := s.read(ctx, g); err != nil {
			errs = append(errs, err)
		}
	}
	slots := make(chan struct{}, scaleParallel)
	var wg sync.WaitGroup
	for _, g := range due {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, scaleTimeout)
			defer cancel()
			s.evaluate(ctx, g)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// look returns the jobs that have changed since they were read, and the groups that are
// due. It forgets jobs that no stack has any more.
func (s *scaler) look(now time.Time) (stale []scaledGroup, due []*scaledGroup) {
	s.observed.mu.Lock()
	defer s.observed.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.observed.read[listRecords] || !s.observed.read[listJobs] || !s.observed.read[listAllocations] || !s.observed.read[listDeployments] {
		return nil, nil
	}
	known := map[nomad.JobID]bool{}
	for full, st := range s.observed.stacks {
		for _, l := range st.lines {
			job, registered := s.observed.jobs[l.job]
			if l.elsewhere || !l.runs || !registered || job.Stop || known[l.job] {
				continue
			}
			known[l.job] = true
			j := s.jobs[l.job]
			if j == nil || j.index < job.JobModifyIndex { // the list may be older than an own change
				stale = append(stale, scaledGroup{job: l.job, stack: full, line: l})
				continue
			}
			for _, g := range j.groups {
				if g.line = l; !g.next.After(now) {
					g.next = following(now, g.policy.Interval)
					due = append(due, g)
				}
			}
		}
	}
	maps.DeleteFunc(s.jobs, func(id nomad.JobID, _ *scaledJob) bool { return !known[id] })
	return stale, due
}

// read reads the scaling blocks of a job (GET /v1/job/:id).
func (s *scaler) read(ctx context.Context, of scaledGroup) error {
	job, _, err := s.c.c.Nomad.Jobs().Info(of.job.ID, (&api.QueryOptions{Namespace: of.job.Namespace}).WithContext(ctx))
	if nomad.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read job %s: %w", of.job.ID, err)
	}
	out := &scaledJob{index: nomad.Deref(job.JobModifyIndex)}
	stackName, env, _ := strings.Cut(of.stack, "/")
	now := s.c.clock.Now()
	for _, tg := range job.TaskGroups {
		if tg.Scaling == nil || !nomad.DerefOr(tg.Scaling.Enabled, true) || len(tg.Scaling.Policy) == 0 {
			continue
		}
		p, problems := autoscale.Parse(tg.Scaling)
		p.Namespace, p.Job, p.Group = of.job.Namespace, of.job.ID, nomad.Deref(tg.Name)
		g := of
		g.policy, g.desired, g.want, g.next = p, nomad.DerefOr(tg.Count, 1), nomad.DerefOr(tg.Count, 1), following(now, p.Interval)
		g.labels = []string{"stack", stackName, "environment", env, "target", of.line.target, "service", of.line.service, "group", p.Group}
		for _, t := range tg.Tasks {
			if t.Resources != nil {
				g.cpu, g.memory = g.cpu+nomad.Deref(t.Resources.CPU), g.memory+nomad.Deref(t.Resources.MemoryMB)
			}
		}
		if len(problems) > 0 {
			g.invalid = problems[0].Message + ". " + problems[0].Remedy
		}
		out.groups = append(out.groups, &g)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// A change of the count must not delay the next evaluation.
	if before := s.jobs[of.job]; before != nil {
		for _, g := range out.groups {
			for _, old := range before.groups {
				if old.policy.Group == g.policy.Group {
					g.state, g.reason, g.next = old.state, old.reason, earlier(g.next, old.next)
				}
			}
		}
	}
	s.jobs[of.job] = out
	return nil
}

// following returns the next multiple of an interval. Policies with the same interval are
// evaluated together, so that they share one read of the edge.
func following(now time.Time, interval time.Duration) time.Time {
	return now.Truncate(interval).Add(interval)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// set notes the result of an evaluation, and reports it if the state has changed.
func (s *scaler) set(g *scaledGroup, state, reason string, desired, want int) {
	s.mu.Lock()
	before := g.state
	g.state, g.reason, g.desired, g.want = state, reason, desired, want
	s.mu.Unlock()
	where := fmt.Sprintf("group %s of service %s of stack %s", g.policy.Group, g.line.service, g.stack)
	switch {
	case state == scaleChanged:
		s.c.say("scaled", "%s: %d to %d because %s", where, desired, want, reason)
	case before == state:
	case state == scaleSteady && isTrouble(before):
		s.c.say("scaling", "%s: the count %d is as its checks want it: %s", where, desired, reason)
	case state == scaleCooldown, state == scaleDryRun, isTrouble(state):
		s.c.say("scaling", "%s: %s, the count stays %d: %s", where, state, desired, reason)
	}
}

// isTrouble reports whether a state needs attention.
func isTrouble(state string) bool {
	return state == scaleNoData || state == scaleConflict || state == scaleInvalid || state == scaleFailed
}

// deploymentRuns reports whether the newest deployment of a job is not over. Nomad scales
// no job during one.
func (s *scaler) deploymentRuns(id nomad.JobID) bool {
	switch s.observed.deployments[id].Status {
	case api.DeploymentStatusRunning, api.DeploymentStatusPaused, api.DeploymentStatusPending, api.DeploymentStatusBlocked, api.DeploymentStatusUnblocking:
		return true
	}
	return false
}

// isChanging reports whether the newest release of a stack is open and changes a service.
func isChanging(st *observedStack, id nomad.JobID) bool {
	if st == nil || st.head == nil {
		return true // unknown
	}
	return st.head.State == record.Unreadable || st.head.State.Open() && slices.ContainsFunc(st.lines, func(l observedLine) bool { return l.job == id && l.change != record.ChangeNone })
}

// evaluate runs the checks of a group and changes its count.
func (s *scaler) evaluate(ctx context.Context, g *scaledGroup) {
	s.observed.mu.Lock()
	st := s.observed.stacks[g.stack]
	group := autoscale.Group{Desired: g.desired}
	if summary := s.observed.jobs[g.job].JobSummary; summary != nil {
		group.Running = summary.Summary[g.policy.Group].Running
	}
	changing, deploying := isChanging(st, g.job), s.deploymentRuns(g.job)
	foreign := s.foreignJob()
	s.observed.mu.Unlock()
	switch {
	case g.invalid != "":
		s.set(g, scaleInvalid, g.invalid, group.Desired, group.Desired)
		return
	case foreign != "":
		s.set(g, scaleConflict, fmt.Sprintf("job %s is HashiCorp's autoscaler: stop it, or set autoscale of the controller to off", foreign), group.Desired, group.Desired)
		return
	case changing:
		s.set(g, scaleRelease, "a release of the service is open", group.Desired, group.Desired)
		return
	case deploying:
		s.set(g, scaleDeployment, "a deployment of the job runs", group.Desired, group.Desired)
		return
	}
	now := s.c.clock.Now()
	r := &readings{s: s, g: g, now: now, running: group.Running}
	d := autoscale.Evaluate(ctx, g.policy, group, now, r.read)
	if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return
	}
	if !d.Changes(group) && d.Cooldown.IsZero() {
		s.settle(g, d, group)
		return
	}
	// The lists may be seconds old. Before a change, all is read again.
	s.change(ctx, g, now, r)
}

// readings are the samples of one evaluation.
type readings struct {
	s       *scaler
	g       *scaledGroup
	now     time.Time
	running int
	of      map[string]reading // by check
}

type reading struct {
	samples []float64
	err     error
}

// read returns the samples of a check. It reads them once.
func (r *readings) read(ctx context.Context, c autoscale.Check) ([]float64, error) {
	is, known := r.of[c.Name]
	if !known {
		is.samples, is.err = r.s.sources.read(ctx, r.s, r.g, c, r.now, r.running)
		if r.of == nil {
			r.of = map[string]reading{}
		}
		r.of[c.Name] = is
	}
	return is.samples, is.err
}

// settle notes a decision that changes nothing.
func (s *scaler) settle(g *scaledGroup, d autoscale.Decision, group autoscale.Group) {
	switch {
	case len(d.Missing) > 0:
		s.set(g, scaleNoData, strings.Join(d.Missing, "; "), group.Desired, d.Want)
	case !d.Cooldown.IsZero():
		s.set(g, scaleCooldown, d.Reason, group.Desired, d.Want)
	default:
		s.set(g, scaleSteady, d.Reason, group.Desired, d.Want)
	}
}

// change evaluates again with the state of now (GET /v1/job/:id/scale), and writes the
// count (PUT /v1/job/:id/scale).
func (s *scaler) change(ctx context.Context, g *scaledGroup, now time.Time, r *readings) {
	status, _, err := s.c.c.Nomad.Jobs().ScaleStatus(g.job.ID, (&api.QueryOptions{Namespace: g.job.Namespace}).WithContext(ctx))
	if err != nil {
		s.set(g, scaleFailed, fmt.Sprintf("cannot read the scaling events of job %s: %s", g.job.ID, err), g.desired, g.desired)
		return
	}
	tg, known := status.TaskGroups[g.policy.Group]
	if !known || status.JobStopped {
		return // the next look reads the job again
	}
	group := autoscale.Group{Desired: tg.Desired, Running: tg.Running}
	dryCount := -1
	for _, e := range tg.Events { // the newest first
		at := time.Unix(0, int64(e.Time))
		if e.Meta[autoscale.MetaForeign] != nil && e.Meta[autoscale.MetaBy] == nil && now.Sub(at) < foreignFor {
			s.set(g, scaleConflict, fmt.Sprintf("nomad-autoscaler scaled the group at %s: %s", at.UTC().Format(time.RFC3339), e.Message), group.Desired, group.Desired)
			return
		}
		if n, ok := e.Meta[autoscale.MetaDryRun].(float64); ok && dryCount < 0 && group.Changed.IsZero() {
			dryCount = int(n)
		}
		if e.Count != nil && group.Changed.IsZero() && !e.Error {
			group.Changed, group.Raised = at, *e.Count > e.PreviousCount
		}
	}
	if r.running != group.Running { // averages are of other instances
		r = &readings{s: s, g: g, now: now, running: group.Running}
	}
	d := autoscale.Evaluate(ctx, g.policy, group, now, r.read)
	if !d.Changes(group) {
		s.settle(g, d, group)
		return
	}
	if open, err := s.isOpen(ctx, g); open || err != nil {
		reason := "a release of the service is open"
		if err != nil {
			reason = err.Error()
		}
		s.set(g, scaleRelease, reason, group.Desired, d.Want)
		return
	}
	s.write(ctx, g, group, d, dryCount)
}

// isOpen reads whether a release of the service has begun since the lists were read.
func (s *scaler) isOpen(ctx context.Context, g *scaledGroup) (bool, error) {
	indexes, _, err := record.Indexes(ctx, s.c.c.Nomad, &api.QueryOptions{})
	if err != nil {
		return false, err
	}
	s.observed.mu.Lock()
	before := s.observed.stacks[g.stack]
	s.observed.mu.Unlock()
	for _, x := range indexes {
		if x.Stack+"/"+x.Environment == g.stack {
			st, err := s.c.observeStack(ctx, s.observed.home, before, x)
			return err != nil || isChanging(st, g.job), err
		}
	}
	return true, nil // the stack was destroyed
}

// write writes a scaling event, with a count unless this is a dry run.
func (s *scaler) write(ctx context.Context, g *scaledGroup, group autoscale.Group, d autoscale.Decision, dryCount int) {
	dry := s.c.c.Autoscale.DryRun || g.policy.DryRun
	s.mu.Lock()
	index := uint64(0)
	if j := s.jobs[g.job]; j != nil { // JobModifyIndex in the answer of GET /v1/job/:id/scale is another index
		index = j.index
	}
	s.mu.Unlock()
	req := &api.ScalingRequest{
		Target:  map[string]string{"Job": g.job.ID, "Group": g.policy.Group},
		Message: d.Reason, Meta: map[string]any{autoscale.MetaBy: "controller", autoscale.MetaCheck: d.Check}, JobModifyIndex: index,
	}
	state := scaleChanged
	if count := int64(d.Want); dry {
		state, req.Meta[autoscale.MetaDryRun] = scaleDryRun, count
		if dryCount == d.Want { // the event is there
			s.set(g, state, fmt.Sprintf("wants %d: %s", d.Want, d.Reason), group.Desired, d.Want)
			return
		}
	} else {
		req.Count = &count
	}
	res, _, err := s.c.c.Nomad.Jobs().ScaleWithRequest(g.job.ID, req, (&api.WriteOptions{Namespace: g.job.Namespace}).WithContext(ctx))
	switch {
	case err == nil:
	case nomad.StatusCode(err) == http.StatusBadRequest && strings.Contains(nomad.Body(err), "active deployment"):
		s.set(g, scaleDeployment, "a deployment of the job runs", group.Desired, d.Want)
		return
	case nomad.IsStaleJob(err):
		s.mu.Lock()
		delete(s.jobs, g.job) // read it again
		s.mu.Unlock()
		return
	case nomad.IsForbidden(err):
		s.set(g, scaleFailed, fmt.Sprintf("the controller may not scale job %s in namespace %s: run drover acl bootstrap --autoscale", g.job.ID, g.job.Namespace), group.Desired, d.Want)
		return
	default:
		s.set(g, scaleFailed, fmt.Sprintf("cannot scale job %s: %s", g.job.ID, err), group.Desired, d.Want)
		return
	}
	direction := "down"
	if d.Want > group.Desired {
		direction = "up"
	}
	s.mu.Lock()
	s.counts[[2]string{direction, strconv.FormatBool(dry)}]++
	s.mu.Unlock()
	reason := d.Reason
	if dry {
		reason = fmt.Sprintf("wants %d: %s", d.Want, d.Reason)
	}
	s.set(g, state, reason, group.Desired, d.Want)
	if !dry {
		s.mu.Lock()
		defer s.mu.Unlock()
		g.desired = d.Want
		if j := s.jobs[g.job]; j != nil {
			j.index = max(j.index, res.JobModifyIndex)
		}
	}
}

// foreignJob returns the ID of a job that is HashiCorp's autoscaler, "" if there is none.
// The caller holds the lock of observed.
func (s *scaler) foreignJob() string {
	for namespace := range s.observed.namespaces {
		for _, id := range []string{"nomad-autoscaler", "autoscaler"} {
			if job, known := s.observed.jobs[s.observed.home.JobID("", namespace, id)]; known && !job.Stop && job.Status == "running" {
				return id
			}
		}
	}
	return ""
}

// writeMetrics writes what is known of scaling.
func (s *scaler) writeMetrics(e *exposition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var groups []*scaledGroup
	for _, j := range s.jobs {
		groups = append(groups, j.groups...)
	}
	slices.SortFunc(groups, func(a, b *scaledGroup) int { return slices.Compare(a.labels, b.labels) })
	each := func(name, help string, f func(g *scaledGroup, sample func(value float64, more ...string))) {
		e.family(name, "gauge", help)
		for _, g := range groups {
			f(g, func(value float64, more ...string) { e.sample(name, value, slices.Concat(g.labels, more)...) })
		}
	}
	one := func(f func(g *scaledGroup) int) func(*scaledGroup, func(float64, ...string)) {
		return func(g *scaledGroup, sample func(float64, ...string)) { sample(float64(f(g))) }
	}
	each("drover_autoscale_count", "The count of a group with a scaling block; the leader looks.", one(func(g *scaledGroup) int { return g.desired }))
	each("drover_autoscale_wanted", "The count that the checks want, within the bounds.", one(func(g *scaledGroup) int { return g.want }))
	each("drover_autoscale_min", "The least count of the scaling block.", one(func(g *scaledGroup) int { return g.policy.Min }))
	each("drover_autoscale_max", "The greatest count of the scaling block.", one(func(g *scaledGroup) int { return g.policy.Max }))
	each("drover_autoscale_state", "1 for the result of the last evaluation.", func(g *scaledGroup, sample func(float64, ...string)) {
		for _, state := range scaleStates {
			sample(number(g.state == state), "state", state)
		}
	})
	e.family("drover_autoscale_changes_total", "counter", "Counts that this replica has changed, or would have in a dry run.")
	for _, k := range slices.SortedFunc(maps.Keys(s.counts), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
		e.sample("drover_autoscale_changes_total", float64(s.counts[k]), "direction", k[0], "dry_run", k[1])
	}
}
