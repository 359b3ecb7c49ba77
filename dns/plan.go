package dns

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Input is everything that a plan is made of.
type Input struct {
	Desired []Record // from Normalize
	// Actual is what each zone holds. A zone that could not be read is
	// missing here, and nothing is planned in it.
	Actual map[string]map[Key]Set
	// Failed are the zones that could not be read.
	Failed []ZoneError
	// Owned is what drover made for this owner.
	Owned map[Key]Claim
	// Held are normalized names whose address is unknown at the moment, and why.
	// Their records do not change.
	Held map[string]string
	// Others names the owner of records that drover made for others.
	Others map[Key]string

	// Cluster is the name of this cluster among those that share records of addresses;
	// "" if the records are of one cluster alone.
	Cluster string
	Now     time.Time

	Policy Policy // UpsertOnly when empty
	Adopt  bool   // take over foreign records that are desired
	Repair bool   // write back what another program has changed; otherwise the claim ends

	markers map[string]map[Key][]marker // of each zone
}

// Plan is what would be changed, in the order of zone, name and type.
type Plan struct {
	Policy  Policy
	Changes []Change
	// Errors are the zones that could not be read.
	Errors []ZoneError

	owned Ownership // what the plan was made with
}

// ZoneError is a zone in which nothing was done, and why.
type ZoneError struct {
	Zone string
	Err  error
}

func (e ZoneError) Error() string { return fmt.Sprintf("zone %s: %s", e.Zone, e.Err) }
func (e ZoneError) Unwrap() error { return e.Err }

// Empty reports whether applying the plan does nothing.
func (p *Plan) Empty() bool {
	return !slices.ContainsFunc(p.Changes, Change.Pending)
}

// Conflicts are the records that will not be as desired.
func (p *Plan) Conflicts() []Change {
	var out []Change
	for _, c := range p.Changes {
		if c.Conflict {
			out = append(out, c)
		}
	}
	return out
}

// Count is how many changes have this action.
func (p *Plan) Count(a Action) int {
	n := 0
	for _, c := range p.Changes {
		if c.Action == a {
			n++
		}
	}
	return n
}

// NewPlan compares. It reads nothing but its input and changes nothing.
func NewPlan(in Input) *Plan {
	p := &Plan{Policy: cmp.Or(in.Policy, UpsertOnly), Errors: in.Failed}
	desired := map[Key]Record{}
	for _, r := range in.Desired {
		desired[r.Key()] = r
	}
	in.markers = map[string]map[Key][]marker{}
	for z, zone := range in.Actual {
		in.markers[z] = markers(zone)
	}
	// Deletions come first: they may make room for a CNAME.
	gone := map[Key]bool{}
	for key, claim := range in.Owned {
		if _, wanted := desired[key]; wanted {
			continue
		}
		if _, held := in.Held[key.Name]; held && slices.Contains(addressTypes, key.Type) {
			continue // see held
		}
		if _, marked, ok := markedKey(key); ok && in.Held[marked.Name] != "" {
			continue
		}
		zone, readable := in.Actual[claim.Zone]
		if !readable {
			if !slices.ContainsFunc(in.Failed, func(e ZoneError) bool { return e.Zone == claim.Zone }) {
				p.Changes = append(p.Changes, Change{Action: Keep, Zone: claim.Zone, Key: key,
					Reason: "no longer asked for, and its zone is no longer among the zones"})
			}
			continue
		}
		c := Change{Action: Delete, Zone: claim.Zone, Key: key}
		old, exists := zone[key]
		if exists {
			c.Old = &old
		}
		switch {
		case !exists:
			c.Action = Forget
		case claim.Shared:
			c = p.leave(in, key, claim, old)
			gone[key] = c.Action == Delete
		case !claim.covers(old):
			c.Action, c.Reason = Forget, "another program made it before drover could"
		case !in.Repair && claim.changed(old):
			c.Action, c.Ended, c.Reason = Forget, true, "another program has changed it since drover wrote it"
		case p.Policy != Sync:
			c.Action, c.Reason = Keep, fmt.Sprintf("no longer asked for; policy %s deletes nothing", p.Policy)
		default:
			gone[key] = true
		}
		p.Changes = append(p.Changes, c)
	}
	refused := map[Key]bool{} // shared records that are not written
	var marks []Record
	for _, r := range in.Desired {
		zone, readable := in.Actual[r.Zone]
		if !readable {
			continue
		}
		if cluster, _, ok := markedKey(r.Key()); ok && cluster == in.Cluster {
			marks = append(marks, r)
			continue
		}
		var c Change
		if in.Cluster != "" && slices.Contains(sharedTypes, r.Type) {
			c = p.shared(in, r, zone, gone)
			refused[c.Key] = c.Action == Foreign || c.Action == Keep
		} else {
			c = p.record(in, r, zone, gone)
		}
		p.Changes = append(p.Changes, c)
	}
	for _, r := range marks {
		if _, marked, _ := markedKey(r.Key()); !refused[marked] {
			own := in
			own.Adopt, own.Repair = true, true // no other cluster writes it
			p.Changes = append(p.Changes, p.record(own, r, in.Actual[r.Zone], gone))
		}
	}
	p.held(in)
	slices.SortFunc(p.Changes, func(a, b Change) int {
		return cmp.Or(strings.Compare(a.Zone, b.Zone), compareKeys(a.Key, b.Key))
	})
	return p
}

