package cli

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// connect makes the clients from the NOMAD_* and CONSUL_* environment and
// makes sure that the servers can be worked with.
func connect(ctx context.Context, needConsul bool) (rollout.Clients, error) {
	return rollout.Dial(ctx, &stack.Target{}, needConsul)
}

// connectTargets is connect for each target that jobs are in; withConsul says
// whether the health of their services matters.
func connectTargets(ctx context.Context, s *stack.Stack, jobs []render.Job, withConsul bool) (map[string]rollout.Clients, error) {
	return clientsOf(ctx, s, jobs, withConsul, rollout.Dial)
}

func clientsOf(ctx context.Context, s *stack.Stack, jobs []render.Job, withConsul bool, dial func(context.Context, *stack.Target, bool) (rollout.Clients, error)) (map[string]rollout.Clients, error) {
	var targets []*stack.Target
	var needConsul []bool
	for _, t := range s.Targets {
		here := jobsIn(jobs, t.Name)
		if len(here) > 0 {
			targets, needConsul = append(targets, t), append(needConsul, withConsul && rollout.NeedsConsul(here))
		}
	}
	clients, errs := make([]rollout.Clients, len(targets)), make([]error, len(targets))
	var wg sync.WaitGroup
	for i, t := range targets {
		wg.Go(func() { clients[i], errs[i] = dial(ctx, t, needConsul[i]) })
	}
	wg.Wait()
	out := map[string]rollout.Clients{}
	for i, t := range targets {
		out[t.Name] = clients[i]
	}
	return out, errors.Join(errs...)
}

// nomads are the clients for package record.
func nomads(clients map[string]rollout.Clients) map[string]*api.Client {
	out := map[string]*api.Client{}
	for name, c := range clients {
		out[name] = c.Nomad
	}
	return out
}

// targetsOf are the names of the targets that jobs are in, in their order.
func targetsOf(jobs []render.Job) []string {
	var out []string
	for _, j := range jobs {
		if !slices.Contains(out, j.Target) {
			out = append(out, j.Target)
		}
	}
	return out
}

func jobsIn(jobs []render.Job, target string) []render.Job {
	return slices.DeleteFunc(slices.Clone(jobs), func(j render.Job) bool { return j.Target != target })
}

// oneOf checks the value of a flag.
func oneOf(flag, value string, allowed ...string) error {
	for _, a := range allowed {
		if a == value {
			return nil
		}
	}
	return usagef("%s cannot be %q; it is %s", flag, value, strings.Join(allowed, " or "))
}
