package acme_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/acme/acmetest"
	"github.com/drover-nomad/drover/acme/pki"
	"github.com/drover-nomad/drover/secrets"
)

// TestManagersRace lets several managers at one new store: each writes to the
// account first, and then to the certificate of all.
func TestManagersRace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	var wg sync.WaitGroup
	for i := range 20 {
		m := w.manager(t)
		wg.Go(func() {
			own := fmt.Sprintf("%c.example.com", 'a'+i)
			for _, s := range []acme.Spec{{Name: own, Names: []string{own}}, {Name: "a", Names: []string{own, "all.example.com"}}} {
				if _, err := m.Apply(t.Context(), s); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if all, err := w.store.List(t.Context()); len(all) != 21 || err != nil {
		t.Errorf("%d certificates, %v", len(all), err)
	}
	if _, err := w.manager(t).Apply(t.Context(), acme.Spec{Name: "a", Names: []string{"a.example.com", "b.example.com"}}); err != nil {
		t.Fatal(err)
	}
	var issued atomic.Int32
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for range 5 {
		m := w.manager(t)
		wg.Go(func() {
			for {
				r, err := m.Reconcile(ctx, "a")
				if r.Issued {
					issued.Add(1)
				}
				if err == nil {
					return
				}
				if !errors.Is(err, acme.ErrLocked) {
					t.Error(err)
					return
				}
				time.Sleep(10 * time.Millisecond) // the next one's turn
			}
		})
	}
	wg.Wait()
	if issued.Load() != 1 || w.count("ordered") != 1 {
		t.Errorf("%d issued, %d ordered", issued.Load(), w.count("ordered"))
	}
}

// mortal is a manager's process: it dies at its n-th request to the CA or to
// the store, before the request or after it, and does nothing from then on.
type mortal struct {
	acme.Backend
	http.RoundTripper
	at    int
	after bool

	mu   sync.Mutex
	n    int
	dead bool
}

var errDead = errors.New("killed")

func (m *mortal) step(f func() error) error {
	m.mu.Lock()
	m.n++
	die := m.n == m.at
	dead := m.dead
	if die && !m.after {
		m.dead = true
		dead = true
	}
	m.mu.Unlock()
	if dead {
		return errDead
	}
	err := f()
	if die {
		m.mu.Lock()
		m.dead = true
		m.mu.Unlock()
		return errDead
	}
	return err
}

func (m *mortal) RoundTrip(req *http.Request) (resp *http.Response, err error) {
	err = m.step(func() error { resp, err = m.RoundTripper.RoundTrip(req); return err }) //nolint:bodyclose // its caller does
	if err != nil {
		resp = nil
	}
	return resp, err
}

func (m *mortal) Put(ctx context.Context, path string, items acme.Items, version string) (out string, err error) {
	err = m.step(func() error { out, err = m.Backend.Put(ctx, path, items, version); return err })
	return out, err
}

func (m *mortal) Get(ctx context.Context, path string) (items acme.Items, version string, err error) {
	m.mu.Lock()
	dead := m.dead
	m.mu.Unlock()
	if dead {
		return nil, "", errDead
	}
	return m.Backend.Get(ctx, path)
}

func (w *world) https(t *testing.T) http.RoundTripper {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(w.ca.Root))
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// TestKilledAtEveryStep kills a manager at each of its requests; the next one
// continues from the stored state. The CA issues exactly one certificate.
func TestKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	backend := acme.Directory(t.TempDir())
	w := newWorldOn(t, acmetest.Options{}, backend)
	base := w.https(t)
	w.issue(t, w.manager(t), acme.Spec{Name: "account", Names: []string{"account.example.com"}})
	const steps = 16
	var survived, names atomic.Int32
	t.Run("steps", func(t *testing.T) {
		for n := range 2 * steps {
			step, after := n/2+1, n%2 == 1
			name := fmt.Sprintf("k%d-%v.example.com", step, after)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				names.Add(1)
				if _, err := w.manager(t).Apply(t.Context(), acme.Spec{Name: name, Names: []string{name}}); err != nil {
					t.Fatal(err)
				}
				first := &mortal{Backend: backend, RoundTripper: base, at: step, after: after}
				r, err := w.manager(t, func(c *acme.Config) {
					c.Store, c.Transport = acme.NewStore(first), first
				}).Reconcile(t.Context(), name)
				if !first.dead {
					survived.Add(1)
					if err != nil || !r.Issued {
						t.Error(r, err)
					}
					return
				}
				r, err = w.manager(t).Reconcile(t.Context(), name)
				if err != nil || r.Object.Status.Phase != acme.Issued {
					t.Fatalf("%+v, %v", r, err)
				}
				w.check(t, r.Object)
			})
		}
	})
	if survived.Load() == 0 {
		t.Error("there are more steps than were tried")
	}
	want := int(names.Load()) + 1
	if n := strings.Count(w.ca.Log(), "Issued certificate serial"); n != want {
		t.Errorf("%d certificates for %d names", n, want)
	}
	if n := w.count("ordered"); n > want {
		t.Errorf("%d orders for %d names", n, want)
	}
}

