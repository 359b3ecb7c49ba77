package acme_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/acme/acmetest"
)

// TestForce_DuringAttempt requests a renewal while another attempt is under way:
// neither its failure nor its success answers the request.
func TestForce_DuringAttempt(t *testing.T) {
	t.Parallel()
	for _, fails := range []bool{true, false} {
		name := map[bool]string{true: "that fails", false: "that succeeds"}[fails]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, acmetest.Options{})
			ca := &maintained{RoundTripper: w.https(t)}
			asks := w.manager(t)
			forced := false
			m := w.manager(t, func(c *acme.Config) {
				c.Transport = &hook{ca, func(r *http.Request) {
					if forced || !strings.Contains(r.URL.Path, "order-plz") {
						return
					}
					forced, ca.away = true, fails
					if _, err := asks.Force(t.Context(), "a"); err != nil {
						t.Error(err)
					}
				}}
			})
			if _, err := m.Apply(t.Context(), acme.Spec{Name: "a", Names: []string{"a.example.com"}}); err != nil {
				t.Fatal(err)
			}
			r, err := m.Reconcile(t.Context(), "a")
			if (err != nil) != fails || r.Issued == fails {
				t.Fatalf("the attempt under way: issued %v, %v", r.Issued, err)
			}
			first := r.Object.Status
			if !first.Forced {
				t.Errorf("the request is cleared: %+v", first)
			}
			ca.away = false
			w.clock.add(25 * time.Hour) // after the Retry-After of the CA
			r, err = m.Reconcile(t.Context(), "a")
			if err != nil || !r.Issued || r.Object.Status.Serial == first.Serial || r.Object.Status.Forced {
				t.Errorf("the attempt that answers it: issued %v, %v, %+v", r.Issued, err, r.Object.Status)
			}
		})
	}
}

// TestRevoke_EndsReuseOfKey: a key that was revoked is not certified again, also not
// by an order that was placed before the revocation.
func TestRevoke_EndsReuseOfKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	ca := &undecided{RoundTripper: w.https(t)}
	m := w.manager(t, func(c *acme.Config) {
		c.Transport = ca
		c.SetOrderTimeout(3 * time.Second)
	})
	spec := acme.Spec{Name: "a", Names: []string{"a.example.com"}, ReuseKey: true}
	first := w.issue(t, m, spec)
	force := func() (acme.Result, error) {
		t.Helper()
		if _, err := m.Force(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		return m.Reconcile(t.Context(), "a")
	}
	second, err := force()
	if err != nil || !second.Issued || second.Object.Key != first.Key {
		t.Fatalf("a renewal does not keep the key: %v", err)
	}
	ca.answer = map[string]any{"status": "pending"}
	if r, err := force(); err == nil || r.Object.Status.Pending == nil {
		t.Fatalf("there is no open order: %+v, %v", r, err)
	}
	ca.answer = nil
	if _, err := m.Revoke(t.Context(), "a", 1); err != nil { // keyCompromise
		t.Fatal(err)
	}
	r, err := force()
	if err != nil || !r.Issued {
		t.Fatal(r, err)
	}
	if r.Object.Key == first.Key {
		t.Error("the revoked key is certified again")
	}
	w.check(t, r.Object)
}
