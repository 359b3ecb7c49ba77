package acme

import (
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drover-nomad/drover/acme/pki"
)

// OwnCA are the settings of a CA whose root and intermediates are in the store. Zero
// lifetimes are the defaults.
type OwnCA struct {
	CommonName           string        `json:"common_name,omitempty"`           // of the root; the issuer's name when empty
	Lifetime             time.Duration `json:"lifetime,omitempty"`              // of certificates; 30 days
	IntermediateLifetime time.Duration `json:"intermediate_lifetime,omitempty"` // 1 year
	RootLifetime         time.Duration `json:"root_lifetime,omitempty"`         // 10 years
	// CRLURL is the address below which clients find the lists of revoked
	// certificates; certificates name it. "" for none.
	CRLURL string `json:"crl_url,omitempty"`
}

const day = 24 * time.Hour

// Defaults of OwnCA.
const (
	ownLifetime             = 30 * day
	ownIntermediateLifetime = 365 * day
	ownRootLifetime         = 3650 * day
)

// announced is how long a new root is published before it signs.
const announced = 7 * day

// Validity of a list of revoked certificates; it is renewed after half of it.
const crlLifetime = 7 * day

func (c OwnCA) withDefaults(name string) OwnCA {
	if c.CommonName == "" {
		c.CommonName = name
	}
	for to, value := range map[*time.Duration]time.Duration{&c.Lifetime: ownLifetime, &c.IntermediateLifetime: ownIntermediateLifetime, &c.RootLifetime: ownRootLifetime} {
		if *to == 0 {
			*to = value
		}
	}
	return c
}

func (c OwnCA) validate() error {
	d := c.withDefaults("x")
	switch u, err := url.Parse(c.CRLURL); {
	case d.Lifetime < time.Hour:
		return fmt.Errorf("lifetime %s is less than an hour", d.Lifetime)
	case d.IntermediateLifetime < 3*d.Lifetime:
		return fmt.Errorf("intermediate_lifetime %s is less than three times lifetime %s", d.IntermediateLifetime, d.Lifetime)
	case d.RootLifetime < 2*d.IntermediateLifetime || d.RootLifetime < 4*announced:
		return fmt.Errorf("root_lifetime %s is less than twice intermediate_lifetime %s, or than %s", d.RootLifetime, d.IntermediateLifetime, 4*announced)
	case c.CRLURL != "" && (err != nil || u.Scheme != "http" || u.Host == ""):
		return fmt.Errorf("crl_url %q is no http URL, which is what clients read lists of revoked certificates from", c.CRLURL)
	}
	return nil
}

// authority is an own CA as it is stored.
type authority struct {
	roots, intermediates []caPair // the oldest first
	revoked              []revokedCert
	crlNumber            int64
	lists                string // PEM, of the last look

	version string
}

// caPair is a CA certificate with its key. Its number is the next one of its CA.
type caPair struct {
	number int
	cert   *x509.Certificate
	key    crypto.Signer
}

type revokedCert struct {
	Serial       string    `json:"serial"` // hexadecimal
	Intermediate int       `json:"intermediate"`
	At           time.Time `json:"at"`
	NotAfter     time.Time `json:"not_after"`
	Reason       int       `json:"reason,omitempty"`
}

func caPath(issuer string) string { return caFolder + "/" + encodeName(issuer) }

// readAuthority reads an own CA. It returns an empty one if none is stored.
func (s *Store) readAuthority(ctx context.Context, issuer string) (*authority, error) {
	path := caPath(issuer)
	items, version, err := s.b.Get(ctx, path)
	if errors.Is(err, ErrNotFound) {
		return &authority{}, nil
	}
	if err == nil {
		err = checkLayout(items, "the CA at "+path)
	}
	if err != nil {
		return nil, err
	}
	a := &authority{version: version, lists: items["crl"]}
	for kind, to := range map[string]*[]caPair{"root": &a.roots, "intermediate": &a.intermediates} {
		for item, text := range items {
			rest, ok := strings.CutPrefix(item, kind+"_")
			number, err := strconv.Atoi(rest)
			if !ok || err != nil {
				continue
			}
			p := caPair{number: number, cert: pki.First(text)}
			if p.key, err = pki.ParseKey(items[item+"_key"]); err != nil || p.cert == nil || !pki.Fits(p.cert, p.key) {
				return nil, storeError(s.b, fmt.Errorf("item %s has no certificate with its key", item), "reading %s", path)
			}
			*to = append(*to, p)
		}
		slices.SortFunc(*to, func(a, b caPair) int { return a.number - b.number })
	}
	if json.Unmarshal([]byte(items["revoked"]), &a.revoked) != nil {
		return nil, storeError(s.b, errors.New("item revoked is not readable"), "reading %s", path)
	}
	if a.crlNumber, err = strconv.ParseInt(items["crl_number"], 10, 64); err != nil {
		return nil, storeError(s.b, errors.New("item crl_number is not readable"), "reading %s", path)
	}
	return a, nil
}

