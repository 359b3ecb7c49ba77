package acme

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/drover-nomad/drover/acme/pki"
)

// issuance is an attempt to get one certificate from one CA.
type issuance struct {
	spec     Spec
	account  acme.Account
	key      crypto.Signer
	replaces *x509.Certificate
	plain    error  // not nil: why no order may be placed that replaces nothing
	order    string // URL of an order to continue, "" for a new one
	solver   Solver
	now      func() time.Time
	// ordered is called as soon as the CA has an order, before any other request.
	ordered func(ctx context.Context, url string, replacing bool) error
	// placed is called with the records that will be written, before they are.
	placed func(ctx context.Context, records []Record) error
	// removed is called with those that were removed, and why others could not be.
	removed func(ctx context.Context, records []Record, failed []error)
}

// issued is what a CA returned.
type issued struct {
	chain    string // PEM
	leaf     *x509.Certificate
	url      string
	ari      *ARI
	skew     time.Duration
	requests int
}

// errOrderGone means that an order cannot be continued.
var errOrderGone = errors.New("the order cannot be continued")

// issue gets a certificate: with a new order, or from where a former attempt left one.
func (c *ca) issue(ctx context.Context, is issuance) (*issued, error) {
	ctx, s := listen(ctx, is.now)
	if err := c.ready(ctx); err != nil {
		return nil, c.fail(s, "reading its directory", err)
	}
	order, err := c.begin(ctx, s, is)
	if err != nil {
		return nil, err
	}
	if order.Status == acme.StatusPending {
		if order, err = c.prove(ctx, s, is, order); err != nil {
			return nil, err
		}
	}
	if order.Status == acme.StatusReady {
		csr, err := newCSR(is.spec.Names, "", is.key)
		if err != nil {
			return nil, err
		}
		if order, err = c.finalize(ctx, s, is, order, csr); err != nil {
			return nil, err
		}
	}
	for late := c.patience(); order.Status == acme.StatusProcessing; {
		if err := c.pause(ctx, s, late); errors.Is(err, errLate) {
			return nil, c.unissued()
		} else if err != nil {
			return nil, err
		}
		if order, err = c.client.GetOrder(ctx, is.account, order); err != nil {
			return nil, c.failOrder(s, "waiting for the certificate", err)
		}
	}
	if order.Status != acme.StatusValid {
		return nil, c.fail(s, "finalizing the order", fmt.Errorf("%w: it is %s", errOrderGone, order.Status))
	}
	chains, err := c.client.GetCertificateChain(ctx, is.account, order.Certificate)
	if err != nil {
		return nil, c.failOrder(s, "downloading the certificate", err)
	}
	out, err := c.choose(is, chains)
	if err != nil {
		return nil, &IssuerError{Issuer: c.issuer.Name, Step: "looking at what it issued", Kind: KindInvalid, Err: err}
	}
	s.mu.Lock()
	out.requests, out.skew = s.requests, s.skew
	s.mu.Unlock()
	if err := Validate(out.chain, is.key, is.spec.Names, is.now().Add(-out.skew)); err != nil {
		return nil, &IssuerError{Issuer: c.issuer.Name, Step: "looking at what it issued", Kind: KindInvalid, Err: err}
	}
	return out, nil
}

// failOrder is fail for a step of an order. The order is over if the CA refuses the
// request itself; the next attempt places a new one.
func (c *ca) failOrder(s *said, step string, err error) error {
	s.mu.Lock()
	status := s.status
	s.mu.Unlock()
	refused := status >= 400 && status < 500 && status != http.StatusTooManyRequests
	if err == nil || !refused || isProblem(err, acme.ProblemTypeBadNonce, acme.ProblemTypeRateLimited, acme.ProblemTypeAccountDoesNotExist) {
		return c.fail(s, step, err)
	}
	var problem acme.Problem
	if errors.As(err, &problem) {
		err = problemError{problem}
	}
	return c.fail(s, step, fmt.Errorf("%w: %w", errOrderGone, err))
}

