package releasetest

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/drover-nomad/drover/nomad/variables"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
)

// Holder returns a holder of that name.
func Holder(name string) record.Holder {
	return record.Holder{User: name, Host: "host", PID: 7, Command: "drover deploy", Since: time.Now().UTC().Truncate(time.Second)}
}

// TestStore checks the contract of release.Store. open returns the store of a stack
// that has no release; with the same name it returns the same store, as another
// process sees it.
func TestStore(t *testing.T, open func(t *testing.T, stackName string) release.Store) {
	for name, test := range map[string]func(t *testing.T, s, other release.Store){
		"heads": testHeads, "check-and-set": testCheckAndSet, "journal": testJournal, "taken over": testTakenOver, "outlines": testOutlines,
		"blobs": testBlobs, "keep": testKeep, "scrub": testScrub, "watch": testWatch, "lock": testLock, "lock waits": testLockWaits,
		"moved": testMoved, "purge": testPurge,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t, "contract "+name), open(t, "contract "+name))
		})
	}
	for _, name := range []string{"Copy", "Commit"} {
		t.Run("move, interrupted after "+name, func(t *testing.T) {
			t.Parallel()
			testMove(t, open(t, "contract move "+name), open(t, "contract to "+name), name)
		})
	}
}

// testMove moves a record, and does so once more from the beginning after the step of
// that name.
func testMove(t *testing.T, from, to release.Store, interrupted string) {
	p := pack(t, record.Blob{Job: json.RawMessage(`{"ID":"web"}`)})
	if err := from.Store(t.Context(), []record.Packed{p}, nil); err != nil {
		t.Fatal(err)
	}
	create(t, from, &record.Release{Number: 1, State: record.Done, Message: "first"}, record.Service{Name: "web", JobID: "web", Spec: p.Digest})
	create(t, from, &record.Release{Number: 2, State: record.Done}, record.Service{Name: "web", JobID: "web", Spec: p.Digest}, record.Service{Name: "api", JobID: "api"})
	for done := false; !done; {
		done = moveOnce(t, from, to, &interrupted)
	}
	if last, err := from.Last(t.Context()); last != nil || err != nil {
		t.Errorf("the old record: got %+v, %v, want nothing", last, err)
	}
	heads, err := to.List(t.Context())
	if err != nil || len(heads) != 2 || heads[1].Message != "first" {
		t.Fatalf("the new record: got %d releases, %v, want both", len(heads), err)
	}
	for _, h := range heads {
		if h.Stack != to.Stack() || h.Environment != to.Environment() || h.MovedTo != "" {
			t.Errorf("got a release of %s/%s that moves to %q, want the new name and no move", h.Stack, h.Environment, h.MovedTo)
		}
		if lines, err := to.Services(t.Context(), h); err != nil || len(lines) != h.Number {
			t.Errorf("services of release %d: got %+v, %v, want %d", h.Number, lines, err, h.Number)
		}
	}
	if _, err := to.Blob(t.Context(), p.Digest); err != nil {
		t.Errorf("the spec under the new name: got %v, want it", err)
	}
}

