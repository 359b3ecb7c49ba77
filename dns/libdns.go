package dns

import (
	"cmp"
	"context"
	"errors"
	"net"
	"slices"
	"strings"

	"github.com/libdns/libdns"
)

// libdnsBackend keeps record sets in a provider of libdns, of which it expects no
// more than its traits say: providers differ in how far they follow the contract.
// It gives them only records that have to change, and reads before it writes.
type libdnsBackend struct {
	name   string
	p      Provider
	traits libdnsTraits
	key    secret // that no message may show
}

// libdnsTraits are what a provider of libdns can do.
type libdnsTraits struct {
	// sets is true if SetRecords replaces all values of a name and type, as the
	// contract of libdns demands.
	sets bool
	// read is true if DeleteRecords needs the records that GetRecords returned, for
	// instance because they have identifiers.
	read bool
	// encode and decode are for the texts of TXT records; nil for texts without
	// quotes, as the contract demands.
	encode, decode func(string) string
	types          []string // that it can hold; nil for all
	minTTL         int      // to which it raises others
}

func openLibdns(name string, p Provider, traits libdnsTraits, key secret) Provider {
	return &setProvider{backend: &libdnsBackend{name, p, traits, key}}
}

// libdnsSet is a record set with its records, by their values.
type libdnsSet struct {
	Set
	records map[string]libdns.Record
}

func (b *libdnsBackend) read(ctx context.Context, zone string) (map[Key]libdnsSet, error) {
	records, err := b.p.GetRecords(ctx, fqdn(zone))
	if err != nil {
		return nil, b.err(ctx, KindUnavailable, err)
	}
	out := map[Key]libdnsSet{}
	for _, r := range records {
		plain := r
		if rr := r.RR(); strings.EqualFold(rr.Type, TypeTXT) && b.traits.decode != nil {
			rr.Data = b.traits.decode(rr.Data)
			plain = rr
		}
		for key, set := range fromLibdns(zone, []libdns.Record{plain}) { // one
			have, there := out[key]
			if !there {
				have = libdnsSet{Set{TTL: set.TTL}, map[string]libdns.Record{}}
			}
			if have.TTL != set.TTL {
				have.TTL = -1 // differs from everything desired
			}
			if _, twice := have.records[set.Values[0]]; !twice {
				have.Values = append(have.Values, set.Values[0])
				slices.Sort(have.Values)
			}
			have.records[set.Values[0]] = r
			out[key] = have
		}
	}
	return out, nil
}

func (b *libdnsBackend) sets(ctx context.Context, zone string, _ []Key) (map[Key]Set, error) {
	have, err := b.read(ctx, zone)
	out := map[Key]Set{}
	for key, set := range have {
		out[key] = set.Set
	}
	return out, err
}

// adjust raises TTLs to the least one of the provider.
func (b *libdnsBackend) adjust(_ context.Context, _ string, want map[Key]Set) (map[Key]Set, error) {
	out := map[Key]Set{}
	for key, set := range want {
		set.TTL = max(set.TTL, b.traits.minTTL)
		out[key] = set
	}
	return out, nil
}

func (b *libdnsBackend) apply(ctx context.Context, zone string, edits []Edit) error {
	have, err := b.read(ctx, zone)
	if err != nil {
		return err
	}
	// Deletions come first: they may make room for a CNAME.
	for _, deletions := range []bool{true, false} {
		for _, e := range edits {
			if (e.Set == nil) != deletions {
				continue
			}
			if err := b.edit(ctx, zone, e, have[e.Key]); err != nil {
				return err
			}
		}
	}
	return nil
}

// edit changes now, which has no values if it does not exist, to e.Set.
func (b *libdnsBackend) edit(ctx context.Context, zone string, e Edit, now libdnsSet) error {
	var want Set
	if e.Set != nil {
		want = *e.Set
		want.TTL = max(want.TTL, b.traits.minTTL)
	}
	var old Set
	if e.Old != nil {
		old = *e.Old
	}
	if b.traits.types != nil && e.Set != nil && !slices.Contains(b.traits.types, e.Type) {
		return &Error{Provider: b.name, Kind: KindRefused, Msg: "it can hold records of type " + strings.Join(b.traits.types, ", ") + ", and not " + e.Key.String()}
	}
	switch {
	case want.Equal(now.Set):
		return nil // done by a batch that failed later
	case !e.Blind && !old.Equal(now.Set):
		return &Error{Provider: b.name, Kind: KindRefused, Msg: e.Key.String() + " has changed since the plan was made; plan again"}
	}
	minus := func(a, b []string) []string {
		return slices.DeleteFunc(slices.Clone(a), func(v string) bool { return slices.Contains(b, v) })
	}
	add, remove := minus(want.Values, now.Values), minus(now.Values, want.Values)
	if len(now.Values) > 0 && len(want.Values) > 0 && want.TTL != now.TTL {
		add, remove = want.Values, now.Values
	}
	if b.traits.sets && len(add) > 0 && len(remove) > 0 {
		return b.call(ctx, zone, b.p.SetRecords, b.records(zone, e.Key, want.TTL, want.Values))
	}
	// No moment without the record, where both values can stand together.
	together := e.Type != TypeCNAME && len(minus(add, remove)) == len(add)
	if together && len(add) > 0 {
		if err := b.call(ctx, zone, b.p.AppendRecords, b.records(zone, e.Key, want.TTL, add)); err != nil {
			return err
		}
	}
	if len(remove) > 0 {
		gone := b.records(zone, e.Key, now.TTL, remove)
		if b.traits.read {
			gone = nil
			for _, v := range remove {
				gone = append(gone, now.records[v])
			}
		}
		if err := b.call(ctx, zone, b.p.DeleteRecords, gone); err != nil {
			return err
		}
	}
	if !together && len(add) > 0 {
		return b.call(ctx, zone, b.p.AppendRecords, b.records(zone, e.Key, want.TTL, add))
	}
	return nil
}

func (b *libdnsBackend) records(zone string, key Key, ttl int, values []string) []libdns.Record {
	if key.Type == TypeTXT && b.traits.encode != nil {
		encoded := make([]string, 0, len(values))
		for _, v := range values {
			encoded = append(encoded, b.traits.encode(v))
		}
		values = encoded
	}
	return toLibdns(zone, key, Set{TTL: max(ttl, 0), Values: values})
}

func (b *libdnsBackend) call(ctx context.Context, zone string, f func(context.Context, string, []libdns.Record) ([]libdns.Record, error), records []libdns.Record) error {
	_, err := f(ctx, fqdn(zone), records)
	return b.err(ctx, KindRefused, err)
}

// err gives an error of the provider its kind: otherwise, unless it is one of the
// network. The credential is removed from it.
func (b *libdnsBackend) err(ctx context.Context, otherwise Kind, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return &Error{Provider: b.name, Kind: KindUnavailable, Msg: "no answer in time", Err: ctx.Err()}
	}
	var network net.Error
	if errors.As(err, &network) {
		otherwise = KindUnavailable
	}
	return &Error{Provider: b.name, Kind: otherwise, Msg: cmp.Or(firstLine(b.redact(err.Error())), "it refused the request")}
}

// redact removes the credential, and each part of one that has several.
func (b *libdnsBackend) redact(text string) string {
	for _, part := range append([]string{b.key.text}, strings.Split(b.key.text, ":")...) {
		text = secret{part}.redact(text)
	}
	return text
}
