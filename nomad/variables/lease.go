package variables

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
)

// ErrLocked reports that another client holds a lock.
var ErrLocked = errors.New("another client holds the lock")

// Lease is the lock of a Nomad Variable, held and renewed until Release.
type Lease struct {
	client     *api.Client
	path, id   string
	ttl        time.Duration
	created    bool
	once       sync.Once
	stop, lost chan struct{}
}

// TakeLease takes the lock of the variable at path without waiting for it
// (PUT /v1/var/:path?lock-acquire) and gives the variable these items. It
// returns ErrLocked if the lock is held. Nomad frees the lock of a holder that
// died between one and two times ttl, at least 10 s, after its last renewal.
//
// The client chooses the ID of the lock: a request whose answer was lost is
// repeated, and Nomad gives the lock to the request that has its ID already
// (isLocked in nomad/state/state_store_variables.go).
func TakeLease(ctx context.Context, client *api.Client, path string, items map[string]string, ttl time.Duration) (*Lease, error) {
	l := &Lease{client: client, path: path, id: newLockID(), ttl: ttl}
	var unsure bool // an attempt may have arrived
	err := retryWrite(ctx, func(ctx context.Context) error {
		// Nomad keeps a lost lock for the delay on top of the TTL.
		v := &api.Variable{Path: path, Items: items, Lock: &api.VariableLock{ID: l.id, TTL: ttl.String(), LockDelay: "1s"}}
		held, _, err := client.Variables().AcquireLock(v, (&api.WriteOptions{}).WithContext(ctx))
		if err == nil {
			l.created = held.CreateIndex == held.ModifyIndex
		}
		unsure = err != nil && !IsRejected(err)
		return err
	})
	if nomad.IsConflict(err) {
		return nil, ErrLocked
	}
	if err != nil {
		if unsure {
			rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			_, _, _ = client.Variables().ReleaseLock(l.variable(), (&api.WriteOptions{}).WithContext(rctx)) // otherwise it expires
		}
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	l.keep()
	return l, nil
}

// newLockID returns a random UUID (RFC 9562, version 4).
func newLockID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

func (l *Lease) keep() {
	l.stop, l.lost = make(chan struct{}), make(chan struct{})
	go KeepLease(l.ttl, l.renew, isNotHeld, l.stop, l.lost)
}

// Created reports whether the variable was created with the lock. Otherwise it
// was left by a former holder, or its creation was retried.
func (l *Lease) Created() bool { return l.created }

// Recover returns a new lease for one that was lost while Nomad did not answer,
// if Nomad still has its lock: a server that restarts keeps it for one more TTL.
func (l *Lease) Recover(ctx context.Context) (*Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, l.ttl)
	defer cancel()
	if err := l.renew(ctx); err != nil {
		return nil, fmt.Errorf("renewing %s: %w", l.path, err)
	}
	recovered := &Lease{client: l.client, path: l.path, id: l.id, ttl: l.ttl}
	recovered.keep()
	return recovered, nil
}

// IsLocked reports whether the lock of a variable is held. Nomad shows the lock
// itself to management tokens only (Variables.Read and List in
// nomad/variables_endpoint.go), but the indexes to all: taking the lock creates
// the variable, a renewal changes nothing, and the release or the expiry of the
// lock is the first change.
func IsLocked(lock *api.VariableLock, createIndex, modifyIndex uint64) bool {
	return lock != nil || createIndex == modifyIndex
}

// isNotHeld reports whether err says that another process holds the lock, or none:
// the next holder deletes its variable.
func isNotHeld(err error) bool {
	return nomad.IsConflict(err) || strings.Contains(nomad.Body(err), "doesn't hold a lock") || strings.Contains(nomad.Body(err), "variable doesn't exist")
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

// releasePatience is for how long the release of a lock is retried: it expires
// soon after.
const releasePatience = 5 * time.Second

// Release releases the lock. A lock that is no longer ours is no error.
func (l *Lease) Release(ctx context.Context) error {
	l.once.Do(func() { close(l.stop) })
	<-l.lost // no renewal is on its way
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	policy := nomad.Policy{
		Patience: releasePatience, Attempt: requestTimeout,
		Retry: func(err error) bool { return !IsRejected(err) && ctx.Err() == nil },
	}
	err := policy.Do(ctx, func(ctx context.Context) error {
		_, _, err := l.client.Variables().ReleaseLock(l.variable(), (&api.WriteOptions{}).WithContext(ctx))
		if isNotHeld(err) {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("releasing %s: %w", l.path, err)
	}
	return nil
}

// Remove releases the lock and deletes its variable, unless another client has
// taken the lock since.
func (l *Lease) Remove(ctx context.Context) error {
	if err := l.Release(ctx); err != nil {
		return err
	}
	err := Delete(context.WithoutCancel(ctx), l.client, l.path, 0, &api.WriteOptions{})
	if err == nil || nomad.IsConflict(err) {
		return nil
	}
	return fmt.Errorf("deleting %s: %w", l.path, err)
}

// KeepLease renews a lease of any kind until stop is closed. It gives up,
// closing lost, as soon as ttl may have passed since the last renewal that
// succeeded, or when gone reports of an error that there is nothing to renew.
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
