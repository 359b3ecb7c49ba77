// Package pki makes and reads certificates and keys: a small CA for services
// inside a stack, self-signed placeholders, and the PEM around them.
package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"
)

// CALifetime is how long a CA of NewCA is valid.
const CALifetime = 10 * 365 * 24 * time.Hour

// clockSkew is how far a node's clock may be behind ours.
const clockSkew = 5 * time.Minute

// Key types.
const (
	P256    = "p256"
	P384    = "p384"
	RSA2048 = "rsa2048"
	RSA4096 = "rsa4096"
)

// KeyTypes are those that NewKey makes, the default first.
func KeyTypes() []string { return []string{P256, P384, RSA2048, RSA4096} }

// NewKey makes a private key; "" is P256.
func NewKey(kind string) (crypto.Signer, error) {
	switch kind {
	case "", P256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case P384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case RSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	}
	return nil, fmt.Errorf("unknown type of key %q; there are %s", kind, strings.Join(KeyTypes(), ", "))
}

// NewCA makes a self-signed CA that signs leaves only.
func NewCA(name string, now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	return newAuthority(name+" CA", CALifetime, 0, nil, nil, now)
}

// NewRoot makes a self-signed CA that signs intermediates.
func NewRoot(name string, lifetime time.Duration, now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	return newAuthority(name, lifetime, 1, nil, nil, now)
}

// NewIntermediate makes a CA that signs leaves, signed by a CA of NewRoot. It does not
// outlive the root.
func NewIntermediate(name string, lifetime time.Duration, root *x509.Certificate, rootKey crypto.Signer, now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	return newAuthority(name, min(lifetime, root.NotAfter.Sub(now)), 0, root, rootKey, now)
}

// newAuthority makes a CA that up to pathLen CAs may stand below; without a parent it
// signs itself.
func newAuthority(name string, lifetime time.Duration, pathLen int, parent *x509.Certificate, parentKey crypto.Signer, now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making a CA key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(lifetime),
		IsCA: true, BasicConstraintsValid: true, MaxPathLen: pathLen, MaxPathLenZero: pathLen == 0,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return nil, nil, fmt.Errorf("signing the CA %s: %w", name, err)
	}
	ca, err := x509.ParseCertificate(der)
	return ca, key, err
}

// Leaf is what a certificate of our own is for.
type Leaf struct {
	CommonName   string
	DNSNames     []string
	IPAddresses  []string
	Organization string
	Lifetime     time.Duration
	ClientAuth   bool   // also for the client's side of mutual TLS
	CRL          string // URL of the list of revoked certificates; "" for none
}

// Sign makes a key and a certificate for it. Without a CA it signs itself.
func Sign(l Leaf, ca *x509.Certificate, caKey crypto.Signer, now time.Time) (certPEM, keyPEM string, err error) {
	key, err := NewKey(P256)
	if err != nil {
		return "", "", fmt.Errorf("making a key: %w", err)
	}
	signer := caKey
	if ca == nil {
		signer = key
	}
	if certPEM, err = Issue(l, key.Public(), ca, signer, now); err != nil {
		return "", "", err
	}
	keyPEM, err = EncodeKey(key)
	return certPEM, keyPEM, err
}

// Issue makes a certificate for a public key, signed with caKey. It does not outlive
// the CA. Without a CA it is self-signed.
func Issue(l Leaf, public crypto.PublicKey, ca *x509.Certificate, caKey crypto.Signer, now time.Time) (string, error) {
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: l.CommonName},
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(l.Lifetime),
		DNSNames:              l.DNSNames,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: ca == nil,
	}
	if ca != nil && template.NotAfter.After(ca.NotAfter) {
		template.NotAfter = ca.NotAfter
	}
	if _, is := public.(*rsa.PublicKey); is {
		template.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	if l.CRL != "" {
		template.CRLDistributionPoints = []string{l.CRL}
	}
	if l.Organization != "" {
		template.Subject.Organization = []string{l.Organization}
	}
	if l.ClientAuth {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	for _, ip := range l.IPAddresses {
		parsed := net.ParseIP(ip)
		if parsed == nil {
			return "", fmt.Errorf("certificate %s: %q is not an IP address", l.CommonName, ip)
		}
		template.IPAddresses = append(template.IPAddresses, parsed)
	}
	if ca == nil {
		ca = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, public, caKey)
	if err != nil {
		return "", fmt.Errorf("signing certificate %s: %w", l.CommonName, err)
	}
	return EncodeCertificate(der), nil
}

func serial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[0] &= 0x7f // positive
	return new(big.Int).SetBytes(b[:])
}

// EncodeCertificate is der as a PEM block.
func EncodeCertificate(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// EncodeKey is key as PKCS #8 in a PEM block.
func EncodeKey(key crypto.PrivateKey) (string, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", fmt.Errorf("encoding a key: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
}

// ParseKey reads the first private key in text.
func ParseKey(text string) (crypto.Signer, error) {
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("there is no private key in PEM")
		}
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		default:
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading a private key: %w", err)
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return nil, errors.New("the private key cannot sign")
		}
		return signer, nil
	}
}

// ParseChain reads all certificates in text, skipping other blocks.
func ParseChain(text string) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("reading certificate %d: %w", len(chain)+1, err)
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		return nil, errors.New("there is no certificate in PEM")
	}
	return chain, nil
}

// First is the certificate that text begins with, nil when it does not.
func First(text string) *x509.Certificate {
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

// Fits reports whether the key belongs to the certificate.
func Fits(cert *x509.Certificate, key crypto.Signer) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(cert.PublicKey)
}

// ParseCA reads a CA of NewCA and its key.
func ParseCA(certPEM, keyPEM string) (*x509.Certificate, crypto.Signer, error) {
	cert := First(certPEM)
	if cert == nil {
		return nil, nil, errors.New("there is no CA certificate")
	}
	key, err := ParseKey(keyPEM)
	if err != nil {
		return nil, nil, err
	}
	if !Fits(cert, key) || !bytes.Equal(cert.RawSubject, cert.RawIssuer) {
		return nil, nil, errors.New("key and CA do not belong together")
	}
	return cert, key, nil
}

// Due reports whether less than a third of the certificate's lifetime is left.
func Due(c *x509.Certificate, now time.Time) bool {
	return c.NotAfter.Sub(now) < c.NotAfter.Sub(c.NotBefore)/3
}
