package acme

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/drover-nomad/drover/secrets"
)

// Directories of Let's Encrypt.
const (
	LetsEncrypt        = "https://acme-v02.api.letsencrypt.org/directory"
	LetsEncryptStaging = "https://acme-staging-v02.api.letsencrypt.org/directory"
)

// Names of issuers that need no declaration.
const (
	IssuerLetsEncrypt = "letsencrypt"
	IssuerStaging     = "letsencrypt-staging"
)

// Issuer is a CA: one that speaks ACME, or OwnCA, or Vault.
type Issuer struct {
	Name      string `json:"name"`
	Directory string `json:"directory"`        // URL, of a CA that speaks ACME
	OwnCA     *OwnCA `json:"own_ca,omitempty"` // a CA whose keys are in the store
	Vault     *Vault `json:"vault,omitempty"`  // a PKI secrets engine of Vault or OpenBao
	// CA are the roots, in PEM, that verify the HTTPS certificate of the CA; the system's
	// when empty.
	CA    string `json:"ca,omitempty"`
	Email string `json:"email,omitempty"`
	EAB   *EAB   `json:"eab,omitempty"`
	// Profile is that of orders at this CA, instead of the profile of the certificate.
	Profile string `json:"profile,omitempty"`
	// AcceptTerms are URLs of the CA's terms of service that are accepted, or AnyTerms.
	// An account is registered only if they are.
	AcceptTerms []string `json:"accept_terms,omitempty"`
}

// EAB is an external account binding: an account that exists at the CA.
type EAB struct {
	KeyID string `json:"key_id"`
	// MACKey is base64url, as CAs give it; empty for the one that the store has.
	MACKey secrets.Value `json:"-"`
}

// lacksKey reports whether the key of the binding or the secret for Vault is unknown,
// as after a saved plan, which holds no secrets.
func (i Issuer) lacksKey() bool {
	return i.EAB != nil && i.EAB.MACKey.Reveal() == "" || i.Vault != nil && i.Vault.needsSecret() && i.Vault.Secret.Reveal() == ""
}

// Signs reports whether the CA signs without an ACME order.
func (i Issuer) Signs() bool { return i.OwnCA != nil || i.Vault != nil }

// place is where the CA is: the URL of its directory, or what stands for it.
func (i Issuer) place() string {
	switch {
	case i.OwnCA != nil:
		return "own-ca:" + i.Name
	case i.Vault != nil:
		return i.Vault.place()
	}
	return i.Directory
}

// withKeyOf returns i with the key of its binding, from the store if i lacks it.
func (i Issuer) withKeyOf(a *Account) (Issuer, error) {
	if !i.lacksKey() {
		return i, nil
	}
	known := a.Issuers[i.Name]
	if i.Vault != nil {
		return i.withSecretOf(known)
	}
	if known.EAB == nil || known.EAB.KeyID != i.EAB.KeyID || known.lacksKey() {
		return i, &IssuerError{Issuer: i.Name, Step: "reading its settings", Kind: KindConfig,
			Err: fmt.Errorf("the MAC key of its external account binding %s is neither given nor stored: give it once with the stack's files (a saved plan does not hold it)", i.EAB.KeyID)}
	}
	i.EAB = known.EAB
	return i, nil
}

// BuiltinIssuers are Let's Encrypt and its staging environment.
func BuiltinIssuers() []Issuer {
	return []Issuer{{Name: IssuerLetsEncrypt, Directory: LetsEncrypt}, {Name: IssuerStaging, Directory: LetsEncryptStaging}}
}

// Validate returns an error that names the mistake in an issuer.
func (i Issuer) Validate() error {
	if i.CA != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(i.CA)) {
		return i.invalid(errors.New("its CA file has no certificate in PEM"))
	}
	switch {
	case i.OwnCA != nil && !namePattern.MatchString(i.Name):
		return i.invalid(errors.New("an own CA has a name of letters, digits, dots, dashes and underscores"))
	case i.OwnCA != nil:
		return i.invalid(i.OwnCA.validate())
	case i.Vault != nil:
		return i.invalid(i.Vault.validate())
	}
	u, err := url.Parse(i.Directory)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return i.invalid(fmt.Errorf("%q is no https URL of an ACME directory", i.Directory))
	}
	for _, terms := range i.AcceptTerms {
		if err := CheckTerms(terms); err != nil {
			return i.invalid(fmt.Errorf("accept_terms: %w", err))
		}
	}
	return nil
}

