package acme

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/drover-nomad/drover/acme/pki"
	"github.com/drover-nomad/drover/secrets"
)

// Vault are the settings of a PKI secrets engine of Vault or OpenBao. drover uses its
// HTTP API (/v1/MOUNT/sign/ROLE and /v1/MOUNT/revoke).
type Vault struct {
	Address   string        `json:"address"`
	Namespace string        `json:"namespace,omitempty"` // of Vault
	Mount     string        `json:"mount,omitempty"`     // of the secrets engine; pki when empty
	Role      string        `json:"role"`                // of the secrets engine
	Lifetime  time.Duration `json:"lifetime,omitempty"`  // of certificates; the role's when 0

	Auth      string `json:"auth"`                 // one of the constants Vault…
	AuthMount string `json:"auth_mount,omitempty"` // of the auth method; its name when empty
	AuthRole  string `json:"auth_role,omitempty"`  // ID of an AppRole, or role of JWT
	// Secret is the secret ID of an AppRole, or a token. It is empty for the one that
	// the store has, with VaultJWT, and for a token of the process (VaultLogin).
	Secret secrets.Value `json:"-"`
}

// Auth methods of Vault.
const (
	VaultToken   = "token"   // Secret
	VaultAppRole = "approle" // AuthRole and Secret
	VaultJWT     = "jwt"     // AuthRole and VaultLogin.JWT
	VaultProcess = "process" // VaultLogin.Token
)

// VaultLogin are the credentials of this process for one Vault. A stack names the
// address of a Vault, so they are sent to no other.
type VaultLogin struct {
	Address string // of the Vault that they are for
	Token   secrets.Value
	// JWT returns that of the workload; it may be nil.
	JWT func() (string, error)
}

func (v Vault) needsSecret() bool { return v.Auth == VaultToken || v.Auth == VaultAppRole }

func (v Vault) mount() string { return strings.Trim(cmp.Or(v.Mount, "pki"), "/") }

// place is the address of the secrets engine.
func (v Vault) place() string {
	return strings.TrimSuffix(v.Address, "/") + "/v1/" + v.mount()
}

