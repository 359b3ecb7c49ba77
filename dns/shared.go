package dns

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Several clusters share a name by each having its own values in one record set of
// addresses. A cluster adds and removes only its own. Its ledger knows them, and a
// marker tells the others: a TXT record _drover-CLUSTER-TYPE.NAME. Each cluster
// writes only its own markers, so that two writers never replace each other's.

// sharedTypes are the types that several clusters can share.
var sharedTypes = []string{TypeA, TypeAAAA}

const (
	markerPrefix = "_drover-"
	markerText   = "drover"
	// anyLabel stands for * in the name of a marker.
	anyLabel = "_any"
	// leftFor is how long a removed value is watched: another cluster that has read the
	// zone before the removal may write it back.
	leftFor = time.Hour
)

// marker lists the values of a cluster in a record set.
type marker struct {
	cluster string
	ttl     int
	values  []string
}

// markerKey returns the key of the TXT record that lists the values of a cluster for key.
func markerKey(cluster string, key Key) Key {
	name := key.Name
	if rest, wild := strings.CutPrefix(name, "*."); wild {
		name = anyLabel + "." + rest
	}
	return Key{markerPrefix + cluster + "-" + strings.ToLower(key.Type) + "." + name, TypeTXT}
}

// markedKey is the reverse of markerKey.
func markedKey(key Key) (cluster string, marked Key, ok bool) {
	label, name, _ := strings.Cut(key.Name, ".")
	label, ok = strings.CutPrefix(label, markerPrefix)
	i := strings.LastIndexByte(label, '-')
	if !ok || key.Type != TypeTXT || i < 1 {
		return "", Key{}, false
	}
	typ := strings.ToUpper(label[i+1:])
	if rest, wild := strings.CutPrefix(name, anyLabel+"."); wild {
		name = "*." + rest
	}
	return label[:i], Key{name, typ}, slices.Contains(sharedTypes, typ)
}

// text returns the value of a marker of an owner.
func (m marker) text(owner string) string {
	return fmt.Sprintf("%s ttl=%d values=%s owner=%s", markerText, m.ttl, strings.Join(m.values, ","), owner)
}

// parseMarker reads the values of a TXT record. It skips texts that drover did not write.
func parseMarker(cluster string, texts []string) (marker, bool) {
	m := marker{cluster: cluster}
	found := false
	for _, text := range texts {
		fields := strings.Fields(text)
		if len(fields) < 3 || fields[0] != markerText {
			continue
		}
		ttl, ok := strings.CutPrefix(fields[1], "ttl=")
		values, ok2 := strings.CutPrefix(fields[2], "values=")
		n, err := strconv.Atoi(ttl)
		if !ok || !ok2 || err != nil || n < 1 {
			continue
		}
		found, m.ttl = true, n
		for v := range strings.SplitSeq(values, ",") {
			if isAddress(v) {
				m.values = append(m.values, v)
			}
		}
	}
	return m, found
}

// markers returns the markers in a zone, by the key of the record that they mark.
func markers(zone map[Key]Set) map[Key][]marker {
	out := map[Key][]marker{}
	for key, set := range zone {
		cluster, marked, ok := markedKey(key)
		if !ok {
			continue
		}
		if m, ok := parseMarker(cluster, set.Values); ok {
			out[marked] = append(out[marked], m)
		}
	}
	for _, list := range out {
		slices.SortFunc(list, func(a, b marker) int { return strings.Compare(a.cluster, b.cluster) })
	}
	return out
}

// split returns the values that a cluster marked as its own, those of others, and the
// names of the others.
func split(list []marker, cluster string) (own, theirs, others []string) {
	for _, m := range list {
		if m.cluster == cluster && cluster != "" {
			own = m.values
			continue
		}
		theirs = append(theirs, m.values...)
		others = append(others, m.cluster)
	}
	return own, theirs, others
}

// share gives the records that several clusters can share the least TTL that one of
// them wants, and adds the markers of this cluster.
func share(records []Record, actual map[string]map[Key]Set, cluster, owner string) ([]Record, error) {
	known := map[string]map[Key][]marker{}
	for z, zone := range actual {
		known[z] = markers(zone)
	}
	out := slices.Clone(records)
	var errs []error
	for i, r := range records {
		if !slices.Contains(sharedTypes, r.Type) {
			continue
		}
		key := markerKey(cluster, r.Key())
		if _, err := normalizeName(key.Name); err != nil {
			errs = append(errs, &RecordError{Record: r, Msg: fmt.Sprintf("the name of its marker, %s, is not possible: %s", key.Name, err)})
			continue
		}
		text := marker{cluster, r.TTL, r.Values}.text(owner)
		for _, m := range known[r.Zone][r.Key()] {
			if m.cluster != cluster {
				out[i].TTL = min(out[i].TTL, m.ttl)
			}
		}
		out = append(out, Record{Zone: r.Zone, Name: key.Name, Type: TypeTXT, TTL: DefaultTTL, Values: []string{text}, Source: r.Source})
	}
	return out, errors.Join(errs...)
}

