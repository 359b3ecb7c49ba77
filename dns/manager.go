package dns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Manager keeps the records of one owner.
type Manager struct {
	Owner    string // for example STACK/ENVIRONMENT
	Provider Provider
	Zones    []string // allow-list; nothing outside of it is ever touched
	Policy   Policy
	Adopt    bool
	Repair   bool              // see Input
	Held     map[string]string // see Input
	Cluster  string            // see Input
	Place    string            // see Claim
	Store    Store
	Clock    Clock         // the real one when nil
	Timeout  time.Duration // of each conversation with the provider; 30 s when 0
}

func (m *Manager) now() time.Time {
	if m.Clock == nil {
		return time.Now()
	}
	return m.Clock.Now()
}

func (m *Manager) timeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, cmp.Or(m.Timeout, 30*time.Second))
}

// Read reads the allowed zones. The errors are those of zones that cannot be read; the
// others are read all the same.
func (m *Manager) Read(ctx context.Context) (map[string]map[Key]Set, []ZoneError) {
	var (
		mu     sync.Mutex
		wg     sync.WaitGroup
		actual = map[string]map[Key]Set{}
		failed []ZoneError
	)
	limit := make(chan struct{}, 8)
	for _, z := range m.Zones {
		wg.Go(func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			zone, err := normalizeZone(z)
			var sets map[Key]Set
			if err == nil {
				ctx, cancel := m.timeout(ctx)
				defer cancel()
				sets, err = readZone(ctx, m.Provider, zone)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = append(failed, ZoneError{cmp.Or(zone, z), err})
				return
			}
			actual[zone] = sets
		})
	}
	wg.Wait()
	slices.SortFunc(failed, func(a, b ZoneError) int { return strings.Compare(a.Zone, b.Zone) })
	return actual, failed
}

// Plan compares desired with what there is. Mistakes in desired are an error of
// [Normalize], and no request is made then.
func (m *Manager) Plan(ctx context.Context, desired []Record) (*Plan, error) {
	records, err := Normalize(desired, m.Zones)
	if err != nil {
		return nil, err
	}
	owned, err := m.Store.Load(ctx, m.Owner)
	if err != nil {
		return nil, err
	}
	others, err := m.Store.Others(ctx, m.Owner, m.Place)
	if err != nil {
		return nil, err
	}
	actual, failed := m.Read(ctx)
	if m.Cluster != "" {
		if records, err = share(records, actual, m.Cluster, m.Owner); err != nil {
			return nil, err
		}
	}
	failed = append(failed, m.adjust(ctx, records, actual)...)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p := NewPlan(Input{Desired: records, Actual: actual, Failed: failed, Owned: owned.Claims, Others: others, Held: m.Held, Cluster: m.Cluster, Now: m.now(), Policy: m.Policy, Adopt: m.Adopt, Repair: m.Repair})
	p.owned = owned
	return p, nil
}

// adjust gives records the form in which the provider can hold them. A zone whose
// records it cannot tell is removed from actual, and is among the errors.
func (m *Manager) adjust(ctx context.Context, records []Record, actual map[string]map[Key]Set) []ZoneError {
	adjuster, ok := m.Provider.(Adjuster)
	if !ok {
		return nil
	}
	want := map[string]map[Key]Set{}
	for _, r := range records {
		if _, readable := actual[r.Zone]; readable {
			if want[r.Zone] == nil {
				want[r.Zone] = map[Key]Set{}
			}
			want[r.Zone][r.Key()] = r.set()
		}
	}
	ctx, cancel := m.timeout(ctx)
	defer cancel()
	var failed []ZoneError
	for zone, sets := range want {
		adjusted, err := adjuster.Adjust(ctx, zone, sets)
		if err != nil {
			delete(actual, zone)
			failed = append(failed, ZoneError{zone, err})
			continue
		}
		for i, r := range records {
			if s, there := adjusted[r.Key()]; there && r.Zone == zone {
				records[i].TTL, records[i].Values, records[i].Proxied = s.TTL, s.Values, s.Proxied
			}
		}
	}
	slices.SortFunc(failed, func(a, b ZoneError) int { return strings.Compare(a.Zone, b.Zone) })
	return failed
}

