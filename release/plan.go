package release

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// Request is what a release is to bring about.
type Request struct {
	Kind                string
	Of                  int // a rollback: the release that it goes back to
	Version, AppVersion string
	UpgradeFrom         []string        // see stack.Stack
	Exclusive           string          // see stack.Stack
	Values              json.RawMessage // of the variables, without secrets; may be nil
	Checks              json.RawMessage // of the stack, without credentials; may be nil
	SecretVariables     []string        // of the stack: older records may hold their values
	DNS                 string          // see record.Release

	Targets []*stack.Target
	Waves   []*stack.Wave
	Jobs    []render.Job
	// Partial is set if Jobs are not all jobs of the stack. The others are not changed,
	// and none is pruned.
	Partial bool

	Message   string
	OnFailure string // one of the constants, or "" for the default
	TakeOver  bool   // a release that is in the way is abandoned
	Adopt     bool   // jobs of others under our IDs are taken over
	// Prune allows to stop running jobs that are not in the stack any more; see
	// also Plan.AllowPrune.
	Prune bool
	// Forget are targets that are not in the environment any more and whose
	// jobs are neither stopped nor recorded any longer.
	Forget []string

	// Only selects what a destroy stops.
	Only Only

	// Unattended is set for a release that a schedule makes.
	Unattended *Unattended

	// AllowUnplaceable lets services wait for a node that have no place now.
	AllowUnplaceable bool
	// Volumes are the host volumes to create before anything is submitted, by target.
	// VolumeSpecs has the parameters that the stack gives for them.
	Volumes     map[string][]rollout.MissingVolume
	VolumeSpecs []*stack.Volume

	reverse  bool // dependants first, where that is possible
	readOnly bool // nothing will be written, and secrets are not read

	// KeepRestarts is rollout.Options.KeepRestarts: the jobs are rendered, not
	// from a record.
	KeepRestarts bool

	// Secrets are what the stack's files declare: missing ones are made, and
	// certificates renewed. A request that is made from a record has none.
	Secrets []*stack.Secret
}

// RequestFor returns a request for all rendered jobs of a stack.
func RequestFor(s *stack.Stack, jobs []render.Job, values json.RawMessage) Request {
	var checks json.RawMessage
	if len(s.Checks) > 0 {
		// #nosec G117 -- public checks have no password; strings, numbers and lists do not fail
		checks, _ = json.Marshal(s.PublicChecks())
	}
	return Request{Kind: KindDeploy, Version: s.Version, AppVersion: s.AppVersion, UpgradeFrom: s.UpgradeFrom, Exclusive: s.Exclusive, Values: values, Checks: checks, SecretVariables: s.SecretVariables,
		Targets: s.Targets, Waves: s.Waves, Jobs: jobs, Secrets: s.Secrets, VolumeSpecs: s.Volumes, KeepRestarts: true}
}

// Plan is what a release would do. Nothing has been written yet.
type Plan struct {
	Parts []*Part // in the order of the waves

	stack     string
	env       string
	req       Request
	last      *record.Release  // nil before the first one
	lines     []record.Service // of last
	runs      []record.Service // what runs: lines or, of an open release, its own
	specs     map[string]record.Packed
	clusters  map[string]Cluster
	defaults  map[string]nomad.Defaults // of each target
	moved     map[jobKey]bool           // jobs that the record has under another target's name, by both names
	forgotten []record.Service          // see Request.Forget
	retired   []*stack.Target           // of the last release, and not in the environment any more
	away      map[string]error          // unreachable targets of a resumed release
	foreign   []ForeignJob              // see Foreign
	spared    []ForeignJob              // see Spared
	agreed    bool                      // of a resumed release: replacements were allowed when it began
	secrets   *record.SecretChanges     // nil when there are no secrets

	withoutSecrets bool         // the token may not read those of jobs: they stay as they are
	prune          bool         // see AllowPrune
	shared         []SharedName // see SharedNames
}

// Part is what a wave does in one target.
type Part struct {
	Wave   int // index into the request's waves
	Target string
	Jobs   []render.Job // as requested
	Plan   Rollout

	changes  []rollout.Change // of Jobs, one each
	stops    []rollout.Change
	former   []rollout.Former  // that the last release left, and may have to stop
	digests  []string          // of the specs that will be registered for Jobs, one each
	outlines []json.RawMessage // of these specs
	run      *run              // whose journal is written, once there is one
}

