package acme

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/drover-nomad/drover/acme/pki"
)

// todo is what a certificate needs, and when.
type todo struct {
	why string // "" when nothing ever
	at  time.Time
	new bool // nothing to replace
}

var never = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// need returns why and when a new certificate is needed, regardless of former attempts.
func (m *Manager) need(o *Object) todo {
	now, st := m.now(), &o.Status
	switch {
	case o.Chain == "":
		return todo{why: "there is none", at: now, new: true}
	case st.Phase == Temporary:
		return todo{why: "there is only a self-signed one", at: now, new: true}
	case st.Phase == Revoked && !st.wanted():
		return todo{at: never}
	case st.Phase == Revoked, st.Forced:
		return todo{why: "the renewal was asked for", at: now}
	}
	key, err := pki.ParseKey(o.Key.Reveal())
	if err == nil {
		err = Validate(o.Chain, key, o.Spec.Names, now.Add(-o.skew(now)))
	}
	var invalid *InvalidError
	if errors.As(err, &invalid) && invalid.early {
		err = nil // the clock is behind: a new certificate would have the same error
	}
	if err != nil {
		return todo{why: "what is stored cannot be used: " + err.Error(), at: now}
	}
	// The time of a renewal is by the CA's clock.
	leaf, skew := pki.First(o.Chain), o.skew(now)
	if serialOf(leaf) != st.Serial || st.RenewAt.IsZero() { // stored by another program
		return todo{why: "less than a third of its lifetime is left", at: o.Spec.Window.next(backstop(leaf, 0)).Add(skew)}
	}
	return todo{why: st.RenewedBy, at: inWindow(o, st.RenewAt, now.Add(-skew)).Add(skew)}
}

// wanted reports whether a successor of a revoked certificate was requested and
// is not issued yet.
func (st *Status) wanted() bool { return st.Forced || !st.NextAttempt.IsZero() }

// inWindow moves a renewal into the maintenance window, unless that would
// leave less than half of the time that is left for it.
func inWindow(o *Object, at, now time.Time) time.Time {
	if at.Before(now) {
		at = now
	}
	moved := o.Spec.Window.next(at)
	if left := o.Status.NotAfter.Sub(o.Status.RenewAt); moved.After(o.Status.RenewAt.Add(left / 2)) {
		return at
	}
	return moved
}

// judge is need with regard to former attempts.
func (m *Manager) judge(o *Object) todo {
	t, st := m.need(o), &o.Status
	if t.at.After(m.now()) {
		return t
	}
	if st.NextAttempt.After(m.now()) && !st.Forced && !st.ahead(m.now()) {
		t.at = st.NextAttempt
	}
	return t
}

// ahead reports whether the clock was ahead at the last attempt: the stored time
// of the next attempt is then too late.
func (st *Status) ahead(now time.Time) bool { return st.LastAttempt.After(now.Add(time.Minute)) }

// shortLife is the lifetime below which a certificate is renewed with half of it left.
const shortLife = 10 * 24 * time.Hour

// backstop returns when a certificate is renewed if its CA has named no window: with
// a third of its life left, a half of a life under ten days. early takes up to
// a twentieth of the life off that.
func backstop(leaf *x509.Certificate, early float64) time.Time {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	left := life / 3
	if life < shortLife {
		left = life / 2
	}
	left += time.Duration(early * float64(life) / 20)
	return leaf.NotAfter.Add(-left).UTC().Truncate(time.Second)
}

// plan sets when the stored certificate is renewed: when its CA says so, and by the
// backstop only if it does not.
func (st *Status) plan(leaf *x509.Certificate, early float64) {
	if at := st.ARI.renewAt(leaf); !at.IsZero() {
		st.RenewAt, st.RenewedBy = at, "its CA asks for it"
		if st.ARI.Why != "" {
			st.RenewedBy += ", see " + st.ARI.Why
		}
		return
	}
	st.RenewAt, st.RenewedBy = backstop(leaf, early), "a third of its lifetime is left"
	if leaf.NotAfter.Sub(leaf.NotBefore) < shortLife {
		st.RenewedBy = "half of its lifetime is left"
	}
}

// renewAt returns the time in the window that the CA has named (RFC 9773, 4.2), but
// none in the last twentieth of the lifetime. It is zero without a window, and for
// one that lies in there. a may be nil.
func (a *ARI) renewAt(leaf *x509.Certificate) time.Time {
	latest := leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 20).UTC().Truncate(time.Second)
	switch {
	case a == nil || a.Serial != serialOf(leaf) || a.Selected.IsZero() || a.Start.After(latest):
		return time.Time{}
	case latest.Before(a.Selected):
		return latest
	}
	return a.Selected
}

// setBack reports whether the clock was ahead when the certificate was issued and
// is right now.
func (st *Status) setBack(now time.Time) bool {
	return st.ClockSkew > 0 && now.Add(time.Minute).Before(st.IssuedAt)
}

// forgetSkew resets the stored skew after the clock was corrected. It is stored at
// once, because setBack cannot detect the correction after the time of issuance.
func (m *Manager) forgetSkew(ctx context.Context, o *Object) (*Object, error) {
	out, err := m.c.Store.Update(ctx, o.Spec.Name, func(o *Object) error {
		if o.Status.setBack(m.now()) {
			o.Status.ClockSkew = 0
		}
		return nil
	})
	if err != nil {
		return o, err
	}
	return out, nil
}

