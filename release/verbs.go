package release

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// Resume continues an interrupted release from the record alone. If the release was
// being reverted, the revert continues. With promote, it first promotes canaries that
// wait.
func (d *Deployer) Resume(ctx context.Context, promote bool) (Result, error) {
	return d.resume(ctx, promote, nil)
}

// resume is Resume of a release that may does not refuse; may can be nil.
func (d *Deployer) resume(ctx context.Context, promote bool, may func(*record.Release) error) (Result, error) {
	r, err := d.take(ctx, false, may)
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = r.lock.release(ctx) }()
	ctx = nomad.WithoutPatience(ctx)
	if r.head.State == record.Reverting {
		return r.goBack(ctx, revertGoal(r.head))
	}
	res := Result{Release: r.head}
	if outcome := r.failedBefore(ctx, &res); outcome != "" {
		r.finish(ctx, &res, outcome)
		return res, nil
	}
	if err := r.save(ctx, func(h *record.Release) { h.State, h.Cause, h.Detail = record.Running, "", "" }); err != nil {
		return Result{}, err
	}
	d.emitRelease(EventRelease, r.head)
	err = r.persist(ctx, func(ctx context.Context) error { return d.halt(ctx, r.head, r.journal.Services(), false) })
	if err != nil {
		return Result{}, err
	}
	if promote {
		if err := r.promote(ctx); err != nil {
			return Result{}, err
		}
	}
	if err := r.rebuild(ctx); err != nil {
		return Result{}, err
	}
	return r.walk(ctx), nil
}

// Abort gives up the release that is open: everything that it changed goes
// back to what was there before.
func (d *Deployer) Abort(ctx context.Context) (Result, error) {
	r, err := d.take(ctx, true, nil)
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = r.lock.release(ctx) }()
	return r.goBack(nomad.WithoutPatience(ctx), record.Aborted)
}

// revertGoal returns the state of a release that is being reverted, once everything
// is restored.
func revertGoal(h *record.Release) record.State {
	if h.Aborting {
		return record.Aborted
	}
	return record.Reverted
}

func (r *run) goBack(ctx context.Context, good record.State) (Result, error) {
	err := r.save(ctx, func(h *record.Release) {
		h.State, h.Aborting = record.Reverting, good == record.Aborted
		if h.Aborting {
			h.Cause, h.Detail = "", ""
		}
	})
	if err != nil {
		return Result{}, err
	}
	r.d.emitRelease(EventRelease, r.head)
	r.returning = true
	res := Result{Release: r.head}
	r.revert(ctx, &res, good)
	return res, nil
}

// take takes the lock and the newest release, if it is open, with its
// targets. back says that it is to go back. An error of may, which is called
// under the lock and can be nil, leaves it as it is.
func (d *Deployer) take(ctx context.Context, back bool, may func(*record.Release) error) (*run, error) {
	last, err := d.Releases.Last(ctx)
	if err != nil {
		return nil, err
	}
	if last == nil || !last.State.Open() {
		return nil, &NotOpenError{last}
	}
	l, _, err := d.lock(ctx, d.LockWait)
	if err != nil {
		return nil, err
	}
	r := &run{d: d, lock: l}
	if err := r.take(ctx, back, may); err != nil {
		_ = l.release(ctx)
		return nil, err
	}
	return r, nil
}

func (r *run) take(ctx context.Context, back bool, may func(*record.Release) error) error {
	d := r.d
	last, err := r.lock.last()
	if err != nil {
		return err
	}
	if last == nil || !last.State.Open() {
		return &NotOpenError{last}
	}
	if may != nil {
		if err := may(last); err != nil {
			return err
		}
	}
	r.head = last
	back = back || last.State == record.Reverting || last.State == record.RevertFailed
	lines, err := d.Releases.Services(ctx, last)
	if err != nil {
		return err
	}
	p := &Plan{specs: map[string]record.Packed{}, clusters: map[string]Cluster{}}
	if p.req, err = requestOf(last); err != nil {
		return err
	}
	p.noteDefaults(d.Defaults, p.req.Targets)
	r.plan = p
	// Whatever of it uses Consul, in any version, is followed there.
	specs, err := readSpecs(ctx, d.Releases, lines, func(l record.Service) []string { return []string{l.Spec, l.Before} })
	if err != nil {
		return err
	}
	needConsul := map[string]bool{}
	for _, l := range lines {
		for _, digest := range []string{l.Spec, l.Before} {
			if digest != "" && rollout.NeedsConsul([]render.Job{specs[digest]}) {
				needConsul[l.Target] = true
			}
		}
	}
	p.away = map[string]error{}
	for _, t := range p.req.Targets {
		c, err := d.Dial(ctx, t, needConsul[t.Name])
		if err != nil && ctx.Err() != nil {
			return err
		}
		if c != nil { // also one that cannot be reached: its jobs are in no other cluster
			p.dialled(t, c)
		}
		if err != nil {
			p.away[t.Name] = err
		}
	}
	for _, l := range lines {
		// To go back, only what was changed has to be reached.
		if err := p.away[l.Target]; err != nil && (isChanged(l) || !back) {
			return err
		}
	}
	if r.journal, err = d.Releases.TakeOver(ctx, last, newOwner()); err != nil {
		return err
	}
	r.reindex()
	return nil
}