// Unchanged reports whether the release would write nothing.
func (p *Plan) Unchanged() bool {
	return !p.ends() && len(p.forgotten) == 0 && p.secrets.Empty() && !p.takesIn() && !slices.ContainsFunc(p.Parts, func(part *Part) bool { return len(part.stops) > 0 || !part.Plan.Unchanged() })
}

// takesIn reports whether a job that the plan does not change becomes the stack's: it
// is registered, and the newest release does not run it.
func (p *Plan) takesIn() bool {
	return slices.ContainsFunc(p.suspects(), func(s suspect) bool { return s.same && !s.runs })
}

// Change is what the release would do with a service, and in which wave.
type Change struct {
	rollout.Change
	Wave string `json:"wave,omitempty"`
}

// Changes returns all that the release would do: first the jobs that stop
// because they are not in the stack any more, although they stop last; then the
// others by wave, in the order of the services.
func (p *Plan) Changes() []Change {
	var out, stops []Change
	for _, part := range p.Parts {
		wave := p.req.Waves[part.Wave].Name
		for _, c := range part.Plan.Changes() {
			if c.Target = part.Target; c.Action == rollout.ActionStop {
				stops = append(stops, Change{Change: c})
			} else {
				out = append(out, Change{c, wave})
			}
		}
	}
	for i := range stops {
		stops[i].RenamedTo = renamed(stops[i], out)
	}
	return append(stops, out...)
}

// renamed returns the job that is created for the service of a job that stops.
func renamed(stop Change, others []Change) string {
	for _, c := range others {
		if c.Service == stop.Service && c.Target == stop.Target && c.Action == rollout.ActionCreate {
			return c.JobID
		}
	}
	return ""
}

// Rollouts are the plans of all targets and waves.
func (p *Plan) Rollouts() []Rollout {
	var out []Rollout
	for _, part := range p.Parts {
		out = append(out, part.Plan)
	}
	return out
}

// Placeable returns an error with a *rollout.Unplaceable for each service for
// which no node has room, unless Request.AllowUnplaceable is set. See
// [rollout.Plan.Placeable].
func (p *Plan) Placeable() error {
	if p.req.AllowUnplaceable {
		return nil
	}
	var errs []error
	for _, part := range p.Parts {
		errs = append(errs, part.Plan.Placeable(p.req.Volumes[part.Target]))
	}
	return errors.Join(errs...)
}

// Forgotten are the services, as SERVICE@TARGET, that Request.Forget leaves.
func (p *Plan) Forgotten() []string {
	var out []string
	for _, l := range p.forgotten {
		out = append(out, render.Job{Service: l.Name, Target: l.Target}.Name())
	}
	return out
}

// Last is the newest release, nil when there is none.
func (p *Plan) Last() *record.Release { return p.last }

// Plan finds out what a release would do. It refuses, before anything is
// touched: an *OpenError, a *ForeignError, a *TooLargeError, a
// *RecordTooLargeError.
func (d *Deployer) Plan(ctx context.Context, req Request) (*Plan, error) {
	if req.Kind == KindDestroy {
		return d.planDestroy(ctx, req)
	}
	p := &Plan{stack: d.Releases.Stack(), env: d.Releases.Environment(), req: req, specs: map[string]record.Packed{}, clusters: map[string]Cluster{}}
	var err error
	if p.last, err = d.latest(ctx, req.TakeOver); err != nil {
		return nil, err
	}
	if p.last != nil {
		if err := p.last.MoveError(); err != nil && !req.Adopt {
			return nil, err
		}
		if p.lines, err = d.Releases.Services(ctx, p.last); err != nil {
			return nil, err
		}
		if err := d.checkUpgrade(ctx, p); err != nil {
			return nil, err
		}
		if err := d.checkExclusive(ctx, p); err != nil {
			return nil, err
		}
	}
	p.runs = p.lines
	if p.Parts, err = assignWaves(req.Jobs, req.Waves); err != nil {
		return nil, err
	}
	p.noteDefaults(d.Defaults, req.Targets)
	if err := d.dial(ctx, p); err != nil {
		return nil, err
	}
	if err := p.checkDistinct(); err != nil {
		return nil, err
	}
	p.addFormer()
	if err := d.retire(ctx, p); err != nil {
		return nil, err
	}
	if err := d.prepare(ctx, p); err != nil {
		return nil, err
	}
	if err := p.pack(); err != nil {
		return nil, err
	}
	if err := d.fits(p); err != nil {
		return nil, err
	}
	if err := d.findForeign(ctx, p); err != nil {
		return nil, err
	}
	if !req.Adopt {
		if err := p.foreignError(func(ForeignJob) bool { return true }); err != nil {
			return nil, err
		}
	}
	if err := d.findShared(ctx, p); err != nil {
		return nil, err
	}
	if len(p.shared) > 0 && !req.Adopt {
		return nil, &SharedNameError{p.shared}
	}
	if p.Conflict() != nil {
		return p, nil // what secrets its jobs have is for their owner to see
	}
	if err := d.previewSecrets(ctx, p); err != nil {
		return nil, err
	}
	return p, nil
}

