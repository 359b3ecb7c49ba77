package deploy

import (
	"context"

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
	left, err := r.onlyService(ctx, &source, v.Service)
	if err != nil {
		return err
	}
	clients, err := v.Home.Targets(ctx, left.Targets, left.Jobs, false)
	if err != nil {
		return err
	}
	return rollout.Logs(ctx, clients[left.Jobs[0].Target], left.Jobs[0], v.Options, v.Emit)
}
