package consul

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	capi "github.com/hashicorp/consul/api"

	"github.com/drover-nomad/drover/nomad"
)

// Watcher keeps the instances of a few services up to date by one blocking
// query for each and each datacenter (GET /v1/health/service/:name?index=).
type Watcher struct {
	changed     chan struct{}
	datacenters []string

	mu        sync.Mutex
	instances map[where][]Instance
	known     map[where]bool
	errs      map[where]error // the last failure to reach Consul, while it does not answer
}

type where struct{ datacenter, service string }

// Watch starts to watch names in datacenters until ctx ends. No datacenters
// mean the one that client asks.
func Watch(ctx context.Context, client *capi.Client, datacenters, names []string) *Watcher {
	w := &Watcher{
		changed: make(chan struct{}, 1), datacenters: orOwn(datacenters),
		instances: map[where][]Instance{}, known: map[where]bool{}, errs: map[where]error{},
	}
	for _, dc := range w.datacenters {
		for _, name := range names {
			go w.follow(ctx, client, where{dc, name})
		}
	}
	return w
}

func orOwn(datacenters []string) []string {
	if len(datacenters) == 0 {
		return []string{""}
	}
	return datacenters
}

// Changed receives after something became different. Several changes may
// arrive as one.
func (w *Watcher) Changed() <-chan struct{} { return w.changed }

// Judge is [Judge] on what is known now. ok is false until every service has
// been answered for once; err is the last failure to reach Consul, nil again
// when it answers.
func (w *Watcher) Judge(services []Service, allocs map[string]string) (h Health, ok bool, err error) {
	instances := map[string][]Instance{}
	w.mu.Lock()
	ok = true
	for _, name := range Names(services) {
		for _, dc := range w.datacenters {
			at := where{dc, name}
			ok = ok && w.known[at]
			err = cmp.Or(err, w.errs[at])
			instances[name] = append(instances[name], w.instances[at]...)
		}
	}
	w.mu.Unlock()
	return Judge(services, allocs, instances), ok, err
}

func (w *Watcher) follow(ctx context.Context, client *capi.Client, at where) {
	var index uint64
	failures := 0
	for ctx.Err() == nil {
		q := &capi.QueryOptions{Datacenter: at.datacenter, WaitIndex: index, WaitTime: 5 * time.Minute}
		instances, meta, err := instancesOf(ctx, client, at.service, q)
		if err != nil {
			w.set(at, nil, err)
			_ = nomad.StreamBackoff().Wait(ctx, failures)
			failures, index = failures+1, 0
			continue
		}
		failures = 0
		if meta.LastIndex < index {
			index = 0 // Consul was restored or restarted: begin again
			continue
		}
		index = max(meta.LastIndex, 1)
		w.set(at, instances, nil)
	}
}

// instancesOf reads the instances of one service with their checks and those of
// their nodes.
func instancesOf(ctx context.Context, client *capi.Client, name string, q *capi.QueryOptions) ([]Instance, *capi.QueryMeta, error) {
	entries, meta, err := client.Health().Service(name, "", false, q.WithContext(ctx))
	if err != nil {
		return nil, nil, fmt.Errorf("reading the health of %s in Consul: %w", name, err)
	}
	out := make([]Instance, 0, len(entries))
	for _, e := range entries {
		out = append(out, Instance{ServiceID: e.Service.ID, Checks: e.Checks})
	}
	return out, meta, nil
}

