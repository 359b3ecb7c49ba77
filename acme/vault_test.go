package acme_test

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/acme/acmetest"
	"github.com/drover-nomad/drover/acme/pki"
	"github.com/drover-nomad/drover/secrets"
)

// fakeVault answers like Vault and OpenBao: the PKI secrets engine at pki, with a root
// that has signed an intermediate, the role web, which allows example.com and what is
// below it, and AppRole, JWT and tokens.
type fakeVault struct {
	*httptest.Server
	root, ca *x509.Certificate
	sign     func(l pki.Leaf, csr *x509.CertificateRequest) (string, error)

	mu      sync.Mutex
	tokens  map[string]bool
	revoked []string
	sealed  bool
	noRoot  bool // the engine knows only its intermediate
	seen    []string
	ttl     any
}

func newFakeVault(t *testing.T) *fakeVault {
	t.Helper()
	root, rootKey, err := pki.NewRoot("vault root", 1000*time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ca, caKey, err := pki.NewIntermediate("vault intermediate", 500*time.Hour, root, rootKey, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	v := &fakeVault{root: root, ca: ca, tokens: map[string]bool{"hvs.given": true}}
	v.sign = func(l pki.Leaf, csr *x509.CertificateRequest) (string, error) {
		return pki.Issue(l, csr.PublicKey, ca, caKey, time.Now())
	}
	v.Server = httptest.NewTLSServer(v)
	t.Cleanup(v.Close)
	return v
}

func (v *fakeVault) pem() string { return pki.EncodeCertificate(v.Certificate().Raw) }

func (v *fakeVault) set(f func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f()
}

func (v *fakeVault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	answer := func(status int, body any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body)
	}
	refuse := func(status int, texts ...string) { answer(status, map[string]any{"errors": texts}) }
	var body map[string]any
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		refuse(http.StatusBadRequest, "error parsing JSON")
		return
	}
	v.seen = append(v.seen, r.Method+" "+r.URL.Path+" "+r.Header.Get("X-Vault-Namespace"))
	token := r.Header.Get("X-Vault-Token")
	login := func() {
		token := "hvs." + rand.Text()
		v.tokens[token] = true
		answer(http.StatusOK, map[string]any{"auth": map[string]any{"client_token": token, "lease_duration": 1200}})
	}
	switch {
	case v.sealed:
		refuse(http.StatusServiceUnavailable, "Vault is sealed")
	case r.URL.Path == "/v1/auth/approle/login" && body["role_id"] == "the-role" && body["secret_id"] == "the-secret":
		login()
	case r.URL.Path == "/v1/auth/approle/login":
		refuse(http.StatusBadRequest, "invalid role or secret ID")
	case r.URL.Path == "/v1/auth/nomad/login" && body["role"] == "drover" && body["jwt"] == "header.claims.signature":
		login()
	case strings.HasSuffix(r.URL.Path, "/login"), !v.tokens[token]:
		refuse(http.StatusForbidden, "permission denied")
	case r.URL.Path == "/v1/auth/token/revoke-self":
		delete(v.tokens, token)
		w.WriteHeader(http.StatusNoContent)
	case r.URL.Path == "/v1/pki/sign/web":
		block, _ := pem.Decode([]byte(fmt.Sprint(body["csr"])))
		csr, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil || csr.CheckSignature() != nil {
			refuse(http.StatusBadRequest, "certificate request could not be parsed")
			return
		}
		for _, n := range append([]string{csr.Subject.CommonName}, csr.DNSNames...) { // of the request: use_csr_sans
			if n != "example.com" && !strings.HasSuffix(n, ".example.com") {
				refuse(http.StatusBadRequest, fmt.Sprintf("subject alternate name %s not allowed by this role", n))
				return
			}
		}
		v.ttl = body["ttl"]
		l := pki.Leaf{CommonName: csr.Subject.CommonName, DNSNames: csr.DNSNames, Lifetime: 72 * time.Hour}
		for _, ip := range csr.IPAddresses {
			l.IPAddresses = append(l.IPAddresses, ip.String())
		}
		leaf, err := v.sign(l, csr)
		if err != nil {
			refuse(http.StatusInternalServerError, err.Error())
			return
		}
		chain := []string{pki.EncodeCertificate(v.ca.Raw), pki.EncodeCertificate(v.root.Raw)}
		if v.noRoot {
			chain = chain[:1]
		}
		answer(http.StatusOK, map[string]any{"data": map[string]any{"certificate": strings.TrimSpace(leaf), "issuing_ca": chain[0], "ca_chain": chain}})
	case r.URL.Path == "/v1/pki/revoke":
		v.revoked = append(v.revoked, fmt.Sprint(body["serial_number"]))
		answer(http.StatusOK, map[string]any{"data": map[string]any{"revocation_time": 1}})
	default:
		refuse(http.StatusNotFound, "no handler for route")
	}
}

