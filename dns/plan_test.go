package dns

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libdns/libdns"
)

// world is a provider in memory, without batches unless wrapped.
type world struct {
	mu     sync.Mutex
	zones  map[string]map[Key]Set
	refuse func(Edit) bool
	calls  int
}

func (w *world) sets(_ context.Context, zone string, _ []Key) (map[Key]Set, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	z, ok := w.zones[zone]
	if !ok {
		return nil, &Error{Provider: "world", Kind: KindNoZone, Msg: "no zone " + zone}
	}
	return maps.Clone(z), nil
}

func (w *world) apply(_ context.Context, zone string, edits []Edit) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	z := maps.Clone(w.zones[zone])
	for _, e := range edits {
		if w.refuse != nil && w.refuse(e) {
			return &Error{Provider: "world", Kind: KindRefused, Msg: "refused " + e.Key.String()}
		}
		if e.Set == nil {
			delete(z, e.Key)
			continue
		}
		if other := clash(e.Key, z, nil); other != (Key{}) {
			return &Error{Provider: "world", Kind: KindRefused, Msg: e.Key.String() + " beside " + other.String()}
		}
		z[e.Key] = *e.Set
	}
	w.zones[zone] = z
	return nil
}

// unbatched hides ApplyBatch.
type unbatched struct{ Provider }

func set(ttl int, values ...string) Set {
	slices.Sort(values)
	return Set{TTL: ttl, Values: values}
}

const zone = "example.org"

