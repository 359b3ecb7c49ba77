package release

import (
	"context"
	"fmt"
	"slices"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
)

// Rotation finds out which jobs read a secret and what a new value does to
// their tasks.
type Rotation struct {
	releases Reader
	clients  map[string]nomad.Clients
	rendered []render.Job
	lines    []record.Service // of jobs that run and read secrets
}

// NewRotation reads the newest release. rendered are the jobs of the stack's
// files, which may be another version than the one that runs. Jobs of targets
// without a client are left out.
func NewRotation(ctx context.Context, releases Reader, clients map[string]nomad.Clients, rendered []render.Job) (*Rotation, error) {
	r := &Rotation{releases: releases, clients: clients, rendered: rendered}
	last, err := releases.Last(ctx)
	if err != nil || last == nil {
		return r, err
	}
	lines, err := releases.Services(ctx, last)
	if err != nil {
		return nil, err
	}
	for _, l := range lines {
		lo := l.Leftover()
		l.Secrets, l.Spec = secretsLeft(l), lo.Digest
		if _, reached := clients[l.Target]; reached && lo.Runs && len(l.Secrets) > 0 {
			r.lines = append(r.lines, l)
		}
	}
	return r, nil
}

// Jobs returns the jobs whose variables may hold the secrets of the stack: those
// of its files and those that run.
func (r *Rotation) Jobs() []render.Job {
	out := slices.Clone(r.rendered)
	for _, l := range r.lines {
		same := func(j render.Job) bool {
			return j.Target == l.Target && *j.Job.ID == l.JobID && nomad.Deref(j.Job.Namespace) == l.Namespace
		}
		if !slices.ContainsFunc(r.rendered, same) {
			j := named(l)
			j.Secrets = l.Secrets
			out = append(out, j)
		}
	}
	return out
}

// The effects of a new value of a secret on a task.
const (
	EffectRestart = "restart" // its template restarts it
	EffectSignal  = "signal"
	EffectScript  = "script"
	EffectNone    = "none"    // its file changes and the task is not told
	EffectEnded   = "ended"   // it has ended, and reads the value when it starts again
	EffectWaiting = "waiting" // no allocation runs; the next one reads the value
	EffectUnread  = "unread"  // no template of the job reads it
)

// Effect is what a new value does to one task, or to a job as a whole.
type Effect struct {
	Service string
	Target  string
	Task    string // "" for EffectWaiting and EffectUnread
	Kind    string
	Detail  string // the signal, the command
	runsOn  bool   // the job keeps running: a redeploy gives it the value
}

func (e Effect) String() string {
	name := render.Job{Service: e.Service, Target: e.Target}.Name()
	switch e.Kind {
	case EffectRestart:
		return fmt.Sprintf("%s: task %s restarts", name, e.Task)
	case EffectSignal:
		return fmt.Sprintf("%s: task %s gets %s", name, e.Task, e.Detail)
	case EffectScript:
		return fmt.Sprintf("%s: task %s runs %s", name, e.Task, e.Detail)
	case EffectNone:
		return fmt.Sprintf("%s: task %s is not told, its template has change_mode %s", name, e.Task, e.Detail)
	case EffectEnded:
		return fmt.Sprintf("%s: task %s has ended and does not see the new value", name, e.Task)
	case EffectWaiting:
		return name + ": nothing of it runs; its next allocation reads the new value"
	}
	return name + ": no template reads it"
}

// Stale returns the services whose running tasks do not get the new value and
// that a redeploy would give it to.
func Stale(effects []Effect) []string {
	var out []string
	for _, e := range effects {
		switch e.Kind {
		case EffectNone, EffectEnded, EffectUnread:
			if e.runsOn {
				out = append(out, e.Service)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Effects returns what new values of items do to the tasks of the jobs with
// these IDs, by the specs and allocations that run.
func (r *Rotation) Effects(ctx context.Context, jobIDs, items []string) ([]Effect, error) {
	var out []Effect
	for _, l := range r.lines {
		if !slices.Contains(jobIDs, l.JobID) {
			continue
		}
		j, err := readSpec(ctx, r.releases, l.Spec)
		if err != nil {
			return nil, err
		}
		allocs, _, err := OnNomad(r.clients[l.Target]).Allocations(ctx, l, 0)
		if err != nil {
			return nil, err
		}
		out = append(out, effectsOf(ofLine(j, l, nil), allocs, items)...)
	}
	return out, nil
}

// effectsOf returns what new values of items do to the tasks of a job.
func effectsOf(j render.Job, allocs []*api.AllocationListStub, items []string) []Effect {
	base := Effect{Service: j.Service, Target: j.Target, runsOn: KeepsRunning(j.Job)}
	job := *j.Job
	var reads []render.SecretRead
	for _, read := range render.SecretReads(&job) {
		if slices.ContainsFunc(items, read.Reads) {
			reads = append(reads, read)
		}
	}
	if len(reads) == 0 {
		base.Kind = EffectUnread
		return []Effect{base}
	}
	allocs = slices.DeleteFunc(slices.Clone(allocs), func(a *api.AllocationListStub) bool {
		return a.ClientStatus != api.AllocClientStatusRunning && a.ClientStatus != api.AllocClientStatusPending
	})
	if len(allocs) == 0 {
		base.Kind = EffectWaiting
		return []Effect{base}
	}
	var out []Effect
	for _, read := range reads {
		e := base
		e.Task = read.Task
		e.Kind, e.Detail = templateEffect(read.Template)
		here := func(a *api.AllocationListStub) bool { return a.TaskGroup == read.Group }
		live := func(a *api.AllocationListStub) bool {
			st := a.TaskStates[read.Task]
			return here(a) && (st == nil || st.State != "dead")
		}
		switch {
		case !slices.ContainsFunc(allocs, here):
			e.Task, e.Kind = "", EffectWaiting
		case !slices.ContainsFunc(allocs, live):
			e.Kind = EffectEnded
		}
		i := slices.IndexFunc(out, func(o Effect) bool { return o.Task == e.Task })
		switch {
		case i < 0:
			out = append(out, e)
		case slices.Index(strongest, e.Kind) < slices.Index(strongest, out[i].Kind):
			out[i] = e
		}
	}
	return out
}

// strongest orders the effects of several templates of one task.
var strongest = []string{EffectRestart, EffectScript, EffectSignal, EffectNone}

// templateEffect returns what a template does when its text changes.
func templateEffect(t *api.Template) (kind, detail string) {
	if nomad.Deref(t.Once) {
		return EffectNone, "once"
	}
	switch mode := nomad.Deref(t.ChangeMode); mode {
	case "signal":
		return EffectSignal, nomad.Deref(t.ChangeSignal)
	case "script":
		if t.ChangeScript != nil {
			return EffectScript, nomad.Deref(t.ChangeScript.Command)
		}
		return EffectScript, ""
	case "noop":
		return EffectNone, mode
	}
	return EffectRestart, ""
}