// requestOf is what a release was asked to do, without its jobs.
func requestOf(h *record.Release) (Request, error) {
	req := Request{Kind: h.Kind, Of: h.Of, Version: h.Version, AppVersion: h.AppVersion, UpgradeFrom: h.UpgradeFrom, Exclusive: h.Exclusive, Message: h.Message, OnFailure: h.OnFailure}
	if err := json.Unmarshal(h.Targets, &req.Targets); err != nil {
		return req, fmt.Errorf("the targets of release %d are not readable: %w", h.Number, err)
	}
	for _, w := range h.Waves {
		wave := &stack.Wave{}
		if err := json.Unmarshal(w.Gate, wave); err != nil {
			return req, fmt.Errorf("wave %s of release %d is not readable: %w", w.Name, h.Number, err)
		}
		req.Waves = append(req.Waves, wave)
	}
	return req, nil
}

// readSpecs reads the job specs that lines name, each once.
func readSpecs(ctx context.Context, releases Reader, lines []record.Service, of func(record.Service) []string) (map[string]render.Job, error) {
	out := map[string]render.Job{}
	var digests []string
	for _, l := range lines {
		for _, digest := range of(l) {
			if digest != "" {
				digests = append(digests, digest)
			}
		}
	}
	slices.Sort(digests)
	digests = slices.Compact(digests)
	var mu sync.Mutex
	err := parallel.Each(len(digests), 8, func(i int) error {
		j, err := readSpec(ctx, releases, digests[i])
		mu.Lock()
		defer mu.Unlock()
		out[digests[i]] = j
		return err
	})
	return out, err
}

// failedBefore adds the services to res that failed before the release was interrupted,
// or whose version Nomad has reverted since. It returns the worst outcome of them, ""
// if there is none.
func (r *run) failedBefore(ctx context.Context, res *Result) rollout.Outcome {
	lines := r.journal.Services()
	res.Services = append(res.Services, failedServices(lines)...)
	var mu sync.Mutex
	_ = parallel.Each(len(lines), 8, func(i int) error {
		l := lines[i]
		if l.Step != record.StepSubmitting && l.Step != record.StepSubmitted {
			return nil
		}
		// On an error, following the job will find its state.
		st, err := r.standing(ctx, l)
		switch {
		case err != nil:
		case st == atSpec && l.Step == record.StepSubmitting:
			r.arrived(ctx, i, l)
		case st == atBefore && r.wentBack(ctx, l):
			const detail = "Nomad reverted it to the former version"
			r.journal.Note(i, func(l *record.Service) {
				l.Step, l.Outcome, l.Detail = record.StepFailed, string(rollout.FailedReverted), detail
			})
			mu.Lock()
			defer mu.Unlock()
			res.Services = append(res.Services, rollout.ServiceResult{Service: l.Name, JobID: l.JobID, Outcome: rollout.FailedReverted, Submitted: true, Detail: detail})
		}
		return nil
	})
	if len(res.Services) == 0 {
		return ""
	}
	return res.Result.Outcome()
}

// failedServices returns the results of the lines that have failed.
func failedServices(lines []record.Service) []rollout.ServiceResult {
	var out []rollout.ServiceResult
	for _, l := range lines {
		if l.Step == record.StepFailed {
			out = append(out, rollout.ServiceResult{Service: l.Name, JobID: l.JobID, Outcome: rollout.Outcome(l.Outcome), Submitted: true, Detail: l.Detail})
		}
	}
	return out
}