// invalid returns an error about the settings of i, nil if err is.
func (i Issuer) invalid(err error) error {
	if err == nil {
		return nil
	}
	return &IssuerError{Issuer: i.Name, Step: "reading its settings", Kind: KindConfig, Err: err}
}

// Kind is the kind of failure of an IssuerError.
type Kind string

// Kinds.
const (
	KindConfig      Kind = "config"      // the settings cannot be used
	KindUnreachable Kind = "unreachable" // no answer
	KindServer      Kind = "server"      // 5xx, or an answer that is not ACME's
	KindRateLimited Kind = "rate-limited"
	KindAccount     Kind = "account" // the CA does not know or does not accept the account
	KindUnproven    Kind = "unproven"
	KindRejected    Kind = "rejected" // any other answer of the CA
	KindInvalid     Kind = "invalid"  // what the CA issued is not what was asked for
)

// IssuerError is a failure at or because of a CA.
type IssuerError struct {
	Issuer string
	Step   string
	Kind   Kind
	// RetryAfter is when the CA accepts the next request, zero if it named no time.
	RetryAfter time.Time
	Err        error
}

func (e *IssuerError) Error() string {
	s := "issuer " + e.Issuer + ": " + e.Step + ": " + e.Err.Error()
	if !e.RetryAfter.IsZero() {
		s += " (ask again after " + e.RetryAfter.UTC().Format(time.RFC3339) + ")"
	}
	return s
}

func (e *IssuerError) Unwrap() error { return e.Err }

// another reports whether a different CA may succeed.
func (e *IssuerError) another() bool {
	return e.Kind != KindUnproven && e.Kind != KindConfig || errors.Is(e.Err, errNoProfile)
}

// errNoProfile means that a CA does not have a profile. Another one may.
var errNoProfile = errors.New("unknown profile")

// profile returns the profile to order for a certificate, or an error if the CA does
// not list it in its directory.
func (c *ca) profile(ctx context.Context, spec Spec) (string, error) {
	want := cmp.Or(c.issuer.Profile, spec.Profile)
	if want == "" {
		return "", nil
	}
	meta, err := c.meta(ctx)
	if err != nil {
		return "", err
	}
	if _, ok := meta.Profiles[want]; ok {
		return want, nil
	}
	known := strings.Join(slices.Sorted(maps.Keys(meta.Profiles)), ", ")
	return "", &IssuerError{Issuer: c.issuer.Name, Step: "choosing a profile", Kind: KindConfig,
		Err: fmt.Errorf("%w %q: its directory lists %s; the profile of an issuer block is for this CA alone", errNoProfile, want, cmp.Or(known, "none"))}
}

// meta returns the metadata of the CA's directory, after ready.
func (c *ca) meta(ctx context.Context) (acme.DirectoryMeta, error) {
	dir, err := c.client.GetDirectory(ctx)
	if err != nil || dir.Meta == nil {
		return acme.DirectoryMeta{}, err
	}
	return *dir.Meta, nil
}

// Request is one HTTP request to a CA, for metrics.
type Request struct {
	Issuer   string
	Method   string
	URL      string
	Status   int // 0 without an answer
	Duration time.Duration
}

// ca talks to one CA.
type ca struct {
	issuer Issuer
	client *acme.Client
	tr     *transport

	registering chan struct{} // held while the account is registered
}

// pollInterval is the interval at which an order is read if the CA names none.
const pollInterval = 250 * time.Millisecond

func newCA(i Issuer, base http.RoundTripper, timeout, wait time.Duration, log *slog.Logger, observe func(Request)) (*ca, error) {
	if err := i.Validate(); err != nil {
		return nil, err
	}
	if base == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		if i.CA != "" {
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM([]byte(i.CA))
			t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
		}
		base = t
	}
	tr := &transport{issuer: i, base: base, observe: observe, fetching: make(chan struct{}, 1)}
	return &ca{issuer: i, tr: tr, registering: make(chan struct{}, 1), client: &acme.Client{
		Directory: i.Directory, HTTPClient: &http.Client{Transport: tr, Timeout: timeout},
		UserAgent: "drover", PollInterval: pollInterval, PollTimeout: wait, Logger: log,
	}}, nil
}

func (c *ca) close() {
	if t, ok := c.tr.base.(*http.Transport); ok {
		t.CloseIdleConnections()
	}
}

