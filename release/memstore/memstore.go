// Package memstore keeps releases in memory, with the contract of release.Store. It
// is for tests and for programs that need no history.
package memstore

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/drover-nomad/drover/nomad/variables"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
)

// Store keeps the releases of one stack in one environment.
type Store struct {
	stack, env string

	mu       sync.Mutex
	changed  chan struct{} // closed and renewed after each change
	revision uint64
	releases map[int]*stored
	blobs    map[string]record.Blob
	lease    *lease

	// Intercept is called before each write, by the name of the method of Store or
	// Journal that writes. Its error is returned instead. It may be nil.
	Intercept func(op string) error
	// OwnerOf returns the other record that owns a job, nil for none. It may be nil.
	OwnerOf func(record.LiveJob) *record.Owner
	// Others are the releases of the stack in other environments.
	Others []release.Reader
}

// stored is a release as JSON, so that no memory is shared with the callers.
type stored struct {
	head     []byte
	revision uint64
	owner    string // of the journal
	lines    []byte
	outlines [][2]json.RawMessage // of the lines: of their spec and of the one before
}

var _ release.Store = (*Store)(nil)

// New returns an empty store.
func New(stackName, env string) *Store {
	return &Store{stack: stackName, env: env, changed: make(chan struct{}), releases: map[int]*stored{}, blobs: map[string]record.Blob{}}
}

// Stack returns the name of the stack.
func (s *Store) Stack() string { return s.stack }

// Environment returns the name of the environment.
func (s *Store) Environment() string { return s.env }

// announce wakes those who wait for a change. The caller holds mu.
func (s *Store) announce() uint64 {
	s.revision++
	close(s.changed)
	s.changed = make(chan struct{})
	return s.revision
}

func (s *Store) intercept(ctx context.Context, op string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.Intercept != nil {
		return s.Intercept(op)
	}
	return nil
}

func encode(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // every field of a record is plain data
	}
	return text
}

func (s *Store) decode(st *stored) (*record.Release, error) {
	h := &record.Release{}
	if err := json.Unmarshal(st.head, h); err != nil {
		return nil, err
	}
	h.SetRevision(st.revision)
	return h, nil
}

// read returns a head. The caller holds mu.
func (s *Store) read(number int) (*record.Release, error) {
	st := s.releases[number]
	if st == nil {
		return nil, fmt.Errorf("stack %s has %w: %d", s.stack, record.ErrNoRelease, number)
	}
	return s.decode(st)
}

// numbers returns the numbers of the releases, the newest first. The caller holds mu.
func (s *Store) numbers() []int {
	out := slices.Sorted(maps.Keys(s.releases))
	slices.Reverse(out)
	return out
}

// Read implements release.Reader.
func (s *Store) Read(ctx context.Context, number int) (*record.Release, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return s.read(number)
}

// Last implements release.Reader.
func (s *Store) Last(ctx context.Context) (*record.Release, error) {
	heads, err := s.List(ctx)
	if err != nil || len(heads) == 0 {
		return nil, err
	}
	return heads[0], nil
}

// List implements release.Store.
func (s *Store) List(ctx context.Context) ([]*record.Release, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var out []*record.Release
	for _, n := range s.numbers() {
		h, err := s.read(n)
		if err != nil {
			return nil, err
		}
		out = append(out, h)
	}
	return out, nil
}

// Numbers implements release.Store.
func (s *Store) Numbers(ctx context.Context) ([]int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.releases)), ctx.Err()
}