// finalize requests the certificate. The client library waits for as long as a
// Retry-After of the CA says, without a limit.
func (c *ca) finalize(ctx context.Context, s *said, is issuance, order acme.Order, csr []byte) (acme.Order, error) {
	wait, cancel := context.WithDeadline(ctx, c.patience())
	defer cancel()
	order, err := c.client.FinalizeOrder(wait, is.account, order, csr)
	if err != nil && wait.Err() != nil && ctx.Err() == nil {
		return order, c.unissued()
	}
	return order, c.failOrder(s, "finalizing the order", err)
}

// unissued returns the error for a CA that has not issued in time. The order can
// still be continued; another CA may be faster.
func (c *ca) unissued() error {
	return &IssuerError{Issuer: c.issuer.Name, Step: "waiting for the certificate", Kind: KindServer,
		Err: fmt.Errorf("it has not issued it within %s", c.client.PollTimeout)}
}

func (c *ca) begin(ctx context.Context, s *said, is issuance) (acme.Order, error) {
	if is.order != "" {
		order, err := c.client.GetOrder(ctx, is.account, acme.Order{Location: is.order})
		order.Location = is.order
		switch {
		case err != nil:
			return order, c.failOrder(s, "continuing an order", err)
		case order.Status == acme.StatusInvalid:
			return order, c.fail(s, "continuing an order", fmt.Errorf("%w: it is %s", errOrderGone, order.Status))
		}
		return order, nil
	}
	profile, err := c.profile(ctx, is.spec)
	if err != nil {
		return acme.Order{}, c.fail(s, "reading its directory", err)
	}
	if err := c.checkCAA(ctx, is); err != nil {
		return acme.Order{}, c.fail(s, "reading its directory", err)
	}
	want := acme.Order{Profile: profile}
	for _, n := range is.spec.Names {
		id := acme.Identifier{Type: "dns", Value: n}
		if net.ParseIP(n) != nil {
			id.Type = "ip"
		}
		want.Identifiers = append(want.Identifiers, id)
	}
	if is.replaces != nil {
		if id, err := acme.ARIUniqueIdentifier(is.replaces); err == nil && len(is.replaces.AuthorityKeyId) > 0 {
			want.Replaces = id
		}
	}
	order, err := c.client.NewOrder(ctx, is.account, want)
	if err != nil && want.Replaces != "" && refusesReplaces(err) {
		if is.plain != nil {
			return order, is.plain
		}
		want.Replaces = ""
		order, err = c.client.NewOrder(ctx, is.account, want)
	}
	if err != nil {
		return order, c.fail(s, "ordering", err)
	}
	return order, is.ordered(ctx, order.Location, want.Replaces != "")
}

// refusesReplaces reports whether the CA refused the order because of the
// certificate that it replaces: it is replaced already, or the CA does not know
// it. Some CAs return an internal error for that (Pebble does, for a serial number
// whose DER encoding begins with a zero).
func refusesReplaces(err error) bool {
	var p acme.Problem
	if !errors.As(err, &p) || isProblem(err, acme.ProblemTypeRateLimited) {
		return false
	}
	return isProblem(err, acme.ProblemTypeAlreadyReplaced, acme.ProblemTypeMalformed, acme.ProblemTypeUnauthorized) ||
		strings.Contains(strings.ToLower(p.Detail), "replace") || strings.Contains(p.Detail, "certificate")
}