// transport counts requests and keeps what the client library drops:
// Retry-After and the CA's clock.
type transport struct {
	issuer   Issuer
	base     http.RoundTripper
	observe  func(Request)
	fetching chan struct{} // held while the directory is read

	mu        sync.Mutex
	directory *http.Response // without a body
	body      []byte
}

// said is what a CA returned besides the results during one operation.
type said struct {
	mu         sync.Mutex
	requests   int
	status     int // of the last answer
	retryAfter time.Time
	skew       time.Duration // our clock minus the CA's
	now        func() time.Time
}

type saidKey struct{}

// listen returns a context whose requests are noted.
func listen(ctx context.Context, now func() time.Time) (context.Context, *said) {
	s := &said{now: now}
	return context.WithValue(ctx, saidKey{}, s), s
}

func (s *said) note(resp *http.Response) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	s.status, s.retryAfter = 0, time.Time{}
	if resp == nil {
		return
	}
	s.status = resp.StatusCode
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		s.skew = s.now().Sub(date).Truncate(time.Second)
	}
	if text := resp.Header.Get("Retry-After"); text != "" {
		if n, err := strconv.Atoi(text); err == nil && n >= 0 {
			s.retryAfter = s.now().Add(time.Duration(n) * time.Second)
		} else if at, err := http.ParseTime(text); err == nil {
			s.retryAfter = at.Add(s.skew)
		}
	}
}

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodGet && req.URL.String() == t.issuer.Directory {
		return t.cached(req)
	}
	return t.do(req)
}

func (t *transport) do(req *http.Request) (*http.Response, error) {
	start := time.Now()
	resp, err := t.base.RoundTrip(req)
	if s, ok := req.Context().Value(saidKey{}).(*said); ok {
		s.note(resp)
	}
	if t.observe != nil {
		r := Request{Issuer: t.issuer.Name, Method: req.Method, URL: req.URL.String(), Duration: time.Since(start)}
		if resp != nil {
			r.Status = resp.StatusCode
		}
		t.observe(r)
	}
	return resp, err
}

// cached answers with what prefetch read.
func (t *transport) cached(req *http.Request) (*http.Response, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.directory == nil {
		return nil, errors.New("the directory was not read")
	}
	resp := *t.directory
	resp.Request, resp.Body = req, io.NopCloser(bytes.NewReader(t.body))
	return &resp, nil
}

// ready reads the CA's directory. The client library would do it under a lock
// that all its clients share: one CA that hangs would stop the others.
func (c *ca) ready(ctx context.Context) error {
	t := c.tr
	select {
	case t.fetching <- struct{}{}:
		defer func() { <-t.fetching }()
	case <-ctx.Done():
		return ctx.Err()
	}
	t.mu.Lock()
	have := t.directory != nil
	t.mu.Unlock()
	if have {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.client.HTTPClient.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.issuer.Directory, nil)
	if err != nil {
		return err
	}
	resp, err := t.do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	// A server that notices the end of the request may end its answer as if it were
	// complete.
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("GET %s: %w", c.issuer.Directory, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s answers %s", c.issuer.Directory, resp.Status)
	}
	// An invalid directory is not cached: the next call requests it again.
	var dir acme.Directory
	if json.Unmarshal(body, &dir) != nil || dir.NewNonce == "" || dir.NewAccount == "" || dir.NewOrder == "" {
		return fmt.Errorf("GET %s answers %s with %s: %w", c.issuer.Directory, resp.Status, describe(resp, body), errNotACME)
	}
	resp.Header.Set("Content-Type", "application/json") // some say text/json
	t.mu.Lock()
	t.directory, t.body = resp, body
	t.mu.Unlock()
	return nil
}

// errNotACME means that the server is not an ACME CA.
var errNotACME = errors.New("that is no ACME directory")

// describe returns a short description of an answer.
func describe(resp *http.Response, body []byte) string {
	if len(body) == 0 {
		return "nothing"
	}
	if t := resp.Header.Get("Content-Type"); t != "" {
		return fmt.Sprintf("%d bytes of %s", len(body), t)
	}
	return fmt.Sprintf("%d bytes", len(body))
}

