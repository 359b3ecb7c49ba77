package acme

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/libdns/libdns"
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
	// Resolvers, as host:port, must all return a record before the CA validates
	// it. The system's when empty.
	Resolvers []string
	// SkipCheck tells the CA at once.
	SkipCheck bool
	// KeepName writes the record at the challenge's own name, even when that
	// is an alias (CNAME) of another.
	KeepName bool
	TTL      time.Duration // 1 min when 0
	Timeout  time.Duration // of the check; 2 min when 0
}

// PropagationError means that a resolver does not return a record in time.
type PropagationError struct {
	Name     string
	Resolver string
	Got      string // what it says instead
	Waited   time.Duration
}

func (e *PropagationError) Error() string {
	return fmt.Sprintf("after %s, %s still says %s for TXT %s", e.Waited, e.Resolver, e.Got, e.Name)
}

// LeftoverError means that a record could not be removed.
type LeftoverError struct {
	Leftover
	Err error
}

func (e *LeftoverError) Error() string {
	return "TXT record " + e.Name + " in zone " + e.Zone + " could not be removed: " + e.Err.Error()
}
func (e *LeftoverError) Unwrap() error { return e.Err }

func (d *DNS) resolvers() map[string]*net.Resolver {
	if len(d.Resolvers) == 0 {
		return map[string]*net.Resolver{"the resolver of this host": net.DefaultResolver}
	}
	out := map[string]*net.Resolver{}
	for _, address := range d.Resolvers {
		if _, _, err := net.SplitHostPort(address); err != nil {
			address = net.JoinHostPort(address, "53")
		}
		out[address] = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}}
	}
	return out
}

// place is where the record of a challenge goes: its name, following aliases,
// and the zone that has it. The zone is nil when none of ours does.
func (d *DNS) place(ctx context.Context, ch Challenge) (string, *Zone) {
	name := "_acme-challenge." + ch.Name
	if ch.Type == DNSPersist01 {
		name = "_validation-persist." + ch.Name
	}
	if !d.KeepName {
		for _, r := range d.resolvers() {
			if alias, err := r.LookupCNAME(ctx, name+"."); err == nil && alias != "" {
				name = strings.ToLower(strings.TrimSuffix(alias, "."))
				break
			}
		}
	}
	var best *Zone
	for i, z := range d.Zones {
		zone := strings.TrimSuffix(z.Name, ".")
		if (name == zone || strings.HasSuffix(name, "."+zone)) && (best == nil || len(zone) > len(strings.TrimSuffix(best.Name, "."))) {
			best = &d.Zones[i]
		}
	}
	return name, best
}

// Check says which names are in no zone of ours.
func (d *DNS) Check(ctx context.Context, names []string, _ string) error {
	var errs []error
	for _, n := range names {
		at, zone := d.place(ctx, Challenge{Type: DNS01, Name: strings.TrimPrefix(n, "*.")})
		if zone == nil {
			errs = append(errs, &ReachError{Name: n, Problem: d.noZone(at)})
		}
	}
	return errors.Join(errs...)
}

func (d *DNS) noZone(name string) string {
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

// zoneName is with the dot that libdns wants.
func zoneName(z *Zone) string { return strings.TrimSuffix(z.Name, ".") + "." }

// Present adds the record. One for dns-persist-01 stays, so it may be there.
func (d *DNS) Present(ctx context.Context, ch Challenge) error {
	name, zone := d.place(ctx, ch)
	if ch.Type == DNSPersist01 {
		if got, err := d.shows(ctx, name, ch.TXT); err == nil && got {
			return nil
		}
	}
	if zone == nil {
		return errors.New(d.noZone(name))
	}
	if _, err := zone.Provider.AppendRecords(ctx, zoneName(zone), d.record(name, zone, ch.TXT)); err != nil {
		if there, serr := d.shows(ctx, name, ch.TXT); serr == nil && there {
			return nil // of a manager that was killed, and whose order this is
		}
		return fmt.Errorf("adding TXT %s to zone %s: %w", name, zone.Name, err)
	}
	return nil
}

func (d *DNS) shows(ctx context.Context, name, text string) (bool, error) {
	for _, r := range d.resolvers() {
		got, err := r.LookupTXT(ctx, name+".")
		if err != nil || !slices.Contains(got, text) {
			return false, err
		}
	}
	return true, nil
}

// Wait asks the resolvers until all show the record.
func (d *DNS) Wait(ctx context.Context, ch Challenge) error {
	if d.SkipCheck {
		return nil
	}
	timeout := d.Timeout
	if timeout == 0 {
		timeout = 2 * time.Minute
	}
	name, _ := d.place(ctx, ch)
	for where, r := range d.resolvers() {
		if err := waitTXT(ctx, where, r, name, ch.TXT, timeout); err != nil {
			return err
		}
	}
	return nil
}

func waitTXT(ctx context.Context, where string, r *net.Resolver, name, text string, timeout time.Duration) error {
	start := time.Now()
	tick := time.NewTimer(0)
	defer tick.Stop()
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		got, err := r.LookupTXT(ctx, name+".")
		if err == nil && slices.Contains(got, text) {
			return nil
		}
		if waited := time.Since(start); waited >= timeout {
			says := fmt.Sprintf("%q", got)
			if err != nil {
				says = dnsProblem(err)
			}
			return &PropagationError{Name: name, Resolver: where, Got: says, Waited: waited.Truncate(time.Second)}
		}
		tick.Reset(wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// CleanUp removes the record, and says which one it could not remove.
func (d *DNS) CleanUp(ctx context.Context, ch Challenge) error {
	if ch.Type == DNSPersist01 {
		return nil
	}
	name, zone := d.place(ctx, ch)
	if zone == nil {
		return nil // was never added
	}
	return d.Remove(ctx, Leftover{Zone: zone.Name, Name: name, Text: ch.TXT})
}

// Remove tries once more to remove what CleanUp could not.
func (d *DNS) Remove(ctx context.Context, l Leftover) error {
	for i, z := range d.Zones {
		if z.Name != l.Zone {
			continue
		}
		if _, err := z.Provider.DeleteRecords(ctx, zoneName(&z), d.record(l.Name, &d.Zones[i], l.Text)); err != nil {
			return &LeftoverError{l, err}
		}
		return nil
	}
	return &LeftoverError{l, errors.New("the zone may not be changed any more")}
}