// Now implements release.Store.
func (s *Store) Now(ctx context.Context) (record.Current, error) {
	out := record.Current{Blobs: map[string]bool{}}
	var err error
	if out.Holder, err = s.Holder(ctx); err != nil {
		return out, err
	}
	if out.Last, err = s.Last(ctx); err != nil {
		return out, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for digest := range s.blobs {
		out.Blobs[digest] = true
	}
	return out, nil
}

// Services implements release.Reader.
func (s *Store) Services(ctx context.Context, head *record.Release) ([]record.Service, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	st := s.releases[head.Number]
	if st == nil {
		return nil, &record.UnreadableError{Path: fmt.Sprint("release ", head.Number), Err: record.ErrMissing}
	}
	lines, err := linesOf(st)
	for i, o := range st.outlines {
		if i < len(lines) {
			lines[i].Outline, lines[i].BeforeOutline = o[0], o[1]
		}
	}
	return lines, err
}

func linesOf(st *stored) ([]record.Service, error) {
	var out []record.Service
	return out, json.Unmarshal(st.lines, &out)
}

// Readable implements release.Store.
func (s *Store) Readable(ctx context.Context, head *record.Release) ([]record.Service, error) {
	return s.Services(ctx, head)
}

// Blob implements release.Reader.
func (s *Store) Blob(ctx context.Context, digest string) (record.Blob, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return record.Blob{}, err
	}
	b, ok := s.blobs[digest]
	if !ok {
		return b, &record.UnreadableError{Path: "blob " + digest, Err: record.ErrMissing}
	}
	return b, nil
}

