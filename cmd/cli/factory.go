package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// factory makes the clients of a command: each when it is first needed, and
// once.
type factory struct {
	dialer nomad.Dialer

	mu   sync.Mutex
	made map[string]nomad.Clients
}

// dial returns the clients of a target's cluster, whose versions are checked.
func (f *factory) dial(ctx context.Context, t *stack.Target, needConsul bool) (nomad.Clients, error) {
	return f.clients(ctx, "checked", f.dialer.Dial, t, needConsul)
}

// reach returns dial without the check of versions, for a command that only
// reads.
func (f *factory) reach(ctx context.Context, t *stack.Target, needConsul bool) (nomad.Clients, error) {
	return f.clients(ctx, "reached", f.dialer.Reach, t, needConsul)
}

func (f *factory) clients(ctx context.Context, kind string, dial func(context.Context, *stack.Target, bool) (nomad.Clients, error), t *stack.Target, needConsul bool) (nomad.Clients, error) {
	cluster := *t
	cluster.Services, cluster.Counts, cluster.JobSuffix = nil, nil, "" // the same cluster without them
	id, err := json.Marshal(cluster)
	if err != nil {
		return nomad.Clients{}, fmt.Errorf("naming target %s: %w", t.Name, err)
	}
	key := kind + string(id)
	f.mu.Lock()
	c, made := f.made[key]
	f.mu.Unlock()
	if made && (c.Consul != nil || !needConsul) {
		return c, nil
	}
	c, err = dial(ctx, t, needConsul)
	if err != nil {
		return c, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.made == nil {
		f.made = map[string]nomad.Clients{}
	}
	f.made[key] = c
	return c, nil
}

// connect returns the clients of the cluster that keeps the records.
func (f *factory) connect(ctx context.Context, needConsul bool) (nomad.Clients, error) {
	return f.dial(ctx, &stack.Target{}, needConsul)
}

// targets returns the clients of each target that jobs are in; withConsul reports
// whether the health of their services matters.
func (f *factory) targets(ctx context.Context, s *stack.Stack, jobs []render.Job, withConsul bool) (map[string]nomad.Clients, error) {
	h := deploy.Home{Dial: f.dial}
	return h.Targets(ctx, s.Targets, jobs, withConsul)
}

// recorded opens the record that a command names.
func (f *factory) recorded(ctx context.Context, arg, env string) (nomad.Clients, *record.Releases, error) {
	h := deploy.Home{Dial: f.dial}
	return h.Releases(ctx, arg, env)
}

// home is the process and its cluster, for a verb of package deploy.
func (f *factory) home(cmd *cobra.Command) deploy.Home {
	return deploy.Home{Dial: f.dial, Environ: os.Environ(), Holder: record.Self(commandLine(cmd), os.Getenv), Version: Version}
}

// readingHome is home for a command that only reads.
func (f *factory) readingHome(cmd *cobra.Command) deploy.Home {
	h := f.home(cmd)
	h.Dial = f.reach
	return h
}
