package acme

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/drover-nomad/drover/acme/pki"
)

// InvalidError is the reason why a certificate cannot be used.
type InvalidError struct {
	Problem string
	early   bool // it is not valid yet
}

func (e *InvalidError) Error() string { return e.Problem }

// Validate returns an error if a chain cannot be used with this key for these names at
// that time. A chain is validated before it is stored, and when it is read.
func Validate(chain string, key crypto.Signer, names []string, now time.Time) error {
	invalid := func(format string, args ...any) error { return &InvalidError{Problem: fmt.Sprintf(format, args...)} }
	certs, err := pki.ParseChain(chain)
	if err != nil {
		return invalid("%s", err)
	}
	leaf := certs[0]
	switch {
	case key == nil || !pki.Fits(leaf, key):
		return invalid("the key is not that of the certificate")
	case leaf.IsCA:
		return invalid("the chain begins with the certificate of a CA")
	case now.After(leaf.NotAfter):
		return invalid("the certificate expired %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	if missing, extra := diffNames(names, certNames(leaf)); len(missing) > 0 || len(extra) > 0 {
		return invalid("the certificate is for %s instead of %s", strings.Join(certNames(leaf), ", "), strings.Join(names, ", "))
	}
	for i, c := range certs[1:] {
		if err := certs[i].CheckSignatureFrom(c); err != nil {
			return invalid("the chain is broken: %q is not signed by %q", certs[i].Subject.CommonName, c.Subject.CommonName)
		}
		if now.After(c.NotAfter) {
			return invalid("%q in the chain expired %s", c.Subject.CommonName, c.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	if now.Add(time.Hour).Before(leaf.NotBefore) { // and nothing else is wrong with it
		return &InvalidError{"the certificate is not valid before " + leaf.NotBefore.UTC().Format(time.RFC3339), true}
	}
	return nil
}

func diffNames(want, have []string) (missing, extra []string) {
	for _, n := range want {
		if !slices.Contains(have, n) {
			missing = append(missing, n)
		}
	}
	for _, n := range have {
		if !slices.Contains(want, n) {
			extra = append(extra, n)
		}
	}
	return missing, extra
}

// certNames are the domains and addresses that a certificate is for.
func certNames(c *x509.Certificate) []string {
	names := make([]string, 0, len(c.DNSNames)+len(c.IPAddresses))
	for _, n := range c.DNSNames {
		names = append(names, strings.ToLower(n))
	}
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}

func serialOf(c *x509.Certificate) string { return fmt.Sprintf("%032x", c.SerialNumber) }

// Temporary certificates have a mark, by which they are recognized anywhere.
const (
	temporaryOrganization = "drover: temporary, until a CA has issued"
	temporaryLifetime     = 7 * 24 * time.Hour
)

// SelfSigned makes the placeholder with which an edge can start.
func SelfSigned(names []string, now time.Time) (chain, key string, err error) {
	l := pki.Leaf{CommonName: "temporary", Organization: temporaryOrganization, Lifetime: temporaryLifetime}
	for _, n := range names {
		if net.ParseIP(n) != nil {
			l.IPAddresses = append(l.IPAddresses, n)
		} else {
			l.DNSNames = append(l.DNSNames, n)
		}
	}
	return pki.Sign(l, nil, nil, now)
}

// IsTemporary reports whether c is a temporary certificate of SelfSigned.
func IsTemporary(c *x509.Certificate) bool {
	return slices.Contains(c.Subject.Organization, temporaryOrganization)
}