// checkAt is when the CA is asked about the renewal: never after the certificate
// has expired (RFC 9773, 4.3.3).
func (m *Manager) checkAt(o *Object) time.Time {
	st := &o.Status
	if st.ARI == nil || st.ARI.Serial != st.Serial || st.Phase == Temporary || st.Phase == Revoked || st.Directory == "" {
		return never
	}
	if now := m.now(); now.Add(-o.skew(now)).After(st.NotAfter) {
		return never
	}
	if st.ARI.CheckAfter.After(m.now().Add(ariAtMost + time.Minute)) {
		return time.Time{} // the clock was ahead
	}
	return st.ARI.CheckAfter
}

func (m *Manager) nextLook(o *Object, t todo) time.Time {
	if check := m.checkAt(o); check.Before(t.at) && check.After(m.now()) {
		return check
	}
	return t.at
}

// askRenewal asks the CA when the certificate should be renewed. A CA that does not
// answer is no failure of the certificate.
func (m *Manager) askRenewal(ctx context.Context, o *Object) (*Object, error) {
	c, err := m.ca(ctx, o.Status.Issuer)
	leaf := pki.First(o.Chain)
	if leaf == nil {
		return o, nil
	}
	var info *ARI
	if err == nil {
		info, err = c.renewal(ctx, leaf, m.now())
	}
	if ctx.Err() != nil {
		return o, ctx.Err()
	}
	asked := serialOf(leaf)
	before := o.Status.RenewAt
	next, uerr := m.c.Store.Update(ctx, o.Spec.Name, func(o *Object) error {
		st := &o.Status
		if st.ARI == nil || st.Serial != asked {
			return nil
		}
		if info == nil {
			st.ARI.CheckAfter = m.now().Add(ariDefault)
			return nil
		}
		if info.Start.Equal(st.ARI.Start) && info.End.Equal(st.ARI.End) {
			info.Selected = st.ARI.Selected // once per window
		}
		moved := !info.Selected.Equal(st.ARI.Selected)
		st.ARI = info
		if moved || !info.renewAt(leaf).IsZero() { // otherwise the backstop stays
			st.plan(leaf, early())
		}
		return nil
	})
	if uerr != nil {
		return o, uerr
	}
	o = next
	if err != nil {
		m.event(Event{Kind: "warning", Certificate: o.Spec.Name, Issuer: o.Status.Issuer, Text: err.Error()})
	} else if !o.Status.RenewAt.Equal(before) {
		m.event(Event{Kind: "renewal-info", Certificate: o.Spec.Name, Issuer: o.Status.Issuer, Serial: o.Status.Serial,
			Text: "to be renewed " + o.Status.RenewAt.Format(time.RFC3339) + ": " + o.Status.RenewedBy})
	}
	return o, nil
}

// backoff returns the pause after so many failures in a row.
func backoff(failures int) time.Duration {
	switch failures {
	case 0, 1:
		return time.Minute
	case 2:
		return 10 * time.Minute
	case 3:
		return 100 * time.Minute
	}
	return 24 * time.Hour
}

// retryAfter returns the backoff after so many failures of a certificate that is
// valid until notAfter. It is at most a tenth of what is left of the lifetime, so that
// a short one gets as many attempts as a long one; but not less than a hundredth of
// the whole lifetime, up to an hour.
func (st *Status) retryAfter(failures int, now time.Time) time.Duration {
	if st.Phase == Temporary || st.Phase == Revoked || st.NotAfter.IsZero() {
		return backoff(failures)
	}
	least := min(max(st.NotAfter.Sub(st.NotBefore)/100, time.Minute), time.Hour)
	return min(backoff(failures), max(st.NotAfter.Sub(now)/10, least))
}

// jitter returns d, changed at random by at most a tenth.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1) // #nosec G404 -- no secret
}

// early returns a random share of what renewals may be early, which spreads those that
// would be due at once.
func early() float64 { return rand.Float64() } // #nosec G404 -- no secret

// Limits of orders within breakerTime. CAs do not count orders that replace a
// certificate, but so many are a mistake.
const (
	breakerOrders       = 3
	breakerReplacements = 10
	breakerTime         = 24 * time.Hour
)

// HeldError means that the circuit breaker is open.
type HeldError struct {
	Certificate string
	Until       time.Time
	Orders      int
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("certificate %s: %d new orders for the same names within a day; the next is placed after %s, because CAs lock out accounts that order too often",
		e.Certificate, e.Orders, e.Until.UTC().Format(time.RFC3339))
}

// held returns until when no new order may be placed, zero if one may.
func (st *Status) held(set string, replacing bool, now time.Time) (until time.Time, most int) {
	orders, most := st.Orders, breakerOrders
	if replacing {
		orders, most = st.Replacements, breakerReplacements
	}
	var recent []time.Time
	for _, x := range orders {
		if x.Set == set && now.Sub(x.At) < breakerTime && !x.At.After(now) {
			recent = append(recent, x.At)
		}
	}
	if len(recent) < most {
		return time.Time{}, most
	}
	slices.SortFunc(recent, time.Time.Compare)
	return recent[len(recent)-most].Add(breakerTime), most
}

// counted returns the orders that may still count.
func counted(orders []Ordered, now time.Time) []Ordered {
	return slices.DeleteFunc(orders, func(x Ordered) bool { return now.Sub(x.At) >= breakerTime })
}