func TestPlan(t *testing.T) {
	www := Key{"www.example.org", TypeA}
	want := Record{Name: "www", Zone: zone, Type: "A", Values: []string{"192.0.2.1"}}
	same, other := set(300, "192.0.2.1"), set(300, "192.0.2.9")
	mine := map[Key]Claim{www: {Zone: zone}}
	wrote := map[Key]Claim{www: {Zone: zone, Wrote: valuesDigest(same)}}
	writing := map[Key]Claim{www: {Zone: zone, Wrote: valuesDigest(same), Writing: valuesDigest(other)}}
	for _, tc := range []struct {
		name    string
		desired []Record
		actual  map[Key]Set
		owned   map[Key]Claim
		others  map[Key]string
		policy  Policy
		adopt   bool
		repair  bool
		want    string // ACTION, with ! for a conflict, + for an adoption and - for a claim that ends
		reason  string
	}{
		{name: "new", desired: []Record{want}, want: "create"},
		{name: "new, create-only", desired: []Record{want}, policy: CreateOnly, want: "create"},
		{name: "as it is", desired: []Record{want}, actual: map[Key]Set{www: same}, owned: mine, want: "unchanged"},
		{name: "differs", desired: []Record{want}, actual: map[Key]Set{www: other}, owned: mine, want: "update"},
		{name: "TTL differs", desired: []Record{want}, actual: map[Key]Set{www: set(60, "192.0.2.1")}, owned: mine, want: "update"},
		{name: "differs, create-only", desired: []Record{want}, actual: map[Key]Set{www: other}, owned: mine, policy: CreateOnly, want: "keep", reason: "create-only"},
		{name: "vanished", desired: []Record{want}, owned: mine, want: "create"},
		{name: "foreign", desired: []Record{want}, actual: map[Key]Set{www: other}, want: "foreign!", reason: "--adopt"},
		{name: "foreign, sync", desired: []Record{want}, actual: map[Key]Set{www: other}, policy: Sync, want: "foreign!"},
		{name: "foreign and the same", desired: []Record{want}, actual: map[Key]Set{www: same}, want: "foreign", reason: "as desired"},
		{name: "adopted", desired: []Record{want}, actual: map[Key]Set{www: other}, adopt: true, want: "update+"},
		{name: "adopted as it is", desired: []Record{want}, actual: map[Key]Set{www: same}, adopt: true, want: "update+"},
		{name: "adopt, create-only", desired: []Record{want}, actual: map[Key]Set{www: other}, adopt: true, policy: CreateOnly, want: "keep"},
		{name: "of another owner", desired: []Record{want}, actual: map[Key]Set{www: other}, others: map[Key]string{www: "shop/prod"}, adopt: true, want: "foreign!", reason: "shop/prod"},
		{name: "changed by another hand", desired: []Record{want}, actual: map[Key]Set{www: other}, owned: wrote, want: "foreign!-", reason: "another program has changed it"},
		{name: "changed by another hand, repair", desired: []Record{want}, actual: map[Key]Set{www: other}, owned: wrote, repair: true, want: "update"},
		{name: "changed by another hand, adopt", desired: []Record{want}, actual: map[Key]Set{www: other}, owned: wrote, adopt: true, want: "update+"},
		{name: "changed by another hand to what is desired", desired: []Record{want}, actual: map[Key]Set{www: same}, owned: map[Key]Claim{www: {Zone: zone, Wrote: valuesDigest(other)}}, want: "unchanged"},
		{name: "another TTL by another hand", desired: []Record{want}, actual: map[Key]Set{www: set(60, "192.0.2.1")}, owned: wrote, want: "update"},
		{name: "written before drover died", desired: []Record{want}, actual: map[Key]Set{www: other}, owned: writing, want: "update"},
		{name: "not written before drover died", desired: []Record{want}, actual: map[Key]Set{www: same}, owned: writing, want: "unchanged"},
		{name: "changed by another hand, no longer desired, sync", actual: map[Key]Set{www: other}, owned: wrote, policy: Sync, want: "forget-", reason: "another program has changed it"},
		{name: "not changed, no longer desired, sync", actual: map[Key]Set{www: same}, owned: wrote, policy: Sync, want: "delete"},
		{name: "no longer desired", actual: map[Key]Set{www: same}, owned: mine, want: "keep", reason: "upsert-only"},
		{name: "no longer desired, sync", actual: map[Key]Set{www: same}, owned: mine, policy: Sync, want: "delete"},
		{name: "no longer desired and gone", owned: mine, want: "forget"},
		{name: "never ours", actual: map[Key]Set{www: same}, policy: Sync, want: ""},
		{name: "zone taken off the list", owned: map[Key]Claim{www: {Zone: "example.net"}}, policy: Sync, want: "keep", reason: "no longer among the zones"},
		{name: "claimed, then made by another client", desired: []Record{want}, actual: map[Key]Set{www: other}, owned: map[Key]Claim{www: {Zone: zone, Pending: digest(same)}}, want: "foreign!"},
		{name: "claimed and made, then died", desired: []Record{want}, actual: map[Key]Set{www: same}, owned: map[Key]Claim{www: {Zone: zone, Pending: digest(same)}}, want: "unchanged"},
		{name: "claimed, not desired, made by another client", actual: map[Key]Set{www: other}, owned: map[Key]Claim{www: {Zone: zone, Pending: digest(same)}}, policy: Sync, want: "forget"},
		{name: "CNAME in the way, foreign", desired: []Record{want}, actual: map[Key]Set{{"www.example.org", "CNAME"}: set(300, "x.example.net")}, policy: Sync, adopt: true, want: "foreign!", reason: "CNAME"},
		{name: "MX in the way of a CNAME", desired: []Record{{Name: "www", Zone: zone, Type: "CNAME", Values: []string{"edge.example.net"}}}, actual: map[Key]Set{{"www.example.org", "MX"}: set(300, "10 mx.")}, want: "foreign!", reason: "MX"},
		{name: "own CNAME in the way", desired: []Record{want}, actual: map[Key]Set{{"www.example.org", "CNAME"}: set(300, "x.example.net")}, owned: map[Key]Claim{{"www.example.org", "CNAME"}: {Zone: zone}}, want: "keep! keep", reason: "upsert-only"},
		{name: "own CNAME in the way, sync", desired: []Record{want}, actual: map[Key]Set{{"www.example.org", "CNAME"}: set(300, "x.example.net")}, owned: map[Key]Claim{{"www.example.org", "CNAME"}: {Zone: zone}}, policy: Sync, want: "create delete"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			desired, err := Normalize(tc.desired, []string{zone})
			if err != nil {
				t.Fatal(err)
			}
			if tc.actual == nil {
				tc.actual = map[Key]Set{}
			}
			p := NewPlan(Input{Desired: desired, Actual: map[string]map[Key]Set{zone: tc.actual}, Owned: tc.owned, Others: tc.others, Policy: tc.policy, Adopt: tc.adopt, Repair: tc.repair})
			var got []string
			reasons := ""
			for _, c := range p.Changes {
				s := string(c.Action)
				if c.Conflict {
					s += "!"
				}
				if c.Adopt {
					s += "+"
				}
				if c.Ended {
					s += "-"
				}
				got = append(got, s)
				reasons += c.Reason + "\n"
			}
			if g := strings.Join(got, " "); g != tc.want {
				t.Errorf("plan is %q, want %q", g, tc.want)
			}
			if !strings.Contains(reasons, tc.reason) {
				t.Errorf("reasons %q do not say %q", reasons, tc.reason)
			}
		})
	}
}

