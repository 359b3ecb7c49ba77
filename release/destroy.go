package release

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// KindDestroy is the kind of a release that stops the jobs of a stack.
const KindDestroy = "destroy"

// Only selects services of a release by their name and target. The zero value
// selects all.
type Only struct{ Services, Targets []string }

func (o Only) all() bool { return len(o.Services)+len(o.Targets) == 0 }

func (o Only) has(l record.Service) bool {
	return (len(o.Services) == 0 || slices.Contains(o.Services, l.Name)) &&
		(len(o.Targets) == 0 || slices.Contains(o.Targets, l.Target))
}

// NotRecordedError reports a name that a release does not have.
type NotRecordedError struct {
	Stack   string
	Release int
	What    string // "service" or "target"
	Name    string
	Known   []string // in alphabetical order
}

func (e *NotRecordedError) Error() string {
	hint := "it has none"
	if near := stack.Nearest(e.Name, e.Known); near != "" {
		hint = fmt.Sprintf("did you mean %q?", near)
	} else if len(e.Known) > 0 {
		hint = "it has " + strings.Join(e.Known, ", ")
	}
	return fmt.Sprintf("release %d of stack %s has no %s %q; %s", e.Release, e.Stack, e.What, e.Name, hint)
}

// check returns a *NotRecordedError if the lines of the release head lack a
// selected name.
func (o Only) check(head *record.Release, lines []record.Service) error {
	for _, selected := range []struct {
		what  string
		names []string
		of    func(record.Service) string
	}{
		{"service", o.Services, func(l record.Service) string { return l.Name }},
		{"target", o.Targets, func(l record.Service) string { return l.Target }},
	} {
		var known []string
		for _, l := range lines {
			if name := selected.of(l); name != "" {
				known = append(known, name)
			}
		}
		slices.Sort(known)
		known = slices.Compact(known)
		for _, name := range selected.names {
			if !slices.Contains(known, name) {
				return &NotRecordedError{head.Stack, head.Number, selected.what, name, known}
			}
		}
	}
	return nil
}

// DestroyedError reports that the newest release has destroyed the stack, so
// that nothing of it is to run.
type DestroyedError struct{ Release *record.Release }

func (e *DestroyedError) Error() string {
	r := e.Release
	return fmt.Sprintf("release %d has destroyed stack %s (environment %s); deploy it, or bring the last good release back with `drover rollback`", r.Number, r.Stack, r.Environment)
}

// PlanDestroy returns a plan, for Deploy, that stops what the newest release of
// the stack runs, from the record alone: neither the source nor its values are
// needed. A job that another stack or environment owns by now is not touched:
// see Plan.Spared. A release that is open is abandoned. It returns
// record.ErrNoRelease if there is no release.
func (d *Deployer) PlanDestroy(ctx context.Context, only Only, message string) (*Plan, error) {
	return d.planDestroy(ctx, Request{Kind: KindDestroy, Only: only, Message: message})
}

func (d *Deployer) planDestroy(ctx context.Context, req Request) (*Plan, error) {
	last, err := d.Releases.Last(ctx)
	if err != nil {
		return nil, err
	}
	if last == nil {
		return nil, fmt.Errorf("stack %s (environment %s) has %w", d.Releases.Stack(), d.Releases.Environment(), record.ErrNoRelease)
	}
	if last.State.Open() && d.LockWait <= 0 {
		holder, err := d.Releases.Holder(ctx)
		if err != nil {
			return nil, err
		}
		if holder != nil {
			return nil, &record.LockedError{Stack: last.Stack, Environment: last.Environment, Holder: *holder}
		}
	}
	p := &Plan{stack: d.Releases.Stack(), env: d.Releases.Environment(), last: last, specs: map[string]record.Packed{}, clusters: map[string]Cluster{}}
	if p.lines, err = d.Releases.Services(ctx, last); err != nil {
		return nil, err
	}
	p.runs = p.lines
	if err := req.Only.check(last, p.lines); err != nil {
		return nil, err
	}
	was, err := requestOf(last)
	if err != nil {
		return nil, err
	}
	req.Version, req.AppVersion, req.Targets, req.Waves = last.Version, last.AppVersion, was.Targets, was.Waves
	req.OnFailure, req.TakeOver, req.Partial = OnFailureStop, true, !req.Only.all()
	req.Prune = true // this is what it is for
	if len(req.Waves) == 0 {
		req.Waves = []*stack.Wave{{Name: KindDestroy}}
	}
	if req.Partial && last.Values != "" { // what stays can be rolled back to
		b, err := d.Releases.Blob(ctx, last.Values)
		if err != nil {
			return nil, err
		}
		req.Values = b.Values
	}
	p.req = req
	p.noteDefaults(d.Defaults, req.Targets)
	for _, l := range p.lines {
		if !slices.ContainsFunc(req.Targets, func(t *stack.Target) bool { return t.Name == l.Target }) {
			return nil, fmt.Errorf("release %d does not name the cluster of target %q", last.Number, l.Target)
		}
	}
	parts := map[string]*Part{}
	for _, l := range p.lines {
		if !req.Only.has(l) {
			continue
		}
		part := parts[l.Target]
		if part == nil {
			part = &Part{Wave: len(req.Waves) - 1, Target: l.Target}
			parts[l.Target] = part
			p.Parts = slices.Insert(p.Parts, 0, part) // the last target first
		}
		if l.Leftover().Runs {
			f := formerOf(l)
			f.Stopped = true
			part.former = append(part.former, f)
		}
	}
	if err := d.dial(ctx, p); err != nil {
		return nil, err
	}
	if err := d.prepare(ctx, p); err != nil {
		return nil, err
	}
	return p, d.findForeign(ctx, p)
}

