package acme_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libdns/libdns"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/acme/acmetest"
	"github.com/drover-nomad/drover/acme/pki"
	"github.com/drover-nomad/drover/secrets"
)

// provider is a libdns provider for the DNS server of the tests.
type provider struct {
	ca *acmetest.CA

	mu       sync.Mutex
	txt      map[string][]string
	refuse   error // answer to deletions
	appended int
}

func (p *provider) AppendRecords(_ context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range recs {
		rr := r.RR()
		host := libdns.AbsoluteName(rr.Name, zone)
		if err := p.ca.SetDNS("set-txt", map[string]any{"host": host, "value": rr.Data}); err != nil {
			return nil, err
		}
		p.txt[host] = append(p.txt[host], rr.Data)
		p.appended++
	}
	return recs, nil
}

func (p *provider) DeleteRecords(_ context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse != nil {
		return nil, p.refuse
	}
	for _, r := range recs {
		rr := r.RR()
		host := libdns.AbsoluteName(rr.Name, zone)
		p.txt[host] = slices.DeleteFunc(p.txt[host], func(s string) bool { return s == rr.Data })
		if err := p.ca.SetDNS("clear-txt", map[string]any{"host": host}); err != nil {
			return nil, err
		}
		for _, s := range p.txt[host] {
			if err := p.ca.SetDNS("set-txt", map[string]any{"host": host, "value": s}); err != nil {
				return nil, err
			}
		}
	}
	return recs, nil
}

func (p *provider) remaining() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, v := range p.txt {
		n += len(v)
	}
	return n
}

func TestIssueDNS01Wildcard(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	p := &provider{ca: w.ca, txt: map[string][]string{}}
	dns := &acme.DNS{Zones: []acme.Zone{{Name: "example.com", Provider: p}, {Name: "acme.example.net", Provider: p}}, Resolvers: []string{w.ca.DNS}, Timeout: 10 * time.Second}
	m := w.manager(t, func(c *acme.Config) { c.Solvers[acme.DNS01] = dns })
	// One of the names delegates to another zone.
	if err := w.ca.SetDNS("set-cname", map[string]any{"host": "_acme-challenge.shop.example.org.", "target": "shop.acme.example.net."}); err != nil {
		t.Fatal(err)
	}
	p.refuse = errors.New("not now")
	o := w.issue(t, m, acme.Spec{Name: "wild", Names: []string{"example.com", "*.example.com", "shop.example.org"}})
	if o.Spec.Challenge != acme.DNS01 {
		t.Errorf("challenge is %q", o.Spec.Challenge)
	}
	if len(o.Status.Leftovers) != 3 || p.remaining() != 3 {
		t.Errorf("%d leftovers in the status, %d records in the zone", len(o.Status.Leftovers), p.remaining())
	}
	p.mu.Lock()
	p.refuse = nil
	p.mu.Unlock()
	if _, err := m.Force(t.Context(), "wild"); err != nil {
		t.Fatal(err)
	}
	r, err := m.Reconcile(t.Context(), "wild")
	if err != nil || !r.Issued {
		t.Fatal(r, err)
	}
	if len(r.Object.Status.Leftovers) != 0 || p.remaining() != 0 {
		t.Errorf("left over after a retry: %+v, %d records", r.Object.Status.Leftovers, p.remaining())
	}
	// A zone that is not ours is said before the CA is asked.
	n := len(w.requests)
	if _, err := m.Apply(t.Context(), acme.Spec{Name: "other", Names: []string{"*.example.info"}}); err != nil {
		t.Fatal(err)
	}
	var reach *acme.ReachError
	if _, err := m.Reconcile(t.Context(), "other"); !errors.As(err, &reach) || !strings.Contains(err.Error(), "in none of the zones") {
		t.Errorf("a foreign zone: %v", err)
	}
	if len(w.requests) != n {
		t.Errorf("the CA was asked %d times", len(w.requests)-n)
	}
}

// removing is a solver that calls f before it removes a record.
type removing struct {
	acme.Solver
	f func()
}

func (r removing) Remove(ctx context.Context, at acme.Record) error {
	r.f()
	return r.Solver.Remove(ctx, at)
}

