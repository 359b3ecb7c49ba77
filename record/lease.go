package record

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
)

// ErrLocked says that somebody else holds a lock.
var ErrLocked = errors.New("somebody else holds the lock")

// requestTimeout ends a request to Nomad that a caller's context does not.
const requestTimeout = 30 * time.Second

// Lease is the lock of a Nomad Variable, held and renewed until Release.
type Lease struct {
	client     *api.Client
	path, id   string
	ttl        time.Duration
	made       bool // the variable was made with the lock
	once       sync.Once
	stop, lost chan struct{}
}

// TakeLease takes the lock of the variable at path without waiting for it
// (PUT /v1/var/:path?lock-acquire) and gives the variable these items. It
// returns ErrLocked if the lock is held. Nomad frees the lock of a holder that
// died between one and two times ttl, at least 10 s, after its last renewal.
//
// The ID of the lock is ours: a request whose answer was lost is repeated, and
// Nomad gives the lock to the one that has its ID already (isLocked in
// nomad/state/state_store_variables.go).
func TakeLease(ctx context.Context, client *api.Client, path string, items map[string]string, ttl time.Duration) (*Lease, error) {
	l := &Lease{client: client, path: path, id: randomUUID(), ttl: ttl, stop: make(chan struct{}), lost: make(chan struct{})}
	var unsure bool // an attempt may have arrived
	err := retryWrite(ctx, func(ctx context.Context) error {
		// Nomad keeps a lost lock for the delay on top of the TTL.
		v := &api.Variable{Path: path, Items: items, Lock: &api.VariableLock{ID: l.id, TTL: ttl.String(), LockDelay: "1s"}}
		held, _, err := client.Variables().AcquireLock(v, (&api.WriteOptions{}).WithContext(ctx))
		if err == nil {
			l.made = held.CreateIndex == held.ModifyIndex
		}
		unsure = err != nil && !refused(err)
		return err
	})
	if nomad.IsConflict(err) {
		return nil, ErrLocked
	}
	if err != nil {
		if unsure {
			rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			_, _, _ = client.Variables().ReleaseLock(l.variable(), (&api.WriteOptions{}).WithContext(rctx)) // else it runs out
		}
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	// #nosec G118 -- the lease outlives the request that took it
	go KeepLease(ttl, l.renew, notHeld, l.stop, l.lost)
	return l, nil
}

// Again is the lease, lost while Nomad did not answer, when Nomad has kept its
// lock meanwhile: a server that restarts does, for one more TTL.
func (l *Lease) Again(ctx context.Context) (*Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, LockTTL)
	defer cancel()
	if err := l.renew(ctx); err != nil {
		return nil, fmt.Errorf("renewing %s: %w", l.path, err)
	}
	again := &Lease{client: l.client, path: l.path, id: l.id, ttl: l.ttl, stop: make(chan struct{}), lost: make(chan struct{})}
	// #nosec G118 -- the lease outlives the request that renewed it
	go KeepLease(l.ttl, again.renew, notHeld, again.stop, again.lost)
	return again, nil
}

// MayRead tells an empty list from one that the token may not see: Nomad leaves
// out of a list what a token may not list, and says nothing of it (GET
// /v1/vars). What may be read there is asked for by the name that its line in
// a policy has.
func MayRead(ctx context.Context, client *api.Client, folder string) error {
	_, _, err := client.Variables().Peek(folder+"/*", (&api.QueryOptions{}).WithContext(ctx))
	if nomad.IsForbidden(err) {
		return err
	}
	return nil // whatever else it is, it is not about the token
}

// notHeld says that the lock is somebody else's, or nobody's.
func notHeld(err error) bool {
	return nomad.IsConflict(err) || strings.Contains(nomad.Body(err), "doesn't hold a lock")
}

func (l *Lease) variable() *api.Variable {
	return &api.Variable{Path: l.path, Lock: &api.VariableLock{ID: l.id}}
}

func (l *Lease) renew(ctx context.Context) error {
	_, _, err := l.client.Variables().RenewLock(l.variable(), (&api.WriteOptions{}).WithContext(ctx))
	return err
}

// Lost is closed when the lock is, or may be, no longer held.
func (l *Lease) Lost() <-chan struct{} { return l.lost }

// Release gives the lock back; one that is not ours any more is no error.
func (l *Lease) Release(ctx context.Context) error {
	l.once.Do(func() { close(l.stop) })
	<-l.lost // no renewal is on its way
	released := time.Now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	for {
		_, _, err := l.client.Variables().ReleaseLock(l.variable(), (&api.WriteOptions{}).WithContext(ctx))
		if err == nil || notHeld(err) {
			return nil
		}
		timer := time.NewTimer(300 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if refused(err) || ctx.Err() != nil || time.Since(released) > releasePatience {
			return fmt.Errorf("releasing %s: %w", l.path, err)
		}
	}
}

// releasePatience is how long a lock is tried to be given back: it frees
// itself soon after.
const releasePatience = 5 * time.Second

// Remove gives the lock back and deletes its variable, unless somebody has
// taken the lock meanwhile.
func (l *Lease) Remove(ctx context.Context) error {
	if err := l.Release(ctx); err != nil {
		return err
	}
	err := deleteVariable(context.WithoutCancel(ctx), l.client, l.path, 0, &api.WriteOptions{})
	if err == nil || nomad.IsConflict(err) {
		return nil
	}
	return fmt.Errorf("deleting %s: %w", l.path, err)
}

// KeepLease renews a lease of any kind until stop is closed. It gives up,
// closing lost, as soon as ttl may have passed since the last renewal that
// succeeded, or when gone says of an error that there is nothing to renew.
func KeepLease(ttl time.Duration, renew func(ctx context.Context) error, gone func(error) bool, stop <-chan struct{}, lost chan<- struct{}) {
	defer close(lost)
	tick := time.NewTicker(ttl / 3)
	defer tick.Stop()
	end := time.Now().Add(ttl)
	over := time.NewTimer(ttl)
	defer over.Stop()
	for {
		select {
		case <-stop:
			return
		case <-over.C:
			return
		case <-tick.C:
		}
		asked := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), min(time.Until(end), ttl/3))
		err := renew(ctx)
		cancel()
		switch {
		case err == nil:
			end = asked.Add(ttl)
			over.Reset(time.Until(end))
		case gone(err):
			return
		}
	}
}
