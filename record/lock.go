package record

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/nomad/variables"
)

// LockTTL is the lease of the lock of a stack. The lock of a dead holder expires after
// at most twice this time and a second.
const LockTTL = 15 * time.Second

// Holder is who holds the lock of a stack, for those who would like to.
type Holder struct {
	User    string    `json:"user"`
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Command string    `json:"command"` // without values of flags
	Since   time.Time `json:"since"`
	CI      string    `json:"ci,omitempty"` // address of the pipeline's run

	unknown unknown
}

// Self describes this process. command must not hold secrets; environ is
// where pipelines tell their address.
func Self(command string, environ func(string) string) Holder {
	h := Holder{PID: os.Getpid(), Command: command, Since: time.Now().UTC().Truncate(time.Second)}
	h.Host, _ = os.Hostname()
	if u, err := user.Current(); err == nil {
		h.User = u.Username
	}
	for _, name := range []string{"CI_JOB_URL", "BUILD_URL", "CIRCLE_BUILD_URL", "DRONE_BUILD_LINK", "CI_PIPELINE_URL"} {
		if h.CI == "" {
			h.CI = environ(name)
		}
	}
	if run := environ("GITHUB_RUN_ID"); h.CI == "" && run != "" {
		h.CI = environ("GITHUB_SERVER_URL") + "/" + environ("GITHUB_REPOSITORY") + "/actions/runs/" + run
	}
	return h
}

// Is reports whether both are the same process.
func (h Holder) Is(other Holder) bool {
	return h.Host == other.Host && h.PID == other.PID && h.Since.Equal(other.Since)
}

func (h Holder) String() string {
	s := fmt.Sprintf("%s@%s (pid %d) with `%s` since %s", h.User, h.Host, h.PID, h.Command, h.Since.Local().Format("2006-01-02 15:04:05"))
	if h.CI != "" {
		s += ", " + h.CI
	}
	return s
}

// LockedError is the error of a lock that Holder holds. It wraps variables.ErrLocked.
type LockedError struct {
	Stack, Environment string
	Holder             Holder
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("stack %s (environment %s) is being changed by %s; wait for it with --lock-wait, or look at `drover status`", e.Stack, e.Environment, e.Holder)
}

func (e *LockedError) Unwrap() error { return variables.ErrLocked }

// ErrHidden is the error of Unlock with a token that cannot remove the lock: Nomad
// shows its ID to management tokens only.
var ErrHidden = errors.New("Nomad shows the ID of a lock to management tokens only")

// Lock takes the lock of the stack, which one deployer at a time holds. If another
// process holds it, Lock calls waiting with the holder (waiting may be nil), waits for
// up to wait, and then returns a *LockedError. It returns a *MovedError if a move of the
// record was interrupted.
func (r *Releases) Lock(ctx context.Context, h Holder, wait time.Duration, waiting func(Holder)) (*Lock, error) {
	lease, err := r.LockToMove(ctx, h, wait, waiting)
	if err != nil {
		return nil, err
	}
	l := &Lock{Lease: lease, listed: time.Now().Round(0)}
	all, err := r.contents(ctx)
	if newest := all.newest(); newest > 0 {
		l.last, err = r.readAt(ctx, newest, all.heads[newest])
	}
	l.blobs, l.err = all.blobs, err
	var broken *UnreadableError
	switch {
	case errors.As(err, &broken): // see Lock.Last
		return l, nil
	case err == nil && l.last != nil:
		err = l.last.MoveError()
	}
	if err == nil {
		return l, nil
	}
	_ = l.Remove(ctx)
	return nil, err
}

// Lock is the lock of a stack while a process holds it.
type Lock struct {
	*variables.Lease

	last   *Release
	err    error
	blobs  map[string]bool
	listed time.Time // without the monotonic clock, which stands still while a machine sleeps
}

