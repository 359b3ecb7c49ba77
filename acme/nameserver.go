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

	mdns "github.com/miekg/dns"

	"github.com/drover-nomad/drover/parallel"
)

// nameserver is a server that is queried for a record.
type nameserver struct {
	name      string // as shown
	address   string // HOST:PORT
	recursive bool   // it queries others, and caches their answers
}

// reply is the answer of one name server about a name.
type reply struct {
	server   nameserver
	msg      *mdns.Msg
	referral []*mdns.NS // the servers of a zone below, when the server delegates the name
	err      error      // why the server has no answer
}

// Bounds of a lookup.
const (
	queryTimeout = 2 * time.Second // for UDP, and for TCP
	maxReferrals = 8
	maxAliases   = 8
)

// query sends one query over UDP, and over TCP if the answer is not complete.
func query(ctx context.Context, s nameserver, name string, kind uint16) reply {
	msg := new(mdns.Msg)
	msg.SetQuestion(mdns.Fqdn(name), kind)
	msg.RecursionDesired = s.recursive
	r := reply{server: s}
	for _, network := range []string{"udp", "tcp"} {
		c := mdns.Client{Net: network, Timeout: queryTimeout}
		r.msg, _, r.err = c.ExchangeContext(ctx, msg, s.address)
		if ctx.Err() != nil {
			r.err = ctx.Err()
			return r
		}
		if r.err == nil && !r.msg.Truncated {
			break
		}
	}
	var timeout net.Error
	switch {
	case errors.As(r.err, &timeout) && timeout.Timeout():
		r.err = fmt.Errorf("no answer within %s", queryTimeout)
	case r.err != nil:
	case r.msg.Rcode != mdns.RcodeSuccess && r.msg.Rcode != mdns.RcodeNameError:
		r.err = errors.New(mdns.RcodeToString[r.msg.Rcode])
	case s.recursive || r.msg.Authoritative:
	default:
		for _, rr := range r.msg.Ns {
			if ns, ok := rr.(*mdns.NS); ok && mdns.IsSubDomain(ns.Hdr.Name, mdns.Fqdn(name)) {
				r.referral = append(r.referral, ns)
			}
		}
		r.err = errors.New("it is not authoritative for the name")
	}
	return r
}

// texts returns the TXT records of a reply.
func (r *reply) texts() []string {
	var out []string
	for _, rr := range r.msg.Answer {
		if txt, ok := rr.(*mdns.TXT); ok {
			out = append(out, strings.Join(txt.Txt, ""))
		}
	}
	return out
}

// alias returns the target of the CNAME record of a name, "" if it has none.
func (r *reply) alias(name string) string {
	for _, rr := range r.msg.Answer {
		if c, ok := rr.(*mdns.CNAME); ok && strings.EqualFold(c.Hdr.Name, mdns.Fqdn(name)) {
			return strings.ToLower(strings.TrimSuffix(c.Target, "."))
		}
	}
	return ""
}

// says returns a short description of a reply to a query for TXT.
func (r *reply) says() string {
	switch {
	case r.err != nil:
		return r.err.Error()
	case r.msg.Rcode == mdns.RcodeNameError:
		return "no such host"
	}
	return fmt.Sprintf("%q", r.texts())
}

// askAll queries servers for records of a name. The answers have aliases, too.
func askAll(ctx context.Context, servers []nameserver, name string, kind uint16) []reply {
	out := make([]reply, len(servers))
	parallel.Do(len(servers), 16, func(i int) { out[i] = query(ctx, servers[i], name, kind) })
	return out
}

// answered returns the replies of servers that have an answer.
func answered(replies []reply) []reply {
	return slices.DeleteFunc(slices.Clone(replies), func(r reply) bool { return r.err != nil })
}

// named returns the resolvers that were named in the configuration.
func (d *DNS) named() []nameserver {
	var out []nameserver
	for _, address := range d.Resolvers {
		if _, _, err := net.SplitHostPort(address); err != nil {
			address = net.JoinHostPort(strings.Trim(address, "[]"), "53")
		}
		out = append(out, nameserver{name: address, address: address, recursive: true})
	}
	return out
}

// authorities queries the authoritative servers of a name for its records: those of the
// named resolvers that are authoritative themselves, or else those that NS records name.
// It does not query recursive servers for the name itself, because they would cache that
// the name does not exist.
func (d *DNS) authorities(ctx context.Context, name string, kind uint16) ([]reply, error) {
	base := name
	if z := d.zoneOf(name); z != nil {
		base = strings.TrimSuffix(z.Name, ".")
	} else if _, parent, ok := strings.Cut(name, "."); ok {
		base = parent
	}
	servers := slices.DeleteFunc(d.named(), func(s nameserver) bool {
		r := query(ctx, s, base, mdns.TypeSOA)
		return r.err != nil || !r.msg.Authoritative
	})
	var err error
	if len(servers) == 0 {
		servers, err = d.delegated(ctx, base)
	}
	for range maxReferrals {
		if err != nil {
			return nil, err
		}
		replies := askAll(ctx, servers, name, kind)
		at := slices.IndexFunc(replies, func(r reply) bool { return len(r.referral) > 0 })
		if at < 0 || len(answered(replies)) > 0 {
			return replies, nil
		}
		var names []string
		for _, ns := range replies[at].referral {
			names = append(names, ns.Ns)
		}
		servers, err = d.addresses(ctx, names, replies[at].msg.Extra)
	}
	return nil, fmt.Errorf("more than %d name servers refer to others for %s", maxReferrals, name)
}

