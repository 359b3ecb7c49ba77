package release

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
)

// Secrets reach the jobs of a release in three steps, so that the version that
// runs has what it reads whichever way the release ends:
//
//  1. Before anything is submitted, the variable of every job gets the items
//     that the new version reads in addition to those that it has. No value
//     changes, so no task notices.
//  2. New values of items, such as a renewed certificate, are written directly
//     before the job is submitted; for a job that is otherwise unchanged when its
//     wave begins. Its tasks see them then.
//  3. When the release is deployed everywhere, or everything is as before, the
//     variables lose the items that nothing reads any more.

// secretsOf returns the secrets of the stack, which reach the jobs by the clients
// of their targets; nil where there are none.
func (d *Deployer) secretsOf(p *Plan) SecretStore {
	if d.Secrets == nil || p.withoutSecrets {
		return nil
	}
	return d.Secrets.Reach(p.clusters)
}

// previewSecrets finds out what the release would change in secrets. A
// scheduled redeploy may not read the variables of jobs, and changes none.
func (d *Deployer) previewSecrets(ctx context.Context, p *Plan) error {
	secrets := d.secretsOf(p)
	if secrets == nil || p.req.readOnly {
		return nil
	}
	jobs := p.secretJobs()
	if len(jobs)+len(p.req.Secrets) == 0 {
		return nil
	}
	var err error
	p.secrets, err = secrets.Preview(ctx, p.req.Secrets, jobs)
	if p.secrets != nil {
		d.hidden.set(p.secrets.Redact)
	}
	if p.req.Kind == KindRedeploy && nomad.IsForbidden(err) {
		p.secrets, p.withoutSecrets, err = nil, true, nil
	}
	return err
}

// secretJobs returns the jobs whose variables the release may change: those that
// read secrets, and those that did and do not any more.
func (p *Plan) secretJobs() []render.Job {
	was := map[jobKey][]string{}
	for _, l := range p.lines {
		was[p.key(l)] = secretsLeft(l)
	}
	var out []render.Job
	for _, part := range p.Parts {
		for _, j := range part.Jobs {
			if len(j.Secrets) > 0 || len(was[p.jobKey(part.Target, j.Job)]) > 0 {
				out = append(out, j)
			}
		}
		for _, c := range part.stops {
			if len(was[p.changeKey(part.Target, c)]) > 0 {
				out = append(out, named(record.Service{Target: part.Target, Name: c.Service, JobID: c.JobID, Namespace: c.Namespace, Region: c.Region}))
			}
		}
	}
	return append(out, p.prunedReaders()...)
}

// prunedReaders returns jobs that the last release pruned and whose variables it
// may not have deleted any more.
func (p *Plan) prunedReaders() []render.Job {
	planned := map[jobKey]bool{}
	for _, part := range p.Parts {
		for _, j := range part.Jobs {
			planned[p.jobKey(part.Target, j.Job)] = true
		}
	}
	var out []render.Job
	for _, l := range p.lines {
		if _, reached := p.clusters[l.Target]; reached && l.Step == record.StepPruned && len(secretsLeft(l)) > 0 && !planned[p.key(l)] {
			out = append(out, named(l))
		}
	}
	return out
}

// secretsLeft returns the items that a job reads as a release left it.
func secretsLeft(l record.Service) []string {
	if lo := l.Leftover(); lo.Runs && lo.Digest == l.Spec && l.Spec != "" {
		return append([]string{}, l.Secrets...) // known, also when there are none
	}
	return l.BeforeSecrets
}

// Secrets returns what the release would change in secrets, nil when nothing.
func (p *Plan) Secrets() *record.SecretChanges {
	if p.secrets.Empty() {
		return nil
	}
	return p.secrets
}

// prepareSecrets makes the secrets that are missing and gives every job the
// items that its new version reads beside those of the version that runs.
func (r *run) prepareSecrets(ctx context.Context) error {
	p := r.plan
	secrets := r.d.secretsOf(p)
	if secrets == nil {
		return nil
	}
	if len(p.req.Secrets) > 0 {
		var made record.Generated
		err := r.persist(ctx, func(ctx context.Context) (err error) {
			made, err = secrets.Generate(ctx, p.req.Secrets)
			return err
		})
		if err != nil {
			return err
		}
		r.d.hidden.set(made.Redact)
		r.d.emit(Event{Event: rollout.Event{Kind: EventSecrets}, Secrets: &SecretsMade{Made: made, Changes: p.Secrets()}})
	}
	var jobs []render.Job
	for _, j := range p.secretJobs() {
		if len(j.Secrets) > 0 {
			jobs = append(jobs, j)
		}
	}
	return r.persist(ctx, func(ctx context.Context) error { return secrets.Grow(ctx, jobs) })
}

