package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// running is what commands work on that look at what runs: the record of a stack,
// which needs neither its source nor the values of its variables.
type running struct {
	arg       string
	flags     *stackFlags
	home      rollout.Clients
	releases  *record.Releases
	inventory *release.Inventory

	mu      sync.Mutex
	clients map[string]rollout.Clients // of targets
}

// registerRunning adds the flags of such a command. Values are taken, since the
// source is read where there is no release yet, and not shown.
func (f *stackFlags) registerRunning(cmd *cobra.Command) {
	f.register(cmd)
	hideFlags(cmd, "var", "var-file", "values")
}

// running opens the record that arg and -e name.
func (f *stackFlags) running(ctx context.Context, arg string) (*running, error) {
	name, err := deploy.StackName(arg)
	if err != nil {
		return nil, err
	}
	// As in rollout.Reach: what only reads is not asked for versions beforehand.
	home, err := rollout.Reach(ctx, &stack.Target{}, false)
	if err != nil {
		return nil, err
	}
	r := record.OpenReleases(home.Nomad, name, deploy.EnvironmentName(f.environment))
	return &running{arg: arg, flags: f, home: home, releases: r, inventory: release.NewInventory(r), clients: map[string]rollout.Clients{}}, nil
}

// keep reports whether --service and --target ask for a line.
func (f *stackFlags) keep(l record.Service) bool {
	return (len(f.services) == 0 || slices.Contains(f.services, l.Name)) && (len(f.targets) == 0 || slices.Contains(f.targets, l.Target))
}

// read returns what the newest release left of the services that the flags ask
// for.
func (r *running) read(ctx context.Context, head *record.Release) (*release.Recorded, error) {
	rec, err := r.inventory.Read(ctx, head, r.flags.keep)
	if err != nil || len(r.flags.services)+len(r.flags.targets) == 0 {
		return rec, err
	}
	lines, err := r.releases.Services(ctx, head)
	if err != nil {
		return nil, err
	}
	for _, flag := range []struct {
		what   string
		wanted []string
		of     func(record.Service) string
	}{
		{"service", r.flags.services, func(l record.Service) string { return l.Name }},
		{"target", r.flags.targets, func(l record.Service) string { return l.Target }},
	} {
		var known []string
		for _, l := range lines {
			known = append(known, flag.of(l))
		}
		slices.Sort(known)
		known = slices.DeleteFunc(slices.Compact(known), func(name string) bool { return name == "" })
		for _, name := range flag.wanted {
			if slices.Contains(known, name) {
				continue
			}
			hint := "it has " + strings.Join(known, ", ")
			if len(known) == 0 {
				hint = "it has none"
			} else if near := stack.Nearest(name, known); near != "" {
				hint = fmt.Sprintf("did you mean %q?", near)
			}
			return nil, usagef("release %d of stack %s has no %s %q; %s", head.Number, r.releases.Stack(), flag.what, name, hint)
		}
	}
	return rec, nil
}

// dial returns the clients of the targets that jobs are in, which are made once.
func (r *running) dial(ctx context.Context, targets []*stack.Target, jobs []render.Job, withConsul bool) (map[string]rollout.Clients, error) {
	return deploy.ClientsOf(ctx, targets, jobs, withConsul, func(ctx context.Context, t *stack.Target, needConsul bool) (rollout.Clients, error) {
		r.mu.Lock()
		c, made := r.clients[t.Name]
		r.mu.Unlock()
		if made && (c.Consul != nil || !needConsul) {
			return c, nil
		}
		c, err := rollout.Reach(ctx, t, needConsul)
		if err == nil {
			r.mu.Lock()
			r.clients[t.Name] = c
			r.mu.Unlock()
		}
		return c, err
	})
}

// newest returns the newest release that can be read, nil where there is none.
func (r *running) newest(ctx context.Context) (*record.Release, error) {
	heads, err := r.releases.List(ctx)
	if err != nil || len(heads) == 0 {
		return nil, err
	}
	for _, h := range heads {
		if h.State != record.Unreadable {
			return h, nil
		}
	}
	return nil, errors.New(heads[0].Detail + "; run `drover record check " + stackArgs(r.releases.Stack(), r.releases.Environment()) + "`")
}

// jobs returns what the release head left of the services that the flags ask for;
// or what the source has of them, where head is nil.
func (r *running) jobs(ctx context.Context, head *record.Release) (*release.Recorded, error) {
	if head != nil {
		return r.read(ctx, head)
	}
	s, rendered, err := r.source(ctx)
	if err != nil {
		return nil, err
	}
	return &release.Recorded{Jobs: rendered, Targets: s.Targets}, nil
}

// source reads the stack for want of a release.
func (r *running) source(ctx context.Context) (*stack.Stack, []render.Job, error) {
	s, jobs, err := r.flags.load(ctx, r.arg)
	if err != nil && !r.hasSource() {
		return nil, nil, noReleases(ctx, r.home, r.releases)
	}
	var diags hcl.Diagnostics
	if errors.As(err, &diags) {
		why := &hcl.Diagnostic{
			Severity: hcl.DiagWarning, Summary: fmt.Sprintf("Stack %s has no release in environment %s", r.releases.Stack(), r.releases.Environment()),
			Detail: "Its source is read instead.",
		}
		return nil, nil, append(hcl.Diagnostics{why}, diags...)
	}
	return s, jobs, err
}

// hasSource reports whether arg leads to the source of a stack.
func (r *running) hasSource() bool {
	info, err := os.Stat(r.arg)
	return err == nil && !info.IsDir() || stackFiles(r.arg) != nil
}