func (v Vault) validate() error {
	u, err := url.Parse(v.Address)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("%q is no https URL of Vault", v.Address)
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return fmt.Errorf("%q is not https: the secret and the certificates would be readable on the network", v.Address)
	case v.Role == "":
		return errors.New("the role of its PKI secrets engine is missing")
	case !slices.Contains([]string{VaultToken, VaultAppRole, VaultJWT, VaultProcess}, v.Auth):
		return fmt.Errorf("unknown auth method %q", v.Auth)
	case v.AuthRole == "" && (v.Auth == VaultAppRole || v.Auth == VaultJWT):
		return fmt.Errorf("auth method %s needs a role", v.Auth)
	case v.Lifetime < 0:
		return errors.New("lifetime is negative")
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// withSecretOf returns i with the secret for Vault that the store has. A secret is only
// for the Vault that it was given for.
func (i Issuer) withSecretOf(known Issuer) (Issuer, error) {
	if known.Vault == nil || known.lacksKey() || known.Vault.place() != i.Vault.place() || known.CA != i.CA || known.Vault.Auth != i.Vault.Auth || known.Vault.AuthRole != i.Vault.AuthRole {
		return i, i.invalid(fmt.Errorf("the secret for %s is neither given nor stored: give it once with the stack's files (a saved plan does not hold it)", i.Vault.Address))
	}
	v := *i.Vault
	v.Secret = known.Vault.Secret
	i.Vault = &v
	return i, nil
}

// vaultSigner signs with Vault.
type vaultSigner struct {
	m      *Manager
	i      Issuer
	client *http.Client
}

func (m *Manager) vault(i Issuer) (signer, error) {
	tr, ok := m.c.Transport, m.c.Transport != nil
	if !ok {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.DisableKeepAlives = true // a few requests a month
		if i.CA != "" {
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM([]byte(i.CA))
			t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
		}
		tr = t
	}
	return vaultSigner{m, i, &http.Client{Transport: tr, Timeout: m.c.RequestTimeout, CheckRedirect: sameHost}}, nil
}

// sameHost keeps the token from other servers. A standby of Vault redirects; its
// address must then be that of the issuer.
func sameHost(req *http.Request, via []*http.Request) error {
	if len(via) > 3 || req.URL.Host != via[0].URL.Host || req.URL.Scheme != via[0].URL.Scheme {
		return fmt.Errorf("redirected to %s, which does not get the token", req.URL.Host)
	}
	return nil
}

// vaultAnswer is the part of an answer that is used.
type vaultAnswer struct {
	Auth struct {
		ClientToken string `json:"client_token"`
	} `json:"auth"`
	Data struct {
		Certificate string   `json:"certificate"`
		IssuingCA   string   `json:"issuing_ca"`
		CAChain     []string `json:"ca_chain"`
	} `json:"data"`
	Errors []string `json:"errors"`
}

// call makes one request. Only its step and the errors of Vault are in the error.
func (s vaultSigner) call(ctx context.Context, step, path, token string, body any) (*vaultAnswer, error) {
	fail := func(kind Kind, err error) error {
		return &IssuerError{Issuer: s.i.Name, Step: step, Kind: kind, Err: err}
	}
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(s.i.Vault.Address, "/")+"/v1/"+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Vault-Request", "true")
	if token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	if ns := s.i.Vault.Namespace; ns != "" {
		req.Header.Set("X-Vault-Namespace", ns)
	}
	start := time.Now()
	resp, err := s.client.Do(req)
	if s.m.c.Requests != nil {
		r := Request{Issuer: s.i.Name, Method: req.Method, URL: req.URL.String(), Duration: time.Since(start)}
		if resp != nil {
			r.Status = resp.StatusCode
		}
		s.m.c.Requests(r)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fail(KindUnreachable, err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer := &vaultAnswer{}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, fail(KindUnreachable, err)
	}
	if len(raw) > 0 && json.Unmarshal(raw, answer) != nil {
		return nil, fail(KindServer, fmt.Errorf("POST /v1/%s answers %s with %s, which is not Vault's", path, resp.Status, describe(resp, raw)))
	}
	if resp.StatusCode < 300 {
		return answer, nil
	}
	kind := KindRejected
	switch {
	case resp.StatusCode == http.StatusTooManyRequests:
		kind = KindRateLimited
	case resp.StatusCode >= 500: // 503 is sealed
		kind = KindServer
	case resp.StatusCode == http.StatusForbidden:
		kind = KindAccount
	}
	why := strings.Join(answer.Errors, "; ")
	if resp.StatusCode == http.StatusServiceUnavailable && why == "" {
		why = "it is sealed or a standby"
	}
	return nil, fail(kind, fmt.Errorf("POST /v1/%s answers %s: %s", path, resp.Status, cmp.Or(why, "no reason given")))
}

// login returns a token, and whether it was made for this use.
func (s vaultSigner) login(ctx context.Context) (token string, made bool, err error) {
	v, own := s.i.Vault, s.m.c.Vault
	own.Address = strings.TrimSuffix(own.Address, "/")
	path := "auth/" + strings.Trim(cmp.Or(v.AuthMount, v.Auth), "/") + "/login"
	body := map[string]string{}
	switch v.Auth {
	case VaultToken:
		return v.Secret.Reveal(), false, nil
	case VaultAppRole:
		body["role_id"], body["secret_id"] = v.AuthRole, v.Secret.Reveal()
	case VaultProcess, VaultJWT:
		if own.Address != strings.TrimSuffix(v.Address, "/") {
			return "", false, s.i.invalid(fmt.Errorf("the credentials of this process are for the Vault at %q ($VAULT_ADDR), and are not sent to %s", own.Address, v.Address))
		}
		if v.Auth == VaultProcess {
			if own.Token.Reveal() == "" {
				return "", false, s.i.invalid(errors.New("this process has no token for Vault ($VAULT_TOKEN)"))
			}
			return own.Token.Reveal(), false, nil
		}
		if own.JWT == nil {
			return "", false, s.i.invalid(errors.New("this process has no JWT for Vault ($DROVER_VAULT_JWT_FILE)"))
		}
		jwt, err := own.JWT()
		if err != nil {
			return "", false, s.i.invalid(fmt.Errorf("cannot read the JWT: %w", err))
		}
		body["role"], body["jwt"] = v.AuthRole, strings.TrimSpace(jwt)
	}
	answer, err := s.call(ctx, "logging in", path, "", body)
	if err != nil {
		return "", false, err
	}
	if answer.Auth.ClientToken == "" {
		return "", false, &IssuerError{Issuer: s.i.Name, Step: "logging in", Kind: KindServer, Err: errors.New("it returned no token")}
	}
	return answer.Auth.ClientToken, true, nil
}

// with calls f with a token, which is revoked afterwards if it was made for that.
func (s vaultSigner) with(ctx context.Context, f func(token string) error) error {
	token, made, err := s.login(ctx)
	if err != nil {
		return err
	}
	err = f(token)
	if made {
		done, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.m.c.RequestTimeout)
		defer cancel()
		_, _ = s.call(done, "logging out", "auth/token/revoke-self", token, struct{}{}) // else it expires
	}
	return err
}

func (s vaultSigner) sign(ctx context.Context, spec Spec, key crypto.Signer) (string, error) {
	csr, err := signedRequest(spec.Names, key)
	if err != nil {
		return "", err
	}
	body := map[string]any{"csr": csr, "format": "pem"}
	if name := commonName(spec.Names); name != "" {
		body["common_name"] = name
	}
	var dnsNames, addresses []string
	for _, n := range spec.Names {
		if net.ParseIP(n) != nil {
			addresses = append(addresses, n)
		} else {
			dnsNames = append(dnsNames, n)
		}
	}
	body["alt_names"], body["ip_sans"] = strings.Join(dnsNames, ","), strings.Join(addresses, ",")
	if life := s.i.Vault.Lifetime; life > 0 {
		body["ttl"] = fmt.Sprintf("%ds", int(life.Seconds()))
	}
	var answer *vaultAnswer
	err = s.with(ctx, func(token string) error {
		answer, err = s.call(ctx, "signing", s.i.Vault.mount()+"/sign/"+url.PathEscape(s.i.Vault.Role), token, body)
		return err
	})
	if err != nil {
		return "", err
	}
	chain, root, err := vaultChain(answer)
	if err != nil {
		return "", &IssuerError{Issuer: s.i.Name, Step: "looking at what it issued", Kind: KindInvalid, Err: err}
	}
	return chain, s.m.publishTrust(ctx, s.i.Name, root, "")
}

// vaultChain returns what is served, without a root, and what clients trust: the root,
// or the last CA if Vault does not know the root.
func vaultChain(answer *vaultAnswer) (chain, trust string, err error) {
	leaf := pki.First(answer.Data.Certificate)
	if leaf == nil {
		return "", "", errors.New("it returned no certificate")
	}
	cas := answer.Data.CAChain
	if len(cas) == 0 {
		cas = []string{answer.Data.IssuingCA}
	}
	chain = pki.EncodeCertificate(leaf.Raw)
	last := leaf
	for _, text := range cas {
		ca := pki.First(text)
		if ca == nil || last.CheckSignatureFrom(ca) != nil {
			continue // of another issuer of the same secrets engine
		}
		trust = pki.EncodeCertificate(ca.Raw)
		if bytes.Equal(ca.RawSubject, ca.RawIssuer) {
			return chain, trust, nil
		}
		chain += trust
		last = ca
	}
	if trust == "" {
		return "", "", errors.New("it returned no CA that has signed the certificate")
	}
	return chain, trust, nil
}

func (s vaultSigner) revoke(ctx context.Context, leaf *x509.Certificate, _ int) error {
	serial := hex.EncodeToString(leaf.SerialNumber.Bytes())
	var parts []string
	for p := range slices.Chunk([]byte(serial), 2) {
		parts = append(parts, string(p))
	}
	return s.with(ctx, func(token string) error {
		_, err := s.call(ctx, "revoking", s.i.Vault.mount()+"/revoke", token, map[string]string{"serial_number": strings.Join(parts, ":")})
		return err
	})
}

// signedRequest is a certificate request in PEM, with a common name.
func signedRequest(names []string, key crypto.Signer) (string, error) {
	der, err := newCSR(names, commonName(names), key)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}
