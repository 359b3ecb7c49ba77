package rollout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/drover-nomad/drover/nomad"
)

// Patiently returns a context in which clients of NewNomad retry requests that
// change nothing, and plans, for as long as silence while Nomad does not answer.
// tell, which may be nil, is called from one goroutine at a time with what Nomad
// says meanwhile, at most every tellEvery. It is for what comes before a release:
// once it has begun, Persist and the followers of its services wait for Nomad.
func Patiently(ctx context.Context, silence time.Duration, tell func(error)) context.Context {
	return context.WithValue(ctx, waitingKey{}, &waiting{silence: silence, tell: tell})
}

// Promptly undoes Patiently.
func Promptly(ctx context.Context) context.Context {
	return context.WithValue(ctx, waitingKey{}, (*waiting)(nil))
}

type waitingKey struct{}

// waiting is how long requests wait for Nomad.
type waiting struct {
	silence time.Duration
	tell    func(error)

	mu   sync.Mutex
	told time.Time
}

// tellEvery is how often it is said that Nomad does not answer.
const tellEvery = 10 * time.Second

func waitingOf(ctx context.Context) *waiting {
	w, _ := ctx.Value(waitingKey{}).(*waiting)
	return w
}

func (w *waiting) say(err error) {
	if w.tell == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.told) >= tellEvery {
		w.told = time.Now()
		w.tell(err)
	}
}

// roundTrip says when a request hangs; w may be nil.
func (w *waiting) roundTrip(next http.RoundTripper, req *http.Request) (*http.Response, error) {
	if w != nil {
		timer := time.AfterFunc(tellEvery/2, func() { w.say(fmt.Errorf("no answer for %s", tellEvery/2)) })
		defer timer.Stop()
	}
	return next.RoundTrip(req)
}

// Retry is Persist for what may take as long as it likes when Nomad answers, such as
// waiting for a lock.
func Retry(ctx context.Context, silence time.Duration, ask func(context.Context) error) error {
	var failing time.Time
	for {
		begun := time.Now()
		err := ask(ctx)
		if err == nil || !Unanswered(err) && !nomad.IsInternal(err) || refused(err) {
			return err
		}
		if failing.IsZero() {
			failing = begun
		}
		if time.Since(failing) >= cmp.Or(silence, DefaultSilence) && !failing.Equal(begun) {
			return err
		}
		if w := waitingOf(ctx); w != nil {
			w.say(err)
		}
		timer := time.NewTimer(500 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}

// within is context.WithTimeoutCause, with the time that requests wait for Nomad
// on top.
func within(ctx context.Context, timeout time.Duration, cause error) (context.Context, context.CancelFunc) {
	if w := waitingOf(ctx); w != nil {
		timeout += w.silence
	}
	return context.WithTimeoutCause(ctx, timeout, cause)
}

// unavailable returns what keeps a request from being answered, nil if an answer
// has come that a retry would not change. Mistakes in an address or a certificate
// are answers.
func unavailable(res *http.Response, err error, plan bool) error {
	var timeout net.Error
	switch {
	case err == nil && again(res, nil, plan):
		return fmt.Errorf("it answers %s", res.Status)
	case err == nil:
		return nil
	case again(nil, err, plan), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return err
	case errors.As(err, &timeout) && timeout.Timeout():
		return err
	}
	return nil
}

// pause is how long to wait before the attempt after n others.
func pause(n int) time.Duration {
	return patience[min(n, len(patience)-1)]
}
