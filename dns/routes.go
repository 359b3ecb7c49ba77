package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/edge/route"
)

// RouteHosts returns the hosts in the routes of these jobs, without IP addresses,
// which need no record.
func RouteHosts(jobs []*api.Job) []string {
	var hosts []string
	for _, s := range route.Services(jobs...) {
		for _, tag := range slices.Concat(s.Tags, s.CanaryTags) {
			t, ok := route.Parse(tag)
			host := t.Host()
			if _, err := netip.ParseAddr(host); ok && err != nil && host != "" {
				hosts = append(hosts, host)
			}
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// RouteRecords returns the records that lead from hosts to the edge. targets are
// its addresses, or one name for CNAMEs. It leaves out hosts in none of the zones,
// and hosts with an A, AAAA or CNAME record among records.
func RouteRecords(hosts, targets, zones []string, ttl int, records []Record) ([]Record, error) {
	byType := map[string][]string{}
	for _, t := range targets {
		typ := TypeCNAME
		if a, err := netip.ParseAddr(t); err == nil {
			typ = TypeA
			if a.Is6() && !a.Is4In6() {
				typ = TypeAAAA
			}
		}
		byType[typ] = append(byType[typ], t)
	}
	if n := len(byType[TypeCNAME]); n > 1 || n == 1 && len(byType) > 1 {
		return nil, errors.New("targets are addresses, or one name, and not several names or both")
	}
	var out []Record
	for _, host := range RoutedHosts(hosts, zones, records) {
		for _, typ := range []string{TypeA, TypeAAAA, TypeCNAME} {
			if len(byType[typ]) > 0 {
				out = append(out, Record{Name: host + ".", Type: typ, TTL: ttl, Values: byType[typ], Source: "route " + host})
			}
		}
	}
	return out, nil
}

// RoutedHosts returns the hosts for which RouteRecords makes a record.
func RoutedHosts(hosts, zones []string, records []Record) []string {
	own := map[string]bool{}
	for _, r := range records {
		if n, err := normalizeRecord(r, normalizeZones(zones)); err == nil && slices.Contains(addressTypes, n.Type) {
			own[n.Name] = true
		}
	}
	var out []string
	for _, h := range hosts {
		name, err := completeName(h+".", "")
		if err == nil && zoneOf(name, normalizeZones(zones)) != "" && !own[name] {
			out = append(out, name)
		}
	}
	return out
}

// addressTypes are the types of records that give a name an address.
var addressTypes = []string{TypeA, TypeAAAA, TypeCNAME}

func normalizeZones(zones []string) []string {
	var out []string
	for _, z := range zones {
		if n, err := normalizeZone(z); err == nil {
			out = append(out, n)
		}
	}
	return out
}

// held adds changes that keep the records of held names.
func (p *Plan) held(in Input) {
	for name, why := range in.Held {
		zone := ""
		for z := range in.Actual {
			if inZone(name, z) && len(z) > len(zone) {
				zone = z
			}
		}
		if zone == "" {
			continue // could not be read
		}
		known := false
		for _, typ := range addressTypes {
			key := Key{name, typ}
			if set, there := in.Actual[zone][key]; there {
				known = true
				p.Changes = append(p.Changes, Change{Action: Keep, Zone: zone, Key: key, Old: &set, Conflict: true, Reason: why})
			}
		}
		if !known {
			p.Changes = append(p.Changes, Change{Action: Keep, Zone: zone, Key: Key{name, TypeA}, Conflict: true, Reason: why, Source: fmt.Sprintf("route %s", name)})
		}
	}
}