func TestVault_Issues(t *testing.T) {
	t.Parallel()
	v := newFakeVault(t)
	for name, c := range map[string]struct {
		auth  acme.Vault
		login acme.VaultLogin
	}{
		"token":   {auth: acme.Vault{Auth: acme.VaultToken, Secret: secrets.NewValue("hvs.given")}},
		"approle": {auth: acme.Vault{Auth: acme.VaultAppRole, AuthRole: "the-role", Secret: secrets.NewValue("the-secret")}},
		"jwt": {acme.Vault{Auth: acme.VaultJWT, AuthRole: "drover", AuthMount: "nomad"}, acme.VaultLogin{Address: v.URL + "/", JWT: func() (string, error) {
			return "header.claims.signature\n", nil
		}}},
		"process": {acme.Vault{Auth: acme.VaultProcess}, acme.VaultLogin{Address: v.URL, Token: secrets.NewValue("hvs.given")}},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{clock: &clock{}, store: acme.NewStore(acme.Directory(t.TempDir())), ca: &acmetest.CA{}}
			i := acme.Issuer{Name: "vault", CA: v.pem(), Vault: &c.auth}
			i.Vault.Address, i.Vault.Role, i.Vault.Namespace, i.Vault.Lifetime = v.URL, "web", "team", 72*time.Hour
			m := w.manager(t, func(config *acme.Config) { config.Issuers, config.Vault = []acme.Issuer{i}, c.login })
			if _, err := m.Apply(t.Context(), acme.Spec{Name: "a", Names: []string{"a.example.com", "b.example.com"}, Issuers: []string{"vault"}}); err != nil {
				t.Fatal(err)
			}
			r, err := m.Reconcile(t.Context(), "a")
			if err != nil || !r.Issued {
				t.Fatalf("issued %v, %v\n%s", r.Issued, err, w.said())
			}
			trust, err := w.store.Trust(t.Context(), "vault")
			if err != nil || trust.CA != pki.EncodeCertificate(v.root.Raw) {
				t.Errorf("the trust bundle is not the root: %v", err)
			}
			if err := verifies(t, trust.CA, r.Object.Chain, "b.example.com", time.Now()); err != nil {
				t.Error(err)
			}
			if certs, _ := pki.ParseChain(r.Object.Chain); len(certs) != 2 {
				t.Errorf("got a chain of %d, want leaf and intermediate", len(certs))
			}
			// The controller has the secret from the store.
			later := w.manager(t, func(config *acme.Config) { config.Issuers, config.Vault = nil, c.login })
			if _, err := later.Force(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
			if r, err = later.Reconcile(t.Context(), "a"); err != nil || !r.Issued {
				t.Fatalf("renewed %v, %v", r.Issued, err)
			}
			if _, err := later.Revoke(t.Context(), "a", 1); err != nil {
				t.Fatal(err)
			}
			want := strings.ReplaceAll(fmt.Sprintf("% x", pki.First(r.Object.Chain).SerialNumber.Bytes()), " ", ":")
			v.set(func() {
				if !slices.Contains(v.revoked, want) {
					t.Errorf("revoked %q, want %s", v.revoked, want)
				}
				if len(v.tokens) != 1 {
					t.Errorf("%d tokens are left, want only the given one", len(v.tokens))
				}
				if v.ttl != "259200s" || !slices.Contains(v.seen, "POST /v1/pki/sign/web team") {
					t.Errorf("asked for a lifetime of %v; %q", v.ttl, v.seen)
				}
			})
			for _, secret := range []string{"the-secret", "hvs.", "header.claims"} {
				if text := fmt.Sprintf("%s %+v %#v", w.said(), i, i.Vault); strings.Contains(text, secret) {
					t.Errorf("%q is shown: %s", secret, text)
				}
			}
		})
	}
}

