package dns

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/libdns/libdns"
	mdns "github.com/miekg/dns"
)

// rfc2136 speaks dynamic updates to a name server, and reads zones by
// transfer, both over TCP. An update is one message: all of it or nothing,
// and under the condition that what was planned from is still there.
type rfc2136 struct {
	server    string
	keyName   string // complete, "" for no signature
	algorithm string
	key       secret
	clock     Clock
}

// rfc2136Provider adds and removes single values without reading the zone,
// so that an ACME solver's key needs no right to transfer it.
type rfc2136Provider struct {
	*setProvider
	r *rfc2136
}

func openRFC2136(o Options) (Provider, error) {
	if o.Server == "" {
		return nil, optionsf(`the DNS provider rfc2136 needs its name server: server = "ns1.example.org"`)
	}
	host, port, err := net.SplitHostPort(o.Server)
	if err != nil {
		host, port = strings.Trim(o.Server, "[]"), "53"
	}
	r := &rfc2136{server: net.JoinHostPort(host, port), clock: o.Clock}
	if o.KeyName != "" {
		r.keyName = mdns.CanonicalName(o.KeyName)
		r.algorithm = mdns.CanonicalName(cmp.Or(o.KeyAlgorithm, "hmac-sha256"))
		known := []string{mdns.HmacSHA1, mdns.HmacSHA224, mdns.HmacSHA256, mdns.HmacSHA384, mdns.HmacSHA512}
		if !slices.Contains(known, r.algorithm) {
			return nil, optionsf("unknown TSIG algorithm %q; it is one of %s", o.KeyAlgorithm, strings.ReplaceAll(strings.Join(known, " "), ".", ""))
		}
		if r.key, err = o.credential("RFC2136_TSIG_SECRET"); err != nil {
			return nil, err
		}
		if _, err := base64.StdEncoding.DecodeString(r.key.reveal()); err != nil {
			return nil, optionsf("the TSIG secret of the DNS provider rfc2136 is not base64")
		}
	}
	return &rfc2136Provider{&setProvider{backend: r}, r}, nil
}

func (r *rfc2136) secrets() map[string]string {
	if r.keyName == "" {
		return nil
	}
	return map[string]string{r.keyName: r.key.reveal()}
}

// signer describes the key of the requests, for messages.
func (r *rfc2136) signer() string {
	if r.keyName == "" {
		return "requests without a key"
	}
	return "the key " + strings.TrimSuffix(r.keyName, ".")
}

func (r *rfc2136) sign(msg *mdns.Msg) {
	if r.keyName != "" {
		msg.SetTsig(r.keyName, r.algorithm, 300, r.clock.Now().Unix())
	}
}

// dial connects; the connection ends with ctx.
func (r *rfc2136) dial(ctx context.Context) (*mdns.Conn, func(), error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.server)
	if err != nil {
		return nil, nil, r.unavailable(ctx, err)
	}
	// Closing, since the library moves deadlines with every message.
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	return &mdns.Conn{Conn: c, TsigSecret: r.secrets()}, func() { stop(); _ = c.Close() }, nil
}

func (r *rfc2136) unavailable(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return &Error{Provider: ProviderRFC2136, Kind: KindUnavailable, Msg: "no answer from " + r.server + " in time", Err: cmp.Or(ctx.Err(), context.DeadlineExceeded)}
	}
	return &Error{Provider: ProviderRFC2136, Kind: KindUnavailable, Msg: "cannot be asked", Err: err}
}

func (r *rfc2136) sets(ctx context.Context, zone string, _ []Key) (map[Key]Set, error) {
	conn, end, err := r.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	msg := new(mdns.Msg)
	msg.SetAxfr(mdns.Fqdn(zone))
	r.sign(msg)
	transfer := &mdns.Transfer{Conn: conn, TsigSecret: r.secrets(), ReadTimeout: time.Hour, WriteTimeout: time.Hour}
	envelopes, err := transfer.In(msg, r.server)
	if err != nil {
		return nil, r.unavailable(ctx, err)
	}
	out := map[Key]Set{}
	for e := range envelopes {
		if e.Error != nil && err == nil {
			err = e.Error // read on to the end: the sender may block otherwise
		}
		for _, rr := range e.RR {
			h := rr.Header()
			key := Key{strings.ToLower(strings.TrimSuffix(h.Name, ".")), mdns.Type(h.Rrtype).String()}
			set, there := out[key]
			if there && set.TTL != int(h.Ttl) {
				set.TTL = -1
			} else {
				set.TTL = int(h.Ttl)
			}
			if v := rrValue(rr); !slices.Contains(set.Values, v) {
				set.Values = append(set.Values, v)
			}
			out[key] = set
		}
	}
	if err != nil {
		return nil, r.transferError(ctx, zone, err)
	}
	for _, set := range out {
		slices.Sort(set.Values)
	}
	return out, nil
}