// TestForgottenByCA: the CA comes back without accounts and orders.
func TestForgottenByCA(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	m := w.manager(t)
	w.issue(t, m, acme.Spec{Name: "a", Names: []string{"a.example.com"}})
	w.ca.Restart()
	w.issue(t, m, acme.Spec{Name: "b", Names: []string{"b.example.com"}})
	if w.count("registered") != 2 || w.count("failed") != 0 {
		t.Error(w.said())
	}
}

// answering is a fake CA, for what Pebble cannot be made to do.
func answering(t *testing.T, h http.HandlerFunc) acme.Issuer {
	t.Helper()
	srv := httptest.NewTLSServer(h)
	t.Cleanup(srv.Close)
	return acme.Issuer{Name: "bad", Directory: srv.URL + "/dir", CA: pki.EncodeCertificate(srv.Certificate().Raw)}
}

func TestBadCA(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	// A directory that works, and a newNonce that does what is asked for.
	behind := func(f http.HandlerFunc) http.HandlerFunc {
		return func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/dir" {
				f(rw, r)
				return
			}
			rw.Header().Set("Content-Type", "application/json")
			base := "https://" + r.Host
			fmt.Fprintf(rw, `{"newNonce":"%[1]s/nonce","newAccount":"%[1]s/account","newOrder":"%[1]s/order","revokeCert":"%[1]s/revoke","keyChange":"%[1]s/key"}`, base)
		}
	}
	gone := answering(t, func(http.ResponseWriter, *http.Request) {})
	gone.Directory = "https://127.0.0.1:1/dir"
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for _, c := range []struct {
		name   string
		issuer acme.Issuer
		kind   acme.Kind
		after  time.Duration
		says   string
	}{
		{"down", gone, acme.KindUnreachable, 0, "connection refused"},
		{"hanging", answering(t, hang), acme.KindUnreachable, 0, "no answer within 300ms"},
		{"hanging-later", answering(t, behind(hang)), acme.KindUnreachable, 0, "no answer within 300ms"},
		{"hanging-midway", answering(t, func(rw http.ResponseWriter, r *http.Request) {
			fmt.Fprint(rw, "{")
			_ = http.NewResponseController(rw).Flush()
			hang(rw, r)
		}), acme.KindUnreachable, 0, "no answer within 300ms"},
		{"empty", answering(t, func(http.ResponseWriter, *http.Request) {}), acme.KindServer, 0, "answers 200 OK with nothing: that is no ACME directory"},
		{"portal", answering(t, func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, "<html>log in") }), acme.KindServer, 0,
			"answers 200 OK with 12 bytes of text/html; charset=utf-8: that is no ACME directory"},
		{"portal-later", answering(t, behind(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Replay-Nonce", "bm9uY2U")
			fmt.Fprint(rw, "<html>log in")
		})), acme.KindServer, 0, "registering an account"},
		{"5xx", answering(t, func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusBadGateway) }), acme.KindServer, 0, "502 Bad Gateway"},
		{"maintenance", answering(t, func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Retry-After", "7200")
			rw.WriteHeader(http.StatusServiceUnavailable)
		}), acme.KindServer, 2 * time.Hour, "503 Service Unavailable"},
		{"rate-limited", answering(t, behind(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Replay-Nonce", "bm9uY2U")
			if r.Method == http.MethodHead {
				return
			}
			rw.Header().Set("Retry-After", "259200")
			rw.Header().Set("Content-Type", "application/problem+json")
			rw.WriteHeader(http.StatusTooManyRequests)
			fmt.Fprint(rw, `{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many certificates already issued"}`)
		})), acme.KindRateLimited, 72 * time.Hour, "too many certificates already issued"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.issuer.Name = c.name
			m := w.manager(t, func(cfg *acme.Config) {
				cfg.Issuers = append(cfg.Issuers, c.issuer)
				if strings.HasPrefix(c.name, "hanging") {
					cfg.RequestTimeout = 300 * time.Millisecond
				}
			})
			spec := acme.Spec{Name: c.name, Names: []string{c.name + ".example.com"}, Issuers: []string{c.name}}
			before, err := m.Apply(t.Context(), spec)
			if err != nil {
				t.Fatal(err)
			}
			r, err := m.Reconcile(t.Context(), c.name)
			if r.Object == nil || r.Object.Chain != before.Chain || r.Object.Key.Reveal() != before.Key.Reveal() {
				t.Error("what is served does not go on")
			}
			var ie *acme.IssuerError
			if !errors.As(err, &ie) || ie.Kind != c.kind || !strings.Contains(err.Error(), "issuer "+c.name) || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("%+v", err)
			}
			st := r.Object.Status
			wait := st.NextAttempt.Sub(st.LastAttempt)
			if c.after == 0 && (wait < 50*time.Second || wait > 70*time.Second) || c.after != 0 && (wait < c.after-time.Minute || wait > c.after+time.Minute) {
				t.Errorf("next attempt after %s", wait)
			}
			if st.Attempts != 1 || st.LastError != err.Error() || !r.Next.Equal(st.NextAttempt) {
				t.Errorf("status %+v", st)
			}
			// Nothing is asked before its time, also by a manager that was
			// not there.
			n := len(w.requests)
			if r, err := w.manager(t).Reconcile(t.Context(), c.name); err != nil || r.Issued || len(w.requests) != n {
				t.Errorf("asked again at once: %+v, %v", r, err)
			}
			// With a second issuer it goes on there.
			spec.Issuers = []string{c.name, "pebble"}
			if o, err := m.Apply(t.Context(), spec); err != nil || o.Status.Attempts != 0 {
				t.Fatal(err)
			}
			r, err = w.manager(t, func(cfg *acme.Config) {
				cfg.Issuers = append(cfg.Issuers, c.issuer)
				if strings.HasPrefix(c.name, "hanging") { // without the wait
					cfg.Transport = &only{w.https(t), strings.TrimSuffix(w.ca.Directory, "/dir")}
				}
			}).Reconcile(t.Context(), c.name)
			if err != nil || !r.Issued || r.Object.Status.Issuer != "pebble" {
				t.Errorf("fallback: %+v, %v", r, err)
			}
		})
	}
}