// moveOnce makes the steps of a move, and reports whether it made all of them. It ends
// after the step interrupted, which it clears.
func moveOnce(t *testing.T, from, to release.Store, interrupted *string) bool {
	t.Helper()
	for _, s := range []release.Store{from, to} {
		l, err := s.LockToMove(t.Context(), Holder("ann"), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := l.Remove(t.Context()); err != nil {
				t.Error(err)
			}
		}()
	}
	m, err := from.PlanMove(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Plan(); len(got.Heads) > 0 && (len(got.Lines) == 0 || got.Heads[0].Number != 2) {
		t.Errorf("plan: got %d releases and %d lines, the newest %d; want release 2 and lines", got.Releases, len(got.Lines), got.Heads[0].Number)
	}
	for _, step := range []struct {
		name string
		run  func() error
	}{{"Copy", func() error { return m.Copy(t.Context()) }}, {"Commit", func() error { return m.Commit(t.Context()) }}, {"Finish", func() error { return m.Finish(t.Context()) }}} {
		if err := step.run(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if step.name == *interrupted {
			*interrupted = ""
			return false
		}
	}
	return true
}

// must fails the test if there is an error.
func must[T any](t *testing.T, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// create writes a release whose journal is closed.
func create(t *testing.T, s release.Store, h *record.Release, lines ...record.Service) {
	t.Helper()
	h.Stack, h.Environment = s.Stack(), s.Environment()
	if h.Owner == "" {
		h.Owner = "me"
	}
	if err := tryCreate(t, s, h, lines); err != nil {
		t.Fatal(err)
	}
}

func tryCreate(t *testing.T, s release.Store, h *record.Release, lines []record.Service) error {
	t.Helper()
	j, err := s.Create(t.Context(), h, lines)
	if err != nil {
		return err
	}
	return j.Close(t.Context())
}

func testHeads(t *testing.T, s, other release.Store) {
	if last := must2(t)(s.Last(t.Context())); last != nil {
		t.Errorf("last of an empty store: got %+v, want none", last)
	}
	if _, err := s.Read(t.Context(), 1); !errors.Is(err, record.ErrNoRelease) {
		t.Errorf("release 1 of an empty store: got %v, want %v", err, record.ErrNoRelease)
	}
	create(t, s, &record.Release{Number: 1, State: record.Done, Message: "first"}, record.Service{Name: "web", JobID: "web", Spec: "1"})
	create(t, s, &record.Release{Number: 2, State: record.Running}, record.Service{Name: "api", JobID: "api", Spec: "2"})
	if got := must2(t)(other.Last(t.Context())); got.Number != 2 || got.State != record.Running {
		t.Errorf("last: got %+v, want release 2", got)
	}
	heads, err := other.List(t.Context())
	if err != nil || len(heads) != 2 || heads[0].Number != 2 || heads[1].Message != "first" {
		t.Errorf("list: got %d releases, %v, want 2 and 1", len(heads), err)
	}
	if numbers, err := other.Numbers(t.Context()); err != nil || !slices.Equal(numbers, []int{1, 2}) {
		t.Errorf("numbers: got %v, %v, want 1 and 2", numbers, err)
	}
	if now, err := other.Now(t.Context()); err != nil || now.Last.Number != 2 || now.Holder != nil {
		t.Errorf("now: got release %+v, holder %v, %v; want release 2 and no holder", now.Last, now.Holder, err)
	}
	lines, err := other.Services(t.Context(), must2(t)(other.Read(t.Context(), 1)))
	if err != nil || len(lines) != 1 || lines[0].Name != "web" {
		t.Errorf("services of release 1: got %+v, %v, want web", lines, err)
	}
	readable, err := other.Readable(t.Context(), heads[0])
	if err != nil || len(readable) != 1 || readable[0].Name != "api" {
		t.Errorf("readable services of release 2: got %+v, %v, want api", readable, err)
	}
}

// must2 returns must for the results of a call.
func must2(t *testing.T) func(*record.Release, error) *record.Release {
	return func(h *record.Release, err error) *record.Release {
		t.Helper()
		return must(t, h, err)
	}
}

func testCheckAndSet(t *testing.T, s, other release.Store) {
	mine := &record.Release{Number: 1, State: record.Running}
	create(t, s, mine)
	if err := tryCreate(t, other, &record.Release{Number: 1, Owner: "other"}, nil); !errors.Is(err, record.ErrTakenOver) {
		t.Errorf("a second release 1: got %v, want %v", err, record.ErrTakenOver)
	}
	theirs := must2(t)(other.Read(t.Context(), 1))
	theirs.State = record.Done
	if err := other.Save(t.Context(), theirs); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(t.Context(), mine); !errors.Is(err, record.ErrTakenOver) {
		t.Errorf("saving a stale head: got %v, want %v", err, record.ErrTakenOver)
	}
	create(t, s, &record.Release{Number: 2, State: record.Done}, record.Service{Name: "web", Spec: "1"})
	late := &record.Release{Number: 2, Owner: "other"}
	if err := tryCreate(t, other, late, []record.Service{{Name: "api", Spec: "2"}}); !errors.Is(err, record.ErrTakenOver) {
		t.Errorf("a second release 2: got %v, want %v", err, record.ErrTakenOver)
	}
	lines, err := s.Services(t.Context(), must2(t)(s.Read(t.Context(), 2)))
	if err != nil || len(lines) != 1 || lines[0].Name != "web" {
		t.Errorf("the lines of the first release 2 after a second one: got %+v, %v, want web", lines, err)
	}
	changed, err := s.Change(t.Context(), 1, func(h *record.Release) error { h.Message = "changed"; return nil })
	if err != nil || changed.State != record.Done || changed.Message != "changed" {
		t.Errorf("change: got %+v, %v, want what the other process wrote and the message", changed, err)
	}
	no := errors.New("no")
	if _, err := s.Change(t.Context(), 1, func(h *record.Release) error { h.Message = "refused"; return no }); !errors.Is(err, no) {
		t.Errorf("a change that is refused: got %v, want %v", err, no)
	}
	if got := must2(t)(other.Read(t.Context(), 1)); got.Message != "changed" {
		t.Errorf("after a change that is refused: got %q, want %q", got.Message, "changed")
	}
}

func testJournal(t *testing.T, s, other release.Store) {
	head := &record.Release{Number: 1, State: record.Running, Owner: "me"}
	j, err := s.Create(t.Context(), head, []record.Service{{Name: "a", Step: record.StepPending}, {Name: "b", Step: record.StepPending}})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Update(t.Context(), 0, func(l *record.Service) { l.Step = record.StepSubmitting }); err != nil {
		t.Fatal(err)
	}
	lines, err := other.Services(t.Context(), head)
	if err != nil || lines[0].Step != record.StepSubmitting || lines[1].Step != record.StepPending {
		t.Errorf("after an update: got %+v, %v", lines, err)
	}
	j.Note(1, func(l *record.Service) { l.Step = record.StepDone })
	if got := j.Service(1).Step; got != record.StepDone {
		t.Errorf("a line that was noted: got %s, want %s", got, record.StepDone)
	}
	if err := j.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if lines, err = other.Services(t.Context(), head); err != nil || lines[1].Step != record.StepDone {
		t.Errorf("after a flush: got %+v, %v", lines, err)
	}
	j.NoteLater(1, func(l *record.Service) { l.Step = record.StepFailed })
	if err := j.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if lines, err = other.Services(t.Context(), head); err != nil || lines[1].Step != record.StepFailed {
		t.Errorf("a line that was noted for later, after a flush: got %+v, %v", lines, err)
	}
	got := j.Services()
	got[0].Step = record.StepFailed
	if j.Service(0).Step != record.StepSubmitting {
		t.Error("the lines that Services returns are those of the journal")
	}
	if err := j.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func testTakenOver(t *testing.T, s, other release.Store) {
	head := &record.Release{Number: 1, State: record.Running, Owner: "first"}
	first, err := s.Create(t.Context(), head, []record.Service{{Name: "a"}, {Name: "b"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Update(t.Context(), 0, func(l *record.Service) { l.Step = record.StepDone }); err != nil {
		t.Fatal(err)
	}
	read := must2(t)(other.Read(t.Context(), 1))
	second, err := other.TakeOver(t.Context(), read, "second")
	if err != nil {
		t.Fatal(err)
	}
	if got := second.Service(0).Step; got != record.StepDone {
		t.Errorf("the journal that was taken over: got %s, want %s", got, record.StepDone)
	}
	if got := must2(t)(s.Read(t.Context(), 1)); got.Owner != "second" {
		t.Errorf("owner: got %s, want second", got.Owner)
	}
	if err := first.Update(t.Context(), 1, func(l *record.Service) { l.Step = record.StepDone }); !errors.Is(err, record.ErrTakenOver) {
		t.Errorf("an update of the former owner: got %v, want %v", err, record.ErrTakenOver)
	}
	if err := first.Flush(t.Context()); !errors.Is(err, record.ErrTakenOver) {
		t.Errorf("a flush of the former owner: got %v, want %v", err, record.ErrTakenOver)
	}
	if err := s.Save(t.Context(), head); !errors.Is(err, record.ErrTakenOver) {
		t.Errorf("the head of the former owner: got %v, want %v", err, record.ErrTakenOver)
	}
	if err := second.Update(t.Context(), 1, func(l *record.Service) { l.Step = record.StepFailed }); err != nil {
		t.Error(err)
	}
	if err := second.Close(t.Context()); err != nil {
		t.Error(err)
	}
	_ = first.Close(t.Context())
}

func testOutlines(t *testing.T, s, other release.Store) {
	head := &record.Release{Number: 1, State: record.Running, Owner: "first"}
	web, old := json.RawMessage(`{"ID":"web"}`), json.RawMessage(`{"ID":"web","Type":"system"}`)
	first, err := s.Create(t.Context(), head, []record.Service{
		{Name: "web", Spec: "2", Before: "1", Outline: web, BeforeOutline: old}, {Name: "unknown", Spec: "3", Before: "1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		lines, err := other.Services(t.Context(), head)
		if err != nil {
			t.Fatal(err)
		}
		for digest, want := range map[string]json.RawMessage{"2": web, "1": old, "3": nil, "": nil} {
			if got := lines[0].OutlineOf(digest); string(got) != string(want) {
				t.Errorf("%s: the outline of %q is %s, want %s", when, digest, got, want)
			}
		}
		if lines[1].Outline != nil || lines[1].BeforeOutline != nil {
			t.Errorf("%s: got the outlines %s and %s of a line without one", when, lines[1].Outline, lines[1].BeforeOutline)
		}
	}
	check("created")
	if l := first.Service(0); l.Outline != nil {
		t.Errorf("the journal has the outline %s, want none", l.Outline)
	}
	if err := first.Update(t.Context(), 0, func(l *record.Service) { l.Step = record.StepDone }); err != nil {
		t.Fatal(err)
	}
	check("after an update")
	second, err := other.TakeOver(t.Context(), must2(t)(other.Read(t.Context(), 1)), "second")
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Update(t.Context(), 1, func(l *record.Service) { l.Step = record.StepDone }); err != nil {
		t.Fatal(err)
	}
	check("taken over")
	_, _ = first.Close(t.Context()), second.Close(t.Context())
}

func pack(t *testing.T, b record.Blob) record.Packed {
	t.Helper()
	p, err := record.Pack(b)
	return must(t, p, err)
}

func testBlobs(t *testing.T, s, other release.Store) {
	p := pack(t, record.Blob{Job: json.RawMessage(`{"ID":"web"}`), HCL: "job \"web\" {}"})
	for range 2 {
		if err := s.Store(t.Context(), []record.Packed{p, p}, nil); err != nil {
			t.Fatal(err)
		}
	}
	got, err := other.Blob(t.Context(), p.Digest)
	if err != nil || string(got.Job) != `{"ID":"web"}` || got.HCL != "job \"web\" {}" {
		t.Errorf("got %+v, %v", got, err)
	}
	if now, err := other.Now(t.Context()); err != nil || len(now.Blobs) != 1 || !now.Blobs[p.Digest] {
		t.Errorf("the blobs that there are: got %v, %v, want %s", now.Blobs, err, p.Digest)
	}
	l, err := other.Lock(t.Context(), Holder("ann"), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	known := l.Blobs()
	if known != nil && (len(known) != 1 || !known[p.Digest]) {
		t.Errorf("the blobs that there are when the lock is taken: got %v, want %s", known, p.Digest)
	}
	more := pack(t, record.Blob{Job: json.RawMessage(`{"ID":"api"}`)})
	if err := other.Store(t.Context(), []record.Packed{p, more, more}, known); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Blob(t.Context(), more.Digest); err != nil {
		t.Errorf("a blob that was stored under the lock: got %v, want it", err)
	}
	if err := l.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	if got := l.Blobs(); got != nil {
		t.Errorf("the blobs after the lock was removed: got %v, want that they are not known", got)
	}
	if _, err := other.Blob(t.Context(), record.Digest([]byte("none"))); !errors.Is(err, record.ErrMissing) {
		t.Errorf("a blob that is not there: got %v, want %v", err, record.ErrMissing)
	}
}

func testKeep(t *testing.T, s, _ release.Store) {
	for i, state := range []record.State{record.Done, record.Done, record.FailedState, record.Interrupted, record.Reverted, record.Reverted, record.Reverted} {
		p := pack(t, record.Blob{Job: json.RawMessage(`{"ID":"v` + string(rune('1'+i)) + `"}`)})
		if err := s.Store(t.Context(), []record.Packed{p}, nil); err != nil {
			t.Fatal(err)
		}
		create(t, s, &record.Release{Number: i + 1, State: state}, record.Service{Name: "a", Spec: p.Digest})
	}
	removed, err := s.Keep(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	var gone, kept []int
	for _, r := range removed {
		gone = append(gone, r.Number)
		if len(r.Services) != 1 {
			t.Errorf("removed release %d has %d services, want 1", r.Number, len(r.Services))
		}
		if _, err := s.Blob(t.Context(), r.Services[0].Spec); !errors.Is(err, record.ErrMissing) {
			t.Errorf("the spec of release %d: got %v, want %v", r.Number, err, record.ErrMissing)
		}
	}
	heads, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range heads {
		kept = append(kept, h.Number)
	}
	if want := []int{7, 6, 4, 2}; !slices.Equal(kept, want) { // the two newest, the open one, the newest good one
		t.Errorf("kept %v, want %v", kept, want)
	}
	if want := []int{5, 3, 1}; !slices.Equal(gone, want) {
		t.Errorf("removed %v, want %v", gone, want)
	}
}

func testScrub(t *testing.T, s, other release.Store) {
	p := pack(t, record.Blob{Values: json.RawMessage(`{"domain":"example.org","web.token":"in-clear"}`)})
	if err := s.Store(t.Context(), []record.Packed{p}, nil); err != nil {
		t.Fatal(err)
	}
	create(t, s, &record.Release{Number: 1, State: record.Done, Values: p.Digest})
	create(t, s, &record.Release{Number: 2, State: record.Done})
	got, err := s.Scrub(t.Context(), []string{"token"})
	if err != nil || !slices.Equal(got, []int{1}) {
		t.Fatalf("got %v, %v, want release 1", got, err)
	}
	b, err := other.Blob(t.Context(), must2(t)(other.Read(t.Context(), 1)).Values)
	if err != nil || string(b.Values) != `{"domain":"example.org"}` {
		t.Errorf("got %s, %v, want the values without the token", b.Values, err)
	}
	if last := must2(t)(other.Last(t.Context())); !last.IsScrubbed([]string{"token"}) || last.IsScrubbed([]string{"token", "mac"}) {
		t.Errorf("the newest release says %v, want that it and the older ones hold no token", last.Scrubbed)
	}
	if _, err := other.Blob(t.Context(), p.Digest); !errors.Is(err, record.ErrMissing) {
		t.Errorf("the values in clear: got %v, want %v", err, record.ErrMissing)
	}
}

func testWatch(t *testing.T, s, other release.Store) {
	create(t, s, &record.Release{Number: 1, State: record.Running})
	head, index, err := other.Watch(t.Context(), 1, 0)
	if err != nil || head.State != record.Running {
		t.Fatalf("got %+v, %v", head, err)
	}
	soon, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if now, _, err := other.Watch(soon, 1, head.Revision()); err == nil {
		t.Errorf("a head that has not changed since: got %+v, want that the call blocks", now)
	}
	type seen struct {
		head *record.Release
		err  error
	}
	got := make(chan seen, 1)
	go func() {
		h, _, err := other.Watch(t.Context(), 1, index)
		got <- seen{h, err}
	}()
	if _, err := s.Change(t.Context(), 1, func(h *record.Release) error { h.State = record.Done; return nil }); err != nil {
		t.Fatal(err)
	}
	select {
	case n := <-got:
		if n.err != nil || n.head.State != record.Done {
			t.Errorf("got %+v, %v, want state %s", n.head, n.err, record.Done)
		}
	case <-time.After(10 * time.Second):
		t.Error("the change was not seen within 10 s")
	}
}

func testLock(t *testing.T, s, other release.Store) {
	if h, err := s.Holder(t.Context()); h != nil || err != nil {
		t.Fatalf("holder: got %v, %v, want none", h, err)
	}
	l, err := s.Lock(t.Context(), Holder("ann"), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if h, err := other.Holder(t.Context()); err != nil || h == nil || h.User != "ann" {
		t.Errorf("holder: got %v, %v, want ann", h, err)
	}
	if last, err := l.Last(); last != nil || err != nil {
		t.Errorf("last: got %v, %v, want none", last, err)
	}
	if now, err := other.Now(t.Context()); now.Last != nil || now.Holder == nil || now.Holder.User != "ann" || err != nil {
		t.Errorf("now: got release %v, holder %v, %v; want no release and ann", now.Last, now.Holder, err)
	}
	_, err = other.Lock(t.Context(), Holder("bob"), 0, nil)
	var locked *record.LockedError
	if !errors.As(err, &locked) || !errors.Is(err, variables.ErrLocked) || locked.Holder.User != "ann" {
		t.Errorf("a second holder: got %v, want a *record.LockedError that names ann", err)
	}
	select {
	case <-l.Lost():
		t.Error("the lease is lost while it is held")
	default:
	}
	for range 2 { // a lock that is not held any more is no error
		if err := l.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if h, err := other.Holder(t.Context()); h != nil || err != nil {
		t.Errorf("holder: got %v, %v, want none", h, err)
	}
	testLockShowsLast(t, s, other)
}

// A lock comes with the newest release as it is then, also if this process has read
// an older version of its head before.
func testLockShowsLast(t *testing.T, s, other release.Store) {
	t.Helper()
	create(t, s, &record.Release{Number: 1, State: record.Running})
	if _, err := s.Last(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Change(t.Context(), 1, func(h *record.Release) error { h.State = record.Paused; return nil }); err != nil {
		t.Fatal(err)
	}
	l, err := s.Lock(t.Context(), Holder("ann"), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if last, err := l.Last(); err != nil || last == nil || last.Number != 1 || last.State != record.Paused {
		t.Errorf("last: got %+v, %v, want release 1, %s", last, err, record.Paused)
	}
	if err := l.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func testLockWaits(t *testing.T, s, other release.Store) {
	l, err := s.Lock(t.Context(), Holder("ann"), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	waits, got := make(chan record.Holder, 1), make(chan error, 1)
	go func() {
		next, err := other.Lock(t.Context(), Holder("bob"), 30*time.Second, func(h record.Holder) { waits <- h })
		if err == nil {
			err = next.Remove(t.Context())
		}
		got <- err
	}()
	if h := <-waits; h.User != "ann" {
		t.Errorf("waits for %v, want ann", h)
	}
	if err := l.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Errorf("the lock after its holder released it: %v", err)
	}
}

func testMoved(t *testing.T, s, other release.Store) {
	create(t, s, &record.Release{Number: 1, State: record.Done, MovedTo: "other/default"})
	_, err := other.Lock(t.Context(), Holder("ann"), 0, nil)
	var moved *record.MovedError
	if !errors.As(err, &moved) {
		t.Errorf("the lock of a record that is being moved: got %v, want a *record.MovedError", err)
	}
	if h, err := s.Holder(t.Context()); h != nil || err != nil {
		t.Errorf("holder: got %v, %v, want none", h, err)
	}
	l, err := other.LockToMove(t.Context(), Holder("ann"), 0)
	if err != nil {
		t.Fatalf("the lock for the move: got %v, want the lock", err)
	}
	if err := l.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

func testPurge(t *testing.T, s, other release.Store) {
	p := pack(t, record.Blob{Job: json.RawMessage(`{"ID":"web"}`)})
	if err := s.Store(t.Context(), []record.Packed{p}, nil); err != nil {
		t.Fatal(err)
	}
	create(t, s, &record.Release{Number: 1, State: record.Done}, record.Service{Name: "a", Spec: p.Digest})
	if err := s.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if last, err := other.Last(t.Context()); last != nil || err != nil {
		t.Errorf("last: got %v, %v, want none", last, err)
	}
	if _, err := other.Blob(t.Context(), p.Digest); !errors.Is(err, record.ErrMissing) {
		t.Errorf("blob: got %v, want %v", err, record.ErrMissing)
	}
}