// TestDNS01_RemovesWithoutLookup: the place of a record is stored before it is written,
// and removing it needs no lookup.
func TestDNS01_RemovesWithoutLookup(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	p := &provider{ca: w.ca, txt: map[string][]string{}}
	if err := w.ca.SetDNS("set-cname", map[string]any{"host": "_acme-challenge.a.example.org.", "target": "a.example.com."}); err != nil {
		t.Fatal(err)
	}
	var before []acme.Record
	m := w.manager(t, func(c *acme.Config) {
		solver := &acme.DNS{Zones: []acme.Zone{{Name: "example.com", Provider: p}}, Resolvers: []string{w.ca.DNS}, Timeout: 10 * time.Second}
		c.Solvers[acme.DNS01] = removing{solver, func() {
			if err := w.ca.SetDNS("set-servfail", map[string]any{"host": "_acme-challenge.a.example.org."}); err != nil {
				t.Error(err)
			}
		}}
		c.Transport = &hook{w.https(t), func(r *http.Request) {
			if !strings.Contains(r.URL.Path, "/chalZ/") {
				return
			}
			o, err := w.store.Get(t.Context(), "a")
			if err != nil {
				t.Error(err)
			}
			before = o.Status.Leftovers
		}}
	})
	if _, err := m.Apply(t.Context(), acme.Spec{Name: "a", Names: []string{"a.example.org"}, Challenge: acme.DNS01}); err != nil {
		t.Fatal(err)
	}
	r, err := m.Reconcile(t.Context(), "a")
	if err != nil || !r.Issued {
		t.Fatalf("%v\n%s", err, w.said())
	}
	if len(before) != 1 || before[0].Zone != "example.com" || before[0].Name != "a.example.com" {
		t.Errorf("stored before the CA is asked to look: %+v", before)
	}
	if p.remaining() != 0 || len(r.Object.Status.Leftovers) != 0 {
		t.Errorf("%d records are left, %+v in the status", p.remaining(), r.Object.Status.Leftovers)
	}
}

func TestDNSPersist01(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	p := &provider{ca: w.ca, txt: map[string][]string{}}
	dns := &acme.DNS{Zones: []acme.Zone{{Name: "example.com", Provider: p}}, Resolvers: []string{w.ca.DNS}, Timeout: 10 * time.Second}
	m := w.manager(t, func(c *acme.Config) { c.Solvers[acme.DNSPersist01] = dns })
	for i := range 2 {
		name := fmt.Sprint("p", i)
		w.issue(t, m, acme.Spec{Name: name, Names: []string{"example.com"}, Challenge: acme.DNSPersist01})
	}
	if p.appended != 1 || p.remaining() != 1 {
		t.Errorf("the record was written %d times, and %d are left", p.appended, p.remaining())
	}
}

// TestDNSPersist01_WithoutCredential: drover says once which record is needed, and
// issues as soon as the record is there, without a zone that it may change.
func TestDNSPersist01_WithoutCredential(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	m := w.manager(t, func(c *acme.Config) {
		c.Solvers[acme.DNSPersist01] = &acme.DNS{Resolvers: []string{w.ca.DNS}, Timeout: 10 * time.Second}
	})
	if _, err := m.Apply(t.Context(), acme.Spec{Name: "a", Names: []string{"a.example.com"}, Challenge: acme.DNSPersist01}); err != nil {
		t.Fatal(err)
	}
	r, err := m.Reconcile(t.Context(), "a")
	if err == nil {
		t.Fatal("issued without the record")
	}
	_, text, ok := strings.Cut(err.Error(), `create the record _validation-persist.a.example.com TXT "`)
	text, _, _ = strings.Cut(text, `"`)
	if !ok || !strings.Contains(text, "; accounturi="+w.ca.Directory[:strings.Index(w.ca.Directory, "/dir")]) {
		t.Fatalf("the record is not given: %v", err)
	}
	if err := w.ca.SetDNS("set-txt", map[string]any{"host": "_validation-persist.a.example.com.", "value": text}); err != nil {
		t.Fatal(err)
	}
	w.clock.to(r.Object.Status.NextAttempt.Add(time.Second))
	if r, err = m.Reconcile(t.Context(), "a"); err != nil || !r.Issued || w.count("ordered") != 1 {
		t.Errorf("issued %v, %v\n%s", r.Issued, err, w.said())
	}
}