func (r *rfc2136) transferError(ctx context.Context, zone string, err error) error {
	e := &Error{Provider: ProviderRFC2136, Kind: KindDenied, Err: err}
	switch text := err.Error(); {
	case ctx.Err() != nil, errors.Is(err, os.ErrDeadlineExceeded):
		return r.unavailable(ctx, err)
	case errors.Is(err, mdns.ErrSig), errors.Is(err, mdns.ErrTime), errors.Is(err, mdns.ErrSecret), errors.Is(err, mdns.ErrKey):
		e.Msg = fmt.Sprintf("%s does not accept %s", r.server, r.signer())
	case errors.Is(err, mdns.ErrNoSig), errors.Is(err, mdns.ErrAuth), strings.Contains(text, "xfr rcode: 9"), strings.Contains(text, "xfr rcode: 5"):
		// A refusal may have no valid signature, which the library reports before the code.
		e.Err = nil
		e.Msg = fmt.Sprintf("%s refuses to transfer the zone %s: it does not have the zone, or does not accept %s for it", r.server, zone, r.signer())
	default:
		e.Kind, e.Msg = KindUnavailable, "the transfer of the zone "+zone+" failed"
	}
	return e
}

func (r *rfc2136) apply(ctx context.Context, zone string, edits []Edit) error {
	msg := new(mdns.Msg)
	msg.SetUpdate(mdns.Fqdn(zone))
	deleted := map[string]bool{}
	for _, e := range edits {
		deleted[e.Name] = deleted[e.Name] || e.Set == nil
	}
	for _, e := range edits {
		if err := r.condition(msg, e, deleted[e.Name]); err != nil {
			return err
		}
	}
	for _, e := range edits {
		msg.RemoveRRset([]mdns.RR{header(e.Key)})
		if e.Set == nil {
			continue
		}
		rrs, err := toRRs(e.Key, *e.Set)
		if err != nil {
			return err
		}
		msg.Insert(rrs)
	}
	return r.exchange(ctx, zone, msg)
}

// condition makes the server check that the observed records have not changed.
// Without one it would also silently ignore a CNAME beside other records.
func (r *rfc2136) condition(msg *mdns.Msg, e Edit, roomMade bool) error {
	switch {
	case e.Blind:
	case e.Old == nil && e.Set == nil:
	case e.Old == nil && roomMade:
		msg.RRsetNotUsed([]mdns.RR{header(e.Key)})
	case e.Old == nil && e.Type == TypeCNAME:
		msg.NameNotUsed([]mdns.RR{header(e.Key)})
	case e.Old == nil:
		msg.RRsetNotUsed([]mdns.RR{header(e.Key), header(Key{e.Name, TypeCNAME})})
	case e.Type == TypeA || e.Type == TypeAAAA || e.Type == TypeCNAME:
		rrs, err := toRRs(e.Key, *e.Old)
		if err != nil {
			return err
		}
		msg.Used(rrs)
	default: // texts have several forms on the wire
		msg.RRsetUsed([]mdns.RR{header(e.Key)})
	}
	return nil
}

func (r *rfc2136) exchange(ctx context.Context, zone string, msg *mdns.Msg) error {
	if msg.Len() > 60000 {
		return &Error{Provider: ProviderRFC2136, Kind: KindRefused, Msg: "more than fits into one message"}
	}
	r.sign(msg)
	conn, end, err := r.dial(ctx)
	if err != nil {
		return err
	}
	defer end()
	answer, _, err := (&mdns.Client{Net: "tcp", TsigSecret: r.secrets(), ReadTimeout: time.Hour, WriteTimeout: time.Hour}).ExchangeWithConnContext(ctx, msg, conn)
	denied := func(why string) error {
		return &Error{Provider: ProviderRFC2136, Kind: KindDenied, Msg: fmt.Sprintf("%s %s", r.server, why)}
	}
	if answer != nil {
		if t := answer.IsTsig(); t != nil && t.Error != mdns.RcodeSuccess {
			return denied(fmt.Sprintf("does not accept %s (%s)", r.signer(), mdns.RcodeToString[int(t.Error)]))
		}
		switch answer.Rcode {
		case mdns.RcodeSuccess:
			if err == nil {
				return nil
			}
		case mdns.RcodeYXDomain, mdns.RcodeYXRrset, mdns.RcodeNXRrset:
			return &Error{Provider: ProviderRFC2136, Kind: KindRefused, Msg: "it has changed since the plan was made; plan again"}
		case mdns.RcodeNotAuth:
			return denied(fmt.Sprintf("does not have the zone %s, or does not accept %s", zone, r.signer()))
		case mdns.RcodeRefused:
			// Perhaps just this name: servers have policies for each.
			return &Error{Provider: ProviderRFC2136, Kind: KindRefused, Msg: fmt.Sprintf("%s does not let %s change it", r.server, r.signer())}
		case mdns.RcodeNotZone:
			return &Error{Provider: ProviderRFC2136, Kind: KindRefused, Msg: "the name is not in the zone " + zone}
		default:
			return &Error{Provider: ProviderRFC2136, Kind: KindRefused, Msg: fmt.Sprintf("%s answered %s", r.server, mdns.RcodeToString[answer.Rcode])}
		}
	}
	return r.unavailable(ctx, err)
}

