package nomad

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Backoff is how long to pause between attempts: First, then twice as long each
// time, at most Longest. A random part of up to a quarter is taken off each
// pause, so that clients that failed together do not retry together.
type Backoff struct{ First, Longest time.Duration }

// RequestBackoff returns the pauses between attempts of one request.
func RequestBackoff() Backoff { return Backoff{250 * time.Millisecond, 2 * time.Second} }

// StreamBackoff returns the pauses of what follows a cluster for as long as it
// runs: event streams and blocking queries, of which there may be hundreds.
func StreamBackoff() Backoff { return Backoff{250 * time.Millisecond, 8 * time.Second} }

// ConflictBackoff returns the pauses between attempts of a check-and-set: one
// writer wins each round, and the others must not come back together.
func ConflictBackoff() Backoff { return Backoff{10 * time.Millisecond, 100 * time.Millisecond} }

// Pause returns the pause after n failed attempts since the first.
func (b Backoff) Pause(n int) time.Duration {
	d := b.Longest
	if n < 16 { // a larger shift could overflow
		d = min(b.First<<n, b.Longest)
	}
	return d - rand.N(d/4+1) // #nosec G404 -- spreads load, hides nothing
}

// Wait pauses after n failed attempts since the first. It returns the cause of
// ctx if ctx ends first.
func (b Backoff) Wait(ctx context.Context, n int) error { return wait(ctx, b.Pause(n)) }

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Policy is how an operation that failed is retried, with the pauses of
// RequestBackoff: see docs/decisions/0004-retries.md.
type Policy struct {
	// Patience is how long after the start of the first attempt a failed one is
	// retried. The last attempt begins up to one pause later.
	Patience time.Duration
	// Attempt ends a single attempt. 0 stands for no limit, for what may take
	// long while the cluster answers, such as waiting for a lock; it is then
	// retried at least once.
	Attempt time.Duration
	// Retry reports whether another attempt may succeed.
	Retry func(error) bool
}

// Do calls do until it succeeds, Retry rejects its error, Patience is over or
// ctx ends, and returns the last error of do. do must be idempotent: it is
// repeated as a whole, and what it read before is read again.
//
// Policies do not nest: within do, requests of the client do not wait for the
// cluster themselves (see WithPatience).
func (p Policy) Do(ctx context.Context, do func(context.Context) error) error {
	outer := patienceOf(ctx)
	inner := outer.spent(ctx)
	begun := time.Now()
	for n := 0; ; n++ {
		err := p.attempt(inner, do)
		over := time.Since(begun) >= p.Patience && (n > 0 || p.Attempt > 0)
		if err == nil || !p.Retry(err) || over {
			return err
		}
		outer.report(err)
		if RequestBackoff().Wait(ctx, n) != nil {
			return err
		}
	}
}

func (p Policy) attempt(ctx context.Context, do func(context.Context) error) error {
	if p.Attempt > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, p.Attempt, fmt.Errorf("no answer within %s", p.Attempt))
		defer cancel()
	}
	return do(ctx)
}

// conflicts is how often a check-and-set is attempted.
const conflicts = 50

// RetryConflict calls do, which reads, changes and writes by check-and-set,
// until its error is no conflict, at most 50 times.
func RetryConflict(ctx context.Context, do func() error) error {
	for n := 0; ; n++ {
		err := do()
		if !IsConflict(err) || n+1 == conflicts {
			return err
		}
		if cerr := ConflictBackoff().Wait(ctx, n); cerr != nil {
			return errors.Join(err, cerr)
		}
	}
}

// WithPatience returns a context in which requests that can be repeated wait up
// to d for a Nomad that does not answer. notify, which may be nil, is called
// with the error meanwhile, from one goroutine at a time and at most every 10 s.
// A d of 0 only notifies.
func WithPatience(ctx context.Context, d time.Duration, notify func(error)) context.Context {
	return context.WithValue(ctx, patienceKey{}, &patience{limit: d, notify: notify})
}

// WithoutPatience undoes WithPatience.
func WithoutPatience(ctx context.Context) context.Context {
	return context.WithValue(ctx, patienceKey{}, (*patience)(nil))
}

// PatienceOf returns how long requests in ctx wait for Nomad.
func PatienceOf(ctx context.Context) time.Duration { return patienceOf(ctx).duration() }

// WithTimeout is context.WithTimeoutCause, and adds to timeout how long requests in ctx
// wait for Nomad.
func WithTimeout(ctx context.Context, timeout time.Duration, cause error) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, timeout+PatienceOf(ctx), cause)
}

type patienceKey struct{}

// patience is how long requests wait for Nomad. nil is none.
type patience struct {
	limit  time.Duration
	notify func(error)

	mu       sync.Mutex
	notified time.Time
}

// notifyEvery is how often an unreachable Nomad is reported.
const notifyEvery = 10 * time.Second

func patienceOf(ctx context.Context) *patience {
	p, _ := ctx.Value(patienceKey{}).(*patience)
	return p
}

func (p *patience) duration() time.Duration {
	if p == nil {
		return 0
	}
	return p.limit
}

// spent returns a context whose requests do not wait, but still report.
func (p *patience) spent(ctx context.Context) context.Context {
	if p.duration() == 0 {
		return ctx
	}
	return WithPatience(ctx, 0, p.report)
}

func (p *patience) report(err error) {
	if p == nil || p.notify == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.notified) >= notifyEvery {
		p.notified = time.Now()
		p.notify(err)
	}
}

// watch reports a request that hangs. The caller calls the returned function
// when the request has ended.
func (p *patience) watch() (stop func() bool) {
	if p == nil {
		return func() bool { return true }
	}
	return time.AfterFunc(notifyEvery/2, func() { p.report(fmt.Errorf("no answer for %s", notifyEvery/2)) }).Stop
}
