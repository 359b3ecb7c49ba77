package rollout

import (
	"cmp"
	"context"
	"time"

	"github.com/drover-nomad/drover/nomad"
)

// attemptTimeout ends an attempt on a server that accepts a request and never
// answers it. A blocking query is answered within 64 s.
const attemptTimeout = 90 * time.Second

// Persist calls ask until the cluster has answered it, for silence
// (DefaultSilence if 0): see nomad.Policy. A refused token is an answer. 500 is
// none, since what is asked here was accepted before.
func Persist(ctx context.Context, silence time.Duration, ask func(context.Context) error) error {
	p := nomad.Policy{Patience: cmp.Or(silence, DefaultSilence), Attempt: attemptTimeout, Retry: isRetriable}
	return p.Do(ctx, ask)
}

// Retry is Persist for what may take any time while Nomad answers, such as
// waiting for a lock.
func Retry(ctx context.Context, silence time.Duration, ask func(context.Context) error) error {
	p := nomad.Policy{Patience: cmp.Or(silence, DefaultSilence), Retry: isRetriable}
	return p.Do(ctx, ask)
}

func isRetriable(err error) bool {
	return (Unanswered(err) || nomad.IsInternal(err)) && !nomad.IsRefused(err)
}
