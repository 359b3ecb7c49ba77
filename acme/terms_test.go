package acme_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/acme/acmetest"
)

// pebbleTerms is what Pebble gives as the URL of its terms of service.
const pebbleTerms = "data:text/plain,Do%20what%20thou%20wilt"

// TestTerms_AcceptedKnowingly: no account is registered before the terms of service
// are accepted, and it is recorded which and by whom.
func TestTerms_AcceptedKnowingly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	spec := acme.Spec{Name: "a", Names: []string{"a.example.com"}}
	asked := ""
	for name, change := range map[string]func(*acme.Config){
		"nothing given":    func(*acme.Config) {},
		"another document": func(c *acme.Config) { c.AcceptTerms = []string{"https://example.com/terms"} },
		"another, in the issuer": func(c *acme.Config) {
			c.Issuers[0].AcceptTerms = []string{"https://example.com/terms"}
		},
		"a person refuses": func(c *acme.Config) {
			c.AskTerms = func(_ context.Context, issuer, url string) (string, error) {
				asked = issuer + " " + url
				return "", nil
			}
		},
	} {
		m := w.manager(t, func(c *acme.Config) { c.AcceptTerms = nil; change(c) })
		if _, err := m.Apply(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		r, err := m.Reconcile(t.Context(), "a")
		var terms *acme.TermsError
		if !errors.As(err, &terms) || terms.URL != pebbleTerms || !strings.Contains(err.Error(), pebbleTerms) {
			t.Fatalf("%s: got %v, want an error with the URL of the terms", name, err)
		}
		if st := r.Object.Status; st.Attempts != 0 || !st.NextAttempt.IsZero() || st.LastError != err.Error() {
			t.Errorf("%s: got %+v, want no attempt counted", name, st)
		}
	}
	if asked != "pebble "+pebbleTerms {
		t.Errorf("asked about %q", asked)
	}
	if w.count("registered") != 0 || strings.Contains(w.ca.Log(), "POST /sign-me-up") {
		t.Errorf("registered without consent:\n%s\n%s", w.said(), w.ca.Log())
	}
	w.issue(t, w.manager(t, func(c *acme.Config) {
		c.AcceptTerms = nil
		c.AskTerms = func(context.Context, string, string) (string, error) { return "ops@laptop on a terminal", nil }
	}), spec)
	a, err := w.store.Account(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r := a.CAs[w.ca.Directory]; r.Terms != pebbleTerms || r.TermsBy != "ops@laptop on a terminal" {
		t.Errorf("recorded %+v", r)
	}
}

// TestTerms_Stored: the consent of a stack or a command is stored with the issuer, for
// the controller, and what was registered before counts.
func TestTerms_Stored(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	without := func() *acme.Manager { // as in a controller: it has no issuers
		return w.manager(t, func(c *acme.Config) { c.AcceptTerms, c.Issuers = nil, nil })
	}
	given := func(issuer string, change func(*acme.Config)) {
		t.Helper()
		m := w.manager(t, func(c *acme.Config) {
			c.AcceptTerms, c.Issuers[0].Name = nil, issuer
			change(c)
		})
		if _, err := m.Apply(t.Context(), acme.Spec{Name: issuer, Names: []string{issuer + ".example.com"}, Issuers: []string{issuer}}); err != nil {
			t.Fatal(err)
		}
	}
	renew := func(name string) {
		t.Helper()
		m := without()
		if _, err := m.Force(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if r, err := m.Reconcile(t.Context(), name); err != nil || !r.Issued {
			t.Fatalf("%s: issued %v, %v\n%s", name, r.Issued, err, w.said())
		}
	}
	given("stack", func(c *acme.Config) { c.Issuers[0].AcceptTerms = []string{pebbleTerms} })
	renew("stack")
	w.ca.Restart()                                                                     // without accounts
	given("command", func(c *acme.Config) { c.AcceptTerms = []string{acme.AnyTerms} }) // later without
	given("command", func(*acme.Config) {})
	renew("command")
	if n := w.count("registered"); n != 2 {
		t.Errorf("registered %d times, want 2", n)
	}
	// An account of a drover that recorded neither terms nor consent.
	w.ca.Restart()
	given("former", func(*acme.Config) {})
	if err := w.store.ForgetTerms(t.Context()); err != nil {
		t.Fatal(err)
	}
	renew("former")
	a, err := w.store.Account(t.Context())
	if err != nil || a.CAs[w.ca.Directory].TermsBy != "a former registration" {
		t.Errorf("%+v, %v", a.CAs[w.ca.Directory], err)
	}
	if time.Since(a.CAs[w.ca.Directory].Registered) > time.Minute {
		t.Error("it is not registered again")
	}
}

// TestDeactivate: the CA refuses a deactivated account; after a rollover another one is
// registered.
func TestDeactivate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	m := w.manager(t)
	w.issue(t, m, acme.Spec{Name: "a", Names: []string{"a.example.com"}})
	before, err := w.store.Account(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Deactivate(t.Context(), "https://elsewhere.example/dir"); err == nil {
		t.Error("an account that there is not is deactivated")
	}
	if err := m.Deactivate(t.Context(), w.ca.Directory); err != nil {
		t.Fatal(err)
	}
	if w.count("deactivated") != 1 {
		t.Error(w.said())
	}
	renew := func() (acme.Result, error) {
		t.Helper()
		if _, err := m.Force(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		return m.Reconcile(t.Context(), "a")
	}
	if r, err := renew(); err == nil || r.Issued || !strings.Contains(err.Error(), "drover cert account rollover") {
		t.Errorf("with a deactivated account: issued %v, %v", r.Issued, err)
	}
	after, err := m.Rollover(t.Context())
	if err != nil || after.Thumbprint == before.Thumbprint {
		t.Fatalf("rolled over to %s from %s, %v", after.Thumbprint, before.Thumbprint, err)
	}
	r, err := renew()
	if err != nil || !r.Issued {
		t.Fatalf("after the rollover: issued %v, %v\n%s", r.Issued, err, w.said())
	}
	now, err := w.store.Account(t.Context())
	if err != nil || now.CAs[w.ca.Directory].Location == before.CAs[w.ca.Directory].Location || !now.CAs[w.ca.Directory].Deactivated.IsZero() {
		t.Errorf("%+v, %v", now.CAs[w.ca.Directory], err)
	}
}