// latest returns the newest release. If that is open and leave is not set, it waits up
// to Deployer.LockWait for its end, and then returns an *OpenError.
func (d *Deployer) latest(ctx context.Context, leave bool) (*record.Release, error) {
	last, err := d.Releases.Last(ctx)
	if err != nil || last == nil || !last.State.Open() || leave {
		return last, err
	}
	if d.LockWait <= 0 {
		return nil, d.open(ctx, last)
	}
	l, _, err := d.lock(ctx, d.LockWait)
	if err != nil {
		return nil, err
	}
	if err := l.release(ctx); err != nil {
		return nil, err
	}
	if last, err = d.Releases.Last(ctx); err == nil && last.State.Open() {
		err = d.open(ctx, last)
	}
	return last, err
}

// open says who is at a release that is in the way.
func (d *Deployer) open(ctx context.Context, r *record.Release) error {
	holder, err := d.Releases.Holder(ctx)
	if err != nil {
		return err
	}
	if holder != nil {
		return &record.LockedError{Stack: r.Stack, Environment: r.Environment, Holder: *holder}
	}
	return &OpenError{Release: r}
}

// assignWaves groups jobs by the wave that names them and by target. It orders
// the parts by wave, then by target, and keeps the order of the jobs. It returns an
// error for a job that no wave names.
func assignWaves(jobs []render.Job, waves []*stack.Wave) ([]*Part, error) {
	waveOf := map[key]int{}
	for i, w := range waves {
		for _, m := range w.Members {
			waveOf[key{m.Target, m.Service}] = i
		}
	}
	type place struct {
		wave   int
		target string
	}
	parts := map[place]*Part{}
	var out []*Part
	for _, j := range jobs {
		w, ok := waveOf[key{j.Target, j.Service}]
		if !ok {
			return nil, fmt.Errorf("service %s is in no wave", j.Name())
		}
		at := place{w, j.Target}
		if parts[at] == nil {
			parts[at] = &Part{Wave: w, Target: j.Target}
			out = append(out, parts[at])
		}
		parts[at].Jobs = append(parts[at].Jobs, j)
	}
	slices.SortStableFunc(out, func(a, b *Part) int {
		return cmp.Or(cmp.Compare(a.Wave, b.Wave), strings.Compare(a.Target, b.Target))
	})
	return out, nil
}

// dial makes the clients of every target that is needed.
func (d *Deployer) dial(ctx context.Context, p *Plan) error {
	needConsul, needed := map[string]bool{}, map[string]bool{}
	for _, part := range p.Parts {
		needed[part.Target] = true
		needConsul[part.Target] = needConsul[part.Target] || rollout.NeedsConsul(part.Jobs)
	}
	var mu sync.Mutex
	return parallel.Each(len(p.req.Targets), 8, func(i int) error {
		t := p.req.Targets[i]
		if !needed[t.Name] {
			return nil
		}
		c, err := d.Dial(ctx, t, needConsul[t.Name])
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		p.dialled(t, c)
		return nil
	})
}

// addFormer adds the jobs that the last release left and that this one does not
// have to the last part of their target, which stops them. A partial request stops
// none.
func (p *Plan) addFormer() {
	wanted := map[jobKey]bool{}
	lastPart := map[string]*Part{}
	for _, part := range p.Parts {
		lastPart[part.Target] = part
		for _, j := range part.Jobs {
			wanted[p.jobKey(part.Target, j.Job)] = true
		}
	}
	for _, l := range p.lines {
		part := lastPart[l.Target]
		if !p.req.Partial && part != nil && l.Leftover().Runs && !wanted[p.key(l)] {
			part.former = append(part.former, formerOf(l))
		}
	}
}

