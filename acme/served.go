package acme

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/drover-nomad/drover/acme/pki"
)

// Usable returns why the stored certificate cannot be served to clients, nil if it can.
func (o *Object) Usable(now time.Time) error {
	switch {
	case o.Chain == "":
		return errors.New("there is no certificate")
	case o.Status.Phase == Temporary:
		return errors.New("there is only the self-signed placeholder of drover")
	case o.Status.Phase == Revoked:
		return errors.New("it is revoked")
	}
	key, err := pki.ParseKey(o.Key.Reveal())
	if err != nil {
		return err
	}
	return Validate(o.Chain, key, o.Spec.Names, now.Add(-o.skew(now)))
}

// skipEdge makes an issued certificate ready that the edge does not serve, and one that
// it is to serve from now on issued.
func (st *Status) skipEdge(spec Spec) {
	const reason = "stored; jobs read it"
	switch {
	case spec.NoEdge && st.Phase == Issued:
		st.Phase, st.Reason = Ready, reason
	case !spec.NoEdge && st.Phase == Ready && st.Reason == reason:
		st.Phase, st.Reason = Issued, "stored; not yet checked whether it is served"
	}
}

// skew returns how far the clock of now is ahead of the CA's, as far as that is known: as
// far as that of the host that got the certificate, unless now would then be before the
// time of issuance.
func (o *Object) skew(now time.Time) time.Duration {
	leaf := pki.First(o.Chain)
	if leaf == nil || now.Add(time.Hour-o.Status.ClockSkew).Before(leaf.NotBefore) {
		return 0
	}
	return o.Status.ClockSkew
}

const (
	servedPause   = 200 * time.Millisecond
	servedTimeout = 5 * time.Second // of one address
)

// NotServedError has what was served instead of the stored certificate at the timeout.
type NotServedError struct {
	Certificate string
	Served      []Served // empty if no instance serves anything
	Err         error    // why the instances are unknown; may be nil
}

func (e *NotServedError) Error() string {
	text := "certificate " + e.Certificate + " is stored, and not served"
	for _, s := range e.Served {
		if !s.Match {
			return text + ": " + s.Address + ": " + s.Problem
		}
	}
	if e.Err != nil {
		return text + ": " + e.Err.Error()
	}
	return text + ": no instance of the edge is healthy"
}

func (e *NotServedError) Unwrap() error { return e.Err }

// UntilServed returns when all addresses of where serve what is stored. It returns a
// *NotServedError if ctx ends first. It calls where before each attempt.
func (m *Manager) UntilServed(ctx context.Context, name string, where func(context.Context) ([]string, error)) ([]Served, error) {
	last := &NotServedError{Certificate: name}
	for {
		addresses, err := where(ctx)
		if err == nil {
			var served []Served
			if served, _, err = m.Verify(ctx, name, addresses, servedTimeout); err == nil {
				if allMatch(served) {
					return served, nil
				}
				last.Served = served
			}
		}
		if errors.Is(err, ErrNotFound) {
			return nil, fmt.Errorf("certificate %s: %w", name, err)
		}
		if ctx.Err() == nil {
			last.Err = err
		}
		t := time.NewTimer(servedPause)
		select {
		case <-ctx.Done():
			t.Stop()
			if errors.Is(ctx.Err(), context.Canceled) {
				return last.Served, ctx.Err()
			}
			return last.Served, last
		case <-t.C:
		}
	}
}