// only reaches one server; all others time out at once.
type only struct {
	http.RoundTripper
	server string
}

func (o *only) RoundTrip(r *http.Request) (*http.Response, error) {
	if !strings.HasPrefix(r.URL.String(), o.server) {
		return nil, context.DeadlineExceeded
	}
	return o.RoundTripper.RoundTrip(r)
}

// late answers as a server does that notices that it is no longer waited for:
// when the request is over, with nothing, as if that were an answer.
type late struct{}

func (late) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
}

// TestAnswerAfterTimeout: an answer that races the timeout is none.
func TestAnswerAfterTimeout(t *testing.T) {
	t.Parallel()
	m := acme.NewManager(acme.Config{
		Store: acme.NewStore(acme.Directory(t.TempDir())), RequestTimeout: 20 * time.Millisecond, Transport: late{},
		Issuers: []acme.Issuer{{Name: "late", Directory: "https://ca.example/dir"}}, DefaultIssuer: "late",
		Solvers: map[string]acme.Solver{acme.HTTP01: acme.Stateless{SkipCheck: true}},
	})
	defer m.Close()
	if _, err := m.Apply(t.Context(), acme.Spec{Name: "a", Names: []string{"a.example.com"}}); err != nil {
		t.Fatal(err)
	}
	_, err := m.Reconcile(t.Context(), "a")
	var ie *acme.IssuerError
	if !errors.As(err, &ie) || ie.Kind != acme.KindUnreachable || !strings.Contains(err.Error(), "no answer within 20ms") {
		t.Fatal(err)
	}
}