func TestRecordThatNeverShows(t *testing.T) {
	t.Parallel()
	dns := &acme.DNS{Zones: []acme.Zone{{Name: "example.com"}}, Timeout: 200 * time.Millisecond}
	w := newWorld(t, acmetest.Options{})
	dns.Resolvers = []string{w.ca.DNS}
	err := dns.Wait(t.Context(), acme.Challenge{}, acme.Record{Zone: "example.com", Name: "_acme-challenge.example.com", Text: "x"})
	var prop *acme.PropagationError
	if !errors.As(err, &prop) || prop.Got[w.ca.DNS] != "[]" {
		t.Errorf("%v", err)
	}
}

func TestIssueIP(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	o := w.issue(t, w.manager(t), acme.Spec{Name: "ip", Names: []string{"127.0.0.1"}, Profile: "shortlived"})
	life := o.Status.NotAfter.Sub(o.Status.NotBefore)
	if life > 7*24*time.Hour {
		t.Errorf("a short-lived certificate lives %s", life)
	}
	if a := o.Status.ARI; a == nil || o.Status.RenewAt.Before(a.Start) || o.Status.RenewAt.After(a.End) {
		t.Errorf("renewed at %s, which is not in the window of the CA: %+v", o.Status.RenewAt, a)
	}
	// Without a window, half of the lifetime is left.
	silent := w.manager(t, func(c *acme.Config) { c.Transport = silentAbout{w.https(t), "/draft-ietf-acme-ari"} })
	o = w.issue(t, silent, acme.Spec{Name: "silent", Names: []string{"127.0.0.1"}, Profile: "shortlived"})
	if left := o.Status.NotAfter.Sub(o.Status.RenewAt); left < life/2 || left > life*56/100 {
		t.Errorf("renewed %s before the end of a life of %s", left, life)
	}
}

