package release

import (
	"cmp"
	"context"
	"time"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/rollout"
)

// Patiently returns a context in which what comes before a release waits for a
// Nomad that does not answer as long as the release itself does. tell, which may
// be nil, is called with what Nomad says meanwhile.
func Patiently(ctx context.Context, silence time.Duration, tell func(error)) context.Context {
	silence = cmp.Or(silence, rollout.DefaultSilence)
	return rollout.Patiently(record.Patiently(ctx, silence), silence, tell)
}

// promptly undoes Patiently for a release that has begun: it counts itself for how
// long Nomad does not answer.
func promptly(ctx context.Context) context.Context {
	return rollout.Promptly(record.Patiently(ctx, 0))
}