// Reconcile plans and applies. After a conflict with another process it plans
// once more, from the new state. It plans again after changes to records that other
// clusters share: one of them may have written at the same time.
func (m *Manager) Reconcile(ctx context.Context, desired []Record) (*Plan, Result, error) {
	var done []Change
	for try := 0; ; try++ {
		p, err := m.Plan(ctx, desired)
		if err != nil {
			return nil, Result{Done: done}, err
		}
		res, err := m.Apply(ctx, p, nil)
		changed := len(res.Done)+len(res.Failed) > 0
		done = append(done, res.Done...)
		switch {
		case err == nil && m.Cluster != "" && changed && try < 3:
		case errors.Is(err, ErrChanged) && !changed && try == 0:
		default:
			res.Done = done
			return p, res, err
		}
	}
}

// Failure is a change that was not made.
type Failure struct {
	Change Change
	Err    error
}

func (f Failure) Error() string {
	return fmt.Sprintf("record %s: %s", f.Change.Key, f.Err)
}

func (f Failure) Unwrap() error { return f.Err }

// Result is what Apply did.
type Result struct {
	Done   []Change
	Failed []Failure
}

// Apply makes the changes of a plan of this Manager. Each zone is one batch; if a
// batch is refused, its names are tried one by one, so that an invalid record does
// not block the others. Apply stores a claim before it first writes a record. The
// error is about the store; the result says what happened to the records. Apply
// calls done, if not nil, for each change and its error, from this goroutine.
func (m *Manager) Apply(ctx context.Context, p *Plan, done func(Change, error)) (Result, error) {
	var res Result
	if done == nil {
		done = func(Change, error) {}
	}
	claims := p.owned.clone()
	byZone := map[string][]Change{}
	now := m.now().UTC()
	var settle []Change // whose end is known
	for _, c := range p.Changes {
		switch {
		case c.writes():
			byZone[c.Zone] = append(byZone[c.Zone], c)
		case c.Pending():
			settle = append(settle, c)
		case c.Action == Unchanged && !p.owned.Claims[c.Key].settled(c):
			settle = append(settle, c) // written by a process that died before it stored that
		}
		if c.Action == Create || c.Adopt {
			// Also if there was a claim: its record is gone, and the process that
			// deleted the record may be about to remove the claim.
			claim := Claim{Zone: c.Zone, Since: now, Adopted: c.Adopt, Place: m.Place, Pending: digest(*c.New)}
			if c.mine != nil {
				claim = claim.writes(c.mine)
			}
			claims.Claims[c.Key] = claim
		} else if claim, ours := claims.Claims[c.Key]; ours && c.mine != nil && c.writes() {
			claims.Claims[c.Key] = claim.writes(c.mine)
		} else if ours && c.Action == Update && c.writes() && !c.Ended {
			claim.Writing = valuesDigest(*c.New)
			claims.Claims[c.Key] = claim
		}
	}
	if len(byZone) == 0 && len(settle) == 0 {
		return res, nil
	}
	if !equalClaims(claims.Claims, p.owned.Claims) {
		index, err := m.Store.Save(ctx, m.Owner, claims)
		if err != nil {
			return res, err
		}
		claims.Index = index
	}
	failed := map[Key]error{}
	zones := make([]string, 0, len(byZone))
	for z := range byZone {
		zones = append(zones, z)
	}
	slices.Sort(zones)
	report := func(changes []Change, err error) {
		for _, c := range changes {
			if err != nil {
				failed[c.Key] = err
				res.Failed = append(res.Failed, Failure{c, err})
			} else {
				settle = append(settle, c)
				res.Done = append(res.Done, c)
			}
			done(c, err)
		}
	}
	for _, c := range settle {
		if c.Action != Unchanged {
			res.Done = append(res.Done, c)
			done(c, nil)
		}
	}
	for _, z := range zones {
		m.applyZone(ctx, z, byZone[z], report)
	}
	return res, m.settle(ctx, claims, p.owned, settle, res.Failed)
}