// recorded reports whether the jobs of a request are those of a former release.
// Such a release that waited for a destroy must not bring the stack back.
func (req Request) recorded() bool { return !req.KeepRestarts && req.Kind != KindDestroy }

// running reports whether the last release runs any of what a destroy selects.
func (p *Plan) running() bool {
	return slices.ContainsFunc(p.lines, func(l record.Service) bool { return p.req.Only.has(l) && l.Leftover().Runs })
}

// ends reports whether the plan is a destroy that the record does not show yet.
func (p *Plan) ends() bool {
	return p.req.Kind == KindDestroy && (p.running() || p.Destroys() && p.last.State != record.Destroyed)
}

// Destroys reports whether the plan stops all of the stack.
func (p *Plan) Destroys() bool { return p.req.Kind == KindDestroy && !p.req.Partial }

// Absent returns the services, as SERVICE or SERVICE@TARGET, that the last
// release runs and that a destroy does not find in Nomad.
func (p *Plan) Absent() []string {
	there := map[jobKey]bool{}
	for _, part := range p.Parts {
		for _, c := range part.stops {
			there[p.changeKey(part.Target, c)] = true
		}
	}
	var out []string
	for _, l := range p.lines {
		spared := slices.ContainsFunc(p.spared, func(j ForeignJob) bool { return j.Target == l.Target && j.JobID == l.JobID && j.Service == l.Name })
		if p.req.Only.has(l) && l.Leftover().Runs && !there[p.key(l)] && !spared {
			out = append(out, render.Job{Service: l.Name, Target: l.Target}.Name())
		}
	}
	return out
}

// Clients returns the clients of the plan's targets.
func (p *Plan) Clients() map[string]nomad.Clients {
	out := map[string]nomad.Clients{}
	for name, c := range p.clusters {
		out[name] = c.Clients()
	}
	return out
}

// Recorded returns the jobs that a destroy selects with the specs that the last
// release deployed, or that it stopped.
func (p *Plan) Recorded(ctx context.Context, d *Deployer) ([]render.Job, error) {
	spec := func(l record.Service) string { return cmp.Or(l.Spec, l.Before) }
	lines := slices.DeleteFunc(slices.Clone(p.lines), func(l record.Service) bool { return !p.req.Only.has(l) || spec(l) == "" })
	specs, err := readSpecs(ctx, d.Releases, lines, func(l record.Service) []string { return []string{spec(l)} })
	if err != nil {
		return nil, err
	}
	out := make([]render.Job, len(lines))
	for i, l := range lines {
		out[i] = ofLine(specs[spec(l)], l, nil)
	}
	return out, nil
}

// Made returns the jobs, by name only, that any recorded release of the stack
// has made in the given targets: secrets of jobs that are gone may be left.
func (d *Deployer) Made(ctx context.Context, clients map[string]nomad.Clients) ([]render.Job, error) {
	heads, err := d.Releases.List(ctx)
	if err != nil {
		return nil, err
	}
	var out []render.Job
	seen := map[jobKey]bool{}
	for _, head := range heads {
		lines, err := d.Releases.Readable(ctx, head)
		if err != nil {
			return nil, err
		}
		for _, l := range lines {
			c, ok := clients[l.Target]
			key := jobKey{l.Target, c.Defaults.JobID(l.Region, l.Namespace, l.JobID)}
			if !ok || seen[key] {
				continue
			}
			seen[key] = true
			j := named(l)
			j.Secrets = l.Secrets
			out = append(out, j)
		}
	}
	return out, nil
}
