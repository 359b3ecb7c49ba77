package acme_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/acme/acmetest"
	"github.com/drover-nomad/drover/secrets"
)

// TestProfile_PerIssuer: a profile is a CA's own name, so an issuer may have its own;
// one that the directory does not list is an error before the order.
func TestProfile_PerIssuer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	with := func(issuers ...acme.Issuer) *acme.Manager {
		return w.manager(t, func(c *acme.Config) { c.Issuers = issuers })
	}
	named := func(name, profile string) acme.Issuer {
		i := w.issuer()
		i.Name, i.Profile = name, profile
		return i
	}
	o := w.issue(t, with(named("pebble", "shortlived")), acme.Spec{Name: "own", Names: []string{"own.example.com"}, Profile: "of-another-ca"})
	if life := o.Status.NotAfter.Sub(o.Status.NotBefore); life > 7*24*time.Hour {
		t.Errorf("got a life of %s, want that of the issuer's profile", life)
	}
	m := with(named("pebble", ""))
	if _, err := m.Apply(t.Context(), acme.Spec{Name: "a", Names: []string{"a.example.com"}, Profile: "nonsense"}); err != nil {
		t.Fatal(err)
	}
	r, err := m.Reconcile(t.Context(), "a")
	var ie *acme.IssuerError
	if !errors.As(err, &ie) || ie.Kind != acme.KindConfig || !strings.Contains(err.Error(), `unknown profile "nonsense": its directory lists default, shortlived`) {
		t.Fatalf("got %v, want the profiles of the directory", err)
	}
	if r.Object.Status.Pending != nil {
		t.Error("there is an order")
	}
	// A later issuer may have the profile.
	m = with(named("first", ""), named("second", "default"))
	if _, err := m.Apply(t.Context(), acme.Spec{Name: "a", Names: []string{"a.example.com"}, Profile: "nonsense", Issuers: []string{"first", "second"}}); err != nil {
		t.Fatal(err)
	}
	if r, err := m.Reconcile(t.Context(), "a"); err != nil || !r.Issued || r.Object.Status.Issuer != "second" {
		t.Errorf("issued %v, %v", r.Issued, err)
	}
}

// accountUpdates records what a CA is sent about an existing account.
type accountUpdates struct {
	http.RoundTripper
	mu   sync.Mutex
	sent []string
	fail bool
}

func (a *accountUpdates) RoundTrip(req *http.Request) (*http.Response, error) {
	if !strings.HasPrefix(req.URL.Path, "/my-account/") {
		return a.RoundTripper.RoundTrip(req)
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	var jws struct{ Payload string }
	if err := json.Unmarshal(body, &jws); err != nil {
		return nil, err
	}
	payload, err := base64.RawURLEncoding.DecodeString(jws.Payload)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sent = append(a.sent, string(payload))
	if a.fail {
		return &http.Response{StatusCode: http.StatusForbidden, Status: "403 Forbidden", ProtoMajor: 1, ProtoMinor: 1, Request: req, Header: http.Header{}, Body: http.NoBody}, nil
	}
	return a.RoundTripper.RoundTrip(req)
}

// TestContact_ReachesCA: a changed address is given to the CA at the next look, also
// when nothing is due, and once.
func TestContact_ReachesCA(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	ca := &accountUpdates{RoundTripper: w.https(t)}
	manager := func(email string) *acme.Manager {
		return w.manager(t, func(c *acme.Config) { c.Transport, c.Issuers[0].Email = ca, email })
	}
	spec := acme.Spec{Name: "a", Names: []string{"a.example.com"}}
	w.issue(t, manager("ops@example.com"), spec)
	a, err := w.store.Account(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := a.CAs[w.ca.Directory]
	if r.Contact != "ops@example.com" || !strings.HasPrefix(r.Terms, "data:text/plain") || !strings.Contains(w.said(), "its terms of service are accepted by --accept-terms or its variable: "+r.Terms) {
		t.Errorf("registered as %+v\n%s", r, w.said())
	}
	look := func(email string, fails bool) {
		t.Helper()
		m := manager(email)
		if _, err := m.Apply(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := m.ReconcileAll(t.Context()); (err != nil) != fails {
				t.Fatalf("%v\n%s", err, w.said())
			}
			fails = false // the second look waits
		}
	}
	look("ops@example.com", false)
	look("", false)
	if len(ca.sent) != 0 {
		t.Errorf("sent without a change: %q", ca.sent)
	}
	ca.fail = true
	look("new@example.com", true)
	ca.fail = false
	look("new@example.com", false)
	if len(ca.sent) != 2 || !strings.Contains(ca.sent[1], `"contact":["mailto:new@example.com"]`) {
		t.Errorf("sent %q, want the address twice, the second time after the failure", ca.sent)
	}
	if a, err = w.store.Account(t.Context()); err != nil || a.CAs[w.ca.Directory].Contact != "new@example.com" || w.count("contact") != 1 {
		t.Errorf("stored %+v, %v\n%s", a.CAs[w.ca.Directory], err, w.said())
	}
}

// TestContact_OfFirstIssuer: issuers with one directory share the account of the first
// and its address, which another one does not change back and forth.
func TestContact_OfFirstIssuer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{EAB: map[string]string{"kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W", "kid-2": "b10lLJs8l1GPIzsLP0s6pMt8O0XVGnfTaCeROxQM0BIt2XrJMDHJZBM5NuQmQJQH"}})
	ca := &accountUpdates{RoundTripper: w.https(t)}
	named := func(name, email, kid string) acme.Issuer {
		i := w.issuer()
		i.Name, i.Email = name, email
		i.EAB = &acme.EAB{KeyID: kid, MACKey: secrets.NewValue(map[string]string{"kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W", "kid-2": "b10lLJs8l1GPIzsLP0s6pMt8O0XVGnfTaCeROxQM0BIt2XrJMDHJZBM5NuQmQJQH"}[kid])}
		return i
	}
	m := w.manager(t, func(c *acme.Config) {
		c.Transport = ca
		c.Issuers = []acme.Issuer{named("a", "a@example.com", "kid-1"), named("b", "b@example.com", "kid-1"), named("c", "", "kid-2")}
	})
	for _, name := range []string{"a", "b"} {
		w.issue(t, m, acme.Spec{Name: name, Names: []string{name + ".example.com"}, Issuers: []string{name}})
		if _, err := m.ReconcileAll(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(ca.sent) != 0 || w.count("registered") != 1 {
		t.Errorf("sent %q about the account\n%s", ca.sent, w.said())
	}
	if _, err := m.Apply(t.Context(), acme.Spec{Name: "c", Names: []string{"c.example.com"}, Issuers: []string{"c"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Reconcile(t.Context(), "c"); err == nil || !strings.Contains(err.Error(), "issuer a has the same directory and another external account binding") {
		t.Errorf("with another binding: %v", err)
	}
	// The first issuer is gone.
	later := w.manager(t, func(c *acme.Config) { c.Transport, c.Issuers = ca, []acme.Issuer{named("b", "b@example.com", "kid-1")} })
	if err := w.store.ForgetIssuer(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := later.Force(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if r, err := later.Reconcile(t.Context(), "b"); err != nil || !r.Issued || len(ca.sent) != 1 {
		t.Errorf("issued %v, %v; sent %q", r.Issued, err, ca.sent)
	}
}
