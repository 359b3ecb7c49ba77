package acme

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/drover-nomad/drover/parallel"
)

// ReconcileAll reconciles every certificate in the store and returns when the next one is
// due. The errors of single certificates are joined; they are in the status of their
// certificates too. A changed address of an issuer is given to its CA, and own CAs get
// their successors and new lists of revoked certificates.
func (m *Manager) ReconcileAll(ctx context.Context) (time.Time, error) {
	contacts := errors.Join(m.updateContacts(ctx), m.tendAuthorities(ctx))
	list, err := m.c.Store.List(ctx)
	var (
		mu   sync.Mutex
		next = never
		errs = []error{contacts, err}
	)
	parallel.Do(len(list), m.c.Parallel, func(i int) {
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