func TestBackoffAndBreaker(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	// The CA connects to a port without a listener.
	if err := w.ca.SetDNS("add-a", map[string]any{"host": "a.example.com.", "addresses": []string{"127.0.0.9"}}); err != nil {
		t.Fatal(err)
	}
	skip := func(c *acme.Config) { c.Solvers[acme.HTTP01] = acme.Stateless{SkipCheck: true} }
	if _, err := w.manager(t, skip).Apply(t.Context(), acme.Spec{Name: "a", Names: []string{"a.example.com"}}); err != nil {
		t.Fatal(err)
	}
	for n, want := range []time.Duration{time.Minute, 10 * time.Minute, 100 * time.Minute} {
		r, err := w.manager(t, skip).Reconcile(t.Context(), "a")
		if err == nil {
			t.Fatal("issued without proof")
		}
		wait := r.Object.Status.NextAttempt.Sub(r.Object.Status.LastAttempt)
		if wait < want*8/10 || wait > want*12/10 || r.Object.Status.Attempts != n+1 {
			t.Errorf("attempt %d: next after %s", n+1, wait)
		}
		w.clock.to(r.Object.Status.NextAttempt.Add(time.Second))
	}
	requests := len(w.requests)
	var held *acme.HeldError
	r, err := w.manager(t, skip).Reconcile(t.Context(), "a")
	if !errors.As(err, &held) || held.Until.Sub(w.clock.Now()) > 24*time.Hour {
		t.Fatalf("after three orders: %v", err)
	}
	if len(w.requests) != requests {
		t.Errorf("the CA was asked %d times while held", len(w.requests)-requests)
	}
	if !r.Next.Equal(held.Until) {
		t.Errorf("next look at %s, held until %s", r.Next, held.Until)
	}
	w.clock.to(held.Until.Add(time.Second))
	if _, err := w.manager(t, skip).Reconcile(t.Context(), "a"); err == nil || errors.As(err, &held) {
		t.Errorf("a day later: %v", err)
	}
	if w.count("ordered") != 4 {
		t.Errorf("%d orders", w.count("ordered"))
	}
}

