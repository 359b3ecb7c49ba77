package devtest

import (
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
)

// Start runs a subtest beside what follows in the test, and returns a function that
// waits for its end. The test must call it before it ends, also when it fails:
//
//	wait := devtest.Start(t, "quiet", quiet)
//	defer wait()
//
// A subtest that calls t.Parallel instead waits for a slot of -parallel, begins when
// the test function has returned, and cannot be waited for.
func Start(t *testing.T, name string, test func(*testing.T)) (wait func()) {
	t.Helper()
	var running sync.WaitGroup
	running.Go(func() { t.Run(name, test) })
	return running.Wait
}

// Together runs subtests side by side and returns when all have ended. It is for
// subtests that share a server and wait for it more than they compute: what they
// register is loaded at once.
func Together(t *testing.T, tests map[string]func(*testing.T)) {
	t.Helper()
	var running sync.WaitGroup
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		running.Go(func() { t.Run(name, tests[name]) })
	}
	running.Wait()
}

// Group are subtests that register services at one edge. The edge loads the services of
// all at once, and they stay until all have ended: a reload would cut the connections
// of a subtest that is silent, and costs a second or more. A nil *Group is a test that
// runs alone.
type Group struct {
	arrive  func()
	missing *sync.WaitGroup

	mu   *sync.Mutex
	last *[]func()
}

// TogetherIn is Together for subtests that share an edge. Each registers its services
// and then calls Registered.
func TogetherIn(t *testing.T, tests map[string]func(*testing.T, *Group)) {
	t.Helper()
	var missing sync.WaitGroup
	var mu sync.Mutex
	var last []func()
	missing.Add(len(tests))
	var running sync.WaitGroup
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		running.Go(func() {
			g := &Group{arrive: sync.OnceFunc(missing.Done), missing: &missing, mu: &mu, last: &last}
			defer g.arrive() // when it has failed, or is not to run
			t.Run(name, func(t *testing.T) { tests[name](t, g) })
		})
	}
	running.Wait()
	for _, f := range last {
		f()
	}
}

// Registered waits until every subtest of the group has called it or has ended.
func (g *Group) Registered() {
	if g != nil {
		g.arrive()
		g.missing.Wait()
	}
}

// Cleanup calls f when all subtests of the group have ended, or t when g is nil.
func (g *Group) Cleanup(t testing.TB, f func()) {
	if g == nil {
		t.Cleanup(f)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	*g.last = append(*g.last, f)
}

// Shared is an answer that subtests which run side by side share, so that twelve that
// wait for the same do not ask twelve times as often.
type Shared[T any] struct {
	mu    sync.Mutex
	asked time.Time
	value T
}

// Get returns what look returns, or has returned in a call that began after Get was
// called.
func (s *Shared[T]) Get(look func() T) T {
	called := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.asked.After(called) {
		s.asked = time.Now()
		s.value = look()
	}
	return s.value
}

// Cataloged waits until Consul's catalog has the services of its agent, with their
// tags, and no others. The agent tells the servers after it has answered.
func Cataloged(t testing.TB, limit time.Duration, consul *capi.Client) {
	t.Helper()
	node, err := consul.Agent().NodeName()
	if err != nil {
		t.Fatal(err)
	}
	Until(t, limit, "Consul's catalog has what its agent has", func() bool {
		agent, err := consul.Agent().Services()
		if err != nil {
			return false
		}
		known, _, err := consul.Catalog().NodeServiceList(node, nil)
		if err != nil {
			return false
		}
		for _, s := range known.Services {
			if here := agent[s.ID]; here != nil && slices.Equal(here.Tags, s.Tags) {
				delete(agent, s.ID)
			} else if s.ID != "consul" { // of the server itself
				return false
			}
		}
		return len(agent) == 0
	})
}
