package acme

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"net"
	"strconv"
	"time"

	"github.com/drover-nomad/drover/acme/pki"
)

// signer is a CA that signs without an ACME order: it needs neither an account nor a
// challenge.
type signer interface {
	// sign returns the chain, leaf first, without the root.
	sign(ctx context.Context, spec Spec, key crypto.Signer) (chain string, err error)
	revoke(ctx context.Context, leaf *x509.Certificate, reason int) error
}

// settings returns the settings of an issuer, from the configuration or the store.
func (m *Manager) settings(ctx context.Context, name string) (Issuer, error) {
	if i, ok := m.ownIssuer(name); ok && !i.lacksKey() {
		return i, nil
	}
	a, err := m.account(ctx)
	if err != nil {
		return Issuer{}, err
	}
	return m.issuer(a, name)
}

// signer returns nil for an issuer that speaks ACME.
func (m *Manager) signer(ctx context.Context, name string) (Issuer, signer, error) {
	i, err := m.settings(ctx, name)
	if err != nil || !i.Signs() {
		return i, nil, err
	}
	if err := i.Validate(); err != nil {
		return i, nil, err
	}
	if i.OwnCA != nil {
		return i, ownSigner{m, i}, nil
	}
	v, err := m.vault(i)
	return i, v, err
}

// NeedsChallenge reports whether a certificate needs a proof of its names, which only
// CAs that speak ACME ask for. issuers are those that a stack declares.
func NeedsChallenge(spec Spec, issuers []Issuer) bool {
	for _, name := range spec.Issuers {
		signs := false
		for _, i := range issuers {
			signs = signs || i.Name == name && i.Signs()
		}
		if !signs {
			return true
		}
	}
	return len(spec.Issuers) == 0
}

// fromSigner gets a certificate from a CA that signs. It stores the key first: if the
// store fails, no certificate is issued.
func (m *Manager) fromSigner(ctx context.Context, o *Object, i Issuer, s signer) (*Object, *issued, error) {
	key, text, err := m.newKey(o)
	if err != nil {
		return o, nil, err
	}
	o, err = m.c.Store.Update(ctx, o.Spec.Name, func(cur *Object) error {
		if cur.Spec.NameSet() != o.Spec.NameSet() {
			return &SpecError{o.Spec.Name, "its names were changed while it was signed"}
		}
		cur.pendingKey = text
		cur.Status.Pending = &Pending{Issuer: i.Name, Directory: i.place(), Order: "sign/" + rand.Text(), Set: cur.Spec.NameSet(), At: m.now()}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	chain, err := s.sign(ctx, o.Spec, key)
	if err != nil {
		return o, nil, err
	}
	if err := Validate(chain, key, o.Spec.Names, m.now()); err != nil {
		return o, nil, &IssuerError{Issuer: i.Name, Step: "looking at what it issued", Kind: KindInvalid, Err: err}
	}
	return o, &issued{chain: chain, leaf: pki.First(chain)}, nil
}

// publishTrust stores what jobs trust, if it has changed. An empty crl leaves that of
// the store.
func (m *Manager) publishTrust(ctx context.Context, issuer, ca, crl string) error {
	path := TrustPath(issuer)
	return contend(ctx, func() (write func() error, err error) {
		items, version, err := m.c.Store.b.Get(ctx, path)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		if crl == "" {
			crl = items[ItemCRL]
		}
		if err == nil && items[ItemCA] == ca && items[ItemCRL] == crl {
			return nil, nil
		}
		next := Items{itemLayout: strconv.Itoa(Layout), ItemCA: ca}
		if crl != "" {
			next[ItemCRL] = crl
		}
		return func() error {
			_, err := m.c.Store.b.Put(ctx, path, next, version)
			return err
		}, nil
	})
}

// Items at TrustPath, in PEM.
const (
	ItemCA  = "ca"  // the roots that clients trust
	ItemCRL = "crl" // lists of revoked certificates
)

// TrustPath is where jobs read what to trust for the certificates of an issuer.
func TrustPath(issuer string) string { return TrustFolder + "/" + encodeName(issuer) }

// Trust is what clients need to verify the certificates of an issuer.
type Trust struct {
	CA  string // PEM
	CRL string // PEM; "" for none
}

// CAs returns those that clients trust, none if CA is not readable.
func (t Trust) CAs() []*x509.Certificate {
	list, _ := pki.ParseChain(t.CA)
	return list
}

// NextUpdate is when the lists of revoked certificates end; zero if there is none.
func (t Trust) NextUpdate() time.Time {
	if list := firstList(t.CRL); list != nil {
		return list.NextUpdate
	}
	return time.Time{}
}

// Trust reads the trust bundle of an issuer; ErrNotFound if it has none.
func (s *Store) Trust(ctx context.Context, issuer string) (Trust, error) {
	items, _, err := s.b.Get(ctx, TrustPath(issuer))
	return Trust{items[ItemCA], items[ItemCRL]}, err
}

// commonName is the first domain that fits into a common name, "" if there is none.
func commonName(names []string) string {
	for _, n := range names {
		if len(n) <= 64 && net.ParseIP(n) == nil {
			return n
		}
	}
	return ""
}
