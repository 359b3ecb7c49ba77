package controller

import (
	"context"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/stack"
)

// drift reports jobs that differ from what the last release of their stack left. It
// does not compare specs, which `drover plan` does.
func (c *controller) drift(ctx context.Context) {
	if c.c.Nomad == nil {
		return
	}
	var last string
	reported := map[string]string{}
	for {
		err := c.reportDrift(ctx, reported)
		if ctx.Err() != nil {
			return
		}
		if c.warn("drift", &last, err); err == nil {
			c.metrics.done("drift")
		}
		if !wait(ctx, c.c.LookEvery) {
			return
		}
	}
}

// reportDrift reports drift that is not in reported, which has the last report by
// STACK/ENVIRONMENT.
func (c *controller) reportDrift(ctx context.Context, reported map[string]string) error {
	clients := nomad.Clients{Nomad: c.c.Nomad}
	home := deploy.Home{
		Dial: func(context.Context, *stack.Target, bool) (nomad.Clients, error) { return clients, nil },
		Backend: &deploy.Backend{Dial: func(context.Context, *stack.Target, bool) (release.Cluster, error) {
			return listed{release.OnNomad(clients), c.metrics.observing()}, nil
		}},
	}
	stacks, err := deploy.ChangedJobs{Home: home}.Run(ctx)
	counts := map[string]int{}
	for _, s := range stacks {
		full := s.Stack + "/" + s.Environment
		counts[full] = len(s.Jobs)
		var parts []string
		for _, j := range s.Jobs {
			parts = append(parts, j.Service+" "+describeDrift(j.Kind))
		}
		text := strings.Join(parts, ", ")
		if text != "" && text != reported[full] {
			c.say("drift", "stack %s in environment %s is not as release %d left it: %s; see drover plan %s -e %s", s.Stack, s.Environment, s.Release, text, s.Stack, s.Environment)
		}
		reported[full] = text
	}
	if err == nil || len(stacks) > 0 {
		c.metrics.drifted(counts)
	}
	return err
}

// listed is the cluster for drift. It reads no job that is in the list of jobs as the
// release left it.
type listed struct {
	release.Cluster
	observed *observed // nil if there is no list
}

// Job returns the job with nothing but its index if it is unchanged.
func (c listed) Job(ctx context.Context, l record.Service) (*api.Job, error) {
	if c.observed != nil && c.observed.isUnchanged(l) {
		return &api.Job{JobModifyIndex: &l.Index}, nil
	}
	return c.Cluster.Job(ctx, l)
}

func describeDrift(kind string) string {
	switch kind {
	case release.DriftMissing:
		return "is not there"
	case release.DriftStopped:
		return "is stopped"
	default:
		return "was changed"
	}
}
