package acme

import (
	"context"
	"time"
)

// SetOrderTimeout sets how long a manager waits for a CA to validate names, and
// then to issue.
func (c *Config) SetOrderTimeout(d time.Duration) { c.orderTimeout = d }

// SetPort sets the port of authoritative name servers.
func (d *DNS) SetPort(port string) { d.port = port }

// IsName reports whether name may be the name of a certificate.
func IsName(name string) bool { return namePattern.MatchString(name) }

// ForgetTerms makes the account that of a drover that did not record terms.
func (s *Store) ForgetTerms(ctx context.Context) error {
	_, err := s.updateAccount(ctx, func(a *Account) error {
		for dir, r := range a.CAs {
			r.Terms, r.TermsBy = "", ""
			a.CAs[dir] = r
		}
		return nil
	})
	return err
}

// ForgetIssuer removes the stored settings of an issuer.
func (s *Store) ForgetIssuer(ctx context.Context, name string) error {
	_, err := s.updateAccount(ctx, func(a *Account) error {
		delete(a.Issuers, name)
		return nil
	})
	return err
}
