package deploy

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/drover-nomad/drover/edge/route"
)

// Maintenance puts the routes of a stack into maintenance, or ends it: while it is on,
// the edge answers their requests with 503 and a page.
type Maintenance struct {
	Home   Home
	Source Source // as in Status
	On     bool
}

// Run writes the names of the services to the edge of each target, and returns them.
// It returns an invalid error if no service of the stack has a route.
func (v Maintenance) Run(ctx context.Context) ([]string, error) {
	source := v.Source
	r, err := newReader(ctx, &v.Home, &source)
	if err != nil {
		return nil, err
	}
	head, err := r.newest(ctx)
	if err != nil {
		return nil, err
	}
	there, err := r.jobs(ctx, head, &source)
	if err != nil {
		return nil, err
	}
	clients, err := v.Home.Targets(ctx, there.Targets, there.Jobs, false)
	if err != nil {
		return nil, err
	}
	services := map[string][]string{} // by target
	for _, j := range there.Jobs {
		for _, s := range route.Services(j.Job) {
			if !strings.Contains(s.Name, "${") && slices.ContainsFunc(s.Tags, func(t string) bool { _, leads := route.Parse(t); return leads }) {
				services[j.Target] = append(services[j.Target], s.Name)
			}
		}
	}
	if len(services) == 0 {
		return nil, invalidf("no service of stack %s has a route", r.releases.Stack())
	}
	key := r.releases.Stack()
	if source.Environment != "" {
		key += "/" + source.Environment
	}
	var all []string
	for _, target := range slices.Sorted(maps.Keys(services)) {
		names := slices.Compact(slices.Sorted(slices.Values(services[target])))
		if err := finder(&v.Home, clients[target]).SetMaintenance(ctx, key, names, v.On); err != nil {
			return nil, err
		}
		all = append(all, names...)
	}
	return slices.Compact(slices.Sorted(slices.Values(all))), nil
}
