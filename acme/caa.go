package acme

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
	mdns "github.com/miekg/dns"

	"github.com/drover-nomad/drover/parallel"
)

// caaTimeout ends the lookup of the CAA records of all names of a certificate.
const caaTimeout = 3 * time.Second

// caaReader is a solver that finds the CAA records that hold for a domain
// (RFC 8659, 3), and the name that has them. It returns an error if they are unknown.
type caaReader interface {
	caa(ctx context.Context, domain string) (records []*mdns.CAA, at string, err error)
}

func (s Stateless) caa(ctx context.Context, domain string) ([]*mdns.CAA, string, error) {
	d := &DNS{Resolver: s.Resolver, SkipCheck: s.SkipCheck}
	return d.caa(ctx, domain)
}

func (d *DNS) caa(ctx context.Context, domain string) ([]*mdns.CAA, string, error) {
	if d.SkipCheck {
		return nil, "", errors.New("checks are skipped")
	}
	for name := domain; name != ""; _, name, _ = strings.Cut(name, ".") {
		for at, hops := name, 0; at != "" && hops <= maxAliases; hops++ {
			replies, err := d.authorities(ctx, at, mdns.TypeCAA)
			good := answered(replies)
			if len(good) == 0 {
				return nil, "", cmp.Or(err, errors.New("no name server answers"))
			}
			var records []*mdns.CAA
			for _, rr := range good[0].msg.Answer {
				if c, ok := rr.(*mdns.CAA); ok {
					records = append(records, c)
				}
			}
			if len(records) > 0 {
				return records, name, nil
			}
			at = good[0].alias(at)
		}
	}
	return nil, "", nil
}

// checkCAA returns an error if CAA records forbid the CA to issue for a name. It
// ignores names whose records are unknown: the CA looks, too.
func (c *ca) checkCAA(ctx context.Context, is issuance) error {
	reader, ok := is.solver.(caaReader)
	meta, err := c.meta(ctx)
	if err != nil || !ok || len(meta.CAAIdentities) == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, caaTimeout)
	defer cancel()
	errs := make([]error, len(is.spec.Names))
	parallel.Do(len(errs), 8, func(i int) {
		domain, wildcard := strings.CutPrefix(is.spec.Names[i], "*.")
		if net.ParseIP(domain) != nil {
			return
		}
		records, at, err := reader.caa(ctx, domain)
		if err != nil || allowsCA(records, wildcard, meta.CAAIdentities, is.account, is.spec.Challenge) {
			return
		}
		var texts []string
		for _, r := range records {
			texts = append(texts, fmt.Sprintf("%d %s %q", r.Flag, r.Tag, r.Value))
		}
		errs[i] = fmt.Errorf("the CAA records of %s do not allow it to issue for %s by %s: %s; it is %s",
			at, is.spec.Names[i], is.spec.Challenge, strings.Join(texts, ", "), strings.Join(meta.CAAIdentities, " or "))
	})
	if err := errors.Join(errs...); err != nil {
		return &IssuerError{Issuer: c.issuer.Name, Step: "checking CAA", Kind: KindRejected, Err: err}
	}
	return nil
}

// allowsCA reports whether CAA records allow a CA with one of these identities to
// issue (RFC 8659, 4), to this account and by this challenge (RFC 8657).
func allowsCA(records []*mdns.CAA, wildcard bool, identities []string, account acme.Account, challenge string) bool {
	tagged := func(tag string) []*mdns.CAA {
		return slices.DeleteFunc(slices.Clone(records), func(r *mdns.CAA) bool { return !strings.EqualFold(r.Tag, tag) })
	}
	rules := tagged("issue")
	if wild := tagged("issuewild"); wildcard && len(wild) > 0 {
		rules = wild
	}
	return len(rules) == 0 || slices.ContainsFunc(rules, func(r *mdns.CAA) bool {
		parts := strings.Split(r.Value, ";")
		if !slices.ContainsFunc(identities, func(id string) bool { return strings.EqualFold(strings.TrimSpace(parts[0]), id) }) {
			return false
		}
		for _, p := range parts[1:] {
			key, value, _ := strings.Cut(strings.TrimSpace(p), "=")
			switch strings.ToLower(strings.TrimSpace(key)) {
			case "accounturi":
				if strings.TrimSpace(value) != account.Location {
					return false
				}
			case "validationmethods":
				if !slices.Contains(strings.Split(strings.ReplaceAll(value, " ", ""), ","), challenge) {
					return false
				}
			}
		}
		return true
	})
}
