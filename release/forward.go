package release

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/nomad/variables"
	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// run is one release on its way.
type run struct {
	d    *Deployer
	lock *lock
	plan *Plan

	beginning sync.Mutex
	journal   Journal // nil until there is something to record
	head      *record.Release
	withNext  func(*record.Release) // changes the head when it is written next; may be nil
	index     map[jobKey]int        // of the journal's lines that are rolled out

	returning bool // its changes are being reverted

	submitting sync.Mutex
	submitted  map[int]rollout.ServiceResult // what this process has registered, by line
}

var errTimeout = errors.New("the release did not end within --timeout")

// Deploy makes the release that was planned. If another process changed the cluster or
// the record since, it plans again, and the operator has to agree to the new plan.
//
// It returns an error if the release was not begun. Otherwise the result has its
// outcome.
func (d *Deployer) Deploy(ctx context.Context, p *Plan) (Result, error) {
	if p.Unchanged() && !p.takesOver() {
		if err := d.prepareToBegin(ctx, p); err != nil {
			return Result{}, err
		}
		return (&run{d: d, plan: p}).forward(nomad.WithoutPatience(ctx)), nil
	}
	if err := p.PruneAllowed(); err != nil {
		return Result{}, err
	}
	l, waited, err := d.lock(ctx, d.LockWait)
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = l.release(ctx) }()
	last, err := l.last()
	if err != nil {
		return Result{}, err
	}
	if last != nil && last.State.Open() && !p.req.TakeOver {
		return Result{}, &OpenError{Release: last}
	}
	if last != nil && last.State == record.Destroyed && number(last) != number(p.last) && p.req.recorded() {
		return Result{}, &DestroyedError{last}
	}
	if waited || number(last) != number(p.last) || (last != nil && last.State != p.last.State) {
		if p, err = d.Plan(ctx, p.req); err != nil {
			return Result{}, err
		}
		if err := d.operator().Agree(ctx, p); err != nil {
			return Result{}, err
		}
		if err := p.PruneAllowed(); err != nil {
			return Result{}, err
		}
	}
	if missing := p.secrets; missing != nil && len(missing.Missing) > 0 {
		return Result{}, &record.MissingError{Stack: d.Releases.Stack(), Environment: d.Releases.Environment(), Names: missing.Missing}
	}
	r := &run{d: d, lock: l, plan: p}
	instead := p.takesOver()
	if instead {
		if err := d.abandon(ctx, p.last); err != nil {
			return Result{}, err
		}
	}
	if err := d.prepareToBegin(ctx, p); err != nil {
		return Result{}, err
	}
	if err := r.prepareSecrets(ctx); err != nil {
		return Result{}, err
	}
	// A release is also recorded if all its jobs were submitted by the release that it
	// abandons.
	if p.changes() || instead {
		if err := r.begin(ctx); err != nil {
			return Result{}, err
		}
	}
	return r.walk(nomad.WithoutPatience(ctx)), nil
}

// takesOver reports whether the plan abandons an open release.
func (p *Plan) takesOver() bool { return p.last != nil && p.last.State.Open() && p.req.TakeOver }

func number(r *record.Release) int {
	if r == nil {
		return 0
	}
	return r.Number
}

// changes reports whether the release will certainly write something.
func (p *Plan) changes() bool {
	return p.ends() || len(p.forgotten) > 0 || !p.secrets.Empty() || p.takesIn() || slices.ContainsFunc(p.Parts, func(part *Part) bool {
		if len(part.stops) > 0 {
			return true
		}
		for _, c := range part.changes {
			if c.Action != rollout.ActionNone {
				return true
			}
		}
		return false
	})
}

// abandon ends a release that is left as it is.
func (d *Deployer) abandon(ctx context.Context, r *record.Release) error {
	j, err := d.Releases.TakeOver(ctx, r, newOwner())
	if err != nil {
		return err
	}
	if err := j.Close(ctx); err != nil {
		return err
	}
	r.State, r.Ended = record.Abandoned, time.Now().UTC()
	if err := d.Releases.Save(ctx, r); err != nil {
		return err
	}
	d.emitRelease(EventRelease, r)
	return nil
}