// prove solves the challenges of each name, and returns the order when the CA accepts
// them. It polls the order, not the authorizations: one request for any number of names.
func (c *ca) prove(ctx context.Context, s *said, is issuance, order acme.Order) (acme.Order, error) {
	type open struct {
		authz acme.Authorization
		chal  acme.Challenge
		ours  Challenge
		at    Record
	}
	var todo []open
	for _, u := range order.Authorizations {
		authz, err := c.client.GetAuthorization(ctx, is.account, u)
		if err != nil {
			return order, c.failOrder(s, "reading its challenges", err)
		}
		if authz.Status == acme.StatusValid {
			continue
		}
		if authz.Status != acme.StatusPending {
			return order, c.fail(s, "reading its challenges", fmt.Errorf("%w: the authorization of %s is %s", errOrderGone, authz.IdentifierValue(), authz.Status))
		}
		o, offered := open{authz: authz}, []string{}
		for _, ch := range authz.Challenges {
			offered = append(offered, ch.Type)
			if ch.Type == is.spec.Challenge {
				o.chal = ch
			}
		}
		if o.chal.URL == "" {
			return order, &IssuerError{Issuer: c.issuer.Name, Step: "choosing a challenge", Kind: KindConfig,
				Err: fmt.Errorf("%s cannot be proven by %s: it offers %s", authz.IdentifierValue(), is.spec.Challenge, strings.Join(offered, ", "))}
		}
		if o.chal.Status == acme.StatusInvalid { // some CAs leave authorization and order as they are
			return order, c.fail(s, "reading its challenges", fmt.Errorf("%w: its check of %s by %s has failed", errOrderGone, authz.IdentifierValue(), o.chal.Type))
		}
		if o.ours, err = challengeOf(authz, o.chal, is.account); err != nil {
			return order, err
		}
		todo = append(todo, o)
	}
	unproven := func(o open, err error) error {
		return &IssuerError{Issuer: c.issuer.Name, Step: "preparing the proof of " + o.ours.Name, Kind: KindUnproven, Err: err}
	}
	var records []Record
	for i := range todo {
		o := &todo[i]
		var err error
		if o.at, err = is.solver.Place(ctx, o.ours); err != nil {
			return order, unproven(*o, err)
		}
		if o.ours.Type == DNS01 && o.at.Zone != "" {
			records = append(records, o.at)
		}
	}
	if len(records) > 0 {
		if err := is.placed(ctx, records); err != nil {
			return order, err
		}
		defer func() { c.remove(ctx, is, records) }()
	}
	for _, o := range todo {
		if err := is.solver.Present(ctx, o.ours, o.at); err != nil {
			return order, unproven(o, err)
		}
	}
	for _, o := range todo {
		if err := is.solver.Wait(ctx, o.ours, o.at); err != nil {
			return order, unproven(o, err)
		}
	}
	for _, o := range todo {
		if o.chal.Status != acme.StatusPending {
			continue // initiated by a former attempt
		}
		o.chal.Error = nil // of a former attempt
		checked, err := c.client.InitiateChallenge(ctx, is.account, o.chal)
		if err != nil {
			return order, c.failOrder(s, "asking it to check "+o.ours.Name, err)
		}
		if err := c.failedCheck(o.ours.Name, checked); err != nil {
			return order, err
		}
	}
	for late := c.patience(); order.Status == acme.StatusPending; {
		err := c.pause(ctx, s, late)
		if errors.Is(err, errLate) {
			return order, c.unchecked(ctx, is, order)
		}
		if err != nil {
			return order, err
		}
		if order, err = c.client.GetOrder(ctx, is.account, order); err != nil {
			return order, c.failOrder(s, "waiting for it to check", err)
		}
	}
	if order.Status != acme.StatusInvalid {
		return order, nil
	}
	return order, c.refused(ctx, is, order)
}

// remove removes records, also after the end of ctx.
func (c *ca) remove(ctx context.Context, is issuance, records []Record) {
	ctx = context.WithoutCancel(ctx)
	var gone []Record
	var failed []error
	for _, r := range records {
		one, cancel := context.WithTimeout(ctx, requestTimeout)
		if err := is.solver.Remove(one, r); err != nil {
			failed = append(failed, err)
		} else {
			gone = append(gone, r)
		}
		cancel()
	}
	is.removed(ctx, gone, failed)
}