// publish gives the job of a line the present values of what it reads, and
// reports whether that changed its variable.
func (r *run) publish(ctx context.Context, l record.Service) (bool, error) {
	jobs := readers([]record.Service{l}, func(l record.Service) []string { return l.Secrets })
	if len(jobs) == 0 {
		return false, nil
	}
	secrets := r.d.secretsOf(r.plan)
	if secrets == nil {
		return false, nil
	}
	changed := false
	err := r.persist(ctx, func(ctx context.Context) error {
		written, err := secrets.Publish(ctx, jobs)
		changed = changed || len(written) > 0
		return err
	})
	return changed, r.redeploys(err)
}

// redeploys takes away the error of a redeploy whose token may not read the
// variables of jobs: it changes none.
func (r *run) redeploys(err error) error {
	if r.plan.req.Kind == KindRedeploy && nomad.IsForbidden(err) {
		return nil
	}
	return err
}

// readers are the jobs of those lines for which secrets returns any.
func readers(lines []record.Service, secrets func(record.Service) []string) []render.Job {
	var out []render.Job
	for _, l := range lines {
		if j := named(l); len(secrets(l)) > 0 {
			j.Secrets = secrets(l)
			out = append(out, j)
		}
	}
	return out
}

// renewed returns the lines of a wave whose jobs get new values of secrets and
// are otherwise unchanged.
func (r *run) renewed(i int) []record.Service {
	return slices.DeleteFunc(r.journal.Services(), func(l record.Service) bool {
		return l.Wave != i || l.Change != record.ChangeNone || len(l.Renewed) == 0
	})
}

// publishWave gives those jobs of a wave that are otherwise unchanged the new
// values of their secrets, and waits until their tasks have restarted: the gate
// of the wave is to see them with the new values.
func (r *run) publishWave(ctx context.Context, i int) error {
	lines := r.renewed(i)
	if len(lines) == 0 {
		return nil
	}
	if err := r.lock.held(ctx); err != nil {
		return err
	}
	return parallel.Each(len(lines), 8, func(n int) error {
		l := lines[n]
		restarts, err := r.restartsOf(ctx, l)
		if err != nil {
			return err
		}
		changed, err := r.publish(ctx, l)
		if err != nil || !changed || len(restarts.tasks) == 0 {
			return err
		}
		r.d.emit(Event{Event: rollout.Event{Kind: EventGate, Target: l.Target, Service: l.Name, Waiting: l.Name + ": tasks restart with new secrets"},
			Wave: r.plan.req.Waves[i].Name, Number: r.head.Number})
		r.awaitRestarts(ctx, l, restarts)
		return nil
	})
}

// restarts are tasks that a new value of a secret restarts, by allocation and
// name, with how often they have restarted before.
type restarts struct {
	tasks map[[2]string]uint64
	limit time.Duration // for all of them
}

// restartMargin is how long Nomad's client may take to see a new value, beside
// the splay of the template and the time in which its task stops.
const restartMargin = 15 * time.Second

// restartsOf finds the tasks that new values of a line's secrets restart.
func (r *run) restartsOf(ctx context.Context, l record.Service) (restarts, error) {
	out := restarts{tasks: map[[2]string]uint64{}}
	j, err := r.spec(ctx, l.Spec)
	if err != nil {
		return out, err
	}
	var allocs []*api.AllocationListStub
	err = r.persist(ctx, func(ctx context.Context) error {
		allocs, _, err = r.plan.clusters[l.Target].Allocations(ctx, l, 0)
		return err
	})
	if err != nil {
		return out, err
	}
	for _, read := range render.SecretReads(j.Job) {
		kind, _ := templateEffect(read.Template)
		if kind != EffectRestart || !slices.ContainsFunc(l.Renewed, read.Reads) {
			continue
		}
		for _, a := range allocs {
			if st := a.TaskStates[read.Task]; a.TaskGroup == read.Group && a.ClientStatus == api.AllocClientStatusRunning && st != nil && st.State == "running" {
				out.tasks[[2]string{a.ID, read.Task}] = st.Restarts
			}
		}
		splay, stop := 5*time.Second, 5*time.Second // Nomad's defaults
		if read.Template.Splay != nil {
			splay = *read.Template.Splay
		}
		if t := taskOf(j.Job, read.Group, read.Task); t != nil {
			if t.KillTimeout != nil {
				stop = *t.KillTimeout
			}
			stop += t.ShutdownDelay
		}
		out.limit = max(out.limit, splay+stop+restartMargin)
	}
	return out, nil
}

