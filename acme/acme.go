// Package acme gets certificates from ACME CAs and keeps them renewed.
//
// A [Store] holds one object per certificate: what it is for, its key and
// chain, and how far its issuance is. A [Manager] compares the desired with the
// stored certificates and issues those that are missing or due. Only the manager
// that holds the lock of a certificate works on it. Everything that must survive
// a restart is stored before the request to the CA.
//
// The package prints nothing. It returns values, errors and [Event]s; none of
// them contains a key.
package acme

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/idna"

	"github.com/drover-nomad/drover/acme/pki"
	"github.com/drover-nomad/drover/secrets"
)

// Challenges.
const (
	HTTP01       = "http-01"
	DNS01        = "dns-01"
	DNSPersist01 = "dns-persist-01"
)

// Spec is the desired state of a certificate.
type Spec struct {
	// Name of the certificate in the store: letters, digits, ".", "-", "_".
	Name string `json:"name"`
	// Owner is STACK/ENVIRONMENT of the stack that asks for it; empty when no stack
	// does. Another stack cannot change the certificate.
	Owner string `json:"owner,omitempty"`
	// Names are the domains and IP addresses that it is valid for.
	Names []string `json:"names"`
	// Issuers are tried in this order: names of Issuer values.
	Issuers []string `json:"issuers,omitempty"`
	// Challenge is http-01, dns-01 or dns-persist-01. When empty it is
	// dns-01 for a certificate with a wildcard and http-01 otherwise.
	Challenge string `json:"challenge,omitempty"`
	// KeyType is one of pki.KeyTypes, p256 when empty.
	KeyType string `json:"key_type,omitempty"`
	// ReuseKey keeps the key at a renewal.
	ReuseKey bool `json:"reuse_key,omitempty"`
	// Profile is the name that the CA gives it, such as shortlived.
	Profile string `json:"profile,omitempty"`
	// PreferredChain is the common name of the root or an intermediate of the
	// chain to take when the CA offers several.
	PreferredChain string `json:"preferred_chain,omitempty"`
	// NoEdge is true if jobs read the certificate and the edge does not serve it.
	NoEdge bool `json:"no_edge,omitempty"`
	// Window is when renewals may happen; any time when zero.
	Window Window `json:"window,omitzero"`
}

// Window is a daily maintenance window in UTC.
type Window struct {
	From time.Duration `json:"from"` // since midnight
	For  time.Duration `json:"for"`
}