// TestClockWrong: this host's clock is off, by more than a life at the most,
// and is set right afterwards.
func TestClockWrong(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	w := newWorld(t, acmetest.Options{})
	for _, c := range []struct {
		off     time.Duration
		profile string
	}{
		{-day, "shortlived"}, {day, "shortlived"}, {5 * day, "shortlived"}, {-60 * day, "default"}, {60 * day, "default"}, {120 * day, "default"},
	} {
		name := strings.ReplaceAll(fmt.Sprintf("off%s%s", c.off, c.profile), "-", "minus")
		clock := &clock{offset: c.off}
		reconcile := func() acme.Result {
			t.Helper()
			r, err := w.manager(t, func(cfg *acme.Config) { cfg.Clock = clock }).Reconcile(t.Context(), name)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			return r
		}
		if _, err := w.manager(t).Apply(t.Context(), acme.Spec{Name: name, Names: []string{name + ".example.com"}, Profile: c.profile}); err != nil {
			t.Fatal(err)
		}
		r := reconcile()
		if skew := r.Object.Status.ClockSkew - c.off; !r.Issued || skew.Abs() > time.Minute {
			t.Fatalf("%s: got clock skew %s, want about %s and a certificate", name, r.Object.Status.ClockSkew, c.off)
		}
		for range 2 {
			if r := reconcile(); r.Issued || r.Next.Before(clock.Now()) {
				t.Errorf("%s: issued again", name)
			}
		}
		// Two hosts look: one whose clock is right, and this one.
		for _, at := range []time.Time{time.Now(), clock.Now()} {
			if err := r.Object.Usable(at); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		clock.add(-c.off)
		if c.off < 0 {
			continue // it is unknown whether that time has passed
		}
		if r = reconcile(); r.Issued {
			t.Errorf("%s: issued again when the clock is right", name)
		}
		for _, after := range []time.Duration{-time.Minute, time.Minute} {
			clock.to(r.Object.Status.RenewAt.Add(after))
			if r := reconcile(); r.Issued != (after > 0) {
				t.Errorf("%s: renewed %s after it is due: %v", name, after, r.Issued)
			}
		}
	}
	if !strings.Contains(w.said(), "the clock of this host is ") {
		t.Error(w.said())
	}
	// The clock was right at first. A new certificate is not valid yet either.
	o := w.issue(t, w.manager(t), acme.Spec{Name: "right", Names: []string{"right.example.com"}})
	w.clock.add(-2 * day)
	if r, err := w.manager(t).Reconcile(t.Context(), o.Spec.Name); err != nil || r.Issued {
		t.Errorf("issued again although the clock is behind: %+v, %v", r, err)
	}
}

// TestManyReplacements: something wants to renew a certificate over and over.
func TestManyReplacements(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{KeepAuthorizations: true})
	m := w.manager(t)
	w.issue(t, m, acme.Spec{Name: "a", Names: []string{"a.example.com"}})
	var held *acme.HeldError
	plain := 0 // orders for what Pebble does not find
	for n := 0; held == nil; n++ {
		w.clock.add(time.Minute)
		var old string
		due := func(o *acme.Object) error {
			old = o.Status.Serial
			o.Status.RenewAt = w.clock.Now().Add(-time.Second)
			return nil
		}
		if _, err := w.store.Update(t.Context(), "a", due); err != nil {
			t.Fatal(err)
		}
		r, err := m.Reconcile(t.Context(), "a")
		if errors.As(err, &held) {
			told := strings.Count(w.ca.Log(), "is a replacement of")
			if told != 10 || n != 10+plain || held.Orders != 10 || r.Object.Usable(w.clock.Now()) != nil || r.Next.Sub(w.clock.Now()) > 24*time.Hour {
				t.Errorf("after %d: %v, %+v", n, err, r)
			}
		} else if err != nil || n > 10+plain {
			t.Fatalf("the %dth: %v", n, err)
		} else if !acmetest.KnowsReplaced(old) {
			plain++
		}
	}
	for range 2 { // an operator forces them
		if _, err := m.Force(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if r, err := m.Reconcile(t.Context(), "a"); err != nil || !r.Issued {
			t.Errorf("forced: %+v, %v", r, err)
		}
	}
}

// TestForeignInStore: another program has overwritten our certificate in the
// store.
func TestForeignInStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	m := w.manager(t)
	other := w.issue(t, m, acme.Spec{Name: "other", Names: []string{"other.example.com"}})
	for name, change := range map[string]func(*acme.Object){
		"the names":           func(o *acme.Object) { o.Chain, o.Key = other.Chain, other.Key },
		"the key is not that": func(o *acme.Object) { o.Key = other.Key },
		"expired": func(o *acme.Object) {
			chain, key, err := acme.SelfSigned(o.Spec.Names, time.Now().Add(-30*24*time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			o.Chain, o.Key = chain, secrets.NewValue(key)
		},
		"no certificate in PEM": func(o *acme.Object) { o.Chain = "nonsense" },
	} {
		id := strings.ReplaceAll(name, " ", "-")
		w.issue(t, m, acme.Spec{Name: id, Names: []string{id + ".example.com"}})
		if _, err := w.store.Update(t.Context(), id, func(o *acme.Object) error { change(o); return nil }); err != nil {
			t.Fatal(err)
		}
		r, err := m.Reconcile(t.Context(), id)
		if err != nil || !r.Issued {
			t.Errorf("%s: %+v, %v", name, r, err)
			continue
		}
		w.check(t, r.Object)
	}
}

// TestLostLock: the lock is gone while the CA is asked; nothing is stored by
// who lost it.
func TestLostLock(t *testing.T) {
	t.Parallel()
	b := &losing{Backend: acme.Directory(t.TempDir())}
	w := newWorldOn(t, acmetest.Options{}, b)
	m := w.manager(t, func(c *acme.Config) {
		c.Transport = &hook{w.https(t), func(r *http.Request) {
			if strings.Contains(r.URL.Path, "order-plz") {
				b.lose()
			}
		}}
	})
	if _, err := m.Apply(t.Context(), acme.Spec{Name: "a", Names: []string{"a.example.com"}}); err != nil {
		t.Fatal(err)
	}
	if r, err := m.Reconcile(t.Context(), "a"); err == nil || r.Issued || !strings.Contains(err.Error(), "lock was lost") {
		t.Errorf("%+v, %v", r, err)
	}
	o, err := w.store.Get(t.Context(), "a")
	if err != nil || o.Status.Attempts != 0 {
		t.Errorf("%+v, %v", o.Status, err)
	}
}

type hook struct {
	http.RoundTripper
	before func(*http.Request)
}

func (h *hook) RoundTrip(r *http.Request) (*http.Response, error) {
	h.before(r)
	select { // what the lost lock sets off comes first
	case <-r.Context().Done():
		return nil, r.Context().Err()
	case <-time.After(100 * time.Millisecond):
	}
	return h.RoundTripper.RoundTrip(r)
}

type losing struct {
	acme.Backend
	mu    sync.Mutex
	lease *losingLease
}

type losingLease struct {
	acme.Lease
	lost chan struct{}
}

func (l *losingLease) Lost() <-chan struct{} { return l.lost }

func (b *losing) Lock(ctx context.Context, path string, ttl time.Duration) (acme.Lease, error) {
	l, err := b.Backend.Lock(ctx, path, ttl)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lease = &losingLease{l, make(chan struct{})}
	return b.lease, nil
}

func (b *losing) lose() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lease != nil {
		close(b.lease.lost)
		b.lease = nil
	}
}

// forgetful is a CA that finds no order for the certificate that a new one
// replaces, as Pebble does for a moment after it has issued it.
type forgetful struct {
	http.RoundTripper
	refused atomic.Int32
}

func (f *forgetful) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodPost {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
		var jws struct{ Payload string }
		if err := json.Unmarshal(body, &jws); err != nil {
			return nil, err
		}
		if payload, err := base64.RawURLEncoding.DecodeString(jws.Payload); err == nil && bytes.Contains(payload, []byte(`"replaces":"`)) {
			f.refused.Add(1)
			return &http.Response{
				StatusCode: http.StatusInternalServerError, ProtoMajor: 1, ProtoMinor: 1, Request: req,
				Header: http.Header{"Content-Type": {"application/problem+json"}},
				Body:   io.NopCloser(strings.NewReader(`{"type":"urn:ietf:params:acme:error:serverInternal","status":500,"detail":"could not find an order for the given certificate"}`)),
			}, nil
		}
	}
	return f.RoundTripper.RoundTrip(req)
}