// begin writes the record of the release: the job specs, what they replace,
// then the journal and the head.
func (r *run) begin(ctx context.Context) error {
	r.beginning.Lock()
	defer r.beginning.Unlock()
	if r.journal != nil {
		return nil
	}
	d, p := r.d, r.plan
	lines, blobs, err := r.lines(ctx)
	if err != nil {
		return err
	}
	head := d.head(p, record.Running)
	more, err := describe(head, p, lines)
	if err != nil {
		return err
	}
	blobs = append(blobs, more...)
	p.req.Unattended.mark(head, p.req.Waves)
	beginFirstWave(head, p, lines)
	if err := d.Releases.Store(ctx, blobs, r.lock.blobs()); err != nil {
		return err
	}
	if r.journal, err = d.Releases.Create(ctx, head, lines); err != nil {
		return err
	}
	r.head, p.specs = head, nil // the specs are stored, and take as much memory as the jobs
	r.reindex()
	d.emitRelease(EventRelease, head)
	return nil
}

// head begins the record of the release that follows the last one.
func (d *Deployer) head(p *Plan, state record.State) *record.Release {
	head := &record.Release{
		Number: number(p.last) + 1, Stack: d.Releases.Stack(), Environment: d.Releases.Environment(),
		Version: p.req.Version, AppVersion: p.req.AppVersion, UpgradeFrom: p.req.UpgradeFrom, Exclusive: p.exclusive(), Kind: p.req.Kind, Of: p.req.Of, DNS: p.req.DNS,
		By: d.Holder, Message: p.req.Message, Drover: d.Drover,
		State: state, Started: time.Now().UTC(), OnFailure: failurePolicy(p.req.OnFailure, p.last), Keep: d.keep(p.last), Owner: newOwner(),
	}
	if p.last == nil || p.last.IsScrubbed(p.req.SecretVariables) {
		head.Scrubbed = append([]string{}, p.req.SecretVariables...)
	}
	return head
}

// keep is how many releases are kept: what is removed does not come back, so
// that what was said once holds until something else is said.
func (d *Deployer) keep(last *record.Release) int {
	if d.Keep > 0 || last == nil {
		return d.Keep
	}
	return last.Keep
}

// describe completes a head with what its lines and the request say. It
// returns blobs that the head names.
func describe(head *record.Release, p *Plan, lines []record.Service) ([]record.Packed, error) {
	var err error
	targets := slices.Clone(p.req.Targets)
	for _, t := range p.retired { // of jobs that stop, or that a part of the stack leaves alone
		if slices.ContainsFunc(lines, func(l record.Service) bool { return l.Target == t.Name }) {
			targets = append(targets, t)
		}
	}
	if head.Targets, err = json.Marshal(targets); err != nil {
		return nil, fmt.Errorf("encoding the targets: %w", err)
	}
	for _, w := range p.req.Waves {
		wave, err := recordWave(w)
		if err != nil {
			return nil, err
		}
		head.Waves = append(head.Waves, wave)
	}
	head.Total = len(lines)
	var inputs []byte
	for _, l := range lines {
		switch {
		case l.Change == record.ChangeStop:
			head.Pruned++
			head.Total--
		case l.Change != record.ChangeNone || len(l.Renewed) > 0:
			head.Changed++
		}
		inputs = fmt.Appendln(inputs, l.Target, l.Name, l.Spec)
	}
	head.Inputs = record.Digest(inputs)
	var blobs []record.Packed
	for _, part := range []struct {
		what   string
		text   json.RawMessage
		digest *string
	}{{"the values of the variables", p.req.Values, &head.Values}, {"the checks of the stack", p.req.Checks, &head.Checks}} {
		if part.text == nil {
			continue
		}
		packed, err := record.Pack(record.Blob{Values: part.text})
		if err != nil {
			return nil, fmt.Errorf("cannot record %s: %w", part.what, err)
		}
		*part.digest = packed.Digest
		blobs = append(blobs, packed)
	}
	return blobs, nil
}

