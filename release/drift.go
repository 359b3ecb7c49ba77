package release

import (
	"context"
	"fmt"
	"slices"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/rollout"
)

// The changes of a job since the release that drift compares with.
const (
	DriftNone    = "none"
	DriftChanged = "changed" // registered again, with other attributes
	DriftStopped = "stopped" // still there, and nothing of it runs
	DriftMissing = "missing" // purged
	DriftExtra   = "extra"   // of an earlier release, and running again
	DriftDead    = "dead"    // unchanged, but not healthy, and Nomad starts no other allocation
)

// Drift is how a job differs from what the last release left.
type Drift struct {
	Service string `json:"service"`
	Target  string `json:"target,omitempty"`
	JobID   string `json:"job_id"`
	Kind    string `json:"drift"` // one of the constants
	// Diff leads from what the release left (Old) to what is there now (New).
	Diff []rollout.FieldChange `json:"diff,omitempty"`
	Kept []rollout.KeptCount   `json:"kept_counts,omitempty"` // scaled since, which is no drift
}

// Drift compares the cluster with the record alone: with what the last good
// release left. It returns that release too.
func (d *Deployer) Drift(ctx context.Context) ([]Drift, *record.Release, error) {
	head, req, err := d.lastGood(ctx)
	if err != nil {
		return nil, nil, err
	}
	req.Adopt, req.TakeOver, req.readOnly = true, true, true
	req.KeepRestarts = true // a job that was started again is no drift
	p, err := d.Plan(ctx, req)
	if err != nil {
		return nil, nil, err
	}
	var out []Drift
	for _, c := range p.Changes() {
		if c.Action != rollout.ActionStop { // else of a newer release that failed
			out = append(out, driftOf(c))
		}
	}
	extra, err := d.extra(ctx, p, head)
	return append(out, extra...), head, err
}

// Changed returns the jobs of the last release that were registered again, stopped or
// purged since. It compares indexes alone, which takes one request for each job, and
// knows no differences. It returns no head while a release is open, or if the last one
// failed. Jobs in clusters of their own are left out: only home is asked.
func Changed(ctx context.Context, releases Reader, home Cluster) (*record.Release, []Drift, error) {
	head, err := releases.Last(ctx)
	if err != nil || head == nil || head.State != record.Done {
		return nil, nil, err
	}
	req, err := requestOf(head)
	if err != nil {
		return nil, nil, err
	}
	lines, err := releases.Services(ctx, head)
	if err != nil {
		return nil, nil, err
	}
	elsewhere := func(l record.Service) bool {
		t := targetNamed(req.Targets, l.Target)
		return t != nil && t.Cluster != nil
	}
	var out []Drift
	for _, l := range lines {
		if !l.Runs() || l.Index == 0 || elsewhere(l) {
			continue
		}
		job, err := home.Job(ctx, l)
		if err != nil {
			return nil, nil, err
		}
		kind := DriftNone
		switch {
		case job == nil:
			kind = DriftMissing
		case nomad.Deref(job.Stop):
			kind = DriftStopped
		case nomad.Deref(job.JobModifyIndex) != l.Index && !isScaled(job):
			kind = DriftChanged
		}
		if kind != DriftNone {
			out = append(out, Drift{Service: l.Name, Target: l.Target, JobID: l.JobID, Kind: kind})
		}
	}
	return head, out, nil
}

// isScaled reports whether an autoscaler may change the job; each change makes a new
// version of it.
func isScaled(job *api.Job) bool {
	return slices.ContainsFunc(job.TaskGroups, func(g *api.TaskGroup) bool { return g.Scaling != nil })
}

// driftOf returns how the job of c differs from what the last release left. c is
// the change that would restore the job.
func driftOf(c Change) Drift {
	out := Drift{Service: c.Service, Target: c.Target, JobID: c.JobID, Kind: DriftChanged, Kept: c.Kept}
	switch {
	case c.Action == rollout.ActionNone:
		out.Kind = DriftNone
	case c.Action == rollout.ActionCreate && c.Index == 0:
		out.Kind = DriftMissing
	case c.Action == rollout.ActionCreate:
		out.Kind = DriftStopped
	case c.Action == rollout.ActionRecreate && len(c.Diff) == 0, c.Retry:
		out.Kind = DriftDead
		return out
	}
	for _, f := range c.Diff {
		out.Diff = append(out.Diff, reversed(f))
	}
	return out
}

// reversed returns f from the other side: what was added is deleted.
func reversed(f rollout.FieldChange) rollout.FieldChange {
	f.Old, f.New = f.New, f.Old
	switch f.Kind {
	case rollout.FieldAdded:
		f.Kind = rollout.FieldDeleted
	case rollout.FieldDeleted:
		f.Kind = rollout.FieldAdded
	}
	return f
}

// LastGood returns a request for the jobs of the last good release, as recorded. It
// prunes nothing: jobs that a later release left keep running.
func (d *Deployer) LastGood(ctx context.Context) (Request, error) {
	_, req, err := d.lastGood(ctx)
	req.Partial = true
	return req, err
}

// lastGood returns the last good release and a request for its jobs.
func (d *Deployer) lastGood(ctx context.Context) (*record.Release, Request, error) {
	heads, err := d.Releases.List(ctx)
	if err != nil {
		return nil, Request{}, err
	}
	for _, h := range heads {
		if h.State == record.Destroyed {
			return nil, Request{}, &DestroyedError{h}
		}
		if h.State == record.Done {
			req, err := d.Rollback(ctx, h.Number)
			req.Kind, req.Of, req.reverse = KindDeploy, 0, false
			return h, req, err
		}
	}
	return nil, Request{}, fmt.Errorf("stack %s (environment %s) has %w that is deployed", d.Releases.Stack(), d.Releases.Environment(), record.ErrNoRelease)
}

// extra finds jobs that an earlier release had and the last one has not, and
// that run nevertheless.
func (d *Deployer) extra(ctx context.Context, p *Plan, last *record.Release) ([]Drift, error) {
	heads, err := d.Releases.List(ctx)
	if err != nil {
		return nil, err
	}
	seen := map[jobKey]bool{}
	for _, part := range p.Parts {
		for _, j := range part.Jobs {
			seen[p.jobKey(part.Target, j.Job)] = true
		}
	}
	var suspects []record.Service
	for _, h := range heads {
		lines, err := d.Releases.Readable(ctx, h)
		if err != nil {
			return nil, err
		}
		for _, l := range lines {
			if _, there := p.clusters[l.Target]; there && !seen[p.key(l)] && h.Number <= last.Number {
				seen[p.key(l)] = true
				suspects = append(suspects, l)
			}
		}
	}
	found := make([]bool, len(suspects))
	err = parallel.Each(len(suspects), 8, func(i int) error {
		l := suspects[i]
		job, err := p.clusters[l.Target].Job(ctx, l)
		if err != nil || job == nil {
			return err
		}
		found[i] = !nomad.Deref(job.Stop) && nomad.Deref(job.ParentID) == ""
		return nil
	})
	var out []Drift
	for i, l := range suspects {
		if found[i] {
			out = append(out, Drift{Service: l.Name, Target: l.Target, JobID: l.JobID, Kind: DriftExtra})
		}
	}
	slices.SortFunc(out, func(a, b Drift) int { return slices.Compare([]string{a.Target, a.JobID}, []string{b.Target, b.JobID}) })
	return out, err
}
