package acme_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/acme/acmetest"
	"github.com/drover-nomad/drover/acme/pki"
)

// clock is one that the test sets.
type clock struct {
	mu     sync.Mutex
	offset time.Duration
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.offset)
}

func (c *clock) After(time.Duration) <-chan time.Time { return make(chan time.Time) }

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset += d
}

func (c *clock) to(at time.Time) { c.add(at.Sub(c.Now())) }

// world is a CA, an edge that answers it, a store and what managers said.
type world struct {
	ca    *acmetest.CA
	store *acme.Store
	clock *clock

	mu       sync.Mutex
	events   []acme.Event
	requests []acme.Request
}

func newWorld(t *testing.T, opts acmetest.Options) *world {
	t.Helper()
	return newWorldOn(t, opts, acme.Directory(t.TempDir()))
}

func newWorldOn(t *testing.T, opts acmetest.Options, b acme.Backend) *world {
	t.Helper()
	w := &world{clock: &clock{}, store: acme.NewStore(b)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- acme.Respond(ctx, l, acme.Responder{Thumbprint: w.store.Thumbprint}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	opts.HTTPPort = l.Addr().(*net.TCPAddr).Port
	w.ca = acmetest.Start(t, opts)
	return w
}

func (w *world) issuer() acme.Issuer {
	return acme.Issuer{Name: "pebble", Directory: w.ca.Directory, CA: w.ca.Root, Email: "ops@example.com"}
}

func (w *world) config() acme.Config {
	return acme.Config{
		Store: w.store, Issuers: []acme.Issuer{w.issuer()}, DefaultIssuer: "pebble", Clock: w.clock,
		Solvers: map[string]acme.Solver{acme.HTTP01: acme.Stateless{Port: w.ca.HTTPPort, Resolver: w.ca.Resolver()}},
		LockTTL: 10 * time.Second, AcceptTerms: []string{acme.AnyTerms},
		Events: func(e acme.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, e)
		},
		Requests: func(r acme.Request) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.requests = append(w.requests, r)
		},
	}
}

func (w *world) manager(t *testing.T, change ...func(*acme.Config)) *acme.Manager {
	t.Helper()
	c := w.config()
	for _, f := range change {
		f(&c)
	}
	m := acme.NewManager(c)
	t.Cleanup(m.Close)
	return m
}

func (w *world) count(kind string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, e := range w.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

func (w *world) said() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	for _, e := range w.events {
		fmt.Fprintf(&b, "%s %s %s: %s\n", e.Kind, e.Certificate, e.Issuer, e.Text)
	}
	return b.String()
}

// issue wants a certificate and gets it.
func (w *world) issue(t *testing.T, m *acme.Manager, spec acme.Spec) *acme.Object {
	t.Helper()
	if _, err := m.Apply(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	r, err := m.Reconcile(t.Context(), spec.Name)
	if err != nil {
		t.Fatalf("%v\n%s", err, w.said())
	}
	if !r.Issued {
		t.Fatalf("nothing was issued: %+v\n%s", r.Object.Status, w.said())
	}
	w.check(t, r.Object)
	return r.Object
}

// check looks at a stored certificate as who serves it would.
func (w *world) check(t *testing.T, o *acme.Object) {
	t.Helper()
	key, err := pki.ParseKey(o.Bundle().Reveal())
	if err != nil {
		t.Fatal(err)
	}
	if err := acme.Validate(o.Chain, key, o.Spec.Names, time.Now()); err != nil {
		t.Error(err)
	}
	if !o.Status.RenewAt.Before(o.Status.NotAfter) || !o.Status.RenewAt.After(o.Status.NotBefore) {
		t.Errorf("renewal at %s of a certificate from %s to %s", o.Status.RenewAt, o.Status.NotBefore, o.Status.NotAfter)
	}
	if o.Status.Pending != nil || o.Status.Attempts != 0 {
		t.Errorf("left over after an issuance: %+v", o.Status)
	}
}

func TestIssueHTTP01(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	m := w.manager(t)
	o := w.issue(t, m, acme.Spec{Name: "cloud.example.com", Names: []string{"cloud.example.com", "Files.Example.com.", "bücher.example.com"}})
	if o.Status.Phase != acme.Issued || o.Status.Issuer != "pebble" {
		t.Errorf("status %+v", o.Status)
	}
	// Directory, nonce, account, order, 3 authorizations, 3 challenges, poll,
	// finalize, poll, certificate, renewal information: the least there is.
	if n := len(w.requests); n > 16 {
		t.Errorf("%d requests to the CA:\n%+v", n, w.requests)
	}
	r, err := m.Reconcile(t.Context(), o.Spec.Name)
	if err != nil || r.Issued {
		t.Errorf("reconciling what is fine: %+v, %v", r, err)
	}
	if r.Next.Before(time.Now().Add(time.Hour)) {
		t.Errorf("next look is at %s", r.Next)
	}
	if w.count("ordered") != 1 || w.count("registered") != 1 {
		t.Error(w.said())
	}
	for _, text := range []string{w.said(), fmt.Sprintf("%+v %#v %s", o, o, o.Bundle()), w.ca.Log()} {
		if strings.Contains(text, "PRIVATE KEY") {
			t.Error("an event contains a private key")
		}
	}
	if _, err := w.store.Get(t.Context(), "nothing"); !errors.Is(err, acme.ErrNotFound) {
		t.Errorf("a certificate that is not there: %v", err)
	}
}

func TestServed_ObjectWithoutNames(t *testing.T) {
	t.Parallel()
	got := (&acme.Object{}).Served(t.Context(), []string{"127.0.0.1:1"}, time.Second)
	if len(got) != 1 || got[0].Match || got[0].Problem == "" {
		t.Errorf("got %+v, want a problem", got)
	}
}