// record plans one desired record.
func (p *Plan) record(in Input, r Record, zone map[Key]Set, gone map[Key]bool) Change {
	key := r.Key()
	old, exists := zone[key]
	want := r.set().replacing(old)
	c := Change{Zone: r.Zone, Key: key, New: &want, Source: r.Source}
	claim, owned := in.Owned[key]
	if exists {
		c.Old = &old
		c.Ended = owned && !in.Repair && claim.changed(old) && !slices.Equal(old.Values, want.Values)
		owned = owned && claim.covers(old) && !c.Ended
	}
	if !exists {
		return p.create(in, r, zone, gone)
	}
	if _, _, others := split(in.markers[r.Zone][key], ""); len(others) > 0 && !in.Adopt && !old.Equal(want) {
		c.Action, c.Conflict, c.Ended = Foreign, true, false
		c.Reason = "cluster " + strings.Join(others, ", ") + " has marked it; set cluster in the dns block to share it"
		return c
	}
	switch other := in.Others[key]; {
	case owned:
	case other != "":
		c.Action, c.Conflict = Foreign, true
		c.Reason = "it belongs to " + other + ": remove it there first"
		return c
	case !in.Adopt:
		c.Action, c.Conflict = Foreign, !old.Equal(want)
		c.Reason = "drover did not make it; --adopt takes it over"
		if c.Ended {
			c.Reason = "another program has changed it since drover wrote it, and has it now; --adopt takes it back, and repair = true in the dns block writes the values of the stack again"
		} else if !c.Conflict {
			c.Reason = "it is as desired, but drover did not make it; --adopt takes it over"
		}
		return c
	default:
		c.Adopt, c.Ended = true, false
	}
	switch {
	case old.Equal(want):
		c.Action = Unchanged
		if c.Adopt {
			c.Action, c.Reason = Update, "adopted as it is"
		}
	case p.Policy == CreateOnly:
		c.Action, c.Adopt = Keep, false
		c.Reason = "policy create-only changes nothing that is there"
	default:
		c.Action = Update
		if c.Adopt {
			c.Reason = "adopted"
		}
	}
	return c
}

// create plans a desired record that does not exist.
func (p *Plan) create(in Input, r Record, zone map[Key]Set, gone map[Key]bool) Change {
	want := r.set().replacing(Set{})
	c := Change{Action: Create, Zone: r.Zone, Key: r.Key(), New: &want, Source: r.Source}
	if other := clash(c.Key, zone, gone); other != (Key{}) {
		c.Action, c.Conflict = Foreign, true
		c.Reason = fmt.Sprintf("there is a %s record of that name, and a CNAME cannot stand next to others", other.Type)
		if _, ours := in.Owned[other]; ours {
			c.Action = Keep
			c.Reason += fmt.Sprintf("; policy %s deletes nothing", p.Policy)
		} else {
			c.Reason += "; drover did not make it: remove it where it was made"
		}
	}
	return c
}

// clash is a record that the one at key cannot stand next to.
func clash(key Key, zone map[Key]Set, gone map[Key]bool) Key {
	for _, other := range slices.SortedFunc(maps.Keys(zone), compareKeys) {
		if other.Name == key.Name && other.Type != key.Type && !gone[other] &&
			(key.Type == TypeCNAME || other.Type == TypeCNAME) {
			return other
		}
	}
	return Key{}
}