func (s *Store) putAuthority(ctx context.Context, issuer string, a *authority) error {
	revoked, err := json.Marshal(append([]revokedCert{}, a.revoked...))
	if err != nil {
		return err
	}
	items := Items{itemLayout: strconv.Itoa(Layout), "revoked": string(revoked), "crl_number": strconv.FormatInt(a.crlNumber, 10), "crl": a.lists}
	for kind, from := range map[string][]caPair{"root": a.roots, "intermediate": a.intermediates} {
		for _, p := range from {
			key, err := pki.EncodeKey(p.key)
			if err != nil {
				return err
			}
			item := kind + "_" + strconv.Itoa(p.number)
			items[item], items[item+"_key"] = pki.EncodeCertificate(p.cert.Raw), key
		}
	}
	a.version, err = s.b.Put(ctx, caPath(issuer), items, a.version)
	return err
}

// tend makes what the CA lacks at this time: a root, its successor in the last third of
// its life, an intermediate, and lists of revoked certificates. It reports whether
// anything was made or dropped. force makes new lists.
func (a *authority) tend(c OwnCA, now time.Time, force bool) (changed bool, err error) {
	changed = force
	for _, list := range []*[]caPair{&a.roots, &a.intermediates} {
		n := len(*list)
		*list = slices.DeleteFunc(*list, func(p caPair) bool { return now.After(p.cert.NotAfter) })
		changed = changed || len(*list) != n
	}
	if n := len(a.roots); n == 0 || pki.Due(a.roots[n-1].cert, now) {
		p := caPair{number: a.next()}
		name := c.CommonName
		if p.number > 1 {
			name += " " + strconv.Itoa(p.number) // two roots differ in name, too
		}
		if p.cert, p.key, err = pki.NewRoot(name, c.RootLifetime, now); err != nil {
			return false, err
		}
		a.roots, changed = append(a.roots, p), true
	}
	root := a.root(c, now)
	if p := a.signing(c, root, now); p == nil {
		p := caPair{number: a.next()}
		if p.cert, p.key, err = pki.NewIntermediate(fmt.Sprintf("%s intermediate %d", c.CommonName, p.number), c.IntermediateLifetime, root.cert, root.key, now); err != nil {
			return false, err
		}
		a.intermediates, changed = append(a.intermediates, p), true
	}
	if old := firstList(a.lists); changed || old == nil || now.After(old.ThisUpdate.Add(crlLifetime/2)) {
		a.revoked = slices.DeleteFunc(a.revoked, func(r revokedCert) bool { return now.After(r.NotAfter) })
		a.crlNumber++
		changed = true
		if a.lists, err = a.makeLists(now); err != nil {
			return false, err
		}
	}
	return changed, nil
}

// next returns the number of the next CA certificate, which was never used before.
func (a *authority) next() int {
	n := 0
	for _, p := range slices.Concat(a.roots, a.intermediates) {
		n = max(n, p.number)
	}
	return n + 1
}

// root returns the root that signs: the newest that was published for long enough, or
// the newest at all if the others end too soon.
func (a *authority) root(c OwnCA, now time.Time) caPair {
	var out caPair
	for _, p := range a.roots {
		old := now.Sub(p.cert.NotBefore) >= announced
		if out.cert == nil || old || out.cert.NotAfter.Sub(now) < 2*c.Lifetime {
			out = p
		}
	}
	return out
}

// signing returns the intermediate of root that signs, nil if there is none that lives
// long enough.
func (a *authority) signing(c OwnCA, root caPair, now time.Time) *caPair {
	for i := len(a.intermediates) - 1; i >= 0; i-- {
		p := &a.intermediates[i]
		if p.cert.CheckSignatureFrom(root.cert) == nil && !pki.Due(p.cert, now) && p.cert.NotAfter.Sub(now) >= c.Lifetime {
			return p
		}
	}
	return nil
}

// trusted returns the roots in PEM, those that sign first.
func (a *authority) trusted() string {
	var b strings.Builder
	for _, p := range a.roots {
		b.WriteString(pki.EncodeCertificate(p.cert.Raw))
	}
	return b.String()
}

// makeLists makes a list of revoked certificates (RFC 5280, 5) for each intermediate,
// in PEM.
func (a *authority) makeLists(now time.Time) (string, error) {
	var b strings.Builder
	for _, p := range a.intermediates {
		list := &x509.RevocationList{Number: big.NewInt(a.crlNumber), ThisUpdate: now, NextUpdate: now.Add(crlLifetime)}
		for _, r := range a.revoked {
			serial, ok := new(big.Int).SetString(r.Serial, 16)
			if ok && r.Intermediate == p.number {
				list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: r.At, ReasonCode: r.Reason})
			}
		}
		der, err := x509.CreateRevocationList(rand.Reader, list, p.cert, p.key)
		if err != nil {
			return "", fmt.Errorf("signing the list of revoked certificates of %s: %w", p.cert.Subject.CommonName, err)
		}
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
	}
	return b.String(), nil
}