// begun is the journal, nil before there is one, and the release's number.
func (r *run) begun() (Journal, int) {
	r.beginning.Lock()
	defer r.beginning.Unlock()
	return r.journal, number(r.head)
}

func (r *run) reindex() {
	r.index = map[jobKey]int{}
	for i, l := range r.journal.Services() {
		if l.Change != record.ChangeStop {
			r.index[r.plan.key(l)] = i
		}
	}
}

// recordWave is a wave as the head holds it.
func recordWave(w *stack.Wave) (record.Wave, error) {
	gate, err := json.Marshal(w) // which never holds a secret
	if err != nil {
		return record.Wave{}, fmt.Errorf("encoding wave %s: %w", w.Name, err)
	}
	return record.Wave{Name: w.Name, Gate: gate}, nil
}

// failurePolicy returns what happens when a service fails: what was asked for, or
// else a revert if the last release left something good to restore. last may be
// nil.
func failurePolicy(asked string, last *record.Release) string {
	switch {
	case asked != "":
		return asked
	case last != nil && (last.State == record.Done || last.State == record.Reverted || last.State == record.Aborted):
		return OnFailureRevertRelease
	}
	return OnFailureStop
}

// lines makes the journal of a new release, and the blobs that it needs.
func (r *run) lines(ctx context.Context) ([]record.Service, []record.Packed, error) {
	p := r.plan
	was := map[jobKey]record.Service{}
	for _, l := range p.lines {
		was[p.key(l)] = l
	}
	var lines []record.Service
	var blobs []record.Packed
	var asks []int // lines whose former spec has to be read from Nomad
	add := func(l record.Service, former bool) {
		if l.Planned > 0 && former {
			old := was[p.key(l)]
			if lo := old.Leftover(); lo.Digest != "" && lo.Index == l.Planned {
				l.Before, l.BeforeOutline = lo.Digest, old.OutlineOf(lo.Digest)
			} else {
				asks = append(asks, len(lines))
			}
		}
		lines = append(lines, l)
	}
	for _, part := range p.Parts {
		for i, j := range part.Jobs {
			c := part.changes[i]
			l := line(j)
			l.Wave, l.Planned, l.Spec, l.Outline = part.Wave, c.Index, part.digests[i], part.outlines[i]
			l.BeforeCounts = was[p.key(l)].Leftover().Counts
			if rollout.RunsToCompletion(j.Job) {
				l.Completed = completionOf(was[p.key(l)])
			}
			l.BeforeSecrets = secretsLeft(was[p.key(l)])
			if s := p.secrets.Of(part.Target, j.Job); s != nil {
				l.Renewed = s.Changed
			}
			blobs = append(blobs, p.specs[l.Spec])
			if l.Change = recordedChange(c); l.Change == record.ChangeNone {
				l.Before, l.BeforeOutline, l.Index = l.Spec, l.Outline, c.Index
				noteUnchanged(&l, j.Job)
			}
			add(l, l.Change == record.ChangeUpdate)
		}
	}
	for _, part := range p.Parts {
		for _, c := range part.stops {
			old := was[p.changeKey(part.Target, c)]
			add(record.Service{
				Target: part.Target, Name: c.Service, JobID: c.JobID, Namespace: c.Namespace, Region: c.Region, Wave: part.Wave,
				DependsOn: old.DependsOn, Secrets: old.Secrets, BeforeSecrets: secretsLeft(old), Timeout: old.Timeout, PlacementTimeout: old.PlacementTimeout, Change: recordedChange(c), Planned: c.Index, Step: record.StepPending,
				BeforeCounts: old.Leftover().Counts,
			}, true)
		}
	}
	if p.req.Partial {
		lines = append(lines, p.carried(lines)...)
	}
	former := make([]record.Packed, len(asks))
	err := parallel.Each(len(asks), 8, func(i int) error {
		l := &lines[asks[i]]
		job, err := p.clusters[l.Target].Job(ctx, *l)
		if err == nil && job == nil {
			err = fmt.Errorf("job %q was purged since it was planned", l.JobID)
		}
		if err != nil {
			return err
		}
		l.BeforeStopped = nomad.Deref(job.Stop)
		if former[i], err = packJob(clean(job), "", ""); err == nil {
			l.Before, l.BeforeOutline = former[i].Digest, rollout.Outline(job)
		}
		return err
	})
	return lines, append(blobs, former...), err
}