// Watch implements release.Store.
func (s *Store) Watch(ctx context.Context, number int, index uint64) (*record.Release, uint64, error) {
	for {
		s.mu.Lock()
		h, err := s.read(number)
		changed := s.changed
		s.mu.Unlock()
		if err != nil {
			return nil, 0, err
		}
		if h.Revision() != index {
			return h, h.Revision(), nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
}

// OtherEnvironments implements release.Store.
func (s *Store) OtherEnvironments(context.Context) ([]release.Reader, error) { return s.Others, nil }

// Owners implements release.Store.
func (s *Store) Owners(_ context.Context, jobs []record.LiveJob) ([]*record.Owner, error) {
	out := make([]*record.Owner, len(jobs))
	for i, j := range jobs {
		if s.OwnerOf != nil {
			out[i] = s.OwnerOf(j)
		}
	}
	return out, nil
}

// Fits implements release.Store: there is no limit.
func (s *Store) Fits(*record.Release) error { return nil }

// Store implements release.Store.
func (s *Store) Store(ctx context.Context, blobs []record.Packed, _ map[string]bool) error {
	if err := s.intercept(ctx, "Store"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range blobs {
		s.blobs[p.Digest] = p.Blob()
	}
	return nil
}

// save writes a head by check-and-set. The caller holds mu.
func (s *Store) save(head *record.Release) error {
	st := s.releases[head.Number]
	if st == nil && head.Revision() != 0 || st != nil && st.revision != head.Revision() {
		return fmt.Errorf("writing release %d of stack %s: %w", head.Number, s.stack, record.ErrTakenOver)
	}
	if st == nil {
		st = &stored{lines: []byte("[]")}
		s.releases[head.Number] = st
	}
	st.head, st.revision = encode(head), s.announce()
	head.SetRevision(st.revision)
	return nil
}

// Save implements release.Store.
func (s *Store) Save(ctx context.Context, head *record.Release) error {
	if err := s.intercept(ctx, "Save"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.save(head)
}

// Change implements release.Store.
func (s *Store) Change(ctx context.Context, number int, f func(*record.Release) error) (*record.Release, error) {
	if err := s.intercept(ctx, "Change"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h, err := s.read(number)
	if err == nil {
		err = f(h)
	}
	if err == nil {
		err = s.save(h)
	}
	if err != nil {
		return nil, err
	}
	return h, nil
}

// Create implements release.Store.
func (s *Store) Create(ctx context.Context, head *record.Release, services []record.Service) (release.Journal, error) {
	if err := s.intercept(ctx, "Create"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	head.Pages = 1
	if err := s.save(head); err != nil {
		return nil, err
	}
	st := s.releases[head.Number]
	st.owner, st.lines, st.outlines = head.Owner, encode(services), nil
	for _, l := range services {
		st.outlines = append(st.outlines, [2]json.RawMessage{l.Outline, l.BeforeOutline})
	}
	return s.journal(st)
}

// TakeOver implements release.Store.
func (s *Store) TakeOver(ctx context.Context, head *record.Release, owner string) (release.Journal, error) {
	if err := s.intercept(ctx, "TakeOver"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	head.Owner = owner
	if err := s.save(head); err != nil {
		return nil, err
	}
	st := s.releases[head.Number]
	st.owner = owner
	return s.journal(st)
}

func (s *Store) journal(st *stored) (*journal, error) {
	lines, err := linesOf(st)
	return &journal{store: s, release: st, owner: st.owner, lines: lines}, err
}

// Keep implements release.Store.
func (s *Store) Keep(ctx context.Context, most int) ([]record.Removed, error) {
	heads, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	var removed []record.Removed
	good := false
	for i, h := range heads {
		if i >= most && !h.State.Open() && (good || h.State != record.Done) {
			lines, err := s.Services(ctx, h)
			if err != nil {
				return nil, err
			}
			removed = append(removed, record.Removed{Release: h, Services: lines})
		}
		good = good || h.State == record.Done
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range removed {
		delete(s.releases, r.Number)
	}
	if len(removed) > 0 {
		return removed, s.collect()
	}
	return nil, nil
}

// collect deletes the blobs that no release names. The caller holds mu.
func (s *Store) collect() error {
	needed := map[string]bool{}
	for n, st := range s.releases {
		h, err := s.read(n)
		if err != nil {
			return err
		}
		lines, err := linesOf(st)
		if err != nil {
			return err
		}
		needed[h.Values], needed[h.Checks] = true, true
		for _, l := range lines {
			needed[l.Spec], needed[l.Before] = true, true
			if l.Completed != nil {
				needed[l.Completed.Spec] = true
			}
		}
	}
	maps.DeleteFunc(s.blobs, func(digest string, _ record.Blob) bool { return !needed[digest] })
	return nil
}

// Scrub implements release.Store.
func (s *Store) Scrub(ctx context.Context, variables []string) ([]int, error) {
	heads, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	var scrubbed []int
	for _, h := range heads {
		if h.Values == "" {
			continue
		}
		b, err := s.Blob(ctx, h.Values)
		if err != nil {
			return scrubbed, err
		}
		var values map[string]json.RawMessage
		if err := json.Unmarshal(b.Values, &values); err != nil {
			return scrubbed, err
		}
		before := len(values)
		maps.DeleteFunc(values, func(name string, _ json.RawMessage) bool {
			return slices.Contains(variables, name[strings.LastIndex(name, ".")+1:])
		})
		if len(values) == before {
			continue
		}
		packed, err := record.Pack(record.Blob{Values: encode(values)})
		if err != nil {
			return scrubbed, err
		}
		h.Values = packed.Digest
		if err := s.Store(ctx, []record.Packed{packed}, nil); err != nil {
			return scrubbed, err
		}
		if err := s.Save(ctx, h); err != nil {
			return scrubbed, err
		}
		scrubbed = append(scrubbed, h.Number)
	}
	if len(heads) > 0 && !heads[0].IsScrubbed(variables) && !slices.ContainsFunc(heads, func(h *record.Release) bool { return h.State.Open() }) {
		heads[0].Scrubbed = append([]string{}, variables...)
		if err := s.Save(ctx, heads[0]); err != nil {
			return scrubbed, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return scrubbed, s.collect()
}

// Purge implements release.Store.
func (s *Store) Purge(ctx context.Context) error {
	if err := s.intercept(ctx, "Purge"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.releases)
	clear(s.blobs)
	s.announce()
	return nil
}

// Holder implements release.Store.
func (s *Store) Holder(context.Context) (*record.Holder, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease == nil {
		return nil, nil
	}
	h := s.lease.holder
	return &h, nil
}

// Lock implements release.Store.
func (s *Store) Lock(ctx context.Context, h record.Holder, wait time.Duration, waits func(record.Holder)) (release.Lease, error) {
	l, err := s.lock(ctx, h, wait, waits)
	if err != nil {
		return nil, err
	}
	last, err := s.Last(ctx)
	if err == nil && last != nil {
		l.last, err = last, last.MoveError()
	}
	if err != nil {
		_ = l.Remove(ctx)
		return nil, err
	}
	return l, nil
}

// LockToMove implements release.Store.
func (s *Store) LockToMove(ctx context.Context, h record.Holder, wait time.Duration) (release.Lease, error) {
	l, err := s.lock(ctx, h, wait, nil)
	if err != nil {
		return nil, err
	}
	return l, nil
}

func (s *Store) lock(ctx context.Context, h record.Holder, wait time.Duration, waits func(record.Holder)) (*lease, error) {
	if err := s.intercept(ctx, "Lock"); err != nil {
		return nil, err
	}
	late := time.NewTimer(wait)
	defer late.Stop()
	var told *lease
	for {
		s.mu.Lock()
		other, changed := s.lease, s.changed
		if other == nil {
			l := &lease{store: s, holder: h, lost: make(chan struct{})}
			s.lease = l
			s.announce()
			s.mu.Unlock()
			return l, nil
		}
		s.mu.Unlock()
		if wait <= 0 {
			return nil, &record.LockedError{Stack: s.stack, Environment: s.env, Holder: other.holder}
		}
		if waits != nil && told != other {
			waits(other.holder)
		}
		told = other
		select {
		case <-changed:
		case <-late.C:
			return nil, &record.LockedError{Stack: s.stack, Environment: s.env, Holder: other.holder}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Break takes the lock away from its holder, as a lease that ran out.
func (s *Store) Break() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease != nil {
		close(s.lease.lost)
		s.lease = nil
		s.announce()
	}
}

type lease struct {
	store  *Store
	holder record.Holder
	lost   chan struct{}
	last   *record.Release // when the lock was taken
}

// Last implements release.Lease.
func (l *lease) Last() (*record.Release, error) { return l.last, nil }

// Blobs implements release.Lease: to look at memory costs nothing.
func (l *lease) Blobs() map[string]bool { return nil }

func (l *lease) Lost() <-chan struct{} { return l.lost }

// Renew fails: a lock in memory is lost for good.
func (l *lease) Renew(context.Context) (release.Lease, error) {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	if l.store.lease != l {
		return nil, variables.ErrLocked
	}
	return l, nil
}

func (l *lease) Remove(context.Context) error {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	if l.store.lease == l {
		close(l.lost)
		l.store.lease = nil
		l.store.announce()
	}
	return nil
}

// journal writes through: there is nothing to flush.
type journal struct {
	store   *Store
	release *stored
	owner   string

	mu    sync.Mutex
	lines []record.Service
	err   error // of the first write that failed
}

func (j *journal) Services() []record.Service {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.lines)
}

func (j *journal) Service(i int) record.Service {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lines[i]
}

func (j *journal) Note(i int, f func(*record.Service)) {
	_ = j.write(context.Background(), "Note", i, f)
}

func (j *journal) NoteLater(i int, f func(*record.Service)) { j.Note(i, f) }

func (j *journal) Update(ctx context.Context, i int, f func(*record.Service)) error {
	return j.write(ctx, "Update", i, f)
}

func (j *journal) write(ctx context.Context, op string, i int, f func(*record.Service)) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	f(&j.lines[i])
	if j.err != nil {
		return j.err
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	j.err = j.store.intercept(ctx, op)
	j.store.mu.Lock()
	defer j.store.mu.Unlock()
	if j.err == nil && j.release.owner != j.owner {
		j.err = record.ErrTakenOver
	}
	if j.err == nil {
		j.release.lines = encode(j.lines)
	}
	return j.err
}

func (j *journal) Flush(context.Context) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

func (j *journal) Close(ctx context.Context) error { return j.Flush(ctx) }