// wentBack reports whether a job that has its former spec had the new one in between:
// its registration had arrived. If the registration was not answered, only the index of
// the job shows that, and scaling changes the index too.
func (r *run) wentBack(ctx context.Context, l record.Service) bool {
	switch {
	case l.Before == "" || l.Before == l.Spec:
		return false
	case l.Step == record.StepSubmitted:
		return true
	}
	c := r.plan.clusters[l.Target]
	job, err := c.Job(ctx, l)
	if err != nil || job == nil || nomad.Deref(job.Stop) || nomad.Deref(job.JobModifyIndex) == l.Planned {
		return false
	}
	scaled, err := c.Rescaled(ctx, job, l.Planned)
	return err == nil && !scaled
}

// arrived notes that the registration of a job that was being submitted has
// reached Nomad.
func (r *run) arrived(ctx context.Context, i int, l record.Service) {
	job, err := r.plan.clusters[l.Target].Job(ctx, l)
	if err == nil && job != nil {
		r.journal.Note(i, func(l *record.Service) { l.Step, l.Index = record.StepSubmitted, nomad.Deref(job.JobModifyIndex) })
	}
}

// rebuild makes the plan of what is left of the release, from its record.
func (r *run) rebuild(ctx context.Context) error {
	lines := r.journal.Services()
	var specs map[string]render.Job
	err := r.persist(ctx, func(ctx context.Context) (err error) {
		specs, err = readSpecs(ctx, r.d.Releases, lines, func(l record.Service) []string { return []string{l.Spec} })
		return err
	})
	if err != nil {
		return err
	}
	for _, l := range lines {
		if isPlanned(l) {
			r.plan.req.Jobs = append(r.plan.req.Jobs, ofLine(specs[l.Spec], l, l.Counts))
		}
	}
	r.plan.runs = lines
	if r.plan.Parts, err = assignWaves(r.plan.req.Jobs, r.plan.req.Waves); err != nil {
		return err
	}
	r.plan.agreed = true // and a job that is not the one that was looked at then is not touched: Service.Expects
	return r.persist(ctx, func(ctx context.Context) error { return r.d.prepare(ctx, r.plan) })
}

// isPlanned reports whether a release that is resumed rolls the job out: it does
// not stop it, and its request named it.
func isPlanned(l record.Service) bool { return l.Change != record.ChangeStop && !isCarriedOver(l) }

// isCarriedOver reports whether a partial release only carried the line over: its
// request did not name the job.
func isCarriedOver(l record.Service) bool {
	return l.Change == record.ChangeNone && l.Step == record.StepUnchanged && l.Ended.IsZero()
}

// promote promotes the canaries of the release that wait (PUT
// /v1/deployment/promote/:id).
func (r *run) promote(ctx context.Context) error {
	lines := r.journal.Services()
	var waiting []int
	for i, l := range lines {
		if l.Step == record.StepSubmitted && l.Outcome == string(rollout.AwaitPromotion) {
			waiting = append(waiting, i)
		}
	}
	if len(waiting) == 0 {
		return errors.New("no canary waits for a promotion")
	}
	return parallel.Each(len(waiting), 8, func(n int) error {
		i := waiting[n]
		l := lines[i]
		c := r.plan.clusters[l.Target]
		var list []*api.Deployment
		err := r.persist(ctx, func(ctx context.Context) (err error) {
			list, err = c.Deployments(ctx, l)
			return err
		})
		if err != nil {
			return err
		}
		if err := r.journal.Update(ctx, i, func(l *record.Service) { l.Judged = true }); err != nil {
			return err
		}
		for _, dep := range list {
			if dep.JobSpecModifyIndex != l.Index || dep.Status != "running" {
				continue
			}
			if err := c.Promote(ctx, l, dep.ID); err != nil {
				return err
			}
		}
		return nil
	})
}