// refused finds out which name the CA could not check, and why.
func (c *ca) refused(ctx context.Context, is issuance, order acme.Order) error {
	e := &IssuerError{Issuer: c.issuer.Name, Step: "checking", Kind: KindUnproven, Err: errors.New("the CA did not say why")}
	if order.Error != nil {
		e.Err = problemError{*order.Error}
	}
	for _, u := range order.Authorizations {
		authz, err := c.client.GetAuthorization(ctx, is.account, u)
		if err != nil || authz.Status != acme.StatusInvalid {
			continue
		}
		for _, ch := range authz.Challenges {
			if ch.Error != nil {
				e.Step, e.Err = "checking "+authz.IdentifierValue()+" by "+ch.Type, problemError{*ch.Error}
				return e
			}
		}
	}
	return e
}

// failedCheck returns the error of a challenge that the CA has refused although
// its order stays pending, as step-ca does. The order is kept: a pending challenge
// with an error is validated again on request, and one that is processing is
// validated again by the CA itself.
func (c *ca) failedCheck(name string, ch acme.Challenge) error {
	e := &IssuerError{Issuer: c.issuer.Name, Step: "checking " + name + " by " + ch.Type, Kind: KindUnproven}
	said := problemError{acme.Problem{Detail: "the CA did not say why"}}
	if ch.Error != nil {
		said = problemError{*ch.Error}
	}
	switch {
	case ch.Status == acme.StatusInvalid:
		e.Err = said
	case ch.Status == acme.StatusPending && ch.Error != nil:
		e.Err = errors.New(said.Error()) // no problemError: nothing is used up
	default:
		return nil
	}
	return e
}

// unchecked returns the error for an order that is still pending after the
// timeout. The order can be continued, unless a challenge failed for good.
func (c *ca) unchecked(ctx context.Context, is issuance, order acme.Order) error {
	for _, u := range order.Authorizations {
		authz, err := c.client.GetAuthorization(ctx, is.account, u)
		if err != nil {
			break // the reason cannot be read
		}
		for _, ch := range authz.Challenges {
			if ch.Type != is.spec.Challenge {
				continue
			}
			if err := c.failedCheck(authz.IdentifierValue(), ch); err != nil {
				return err
			}
		}
	}
	return &IssuerError{Issuer: c.issuer.Name, Step: "waiting for it to check", Kind: KindUnproven,
		Err: fmt.Errorf("it has not finished its checks within %s", c.client.PollTimeout)}
}

// patience returns the deadline for the answers of a CA: the waiting process holds the
// certificate's lock, and other processes retry later.
func (c *ca) patience() time.Time { return time.Now().Add(c.client.PollTimeout) }

// errLate means that the CA did not finish within the timeout.
var errLate = errors.New("it takes too long")

// pause waits as long as the CA demands, or pollInterval, but not beyond late. It returns
// errLate after that.
func (c *ca) pause(ctx context.Context, s *said, late time.Time) error {
	if time.Now().After(late) {
		return errLate
	}
	wait := pollInterval
	s.mu.Lock()
	if !s.retryAfter.IsZero() {
		wait = min(max(s.retryAfter.Sub(s.now()), pollInterval), time.Minute)
	}
	s.mu.Unlock()
	t := time.NewTimer(min(wait, time.Until(late)))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// choose returns the preferred chain, or the first.
func (c *ca) choose(is issuance, chains []acme.Certificate) (*issued, error) {
	if len(chains) == 0 {
		return nil, errors.New("it returned no certificate")
	}
	pick := chains[0]
	if want := is.spec.PreferredChain; want != "" {
	search:
		for _, ch := range chains {
			certs, err := pki.ParseChain(string(ch.ChainPEM))
			if err != nil {
				continue
			}
			for _, cert := range certs {
				if cert.Issuer.CommonName == want {
					pick = ch
					break search
				}
			}
		}
	}
	certs, err := pki.ParseChain(string(pick.ChainPEM))
	if err != nil {
		return nil, err
	}
	var chain strings.Builder
	for _, cert := range certs { // nothing but certificates
		chain.WriteString(pki.EncodeCertificate(cert.Raw))
	}
	out := &issued{chain: chain.String(), leaf: certs[0], url: pick.URL}
	switch info := pick.RenewalInfo; {
	case info == nil: // it has no such service
	case info.HasWindow():
		out.ari = ariOf(*info, certs[0], is.now())
	default: // it did not answer this time
		out.ari = &ARI{Serial: serialOf(certs[0]), CheckAfter: is.now().Add(ariDefault).UTC().Truncate(time.Second)}
	}
	return out, nil
}

func newCSR(names []string, commonName string, key crypto.Signer) ([]byte, error) {
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: commonName}}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, fmt.Errorf("making a certificate request: %w", err)
	}
	return der, nil
}