// noteUnchanged gives the line of a job that does not change the step and outcome that
// it will have if the job is healthy: then it is not written again. It does not do so
// for a job whose variable or run to completion is still to be recorded.
func noteUnchanged(l *record.Service, job *api.Job) {
	if len(l.Renewed) > 0 || rollout.RunsToCompletion(job) {
		return
	}
	l.Step, l.Outcome, l.Ended = record.StepUnchanged, string(rollout.Unchanged), time.Now().UTC()
}

// carried returns the lines of the last release that a partial one keeps as they
// are: those of jobs that run, and that lines do not have.
func (p *Plan) carried(lines []record.Service) []record.Service {
	taken := map[jobKey]bool{}
	for _, l := range lines {
		taken[p.key(l)] = true
	}
	var out []record.Service
	for _, l := range p.lines {
		destroyed := p.req.Kind == KindDestroy && p.req.Only.has(l)
		forgotten := slices.Contains(p.req.Forget, l.Target)
		if k := p.key(l); l.Leftover().Runs && !destroyed && !forgotten && !p.moved[k] && !taken[k] {
			out = append(out, carryOver(l))
		}
	}
	return out
}

// recordedChange returns a planned change as the record keeps it.
func recordedChange(c rollout.Change) record.Change {
	switch {
	case c.Action == rollout.ActionNone:
		return record.ChangeNone
	case c.Action == rollout.ActionStop:
		return record.ChangeStop
	case c.Index == 0:
		return record.ChangeCreate
	}
	return record.ChangeUpdate
}

// carryOver returns the line by which the next release records a job that it does
// not touch: l is its line in the last release, which left the job running.
func carryOver(l record.Service) record.Service {
	left := l.Leftover()
	l.Secrets, l.BeforeSecrets, l.Renewed = secretsLeft(l), secretsLeft(l), nil
	l.Change, l.Step, l.Wave, l.Outcome, l.Detail = record.ChangeNone, record.StepUnchanged, 0, "", ""
	l.Outline = l.OutlineOf(left.Digest)
	l.BeforeOutline = l.Outline
	l.Spec, l.Before, l.BeforeStopped, l.Planned, l.Index = left.Digest, left.Digest, false, left.Index, left.Index
	l.Counts, l.BeforeCounts = left.Counts, left.Counts
	l.Started, l.Ended, l.Judged = time.Time{}, time.Time{}, false
	return l
}

// walk rolls the release out, and reverts it if its policy says so. It ends at once if
// another process takes over the release.
func (r *run) walk(ctx context.Context) Result {
	wctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if r.journal != nil {
		go r.d.watch(wctx, r.head, stop)
	}
	res := r.forward(wctx)
	if r.journal == nil {
		return res
	}
	outcome := res.outcome()
	if outcome.OK() {
		res.Pruned, outcome = r.prune(wctx, &res)
	}
	if err := context.Cause(wctx); errors.Is(err, record.ErrTakenOver) {
		lctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		r.lost(lctx, &res, err)
		return res
	}
	stop(nil) // the next write of the head shows whether the release is still ours
	r.finish(ctx, &res, outcome)
	return res
}

// watch calls stop when another process has paused the release or taken it over
// since the head was written.
func (d *Deployer) watch(ctx context.Context, was *record.Release, stop context.CancelCauseFunc) {
	d.watchHead(ctx, was.Number, was.Revision(), func(head *record.Release) bool {
		lost := head.Owner != was.Owner
		if lost {
			stop(record.ErrTakenOver)
		}
		return lost
	})
}

