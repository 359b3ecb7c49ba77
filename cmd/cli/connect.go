package cli

import (
	"context"
	"strings"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/rollout"
)

// connect makes the clients from the NOMAD_* and CONSUL_* environment and
// makes sure that the servers can be worked with.
func connect(ctx context.Context, needConsul bool) (rollout.Clients, error) {
	var (
		c   rollout.Clients
		err error
	)
	if c.Nomad, err = api.NewClient(api.DefaultConfig()); err != nil {
		return c, &rollout.ClusterError{System: "Nomad", Address: api.DefaultConfig().Address, Problem: "cannot be asked", Err: err, Hint: "look at the NOMAD_* environment variables"}
	}
	if needConsul {
		if c.Consul, err = capi.NewClient(capi.DefaultConfig()); err != nil {
			return c, &rollout.ClusterError{System: "Consul", Address: capi.DefaultConfig().Address, Problem: "cannot be asked", Err: err, Hint: "look at the CONSUL_* environment variables"}
		}
	}
	return c, rollout.Preflight(ctx, c, needConsul)
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
