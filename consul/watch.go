package consul

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	capi "github.com/hashicorp/consul/api"
)

// Watcher keeps the instances of a few services up to date by one blocking
// query each (GET /v1/health/service/:name?index=).
type Watcher struct {
	changed chan struct{}

	mu        sync.Mutex
	instances map[string][]Instance
	known     map[string]bool
	err       error
}

// Watch starts to watch names until ctx ends.
func Watch(ctx context.Context, client *capi.Client, names []string) *Watcher {
	w := &Watcher{changed: make(chan struct{}, 1), instances: map[string][]Instance{}, known: map[string]bool{}}
	for _, name := range names {
		go w.follow(ctx, client, name)
	}
	return w
}

// Changed receives after something became different. Several changes may
// arrive as one.
func (w *Watcher) Changed() <-chan struct{} { return w.changed }

// Judge is [Judge] on what is known now. ok is false until every service has
// been answered for once; err is the last failure to reach Consul, nil again
// when it answers.
func (w *Watcher) Judge(services []Service, allocs map[string]string) (h Health, ok bool, err error) {
	w.mu.Lock()
	instances := maps.Clone(w.instances)
	ok, err = true, w.err
	for _, s := range services {
		ok = ok && w.known[s.Name]
	}
	w.mu.Unlock()
	return Judge(services, allocs, instances), ok, err
}

func (w *Watcher) follow(ctx context.Context, client *capi.Client, name string) {
	var index uint64
	const firstPause, longestPause = 250 * time.Millisecond, 8 * time.Second
	pause := firstPause
	for ctx.Err() == nil {
		q := (&capi.QueryOptions{WaitIndex: index, WaitTime: 5 * time.Minute}).WithContext(ctx)
		entries, meta, err := client.Health().Service(name, "", false, q)
		if err != nil {
			w.set(name, nil, fmt.Errorf("reading the health of %s in Consul: %w", name, err))
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
			}
			pause, index = min(2*pause, longestPause), 0
			continue
		}
		pause = firstPause
		if meta.LastIndex < index {
			index = 0 // Consul was restored or restarted: begin again
			continue
		}
		index = max(meta.LastIndex, 1)
		instances := make([]Instance, 0, len(entries))
		for _, e := range entries {
			instances = append(instances, Instance{ServiceID: e.Service.ID, Checks: e.Checks})
		}
		w.set(name, instances, nil)
	}
}

func (w *Watcher) set(name string, instances []Instance, err error) {
	w.mu.Lock()
	w.err = err
	if err == nil {
		w.instances[name] = instances
		w.known[name] = true
	}
	w.mu.Unlock()
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// Read asks once for the checks of all of names
// (GET /v1/health/state/any, filtered): enough to judge services that have
// checks, in one request however many they are.
func Read(ctx context.Context, client *capi.Client, names []string) (map[string][]Instance, error) {
	byID := map[string]*Instance{}
	of := map[string]string{}
	// A long filter would not fit into a URL; the answer is filtered below anyway.
	q := &capi.QueryOptions{}
	want := map[string]bool{}
	for _, n := range names {
		want[n] = true
	}
	if len(names) <= 40 {
		for i, n := range names {
			if i > 0 {
				q.Filter += " or "
			}
			q.Filter += fmt.Sprintf("ServiceName == %q", n)
		}
	}
	checks, _, err := client.Health().State(capi.HealthAny, q.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("reading health checks from Consul: %w", err)
	}
	for _, c := range checks {
		if !want[c.ServiceName] {
			continue
		}
		if byID[c.ServiceID] == nil {
			byID[c.ServiceID] = &Instance{ServiceID: c.ServiceID}
			of[c.ServiceID] = c.ServiceName
		}
		byID[c.ServiceID].Checks = append(byID[c.ServiceID].Checks, c)
	}
	out := map[string][]Instance{}
	for id, in := range byID {
		out[of[id]] = append(out[of[id]], *in)
	}
	return out, nil
}

// Outputs fills in the output of failing checks that the catalog does not
// have yet: an agent reports a new output only with a new status, or after
// minutes. The agent that client talks to knows its own at once
// (GET /v1/agent/checks); those of other nodes stay as they are.
func Outputs(ctx context.Context, client *capi.Client, failing []Failing) []Failing {
	if !slices.ContainsFunc(failing, func(f Failing) bool { return f.Check != "" && f.Output == "" }) {
		return failing
	}
	checks, err := client.Agent().ChecksWithFilterOpts("", (&capi.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return failing
	}
	out := slices.Clone(failing)
	for i, f := range out {
		for _, c := range checks {
			if f.Output == "" && c.Name == f.Check && c.ServiceName == f.Service && strings.Contains(c.ServiceID, f.AllocID) {
				out[i].Output = strings.TrimSpace(c.Output)
			}
		}
	}
	return out
}