// own returns the values that may be in the zone because of the claim.
func (c Claim) own(now time.Time) []string {
	out := slices.Clone(c.Mine)
	for v, since := range c.Left {
		if now.Sub(since) < leftFor {
			out = append(out, v)
		}
	}
	return out
}

// wrote returns the claim after these values replaced its own.
func (c Claim) wrote(values []string, now time.Time) Claim {
	left := map[string]time.Time{}
	for v, since := range c.Left {
		if now.Sub(since) < leftFor {
			left[v] = since
		}
	}
	for _, v := range c.Mine {
		left[v] = now
	}
	for _, v := range values {
		delete(left, v)
	}
	c.Pending, c.Writing, c.Wrote, c.Shared, c.Mine, c.Left = "", "", "", true, values, nil
	if len(left) > 0 {
		c.Left = left
	}
	return c
}

// writes returns the claim before these values are added to its own.
func (c Claim) writes(values []string) Claim {
	c.Pending, c.Writing, c.Wrote, c.Shared, c.Mine = "", "", "", true, union(c.Mine, values)
	return c
}

func (c Claim) equalShared(o Claim) bool {
	return c.Shared == o.Shared && slices.Equal(c.Mine, o.Mine) && maps.EqualFunc(c.Left, o.Left, time.Time.Equal)
}

// shared plans one desired record that other clusters may have values in.
func (p *Plan) shared(in Input, r Record, zone map[Key]Set, gone map[Key]bool) Change {
	key := r.Key()
	old, exists := zone[key]
	if !exists {
		c := p.create(in, r, zone, gone)
		c.mine = r.Values
		return c
	}
	marked, theirs, others := split(in.markers[r.Zone][key], in.Cluster)
	claim, owned := in.Owned[key]
	mine := union(claim.own(in.Now), marked)
	if owned && !claim.Shared { // from before the name was shared
		if owned = claim.covers(old) && !claim.changed(old); owned {
			mine = old.Values
		}
	}
	want := r.set()
	want.Values = union(minus(old.Values, minus(mine, theirs)), r.Values)
	want = want.replacing(old)
	c := Change{Zone: r.Zone, Key: key, Old: &old, New: &want, Source: r.Source, mine: r.Values}
	if !owned {
		switch other := in.Others[key]; {
		case other != "":
			c.Action, c.Conflict = Foreign, true
			c.Reason = "it belongs to " + other + ": remove it there first"
			return c
		case len(others) > 0:
			c.Reason = "shared with cluster " + strings.Join(others, ", ")
		case len(marked) > 0:
			c.Reason = "this cluster has marked it before"
		case !in.Adopt:
			c.Action, c.Conflict = Foreign, !old.Equal(want)
			c.Reason = "drover did not make it, and no cluster has marked it; --adopt shares it and keeps its values"
			return c
		default:
			c.Reason = "adopted; its other values stay"
		}
		c.Adopt = true
	}
	switch {
	case old.Equal(want) && !c.Adopt:
		c.Action = Unchanged
	case p.Policy == CreateOnly && !old.Equal(want):
		c.Action, c.Adopt, c.Reason = Keep, false, "policy create-only changes nothing that is there"
	default:
		c.Action = Update
	}
	return c
}

// leave plans the end of a claim on a record that other clusters may have values in.
func (p *Plan) leave(in Input, key Key, claim Claim, old Set) Change {
	marked, theirs, _ := split(in.markers[claim.Zone][key], in.Cluster)
	rest := old
	rest.Values = minus(old.Values, minus(union(claim.own(in.Now), marked), theirs))
	c := Change{Action: Update, Zone: claim.Zone, Key: key, Old: &old, New: &rest, Ended: true,
		Reason: "no longer asked for here; the values of others stay"}
	switch {
	case p.Policy != Sync:
		return Change{Action: Keep, Zone: claim.Zone, Key: key, Old: &old, Reason: fmt.Sprintf("no longer asked for; policy %s deletes nothing", p.Policy)}
	case len(rest.Values) == 0:
		return Change{Action: Delete, Zone: claim.Zone, Key: key, Old: &old}
	case rest.Equal(old):
		c.Action, c.New = Forget, nil
	}
	return c
}

func union(a, b []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(slices.Concat(a, b))))
}

func minus(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(v string) bool { return slices.Contains(b, v) })
}
