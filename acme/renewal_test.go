package acme_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/acme/acmetest"
	"github.com/drover-nomad/drover/acme/pki"
	"github.com/drover-nomad/drover/secrets"
)

// TestRenewAt_ObeysWindow: the window that a CA names is obeyed also when it lies
// after the time at which drover would renew by itself.
func TestRenewAt_ObeysWindow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	m := w.manager(t)
	old := w.issue(t, m, acme.Spec{Name: "a", Names: []string{"a.example.com"}, Profile: "default"})
	life := old.Status.NotAfter.Sub(old.Status.NotBefore)
	at := func(part float64) time.Time {
		return old.Status.NotBefore.Add(time.Duration(part * float64(life))).Truncate(time.Second)
	}
	for _, c := range []struct {
		name             string
		start, end       time.Time // of the window
		earliest, latest time.Time // of the renewal
		why              string
	}{
		{"after the backstop", at(0.75), at(0.76), at(0.75), at(0.76), "its CA asks for it"},
		{"before the backstop", at(0.5), at(0.51), at(0.5), at(0.51), "its CA asks for it"},
		{"until the end", at(0.94), at(1), at(0.94), at(0.95), "its CA asks for it"},
		{"after the end", at(0.96), at(1.2), at(0.61), at(0.67), "a third of its lifetime is left"},
	} {
		if err := w.ca.SetRenewal(old.Chain, c.start, c.end); err != nil {
			t.Fatal(err)
		}
		o, err := w.store.Get(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		w.clock.to(o.Status.ARI.CheckAfter.Add(time.Second))
		r, err := m.Reconcile(t.Context(), "a")
		if err != nil || r.Issued {
			t.Fatalf("%s: %+v, %v", c.name, r, err)
		}
		st := r.Object.Status
		if st.RenewAt.Before(c.earliest) || st.RenewAt.After(c.latest) || st.RenewedBy != c.why {
			t.Errorf("%s: renewed at %s because %s, want between %s and %s", c.name, st.RenewAt, st.RenewedBy, c.earliest, c.latest)
		}
	}
	// Nothing is asked about a certificate that has expired.
	w.clock.to(old.Status.NotAfter.Add(time.Hour))
	w.ca.Stop()
	_, err := m.Reconcile(t.Context(), "a")
	if err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("renewed without a CA: %v", err)
	}
	if strings.Contains(w.said(), "asking about the renewal") {
		t.Errorf("the CA was asked about an expired certificate:\n%s", w.said())
	}
}

// TestBackoff_ShortLifetime: a certificate that is valid for a few days gets enough
// attempts before it expires, and one that has expired is not given up.
func TestBackoff_ShortLifetime(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		life            time.Duration
		least, most     int           // attempts before the end
		expired, steady time.Duration // between attempts after the end, and in the last tenth
	}{
		{90 * 24 * time.Hour, 50, 100, time.Hour, 22 * time.Hour},
		{160 * time.Hour, 20, 50, time.Hour, 96 * time.Minute},
		{time.Hour, 10, 50, time.Minute, time.Minute},
	} {
		t.Run(fmt.Sprint(c.life), func(t *testing.T) {
			t.Parallel()
			store, clock := acme.NewStore(acme.Directory(t.TempDir())), &clock{}
			root, key, err := pki.NewCA("gone", clock.Now())
			if err != nil {
				t.Fatal(err)
			}
			chain, leafKey, err := pki.Sign(pki.Leaf{DNSNames: []string{"a.example.com"}, Lifetime: c.life}, root, key, clock.Now())
			if err != nil {
				t.Fatal(err)
			}
			m := acme.NewManager(acme.Config{
				Store: store, Clock: clock, DefaultIssuer: "gone",
				Issuers: []acme.Issuer{{Name: "gone", Directory: "https://127.0.0.1:1/dir"}},
				Solvers: map[string]acme.Solver{acme.HTTP01: acme.Stateless{SkipCheck: true}},
			})
			t.Cleanup(m.Close)
			o, err := m.Apply(t.Context(), acme.Spec{Name: "a", Names: []string{"a.example.com"}})
			if err != nil {
				t.Fatal(err)
			}
			leaf := pki.First(chain)
			end := issuedByHand(t.Context(), t, store, o, chain, leafKey, leaf)
			clock.to(o.Status.RenewAt.Add(time.Second))
			before, after, slowest := 0, 0, time.Duration(0)
			for after < 5 {
				r, err := m.Reconcile(t.Context(), "a")
				if err == nil {
					t.Fatalf("no attempt at %s, the next is at %s", clock.Now(), r.Next)
				}
				wait := r.Object.Status.NextAttempt.Sub(clock.Now())
				if clock.Now().Before(end) {
					before++
					if left := end.Sub(clock.Now()); left < c.life/10 {
						slowest = max(slowest, wait)
					}
				} else if after++; wait > c.expired*12/10 {
					t.Errorf("expired, and the next attempt is after %s", wait)
				}
				clock.to(r.Object.Status.NextAttempt.Add(time.Second))
			}
			if before < c.least || before > c.most {
				t.Errorf("got %d attempts before it expires, want %d to %d", before, c.least, c.most)
			}
			if slowest > c.steady*13/10 {
				t.Errorf("got %s between two attempts in the last tenth, want about %s", slowest, c.steady)
			}
		})
	}
}

// issuedByHand stores a certificate as if a CA had issued it, and returns its end.
func issuedByHand(ctx context.Context, t *testing.T, store *acme.Store, o *acme.Object, chain, key string, leaf *x509.Certificate) time.Time {
	t.Helper()
	o.Chain, o.Key = chain, secrets.NewValue(key)
	o.Status = acme.Status{
		Phase: acme.Ready, Issuer: "gone", Directory: "https://127.0.0.1:1/dir", Serial: fmt.Sprintf("%032x", leaf.SerialNumber),
		NotBefore: leaf.NotBefore.UTC(), NotAfter: leaf.NotAfter.UTC(), IssuedAt: leaf.NotBefore.UTC(), RenewAt: leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2).UTC(),
	}
	if err := store.Put(ctx, o); err != nil {
		t.Fatal(err)
	}
	return leaf.NotAfter
}
