package controller

import (
	"context"
	"strings"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/nomad"
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
	home := deploy.Home{Dial: func(context.Context, *stack.Target, bool) (nomad.Clients, error) {
		return nomad.Clients{Nomad: c.c.Nomad}, nil
	}}
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
