package release

import (
	"context"
	"fmt"
	"slices"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
)

// Former are services that releases of the stack have made and that are not
// among jobs. Those that run are as the last release has left them, which
// failed or was given up before it pruned them. Of those that are gone, pruned
// by any release that is kept, or stopped until Nomad collects them, only the
// variable with secrets may be left. A job that Nomad has otherwise is somebody
// else's by now. Targets without a client are left out.
func Former(ctx context.Context, releases *record.Releases, clients map[string]rollout.Clients, jobs []render.Job) (running, gone []render.Job, err error) {
	heads, err := releases.List(ctx)
	if err != nil {
		return nil, nil, err
	}
	key := func(l record.Service) jobKey {
		return jobKey{l.Target, clients[l.Target].Defaults.JobID(l.Region, l.Namespace, l.JobID)}
	}
	heads = slices.DeleteFunc(heads, func(h *record.Release) bool { return h.State == record.Unreadable })
	seen := map[jobKey]bool{}
	for _, j := range jobs {
		seen[key(line(j))] = true
	}
	for i, head := range heads {
		lines, err := releases.Readable(ctx, head)
		if err != nil {
			return nil, nil, err
		}
		for _, l := range lines {
			c, ok := clients[l.Target]
			if !ok || seen[key(l)] {
				continue
			}
			seen[key(l)] = true
			j := named(l)
			j.Secrets = l.Secrets
			job, _, err := c.Nomad.Jobs().Info(l.JobID, query(ctx, l))
			switch was := left(l); {
			case notFound(err):
				gone = append(gone, j)
			case err != nil:
				return nil, nil, fmt.Errorf("reading job %q: %w", l.JobID, err)
			case deref(job.Stop): // by a release that could not purge it, or by hand
				gone = append(gone, j)
			case i == 0 && was.runs && was.index == deref(job.JobModifyIndex):
				running = append(running, j)
			}
		}
	}
	return running, gone, nil
}