// next returns the first moment at or after t that is in the window.
func (w Window) next(t time.Time) time.Time {
	if w.For <= 0 || w.For >= 24*time.Hour {
		return t
	}
	t = t.UTC()
	start := t.Truncate(24 * time.Hour).Add(w.From - 24*time.Hour)
	for ; ; start = start.Add(24 * time.Hour) {
		if t.Before(start) {
			return start
		}
		if t.Before(start.Add(w.For)) {
			return t
		}
	}
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9*][A-Za-z0-9._-]{0,95}$`)

// Normalize brings a spec into the form in which it is compared and stored. It returns
// a *SpecError if the spec is wrong.
func (s Spec) Normalize() (Spec, error) {
	if !namePattern.MatchString(s.Name) {
		return s, &SpecError{s.Name, fmt.Sprintf("%q is no name for a certificate: use up to 96 letters, digits, dots, dashes and underscores", s.Name)}
	}
	bad := func(format string, args ...any) (Spec, error) {
		return s, &SpecError{s.Name, fmt.Sprintf(format, args...)}
	}
	if len(s.Names) == 0 {
		return bad("it has no names; give the domains that it is for")
	}
	if len(s.Names) > 100 {
		return bad("it has %d names; CAs take at most 100", len(s.Names))
	}
	var names []string
	wildcard := false
	for _, n := range s.Names {
		n = strings.ToLower(strings.TrimSuffix(strings.TrimSpace(n), "."))
		if ip := net.ParseIP(n); ip != nil {
			n = ip.String()
		} else {
			base, isWild := strings.CutPrefix(n, "*.")
			wildcard = wildcard || isWild
			ascii, err := idna.Lookup.ToASCII(base)
			if err != nil || strings.Contains(base, "*") || !strings.Contains(ascii, ".") || strings.HasPrefix(ascii, ".") || strings.Contains(ascii, "..") || len(ascii) > 253 {
				return bad("%q is no domain that a CA could check: it has no dot, or characters that names do not have; a wildcard is written *.example.com", n)
			}
			n = strings.TrimSuffix(n, base) + ascii
		}
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	s.Names = names
	if s.Challenge == "" {
		s.Challenge = HTTP01
		if wildcard {
			s.Challenge = DNS01
		}
	}
	switch {
	case s.Challenge != HTTP01 && s.Challenge != DNS01 && s.Challenge != DNSPersist01:
		return bad("unknown challenge %q; there are %s, %s and %s", s.Challenge, HTTP01, DNS01, DNSPersist01)
	case wildcard && s.Challenge == HTTP01:
		return bad("a wildcard cannot be proven by %s; use %s", HTTP01, DNS01)
	}
	for _, n := range s.Names {
		if net.ParseIP(n) != nil && s.Challenge != HTTP01 {
			return bad("IP address %s can be proven by %s only", n, HTTP01)
		}
	}
	if s.KeyType == "" {
		s.KeyType = pki.P256
	}
	if !slices.Contains(pki.KeyTypes(), s.KeyType) {
		return bad("unknown type of key %q; there are %s", s.KeyType, strings.Join(pki.KeyTypes(), ", "))
	}
	return s, nil
}

// NameSet returns a text that is equal for specs with the same names, in any order.
func (s Spec) NameSet() string { return nameSet(s.Names) }

func nameSet(names []string) string {
	sorted := slices.Sorted(slices.Values(names))
	sum := sha256.Sum256([]byte(strings.Join(slices.Compact(sorted), "\n")))
	return hex.EncodeToString(sum[:8])
}

// SpecError reports a mistake in a spec.
type SpecError struct{ Certificate, Problem string }

func (e *SpecError) Error() string { return "certificate " + e.Certificate + ": " + e.Problem }

// Phase is a state of a certificate.
type Phase string

// Phases.
const (
	Temporary Phase = "Temporary" // a self-signed placeholder, until the first issuance
	Issued    Phase = "Issued"    // stored; not yet seen to be served
	Ready     Phase = "Ready"     // what is served is what is stored
	Failing   Phase = "Failing"   // the last attempt failed; what is stored goes on
	Held      Phase = "Held"      // the circuit breaker keeps it from asking the CA
	Revoked   Phase = "Revoked"
)

// Status is the state of a certificate and of its next issuance.
type Status struct {
	Phase  Phase  `json:"phase"`
	Reason string `json:"reason,omitempty"` // one sentence

	// Of the certificate that is stored.
	Issuer     string    `json:"issuer,omitempty"`    // name of the Issuer
	Directory  string    `json:"directory,omitempty"` // its URL
	Serial     string    `json:"serial,omitempty"`    // hexadecimal
	NotBefore  time.Time `json:"not_before,omitzero"`
	NotAfter   time.Time `json:"not_after,omitzero"`
	IssuedAt   time.Time `json:"issued_at,omitzero"`
	RenewAt    time.Time `json:"renew_at,omitzero"`
	RenewedBy  string    `json:"renew_reason,omitempty"` // why RenewAt is when it is
	ARI        *ARI      `json:"ari,omitempty"`
	CertURL    string    `json:"cert_url,omitempty"`
	ServedAs   string    `json:"served_serial,omitempty"`
	ServedSeen time.Time `json:"served_seen,omitzero"`

	// Of the attempts to get the next one.
	Attempts    int                  `json:"attempts,omitempty"` // that failed in a row
	LastError   string               `json:"last_error,omitempty"`
	LastAttempt time.Time            `json:"last_attempt,omitzero"`
	NextAttempt time.Time            `json:"next_attempt,omitzero"`
	NotBeforeAt map[string]time.Time `json:"issuer_not_before,omitempty"` // issuer → end of its Retry-After
	Orders      []Ordered            `json:"orders,omitempty"`            // new orders of the last day that replace nothing
	Pending     *Pending             `json:"pending,omitempty"`
	Forced      bool                 `json:"forced,omitempty"`  // renew at once
	Request     int                  `json:"request,omitempty"` // number of the last request to renew at once
	ClockSkew   time.Duration        `json:"clock_skew,omitempty"`
	Leftovers   []Record             `json:"leftovers,omitempty"` // records still to be removed, stored before they are written

	Replacements []Ordered `json:"replacements,omitempty"` // as Orders, of those that replace a certificate and were not forced
}

// ARI is the recommendation of the CA for the renewal (RFC 9773). Before its first
// answer there is no window, only the time of the next request.
type ARI struct {
	Serial     string    `json:"serial"` // of the certificate it is about
	Start      time.Time `json:"start"`
	End        time.Time `json:"end"`
	Selected   time.Time `json:"selected"`
	CheckAfter time.Time `json:"check_after"`
	Why        string    `json:"explanation,omitempty"`
}

// Ordered is an order.
type Ordered struct {
	At  time.Time `json:"at"`
	Set string    `json:"set"` // Spec.NameSet
}

// Pending is an order at the CA whose certificate is not stored yet. Its key
// is stored with it, so that the next manager can use the order.
type Pending struct {
	Issuer    string    `json:"issuer"`
	Directory string    `json:"directory"`
	Order     string    `json:"order"` // URL
	Set       string    `json:"set"`
	At        time.Time `json:"at"`
}

// Record is a TXT record for a challenge, and the zone that has it.
type Record struct {
	Zone string `json:"zone"`
	Name string `json:"name"`
	Text string `json:"text"`
}

// Object is one certificate in the store.
type Object struct {
	Spec   Spec          `json:"spec"`
	Key    secrets.Value `json:"-"` // PEM, PKCS #8
	Chain  string        `json:"chain,omitempty"`
	Status Status        `json:"status"`

	pendingKey secrets.Value
	version    string
}

// Bundle returns chain and key in one text, as HAProxy reads it.
func (o *Object) Bundle() secrets.Value {
	return secrets.NewValue(o.Chain + o.Key.Reveal())
}
