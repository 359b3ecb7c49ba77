package secrets

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/drover-nomad/drover/acme/pki"
	"github.com/drover-nomad/drover/stack"
)

const leafLifetime = 365 * 24 * time.Hour

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// randomText is length characters of [A-Za-z0-9], each equally likely: bytes
// that would favour the beginning of the alphabet are thrown away.
func randomText(length int) string {
	const fair = 256 - 256%len(alphabet)
	out := make([]byte, 0, length)
	buf := make([]byte, 2*length+8)
	for len(out) < length {
		_, _ = rand.Read(buf) // never fails
		for _, b := range buf {
			if int(b) < fair && len(out) < length {
				out = append(out, alphabet[int(b)%len(alphabet)])
			}
		}
	}
	return string(out)
}

// randomUUID is an RFC 9562 UUID of version 4.
func randomUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// Generate returns a new value for a secret, "" for one that the operator gives.
func Generate(spec *stack.Secret) (string, error) {
	switch spec.Type {
	case stack.SecretRandom:
		length := spec.Length
		if length <= 0 {
			length = 32
		}
		return randomText(length), nil
	case stack.SecretUUID:
		return randomUUID(), nil
	case stack.SecretGiven:
		return "", nil
	}
	return "", fmt.Errorf("secret %s has unknown type %q", spec.Name, spec.Type)
}

// CAItem returns the item with the CAs that those who use the certificate trust.
func CAItem(name string) string { return name + "_ca" }

// CAKeyItem returns the item with the key of the CA that signs. Jobs do not get it.
func CAKeyItem(name string) string { return name + "_ca_key" }

// NextKeyItem returns the item with the key of the next CA. Jobs do not get it.
func NextKeyItem(name string) string { return name + "_ca_next_key" }

// CertItem returns the item with the certificate.
func CertItem(name string) string { return name + "_cert" }

// KeyItem returns the item with the key of the certificate.
func KeyItem(name string) string { return name + "_key" }

// Certify adds to items what a certificate secret lacks: everything the first
// time, later a new leaf from the kept CA when it is due. fresh forces a new
// leaf. It reports whether anything was made.
func Certify(spec *stack.Secret, items map[string]string, now time.Time, fresh bool) (bool, error) {
	if !fresh && !leafDue(spec, items, now) {
		return false, nil
	}
	ca, caKey, err := authority(spec.Name, items, now)
	if err != nil {
		return false, err
	}
	cert, key, err := pki.Sign(pki.Leaf{
		CommonName: spec.Name, DNSNames: spec.DNSNames, IPAddresses: spec.IPAddresses, Lifetime: leafLifetime, ClientAuth: true,
	}, ca, caKey, now)
	if err != nil {
		return false, err
	}
	items[CertItem(spec.Name)], items[KeyItem(spec.Name)] = cert, key
	return true, nil
}

// announced is how long the successor of a CA stands beside it before it signs.
const announced = 7 * 24 * time.Hour

// authority returns the CA that signs a leaf now. Jobs get new items one wave
// after another, so a CA is replaced in two steps: in the last third of its life
// its successor is added to what every job trusts, and a later leaf is signed by
// that. A CA that is missing or at its end is replaced at once.
func authority(name string, items map[string]string, now time.Time) (*x509.Certificate, crypto.Signer, error) {
	ca, key, err := pki.ParseCA(items[CAItem(name)], items[CAKeyItem(name)])
	usable := err == nil && ca.NotAfter.Sub(now) > leafLifetime
	if usable && !pki.Due(ca, now) {
		return ca, key, nil
	}
	old := items[CAItem(name)]
	next, nextKey, err := successor(name, items)
	if err != nil {
		made, madeKey, err := pki.NewCA(name, now)
		if err != nil {
			return nil, nil, err
		}
		next, nextKey = made, madeKey
	}
	keyPEM, err := pki.EncodeKey(nextKey)
	if err != nil {
		return nil, nil, err
	}
	if usable && now.Sub(next.NotBefore) < announced {
		items[CAItem(name)], items[NextKeyItem(name)] = pki.EncodeCertificate(ca.Raw)+pki.EncodeCertificate(next.Raw), keyPEM
		return ca, key, nil
	}
	bundle := pki.EncodeCertificate(next.Raw)
	if first := pki.First(old); first != nil && now.Before(first.NotAfter) {
		bundle += pki.EncodeCertificate(first.Raw) // still trusted until every task has the new one
	}
	items[CAItem(name)], items[CAKeyItem(name)] = bundle, keyPEM
	delete(items, NextKeyItem(name))
	return next, nextKey, nil
}

// successor returns the CA that was announced, an error when there is none.
func successor(name string, items map[string]string) (*x509.Certificate, crypto.Signer, error) {
	chain, err := pki.ParseChain(items[CAItem(name)])
	if err != nil || len(chain) < 2 {
		return nil, nil, errors.New("there is no successor")
	}
	return pki.ParseCA(pki.EncodeCertificate(chain[1].Raw), items[NextKeyItem(name)])
}

// leafDue reports whether the leaf is missing, unreadable, for other names, or in the
// last third of its lifetime.
func leafDue(spec *stack.Secret, items map[string]string, now time.Time) bool {
	leaf := pki.First(items[CertItem(spec.Name)])
	if leaf == nil || items[KeyItem(spec.Name)] == "" || items[CAItem(spec.Name)] == "" || pki.Due(leaf, now) {
		return true
	}
	for _, n := range spec.DNSNames {
		if !slices.Contains(leaf.DNSNames, n) {
			return true
		}
	}
	for _, ip := range spec.IPAddresses {
		if !slices.ContainsFunc(leaf.IPAddresses, net.ParseIP(ip).Equal) {
			return true
		}
	}
	return false
}