func taskOf(job *api.Job, group, name string) *api.Task {
	for _, g := range job.TaskGroups {
		for _, t := range g.Tasks {
			if nomad.Deref(g.Name) == group && t.Name == name {
				return t
			}
		}
	}
	return nil
}

// awaitRestarts waits until the tasks have restarted or ended, for at most their
// limit: a template that prints nothing of the new value restarts none. Whether
// the tasks are healthy then is the gate's to say.
func (r *run) awaitRestarts(ctx context.Context, l record.Service, re restarts) {
	ctx, cancel := context.WithTimeout(ctx, re.limit)
	defer cancel()
	failures := 0
	var index uint64
	for ctx.Err() == nil {
		allocs, seen, err := r.plan.clusters[l.Target].Allocations(ctx, l, index)
		if err != nil {
			index = 0
			_ = nomad.StreamBackoff().Wait(ctx, failures)
			failures++
			continue
		}
		failures = 0
		index = seen
		if re.done(allocs) {
			return
		}
	}
}

// done reports whether every task has restarted and runs, or has ended.
func (re restarts) done(allocs []*api.AllocationListStub) bool {
	for _, a := range allocs {
		for task, st := range a.TaskStates {
			was, waited := re.tasks[[2]string{a.ID, task}]
			live := a.ClientStatus == api.AllocClientStatusRunning || a.ClientStatus == api.AllocClientStatusPending
			if waited && live && st.State != "dead" && (st.Restarts == was || st.State != "running") {
				return false
			}
		}
	}
	return true
}

// trimSecrets removes from the variables of jobs the items that no version reads, after
// the release is deployed or reverted. The next release repeats a write that fails.
func (r *run) trimSecrets(ctx context.Context, state record.State) {
	secrets := r.d.secretsOf(r.plan)
	if secrets == nil {
		return
	}
	jobs := trimmed(r.journal.Services(), state)
	if state == record.Done {
		jobs = append(jobs, r.plan.prunedReaders()...)
	}
	if err := r.redeploys(secrets.Trim(ctx, jobs)); err != nil {
		r.d.warn("release %d: items that are not needed any more are still in the variables of jobs: %s", r.head.Number, err)
	}
}

// trimmed returns the jobs whose variables hold more than they read at the end
// of a release, with what they read.
func trimmed(lines []record.Service, state record.State) []render.Job {
	var out []render.Job
	for _, l := range lines {
		j := named(l)
		switch {
		case isCarriedOver(l):
			continue
		case state != record.Done: // back
			if isChanged(l) || l.BeforeSecrets == nil {
				continue // another client's job, or one of which it is not known what it read
			}
			j.Secrets = l.BeforeSecrets
		case l.Change != record.ChangeStop:
			j.Secrets = l.Secrets
		case l.Step != record.StepPruned:
			continue
		}
		if len(l.Secrets)+len(l.BeforeSecrets) > 0 {
			out = append(out, j)
		}
	}
	return out
}

// restoreSecrets gives a job on its way back the items that its former version
// reads, if it has lost any.
func (r *run) restoreSecrets(ctx context.Context, l record.Service) error {
	secrets := r.d.secretsOf(r.plan)
	if secrets == nil {
		return nil
	}
	if l.BeforeSecrets == nil {
		var err error
		if l.BeforeSecrets, err = r.readBefore(ctx, l); err != nil {
			return err
		}
	}
	jobs := readers([]record.Service{l}, func(l record.Service) []string { return l.BeforeSecrets })
	return r.redeploys(r.persist(ctx, func(ctx context.Context) error { return secrets.Grow(ctx, jobs) }))
}

// readBefore finds what the former version of a job reads in the release that
// made it: the journals of older drovers do not say it.
func (r *run) readBefore(ctx context.Context, l record.Service) ([]string, error) {
	if l.Before == "" || len(l.Secrets) == 0 && l.Change != record.ChangeStop {
		return nil, nil
	}
	var found []string
	err := r.persist(ctx, func(ctx context.Context) error {
		heads, err := r.d.Releases.List(ctx)
		if err != nil {
			return err
		}
		for _, h := range heads {
			if h.Number >= r.head.Number || h.State == record.Unreadable {
				continue
			}
			lines, err := r.d.Releases.Services(ctx, h)
			if err != nil {
				return err
			}
			for _, old := range lines {
				if r.plan.key(old) == r.plan.key(l) && old.Spec == l.Before {
					found = old.Secrets
					return nil
				}
			}
		}
		return nil
	})
	return found, err
}

// secretsRefusal is the outcome of a service whose secrets cannot be written.
func secretsRefusal(err error) error {
	if err != nil && rollout.Unanswered(err) {
		return &rollout.Refusal{Outcome: rollout.Unreachable, Err: err}
	}
	return err
}
