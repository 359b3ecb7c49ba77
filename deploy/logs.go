package deploy

import (
	"context"
	"strings"

	"github.com/drover-nomad/drover/rollout"
)

// Logs reads the logs of all instances of one service. It changes nothing.
type Logs struct {
	Home    Home
	Source  Source // as in Status; its Services are not used
	Service string
	Options rollout.LogOptions    // which lines
	Emit    func(rollout.LogLine) // called by one goroutine at a time
}

// Run calls Emit with each line. With Options.Follow it returns when ctx ends.
func (v Logs) Run(ctx context.Context) error {
	source := v.Source
	source.Services = []string{v.Service}
	r, err := newReader(ctx, &v.Home, &source)
	if err != nil {
		return err
	}
	head, err := r.newest(ctx)
	if err != nil {
		return err
	}
	left, err := r.jobs(ctx, head, &source)
	if err != nil {
		return err
	}
	jobs := left.Jobs
	switch {
	case len(jobs) == 0 && len(source.Targets) == 0:
		return invalidf("service %s of stack %s does not run", v.Service, r.releases.Stack())
	case len(jobs) == 0:
		return invalidf("service %s does not run in target %s", v.Service, strings.Join(source.Targets, ", "))
	case len(jobs) > 1:
		return invalidf("service %s runs in several targets; choose one of %s with --target", v.Service, strings.Join(TargetNames(jobs), ", "))
	}
	clients, err := v.Home.Targets(ctx, left.Targets, jobs, false)
	if err != nil {
		return err
	}
	return rollout.Logs(ctx, clients[jobs[0].Target], jobs[0], v.Options, v.Emit)
}