// Bounds of the interval of requests for renewal information: the Retry-After of the CA
// within these (RFC 9773, 4.3.2), otherwise ariDefault.
const (
	ariAtLeast = time.Minute
	ariAtMost  = 12 * time.Hour
	ariDefault = 6 * time.Hour
)

func ariOf(info acme.RenewalInfo, leaf *x509.Certificate, now time.Time) *ARI {
	wait := ariDefault
	if info.RetryAfter != nil {
		wait = min(max(time.Until(*info.RetryAfter), ariAtLeast), ariAtMost)
	}
	return &ARI{
		Serial: serialOf(leaf), Start: info.SuggestedWindow.Start.UTC(), End: info.SuggestedWindow.End.UTC(),
		Selected: info.SelectedTime.UTC(), CheckAfter: now.Add(wait).UTC().Truncate(time.Second), Why: info.ExplanationURL,
	}
}

// renewal asks the CA when the certificate should be renewed. It returns nil if the CA
// does not offer that.
func (c *ca) renewal(ctx context.Context, leaf *x509.Certificate, now time.Time) (*ARI, error) {
	ctx, s := listen(ctx, time.Now)
	if err := c.ready(ctx); err != nil {
		return nil, c.fail(s, "reading its directory", err)
	}
	dir, err := c.client.GetDirectory(ctx)
	if err != nil {
		return nil, c.fail(s, "reading its directory", err)
	}
	id, err := acme.ARIUniqueIdentifier(leaf)
	if err != nil || dir.RenewalInfo == "" {
		return nil, nil
	}
	// The function of the client library waits and retries. Here a later attempt is early
	// enough.
	info, err := c.renewalInfo(ctx, dir.RenewalInfo+"/"+id)
	if err != nil {
		return nil, c.fail(s, "asking about the renewal", err)
	}
	s.mu.Lock()
	if !s.retryAfter.IsZero() {
		info.RetryAfter = &s.retryAfter
	}
	s.mu.Unlock()
	window := info.SuggestedWindow.End.Sub(info.SuggestedWindow.Start)
	if info.SuggestedWindow.Start.IsZero() || window <= 0 {
		return nil, c.fail(s, "asking about the renewal", errors.New("its window ends before it begins"))
	}
	info.SelectedTime = info.SuggestedWindow.Start.Add(time.Duration(early() * float64(window))).Truncate(time.Second)
	return ariOf(info, leaf, now), nil
}

func (c *ca) renewalInfo(ctx context.Context, url string) (info acme.RenewalInfo, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return info, err
	}
	resp, err := c.client.HTTPClient.Do(req)
	if err != nil {
		return info, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return info, fmt.Errorf("HTTP %s", resp.Status)
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&info)
	return info, err
}

// revoke revokes a certificate. It signs with the certificate's own key, which works even
// if the account is lost.
func (c *ca) revoke(ctx context.Context, leaf *x509.Certificate, key crypto.Signer, reason int) error {
	ctx, s := listen(ctx, time.Now)
	if err := c.ready(ctx); err != nil {
		return c.fail(s, "reading its directory", err)
	}
	err := c.client.RevokeCertificate(ctx, acme.Account{}, leaf, key, reason)
	if isProblem(err, acme.ProblemTypeAlreadyRevoked) {
		return nil
	}
	return c.fail(s, "revoking", err)
}
