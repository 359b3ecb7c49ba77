package pki

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"time"

	"github.com/pavlo-v-chernykh/keystore-go/v4"
	"software.sslmate.com/src/go-pkcs12"
)

// PKCS12 returns key and chain, leaf first, as a PKCS #12 file (RFC 7292) with AES-256
// and PBES2.
func PKCS12(key crypto.Signer, chain []*x509.Certificate, password string) ([]byte, error) {
	if len(chain) == 0 {
		return nil, errors.New("there is no certificate")
	}
	return pkcs12.Modern2023.Encode(key, chain[0], chain[1:], password)
}

// JKS returns key and chain, leaf first, as a Java key store of the type JKS. Its entry
// has this alias; store and entry have the same password of at least six characters.
func JKS(key crypto.Signer, chain []*x509.Certificate, alias, password string, now time.Time) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	entry := keystore.PrivateKeyEntry{CreationTime: now, PrivateKey: der}
	for _, c := range chain {
		entry.CertificateChain = append(entry.CertificateChain, keystore.Certificate{Type: "X509", Content: c.Raw})
	}
	store := keystore.New()
	if err := store.SetPrivateKeyEntry(alias, entry, []byte(password)); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = store.Store(&b, []byte(password))
	return b.Bytes(), err
}