// fail makes an IssuerError of what went wrong in a step.
func (c *ca) fail(s *said, step string, err error) error {
	var already *IssuerError
	if err == nil || errors.As(err, &already) || errors.Is(err, context.Canceled) {
		return err
	}
	e := &IssuerError{Issuer: c.issuer.Name, Step: step, Kind: KindRejected, Err: err}
	s.mu.Lock()
	status := s.status
	if status == http.StatusTooManyRequests || status >= 500 {
		e.RetryAfter = s.retryAfter
	}
	s.mu.Unlock()
	var problem acme.Problem
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, errOrderGone): // rejected
	case errors.As(err, &problem):
		e.Err = problemError{problem}
		switch problem.Type {
		case acme.ProblemTypeRateLimited:
			e.Kind = KindRateLimited
		case acme.ProblemTypeServerInternal:
			e.Kind = KindServer
		case acme.ProblemTypeAccountDoesNotExist, acme.ProblemTypeExternalAccountRequired, acme.ProblemTypeUserActionRequired:
			e.Kind = KindAccount
		}
	case status == http.StatusTooManyRequests:
		e.Kind = KindRateLimited
	case status >= 500:
		e.Kind = KindServer
	case errors.As(err, &timeout) && timeout.Timeout():
		e.Kind, e.Err = KindUnreachable, fmt.Errorf("no answer within %s: %w", c.client.HTTPClient.Timeout, err)
	case status == 0:
		e.Kind = KindUnreachable
	case status < 400: // not the answer that ACME demands
		e.Kind = KindServer
	}
	return e
}

// problemError is the problem document of a CA as an error. The words of the CA come first.
type problemError struct{ acme.Problem }

func (p problemError) Unwrap() error { return p.Problem }

func (p problemError) Error() string {
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	if kind := strings.TrimPrefix(p.Type, acme.ProblemTypeNamespace); kind != "" {
		text = strings.TrimSpace(text+" ("+kind) + ")"
	}
	for _, sub := range p.Subproblems {
		text += "; "
		if sub.Identifier.Value != "" {
			text += sub.Identifier.Value + ": "
		}
		text += sub.Detail
	}
	return text
}

func isProblem(err error, types ...string) bool {
	var p acme.Problem
	if !errors.As(err, &p) {
		return false
	}
	for _, t := range types {
		if p.Type == t {
			return true
		}
	}
	return false
}

// updateContact gives the CA the e-mail address of the issuer (RFC 8555, 7.3.2).
func (c *ca) updateContact(ctx context.Context, location string, key crypto.Signer) error {
	ctx, s := listen(ctx, time.Now)
	if err := c.ready(ctx); err != nil {
		return c.fail(s, "reading its directory", err)
	}
	_, err := c.client.UpdateAccount(ctx, acme.Account{Location: location, PrivateKey: key, Contact: []string{"mailto:" + c.issuer.Email}})
	return c.fail(s, "changing the contact of the account", err)
}

// terms returns the URL of the terms of service, "" if there are none.
func (c *ca) terms(ctx context.Context) (string, error) {
	ctx, s := listen(ctx, time.Now)
	if err := c.ready(ctx); err != nil {
		return "", c.fail(s, "reading its directory", err)
	}
	meta, err := c.meta(ctx)
	return meta.TermsOfService, c.fail(s, "reading its directory", err)
}

// register makes the account at the CA, or finds the one that has this key. agreed is
// true if the terms of service are accepted.
func (c *ca) register(ctx context.Context, key crypto.Signer, agreed bool) (account acme.Account, err error) {
	ctx, s := listen(ctx, time.Now)
	if err := c.ready(ctx); err != nil {
		return account, c.fail(s, "reading its directory", err)
	}
	account = acme.Account{PrivateKey: key, TermsOfServiceAgreed: agreed}
	if c.issuer.Email != "" {
		account.Contact = []string{"mailto:" + c.issuer.Email}
	}
	if eab := c.issuer.EAB; eab != nil {
		err := account.SetExternalAccountBinding(ctx, c.client, acme.EAB{KeyID: eab.KeyID, MACKey: strings.TrimRight(eab.MACKey.Reveal(), "=")})
		if err != nil {
			return account, &IssuerError{Issuer: c.issuer.Name, Step: "binding the account", Kind: KindConfig, Err: errors.New("the MAC key of the external account binding is not base64url")}
		}
	}
	account, err = c.client.NewAccount(ctx, account)
	if err != nil {
		return account, c.fail(s, "registering an account", err)
	}
	return account, nil
}
