package record

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad/variables"
)

func holder(name string) Holder {
	return Holder{User: name, Host: "h", PID: 7, Command: "drover deploy", Since: time.Now().UTC().Truncate(time.Second)}
}

// seen is whether the lock is held for who may not see it, which takes a
// management token where there are ACLs.
func seen(t *testing.T, r *Releases) bool {
	t.Helper()
	v, _, err := r.client.Variables().Peek(r.lockPath(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return v != nil && variables.IsLocked(nil, v.CreateIndex, v.ModifyIndex)
}

func testLock(t *testing.T, c *api.Client, _ *tamper) {
	r := OpenReleases(c, "lock", "default")
	if h, err := r.Holder(t.Context()); h != nil || err != nil {
		t.Fatalf("%v, %v", h, err)
	}
	l, err := r.Lock(t.Context(), holder("ann"), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !seen(t, r) {
		t.Error("only a management token sees that the lock is held")
	}
	_, err = r.Lock(t.Context(), holder("bob"), 0, nil)
	var locked *LockedError
	if !errors.As(err, &locked) || !errors.Is(err, variables.ErrLocked) || locked.Holder.User != "ann" || !strings.Contains(err.Error(), "ann@h (pid 7) with `drover deploy` since") {
		t.Fatalf("second deployer: %v", err)
	}
	if other, err := OpenReleases(c, "lock", "prod").Lock(t.Context(), holder("bob"), 0, nil); err != nil {
		t.Errorf("another environment: %v", err)
	} else {
		_ = other.Release(t.Context())
	}
	waits := make(chan Holder, 1)
	got := make(chan error, 1)
	go func() {
		l, err := r.Lock(t.Context(), holder("bob"), 30*time.Second, func(h Holder) { waits <- h })
		if err == nil {
			err = l.Remove(t.Context())
		}
		got <- err
	}()
	if h := <-waits; h.User != "ann" {
		t.Errorf("it waits for %v", h)
	}
	if err := l.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	released := time.Now()
	if err := <-got; err != nil || time.Since(released) > 5*time.Second {
		t.Fatalf("after %s: %v", time.Since(released), err)
	}
	if h, err := r.Holder(t.Context()); h != nil || err != nil {
		t.Errorf("left behind: %v, %v", h, err)
	}

	// Taken away by force, the holder notices.
	if l, err = r.Lock(t.Context(), holder("ann"), 0, nil); err != nil {
		t.Fatal(err)
	}
	if was, err := r.Unlock(t.Context()); !was || err != nil {
		t.Fatalf("%v, %v", was, err)
	}
	if was, err := r.Unlock(t.Context()); was || err != nil || seen(t, r) {
		t.Fatalf("%v, %v", was, err)
	}
	select {
	case <-l.Lost():
	case <-time.After(LockTTL):
		t.Error("the holder did not notice")
	}
	if err := l.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	if seen(t, r) {
		t.Error("the lock is seen after it was given back")
	}
}

// A holder that does not renew is out after twice the lease and a second.
func testLockOfTheDead(t *testing.T, c *api.Client, _ *tamper) {
	r := OpenReleases(c, "dead", "default")
	text, err := json.Marshal(holder("dead"))
	if err != nil {
		t.Fatal(err)
	}
	v := &api.Variable{Path: r.lockPath(), Items: api.VariableItems{variables.LayoutItem: "1", "holder": string(text)}, Lock: &api.VariableLock{TTL: LockTTL.String(), LockDelay: "1s"}}
	if _, _, err := c.Variables().AcquireLock(v, nil); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	l, err := r.Lock(t.Context(), holder("next"), 3*LockTTL, nil)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(begun)
	t.Logf("the next one is in after %s", took.Round(time.Second))
	if took > 2*LockTTL+5*time.Second {
		t.Errorf("after %s", took)
	}
	if !seen(t, r) {
		t.Error("only a management token sees that the lock is held")
	}
	if err := l.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

func lines(n int) []Service {
	out := make([]Service, n)
	for i := range out {
		out[i] = Service{Name: fmt.Sprint("svc-", i), JobID: fmt.Sprint("svc-", i), Change: ChangeCreate, Step: StepPending, Spec: Digest([]byte{byte(i), byte(i >> 8)})}
	}
	return out
}

func testReleases(t *testing.T, c *api.Client, rt *tamper) {
	r := OpenReleases(c, "a stack.of mine", "prod")
	r.pageServices = 150 // so that one target has several pages
	if last, err := r.Last(t.Context()); last != nil || err != nil {
		t.Fatalf("%v, %v", last, err)
	}
	if _, err := r.Read(t.Context(), 3); !errors.Is(err, ErrNoRelease) {
		t.Fatal(err)
	}
	services := lines(320)
	services[200].Target = "far"
	slices.SortStableFunc(services, func(a, b Service) int { return strings.Compare(a.Target, b.Target) })
	head := &Release{Number: 1, Stack: "a stack.of mine", State: Running, Owner: "me", By: holder("ann")}
	j, err := r.Create(t.Context(), head, services)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if head.Pages != 4 { // 150, 150, 19 and the one of the other target
		t.Errorf("%d pages", head.Pages)
	}
	again, err := r.Last(t.Context())
	if err != nil || again.By != head.By || again.Number != 1 {
		t.Fatalf("%+v, %v", again, err)
	}
	got, err := r.Services(t.Context(), again)
	if err != nil || len(got) != 320 || got[200].Name != services[200].Name || got[319].Target != "far" {
		t.Fatalf("%d services, %v", len(got), err)
	}

	// Two of the same number: the second one loses.
	if _, err := r.Create(t.Context(), &Release{Number: 1, Owner: "other"}, nil); !errors.Is(err, ErrTakenOver) {
		t.Errorf("a second release 1: %v", err)
	}
	again.State = Done
	if err := r.Save(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	if err := r.Save(t.Context(), head); !errors.Is(err, ErrTakenOver) {
		t.Errorf("a write over that of another process: got %v", err)
	}
	stacks, err := Stacks(t.Context(), c)
	if err != nil || !slices.Contains(stacks, "a stack.of mine/prod") {
		t.Errorf("%v, %v", stacks, err)
	}

	// Blobs are stored once.
	p, err := Pack(Blob{Job: json.RawMessage(`{"ID":"web"}`), HCL: "job \"web\" {}"})
	if err != nil {
		t.Fatal(err)
	}
	rt.writes = 0
	for range 2 {
		if err := r.Store(t.Context(), []Packed{p, p}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if rt.writes != 1 {
		t.Errorf("%d writes", rt.writes)
	}
	b, err := r.Blob(t.Context(), p.Digest)
	if err != nil || string(b.Job) != `{"ID":"web"}` || b.HCL != `job "web" {}` {
		t.Errorf("%+v, %v", b, err)
	}
	if _, err := r.Blob(t.Context(), "0000"); err == nil {
		t.Error("a blob that is not there")
	}
}

func TestPackLimit(t *testing.T) {
	t.Parallel()
	noise := func(n int) string {
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
		b := make([]byte, n)
		rng := rand.NewChaCha8([32]byte{1})
		_, _ = rng.Read(b)
		for i := range b {
			b[i] = alphabet[int(b[i])%len(alphabet)]
		}
		return string(b)
	}
	job := func(n int) json.RawMessage { return json.RawMessage(`{"ID":"` + noise(n) + `"}`) }
	p, err := Pack(Blob{Job: job(50_000), HCL: noise(100_000)})
	if err != nil {
		t.Fatal(err)
	}
	text, err := variables.Pack(p.blob)
	if err != nil || len(text) > blobLimit {
		t.Fatalf("%d bytes, %v", len(text), err)
	}
	var back Blob
	if err := variables.Unpack(text, &back); err != nil || back.HCL != "" || len(back.Job) < 50_000 {
		t.Errorf("the job should stay and the text go: %d, %d, %v", len(back.Job), len(back.HCL), err)
	}
	_, err = Pack(Blob{Job: job(80_000)})
	var large *TooLargeError
	if !errors.As(err, &large) || large.Size <= blobLimit {
		t.Errorf("too large: %v", err)
	}
}

func testJournal(t *testing.T, c *api.Client, rt *tamper) {
	r := OpenReleases(c, "journal", "default")
	head := &Release{Number: 1, State: Running, Owner: "me"}
	j, err := r.Create(t.Context(), head, lines(20))
	if err != nil {
		t.Fatal(err)
	}
	rt.writes = 0
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if err := j.Update(t.Context(), i, func(s *Service) { s.Step = StepSubmitting }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got, err := r.Services(t.Context(), head)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range got {
		if s.Step != StepSubmitting {
			t.Errorf("%s is %s", s.Name, s.Step)
		}
	}
	if rt.writes > 20 {
		t.Errorf("%d writes for 20 steps at once", rt.writes)
	}
	t.Logf("%d writes for 20 steps at once", rt.writes)

	// A write whose answer was lost is not taken for that of another process.
	rt.mu.Lock()
	rt.lose = true
	rt.mu.Unlock()
	if err := j.Update(t.Context(), 3, func(s *Service) { s.Step = StepSubmitted }); err != nil {
		t.Errorf("answer lost: %v", err)
	}
	j.Note(4, func(s *Service) { s.Step = StepDone })
	if err := j.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err = r.Services(t.Context(), head); err != nil || got[3].Step != StepSubmitted || got[4].Step != StepDone {
		t.Errorf("%v, %v", got, err)
	}
}

func testTakeOver(t *testing.T, c *api.Client, _ *tamper) {
	r := OpenReleases(c, "takeover", "default")
	head := &Release{Number: 1, State: Running, Owner: "first"}
	first, err := r.Create(t.Context(), head, lines(3))
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Update(t.Context(), 0, func(s *Service) { s.Step = StepSubmitting }); err != nil {
		t.Fatal(err)
	}
	mine, err := r.Read(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	second, err := r.TakeOver(t.Context(), mine, "second")
	if err != nil {
		t.Fatal(err)
	}
	if got := second.Services(); got[0].Step != StepSubmitting {
		t.Errorf("%+v", got)
	}
	if err := first.Update(t.Context(), 1, func(s *Service) { s.Step = StepSubmitting }); !errors.Is(err, ErrTakenOver) {
		t.Errorf("the first one goes on: %v", err)
	}
	select {
	case <-first.lost:
	default:
		t.Error("the first one does not know")
	}
	if err := second.Update(t.Context(), 1, func(s *Service) { s.Step = StepSubmitting }); err != nil {
		t.Error(err)
	}
	if err := second.Close(t.Context()); err != nil {
		t.Error(err)
	}
	_ = first.Close(context.WithoutCancel(t.Context()))
}

func testKeep(t *testing.T, c *api.Client, _ *tamper) {
	r := OpenReleases(c, "keep", "default")
	states := []State{Done, Done, FailedState, Interrupted, Reverted, Reverted, Reverted}
	for i, st := range states {
		p, err := Pack(Blob{Job: json.RawMessage(fmt.Sprintf(`{"ID":"v%d"}`, i))})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Store(t.Context(), []Packed{p}, nil); err != nil {
			t.Fatal(err)
		}
		j, err := r.Create(t.Context(), &Release{Number: i + 1, State: st, Owner: "me"}, []Service{{Name: "a", Spec: p.Digest}})
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	removed, err := r.Keep(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	numbers, err := r.Numbers(t.Context())
	// The two newest, the one that is open and the last good one.
	if err != nil || !slices.Equal(numbers, []int{2, 4, 6, 7}) || len(removed) != 3 {
		t.Errorf("kept %v, %d removed, %v", numbers, len(removed), err)
	}
	for i := range states {
		_, err := r.Blob(t.Context(), Digest([]byte(fmt.Sprintf(`{"ID":"v%d"}`, i))))
		if (err == nil) != slices.Contains(numbers, i+1) {
			t.Errorf("blob of release %d: %v", i+1, err)
		}
	}
	if err := r.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	list, _, err := c.Variables().PrefixList(r.folder+"/", nil)
	if err != nil || len(list) > 0 {
		t.Errorf("%d left, %v", len(list), err)
	}
}

func testNewerRelease(t *testing.T, c *api.Client, _ *tamper) {
	r := OpenReleases(c, "newer", "default")
	v := &api.Variable{Path: r.headPath(1), Items: api.VariableItems{variables.LayoutItem: "3", "release": "{}"}}
	if _, _, err := c.Variables().Create(v, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Last(t.Context()); err == nil || !strings.Contains(err.Error(), "newer drover (layout 3, this one knows 2): update drover") {
		t.Errorf("%v", err)
	}
}

// loseAnswer forwards a request and loses the answer.
func loseAnswer(r *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err == nil {
		_ = resp.Body.Close()
		err = errors.New("connection reset by peer")
	}
	return nil, err
}

// A Nomad that is busy, and one whose answer is lost, keep no release from
// being written, nor its lock from being given back.
func testBusy(t *testing.T, c *api.Client, rt *tamper) {
	r := OpenReleases(c, "busy", "default")
	busy := func() {
		rt.mu.Lock()
		defer rt.mu.Unlock()
		rt.busy = 2
	}
	busy()
	l, err := r.Lock(t.Context(), holder("ann"), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	busy()
	head := &Release{Number: 1, Stack: "busy", Environment: "default", State: Running}
	if err := r.Save(t.Context(), head); err != nil {
		t.Fatal(err)
	}
	rt.mu.Lock()
	rt.busy, rt.lose = 0, true
	rt.mu.Unlock()
	head.State = Done
	if err := r.Save(t.Context(), head); err != nil {
		t.Errorf("the answer was lost: %v", err)
	}
	if got, err := r.Read(t.Context(), 1); err != nil || got.State != Done {
		t.Errorf("%v, %v", got, err)
	}
	busy()
	if err := l.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h, err := r.Holder(t.Context()); h != nil || err != nil {
		t.Errorf("left behind: %v, %v", h, err)
	}
}