// Blobs returns the digests of the blobs that are stored, as Releases.Store takes them.
// It returns nil if another process may have held the lock since they were listed. It
// makes no request.
func (l *Lock) Blobs() map[string]bool {
	if age := time.Now().Round(0).Sub(l.listed); age < 0 || age >= LockTTL {
		return nil
	}
	select {
	case <-l.Lost():
		return nil
	default:
		return l.blobs
	}
}

// Last returns the newest release when the lock was taken, nil if there was none.
// It returns an *UnreadableError if its head cannot be read. It makes no request.
func (l *Lock) Last() (*Release, error) { return l.last, l.err }

// LockToMove is Lock for a move, which also finishes one that was interrupted.
func (r *Releases) LockToMove(ctx context.Context, h Holder, wait time.Duration, waiting func(Holder)) (*variables.Lease, error) {
	text, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encoding the holder of the lock: %w", err)
	}
	deadline := time.Now().Add(wait)
	var index uint64
	var last Holder
	for {
		l, err := variables.TakeLease(ctx, r.client, r.lockPath(), map[string]string{variables.LayoutItem: layoutText, "holder": string(text)}, LockTTL)
		if err == nil && !l.Created() { // left by a holder that is gone, or taken with a repeated request: see variables.IsLocked
			if err := l.Remove(ctx); err != nil {
				return nil, err
			}
			continue
		}
		if err == nil || !isLocked(err) {
			return l, err
		}
		other, seen, err := r.holder(ctx, index, min(max(time.Until(deadline), 0), 5*time.Second))
		if err != nil {
			return nil, err
		}
		if other != nil && *other != last {
			last = *other
			if waiting != nil && wait > 0 {
				waiting(last)
			}
		}
		index = seen
		if left := time.Until(deadline); left <= 0 {
			return nil, &LockedError{r.stack, r.env, last}
		}
		if other == nil { // in its delay after it was lost
			_ = nomad.RequestBackoff().Wait(ctx, 0)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
}

// Holder returns the holder of the lock, nil if the lock is free.
func (r *Releases) Holder(ctx context.Context) (*Holder, error) {
	h, _, err := r.holder(ctx, 0, 0)
	return h, err
}

// holder waits, when index is not 0, until the lock's variable has changed.
func (r *Releases) holder(ctx context.Context, index uint64, wait time.Duration) (*Holder, uint64, error) {
	q := &api.QueryOptions{}
	if index > 0 && wait > 0 {
		q.WaitIndex, q.WaitTime = index, wait
	}
	v, meta, err := r.client.Variables().Peek(r.lockPath(), q.WithContext(ctx))
	if err != nil {
		return nil, 0, fmt.Errorf("reading the lock of stack %s: %w", r.stack, err)
	}
	if v == nil || !variables.IsLocked(v.Lock, v.CreateIndex, v.ModifyIndex) {
		return nil, 0, nil
	}
	if err := checkLayout(v.Items[variables.LayoutItem], "the items of "+r.lockPath()); err != nil {
		return nil, 0, err
	}
	var h Holder
	if err := json.Unmarshal([]byte(v.Items["holder"]), &h); err != nil {
		return nil, 0, &UnreadableError{r.lockPath(), err}
	}
	return &h, meta.LastIndex, nil
}

// Unlock takes the lock away from its holder, who notices before its next
// step. It reports whether there was anything to take away. ErrHidden when the
// token is none of management.
func (r *Releases) Unlock(ctx context.Context) (bool, error) {
	v, _, err := r.client.Variables().Peek(r.lockPath(), (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return false, fmt.Errorf("reading the lock of stack %s: %w", r.stack, err)
	}
	if v == nil || !variables.IsLocked(v.Lock, v.CreateIndex, v.ModifyIndex) {
		return false, nil
	}
	if v.Lock == nil {
		return false, ErrHidden
	}
	if _, _, err := r.client.Variables().ReleaseLock(&api.Variable{Path: v.Path, Lock: v.Lock}, (&api.WriteOptions{}).WithContext(ctx)); err != nil {
		return false, fmt.Errorf("releasing the lock of stack %s: %w", r.stack, err)
	}
	return true, nil
}