func TestIssueWithKeyTypesAndChain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{AlternateRoots: 2})
	m := w.manager(t)
	// The roots have random names: the second one's is asked for by name.
	chains := map[string]bool{}
	for i := range 3 {
		root, err := w.ca.IssuingRoot(i)
		if err != nil {
			t.Fatal(err)
		}
		name := pki.First(root).Subject.CommonName
		chains[name] = true
		o := w.issue(t, m, acme.Spec{Name: fmt.Sprint("chain", i), Names: []string{fmt.Sprintf("chain%d.example.com", i)}, PreferredChain: name})
		certs, err := pki.ParseChain(o.Chain)
		if err != nil || certs[len(certs)-1].Issuer.CommonName != name {
			t.Errorf("the chain ends in %q instead of %q, %v", certs[len(certs)-1].Issuer.CommonName, name, err)
		}
	}
	if len(chains) != 3 {
		t.Errorf("roots %v", chains)
	}
	first := w.issue(t, m, acme.Spec{Name: "a", Names: []string{"a.example.com"}, KeyType: pki.RSA2048})
	chain, err := pki.ParseChain(first.Chain)
	if err != nil {
		t.Fatal(err)
	}
	if chain[0].PublicKeyAlgorithm.String() != "RSA" {
		t.Errorf("the key is %s", chain[0].PublicKeyAlgorithm)
	}
	if _, err := m.Apply(t.Context(), acme.Spec{Name: "a", Names: []string{"a.example.com"}, Profile: "nonsense"}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Force(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Reconcile(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("an unknown profile: %v", err)
	}
	if o, err := w.store.Get(t.Context(), "a"); err != nil || o.Chain != first.Chain {
		t.Errorf("the certificate did not stay: %v", err)
	}
}

func TestIssueEAB(t *testing.T) {
	t.Parallel()
	mac := base64.RawURLEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
	w := newWorld(t, acmetest.Options{EAB: map[string]string{"kid-1": mac}})
	with := func(eab *acme.EAB) func(*acme.Config) {
		return func(c *acme.Config) {
			i := w.issuer()
			i.EAB = eab
			c.Issuers = []acme.Issuer{i}
		}
	}
	m := w.manager(t, with(nil))
	if _, err := m.Apply(t.Context(), acme.Spec{Name: "a", Names: []string{"a.example.com"}}); err != nil {
		t.Fatal(err)
	}
	var ie *acme.IssuerError
	if _, err := m.Reconcile(t.Context(), "a"); !errors.As(err, &ie) || ie.Kind != acme.KindAccount {
		t.Errorf("without a binding: %v", err)
	}
	m = w.manager(t, with(&acme.EAB{KeyID: "kid-1", MACKey: secrets.NewValue(mac)}))
	if _, err := m.Apply(t.Context(), acme.Spec{Name: "a", Names: []string{"a.example.com"}}); err != nil {
		t.Fatal(err)
	}
	w.clock.add(2 * time.Minute)
	if r, err := m.Reconcile(t.Context(), "a"); err != nil || !r.Issued {
		t.Fatal(r, err)
	}
	// A manager without configured issuers takes the issuer from the store.
	m = w.manager(t, func(c *acme.Config) { c.Issuers = nil })
	w.issue(t, m, acme.Spec{Name: "b", Names: []string{"b.example.com"}})
	if strings.Contains(fmt.Sprintf("%+v", w.events), mac) {
		t.Error("the output contains the MAC key")
	}
}

// A saved plan has no key of a binding: the one that is stored is used, and
// stays.
func TestIssueEABWithStoredKey(t *testing.T) {
	t.Parallel()
	mac := base64.RawURLEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
	w := newWorld(t, acmetest.Options{EAB: map[string]string{"kid-1": mac}})
	with := func(eab acme.EAB) func(*acme.Config) {
		return func(c *acme.Config) {
			i := w.issuer()
			i.EAB = &eab
			c.Issuers = []acme.Issuer{i}
		}
	}
	spec := acme.Spec{Name: "a", Names: []string{"a.example.com"}}
	missing := func(keyID string) {
		t.Helper()
		var ie *acme.IssuerError
		if _, err := w.manager(t, with(acme.EAB{KeyID: keyID})).Apply(t.Context(), spec); !errors.As(err, &ie) || ie.Kind != acme.KindConfig || !strings.Contains(err.Error(), "neither given nor stored") {
			t.Errorf("without a key for %s: %v", keyID, err)
		}
	}
	missing("kid-1")
	if _, err := w.manager(t, with(acme.EAB{KeyID: "kid-1", MACKey: secrets.NewValue(mac)})).Apply(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	missing("kid-2")
	// There is no account yet, and to register one needs the key.
	w.issue(t, w.manager(t, with(acme.EAB{KeyID: "kid-1"})), spec)
	a, err := w.store.Account(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if eab := a.Issuers["pebble"].EAB; eab == nil || eab.KeyID != "kid-1" || eab.MACKey.Reveal() != mac {
		t.Errorf("the stored binding is not what it was")
	}
}

func TestIssueTwentyWithBadNonces(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{RejectNonces: 50})
	m := w.manager(t)
	for i := range 20 {
		spec := acme.Spec{Name: fmt.Sprint("c", i)}
		for _, n := range []string{"a", "b", "c"} {
			spec.Names = append(spec.Names, fmt.Sprintf("%s%d.example.com", n, i))
		}
		if _, err := m.Apply(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.ReconcileAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	list, err := w.store.List(t.Context())
	if err != nil || len(list) != 20 {
		t.Fatal(len(list), err)
	}
	for _, o := range list {
		w.check(t, o)
		if o.Status.Phase != acme.Issued {
			t.Errorf("%s is %s", o.Spec.Name, o.Status.Phase)
		}
	}
	if w.count("ordered") != 20 || w.count("registered") != 1 {
		t.Error(w.said())
	}
}

func TestRenewByARI(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	m := w.manager(t)
	old := w.issue(t, m, acme.Spec{Name: "a", Names: []string{"a.example.com"}})
	if old.Status.ARI == nil {
		t.Fatal("the CA said nothing about the renewal")
	}
	if err := w.ca.SetRenewal(old.Chain, time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if r, err := m.Reconcile(t.Context(), "a"); err != nil || r.Issued || r.Next.After(time.Now().Add(12*time.Hour)) {
		t.Fatalf("the CA was asked before it wanted to be: %+v, %v", r, err)
	}
	w.clock.to(old.Status.ARI.CheckAfter.Add(time.Second))
	r, err := m.Reconcile(t.Context(), "a")
	if err != nil || !r.Issued {
		t.Fatalf("%+v, %v\n%s", r, err, w.said())
	}
	if r.Object.Status.Serial == old.Status.Serial || r.Object.Key.Reveal() == old.Key.Reveal() {
		t.Error("neither serial nor key are new")
	}
	known, orders := acmetest.KnowsReplaced(old.Status.Serial), 1
	if !known {
		orders = 2 // refused, and placed as a plain order
	}
	if told := strings.Contains(w.ca.Log(), "is a replacement of"); told != known {
		t.Errorf("the CA took it for a replacement: %v, want %v", told, known)
	}
	if len(r.Object.Status.Orders) != orders {
		t.Errorf("a replacement counts as a new order: %+v", r.Object.Status.Orders)
	}
}

// silentAbout is a CA that does not answer requests to that path.
type silentAbout struct {
	http.RoundTripper
	path string
}

func (s silentAbout) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasPrefix(r.URL.Path, s.path) {
		return nil, errors.New("no answer")
	}
	return s.RoundTripper.RoundTrip(r)
}

// TestRenewByARIThatWasMissed: the CA says nothing about the renewal when it
// issues a certificate. It is asked again.
func TestRenewByARIThatWasMissed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	old := w.issue(t, w.manager(t, func(c *acme.Config) { c.Transport = silentAbout{w.https(t), "/draft-ietf-acme-ari"} }),
		acme.Spec{Name: "a", Names: []string{"a.example.com"}})
	if old.Status.ARI == nil || !old.Status.ARI.Start.IsZero() {
		t.Fatalf("%+v", old.Status.ARI)
	}
	if err := w.ca.SetRenewal(old.Chain, time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	m := w.manager(t)
	if r, err := m.Reconcile(t.Context(), "a"); err != nil || r.Issued || !r.Next.Equal(old.Status.ARI.CheckAfter) {
		t.Errorf("%+v, %v", r, err)
	}
	w.clock.to(old.Status.ARI.CheckAfter.Add(time.Second))
	if r, err := m.Reconcile(t.Context(), "a"); err != nil || !r.Issued || len(r.Object.Status.Orders) != 1 {
		t.Errorf("%+v, %v\n%s", r, err, w.said())
	}
}

func TestRenewByBackstop(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	m := w.manager(t)
	old := w.issue(t, m, acme.Spec{Name: "a", Names: []string{"a.example.com"}, ReuseKey: true})
	w.ca.Stop() // the CA answers nothing, and ARI is due
	w.clock.to(old.Status.ARI.CheckAfter.Add(time.Second))
	if r, err := m.Reconcile(t.Context(), "a"); err != nil || r.Issued {
		t.Errorf("no answer about the renewal is no failure: %+v, %v", r, err)
	}
	w.ca.Restart() // knows neither the account nor the certificate
	w.clock.to(old.Status.RenewAt.Add(time.Second))
	r, err := m.Reconcile(t.Context(), "a")
	if err != nil || !r.Issued {
		t.Fatalf("%+v, %v\n%s", r, err, w.said())
	}
	if r.Object.Key.Reveal() != old.Key.Reveal() {
		t.Error("the key was to be kept")
	}
	if n := w.count("registered"); n != 2 {
		t.Errorf("%d registrations", n)
	}
}

func TestRevokeAndRollover(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	m := w.manager(t)
	w.issue(t, m, acme.Spec{Name: "a", Names: []string{"a.example.com"}})
	before, err := w.store.Account(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	after, err := m.Rollover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p, err := w.store.Thumbprint(t.Context()); err != nil || p != after.Thumbprint || p == before.Thumbprint {
		t.Errorf("thumbprint %q published after %q became %q: %v", p, before.Thumbprint, after.Thumbprint, err)
	}
	w.issue(t, m, acme.Spec{Name: "b", Names: []string{"b.example.com"}})
	if w.count("registered") != 1 {
		t.Error("the new key is no key of the account:\n" + w.said())
	}
	o, err := m.Revoke(t.Context(), "a", 4)
	if err != nil || o.Status.Phase != acme.Revoked {
		t.Fatal(o.Status, err)
	}
	if yes, err := w.ca.IsRevoked(o.Status.Serial); err != nil || !yes {
		t.Errorf("the CA says revoked: %v, %v", yes, err)
	}
	if r, err := m.Reconcile(t.Context(), "a"); err != nil || r.Issued {
		t.Errorf("a revoked certificate is renewed by itself: %+v, %v", r, err)
	}
	if _, err := m.Force(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if r, err := m.Reconcile(t.Context(), "a"); err != nil || !r.Issued {
		t.Errorf("a revoked certificate is not renewed on request: %+v, %v", r, err)
	}
}

func TestUnreachableNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	other, err := net.Listen("tcp", "127.0.0.2:"+fmt.Sprint(w.ca.HTTPPort))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.NotFoundHandler()}
	go func() { _ = srv.Serve(other) }()
	t.Cleanup(func() { _ = srv.Close() })
	for host, ip := range map[string]string{"elsewhere.example.com.": "127.0.0.2", "closed.example.com.": "127.0.0.3"} {
		if err := w.ca.SetDNS("add-a", map[string]any{"host": host, "addresses": []string{ip}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.ca.SetDNS("set-servfail", map[string]any{"host": "broken.example.com."}); err != nil {
		t.Fatal(err)
	}
	m := w.manager(t)
	for name, want := range map[string]string{
		"elsewhere.example.com": "elsewhere.example.com (127.0.0.2): another server answers there, or an edge without the ACME route: GET /.well-known/acme-challenge/drover-self-check gave 404 Not Found",
		"closed.example.com":    "closed.example.com (127.0.0.3): port " + fmt.Sprint(w.ca.HTTPPort) + " cannot be connected to from here: ",
		"broken.example.com":    "broken.example.com: does not resolve: ",
	} {
		if _, err := m.Apply(t.Context(), acme.Spec{Name: name, Names: []string{name}}); err != nil {
			t.Fatal(err)
		}
		r, err := m.Reconcile(t.Context(), name)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if r.Object.Status.LastError != err.Error() || r.Object.Status.Phase != acme.Temporary || r.Object.Chain == "" {
			t.Errorf("status %+v", r.Object.Status)
		}
	}
	if len(w.requests) != 0 {
		t.Errorf("the CA was asked: %+v", w.requests)
	}
	// Without our own look, it is the CA that says so.
	m = w.manager(t, func(c *acme.Config) { c.Solvers[acme.HTTP01] = acme.Stateless{SkipCheck: true} })
	w.clock.add(2 * time.Minute)
	_, err = m.Reconcile(t.Context(), "elsewhere.example.com")
	var ie *acme.IssuerError
	if !errors.As(err, &ie) || ie.Kind != acme.KindUnproven || !strings.Contains(err.Error(), "checking elsewhere.example.com by http-01") || !strings.Contains(err.Error(), "404") {
		t.Errorf("%v", err)
	}
	o, err := w.store.Get(t.Context(), "elsewhere.example.com")
	if err != nil || o.Status.Pending != nil || o.Status.Attempts != 2 {
		t.Errorf("status %+v, %v", o.Status, err)
	}
}

// TestEdgeThatIsLate: the edge has the thumbprint a moment after it was
// published, or never.
func TestEdgeThatIsLate(t *testing.T) {
	t.Parallel()
	var asked sync.Map
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		n := 0
		served <- acme.Respond(ctx, l, acme.Responder{Thumbprint: func(context.Context) (string, error) {
			n++
			asked.Store("n", n)
			return []string{"", "old", "ours"}[min(n-1, 2)], nil
		}})
	}()
	t.Cleanup(func() { cancel(); <-served })
	s := acme.Stateless{Port: l.Addr().(*net.TCPAddr).Port, Timeout: 5 * time.Second}
	if err := s.Check(t.Context(), []string{"127.0.0.1"}, "ours"); err != nil {
		t.Error(err)
	}
	if n, _ := asked.Load("n"); n != 3 {
		t.Errorf("asked %v times", n)
	}
	s.Timeout = 700 * time.Millisecond
	if err := s.Check(t.Context(), []string{"127.0.0.1"}, "another"); err == nil || err.Error() != "127.0.0.1 (127.0.0.1): the edge there answers for a different ACME account" {
		t.Errorf("%v", err)
	}
}

// TestSilentAddress: a name has an address that takes connections and says
// nothing, before the one that answers.
func TestSilentAddress(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	silent, err := net.Listen("tcp", "127.0.0.4:"+fmt.Sprint(w.ca.HTTPPort))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	for host, addresses := range map[string][]string{"both": {"127.0.0.4", "127.0.0.1"}, "silent": {"127.0.0.4"}, "closed": {"127.0.0.4", "127.0.0.3"}} {
		if err := w.ca.SetDNS("add-a", map[string]any{"host": host + ".example.com.", "addresses": addresses}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.manager(t).Prepare(t.Context(), acme.Spec{Name: "a", Names: []string{"both.example.com"}}); err != nil {
		t.Fatal(err)
	}
	thumbprint, err := w.store.Thumbprint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := acme.Stateless{Port: w.ca.HTTPPort, Resolver: w.ca.Resolver(), Timeout: 2 * time.Second}
	for name, want := range map[string]string{
		"both.example.com":   "",
		"silent.example.com": "no answer within 2s",
		"closed.example.com": "connection refused", // the last address's
	} {
		if err := s.Check(t.Context(), []string{name}, thumbprint); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
