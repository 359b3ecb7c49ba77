// Package dns keeps DNS records as a stack wants them: it compares what is
// desired with what the zones hold and with what drover made earlier, and
// changes the difference through providers that have the shape of libdns.
//
// [NewPlan] is a pure function. [Manager] reads the zones, plans and applies.
// An ownership [Store], and not TXT records, remembers the records that drover
// made. A record that is not in the store is foreign: drover does not change it
// unless it is adopted.
package dns

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Types of records that drover writes.
const (
	TypeA     = "A"
	TypeAAAA  = "AAAA"
	TypeCNAME = "CNAME"
	TypeTXT   = "TXT"
	TypeCAA   = "CAA"
	TypeMX    = "MX"
	TypeSRV   = "SRV"
	TypeNS    = "NS"
	TypePTR   = "PTR"
	TypeHTTPS = "HTTPS"
)

// Types lists them.
func Types() []string {
	return []string{TypeA, TypeAAAA, TypeCNAME, TypeTXT, TypeCAA, TypeMX, TypeSRV, TypeNS, TypePTR, TypeHTTPS}
}

// DefaultTTL in seconds, for records without one.
const DefaultTTL = 300

const maxTTL = 1<<31 - 1 // RFC 2181, section 8

// Record is one desired record set: all values of one name and type.
//
// As a user writes it, Name is relative to Zone ("@" for its apex), or
// complete when it ends with a dot or with the zone. Without a Zone it is
// relative to the only allowed zone, or complete when there are several. After [Normalize] it is
// complete, in lower case, IDNA-encoded and without a trailing dot, as is Zone.
//
// Values are addresses, the target of a CNAME, NS or PTR record (always complete,
// with or without the trailing dot), the plain text of a TXT record (no quotes, any
// length), FLAGS TAG VALUE of a CAA record, PREFERENCE TARGET of an MX record,
// PRIORITY WEIGHT PORT TARGET of an SRV record, or PRIORITY TARGET [KEY=VALUE …] of
// an HTTPS record (RFC 9460).
type Record struct {
	Zone   string   `json:"zone"`
	Name   string   `json:"name"`
	Type   string   `json:"type"`
	TTL    int      `json:"ttl"` // seconds; DefaultTTL when 0
	Values []string `json:"values"`
	// Proxied is whether Cloudflare answers with its own addresses and fetches from
	// the values; nil leaves it as it is. Other providers have no such setting.
	Proxied *bool `json:"proxied,omitempty"`

	// Source is where the record was asked for, for messages.
	Source string `json:"source,omitempty"`
}

// Key tells record sets apart. Name is complete and normalized.
type Key struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

func (k Key) String() string { return k.Name + " " + k.Type }

func compareKeys(a, b Key) int {
	return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Type, b.Type))
}

// Key of a normalized record.
func (r Record) Key() Key { return Key{r.Name, r.Type} }

func (r Record) set() Set { return Set{TTL: r.TTL, Values: r.Values, Proxied: r.Proxied} }

// Set is a record set as a zone holds it, normalized.
type Set struct {
	TTL    int      `json:"ttl"`
	Values []string `json:"values"` // sorted
	// Proxied is as in [Record]; nil if the provider has no such setting.
	Proxied *bool `json:"proxied,omitempty"`
}

// Equal reports whether both sets are the same for a resolver.
func (s Set) Equal(o Set) bool {
	return s.TTL == o.TTL && slices.Equal(s.Values, o.Values) &&
		(s.Proxied == o.Proxied || s.Proxied != nil && o.Proxied != nil && *s.Proxied == *o.Proxied)
}

// proxied reports whether Cloudflare proxies the set. It fixes the TTL then.
func (s Set) proxied() bool { return s.Proxied != nil && *s.Proxied }

