package acme

import (
	"context"
	"errors"
	"sync"
	"time"
)

// lookAgain is how often Run reads the store when nothing is due: somebody
// else may have changed what is wanted.
const lookAgain = time.Minute

// ReconcileAll reconciles every certificate in the store and returns when the
// next one is due. The errors of single certificates are joined; they are in
// their status too.
func (m *Manager) ReconcileAll(ctx context.Context) (time.Time, error) {
	list, err := m.c.Store.List(ctx)
	var (
		mu   sync.Mutex
		next = never
		errs = []error{err}
	)
	each(len(list), m.c.Parallel, func(i int) {
		if ctx.Err() != nil {
			return
		}
		r, err := m.Reconcile(ctx, list[i].Spec.Name)
		mu.Lock()
		defer mu.Unlock()
		if err != nil && !errors.Is(err, ErrLocked) && !errors.Is(err, ErrNotFound) {
			errs = append(errs, err)
		}
		if !r.Next.IsZero() && r.Next.Before(next) {
			next = r.Next
		}
	})
	return next, errors.Join(errs...)
}

// Run reconciles until ctx is over. Failures go to Config.Events.
func (m *Manager) Run(ctx context.Context) error {
	for {
		next, err := m.ReconcileAll(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var store *StoreError
		if errors.As(err, &store) {
			m.event(Event{Kind: "warning", Text: err.Error()})
		}
		wait := min(max(next.Sub(m.now()), time.Second), lookAgain)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.clock.After(wait):
		}
	}
}