// watchHead calls seen with each version of a head after that of index, until seen
// returns true or ctx ends.
func (d *Deployer) watchHead(ctx context.Context, number int, index uint64, seen func(*record.Release) bool) {
	failures := 0
	for ctx.Err() == nil {
		head, now, err := d.Releases.Watch(ctx, number, index)
		if err != nil {
			index = 0
			_ = nomad.StreamBackoff().Wait(ctx, failures)
			failures++
			continue
		}
		if index, failures = now, 0; seen(head) {
			return
		}
	}
}

// forward rolls out wave after wave.
func (r *run) forward(ctx context.Context) Result {
	if r.d.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, r.d.Timeout, errTimeout)
		defer cancel()
	}
	begun := time.Now()
	var res Result
	parts := r.plan.Parts
	for len(parts) > 0 {
		n := 1
		for n < len(parts) && parts[n].Wave == parts[0].Wave {
			n++
		}
		r.inWave(ctx, &res, parts[:n])
		parts = parts[n:]
		if !res.outcome().OK() {
			break
		}
	}
	res.Elapsed = time.Since(begun)
	res.Release = r.head
	return res
}

// wave rolls out the parts of one wave, side by side.
func (r *run) wave(ctx context.Context, parts []*Part) []rollout.ServiceResult {
	results := make([]rollout.Result, len(parts))
	var wg sync.WaitGroup
	for i, part := range parts {
		wg.Go(func() {
			part.run = r
			results[i] = part.Plan.Apply(ctx, func(e rollout.Event) {
				_, n := r.begun()
				r.d.emit(Event{Event: e, Number: n})
			})
		})
	}
	wg.Wait()
	var out []rollout.ServiceResult
	for i, res := range results {
		for n, s := range res.Services { // one for each job of the part
			if s.Outcome == rollout.Unchanged && r.journal != nil && r.journal.Service(r.index[r.plan.jobKey(parts[i].Target, parts[i].Jobs[n].Job)]).Change != record.ChangeNone {
				s.Outcome = rollout.Deployed // by this release, before it was resumed
			}
			out = append(out, s)
		}
	}
	return out
}

// before is the hook of that name of package rollout: nothing is submitted
// but under the lock, and with the journal written.
func (r *run) before(ctx context.Context, target string, s rollout.Submission) error {
	if r.lock == nil { // nothing was to be written, and now something is
		return errors.New("it is not healthy any more; deploy again")
	}
	if err := r.begin(ctx); err != nil {
		return err
	}
	if err := r.lock.held(ctx); err != nil {
		return err
	}
	i := r.index[r.plan.jobKey(target, s.Job)]
	if l := r.journal.Service(i); !l.Expects(s.JobModifyIndex) {
		if err := r.rescaled(ctx, l, s.JobModifyIndex); err != nil {
			return err
		}
	}
	err := r.journal.Update(ctx, i, func(l *record.Service) {
		if s.JobModifyIndex != 0 && (l.Step == record.StepPending || l.Step == record.StepUnchanged || l.Step == record.StepSubmitting) {
			l.Planned = s.JobModifyIndex // another one when it was scaled
		}
		l.Step, l.Started, l.Completed, l.Judged = record.StepSubmitting, time.Now().UTC(), nil, false
	})
	switch {
	case errors.Is(err, record.ErrTakenOver):
		err = &rollout.Refusal{Outcome: rollout.Superseded, Err: err}
	case err != nil && ctx.Err() == nil: // the record cannot be written
		err = &rollout.Refusal{Outcome: rollout.Unreachable, Err: err}
	case err == nil:
		_, err = r.publish(ctx, r.journal.Service(i))
		err = secretsRefusal(err)
	}
	return err
}

