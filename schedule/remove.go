package schedule

import (
	"context"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acl"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
)

// RemoveAll removes all schedules of a stack in an environment: the periodic
// jobs, runs of them that have not ended, the records, and, where Nomad has
// ACLs, the policies. home is the namespace of the client. It returns the names
// of the schedules, and the policies that the token may not remove. The lock of
// the stack must be held, so that a run can only be waiting for it.
func RemoveAll(ctx context.Context, c *api.Client, home string, store *record.Schedules) (removed, left []string, err error) {
	all, err := store.List(ctx)
	if err != nil {
		return nil, nil, err
	}
	scope := acl.Scope{Namespace: home, Stacks: []string{record.PathName(store.Stack()) + "/" + record.PathName(store.Environment())}}
	for _, s := range all {
		free, err := removeJob(ctx, c, store.Stack(), store.Environment(), s)
		if err != nil {
			return removed, left, err
		}
		if free {
			// Purging a periodic job leaves its children running.
			runs := []render.Job{{Service: s.Name, Job: &api.Job{ID: &s.JobID}}}
			if err := rollout.Destroy(ctx, nomad.Clients{Nomad: c}, runs, rollout.Options{}, nil); err != nil {
				return removed, left, err
			}
			name := scope.OfSchedule(s.JobID).Name
			switch err := acl.RemoveNomadPolicy(ctx, c, name); {
			case nomad.IsForbidden(err):
				left = append(left, name)
			case err != nil && !noACLs(err):
				return removed, left, err
			}
		}
		if err := store.Remove(ctx, s.Name); err != nil {
			return removed, left, err
		}
		removed = append(removed, s.Name)
	}
	return removed, left, nil
}
