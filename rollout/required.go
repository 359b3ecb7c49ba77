package rollout

import (
	"context"
	"fmt"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/consul"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/render"
)

// NeedsConsul reports whether a job registers a service in Consul.
func NeedsConsul(jobs []render.Job) bool {
	for _, j := range jobs {
		if len(consul.Of(consul.ProviderConsul, consul.Services(j.Job))) > 0 {
			return true
		}
	}
	return false
}

// CheckRequired returns an error for each job of another stack that must run
// first and does not (GET /v1/job/:id). Such a job is in the namespace of the
// target, or in that of the client, where several targets can share it.
func CheckRequired(ctx context.Context, c nomad.Clients, ids []string) error {
	namespaces := []string{""}
	if c.Target != nil && c.Target.Namespace != "" {
		namespaces = []string{c.Target.Namespace, ""}
	}
	return parallel.Each(len(ids), 8, func(i int) error {
		for _, ns := range namespaces {
			job, _, err := c.Nomad.Jobs().Info(ids[i], (&api.QueryOptions{Namespace: ns}).WithContext(ctx))
			switch {
			case nomad.IsNotFound(err):
				continue
			case err != nil:
				return c.Explain(fmt.Errorf("reading required job %q: %w", ids[i], err))
			case nomad.Deref(job.Status) != "running":
				return fmt.Errorf("job %q must run before this stack and is %s; look at `nomad job status -namespace %s %s`",
					ids[i], nomad.DerefOr(job.Status, "unknown"), nomad.DerefOr(job.Namespace, api.DefaultNamespace), ids[i])
			}
			return nil
		}
		where := ""
		if len(namespaces) > 1 {
			where = fmt.Sprintf(" in namespace %s or %s", c.Defaults.JobID("", c.Target.Namespace, "").Namespace, c.Defaults.JobID("", "", "").Namespace)
		}
		return fmt.Errorf("job %q must run before this stack and is not there%s; deploy its stack first", ids[i], where)
	})
}