func (w *Watcher) set(at where, instances []Instance, err error) {
	w.mu.Lock()
	w.errs[at] = err
	if err == nil {
		w.instances[at] = instances
		w.known[at] = true
	}
	w.mu.Unlock()
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// Read reads once what a [Watcher] would know of services, in datacenters or,
// with none, in the one that client asks. Services that have checks take one
// request for each datacenter however many they are (GET /v1/health/state/any,
// filtered), which tells their instances by their checks; each other one takes
// a request of its own (GET /v1/health/service/:name).
func Read(ctx context.Context, client *capi.Client, datacenters []string, services []Service) (map[string][]Instance, error) {
	var bare []string // without checks
	for _, s := range services {
		if len(s.Checks) == 0 && !s.Proxy {
			bare = append(bare, s.Name)
		}
	}
	slices.Sort(bare)
	bare = slices.Compact(bare)
	checked := slices.DeleteFunc(Names(services), func(name string) bool {
		_, found := slices.BinarySearch(bare, name)
		return found
	})
	out := map[string][]Instance{}
	var (
		mu    sync.Mutex
		wg    sync.WaitGroup
		errs  []error
		slots = make(chan struct{}, 8)
	)
	read := func(f func() (map[string][]Instance, error)) {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			found, err := f()
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
			for name, instances := range found {
				out[name] = append(out[name], instances...)
			}
		})
	}
	for _, dc := range orOwn(datacenters) {
		if len(checked) > 0 {
			read(func() (map[string][]Instance, error) { return readChecks(ctx, client, dc, checked) })
		}
		for _, name := range bare {
			read(func() (map[string][]Instance, error) {
				instances, _, err := instancesOf(ctx, client, name, &capi.QueryOptions{Datacenter: dc})
				return map[string][]Instance{name: instances}, err
			})
		}
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err // the others mostly say the same
		}
	}
	return out, nil
}

// readChecks reads the instances of services, sorted by name, from the list of
// all checks.
func readChecks(ctx context.Context, client *capi.Client, datacenter string, names []string) (map[string][]Instance, error) {
	q := &capi.QueryOptions{Datacenter: datacenter}
	// A longer filter would not fit into a URL; the answer is filtered below anyway.
	if len(names) <= 40 {
		q.Filter = `(ServiceName == "" and Status == "critical")`
		for _, n := range names {
			q.Filter += fmt.Sprintf(" or ServiceName == %q", n)
		}
	}
	checks, _, err := client.Health().State(capi.HealthAny, q.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("reading health checks from Consul: %w", err)
	}
	type key struct{ node, service, id string }
	var order []key
	byID := map[key]*Instance{}
	ofNode := map[string]capi.HealthChecks{}
	for _, c := range checks {
		at := key{c.Node, c.ServiceName, c.ServiceID}
		_, wanted := slices.BinarySearch(names, c.ServiceName)
		switch {
		case c.ServiceID == "":
			ofNode[c.Node] = append(ofNode[c.Node], c)
			continue
		case !wanted:
			continue
		case byID[at] == nil:
			byID[at] = &Instance{ServiceID: c.ServiceID}
			order = append(order, at)
		}
		byID[at].Checks = append(byID[at].Checks, c)
	}
	out := map[string][]Instance{}
	for _, at := range order {
		in := *byID[at]
		in.Checks = append(in.Checks, ofNode[at.node]...)
		out[at.service] = append(out[at.service], in)
	}
	return out, nil
}

// Outputs fills in the output of failing checks that the catalog does not
// have yet: an agent reports a new output only with a new status, or after
// minutes. The agent that client talks to knows its own at once
// (GET /v1/agent/checks). A check of another node, or one that the agent has removed
// while the catalog still has it, keeps its output of before, if it had one.
func Outputs(ctx context.Context, client *capi.Client, failing, before []Failing) []Failing {
	if !slices.ContainsFunc(failing, unexplained) {
		return failing
	}
	// Without an answer of the agent, what was known before has to do.
	checks, _ := client.Agent().ChecksWithFilterOpts("", (&capi.QueryOptions{}).WithContext(ctx))
	out := slices.Clone(failing)
	for i, f := range out {
		if !unexplained(f) {
			continue
		}
		for _, b := range before {
			if b.Check == f.Check && b.Service == f.Service && b.AllocID == f.AllocID && b.Status == f.Status {
				out[i].Output = b.Output
			}
		}
		for _, c := range checks {
			if output := strings.TrimSpace(c.Output); output != "" && c.Name == f.Check && c.ServiceName == f.Service && strings.Contains(c.ServiceID, f.AllocID) {
				out[i].Output = output
			}
		}
	}
	return out
}

// unexplained reports whether a check of an instance fails without an output.
func unexplained(f Failing) bool {
	return f.Check != "" && f.Node == "" && f.Provider == "" && f.Status != Missing && f.Output == ""
}