// TestVault_Faults: what Vault refuses is in the error, and decides whether another
// issuer is asked.
func TestVault_Faults(t *testing.T) {
	t.Parallel()
	v := newFakeVault(t)
	approle := func(change func(*acme.Vault)) acme.Issuer {
		i := acme.Issuer{Name: "vault", CA: v.pem(), Vault: &acme.Vault{Address: v.URL, Role: "web", Auth: acme.VaultAppRole, AuthRole: "the-role", Secret: secrets.NewValue("the-secret")}}
		change(i.Vault)
		return i
	}
	attempt := func(i acme.Issuer, login acme.VaultLogin, names ...string) (acme.Result, error) {
		t.Helper()
		w := &world{clock: &clock{}, store: acme.NewStore(acme.Directory(t.TempDir())), ca: &acmetest.CA{}}
		m := w.manager(t, func(c *acme.Config) { c.Issuers, c.Vault = []acme.Issuer{i}, login })
		if _, err := m.Apply(t.Context(), acme.Spec{Name: "a", Names: names, Issuers: []string{"vault"}}); err != nil {
			return acme.Result{}, err
		}
		return m.Reconcile(t.Context(), "a")
	}
	fails := func(what string, kind acme.Kind, text string, i acme.Issuer, login acme.VaultLogin, names ...string) {
		t.Helper()
		_, err := attempt(i, login, names...)
		var ie *acme.IssuerError
		if !errors.As(err, &ie) || ie.Kind != kind || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "the-secret") {
			t.Errorf("%s: got %v, want kind %s and %q", what, err, kind, text)
		}
	}
	none := acme.VaultLogin{}
	fails("a name that the role forbids", acme.KindRejected, "subject alternate name a.example.org not allowed by this role", approle(func(*acme.Vault) {}), none, "a.example.org")
	fails("a wrong secret", acme.KindRejected, "invalid role or secret ID", approle(func(v *acme.Vault) { v.AuthRole = "other" }), none, "a.example.com")
	fails("no such role", acme.KindRejected, "no handler for route", approle(func(v *acme.Vault) { v.Role = "other" }), none, "a.example.com")
	fails("a token that has ended", acme.KindAccount, "permission denied", approle(func(v *acme.Vault) { v.Auth, v.Secret = acme.VaultToken, secrets.NewValue("hvs.ended") }), none, "a.example.com")
	fails("plain http", acme.KindConfig, "is not https", approle(func(v *acme.Vault) { v.Address = "http://192.0.2.1:8200" }), none, "a.example.com")
	// A stack cannot have the credentials of the process sent to a server of its own.
	process := acme.VaultLogin{Address: "https://vault.example.org", Token: secrets.NewValue("hvs.process"), JWT: func() (string, error) { return "header.claims.signature", nil }}
	for _, auth := range []string{acme.VaultProcess, acme.VaultJWT} {
		before := len(v.seen)
		fails(auth+" for another Vault", acme.KindConfig, "are not sent to "+v.URL, approle(func(v *acme.Vault) { v.Auth = auth }), process, "a.example.com")
		if len(v.seen) != before {
			t.Errorf("%s: %q was sent", auth, v.seen[before:])
		}
	}
	v.set(func() { v.sealed = true })
	fails("sealed", acme.KindServer, "503 Service Unavailable: Vault is sealed", approle(func(*acme.Vault) {}), none, "a.example.com")
	v.set(func() { v.sealed, v.noRoot = false, true })
	r, err := attempt(approle(func(*acme.Vault) {}), none, "a.example.com")
	if err != nil {
		t.Fatal(err)
	}
	if certs, _ := pki.ParseChain(r.Object.Chain); len(certs) != 2 {
		t.Errorf("without a root: got a chain of %d", len(certs))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	fails("no answer", acme.KindUnreachable, "connection refused", approle(func(v *acme.Vault) { v.Address = "http://" + l.Addr().String() }), none, "a.example.com")
}

