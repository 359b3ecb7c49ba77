package acme

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/libdns/libdns"
	mdns "github.com/miekg/dns"
)

// DNSProvider changes the records of zones. Everything that libdns calls a
// provider is one.
type DNSProvider interface {
	libdns.RecordAppender
	libdns.RecordDeleter
}

// Zone is a zone whose records may be changed.
type Zone struct {
	Name     string // "example.com"
	Provider DNSProvider
}

// DNS solves dns-01, and dns-persist-01, by records in zones.
type DNS struct {
	Zones []Zone
	// Resolvers, as HOST or HOST:PORT, must all return a record before the CA
	// validates it, besides the authoritative servers of its zone.
	Resolvers []string
	// Resolver finds the authoritative servers when there are no Resolvers;
	// net.DefaultResolver when nil.
	Resolver *net.Resolver
	// SkipCheck lets the CA validate at once, without a check.
	SkipCheck bool
	// KeepName writes the record at the challenge's own name, even when that
	// is an alias (CNAME) of another.
	KeepName bool
	TTL      time.Duration // 1 min when 0
	Timeout  time.Duration // of the check; 2 min when 0

	port string // of authoritative servers, 53 when empty
}

// PropagationError means that name servers do not return a record in time.
type PropagationError struct {
	Name   string
	Got    map[string]string // what they return instead, by name server
	Waited time.Duration
	Err    error // why there was no server to query; may be nil
}

func (e *PropagationError) Error() string {
	var texts []string
	for _, server := range slices.Sorted(maps.Keys(e.Got)) {
		texts = append(texts, server+" says "+e.Got[server])
	}
	if e.Err != nil {
		texts = append(texts, e.Err.Error())
	}
	return fmt.Sprintf("after %s, TXT %s is not served: %s", e.Waited, e.Name, strings.Join(texts, "; "))
}

func (e *PropagationError) Unwrap() error { return e.Err }

// LeftoverError means that a record could not be removed.
type LeftoverError struct {
	Record
	Err error
}

func (e *LeftoverError) Error() string {
	return "TXT record " + e.Name + " in zone " + e.Zone + " could not be removed: " + e.Err.Error()
}
func (e *LeftoverError) Unwrap() error { return e.Err }

// place returns where the record of a challenge belongs: its name, after the aliases that
// the authoritative servers return, and the zone that holds it. The zone is nil if no
// zone of d does.
func (d *DNS) place(ctx context.Context, ch Challenge) (string, *Zone, error) {
	name := "_acme-challenge." + ch.Name
	if ch.Type == DNSPersist01 {
		name = "_validation-persist." + ch.Name
	}
	for first, hops := name, 0; !d.KeepName; hops++ {
		alias, err := d.alias(ctx, name)
		if err != nil {
			return name, nil, err
		}
		if alias == "" {
			break
		}
		if hops == maxAliases {
			return name, nil, fmt.Errorf("%s is the first of more than %d aliases", first, maxAliases)
		}
		name = alias
	}
	return name, d.zoneOf(name), nil
}

// zoneOf returns the longest zone that holds a name, nil when none does.
func (d *DNS) zoneOf(name string) *Zone {
	var best *Zone
	for i, z := range d.Zones {
		zone := strings.TrimSuffix(z.Name, ".")
		if (name == zone || strings.HasSuffix(name, "."+zone)) && (best == nil || len(zone) > len(strings.TrimSuffix(best.Name, "."))) {
			best = &d.Zones[i]
		}
	}
	return best
}

// Check returns an error that lists the names whose record would be in no zone of d,
// or whose place is unknown.
func (d *DNS) Check(ctx context.Context, names []string, _ string) error {
	var errs []error
	seen := map[string]bool{}
	for _, n := range names {
		bare := strings.TrimPrefix(n, "*.")
		if seen[bare] {
			continue
		}
		seen[bare] = true
		at, zone, err := d.place(ctx, Challenge{Type: DNS01, Name: bare})
		switch {
		case err != nil:
			errs = append(errs, &ReachError{Name: n, Problem: err.Error()})
		case zone == nil:
			errs = append(errs, &ReachError{Name: n, Problem: d.noZone(at)})
		}
	}
	return errors.Join(errs...)
}

func (d *DNS) noZone(name string) string {
	if len(d.Zones) == 0 {
		return "no DNS provider is configured here"
	}
	have := make([]string, 0, len(d.Zones))
	for _, z := range d.Zones {
		have = append(have, z.Name)
	}
	return fmt.Sprintf("the record %s would be in none of the zones that may be changed (%s)", name, strings.Join(have, ", "))
}

