package release

import (
	"context"
	"fmt"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
)

// KindAdopt is the kind of a release that took over what ran.
const KindAdopt = "adopt"

// Adopt records what runs now under the IDs of the plan's jobs as a release,
// so that the next one may change it and a rollback can come back to it.
// Nothing is registered and nothing restarts. Jobs that are not there are left
// out. It returns nil when there is nothing that is not recorded already, and a
// *ForeignError if another stack or environment owns one of the jobs.
func (d *Deployer) Adopt(ctx context.Context, p *Plan) (*record.Release, error) {
	if err := p.Conflict(); err != nil {
		return nil, err
	}
	if len(p.foreign) == 0 && p.last != nil {
		return nil, nil
	}
	l, _, err := d.lock(ctx, d.LockWait)
	if err != nil {
		return nil, err
	}
	defer func() { _ = l.release(ctx) }()
	if last, err := d.Releases.Last(ctx); err != nil {
		return nil, err
	} else if number(last) != number(p.last) {
		return nil, fmt.Errorf("another process made release %d meanwhile; run the command again", number(last))
	}
	lines, blobs, err := d.asTheyAre(ctx, p)
	if err != nil || len(lines) == 0 {
		return nil, err
	}
	if p.req.Partial {
		lines = append(lines, p.carried(lines)...)
	}
	head := d.head(p, record.Running)
	head.Kind = KindAdopt
	p.req.Values = nil // they are not those of what runs
	more, err := describe(head, p, lines)
	if err != nil {
		return nil, err
	}
	blobs = append(blobs, more...)
	r := &run{d: d, lock: l, plan: p, head: head}
	if err := d.Releases.Store(ctx, blobs, nil); err != nil {
		return nil, err
	}
	if r.journal, err = d.Releases.Create(ctx, head, lines); err != nil {
		return nil, err
	}
	r.reindex()
	if err := r.end(ctx, &Result{}, record.Done, rollout.Unchanged, ""); err != nil {
		return nil, err
	}
	return r.head, nil
}

// asTheyAre are lines of the jobs that run, with their specs as Nomad has
// them.
func (d *Deployer) asTheyAre(ctx context.Context, p *Plan) ([]record.Service, []record.Packed, error) {
	var all []record.Service
	var asked []render.Job
	for _, part := range p.Parts {
		for _, j := range part.Jobs {
			asked = append(asked, j)
			l := line(j)
			l.Wave = part.Wave
			all = append(all, l)
		}
	}
	packed := make([]record.Packed, len(all))
	err := parallel.Each(len(all), 8, func(i int) error {
		l := &all[i]
		job, err := p.clusters[l.Target].Job(ctx, *l)
		if err != nil || job == nil || nomad.Deref(job.Stop) {
			return err
		}
		source, err := p.clusters[l.Target].Source(ctx, *l, nomad.Deref(job.Version))
		if err != nil {
			return err
		}
		// Nomad names the region and namespace that a spec may leave open; a
		// job is found again under the words of the stack.
		taken := clean(job)
		taken.Region, taken.Namespace = asked[i].Job.Region, asked[i].Job.Namespace
		if packed[i], err = packJob(taken, source, ""); err != nil {
			return err
		}
		l.Change, l.Step = record.ChangeNone, record.StepDone
		l.Outline = rollout.Outline(taken)
		l.BeforeOutline = l.Outline
		l.Counts = nil // what the operator asked for before it was scaled is not known
		l.Spec, l.Before, l.Planned, l.Index = packed[i].Digest, packed[i].Digest, nomad.Deref(job.JobModifyIndex), nomad.Deref(job.JobModifyIndex)
		return nil
	})
	var lines []record.Service
	var blobs []record.Packed
	for i, l := range all {
		if l.Spec != "" {
			lines, blobs = append(lines, l), append(blobs, packed[i])
		}
	}
	return lines, blobs, err
}