// prepare plans every part.
func (d *Deployer) prepare(ctx context.Context, p *Plan) error {
	released, completions, recorded := p.released(), p.completions(), p.recorded()
	listings := p.listings()
	err := parallel.Each(len(p.Parts), 8, func(i int) error {
		part := p.Parts[i]
		opts := d.options()
		opts.Released = func(job *api.Job) map[string]int { return released[p.jobKey(part.Target, job)] }
		opts.Completed = func(ctx context.Context, job *api.Job) (*rollout.Completion, error) {
			return completed(ctx, d.Releases, completions[p.jobKey(part.Target, job)], job)
		}
		opts.Recorded = func(job *api.Job) *rollout.Recorded { return recorded[p.jobKey(part.Target, job)] }
		opts.Listing = listings[part]
		opts.Former, opts.KeepRestarts = part.former, p.req.KeepRestarts
		opts.Replace = opts.Replace || p.agreed
		opts.Before = func(ctx context.Context, s rollout.Submission) error { return part.run.before(ctx, part.Target, s) }
		opts.After = func(_ context.Context, s rollout.Submission, index uint64) error {
			part.run.after(part.Target, s, index)
			return nil
		}
		if p.req.Waves[part.Wave].Promote {
			opts.Canaries = func(ctx context.Context, s rollout.Submission, tell func(string)) rollout.CanaryVerdict {
				return part.run.judge(ctx, part, s, tell)
			}
		}
		opts.Done = func(_ context.Context, s rollout.Submission, res rollout.ServiceResult) {
			part.run.done(part.Target, s, res)
		}
		var err error
		if part.Plan, err = p.clusters[part.Target].Prepare(ctx, part.Jobs, opts); err != nil {
			return err
		}
		changes := part.Plan.Changes()
		part.changes, part.stops = changes[:len(part.Jobs)], changes[len(part.Jobs):]
		return nil
	})
	if err == nil && p.req.reverse && reversible(p.Parts) {
		for _, part := range p.Parts {
			part.Plan.Reverse()
		}
	}
	return err
}

// jobKey identifies a job of a stack.
type jobKey struct {
	target string
	nomad.JobID
}

// key identifies the job of a line.
func (p *Plan) key(l record.Service) jobKey {
	return jobKey{l.Target, p.defaults[l.Target].JobID(l.Region, l.Namespace, l.JobID)}
}

// jobKey identifies a job that is to be registered in a target.
func (p *Plan) jobKey(target string, job *api.Job) jobKey {
	return jobKey{target, p.defaults[target].Of(job)}
}

// changeKey identifies the job of a change.
func (p *Plan) changeKey(target string, c rollout.Change) jobKey {
	return jobKey{target, p.defaults[target].JobID(c.Region, c.Namespace, c.JobID)}
}

// noteDefaults notes the regions and namespaces of jobs that name none, as far as they
// are known without a request. Those of a target that is dialled later replace them.
func (p *Plan) noteDefaults(home nomad.Defaults, targets []*stack.Target) {
	if p.defaults == nil {
		p.defaults = map[string]nomad.Defaults{}
	}
	for _, t := range targets {
		d := nomad.Defaults{Region: t.Region}
		if t.Cluster == nil {
			d = nomad.Defaults{Region: cmp.Or(t.Region, home.Region), Namespace: home.Namespace}
		}
		p.defaults[t.Name] = d
	}
}

// dialled keeps the cluster of a target.
func (p *Plan) dialled(t *stack.Target, c Cluster) {
	p.clusters[t.Name] = c
	p.noteClusterDefaults(t, c)
}

// noteClusterDefaults notes what the clients of a target know of its region and namespace.
func (p *Plan) noteClusterDefaults(t *stack.Target, c Cluster) {
	if known := c.Clients().Defaults; known != (nomad.Defaults{}) {
		p.defaults[t.Name] = known
	}
}

// SameJobError reports two services of a stack that are one job in Nomad.
type SameJobError struct {
	A, B string // SERVICE or SERVICE@TARGET
	Job  nomad.JobID
}

func (e *SameJobError) Error() string {
	return fmt.Sprintf("%s and %s are the same job %q in namespace %s; give one of them another job ID, namespace or region", e.A, e.B, e.Job.ID, e.Job.Namespace)
}

