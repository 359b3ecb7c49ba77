package release

import (
	"context"
	"maps"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/rollout"
)

// completions are the last runs to completion that the lines of a release
// record, by job. A job that the release removed has none.
func (p *Plan) completions() map[jobKey]*record.Completion {
	out := map[jobKey]*record.Completion{}
	for _, l := range p.runs {
		if c := completionOf(l); c != nil {
			out[p.key(l)] = c
		}
	}
	return out
}

// completionOf returns the last run to completion of a batch or sysbatch job that
// a line knows of. Older drovers recorded none, but called such a job done only
// when it had ended well.
func completionOf(l record.Service) *record.Completion {
	switch {
	case l.Step == record.StepPruned || l.Step == record.StepPruning:
		return nil
	case l.Completed == nil && l.Spec != "" && (l.Step == record.StepDone || l.Step == record.StepUnchanged):
		return &record.Completion{Spec: l.Spec, At: l.Ended}
	}
	return l.Completed
}

// completed returns the run to completion of this very job, nil if the job
// changed since or c is nil.
func completed(ctx context.Context, releases Reader, c *record.Completion, job *api.Job) (*rollout.Completion, error) {
	if c == nil {
		return nil, nil
	}
	digest, err := specDigest(job)
	if err != nil {
		return nil, err
	}
	if digest == c.Spec {
		return &rollout.Completion{Release: c.Release, At: c.At}, nil
	}
	ran, err := readSpec(ctx, releases, c.Spec)
	if err != nil {
		return nil, err
	}
	old, now := *ran.Job, *job
	if now.Meta[rollout.RestartMeta] == "" {
		// A spec that is rendered does not know that it was redeployed.
		old.Meta = maps.Clone(old.Meta)
		delete(old.Meta, rollout.RestartMeta)
		if len(old.Meta) == 0 {
			old.Meta = nil
		}
	}
	// Both are one job in Nomad, whether its file names the place or not.
	old.Region, old.Namespace, now.Region, now.Namespace = nil, nil, nil, nil
	changes, err := rollout.SpecChanges(&old, &now)
	if err != nil || len(changes) > 0 {
		return nil, err
	}
	return &rollout.Completion{Release: c.Release, At: c.At}, nil
}

// MarkCompleted corrects the status of jobs that have no allocation because
// Nomad collected them after they ran to completion. last is the newest
// release, which may be nil; list is the status of jobs in a target of these
// clients, in the same order.
func MarkCompleted(ctx context.Context, releases Reader, last *record.Release, c nomad.Clients, target string, jobs []*api.Job, list []rollout.ServiceStatus) error {
	var lines []record.Service
	for i, job := range jobs {
		if last == nil || !list[i].Collected() || !rollout.RunsToCompletion(job) {
			continue
		}
		if lines == nil {
			var err error
			if lines, err = releases.Services(ctx, last); err != nil {
				return err
			}
		}
		for _, l := range lines {
			if l.Target != target || c.Defaults.JobID(l.Region, l.Namespace, l.JobID) != c.Defaults.Of(job) {
				continue
			}
			run, err := completed(ctx, releases, completionOf(l), job)
			if err != nil {
				return err
			}
			if run != nil {
				list[i].Complete(*run)
			}
		}
	}
	return nil
}