func TestNormalizeRefuses(t *testing.T) {
	zones := []string{"example.org", "sub.example.org", "example.net"}
	for _, tc := range []struct {
		name    string
		records []Record
		want    []string
	}{
		{"outside", []Record{{Name: "www.example.com.", Type: "A", Values: []string{"192.0.2.1"}, Source: "stack.hcl:3"}}, []string{"stack.hcl:3", "www.example.com", "example.org, sub.example.org, example.net"}},
		{"zone not allowed", []Record{{Name: "www", Zone: "example.com", Type: "A", Values: []string{"192.0.2.1"}}}, []string{"example.com is not allowed", "example.net"}},
		{"suffix is not zone", []Record{{Name: "www.badexample.org", Type: "A", Values: []string{"192.0.2.1"}}}, []string{"none of the allowed"}},
		{"less specific zone", []Record{{Name: "a.sub", Zone: "example.org", Type: "A", Values: []string{"192.0.2.1"}}}, []string{"more specific"}},
		{"not in its zone", []Record{{Name: "www.example.net.", Zone: "example.org", Type: "A", Values: []string{"192.0.2.1"}}}, []string{"not in its zone"}},
		{"type", []Record{{Name: "www", Zone: "example.org", Type: "LOC", Values: []string{"10 mx"}}}, []string{"unknown type", "CNAME"}},
		{"an MX record without a preference", []Record{{Name: "www", Zone: "example.org", Type: "MX", Values: []string{"mx.example.org"}}}, []string{"1 parts", "PREFERENCE TARGET"}},
		{"a port out of range", []Record{{Name: "www", Zone: "example.org", Type: "SRV", Values: []string{"0 5 65536 sip.example.org"}}}, []string{"65536 is not a number"}},
		{"too many parts", []Record{{Name: "www", Zone: "example.org", Type: "SRV", Values: []string{"0 5 5060 sip.example.org x"}}}, []string{"5 parts"}},
		{"a wildcard as target", []Record{{Name: "www", Zone: "example.org", Type: "NS", Values: []string{"*.example.org"}}}, []string{"no wildcard"}},
		{"an unknown parameter", []Record{{Name: "www", Zone: "example.org", Type: "HTTPS", Values: []string{"1 . nonsense=1"}}}, []string{"parameters are not valid"}},
		{"a record in a parameter", []Record{{Name: "www", Zone: "example.org", Type: "HTTPS", Values: []string{"1 . port=1\nevil 0 IN A 192.0.2.1"}}}, []string{"not valid"}},
		{"no values", []Record{{Name: "www", Zone: "example.org", Type: "A"}}, []string{"no values"}},
		{"not an address", []Record{{Name: "www", Zone: "example.org", Type: "A", Values: []string{"localhost"}}}, []string{`"localhost" is not an address`}},
		{"IPv6 in A", []Record{{Name: "www", Zone: "example.org", Type: "A", Values: []string{"2001:db8::1"}}}, []string{"not an IPv4"}},
		{"IPv4 in AAAA", []Record{{Name: "www", Zone: "example.org", Type: "AAAA", Values: []string{"::ffff:192.0.2.1"}}}, []string{"not an IPv6"}},
		{"CNAME at apex", []Record{{Name: "@", Zone: "example.org", Type: "CNAME", Values: []string{"edge.example.net"}}}, []string{"apex"}},
		{"CNAME beside", []Record{{Name: "www", Zone: "example.org", Type: "CNAME", Values: []string{"edge.example.net"}}, {Name: "WWW", Zone: "example.org", Type: "TXT", Values: []string{"x"}}}, []string{"next to another", "TXT"}},
		{"CNAME to itself", []Record{{Name: "www", Zone: "example.org", Type: "CNAME", Values: []string{"www.example.org."}}}, []string{"itself"}},
		{"two targets", []Record{{Name: "www", Zone: "example.org", Type: "CNAME", Values: []string{"a.", "b."}}}, []string{"one target"}},
		{"wildcard inside", []Record{{Name: "a.*", Zone: "example.org", Type: "A", Values: []string{"192.0.2.1"}}}, []string{"wildcard"}},
		{"long label", []Record{{Name: strings.Repeat("a", 64), Zone: "example.org", Type: "A", Values: []string{"192.0.2.1"}}}, []string{"aaa"}},
		{"empty label", []Record{{Name: "a..b", Zone: "example.org", Type: "A", Values: []string{"192.0.2.1"}}}, []string{"empty part"}},
		{"space", []Record{{Name: "a b", Zone: "example.org", Type: "A", Values: []string{"192.0.2.1"}}}, []string{"not a valid name"}},
		{"TTL", []Record{{Name: "www", Zone: "example.org", Type: "A", TTL: -1, Values: []string{"192.0.2.1"}}}, []string{"TTL"}},
		{"CAA", []Record{{Name: "@", Zone: "example.org", Type: "CAA", Values: []string{"issue letsencrypt.org"}}}, []string{"three parts"}},
		{"CAA flags", []Record{{Name: "@", Zone: "example.org", Type: "CAA", Values: []string{`256 issue "x"`}}}, []string{"flags"}},
		{"empty TXT", []Record{{Name: "@", Zone: "example.org", Type: "TXT", Values: []string{""}}}, []string{"empty"}},
		{"twice", []Record{{Name: "www", Zone: "example.org", Type: "A", Values: []string{"192.0.2.1"}, Source: "one"}, {Name: "www.example.org", Type: "a", Values: []string{"192.0.2.2"}, Source: "two"}}, []string{"one", "two", "twice"}},
		{"all at once", []Record{{Name: "x", Type: "A", Values: []string{"192.0.2.1"}}, {Name: "y", Type: "A", Values: []string{"192.0.2.1"}}}, []string{"record x A", "record y A"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Normalize(tc.records, zones)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
			var re *RecordError
			if !errors.As(err, &re) {
				t.Errorf("%T is no RecordError", err)
			}
		})
	}
}

