package deploy

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/stack"
)

// Drift compares the jobs in the clusters with what the last good release of a
// stack left. It needs neither the source of the stack nor its values, and
// changes nothing.
type Drift struct {
	Home Home
	// Stack is the name of a stack or the path of its source. Environment is given
	// as in Source.
	Stack, Environment string
}

// DriftResult is what differs from a release.
type DriftResult struct {
	Drifted     bool            `json:"drifted"` // whether anything differs
	Environment string          `json:"environment"`
	Layout      int             `json:"layout"` // of the JSON: 1
	Release     int             `json:"release"`
	Services    []release.Drift `json:"services"` // all of the release, also those that do not differ
	Stack       string          `json:"stack"`
}

// Differing returns the number of services that differ.
func (r DriftResult) Differing() int {
	n := 0
	for _, s := range r.Services {
		if s.Kind != release.DriftNone {
			n++
		}
	}
	return n
}

// Run compares. The values of the stack's secrets are hidden in the differences;
// if the token may not read the secrets, every value is hidden.
func (v Drift) Run(ctx context.Context) (DriftResult, error) {
	home, r, err := v.Home.openStore(ctx, v.Stack, v.Environment)
	if err != nil {
		return DriftResult{}, err
	}
	out := DriftResult{Layout: 1, Stack: r.Stack(), Environment: r.Environment()}
	d := v.Home.Deployer(&Limits{}, home, r.Stack(), r.Environment())
	if err = d.HideSecrets(ctx); nomad.IsForbidden(err) {
		d.Rollout.Redact = HideAll
	} else if err != nil {
		return out, err
	}
	err = out.compare(ctx, d)
	return out, err
}

// compare completes the result.
func (r *DriftResult) compare(ctx context.Context, d *release.Deployer) error {
	drift, head, err := d.Drift(ctx)
	if err != nil {
		return err
	}
	r.Release, r.Services = head.Number, drift
	r.Drifted = r.Differing() > 0
	return nil
}

// ChangedJobs finds the jobs of every stack in a cluster that were changed, stopped or
// purged since the last release. It costs one request for each job, so that it can run
// often; Drift tells the differences. It changes nothing.
type ChangedJobs struct {
	Home Home
}

// ChangedStack is what differs from the last release of one stack in one environment.
type ChangedStack struct {
	Stack, Environment string
	Release            int             // 0 while a release is open, or if the last one failed
	Jobs               []release.Drift // that differ
}

// Run returns an entry for every stack with a release. A stack that cannot be read is
// left out; the error joins those of all of them.
func (v ChangedJobs) Run(ctx context.Context) ([]ChangedStack, error) {
	home, err := v.Home.Connect(ctx, false)
	if err != nil {
		return nil, err
	}
	stacks, err := v.Home.stacks(ctx, home)
	if err != nil {
		return nil, err
	}
	cluster, err := v.Home.dialer(map[string]nomad.Clients{"": home})(ctx, &stack.Target{}, false)
	if err != nil {
		return nil, err
	}
	var out []ChangedStack
	var errs []error
	for _, full := range stacks {
		name, env, _ := strings.Cut(full, "/")
		head, jobs, err := release.Changed(ctx, v.Home.store(home, name, env), cluster)
		if err != nil {
			errs = append(errs, fmt.Errorf("stack %s in environment %s: %w", name, env, err))
			continue
		}
		c := ChangedStack{Stack: name, Environment: env, Jobs: jobs}
		if head != nil {
			c.Release = head.Number
		}
		out = append(out, c)
	}
	return out, errors.Join(errs...)
}