// checkDistinct returns a *SameJobError if two planned jobs are one and the same in
// Nomad, which the files do not show when one of them names the namespace or
// the region of the client.
func (p *Plan) checkDistinct() error {
	type identity struct {
		cluster string
		nomad.JobID
	}
	clusters := map[string]string{}
	for _, t := range p.req.Targets {
		clusters[t.Name] = cluster(t)
	}
	seen := map[identity]string{}
	for _, part := range p.Parts {
		for _, j := range part.Jobs {
			id := identity{clusters[part.Target], p.jobKey(part.Target, j.Job).JobID}
			if other, ok := seen[id]; ok {
				return &SameJobError{other, j.Name(), id.JobID}
			}
			seen[id] = j.Name()
		}
	}
	return nil
}

// released are the counts that the stack asked for in what runs, by job.
func (p *Plan) released() map[jobKey]map[string]int {
	out := map[jobKey]map[string]int{}
	for _, l := range p.runs {
		counts := l.Leftover().Counts
		if l.Step == record.StepSubmitting { // if it has not arrived, these are to be changed
			counts = l.BeforeCounts
		}
		out[p.key(l)] = counts
	}
	return out
}

// recorded is what the record says of the jobs as they are registered.
func (p *Plan) recorded() map[jobKey]*rollout.Recorded {
	out := map[jobKey]*rollout.Recorded{}
	for _, l := range p.runs {
		left := l.Leftover()
		if !left.Runs || left.Digest == "" || left.Index == 0 {
			continue
		}
		out[p.key(l)] = &rollout.Recorded{Index: left.Index, Is: func(j render.Job) (bool, error) {
			digest, err := specDigest(j.Job)
			return digest == left.Digest, err
		}}
	}
	return out
}

// listings are what the parts share that are planned with the same clients or
// with equal ones.
func (p *Plan) listings() map[*Part]*rollout.Listing {
	type reach struct {
		target   string // of a cluster of its own
		defaults nomad.Defaults
	}
	of := func(part *Part) reach {
		r := reach{defaults: p.defaults[part.Target]}
		if p.clusterOf(part.Target) != "" {
			r.target = part.Target
		}
		return r
	}
	jobs := map[reach][]render.Job{}
	for _, part := range p.Parts {
		jobs[of(part)] = append(jobs[of(part)], part.Jobs...)
	}
	shared := map[reach]*rollout.Listing{}
	out := map[*Part]*rollout.Listing{}
	for _, part := range p.Parts {
		r := of(part)
		if shared[r] == nil {
			shared[r] = rollout.NewListing(jobs[r])
		}
		out[part] = shared[r]
	}
	return out
}

// pack makes the blobs, whose size may be the end of it.
func (p *Plan) pack() error {
	for _, part := range p.Parts {
		part.digests, part.outlines = nil, nil
		for _, j := range part.Plan.Jobs() {
			packed, err := packJob(j.Job, string(j.HCL), j.File)
			if err != nil {
				return err
			}
			p.specs[packed.Digest] = packed
			part.digests = append(part.digests, packed.Digest)
			part.outlines = append(part.outlines, rollout.Outline(j.Job))
		}
	}
	return nil
}

// specDigest is the digest that packJob gives a job.
func specDigest(job *api.Job) (string, error) {
	text, err := json.Marshal(job)
	if err != nil {
		return "", fmt.Errorf("encoding job %q: %w", nomad.Deref(job.ID), err)
	}
	return record.Digest(text), nil
}

func packJob(job *api.Job, hcl, file string) (record.Packed, error) {
	text, err := json.Marshal(job)
	if err != nil {
		return record.Packed{}, fmt.Errorf("encoding job %q: %w", nomad.Deref(job.ID), err)
	}
	packed, err := record.Pack(record.Blob{Job: text, HCL: hcl, File: file})
	var large *record.TooLargeError
	if errors.As(err, &large) {
		return packed, &TooLargeError{nomad.Deref(job.ID), err}
	}
	return packed, err
}

// isManaged reports whether the line proves that the stack created or adopted the
// job, and has not removed it since.
func isManaged(l record.Service) bool {
	switch l.Step {
	case record.StepPending, record.StepReverted:
		return l.Planned > 0
	case record.StepPruned:
		return false
	}
	return true
}
