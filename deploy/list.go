package deploy

import (
	"context"

	"github.com/drover-nomad/drover/record"
)

// List reads the newest release of every stack and environment in a cluster. It
// changes nothing.
type List struct {
	Home Home
}

// Run returns the stacks, ordered by name and environment. A record that cannot
// be read is an entry with an error. The list is empty, and not nil, if there is
// no release.
func (v List) Run(ctx context.Context) ([]record.ListedStack, error) {
	if b := v.Home.Backend; b != nil && b.Stacks != nil {
		return b.Stacks(ctx)
	}
	home, err := v.Home.Connect(ctx, false)
	if err != nil {
		return nil, err
	}
	return record.ListStacks(ctx, home.Nomad)
}