func TestNormalize(t *testing.T) {
	got, err := Normalize([]Record{
		{Name: "WWW.Example.ORG.", Type: "a", Values: []string{"192.0.2.2", "192.0.2.1", "192.0.2.1"}},
		{Name: "bücher", Zone: "Example.org.", Type: "AAAA", TTL: 60, Values: []string{"2001:DB8:0::1"}},
		{Name: "*", Zone: "example.org", Type: "CNAME", Values: []string{"Straße.Example.NET."}},
		{Name: "_acme-Challenge.a", Zone: "sub.example.org", Type: "TXT", Values: []string{`say "hi"`}},
		{Name: "@", Zone: "example.org", Type: "CAA", Values: []string{`0 ISSUE letsencrypt.org`, `128 iodef "mailto:a@example.org"`}},
		{Name: "x.sub.example.org", Type: "A", Values: []string{"192.0.2.3"}},
	}, []string{"example.org", "sub.example.org"})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, r := range got {
		lines = append(lines, fmt.Sprintf("%s|%s|%s|%d|%s", r.Zone, r.Name, r.Type, r.TTL, strings.Join(r.Values, ",")))
	}
	want := []string{
		"example.org|*.example.org|CNAME|300|xn--strae-oqa.example.net",
		"sub.example.org|_acme-challenge.a.sub.example.org|TXT|300|say \"hi\"",
		"example.org|example.org|CAA|300|0 issue \"letsencrypt.org\",128 iodef \"mailto:a@example.org\"",
		"example.org|www.example.org|A|300|192.0.2.1,192.0.2.2",
		"sub.example.org|x.sub.example.org|A|300|192.0.2.3",
		"example.org|xn--bcher-kva.example.org|AAAA|60|2001:db8::1",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}

func TestTXT(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for _, text := range []string{"a", `say "hi"`, `back\slash`, `\000`, strings.Repeat("x", 255), strings.Repeat("y", 256), strings.Repeat("é", 400), string(all), " lead and trail "} {
		q := quoteTXT(text)
		back, err := unquoteTXT(q)
		if err != nil || back != text {
			t.Errorf("%q became %q by %q (%v)", text, back, q, err)
		}
		parts, err := parseStrings(q)
		if err != nil || len(parts) != (len(text)+254)/255 {
			t.Errorf("%d bytes in %d chunks (%v)", len(text), len(parts), err)
		}
	}
	for _, bad := range []string{`"open`, `\`, `"\25"`, `"\999"`} {
		if _, err := unquoteTXT(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

// TestReconcile holds for worlds made at random: after applying,
// a second plan is empty and a second apply writes nothing; what is desired
// and not in conflict is there; nothing foreign has changed; nothing was
// deleted but by policy sync; with and without atomic batches.
func TestReconcile(t *testing.T) {
	t.Parallel()
	rounds := 600
	if testing.Short() {
		rounds = 200
	}
	for seed := range rounds {
		r := rand.New(rand.NewPCG(uint64(seed), 7))
		if err := reconcileOnce(t.Context(), r); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func randomRecords(r *rand.Rand) []Record {
	var out []Record
	for _, name := range []string{"a", "b", "c", "@"} {
		kinds := []string{TypeA, TypeAAAA, TypeTXT}
		if r.IntN(3) == 0 && name != "@" {
			kinds = []string{TypeCNAME}
		}
		for _, typ := range kinds {
			if r.IntN(2) == 0 {
				continue
			}
			n := r.IntN(3)
			v := map[string]string{TypeA: fmt.Sprintf("192.0.2.%d", n), TypeAAAA: fmt.Sprintf("2001:db8::%d", n+1), TypeTXT: fmt.Sprintf("text \" %d", n), TypeCNAME: fmt.Sprintf("t%d.example.net", n)}[typ]
			out = append(out, Record{Zone: []string{zone, "example.net"}[r.IntN(2)], Name: name, Type: typ, TTL: 60 + r.IntN(2), Values: []string{v}})
		}
	}
	return out
}

func reconcileOnce(ctx context.Context, r *rand.Rand) error {
	zones := []string{zone, "example.net"}
	w := &world{zones: map[string]map[Key]Set{zone: {}, "example.net": {}}}
	foreign := map[string]map[Key]Set{zone: {}, "example.net": {}}
	seeded, err := Normalize(randomRecords(r), zones)
	if err != nil {
		return err // never: the generator obeys the rules
	}
	for _, rec := range seeded {
		s := Set{TTL: rec.TTL, Values: rec.Values}
		w.zones[rec.Zone][rec.Key()], foreign[rec.Zone][rec.Key()] = s, s
	}
	var p Provider = &setProvider{backend: w}
	if r.IntN(2) == 0 {
		p = unbatched{p}
	}
	m := &Manager{Owner: "o", Provider: p, Zones: zones, Store: &MemoryStore{}}
	for step := range 4 {
		m.Policy = Policies()[r.IntN(3)]
		m.Adopt = step > 1 && r.IntN(4) == 0
		desired := randomRecords(r)
		before := map[string]map[Key]Set{}
		for z, s := range w.zones {
			before[z] = maps.Clone(s)
		}
		plan, err := m.Plan(ctx, desired)
		if err != nil {
			return err
		}
		res, err := m.Apply(ctx, plan, nil)
		if err != nil || len(res.Failed) > 0 {
			return fmt.Errorf("step %d: apply: %w %v", step, err, res.Failed)
		}
		for _, c := range plan.Changes {
			if c.Adopt {
				delete(foreign[c.Zone], c.Key)
			}
			if c.Action == Delete && m.Policy != Sync {
				return fmt.Errorf("step %d: policy %s deletes %s", step, m.Policy, c.Key)
			}
		}
		for z, sets := range before {
			for key, s := range sets {
				now, there := w.zones[z][key]
				if !there && m.Policy != Sync {
					return fmt.Errorf("step %d: %s is gone with policy %s", step, key, m.Policy)
				}
				if m.Policy == CreateOnly && !now.Equal(s) {
					return fmt.Errorf("step %d: create-only changed %s", step, key)
				}
			}
		}
		for z, sets := range foreign {
			for key, s := range sets {
				if now, there := w.zones[z][key]; !there || !now.Equal(s) {
					return fmt.Errorf("step %d: foreign %s was touched", step, key)
				}
			}
		}
		records, err := Normalize(desired, zones)
		if err != nil {
			return err
		}
		conflicts := map[Key]bool{}
		for _, c := range plan.Changes {
			conflicts[c.Key] = c.Conflict || c.Action == Keep
		}
		for _, rec := range records {
			now, there := w.zones[rec.Zone][rec.Key()]
			if !conflicts[rec.Key()] && (!there || !now.Equal(Set{TTL: rec.TTL, Values: rec.Values})) {
				return fmt.Errorf("step %d: %s is not as desired: %v", step, rec.Key(), now)
			}
		}
		calls := w.calls
		again, err := m.Plan(ctx, desired)
		if err != nil {
			return err
		}
		if !again.Empty() {
			return fmt.Errorf("step %d: the second plan is not empty: %v", step, again.Changes)
		}
		if _, err := m.Apply(ctx, again, nil); err != nil || w.calls != calls {
			return fmt.Errorf("step %d: the second apply wrote (%w)", step, err)
		}
	}
	return nil
}

// Two clusters have stores of their own and one zone: a record belongs to the one that
// wrote it last.
func TestTwoClusters(t *testing.T) {
	t.Parallel()
	www := Key{"www.example.org", TypeA}
	w := &world{zones: map[string]map[Key]Set{zone: {}}}
	record := func(value string) []Record {
		return []Record{{Name: "www", Zone: zone, Type: "A", Values: []string{value}}}
	}
	a := &Manager{Owner: "o", Provider: &setProvider{backend: w}, Zones: []string{zone}, Policy: Sync, Store: &MemoryStore{}}
	b := &Manager{Owner: "o", Provider: &setProvider{backend: w}, Zones: []string{zone}, Policy: Sync, Store: &MemoryStore{}}
	reconcile := func(m *Manager, want string, desired ...Record) *Plan {
		t.Helper()
		p, res, err := m.Reconcile(t.Context(), desired)
		if err != nil || len(res.Failed) > 0 {
			t.Fatal(err, res.Failed)
		}
		if got := w.zones[zone][www].Values; !slices.Equal(got, []string{want}) {
			t.Fatalf("the zone has %q, want %s", got, want)
		}
		return p
	}
	reconcile(a, "192.0.2.1", record("192.0.2.1")...)
	reconcile(a, "192.0.2.2", record("192.0.2.2")...)
	b.Adopt = true
	reconcile(b, "192.0.2.9", record("192.0.2.9")...)
	b.Adopt = false
	p := reconcile(a, "192.0.2.9", record("192.0.2.2")...)
	if len(p.Conflicts()) != 1 || !strings.Contains(p.Conflicts()[0].Reason, "another program has changed it") {
		t.Errorf("got conflicts %+v, want one that names the change", p.Conflicts())
	}
	owned, err := a.Store.Load(t.Context(), "o")
	if err != nil || len(owned.Claims) > 0 {
		t.Errorf("got claims %+v (%v), want none", owned.Claims, err)
	}
	reconcile(a, "192.0.2.9")                         // a deletes nothing by sync
	reconcile(b, "192.0.2.8", record("192.0.2.8")...) // b goes on
	reconcile(a, "192.0.2.8", record("192.0.2.2")...) // a does not write back
	reconcile(b, "192.0.2.8", record("192.0.2.8")...) // nothing has changed for b
	a.Adopt = true
	reconcile(a, "192.0.2.2", record("192.0.2.2")...)
}

// dyingStore is a store of a process that dies after its next write to a zone.
type dyingStore struct {
	*MemoryStore
	w     *world
	calls int // of w, until then
}

func (s *dyingStore) Save(ctx context.Context, owner string, o Ownership) (uint64, error) {
	if s.w.calls > s.calls {
		return 0, errors.New("the process is gone")
	}
	return s.MemoryStore.Save(ctx, owner, o)
}

// A drover that was killed after it changed a record knows it as its own.
func TestManager_KilledAfterAnUpdate(t *testing.T) {
	t.Parallel()
	w := &world{zones: map[string]map[Key]Set{zone: {}}}
	store := &MemoryStore{}
	m := &Manager{Owner: "o", Provider: &setProvider{backend: w}, Zones: []string{zone}, Store: store}
	reconcile := func(value string) (*Plan, error) {
		p, _, err := m.Reconcile(t.Context(), []Record{{Name: "www", Zone: zone, Type: "A", Values: []string{value}}})
		return p, err
	}
	if _, err := reconcile("192.0.2.1"); err != nil {
		t.Fatal(err)
	}
	m.Store = &dyingStore{store, w, w.calls}
	if _, err := reconcile("192.0.2.2"); err == nil {
		t.Fatal("got no error of a process that died")
	}
	m.Store = store
	if p, err := reconcile("192.0.2.3"); err != nil || p.Count(Update) != 1 {
		t.Errorf("got plan %+v and error %v, want an update", p, err)
	}
}

func TestBadRecordDoesNotBlock(t *testing.T) {
	for _, batched := range []bool{true, false} {
		w := &world{zones: map[string]map[Key]Set{zone: {}}, refuse: func(e Edit) bool { return strings.HasPrefix(e.Name, "bad.") }}
		var p Provider = &setProvider{backend: w}
		if !batched {
			p = unbatched{p}
		}
		store := &MemoryStore{}
		m := &Manager{Owner: "o", Provider: p, Zones: []string{zone}, Store: store}
		desired := []Record{
			{Name: "a", Zone: zone, Type: "A", Values: []string{"192.0.2.1"}},
			{Name: "bad", Zone: zone, Type: "A", Values: []string{"192.0.2.1"}},
			{Name: "c", Zone: zone, Type: "A", Values: []string{"192.0.2.1"}},
		}
		plan, err := m.Plan(t.Context(), desired)
		if err != nil {
			t.Fatal(err)
		}
		res, err := m.Apply(t.Context(), plan, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(res.Done) != 2 || len(res.Failed) != 1 || !strings.Contains(res.Failed[0].Error(), "bad.example.org A") {
			t.Errorf("batched %v: done %v, failed %v", batched, res.Done, res.Failed)
		}
		o, _ := store.Load(t.Context(), "o")
		if _, claimed := o.Claims[Key{"bad.example.org", "A"}]; claimed || len(o.Claims) != 2 {
			t.Errorf("claims are %v", o.Claims)
		}
		for key, c := range o.Claims {
			if c.Pending != "" {
				t.Errorf("the claim of %s is still pending", key)
			}
		}
	}
}

// dying fails every write after having done it: a drover killed in between,
// or an answer that got lost.
type dying struct{ *setProvider }

func (d dying) ApplyBatch(ctx context.Context, zone string, edits []Edit) error {
	if err := d.setProvider.ApplyBatch(ctx, zone, edits); err != nil {
		return err
	}
	return &Error{Provider: "world", Kind: KindUnavailable, Msg: "the answer got lost"}
}

func TestLostAnswer(t *testing.T) {
	w := &world{zones: map[string]map[Key]Set{zone: {}}}
	store := &MemoryStore{}
	good := &setProvider{backend: w}
	m := &Manager{Owner: "o", Provider: dying{good}, Zones: []string{zone}, Store: store}
	desired := []Record{{Name: "a", Zone: zone, Type: "A", Values: []string{"192.0.2.1"}}}
	plan, err := m.Plan(t.Context(), desired)
	if err != nil {
		t.Fatal(err)
	}
	if res, err := m.Apply(t.Context(), plan, nil); err != nil || len(res.Failed) != 1 {
		t.Fatalf("%v %v", res, err)
	}
	m.Provider = good
	if plan, err = m.Plan(t.Context(), desired); err != nil {
		t.Fatal(err)
	}
	if plan.Count(Unchanged) != 1 {
		t.Fatalf("the record is not ours: %v", plan.Changes)
	}
	if _, err := m.Apply(t.Context(), plan, nil); err != nil {
		t.Fatal(err)
	}
	if o, _ := store.Load(t.Context(), "o"); o.Claims[Key{"a.example.org", "A"}].Pending != "" {
		t.Error("the claim is still pending")
	}
}

func TestTwoAtOnce(t *testing.T) {
	w := &world{zones: map[string]map[Key]Set{zone: {}}}
	store := &MemoryStore{}
	m := &Manager{Owner: "o", Provider: &setProvider{backend: w}, Zones: []string{zone}, Store: store}
	desired := []Record{{Name: "a", Zone: zone, Type: "A", Values: []string{"192.0.2.1"}}}
	p1, _ := m.Plan(t.Context(), desired)
	p2, _ := m.Plan(t.Context(), desired)
	if _, err := m.Apply(t.Context(), p1, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Apply(t.Context(), p2, nil); !errors.Is(err, ErrChanged) {
		t.Errorf("the second apply said %v", err)
	}
	if w.calls != 1 {
		t.Errorf("%d writes", w.calls)
	}
}

// after calls a function when a batch is written and not yet noted.
type after struct {
	*setProvider
	call func()
}

func (a after) ApplyBatch(ctx context.Context, zone string, edits []Edit) error {
	defer a.call()
	return a.setProvider.ApplyBatch(ctx, zone, edits)
}

// TestWantedAgainWhileDeleted: the controller deletes a record that a deploy
// creates again, and either is the first to note what it did. The record is
// there in the end, and the owner's.
func TestWantedAgainWhileDeleted(t *testing.T) {
	for _, first := range []string{"deletion noted first", "creation noted first"} {
		t.Run(first, func(t *testing.T) {
			good := &setProvider{backend: &world{zones: map[string]map[Key]Set{zone: {}}}}
			store := &MemoryStore{}
			manager := func(policy Policy, written func()) *Manager {
				return &Manager{Owner: "o", Provider: after{good, written}, Zones: []string{zone}, Store: store, Policy: policy}
			}
			desired := []Record{{Name: "a", Zone: zone, Type: "A", Values: []string{"192.0.2.1"}}}
			if _, _, err := manager(UpsertOnly, func() {}).Reconcile(t.Context(), desired); err != nil {
				t.Fatal(err)
			}
			deleted, noted := make(chan error, 1), make(chan error, 1)
			goOn := make(chan struct{})
			go func() {
				_, _, err := manager(Sync, func() { deleted <- nil; <-goOn }).Reconcile(t.Context(), nil)
				deleted <- err // if it never wrote
				noted <- err
			}()
			if err := <-deleted; err != nil {
				t.Fatal(err)
			}
			var deletion error
			finish := func() { close(goOn); deletion = <-noted }
			written := finish
			if first == "creation noted first" {
				written = func() {}
			}
			if _, _, err := manager(UpsertOnly, written).Reconcile(t.Context(), desired); err != nil {
				t.Fatal(err)
			}
			if first == "creation noted first" {
				finish()
			}
			if deletion != nil {
				t.Fatal(deletion)
			}
			plan, err := manager(Sync, func() {}).Plan(t.Context(), desired)
			if err != nil {
				t.Fatal(err)
			}
			o, err := store.Load(t.Context(), "o")
			if err != nil {
				t.Fatal(err)
			}
			if claim, ours := o.Claims[Key{"a.example.org", "A"}]; !ours || claim.Pending != "" || plan.Count(Unchanged) != 1 {
				t.Errorf("claims %v, plan %v", o.Claims, plan.Changes)
			}
		})
	}
}

// TestLibdns is what an ACME solver does with a provider.
func TestLibdns(t *testing.T) {
	w := &world{zones: map[string]map[Key]Set{zone: {}}}
	libdnsContract(t, &setProvider{backend: w}, zone)
}

// libdnsContract holds for every provider. The zone has no such name before.
func libdnsContract(t *testing.T, p Provider, zone string) {
	t.Helper()
	ctx := t.Context()
	one := libdns.TXT{Name: "_acme-challenge.w", Text: "one", TTL: time.Minute}
	two := libdns.TXT{Name: "_acme-challenge.w", Text: `tw"o \`, TTL: time.Minute}
	key := Key{"_acme-challenge.w." + zone, TypeTXT}
	get := func() []string {
		t.Helper()
		sets, err := readZone(ctx, p, zone)
		if err != nil {
			t.Fatal(err)
		}
		return sets[key].Values
	}
	var wg sync.WaitGroup
	for _, r := range []libdns.Record{one, two} {
		wg.Go(func() {
			if _, err := p.AppendRecords(ctx, zone+".", []libdns.Record{r}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := get(); !slices.Equal(got, []string{"one", `tw"o \`}) {
		t.Fatalf("after two appends: %q", got)
	}
	if _, err := p.DeleteRecords(ctx, zone+".", []libdns.Record{one}); err != nil {
		t.Fatal(err)
	}
	if got := get(); !slices.Equal(got, []string{`tw"o \`}) {
		t.Fatalf("after a deletion: %q", got)
	}
	if _, err := p.DeleteRecords(ctx, zone+".", []libdns.Record{one}); err != nil {
		t.Fatalf("deleting what is not there: %v", err)
	}
	if _, err := p.SetRecords(ctx, zone, []libdns.Record{one}); err != nil {
		t.Fatal(err)
	}
	if got := get(); !slices.Equal(got, []string{"one"}) {
		t.Fatalf("after set: %q", got)
	}
	if _, err := p.DeleteRecords(ctx, zone, []libdns.Record{libdns.RR{Name: "_acme-challenge.w", Type: "TXT"}}); err != nil {
		t.Fatal(err)
	}
	if got := get(); len(got) != 0 {
		t.Fatalf("after deleting all: %q", got)
	}
}