// TestUnknownReplaced: the CA does not know what is replaced, and is asked for
// a certificate that replaces nothing.
func TestUnknownReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	ca := &forgetful{RoundTripper: w.https(t)}
	m := w.manager(t, func(c *acme.Config) { c.Transport = ca })
	old := w.issue(t, m, acme.Spec{Name: "a", Names: []string{"a.example.com"}})
	if _, err := m.Force(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	r, err := m.Reconcile(t.Context(), "a")
	if err != nil || !r.Issued || r.Object.Status.Serial == old.Status.Serial {
		t.Fatalf("%+v, %v\n%s", r, err, w.said())
	}
	if ca.refused.Load() == 0 {
		t.Error("the CA was not told what is replaced")
	}

	// Something wants to renew it over and over: these are orders like the first.
	due := func(o *acme.Object) error { o.Status.RenewAt = w.clock.Now().Add(-time.Second); return nil }
	for n := 3; ; n++ {
		if _, err := w.store.Update(t.Context(), "a", due); err != nil {
			t.Fatal(err)
		}
		r, err := m.Reconcile(t.Context(), "a")
		var held *acme.HeldError
		if errors.As(err, &held) {
			if n != 4 || held.Orders != 3 {
				t.Errorf("the %dth: %v", n, err)
			}
			return
		}
		if err != nil || !r.Issued || n == 4 {
			t.Fatalf("the %dth: %+v, %v", n, r, err)
		}
	}
}