// Rollback asks for what release number left, or with 0 the newest good one
// before what runs.
func (d *Deployer) Rollback(ctx context.Context, number int) (Request, error) {
	heads, err := d.Releases.List(ctx)
	if err != nil {
		return Request{}, err
	}
	if len(heads) > 0 {
		if err := heads[0].MoveError(); err != nil {
			return Request{}, err
		}
	}
	to, err := chooseRollback(heads, number)
	if errors.Is(err, record.ErrNoRelease) && len(heads) == 0 {
		err = fmt.Errorf("stack %s (environment %s) has %w", d.Releases.Stack(), d.Releases.Environment(), record.ErrNoRelease)
	}
	if err != nil {
		return Request{}, err
	}
	req, err := requestOf(to)
	if err != nil {
		return req, err
	}
	req.Kind, req.Of, req.Message, req.OnFailure, req.reverse = KindRollback, to.Number, "", "", true
	req.DNS = to.DNS
	lines, err := d.Releases.Services(ctx, to)
	if err != nil {
		return req, err
	}
	lines = slices.DeleteFunc(lines, func(l record.Service) bool { return l.Spec == "" })
	specs, err := readSpecs(ctx, d.Releases, lines, func(l record.Service) []string { return []string{l.Spec} })
	if err != nil {
		return req, err
	}
	for _, l := range lines {
		req.Jobs = append(req.Jobs, ofLine(specs[l.Spec], l, l.Counts))
	}
	req.joinLastWave()
	for digest, into := range map[string]*json.RawMessage{to.Values: &req.Values, to.Checks: &req.Checks} {
		if digest == "" {
			continue
		}
		b, err := d.Releases.Blob(ctx, digest)
		if err != nil {
			return req, err
		}
		*into = b.Values
	}
	return req, nil
}

// joinLastWave adds the jobs of a record that no wave of it names to the last wave. A
// deploy of a part of a stack carries on whatever runs, also of services and
// targets that the stack has no more, and its waves are those of the stack.
func (req *Request) joinLastWave() {
	if len(req.Waves) == 0 {
		return
	}
	named := map[key]bool{}
	for _, w := range req.Waves {
		for _, m := range w.Members {
			named[key{m.Target, m.Service}] = true
		}
	}
	last := req.Waves[len(req.Waves)-1]
	for _, j := range req.Jobs {
		if !named[key{j.Target, j.Service}] {
			last.Members = append(last.Members, stack.Member{Target: j.Target, Service: j.Service})
		}
	}
}

func numbers(heads []*record.Release) string {
	if len(heads) == 1 {
		return fmt.Sprint(heads[0].Number)
	}
	return fmt.Sprintf("%d to %d", heads[len(heads)-1].Number, heads[0].Number)
}

// Pause stops the release that is being made, at once and where it is: its
// drover gives up, and Nomad's deployments stand still until `drover resume`.
// With the release and an error it is paused, and some deployments are not:
// Pause once more sees to those.
func (d *Deployer) Pause(ctx context.Context, by string) (*record.Release, error) {
	last, err := d.Releases.Last(ctx)
	if err != nil {
		return nil, err
	}
	if last == nil || last.State != record.Running && last.State != record.Paused {
		return nil, &NotOpenError{last}
	}
	// Taking the release over keeps its drover from submitting anything.
	last.State, last.Detail = record.Paused, "by "+by
	j, err := d.Releases.TakeOver(ctx, last, newOwner())
	if err != nil {
		return nil, err
	}
	lines := j.Services()
	if err := j.Close(ctx); err != nil {
		return nil, err
	}
	return last, d.halt(ctx, last, lines, true)
}

// halt pauses or resumes the deployments of a release that go on (PUT
// /v1/deployment/pause/:id), wherever it can.
func (d *Deployer) halt(ctx context.Context, h *record.Release, lines []record.Service, pause bool) error {
	req, err := requestOf(h)
	if err != nil {
		return err
	}
	return parallel.Each(len(req.Targets), 8, func(i int) error {
		t := req.Targets[i]
		here := slices.DeleteFunc(slices.Clone(lines), func(l record.Service) bool { return l.Target != t.Name || l.Step != record.StepSubmitted })
		if len(here) == 0 {
			return nil
		}
		c, err := d.Dial(ctx, t, false)
		if err != nil {
			return err
		}
		return parallel.Each(len(here), 8, func(i int) error {
			l := here[i]
			list, err := c.Deployments(ctx, l)
			if err != nil {
				return err
			}
			for _, dep := range list {
				if dep.JobSpecModifyIndex == l.Index && (pause && dep.Status == "running" || !pause && dep.Status == "paused") {
					if err := c.Pause(ctx, l, dep.ID, pause); err != nil {
						return err
					}
				}
			}
			return nil
		})
	})
}
