package cli

import (
	"context"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// connect returns clients with the addresses and tokens of the NOMAD_* and CONSUL_*
// environment, after a check of the servers' versions.
func connect(ctx context.Context, needConsul bool) (rollout.Clients, error) {
	return rollout.Dial(ctx, &stack.Target{}, needConsul)
}

// connectTargets is connect for each target of jobs. withConsul is set if the health
// of their services is needed.
func connectTargets(ctx context.Context, s *stack.Stack, jobs []render.Job, withConsul bool) (map[string]rollout.Clients, error) {
	return deploy.ClientsOf(ctx, s.Targets, jobs, withConsul, rollout.Dial)
}

// nomads are the clients for package record.
func nomads(clients map[string]rollout.Clients) map[string]*api.Client {
	out := map[string]*api.Client{}
	for name, c := range clients {
		out[name] = c.Nomad
	}
	return out
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