// TestRolloverKilledAtEveryStep kills a rollover at each of its requests; the
// next one ends it, and the account is the same.
func TestRolloverKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	backend := acme.Directory(t.TempDir())
	w := newWorldOn(t, acmetest.Options{}, backend)
	base := w.https(t)
	w.issue(t, w.manager(t), acme.Spec{Name: "a", Names: []string{"a.example.com"}})
	for n := 0; ; n++ {
		step, after := n/2+1, n%2 == 1
		before, err := w.store.Account(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		first := &mortal{Backend: backend, RoundTripper: base, at: step, after: after}
		_, err = w.manager(t, func(c *acme.Config) { c.Store, c.Transport = acme.NewStore(first), first }).Rollover(t.Context())
		if !first.dead {
			if err != nil {
				t.Error(err)
			}
			break
		}
		if err == nil {
			t.Errorf("killed at step %d (%v) without an error", step, after)
		}
		a, err := w.manager(t).Rollover(t.Context())
		if err != nil {
			t.Fatalf("after a death at step %d (%v): %v", step, after, err)
		}
		if a.Thumbprint == before.Thumbprint {
			t.Errorf("killed at step %d (%v): the key is the old one", step, after)
		}
		if p, err := w.store.Thumbprint(t.Context()); err != nil || p != a.Thumbprint {
			t.Errorf("published is %q instead of %q, %v", p, a.Thumbprint, err)
		}
		w.clock.add(3 * time.Hour) // the breaker counts by the day
		if _, err := w.manager(t).Force(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if r, err := w.manager(t).Reconcile(t.Context(), "a"); err != nil || !r.Issued {
			t.Fatalf("killed at step %d (%v), and nothing can be issued: %v", step, after, err)
		}
	}
	if w.count("registered") != 1 {
		t.Error(w.said())
	}
}

// maintained is a CA that a test can put into maintenance.
type maintained struct {
	http.RoundTripper
	away bool
}

func (m *maintained) RoundTrip(r *http.Request) (*http.Response, error) {
	if !m.away {
		return m.RoundTripper.RoundTrip(r)
	}
	return &http.Response{
		StatusCode: http.StatusServiceUnavailable, Status: "503 Service Unavailable", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Retry-After": {"86400"}}, Body: http.NoBody,
	}, nil
}

// TestClockWasAhead: an attempt fails while the clock is a month ahead. The next
// attempt is not a month away when the clock is right again.
func TestClockWasAhead(t *testing.T) {
	t.Parallel()
	const ahead = 30 * 24 * time.Hour
	w := newWorld(t, acmetest.Options{})
	ca := &maintained{RoundTripper: w.https(t)}
	with := func(c *acme.Config) {
		c.Transport = ca
		c.FindSolver = func(context.Context, acme.Spec) (acme.Solver, error) { return nil, errors.New("no credential") }
	}
	m := w.manager(t, with)
	w.issue(t, m, acme.Spec{Name: "fine", Names: []string{"fine.example.com"}})
	for name, challenge := range map[string]string{"down": acme.HTTP01, "blocked": acme.DNS01} {
		if _, err := m.Apply(t.Context(), acme.Spec{Name: name, Names: []string{name + ".example.com"}, Challenge: challenge}); err != nil {
			t.Fatal(err)
		}
	}
	// They fail when they are tried, and only then.
	look := func(m *acme.Manager, name string) acme.Result {
		t.Helper()
		ca.away = name == "down"
		r, err := m.Reconcile(t.Context(), name)
		if (err != nil) != (name != "fine") {
			t.Fatalf("%s: %+v, %v", name, r, err)
		}
		if name != "fine" && r.Next.Sub(w.clock.Now()) > 25*time.Hour {
			t.Errorf("%s: the next attempt is %s", name, r.Next)
		}
		return r
	}
	w.clock.add(ahead)
	look(m, "down")
	look(m, "blocked")
	before := look(m, "fine").Object.Status.ARI.CheckAfter
	w.clock.add(-ahead)
	look(m, "blocked")
	if r := look(w.manager(t, with), "down"); r.Object.Status.Attempts != 2 || !strings.Contains(r.Object.Status.LastError, "503") {
		t.Errorf("the CA is not asked again: %+v", r.Object.Status)
	}
	if at := look(w.manager(t, with), "fine").Object.Status.ARI.CheckAfter; !at.Before(before) {
		t.Errorf("the CA is asked about the renewal %s", at)
	}
}

// TestRolloverWithoutCA: one of three CAs is gone when the account gets a new
// key, and one is not known any more. The edge answers for the new key only.
func TestRolloverWithoutCA(t *testing.T) {
	t.Parallel()
	backend := acme.Directory(t.TempDir())
	w := newWorldOn(t, acmetest.Options{}, backend)
	other := acmetest.Start(t, acmetest.Options{HTTPPort: w.ca.HTTPPort})
	former := acmetest.Start(t, acmetest.Options{HTTPPort: w.ca.HTTPPort})
	issuers := []acme.Issuer{
		w.issuer(),
		{Name: "other", Directory: other.Directory, CA: other.Root},
		{Name: "former", Directory: former.Directory, CA: former.Root},
	}
	manager := func(n int) *acme.Manager {
		return w.manager(t, func(c *acme.Config) { c.Issuers = issuers[:n] })
	}
	for _, i := range issuers {
		w.issue(t, manager(3), acme.Spec{Name: i.Name, Names: []string{i.Name + ".example.com"}, Issuers: []string{i.Name}})
	}
	items, version, err := backend.Get(t.Context(), acme.AccountPath)
	if err != nil {
		t.Fatal(err)
	}
	items["issuers"] = "{}"
	if _, err := backend.Put(t.Context(), acme.AccountPath, items, version); err != nil {
		t.Fatal(err)
	}
	before, err := w.store.Account(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	other.Stop()
	a, err := manager(2).Rollover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p, err := w.store.Thumbprint(t.Context()); err != nil || p != a.Thumbprint || p == before.Thumbprint {
		t.Errorf("published is %q after %q, the account has %q, %v", p, before.Thumbprint, a.Thumbprint, err)
	}
	for _, i := range issuers {
		if said := w.said(); i.Name != "pebble" && !strings.Contains(said, "warning  "+i.Name+": it does not get the new account key") {
			t.Errorf("got no event about %s:\n%s", i.Name, said)
		}
	}
	other.Restart()
	for n, i := range issuers {
		w.clock.add(time.Hour)
		w.issue(t, manager(3), acme.Spec{Name: fmt.Sprint("new", n), Names: []string{i.Name + ".example.org"}, Issuers: []string{i.Name}})
	}
	if n := w.count("registered"); n != 5 {
		t.Errorf("%d registrations", n)
	}

	// With none of them there, nothing is changed.
	w.ca.Stop()
	other.Stop()
	former.Stop()
	if _, err := manager(2).Rollover(t.Context()); err == nil || !strings.Contains(err.Error(), "issuer pebble") {
		t.Errorf("with no CA: %v", err)
	}
	if p, err := w.store.Thumbprint(t.Context()); err != nil || p != a.Thumbprint {
		t.Errorf("published is %q instead of %q, %v", p, a.Thumbprint, err)
	}
	if now, err := w.store.Account(t.Context()); err != nil || now.CAs[w.ca.Directory].Location == "" {
		t.Errorf("%+v, %v", now, err)
	}
}

// unreadable is a store whose reads of certificates a test can make fail.
type unreadable struct {
	acme.Backend
	now atomic.Bool
}

func (u *unreadable) Get(ctx context.Context, path string) (acme.Items, string, error) {
	if u.now.Load() && strings.HasPrefix(path, acme.CertFolder) {
		return nil, "", &acme.StoreError{Store: u.Name(), Err: errors.New("not now")}
	}
	return u.Backend.Get(ctx, path)
}

// checking is a solver that tells when it checks.
type checking struct {
	acme.Solver
	f func()
}

func (c checking) Check(ctx context.Context, names []string, thumbprint string) error {
	c.f()
	return c.Solver.Check(ctx, names, thumbprint)
}

// TestStoreGoneMidway: the store cannot be read any more in the middle of an
// attempt.
func TestStoreGoneMidway(t *testing.T) {
	t.Parallel()
	b := &unreadable{Backend: acme.Directory(t.TempDir())}
	w := newWorldOn(t, acmetest.Options{}, b)
	m := w.manager(t, func(c *acme.Config) {
		c.Solvers[acme.HTTP01] = checking{c.Solvers[acme.HTTP01], func() { b.now.Store(true) }}
	})
	if _, err := m.Apply(t.Context(), acme.Spec{Name: "a", Names: []string{"a.example.com"}}); err != nil {
		t.Fatal(err)
	}
	var store *acme.StoreError
	if r, err := m.Reconcile(t.Context(), "a"); !errors.As(err, &store) || r.Object == nil || w.count("ordered") != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	b.now.Store(false)
	if r, err := w.manager(t).Reconcile(t.Context(), "a"); err != nil || !r.Issued {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestRevokedStaysRevoked: the CA is gone when a revoked certificate is to be
// replaced. It is no good one because of that, and is replaced later.
func TestRevokedStaysRevoked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	m := w.manager(t)
	w.issue(t, m, acme.Spec{Name: "b", Names: []string{"b.example.com"}})
	if _, err := m.Revoke(t.Context(), "b", 1); err != nil {
		t.Fatal(err)
	}
	reconcile := func(spec acme.Spec, fails bool) acme.Result {
		t.Helper()
		if _, err := m.Apply(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		r, err := m.Reconcile(t.Context(), "b")
		if (err != nil) != fails {
			t.Fatalf("%+v, %v", r, err)
		}
		if !r.Issued && (r.Object.Status.Phase != acme.Revoked || r.Object.Usable(time.Now()) == nil) {
			t.Errorf("it is good again: %+v", r.Object.Status)
		}
		return r
	}
	spec := acme.Spec{Name: "b", Names: []string{"b.example.com"}}
	w.clock.add(time.Hour)
	reconcile(spec, false) // not forced
	w.ca.Stop()
	if _, err := m.Force(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	r := reconcile(spec, true)
	if r := reconcile(spec, false); !r.Next.Equal(r.Object.Status.NextAttempt) || r.Object.Status.Attempts != 1 {
		t.Errorf("%+v", r)
	}
	w.clock.to(r.Object.Status.NextAttempt.Add(time.Second))
	reconcile(spec, true)
	// The spec changes; the forced renewal is still pending.
	spec.Names = append(spec.Names, "c.example.com")
	w.ca.Restart()
	if r := reconcile(spec, false); !r.Issued || r.Object.Usable(time.Now()) != nil {
		t.Errorf("not replaced: %+v", r.Object.Status)
	}
}

// TestFailingThenRevoked: the attempts to renew a certificate end when it is
// revoked, until another one is forced.
func TestFailingThenRevoked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	ca := &maintained{RoundTripper: w.https(t)}
	m := w.manager(t, func(c *acme.Config) { c.Transport = ca })
	w.issue(t, m, acme.Spec{Name: "a", Names: []string{"a.example.com"}})
	if _, err := m.Force(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	ca.away = true
	if _, err := m.Reconcile(t.Context(), "a"); err == nil {
		t.Fatal("renewed without a CA")
	}
	ca.away = false
	if _, err := m.Revoke(t.Context(), "a", 4); err != nil {
		t.Fatal(err)
	}
	w.clock.add(48 * time.Hour)
	if r, err := m.Reconcile(t.Context(), "a"); err != nil || r.Issued {
		t.Errorf("%+v, %v", r, err)
	}
}