// rescaled is nil when a job that has another index than its line says is what
// the line says nevertheless: an autoscaler has changed the counts of groups
// with a scaling block.
func (r *run) rescaled(ctx context.Context, l record.Service, index uint64) error {
	digest := l.Spec
	if l.Step == record.StepPending || l.Step == record.StepSubmitting || l.Change == record.ChangeStop {
		digest = l.Before
	}
	moved := &rollout.Refusal{Outcome: rollout.Superseded, Err: errMoved}
	if digest == "" || index == 0 {
		return moved
	}
	j, err := r.spec(ctx, digest)
	if err != nil {
		return err
	}
	var same bool
	var now uint64
	err = r.persist(ctx, func(ctx context.Context) error {
		same, now, err = r.plan.clusters[l.Target].Same(ctx, j.Job)
		return err
	})
	switch {
	case err != nil && rollout.Unanswered(err):
		return &rollout.Refusal{Outcome: rollout.Unreachable, Err: err}
	case err != nil:
		return err
	case !same || now != index:
		return moved
	}
	return nil
}

var errMoved = errors.New("another client changed the job since the release was planned")

func (r *run) after(target string, s rollout.Submission, index uint64) {
	r.journal.Note(r.index[r.plan.jobKey(target, s.Job)], func(l *record.Service) { l.Step, l.Index = record.StepSubmitted, index })
}

func (r *run) done(target string, s rollout.Submission, res rollout.ServiceResult) {
	j, _ := r.begun()
	if j == nil {
		return
	}
	i := r.index[r.plan.jobKey(target, s.Job)]
	r.submitting.Lock()
	if r.submitted == nil {
		r.submitted = map[int]rollout.ServiceResult{}
	}
	r.submitted[i] = res
	r.submitting.Unlock()
	note := j.Note
	if l := j.Service(i); res.Outcome == rollout.Unchanged && !res.Completed && l.Change == record.ChangeNone {
		if l.Step == record.StepUnchanged && l.Outcome == string(res.Outcome) {
			return // see noteUnchanged
		}
		note = j.NoteLater // what a resume would find out again
	}
	note(i, func(l *record.Service) {
		recordOutcome(l, res)
		r.complete(l, res, l.Spec)
	})
}

// version returns the version with that JobModifyIndex of the job of a line, if
// this process has registered and followed it.
func (r *run) version(line int, index uint64) (number uint64, known bool) {
	r.submitting.Lock()
	defer r.submitting.Unlock()
	res := r.submitted[line]
	if res.Version == nil || res.JobModifyIndex != index {
		return 0, false
	}
	return *res.Version, true
}

// complete notes that a job ran to its end, as the spec of that digest.
func (r *run) complete(l *record.Service, res rollout.ServiceResult, spec string) {
	if res.Completed && (res.Submitted || l.Completed == nil) {
		l.Completed = &record.Completion{Spec: spec, Release: r.head.Number, At: time.Now().UTC()}
	}
}

// recordOutcome sets the outcome and the step of a line after its rollout. A
// service that was not followed to its end keeps its step.
func recordOutcome(l *record.Service, res rollout.ServiceResult) {
	l.Outcome, l.Detail = string(res.Outcome), res.Detail
	switch res.Outcome {
	case rollout.Deployed, rollout.Unchanged:
		l.Step, l.Detail = record.StepDone, ""
		if l.Change == record.ChangeNone && !res.Submitted {
			l.Step = record.StepUnchanged
		}
	case rollout.Skipped, rollout.Cancelled, rollout.AwaitPromotion, rollout.Unreachable:
		return
	default:
		if l.Step == record.StepSubmitted {
			l.Step = record.StepFailed
		}
	}
	l.Ended = time.Now().UTC()
}