// replacing returns the desired set s for a place where old is: what s leaves open stays
// as in old.
func (s Set) replacing(old Set) Set {
	if s.Proxied == nil {
		s.Proxied = old.Proxied
	}
	if s.proxied() {
		s.TTL = DefaultTTL
	}
	return s
}

// RecordError is a mistake in a desired record. Nothing was changed.
type RecordError struct {
	Record Record // as the user wrote it
	Msg    string
}

func (e *RecordError) Error() string {
	at := ""
	if e.Record.Source != "" {
		at = e.Record.Source + ": "
	}
	return fmt.Sprintf("%srecord %s %s: %s", at, e.Record.Name, e.Record.Type, e.Msg)
}

// Normalize checks desired records and gives them the form in which they are
// compared. zones is the allow-list; a record without a zone gets the most
// specific one that its complete name is in. Every mistake is in the error, joined:
// each is a *RecordError.
func Normalize(records []Record, zones []string) ([]Record, error) {
	var errs []error
	allowed := make([]string, 0, len(zones))
	for _, z := range zones {
		n, err := normalizeZone(z)
		if err != nil {
			errs = append(errs, fmt.Errorf("zone %q: %w", z, err))
			continue
		}
		allowed = append(allowed, n)
	}
	byKey := map[Key]int{}
	var out []Record
	for _, r := range records {
		n, err := normalizeRecord(r, allowed)
		if err != nil {
			errs = append(errs, &RecordError{Record: r, Msg: err.Error()})
			continue
		}
		if i, dup := byKey[n.Key()]; dup {
			if first := out[i]; first.Zone != n.Zone || !first.set().Equal(n.set()) {
				msg := "it is asked for twice, with different contents"
				if first.Source != "" {
					msg += ", first at " + first.Source
				}
				errs = append(errs, &RecordError{Record: r, Msg: msg})
			}
			continue
		}
		byKey[n.Key()] = len(out)
		out = append(out, n)
	}
	for _, r := range out {
		if r.Type != TypeCNAME {
			continue
		}
		if r.Name == r.Zone {
			errs = append(errs, &RecordError{Record: r, Msg: "a CNAME cannot stand at the apex of a zone; write A and AAAA records"})
		}
		for _, other := range Types() {
			if _, there := byKey[Key{r.Name, other}]; there && other != TypeCNAME {
				errs = append(errs, &RecordError{Record: r, Msg: "a CNAME cannot stand next to another record of the same name (" + other + ")"})
			}
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	slices.SortFunc(out, func(a, b Record) int { return compareKeys(a.Key(), b.Key()) })
	return out, nil
}

// errOutside means that a record is in none of the zones.
var errOutside = errors.New("outside of the zones")

// outside is a message that is errOutside.
type outside string

func (e outside) Error() string        { return string(e) }
func (e outside) Is(target error) bool { return target == errOutside }

func normalizeRecord(r Record, zones []string) (Record, error) {
	r.Type = strings.ToUpper(strings.TrimSpace(r.Type))
	if !slices.Contains(Types(), r.Type) {
		return r, fmt.Errorf("unknown type %q; it is one of %s", r.Type, strings.Join(Types(), ", "))
	}
	if r.TTL == 0 {
		r.TTL = DefaultTTL
	}
	if r.TTL < 0 || r.TTL > maxTTL {
		return r, fmt.Errorf("the TTL %d is not between 1 and %d seconds", r.TTL, maxTTL)
	}
	var err error
	if r.Zone != "" {
		if r.Zone, err = normalizeZone(r.Zone); err != nil {
			return r, fmt.Errorf("zone: %w", err)
		}
	}
	if r.Zone == "" && len(zones) == 1 && !strings.HasSuffix(r.Name, ".") {
		r.Zone = zones[0] // the only one
	}
	if r.Name, err = completeName(r.Name, r.Zone); err != nil {
		return r, err
	}
	if r.Zone == "" {
		r.Zone = zoneOf(r.Name, zones)
	}
	if !slices.Contains(zones, r.Zone) {
		list := "no zone is allowed"
		if len(zones) > 0 {
			list = "the allowed zones are " + strings.Join(zones, ", ")
		}
		if r.Zone == "" {
			return r, outside(fmt.Sprintf("%s is in none of the allowed zones; %s", r.Name, list))
		}
		return r, outside(fmt.Sprintf("the zone %s is not allowed; %s", r.Zone, list))
	}
	if best := zoneOf(r.Name, zones); best != r.Zone {
		return r, fmt.Errorf("%s belongs to the zone %s, which is more specific than %s", r.Name, best, r.Zone)
	}
	if len(r.Values) == 0 {
		return r, errors.New("it has no values")
	}
	if r.Proxied != nil && !slices.Contains(addressTypes, r.Type) {
		return r, fmt.Errorf("proxied is for records of type %s", strings.Join(addressTypes, ", "))
	}
	values := make([]string, 0, len(r.Values))
	for _, v := range r.Values {
		n, err := normalizeValue(r.Type, v)
		if err != nil {
			return r, err
		}
		values = append(values, n)
	}
	slices.Sort(values)
	r.Values = slices.Compact(values)
	if r.Type == TypeCNAME {
		if len(r.Values) > 1 {
			return r, errors.New("a CNAME has one target")
		}
		if r.Values[0] == r.Name {
			return r, errors.New("the CNAME points at itself")
		}
	}
	return r, nil
}

// Policy says which changes may be made.
type Policy string

// Policies.
const (
	UpsertOnly Policy = "upsert-only" // create and update; the default
	Sync       Policy = "sync"        // and delete what is no longer desired
	CreateOnly Policy = "create-only" // never change what exists
)

// Policies lists them.
func Policies() []Policy { return []Policy{UpsertOnly, Sync, CreateOnly} }

// ParsePolicy reads one; "" is the default.
func ParsePolicy(s string) (Policy, error) {
	if s == "" {
		return UpsertOnly, nil
	}
	if p := Policy(s); slices.Contains(Policies(), p) {
		return p, nil
	}
	return "", fmt.Errorf("unknown policy %q; it is one of upsert-only, sync, create-only", s)
}

// Action is what is done, or not done, to one record set.
type Action string

// Actions.
const (
	Create    Action = "create"
	Update    Action = "update"
	Delete    Action = "delete"
	Unchanged Action = "unchanged"
	// Foreign is a record that drover did not make and leaves alone.
	Foreign Action = "foreign"
	// Keep is a change that is called for and that the policy does not allow.
	Keep Action = "keep"
	// Forget is a record of drover's that does not exist and is not desired: only its
	// claim is removed.
	Forget Action = "forget"
)

// Change is one line of a plan.
type Change struct {
	Action Action `json:"action"`
	Zone   string `json:"zone"`
	Key
	Old *Set `json:"old,omitempty"`
	New *Set `json:"new,omitempty"`

	// Adopt is true if the change makes a foreign record drover's.
	Adopt bool `json:"adopt,omitempty"`
	// Ended is true if the record was drover's, and is not from now on: another program
	// has changed it, or only the values of other clusters stay.
	Ended bool `json:"ended,omitempty"`
	// Conflict is true if the record differs from the desired one and no policy
	// allows the difference.
	Conflict bool   `json:"conflict,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Source   string `json:"source,omitempty"`

	mine []string // the values of this cluster, if others may have some too
}

// writes reports whether the change is made in a zone.
func (c Change) writes() bool {
	switch c.Action { //exhaustive:enforce
	case Create, Delete:
		return true
	case Update:
		return c.Old == nil || c.New == nil || !c.Old.Equal(*c.New)
	case Unchanged, Foreign, Keep, Forget:
	}
	return false
}

// Pending reports whether applying the change does something, in a zone or in the
// store.
func (c Change) Pending() bool {
	return c.writes() || c.Adopt || c.Ended || c.Action == Forget
}
