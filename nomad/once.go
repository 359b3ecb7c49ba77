package nomad

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
)

// checks runs each check of an agent once, however many targets the agent serves. A
// check that failed is run again when it is needed next.
type checks struct {
	mu sync.Mutex
	of map[string]*check // by what is checked, and of which agent
}

type check struct {
	done  chan struct{} // closed when the other fields are set
	found any           // of the type that the check finds
	err   error
}

// once returns what run found, for callers with the same identity: the name of the
// check, and what its answer depends on. Callers at the same time share one run, and
// its error. They must not change what it found.
func once[T any](ctx context.Context, c *checks, run func() (T, error), identity ...any) (T, error) {
	text, err := json.Marshal(identity)
	if err != nil {
		var none T
		return none, fmt.Errorf("naming a check: %w", err)
	}
	for key := string(text); ; {
		c.mu.Lock()
		k, runs := c.of[key]
		if !runs {
			k = &check{done: make(chan struct{})}
			if c.of == nil {
				c.of = map[string]*check{}
			}
			c.of[key] = k
		}
		c.mu.Unlock()
		if !runs {
			found, err := run()
			k.found, k.err = found, err
			if k.err != nil {
				c.mu.Lock()
				delete(c.of, key)
				c.mu.Unlock()
			}
			close(k.done)
			return found, ownError(k.err)
		}
		select {
		case <-k.done:
		case <-ctx.Done():
			return run() // which fails at once, with the error of a request
		}
		if !errors.Is(k.err, context.Canceled) || ctx.Err() != nil {
			found, _ := k.found.(T)
			return found, ownError(k.err)
		}
		// The caller that ran the check was cancelled, and this one was not.
	}
}

// ownError returns an error that the caller may change: inTarget completes a
// *ClusterError.
func ownError(err error) error {
	if cluster, ok := err.(*ClusterError); ok { //nolint:errorlint // a wrapped one is not changed
		own := *cluster
		return &own
	}
	return err
}