// prune stops and purges what the stack does not have any more.
func (r *run) prune(ctx context.Context, res *Result) ([]string, rollout.Outcome) {
	lines := r.journal.Services()
	var gone []string
	outcome := rollout.Deployed
	byTarget := map[string][]render.Job{}
	at := map[string][]int{} // the lines of byTarget
	var targets []string     // in the order of the lines
	for i, l := range lines {
		if l.Change != record.ChangeStop || l.Step == record.StepPruned {
			continue
		}
		err := r.lock.held(ctx)
		if err == nil {
			err = r.persist(ctx, func(ctx context.Context) error { return r.mayStop(ctx, l) })
		}
		if err == nil {
			err = r.journal.Update(ctx, i, func(l *record.Service) { l.Step, l.Started = record.StepPruning, time.Now().UTC() })
		}
		if err != nil {
			res.Services = append(res.Services, r.pruneFailed(ctx, i, l, err))
			outcome = res.Services[len(res.Services)-1].Outcome
			return gone, outcome
		}
		if at[l.Target] == nil {
			targets = append(targets, l.Target)
		}
		byTarget[l.Target] = append(byTarget[l.Target], named(l))
		at[l.Target] = append(at[l.Target], i)
	}
	for _, target := range targets {
		jobs := byTarget[target]
		_ = r.plan.clusters[target].Destroy(ctx, jobs, r.d.options(), func(ds rollout.Destroyed) {
			i := at[target][ds.Index]
			if ds.Err != nil {
				res.Services = append(res.Services, r.pruneFailed(ctx, i, lines[i], ds.Err))
				outcome = res.Services[len(res.Services)-1].Outcome
				return
			}
			r.journal.Note(i, func(l *record.Service) { l.Step, l.Ended = record.StepPruned, time.Now().UTC() })
			gone = append(gone, ds.JobID)
			r.d.emit(Event{Event: rollout.Event{Kind: EventPruned, Target: target, Service: ds.Service, JobID: ds.JobID}, Number: number(r.head)})
		})
	}
	return gone, outcome
}

// pruneFailed records that a job was not stopped.
func (r *run) pruneFailed(ctx context.Context, i int, l record.Service, err error) rollout.ServiceResult {
	out := rollout.ServiceResult{Service: l.Name, JobID: l.JobID, Outcome: pruneOutcome(err, ctx.Err() != nil), Detail: "not stopped: " + err.Error()}
	r.journal.Note(i, func(l *record.Service) { l.Outcome, l.Detail = string(out.Outcome), out.Detail })
	return out
}

// pruneOutcome returns the outcome of a job that could not be stopped because of
// err.
func pruneOutcome(err error, interrupted bool) rollout.Outcome {
	var refusal *rollout.Refusal
	switch {
	case interrupted:
		return rollout.Cancelled
	case errors.As(err, &refusal):
		return refusal.Outcome
	case errors.Is(err, record.ErrTakenOver), errors.Is(err, variables.ErrLocked):
		return rollout.Superseded
	case rollout.Unanswered(err):
		return rollout.Unreachable
	}
	return rollout.Failed
}

// persist asks a Nomad that does not answer again, for as long as a deploy does.
func (r *run) persist(ctx context.Context, ask func(context.Context) error) error {
	return rollout.Persist(ctx, r.d.Rollout.Silence, ask)
}

// mayStop returns errMoved, or another error, unless the job is the one of the plan.
func (r *run) mayStop(ctx context.Context, l record.Service) error {
	job, err := r.plan.clusters[l.Target].Job(ctx, l)
	switch {
	case err != nil || job == nil:
		return err
	case l.Step == record.StepPruning && nomad.Deref(job.Stop):
		return nil // we were at it
	case nomad.Deref(job.ParentID) != "":
		return errors.New("it is the child of another job")
	case nomad.Deref(job.JobModifyIndex) != l.Planned:
		return r.rescaled(ctx, l, nomad.Deref(job.JobModifyIndex))
	}
	return nil
}

// named is a job of which only the name matters.
func named(l record.Service) render.Job {
	job := &api.Job{ID: &l.JobID}
	if l.Namespace != "" {
		job.Namespace = &l.Namespace
	}
	if l.Region != "" {
		job.Region = &l.Region
	}
	return render.Job{Service: l.Name, Target: l.Target, DependsOn: l.DependsOn, Job: job}
}
