package deploy

import (
	"context"
	"strings"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/stack"
)

// Home is the cluster that holds the record of a stack, and the process that works
// on the stack.
type Home struct {
	// Dial connects to a target; the zero target is the home cluster. Nil means
	// nomad.Dial, which reads NOMAD_* and CONSUL_* variables of the process. That of a
	// nomad.Dialer shares the connections of many targets.
	Dial func(ctx context.Context, t *stack.Target, needConsul bool) (nomad.Clients, error)
	// Environ holds NAME=VALUE pairs as os.Environ returns them: the values of
	// variables (NOMAD_VAR_*), credentials of DNS providers, DROVER_ACME_*.
	Environ []string
	// Holder is the process, for the lock and the record; see record.Self.
	Holder record.Holder
	// Version is that of drover, for the record.
	Version string
	// ByName is set if stacks are given by the names of their records only, as a server
	// gets them from its clients: no file is looked for under such a name.
	ByName bool
	// Backend is for programs and tests that keep the record elsewhere; nil means
	// Nomad.
	Backend *Backend
}

// Backend says where the record of a stack is kept and which clusters run its jobs.
// Each function may be nil, which means Nomad.
//
// A verb still uses the clients of Home.Dial for what is not in a Store: checks of
// namespaces and volumes, DNS records, schedules, and the state of jobs.
type Backend struct {
	// Releases opens the releases of a stack in an environment.
	Releases func(stackName, env string) release.Store
	// Secrets opens the secrets of a stack in an environment.
	Secrets func(stackName, env string) release.SecretStore
	// Stacks lists every stack and environment with a release: see record.ListStacks.
	Stacks func(ctx context.Context) ([]record.ListedStack, error)
	// Dial connects to the cluster of a target, in which releases are made.
	Dial release.Dialer
}

// Getenv returns the value of a variable of Environ, "" where it is not set.
func (h *Home) Getenv(name string) string {
	for i := len(h.Environ) - 1; i >= 0; i-- { // the last one counts, as in package os/exec
		if n, value, ok := strings.Cut(h.Environ[i], "="); ok && n == name {
			return value
		}
	}
	return ""
}

// Connect returns the clients of the home cluster, whose servers answer and are
// not too old.
func (h *Home) Connect(ctx context.Context, needConsul bool) (nomad.Clients, error) {
	return h.dial(ctx, &stack.Target{}, needConsul)
}

func (h *Home) dial(ctx context.Context, t *stack.Target, needConsul bool) (nomad.Clients, error) {
	if h.Dial != nil {
		return h.Dial(ctx, t, needConsul)
	}
	return nomad.Dial(ctx, t, needConsul)
}

// reach is Connect for a verb that has connected before: it does not look at the
// server again.
func (h *Home) reach(ctx context.Context) (nomad.Clients, error) {
	if h.Dial != nil {
		return h.Dial(ctx, &stack.Target{}, false)
	}
	return nomad.Reach(ctx, &stack.Target{}, false)
}

// Releases opens the releases of the stack that arg leads to; see [StackName] and
// [EnvironmentName].
func (h *Home) Releases(ctx context.Context, arg, env string) (nomad.Clients, *record.Releases, error) {
	name := arg
	if !h.ByName {
		var err error
		if name, err = StackName(arg); err != nil {
			return nomad.Clients{}, nil, err
		}
	}
	clients, err := h.Connect(ctx, false)
	if err != nil {
		return clients, nil, err
	}
	return clients, record.OpenReleases(clients.Nomad, name, EnvironmentName(env)), nil
}

// openStore is Releases in the store of the backend.
func (h *Home) openStore(ctx context.Context, arg, env string) (nomad.Clients, release.Store, error) {
	clients, r, err := h.Releases(ctx, arg, env)
	if err != nil {
		return clients, nil, err
	}
	return clients, h.store(clients, r.Stack(), r.Environment()), nil
}

// stacks returns STACK/ENVIRONMENT of every stack with a release, sorted.
func (h *Home) stacks(ctx context.Context, clients nomad.Clients) ([]string, error) {
	if h.Backend == nil || h.Backend.Stacks == nil {
		return record.Stacks(ctx, clients.Nomad)
	}
	listed, err := h.Backend.Stacks(ctx)
	out := make([]string, 0, len(listed))
	for _, l := range listed {
		out = append(out, l.Stack+"/"+l.Environment)
	}
	return out, err
}

// store opens the releases of a stack. It makes no request.
func (h *Home) store(clients nomad.Clients, name, env string) release.Store {
	if h.Backend != nil && h.Backend.Releases != nil {
		return h.Backend.Releases(name, env)
	}
	return release.InNomad(record.OpenReleases(clients.Nomad, name, env))
}

// secretStore opens the secrets of a stack. It makes no request.
func (h *Home) secretStore(clients nomad.Clients, name, env string) release.SecretStore {
	if h.Backend != nil && h.Backend.Secrets != nil {
		return h.Backend.Secrets(name, env)
	}
	return release.SecretsInNomad(record.OpenSecrets(clients.Nomad, name, env, nil))
}

// dialer returns the clusters of releases. It does not connect again to the targets
// in known, which may be nil.
func (h *Home) dialer(known map[string]nomad.Clients) release.Dialer {
	if h.Backend != nil && h.Backend.Dial != nil {
		return h.Backend.Dial
	}
	return release.DialNomad(func(ctx context.Context, t *stack.Target, needConsul bool) (nomad.Clients, error) {
		if c, ok := known[t.Name]; ok {
			return c, nil
		}
		return h.dial(ctx, t, needConsul)
	})
}