func firstList(text string) *x509.RevocationList {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil
	}
	list, err := x509.ParseRevocationList(block.Bytes)
	if err != nil {
		return nil
	}
	return list
}

// crlName is the last part of the URL of the list of an intermediate.
func crlName(issuer string, number int) string { return fmt.Sprintf("%s-%d.crl", issuer, number) }

// CRL returns the list of revoked certificates that NAME-NUMBER.crl names, in DER;
// ErrNotFound if there is none.
func (s *Store) CRL(ctx context.Context, name string) ([]byte, error) {
	base, ok := strings.CutSuffix(name, ".crl")
	at := strings.LastIndexByte(base, '-')
	if !ok || at < 0 || !namePattern.MatchString(base[:at]) {
		return nil, ErrNotFound
	}
	trust, err := s.Trust(ctx, base[:at])
	if err != nil {
		return nil, err
	}
	for rest := []byte(trust.CRL); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, ErrNotFound
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err == nil && strings.HasSuffix(list.Issuer.CommonName, " intermediate "+base[at+1:]) {
			return block.Bytes, nil
		}
	}
}

// tended reads an own CA, makes what it lacks, and calls change, which may be nil. It
// publishes what jobs trust.
func (m *Manager) tended(ctx context.Context, i Issuer, change func(a *authority) error) (*authority, error) {
	c := i.OwnCA.withDefaults(i.Name)
	var a *authority
	err := contend(ctx, func() (write func() error, err error) {
		if a, err = m.c.Store.readAuthority(ctx, i.Name); err != nil {
			return nil, err
		}
		if change != nil {
			if err := change(a); err != nil {
				return nil, err
			}
		}
		changed, err := a.tend(c, m.now(), change != nil)
		if err != nil || !changed {
			return nil, err
		}
		return func() error { return m.c.Store.putAuthority(ctx, i.Name, a) }, nil
	})
	if err != nil {
		return nil, err
	}
	return a, m.publishTrust(ctx, i.Name, a.trusted(), a.lists)
}

// ownSigner signs with an own CA.
type ownSigner struct {
	m *Manager
	i Issuer
}

func (s ownSigner) sign(ctx context.Context, spec Spec, key crypto.Signer) (string, error) {
	a, err := s.m.tended(ctx, s.i, nil)
	if err != nil {
		return "", err
	}
	c, now := s.i.OwnCA.withDefaults(s.i.Name), s.m.now()
	p := a.signing(c, a.root(c, now), now)
	l := pki.Leaf{CommonName: cmp.Or(commonName(spec.Names), spec.Name), Lifetime: c.Lifetime, ClientAuth: true}
	if c.CRLURL != "" {
		l.CRL = strings.TrimSuffix(c.CRLURL, "/") + "/" + crlName(s.i.Name, p.number)
	}
	for _, n := range spec.Names {
		if net.ParseIP(n) != nil {
			l.IPAddresses = append(l.IPAddresses, n)
		} else {
			l.DNSNames = append(l.DNSNames, n)
		}
	}
	leaf, err := pki.Issue(l, key.Public(), p.cert, p.key, now)
	if err != nil {
		return "", &IssuerError{Issuer: s.i.Name, Step: "signing", Kind: KindRejected, Err: err}
	}
	return leaf + pki.EncodeCertificate(p.cert.Raw), nil
}

func (s ownSigner) revoke(ctx context.Context, leaf *x509.Certificate, reason int) error {
	_, err := s.m.tended(ctx, s.i, func(a *authority) error {
		serial := serialOf(leaf)
		if slices.ContainsFunc(a.revoked, func(r revokedCert) bool { return r.Serial == serial }) {
			return nil
		}
		for _, p := range a.intermediates {
			if leaf.CheckSignatureFrom(p.cert) == nil {
				a.revoked = append(a.revoked, revokedCert{Serial: serial, Intermediate: p.number, At: s.m.now(), NotAfter: leaf.NotAfter, Reason: reason})
				return nil
			}
		}
		return &IssuerError{Issuer: s.i.Name, Step: "revoking", Kind: KindRejected, Err: errors.New("none of its intermediates has signed the certificate")}
	})
	return err
}

// tendAuthorities makes what is due for all own CAs: successors and lists of revoked
// certificates.
func (m *Manager) tendAuthorities(ctx context.Context) error {
	a, err := m.storedAccount(ctx)
	if err != nil || a == nil {
		return err
	}
	var errs []error
	for _, i := range a.Issuers {
		if i.OwnCA == nil {
			continue
		}
		if _, err := m.tended(ctx, i, nil); err != nil {
			errs = append(errs, fmt.Errorf("own CA %s: %w", i.Name, err))
		}
	}
	return errors.Join(errs...)
}