// hosts returns the resolvers with which name servers are found.
func (d *DNS) hosts() []*net.Resolver {
	if named := d.named(); len(named) > 0 {
		var out []*net.Resolver
		for _, s := range named {
			out = append(out, &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, s.address)
			}})
		}
		return out
	}
	return []*net.Resolver{cmp.Or(d.Resolver, net.DefaultResolver)}
}

// delegated returns the servers of the zone that holds a name.
func (d *DNS) delegated(ctx context.Context, name string) ([]nameserver, error) {
	var last error
	for _, r := range d.hosts() {
		for zone := name; zone != ""; _, zone, _ = strings.Cut(zone, ".") {
			found, err := r.LookupNS(ctx, zone+".")
			var dns *net.DNSError
			switch {
			case len(found) > 0: // some of them may be malformed
				var names []string
				for _, ns := range found {
					names = append(names, ns.Host)
				}
				return d.addresses(ctx, names, nil)
			case ctx.Err() != nil:
				return nil, ctx.Err()
			case errors.As(err, &dns) && dns.IsNotFound:
				last = cmp.Or(last, error(&noServersError{name}))
				continue
			}
			last = fmt.Errorf("cannot find the name servers of %s: %s", zone, dnsProblem(err))
			break
		}
	}
	return nil, last
}

// noServersError means that no NS record leads to a name.
type noServersError struct{ name string }

func (e *noServersError) Error() string { return "no NS record names a server for " + e.name }

// addresses returns those of name servers, from the glue of a referral or looked up.
func (d *DNS) addresses(ctx context.Context, names []string, glue []mdns.RR) ([]nameserver, error) {
	var out []nameserver
	var last error
	for _, name := range names {
		var ips []string
		for _, rr := range glue {
			if !strings.EqualFold(rr.Header().Name, name) {
				continue
			}
			switch a := rr.(type) {
			case *mdns.A:
				ips = append(ips, a.A.String())
			case *mdns.AAAA:
				ips = append(ips, a.AAAA.String())
			}
		}
		for _, r := range d.hosts() {
			if len(ips) > 0 {
				break
			}
			var err error
			if ips, err = r.LookupHost(ctx, name); err != nil {
				last = fmt.Errorf("cannot find the address of name server %s: %s", strings.TrimSuffix(name, "."), dnsProblem(err))
			}
		}
		for _, ip := range ips {
			out = append(out, nameserver{name: strings.TrimSuffix(name, ".") + " (" + ip + ")", address: net.JoinHostPort(ip, cmp.Or(d.port, "53"))})
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if len(out) == 0 {
		return nil, last
	}
	return out, nil
}

// UnknownError means that no name server answered for a name. It is not known whether the
// name has records.
type UnknownError struct {
	Name string
	Err  error
}

func (e *UnknownError) Error() string {
	return "cannot find out whether " + e.Name + " is an alias (CNAME): " + e.Err.Error()
}
func (e *UnknownError) Unwrap() error { return e.Err }

// alias returns the target of the CNAME record of a name, "" if it has none. It
// returns an UnknownError if no server answers, or if two differ.
func (d *DNS) alias(ctx context.Context, name string) (string, error) {
	replies, err := d.authorities(ctx, name, mdns.TypeTXT)
	var none *noServersError
	if errors.As(err, &none) && d.SkipCheck && d.zoneOf(name) != nil {
		return "", nil // a zone that is not delegated yet
	}
	if len(answered(replies)) == 0 { // the named resolvers may reach what drover does not
		replies = append(replies, askAll(ctx, d.named(), name, mdns.TypeTXT)...)
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	good := answered(replies)
	if len(good) == 0 {
		errs := []error{err}
		for _, r := range replies {
			errs = append(errs, fmt.Errorf("%s: %w", r.server.name, r.err))
		}
		return "", &UnknownError{name, oneLine(errs)}
	}
	for _, r := range good[1:] {
		if a, b := good[0].alias(name), r.alias(name); a != b {
			return "", &UnknownError{name, fmt.Errorf("%s says %q, and %s says %q", good[0].server.name, a, r.server.name, b)}
		}
	}
	return good[0].alias(name), nil
}

// oneLine joins errors in one line.
func oneLine(errs []error) error {
	var texts []string
	for _, err := range errs {
		if err != nil {
			texts = append(texts, err.Error())
		}
	}
	return errors.New(strings.Join(texts, "; "))
}
