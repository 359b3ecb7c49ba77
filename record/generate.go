package record

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/drover-nomad/drover/stack"
)

const (
	caLifetime   = 10 * 365 * 24 * time.Hour
	leafLifetime = 365 * 24 * time.Hour

	// clockSkew is how far a node's clock may be behind ours.
	clockSkew = 5 * time.Minute
)

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

// Items of a certificate. The key of the CA is only in the master.
func caItem(name string) string    { return name + "_ca" }
func caKeyItem(name string) string { return name + "_ca_key" }
func certItem(name string) string  { return name + "_cert" }
func keyItem(name string) string   { return name + "_key" }

// certify fills in what a certificate secret lacks: everything the first
// time, later a new leaf from the kept CA when it is due. fresh forces a new
// leaf. It reports whether anything was made.
func certify(spec *stack.Secret, items map[string]string, now time.Time, fresh bool) (bool, error) {
	if !fresh && !leafDue(spec, items, now) {
		return false, nil
	}
	ca, caKey, err := parsePair(items[caItem(spec.Name)], items[caKeyItem(spec.Name)])
	if err != nil || due(ca, now) {
		old := items[caItem(spec.Name)]
		if ca, caKey, err = newCA(spec.Name, now); err != nil {
			return false, err
		}
		keyPEM, err := keyToPEM(caKey)
		if err != nil {
			return false, err
		}
		bundle := certToPEM(ca.Raw)
		if first := firstCertificate(old); first != nil && now.Before(first.NotAfter) {
			bundle += certToPEM(first.Raw) // still trusted until every task has the new one
		}
		items[caItem(spec.Name)], items[caKeyItem(spec.Name)] = bundle, keyPEM
	}
	cert, key, err := newLeaf(spec, ca, caKey, now)
	if err != nil {
		return false, err
	}
	items[certItem(spec.Name)], items[keyItem(spec.Name)] = cert, key
	return true, nil
}

// leafDue says that the leaf is missing, unreadable, for other names or in
// the last third of its life.
func leafDue(spec *stack.Secret, items map[string]string, now time.Time) bool {
	leaf := firstCertificate(items[certItem(spec.Name)])
	if leaf == nil || items[keyItem(spec.Name)] == "" || items[caItem(spec.Name)] == "" || due(leaf, now) {
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

func due(c *x509.Certificate, now time.Time) bool {
	return c.NotAfter.Sub(now) < c.NotAfter.Sub(c.NotBefore)/3
}

func newCA(name string, now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making a CA key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: name + " CA"},
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(caLifetime),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("signing the CA of %s: %w", name, err)
	}
	ca, err := x509.ParseCertificate(der)
	return ca, key, err
}

func newLeaf(spec *stack.Secret, ca *x509.Certificate, caKey *ecdsa.PrivateKey, now time.Time) (certPEM, keyPEM string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", fmt.Errorf("making a key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: spec.Name},
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(leafLifetime),
		DNSNames:    spec.DNSNames,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, ip := range spec.IPAddresses {
		parsed := net.ParseIP(ip)
		if parsed == nil {
			return "", "", fmt.Errorf("certificate %s: %q is not an IP address", spec.Name, ip)
		}
		template.IPAddresses = append(template.IPAddresses, parsed)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, key.Public(), caKey)
	if err != nil {
		return "", "", fmt.Errorf("signing certificate %s: %w", spec.Name, err)
	}
	keyPEM, err = keyToPEM(key)
	return certToPEM(der), keyPEM, err
}

func serial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[0] &= 0x7f // positive
	return new(big.Int).SetBytes(b[:])
}

func certToPEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func keyToPEM(key *ecdsa.PrivateKey) (string, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", fmt.Errorf("encoding a key: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
}

// firstCertificate is nil when text does not begin with a certificate.
func firstCertificate(text string) *x509.Certificate {
	block, _ := pem.Decode([]byte(strings.TrimSpace(text)))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return c
}

func parsePair(certPEM, keyPEM string) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	cert := firstCertificate(certPEM)
	block, _ := pem.Decode([]byte(keyPEM))
	if cert == nil || block == nil {
		return nil, nil, errors.New("no certificate and key")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, nil, errors.New("not an ECDSA key")
	}
	public, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || !public.Equal(key.Public()) || !bytes.Equal(cert.RawSubject, cert.RawIssuer) {
		return nil, nil, errors.New("key and CA do not belong together")
	}
	return cert, key, nil
}
