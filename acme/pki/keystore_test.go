package pki_test

import (
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/acme/pki"
)

// TestKeyStores: openssl and Java's keytool, where they are installed, read what is
// written, with the password alone.
func TestKeyStores(t *testing.T) {
	t.Parallel()
	now := time.Now()
	ca, caKey, err := pki.NewCA("test", now)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{pki.P256, pki.RSA2048} {
		key, err := pki.NewKey(kind)
		if err != nil {
			t.Fatal(err)
		}
		text, err := pki.Issue(pki.Leaf{CommonName: "a.example.com", DNSNames: []string{"a.example.com"}, Lifetime: time.Hour}, key.Public(), ca, caKey, now)
		if err != nil {
			t.Fatal(err)
		}
		chain := []*x509.Certificate{pki.First(text), ca}
		p12, err := pki.PKCS12(key, chain, "right-password")
		if err != nil {
			t.Fatal(err)
		}
		jks, err := pki.JKS(key, chain, "public", "right-password", now)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		for name, content := range map[string][]byte{"k.p12": p12, "k.jks": jks} {
			if strings.Contains(string(content), "PRIVATE KEY") {
				t.Errorf("%s has the key in clear", name)
			}
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		run := func(name string, args ...string) (string, bool, error) {
			path, err := exec.LookPath(name)
			if err != nil {
				t.Logf("%s is not installed", name)
				return "", false, nil
			}
			cmd := exec.CommandContext(t.Context(), path, args...)
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			return string(out), true, err
		}
		for password, right := range map[string]bool{"right-password": true, "wrong-password": false} {
			out, ran, err := run("openssl", "pkcs12", "-in", "k.p12", "-passin", "pass:"+password, "-nodes")
			if ran && ((err == nil) != right || right && (strings.Count(out, "BEGIN CERTIFICATE") != 2 || strings.Count(out, "BEGIN PRIVATE KEY") != 1)) {
				t.Errorf("%s: openssl with %s: %v\n%s", kind, password, err, out)
			}
			for _, file := range []string{"k.p12", "k.jks"} {
				out, ran, err = run("keytool", "-list", "-v", "-keystore", file, "-storepass", password)
				if ran && ((err == nil) != right || right && (!strings.Contains(out, "PrivateKeyEntry") || !strings.Contains(out, "Certificate chain length: 2"))) {
					t.Errorf("%s: keytool of %s with %s: %v\n%s", kind, file, password, err, out)
				}
			}
		}
	}
}