func (d *DNS) record(name string, z *Zone, text string) []libdns.Record {
	ttl := d.TTL
	if ttl == 0 {
		ttl = time.Minute
	}
	return []libdns.Record{libdns.TXT{Name: libdns.RelativeName(name, zoneName(z)), TTL: ttl, Text: text}}
}

// zoneName returns the name of a zone with the dot that libdns expects.
func zoneName(z *Zone) string { return strings.TrimSuffix(z.Name, ".") + "." }

// Place returns where the record of a challenge goes.
func (d *DNS) Place(ctx context.Context, ch Challenge) (Record, error) {
	name, zone, err := d.place(ctx, ch)
	if err != nil {
		return Record{}, err
	}
	at := Record{Name: name, Text: ch.TXT}
	if zone != nil {
		at.Zone = zone.Name
	}
	return at, nil
}

// Present adds the record. A record for dns-persist-01 is kept: if it exists, nothing is
// written. If it does not exist and belongs to no zone of d, the error has the record.
func (d *DNS) Present(ctx context.Context, ch Challenge, at Record) error {
	zone := d.zoneOf(at.Name)
	if ch.Type == DNSPersist01 {
		switch {
		case d.shows(ctx, at), zone == nil && d.SkipCheck:
			return nil
		case zone == nil:
			return fmt.Errorf("create the record %s TXT %q once, or have drover create it: %s", at.Name, at.Text, d.noZone(at.Name))
		}
	}
	if zone == nil {
		return errors.New(d.noZone(at.Name))
	}
	if _, err := zone.Provider.AppendRecords(ctx, zoneName(zone), d.record(at.Name, zone, at.Text)); err != nil {
		if d.shows(ctx, at) {
			return nil // from a manager that was killed, whose order this one continues
		}
		return fmt.Errorf("adding TXT %s to zone %s: %w", at.Name, zone.Name, err)
	}
	return nil
}

// shows reports whether every server that answers returns a record.
func (d *DNS) shows(ctx context.Context, at Record) bool {
	replies, _ := d.authorities(ctx, at.Name, mdns.TypeTXT)
	return visible(append(replies, askAll(ctx, d.named(), at.Name, mdns.TypeTXT)...), at.Text)
}

// visible reports whether a record is among the replies, and no server that answers
// lacks it.
func visible(replies []reply, text string) bool {
	good := answered(replies)
	return len(good) > 0 && !slices.ContainsFunc(good, func(r reply) bool { return !slices.Contains(r.texts(), text) })
}

// Wait queries the authoritative servers until all that answer return the record, and
// then each of the named resolvers. It queries only the resolvers if no authoritative
// server can be reached.
func (d *DNS) Wait(ctx context.Context, _ Challenge, at Record) error {
	if d.SkipCheck {
		return nil
	}
	start := time.Now()
	named := d.named()
	tick := time.NewTimer(0)
	defer tick.Stop()
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		replies, err := d.authorities(ctx, at.Name, mdns.TypeTXT)
		if visible(replies, at.Text) || len(answered(replies)) == 0 && len(named) > 0 {
			if replies = askAll(ctx, named, at.Name, mdns.TypeTXT); !slices.ContainsFunc(replies, func(r reply) bool { return !visible([]reply{r}, at.Text) }) {
				return nil
			}
		}
		if waited := time.Since(start); waited >= cmp.Or(d.Timeout, 2*time.Minute) {
			return &PropagationError{Name: at.Name, Waited: waited.Truncate(time.Second), Got: lacking(replies, at.Text), Err: err}
		}
		tick.Reset(wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// lacking lists the servers that do not return a record, with what they return.
func lacking(replies []reply, text string) map[string]string {
	out := map[string]string{}
	for _, r := range replies {
		if !visible([]reply{r}, text) {
			out[r.server.name] = r.says()
		}
	}
	return out
}

// Remove removes a record.
func (d *DNS) Remove(ctx context.Context, at Record) error {
	for i, z := range d.Zones {
		if z.Name != at.Zone {
			continue
		}
		if _, err := z.Provider.DeleteRecords(ctx, zoneName(&z), d.record(at.Name, &d.Zones[i], at.Text)); err != nil {
			return &LeftoverError{at, err}
		}
		return nil
	}
	return &LeftoverError{at, errors.New("the zone may not be changed any more")}
}
