package acme_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/acme/acmetest"
	"github.com/drover-nomad/drover/acme/pki"
)

// ownWorld is a store with an own CA called "own", without any ACME CA.
func ownWorld(t *testing.T, c acme.OwnCA) (*world, func() *acme.Manager) {
	t.Helper()
	w := &world{clock: &clock{}, store: acme.NewStore(acme.Directory(t.TempDir())), ca: &acmetest.CA{}}
	return w, func() *acme.Manager {
		return w.manager(t, func(config *acme.Config) { config.Issuers = []acme.Issuer{{Name: "own", OwnCA: &c}} })
	}
}

// verifies reports whether a client with these roots accepts a certificate at a time.
func verifies(t *testing.T, roots, chain, name string, at time.Time) error {
	t.Helper()
	certs, err := pki.ParseChain(chain)
	if err != nil {
		t.Fatal(err)
	}
	pool, between := x509.NewCertPool(), x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(roots))
	for _, c := range certs[1:] {
		between.AddCert(c)
	}
	_, err = certs[0].Verify(x509.VerifyOptions{DNSName: name, Roots: pool, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	return err
}

func TestOwnCA_Issues(t *testing.T) {
	t.Parallel()
	w, manager := ownWorld(t, acme.OwnCA{CommonName: "Example internal", CRLURL: "http://ca.example.org/crl/"})
	m := manager()
	spec := acme.Spec{Name: "db", Names: []string{"db.example.internal", "*.db.example.internal"}, Issuers: []string{"own"}, KeyType: "rsa2048"}
	if _, err := m.Apply(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	r, err := m.Reconcile(t.Context(), "db")
	if err != nil || !r.Issued {
		t.Fatalf("issued %v, %v\n%s", r.Issued, err, w.said())
	}
	o := r.Object
	trust, err := w.store.Trust(t.Context(), "own")
	if err != nil {
		t.Fatal(err)
	}
	if err := verifies(t, trust.CA, o.Chain, "db.example.internal", w.clock.Now()); err != nil {
		t.Error(err)
	}
	certs, _ := pki.ParseChain(o.Chain)
	leaf := certs[0]
	if len(certs) != 2 || leaf.NotAfter.Sub(w.clock.Now()).Round(time.Hour) != 30*24*time.Hour || leaf.Subject.CommonName != "db.example.internal" ||
		!slices.Equal(leaf.CRLDistributionPoints, []string{"http://ca.example.org/crl/own-2.crl"}) || certs[1].Subject.CommonName != "Example internal intermediate 2" {
		t.Errorf("got %d certificates, the first until %s, for %s, with the lists %q; the second is %s",
			len(certs), leaf.NotAfter, leaf.Subject, leaf.CRLDistributionPoints, certs[1].Subject)
	}
	if o.Status.Phase != acme.Issued || o.Status.Issuer != "own" || o.Status.Directory != "own-ca:own" || o.Status.RenewAt.After(o.Status.NotAfter.Add(-9*24*time.Hour)) {
		t.Errorf("status is %+v", o.Status)
	}
	if strings.Contains(trust.CA+trust.CRL+w.said(), "PRIVATE KEY") {
		t.Error("a private key is published")
	}
	// Another process renews it with what the store knows.
	w.clock.to(o.Status.RenewAt.Add(time.Second))
	later := w.manager(t, func(c *acme.Config) { c.Issuers = nil })
	r, err = later.Reconcile(t.Context(), "db")
	if err != nil || !r.Issued {
		t.Fatalf("renewed %v, %v", r.Issued, err)
	}
	if now, err := w.store.Trust(t.Context(), "own"); err != nil || now.CA != trust.CA {
		t.Errorf("the renewal changed the root (%v)", err)
	}
	if w.count("registered") != 0 {
		t.Error(w.said())
	}
}

// TestOwnCA_Once: two processes that issue the first certificate make one root.
func TestOwnCA_Once(t *testing.T) {
	t.Parallel()
	w, manager := ownWorld(t, acme.OwnCA{})
	var wg sync.WaitGroup
	for _, name := range []string{"a", "b", "c", "d"} {
		wg.Go(func() {
			m := manager()
			if _, err := m.Apply(t.Context(), acme.Spec{Name: name, Names: []string{name + ".example.com"}, Issuers: []string{"own"}}); err != nil {
				t.Error(err)
			}
			if r, err := m.Reconcile(t.Context(), name); err != nil || !r.Issued {
				t.Errorf("%s: issued %v, %v", name, r.Issued, err)
			}
		})
	}
	wg.Wait()
	trust, err := w.store.Trust(t.Context(), "own")
	if err != nil {
		t.Fatal(err)
	}
	roots, err := pki.ParseChain(trust.CA)
	if err != nil || len(roots) != 1 {
		t.Errorf("%d roots, %v", len(roots), err)
	}
	for _, name := range []string{"a", "b", "c", "d"} {
		o, err := w.store.Get(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if err := verifies(t, trust.CA, o.Chain, name+".example.com", time.Now()); err != nil {
			t.Error(err)
		}
	}
}

// TestOwnCA_Successors: over two lives of the root, a client that read the trust bundle
// up to a week ago accepts what is served, and so does one that reads it now.
func TestOwnCA_Successors(t *testing.T) {
	t.Parallel()
	day := 24 * time.Hour
	w, manager := ownWorld(t, acme.OwnCA{Lifetime: 10 * day, IntermediateLifetime: 60 * day, RootLifetime: 240 * day})
	m := manager()
	if _, err := m.Apply(t.Context(), acme.Spec{Name: "a", Names: []string{"a.example.com"}, Issuers: []string{"own"}}); err != nil {
		t.Fatal(err)
	}
	var bundles []string // one a day
	roots, intermediates := map[string]bool{}, map[string]bool{}
	most := 0
	for range 500 {
		if _, err := m.ReconcileAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		o, err := w.store.Get(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		trust, err := w.store.Trust(t.Context(), "own")
		if err != nil {
			t.Fatal(err)
		}
		bundles = append(bundles, trust.CA)
		for _, bundle := range bundles[max(0, len(bundles)-7):] {
			if err := verifies(t, bundle, o.Chain, "a.example.com", w.clock.Now()); err != nil {
				t.Fatalf("day %d: %v", len(bundles), err)
			}
		}
		certs, _ := pki.ParseChain(o.Chain)
		intermediates[certs[1].Subject.CommonName] = true
		list, _ := pki.ParseChain(trust.CA)
		most = max(most, len(list))
		for _, c := range list {
			roots[c.Subject.CommonName] = true
		}
		w.clock.add(day)
	}
	if len(roots) < 3 || len(intermediates) < 8 || most != 2 {
		t.Errorf("got %d roots (at most %d at once) and %d intermediates", len(roots), most, len(intermediates))
	}
}

func TestOwnCA_Revokes(t *testing.T) {
	t.Parallel()
	w, manager := ownWorld(t, acme.OwnCA{})
	m := manager()
	if _, err := m.Apply(t.Context(), acme.Spec{Name: "a", Names: []string{"a.example.com"}, Issuers: []string{"own"}}); err != nil {
		t.Fatal(err)
	}
	r, err := m.Reconcile(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	certs, _ := pki.ParseChain(r.Object.Chain)
	list := func() *x509.RevocationList {
		t.Helper()
		trust, err := w.store.Trust(t.Context(), "own")
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode([]byte(trust.CRL))
		der, err := w.store.CRL(t.Context(), "own-2.crl")
		if err != nil || block == nil || !bytes.Equal(der, block.Bytes) {
			t.Fatalf("the list is not that of the bundle: %v", err)
		}
		l, err := x509.ParseRevocationList(der)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.CheckSignatureFrom(certs[1]); err != nil {
			t.Error(err)
		}
		if !w.clock.Now().Before(l.NextUpdate) {
			t.Errorf("the list ended at %s", l.NextUpdate)
		}
		return l
	}
	if l := list(); len(l.RevokedCertificateEntries) != 0 {
		t.Errorf("got %d entries, want none", len(l.RevokedCertificateEntries))
	}
	for range 2 { // the second time changes nothing
		if _, err := m.Revoke(t.Context(), "a", 1); err != nil {
			t.Fatal(err)
		}
	}
	l := list()
	if e := l.RevokedCertificateEntries; len(e) != 1 || e[0].SerialNumber.Cmp(certs[0].SerialNumber) != 0 || e[0].ReasonCode != 1 {
		t.Errorf("got %+v", e)
	}
	if r, err := m.Reconcile(t.Context(), "a"); err != nil || r.Issued || r.Object.Status.Phase != acme.Revoked {
		t.Errorf("after the revocation: %+v, %v", r, err)
	}
	// The list is renewed before it ends, and drops what has expired.
	w.clock.add(4 * 24 * time.Hour)
	if _, err := m.ReconcileAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if next := list(); next.Number.Cmp(l.Number) <= 0 || len(next.RevokedCertificateEntries) != 1 {
		t.Errorf("got list %s with %d entries after %s", next.Number, len(next.RevokedCertificateEntries), l.Number)
	}
	w.clock.add(31 * 24 * time.Hour)
	if _, err := m.ReconcileAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if next := list(); len(next.RevokedCertificateEntries) != 0 {
		t.Error("an expired certificate is still on the list")
	}
	for _, name := range []string{"own-3.crl", "own.crl", "own-2", "../own-2.crl", "other-2.crl"} {
		if _, err := w.store.CRL(t.Context(), name); !errors.Is(err, acme.ErrNotFound) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestOwnCA_Settings(t *testing.T) {
	t.Parallel()
	day := 24 * time.Hour
	for text, c := range map[string]acme.OwnCA{
		"":                            {},
		"less than an hour":           {Lifetime: time.Minute},
		"less than three times":       {Lifetime: 30 * day, IntermediateLifetime: 60 * day},
		"less than twice":             {Lifetime: day, IntermediateLifetime: 60 * day, RootLifetime: 90 * day},
		`crl_url "https://ca/crl" is`: {CRLURL: "https://ca/crl"},
	} {
		err := acme.Issuer{Name: "own", OwnCA: &c}.Validate()
		if (err == nil) != (text == "") || err != nil && !strings.Contains(err.Error(), text) {
			t.Errorf("%+v: got %v, want %q", c, err, text)
		}
	}
}

// TestRevoke_HoldsLock: a certificate is not revoked while another process issues it.
func TestRevoke_HoldsLock(t *testing.T) {
	t.Parallel()
	backend := acme.Directory(t.TempDir())
	w := &world{clock: &clock{}, store: acme.NewStore(backend), ca: &acmetest.CA{}}
	c := w.config()
	c.Issuers = []acme.Issuer{{Name: "own", OwnCA: &acme.OwnCA{}}}
	m := acme.NewManager(c)
	if _, err := m.Apply(t.Context(), acme.Spec{Name: "a", Names: []string{"a.example.com"}, Issuers: []string{"own"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Reconcile(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	lease, err := backend.Lock(t.Context(), "drover/acme/locks/a", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Revoke(t.Context(), "a", 0); !errors.Is(err, acme.ErrLocked) {
		t.Errorf("got %v, want %v", err, acme.ErrLocked)
	}
	if err := lease.Release(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	if o, err := m.Revoke(t.Context(), "a", 0); err != nil || o.Status.Phase != acme.Revoked {
		t.Errorf("got %+v, %v", o, err)
	}
}

// TestOwnCA_AfterPause: a controller that was away until just before the end of the
// root signs with the successor at once, since the root would cut the certificate's life.
func TestOwnCA_AfterPause(t *testing.T) {
	t.Parallel()
	day := 24 * time.Hour
	w, manager := ownWorld(t, acme.OwnCA{Lifetime: 10 * day, IntermediateLifetime: 60 * day, RootLifetime: 240 * day})
	m := manager()
	if _, err := m.Apply(t.Context(), acme.Spec{Name: "a", Names: []string{"a.example.com"}, Issuers: []string{"own"}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := m.ReconcileAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		o, err := w.store.Get(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if life := o.Status.NotAfter.Sub(w.clock.Now()); life.Round(time.Hour) != 10*day {
			t.Errorf("got a life of %s", life)
		}
		trust, err := w.store.Trust(t.Context(), "own")
		if err != nil {
			t.Fatal(err)
		}
		if err := verifies(t, trust.CA, o.Chain, "a.example.com", o.Status.NotAfter.Add(-time.Minute)); err != nil {
			t.Error(err)
		}
		w.clock.add(236 * day)
	}
}
