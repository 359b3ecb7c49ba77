package devtest_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/drover-nomad/drover/devcluster/devtest"
)

// Subtests of a group continue when all have registered. One that ends before it has
// does not stop the others, and nothing is cleaned up while one of them runs.
func TestTogetherIn(t *testing.T) {
	t.Parallel()
	var registered, running, cleaned atomic.Int32
	member := func(t *testing.T, g *devtest.Group) {
		running.Add(1)
		defer running.Add(-1)
		registered.Add(1)
		g.Cleanup(t, func() {
			if n := running.Load(); n > 0 {
				t.Errorf("cleaned up while %d subtests run", n)
			}
			cleaned.Add(1)
		})
		g.Registered()
		if got := registered.Load(); got != 2 {
			t.Errorf("continued when %d of 2 subtests had registered", got)
		}
		g.Registered() // does not wait again
	}
	devtest.TogetherIn(t, map[string]func(*testing.T, *devtest.Group){
		"first": member, "second": member,
		"ends early": func(t *testing.T, _ *devtest.Group) { t.SkipNow() },
	})
	if got := cleaned.Load(); got != 2 {
		t.Errorf("got %d clean-ups, want 2", got)
	}
	var alone *devtest.Group
	alone.Registered()
}

// The function that Start returns waits for the end of the subtest.
func TestStart(t *testing.T) {
	t.Parallel()
	begun, end := make(chan struct{}), make(chan struct{})
	var ended atomic.Bool
	wait := devtest.Start(t, "beside", func(*testing.T) {
		close(begun)
		<-end
		ended.Store(true)
	})
	<-begun
	close(end)
	wait()
	if !ended.Load() {
		t.Error("wait returned before the subtest had ended")
	}
}

// A caller gets an answer that was asked for after it called, and callers that wait get
// the same one.
func TestShared(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	var s devtest.Shared[int32]
	first, release := make(chan struct{}), make(chan struct{})
	answers := make(chan int32, 10)
	go func() {
		answers <- s.Get(func() int32 { close(first); <-release; return asked.Add(1) })
	}()
	<-first // the others come too late for this one
	var called atomic.Int32
	for range 9 {
		go func() {
			called.Add(1)
			answers <- s.Get(func() int32 { return asked.Add(1) })
		}()
	}
	devtest.Until(t, time.Minute, "all have called", func() bool { return called.Load() == 9 })
	close(release)
	got := map[int32]int{}
	for range 10 {
		got[<-answers]++
	}
	if got[1] != 1 || got[2] == 0 {
		t.Errorf("got answers %v, want the first for one caller", got)
	}
	if asked.Load() == 10 {
		t.Error("nothing was shared")
	}
}
