package acme

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
)

// AnyTerms stands for the URL of terms of service: it accepts those of any CA, also
// after they have changed.
const AnyTerms = "any"

// Values of Registration.TermsBy, beside what Config.AskTerms returns.
const (
	termsByIssuer  = "the issuer block"
	termsByCommand = "--accept-terms or its variable"
	termsByStored  = "the stored settings of the issuer"
	termsByFormer  = "a former registration"
)

// TermsError means that a CA has terms of service that were not accepted. No account
// is registered then, and the certificate is held: no attempt is counted.
type TermsError struct {
	Issuer string
	URL    string // of the terms
	Former string // URL of the terms that were accepted before, "" if there are none
}

func (e *TermsError) Error() string {
	why := "are not accepted"
	if e.Former != "" {
		why = "have changed since " + e.Former + " was accepted"
	}
	return fmt.Sprintf("issuer %s: registering an account: its terms of service %s: read %s and accept them with --accept-terms URL, with $DROVER_ACME_TERMS, or with accept_terms = URL in the issuer block",
		e.Issuer, why, e.URL)
}

// agree returns by what the terms of a CA were accepted, or a *TermsError. It calls
// Config.AskTerms if nothing else has accepted them.
func (m *Manager) agree(ctx context.Context, c *ca, terms string) (by string, err error) {
	a, err := m.account(ctx)
	if err != nil {
		return "", err
	}
	accepts := func(given ...string) bool { return slices.Contains(given, terms) || slices.Contains(given, AnyTerms) }
	own, _ := m.ownIssuer(c.issuer.Name)
	known, r := a.Issuers[c.issuer.Name], a.CAs[c.issuer.Directory]
	if known.Directory != c.issuer.Directory {
		known.AcceptTerms = nil
	}
	switch {
	case accepts(own.AcceptTerms...):
		return termsByIssuer, nil
	case accepts(m.c.AcceptTerms...):
		return termsByCommand, nil
	case accepts(known.AcceptTerms...):
		return termsByStored, nil
	case !r.Registered.IsZero() && (r.Terms == terms || r.Terms == ""): // "": by a drover that did not record them
		return termsByFormer, nil
	}
	if m.c.AskTerms != nil {
		by, err := m.c.AskTerms(ctx, c.issuer.Name, terms)
		if by != "" || err != nil {
			return by, err
		}
	}
	return "", &TermsError{Issuer: c.issuer.Name, URL: terms, Former: r.Terms}
}

// CheckTerms returns an error if text is neither AnyTerms nor a URL.
func CheckTerms(text string) error {
	if u, err := url.Parse(text); text == AnyTerms || err == nil && u.Scheme != "" {
		return nil
	}
	return fmt.Errorf("%q is neither the URL of terms of service nor %q", text, AnyTerms)
}

// unaccepted reports whether all errs are about terms that were not accepted.
func unaccepted(errs []error) bool {
	return !slices.ContainsFunc(errs, func(err error) bool {
		var terms *TermsError
		return !errors.As(err, &terms)
	})
}