// TestVault_StoredSecret: a stored secret is used only for the Vault that it was given
// for, so that another stack cannot have it sent elsewhere.
func TestVault_StoredSecret(t *testing.T) {
	t.Parallel()
	v := newFakeVault(t)
	w := &world{clock: &clock{}, store: acme.NewStore(acme.Directory(t.TempDir())), ca: &acmetest.CA{}}
	apply := func(address, secret string) error {
		i := acme.Issuer{Name: "vault", CA: v.pem(), Vault: &acme.Vault{Address: address, Role: "web", Auth: acme.VaultAppRole, AuthRole: "the-role", Secret: secrets.NewValue(secret)}}
		m := w.manager(t, func(c *acme.Config) { c.Issuers = []acme.Issuer{i} })
		_, err := m.Apply(t.Context(), acme.Spec{Name: "a", Names: []string{"a.example.com"}, Issuers: []string{"vault"}})
		return err
	}
	if err := apply(v.URL, ""); err == nil || !strings.Contains(err.Error(), "neither given nor stored") {
		t.Errorf("without a secret: %v", err)
	}
	if err := apply(v.URL, "the-secret"); err != nil {
		t.Fatal(err)
	}
	if err := apply(v.URL, ""); err != nil { // a saved plan
		t.Error(err)
	}
	if err := apply("https://attacker.example", ""); err == nil || !strings.Contains(err.Error(), "neither given nor stored") {
		t.Errorf("for another address: %v", err)
	}
}

// TestSigner_Fallback: issuers that sign and ACME CAs stand in for each other.
func TestSigner_Fallback(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	own := acme.Issuer{Name: "own", OwnCA: &acme.OwnCA{}}
	gone := acme.Issuer{Name: "gone", Vault: &acme.Vault{Address: "http://127.0.0.1:1", Role: "web", Auth: acme.VaultToken, Secret: secrets.NewValue("t")}}
	unproven := acme.Spec{Name: "unproven", Names: []string{"nowhere.invalid"}, Issuers: []string{"pebble", "own"}}
	for want, spec := range map[string]acme.Spec{
		"pebble": {Name: "a", Names: []string{"a.example.com"}, Issuers: []string{"gone", "pebble", "own"}},
		"own":    {Name: "b", Names: []string{"*.b.example.com"}, Issuers: []string{"pebble", "own"}}, // nothing solves dns-01
	} {
		m := w.manager(t, func(c *acme.Config) { c.Issuers = append(c.Issuers, own, gone) })
		if o := w.issue(t, m, spec); o.Status.Issuer != want {
			t.Errorf("got %s, want %s", o.Status.Issuer, want)
		}
	}
	m := w.manager(t, func(c *acme.Config) {
		c.Issuers = append(c.Issuers, own)
		c.Solvers[acme.HTTP01] = acme.Stateless{Port: 1, Resolver: w.ca.Resolver()}
	})
	if o := w.issue(t, m, unproven); o.Status.Issuer != "own" {
		t.Errorf("got %s, want own", o.Status.Issuer)
	}
}
