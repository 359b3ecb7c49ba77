package deploy

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// Targets connects to each target that jobs are in. withConsul reports whether the
// health of their services in Consul matters.
func (h *Home) Targets(ctx context.Context, targets []*stack.Target, jobs []render.Job, withConsul bool) (map[string]nomad.Clients, error) {
	var used []*stack.Target
	var needConsul []bool
	for _, t := range targets {
		here := JobsIn(jobs, t.Name)
		if len(here) > 0 {
			used, needConsul = append(used, t), append(needConsul, withConsul && rollout.NeedsConsul(here))
		}
	}
	dial := h.Dial
	if dial == nil {
		dial = (&nomad.Dialer{}).Dial // which the targets share
	}
	clients, errs := make([]nomad.Clients, len(used)), make([]error, len(used))
	var wg sync.WaitGroup
	for i, t := range used {
		wg.Go(func() { clients[i], errs[i] = dial(ctx, t, needConsul[i]) })
	}
	wg.Wait()
	out := map[string]nomad.Clients{}
	for i, t := range used {
		out[t.Name] = clients[i]
	}
	return out, errors.Join(errs...)
}

// TargetNames returns the targets that jobs are in, in their order.
func TargetNames(jobs []render.Job) []string {
	var out []string
	for _, j := range jobs {
		if !slices.Contains(out, j.Target) {
			out = append(out, j.Target)
		}
	}
	return out
}

// JobsIn returns the jobs of one target.
func JobsIn(jobs []render.Job, target string) []render.Job {
	var out []render.Job
	for _, j := range jobs {
		if j.Target == target {
			out = append(out, j)
		}
	}
	return out
}

// nomadJobs returns the jobs as Nomad takes them.
func nomadJobs(rendered []render.Job) []*api.Job {
	out := make([]*api.Job, 0, len(rendered))
	for _, j := range rendered {
		out = append(out, j.Job)
	}
	return out
}