func (p *rfc2136Provider) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	zone = bareZone(zone)
	msg := new(mdns.Msg)
	msg.SetUpdate(mdns.Fqdn(zone))
	add := fromLibdns(zone, records)
	for _, key := range sortedKeys(add) {
		rrs, err := toRRs(key, withTTL(add[key]))
		if err != nil {
			return nil, err
		}
		msg.Insert(rrs)
	}
	if len(add) == 0 {
		return nil, nil
	}
	if err := p.r.exchange(ctx, zone, msg); err != nil {
		return nil, err
	}
	return records, nil
}

func (p *rfc2136Provider) DeleteRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	zone = bareZone(zone)
	msg := new(mdns.Msg)
	msg.SetUpdate(mdns.Fqdn(zone))
	for _, rec := range records {
		rr := rec.RR()
		key := Key{absolute(rr.Name, zone), strings.ToUpper(rr.Type)}
		switch {
		case key.Type == "":
			msg.RemoveName([]mdns.RR{header(key)})
		case rr.Data == "":
			msg.RemoveRRset([]mdns.RR{header(key)})
		default:
			rrs, err := toRRs(key, Set{Values: []string{value(rec)}})
			if err != nil {
				return nil, err
			}
			msg.Remove(rrs)
		}
	}
	if len(records) == 0 {
		return nil, nil
	}
	if err := p.r.exchange(ctx, zone, msg); err != nil {
		return nil, err
	}
	return records, nil
}

// header is a record of which only name and type matter.
func header(key Key) mdns.RR {
	return &mdns.ANY{Hdr: mdns.RR_Header{Name: mdns.Fqdn(key.Name), Rrtype: mdns.StringToType[key.Type], Class: mdns.ClassINET}}
}

func toRRs(key Key, set Set) ([]mdns.RR, error) {
	out := make([]mdns.RR, 0, len(set.Values))
	for _, v := range set.Values {
		h := mdns.RR_Header{Name: mdns.Fqdn(key.Name), Rrtype: mdns.StringToType[key.Type], Class: mdns.ClassINET, Ttl: uint32(max(set.TTL, 0))}
		bad := func(err error) error {
			return &Error{Provider: ProviderRFC2136, Kind: KindRefused, Msg: fmt.Sprintf("%s cannot hold %q", key, v), Err: err}
		}
		switch key.Type {
		case TypeA, TypeAAAA:
			ip, err := netip.ParseAddr(v)
			if err != nil {
				return nil, bad(err)
			}
			if key.Type == TypeA {
				out = append(out, &mdns.A{Hdr: h, A: ip.AsSlice()})
			} else {
				out = append(out, &mdns.AAAA{Hdr: h, AAAA: ip.AsSlice()})
			}
		case TypeCNAME:
			out = append(out, &mdns.CNAME{Hdr: h, Target: mdns.Fqdn(v)})
		case TypeTXT:
			parts := chunks(v)
			for i, p := range parts {
				parts[i] = escapeChunk(p)
			}
			out = append(out, &mdns.TXT{Hdr: h, Txt: parts})
		case TypeCAA:
			c, err := parseCAA(v)
			if err != nil {
				return nil, bad(err)
			}
			out = append(out, &mdns.CAA{Hdr: h, Flag: c.flags, Tag: c.tag, Value: escapeChunk(c.value)})
		default:
			rr, err := mdns.NewRR(h.String() + toZoneSyntax(key.Type, v))
			if err != nil || rr == nil {
				return nil, bad(err)
			}
			out = append(out, rr)
		}
	}
	return out, nil
}

// rrValue returns the content of a record in canonical form.
func rrValue(rr mdns.RR) string {
	switch v := rr.(type) {
	case *mdns.A:
		return v.A.String()
	case *mdns.AAAA:
		if ip, ok := netip.AddrFromSlice(v.AAAA.To16()); ok {
			return ip.String()
		}
	case *mdns.CNAME:
		return strings.ToLower(strings.TrimSuffix(v.Target, "."))
	case *mdns.TXT:
		text := ""
		for _, part := range v.Txt {
			plain, err := unquoteTXT(`"` + part + `"`)
			if err != nil {
				return part
			}
			text += plain
		}
		return text
	case *mdns.CAA:
		return caa{v.Flag, strings.ToLower(v.Tag), v.Value}.String()
	}
	text := strings.TrimPrefix(rr.String(), rr.Header().String())
	if v, err := fromZoneSyntax(mdns.Type(rr.Header().Rrtype).String(), text); err == nil {
		return v
	}
	return text
}