// settle stores how the changes ended. Another process may have changed the claims
// since: settle removes a claim only if it is the one in the plan, and claims a
// written record again if its claim was removed meanwhile.
func (m *Manager) settle(ctx context.Context, claims, before Ownership, settled []Change, failed []Failure) error {
	// Also when the operator has interrupted: the records are there.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	mine := claims
	for try := 0; ; try++ {
		after := claims.clone()
		for _, c := range settled {
			claim, claimed := after.Claims[c.Key]
			switch {
			case c.Action == Delete || c.Action == Forget || c.Ended:
				if claimed && claim.equal(before.Claims[c.Key]) {
					delete(after.Claims, c.Key)
				}
			case !claimed && c.Action != Unchanged:
				claim = mine.Claims[c.Key]
				fallthrough
			case claimed && claim.equal(mine.Claims[c.Key]):
				if c.mine != nil {
					claim = claim.wrote(c.mine, m.now().UTC())
				} else {
					claim.Pending, claim.Writing, claim.Wrote = "", "", valuesDigest(*c.New)
					claim.Shared, claim.Mine, claim.Left = false, nil, nil
				}
				after.Claims[c.Key] = claim
			}
		}
		for _, f := range failed {
			// Only claims of records that were certainly not written are removed.
			if claim := after.Claims[f.Change.Key]; kindOf(f.Err) == KindUnavailable || !claim.equal(mine.Claims[f.Change.Key]) {
				continue
			}
			if was, ours := before.Claims[f.Change.Key]; ours {
				after.Claims[f.Change.Key] = was
			} else {
				delete(after.Claims, f.Change.Key)
			}
		}
		if equalClaims(after.Claims, claims.Claims) {
			return nil
		}
		_, err := m.Store.Save(ctx, m.Owner, after)
		if !errors.Is(err, ErrChanged) || try == 3 {
			return err
		}
		if claims, err = m.Store.Load(ctx, m.Owner); err != nil {
			return err
		}
	}
}

func equalClaims(a, b map[Key]Claim) bool {
	if len(a) != len(b) {
		return false
	}
	for k, c := range a {
		o, there := b[k]
		if !there || !o.equal(c) {
			return false
		}
	}
	return true
}

// Names in a batch: Cloudflare takes 200 records at once, an update of RFC
// 2136 is at most 64 KiB.
const batchSize = 100

// applyZone changes one zone and reports every change exactly once.
func (m *Manager) applyZone(ctx context.Context, zone string, changes []Change, report func([]Change, error)) {
	groups := byName(changes)
	if batcher, ok := m.Provider.(Batcher); ok {
		var left [][]Change
		for batch := range slices.Chunk(groups, batchSize) {
			all := slices.Concat(batch...)
			err := m.batch(ctx, batcher, zone, all)
			if err != nil && len(batch) > 1 && !stopsZone(err) {
				left = append(left, batch...)
				continue
			}
			report(all, err)
		}
		m.each(left, report, func(g []Change) error { return m.batch(ctx, batcher, zone, g) })
		return
	}
	m.each(groups, report, func(g []Change) error { return m.oneByOne(ctx, zone, g) })
}

// each makes the changes name by name, until the zone itself cannot be reached.
func (m *Manager) each(groups [][]Change, report func([]Change, error), apply func([]Change) error) {
	var stopped error
	for _, g := range groups {
		err := stopped
		if err == nil {
			err = apply(g)
		}
		if err != nil && stopsZone(err) {
			stopped = err
		}
		report(g, err)
	}
}

// byName groups changes of the same name: a CNAME that makes room for
// another record must go in the same step. Deletions come first.
func byName(changes []Change) [][]Change {
	var out [][]Change
	at := map[string]int{}
	for _, c := range changes {
		i, there := at[c.Name]
		if !there {
			i = len(out)
			at[c.Name] = i
			out = append(out, nil)
		}
		if c.Action == Delete {
			out[i] = slices.Insert(out[i], 0, c)
		} else {
			out[i] = append(out[i], c)
		}
	}
	return out
}

func (m *Manager) batch(ctx context.Context, b Batcher, zone string, changes []Change) error {
	ctx, cancel := m.timeout(ctx)
	defer cancel()
	edits := make([]Edit, 0, len(changes))
	for _, c := range changes {
		e := Edit{Key: c.Key, Old: c.Old, Set: c.New}
		if c.Action == Delete {
			e.Set = nil
		}
		edits = append(edits, e)
	}
	return b.ApplyBatch(ctx, fqdn(zone), edits)
}

func (m *Manager) oneByOne(ctx context.Context, zone string, changes []Change) error {
	ctx, cancel := m.timeout(ctx)
	defer cancel()
	for _, c := range changes {
		var err error
		if c.Action == Delete {
			_, err = m.Provider.DeleteRecords(ctx, fqdn(zone), toLibdns(zone, c.Key, *c.Old))
		} else {
			_, err = m.Provider.SetRecords(ctx, fqdn(zone), toLibdns(zone, c.Key, *c.New))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
