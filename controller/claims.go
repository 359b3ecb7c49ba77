package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/nomad"
)

// claimsPause is between two decisions about routes.
const claimsPause = time.Second

// settleTags is how long the instances of one version may differ in their tags: Nomad
// knows the new version of an allocation before Consul has its tags.
const settleTags = 20 * time.Second

// claims decides whose the routes of the edge are, whenever Consul's catalog changes.
func (c *controller) claims(ctx context.Context) {
	if c.c.Finder == nil {
		return
	}
	var (
		look  = catalog{c: c, services: map[string]service{}, allocs: map[string]allocation{}}
		index uint64
		last  string
		said  = map[string]bool{}
	)
	for wait(ctx, claimsPause) {
		next, err := c.decide(ctx, &look, index, said)
		if ctx.Err() != nil {
			return
		}
		index = next
		if c.warn("routes", &last, err); err == nil {
			c.metrics.done("routes")
			continue
		}
		if index = 0; !wait(ctx, min(dnsLook, c.c.LookEvery)) {
			return
		}
	}
}

// decide makes and publishes one decision, at the next change after index.
func (c *controller) decide(ctx context.Context, look *catalog, index uint64, said map[string]bool) (next uint64, err error) {
	registrations, several, next, err := look.read(ctx, index)
	if err != nil {
		return 0, err
	}
	settings, err := c.c.Finder.Classes(ctx)
	if err != nil || len(settings) == 0 { // without an edge there is nothing to decide
		return next, err
	}
	if asked := edge.Others(settings); !slices.Equal(asked, look.authenticators) {
		look.authenticators = asked
		if registrations, several, next, err = look.read(ctx, 0); err != nil {
			return 0, err
		}
	}
	ledger := edge.Ledger{Client: c.c.Nomad}
	before, first, err := ledger.Load(ctx)
	if err != nil {
		return 0, err
	}
	// The claims of a class whose edges are away stay.
	claims := slices.DeleteFunc(slices.Clone(before), func(claim edge.Claim) bool {
		return slices.ContainsFunc(settings, func(s *edge.Setting) bool { return s.Class() == claim.Class })
	})
	decisions := make([]edge.Decision, len(settings))
	for i, s := range settings {
		decisions[i] = edge.Decide(edge.Claimants{
			Kind: s.Kind, Settings: s.Settings, Registrations: registrations, Several: several,
			Before: slices.DeleteFunc(slices.Clone(before), func(claim edge.Claim) bool { return claim.Class != s.Class() }), First: first,
			Ended: func(claim edge.Claim) (bool, bool) { return c.ended(ctx, claim) }, Now: c.clock.Now().UTC().Truncate(time.Second),
		})
		for _, claim := range decisions[i].Claims {
			claim.Class = s.Class()
			claims = append(claims, claim)
		}
	}
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if err := ledger.Save(ctx, claims); err != nil {
		return 0, err
	}
	counts := map[string]int{}
	now := map[string]bool{}
	shared := map[string]bool{}
	for i, d := range decisions {
		published, partial := d.Publish()
		if err := c.c.Finder.Publish(ctx, settings[i].Jobs, published); err != nil {
			return 0, err
		}
		for _, r := range d.Refused {
			text := fmt.Sprintf("service %s, tag %q: %s", r.Service, r.Tag, r.Message)
			if !now[text] {
				counts[r.Service]++
			}
			now[text] = true
		}
		for host, namespaces := range d.Shared {
			shared[host] = true
			now[fmt.Sprintf("namespaces %s have routes on %s: write down what each may claim in the variable tenants of the stack of the edge", strings.Join(namespaces, ", "), host)] = true
		}
		if partial {
			now["there are more routes than the edge can know beforehand: a route that two services ask for goes to the first in the alphabet for a second"] = true
		}
	}
	for _, text := range slices.Sorted(maps.Keys(now)) {
		if !said[text] {
			c.say("refused", "routes: %s", text)
		}
	}
	maps.Copy(said, now)
	maps.DeleteFunc(said, func(text string, _ bool) bool { return !now[text] })
	c.metrics.routesRefused(counts, len(shared))
	return next, nil
}

// ended reports whether the job of a claim exists no more (GET /v1/job/ID).
func (c *controller) ended(ctx context.Context, claim edge.Claim) (ended, known bool) {
	job, _, err := c.c.Nomad.Jobs().Info(claim.Job, (&api.QueryOptions{Namespace: claim.Namespace}).WithContext(ctx))
	switch {
	case nomad.IsNotFound(err):
		return true, true
	case err != nil:
		return false, false
	}
	return job.Stop != nil && *job.Stop, true
}

// service is what Consul has of a service.
type service struct {
	tags      []string // of all instances together
	instances []*capi.CatalogService
	read      time.Time
	changed   time.Time // the tags
}

// allocation is what Nomad has of an allocation.
type allocation struct{ namespace, job, version string }

// catalog has the services with tags of the edge, and their allocations.
type catalog struct {
	c        *controller
	services map[string]service
	allocs   map[string]allocation // by ID, of the instances
	// authenticators are services without tags of their own.
	authenticators []string
	several        bool // namespaces, when it was read last
	// behind is true if the catalog has changed, and not all instances were read since.
	behind bool
}

// readAgain is the time after which instances are read again at a change of the catalog,
// by the number of services. In a cluster with several namespaces, a new instance may be
// one of another namespace.
func (k *catalog) readAgain(every time.Duration) time.Duration {
	if !k.several {
		return every
	}
	return min(every, max(time.Duration(len(k.services))*20*time.Millisecond, claimsPause))
}

// read waits for a change of Consul's catalog after index, at most until
// instances have to be read again.
func (k *catalog) read(ctx context.Context, index uint64) (all []edge.Registration, several bool, next uint64, err error) {
	every := min(dnsLook, k.c.c.LookEvery)
	again, limit := k.readAgain(every), every
	if k.behind {
		limit = again
	}
	names, meta, err := k.c.c.Consul.Catalog().Services((&capi.QueryOptions{WaitIndex: index, WaitTime: limit}).WithContext(ctx))
	if err != nil {
		return nil, false, 0, fmt.Errorf("listing services: %w", err)
	}
	k.behind = false
	var canaries []string
	for _, tags := range names {
		canaries = append(canaries, tags...)
	}
	others := append(edge.Others(nil, canaries...), k.authenticators...)
	found := map[string]service{}
	unknown := false // an allocation, or its version
	for name, tags := range names {
		tags = slices.DeleteFunc(slices.Clone(tags), func(t string) bool { return !strings.HasPrefix(t, edge.Prefix) })
		if len(tags) == 0 && !slices.Contains(others, name) {
			continue
		}
		slices.Sort(tags)
		s := k.services[name]
		_, known := k.services[name]
		if changed := !known || !slices.Equal(s.tags, tags); changed || time.Since(s.read) >= again {
			if s.read = time.Now(); changed {
				s.tags, s.changed, unknown = tags, s.read, true
			}
			if s.instances, _, err = k.c.c.Consul.Catalog().Service(name, "", (&capi.QueryOptions{}).WithContext(ctx)); err != nil {
				return nil, false, 0, fmt.Errorf("listing the instances of %s: %w", name, err)
			}
		} else if meta.LastIndex != index {
			k.behind = true
		}
		found[name] = s
	}
	k.services = found
	ids := map[string]bool{}
	for _, s := range found {
		for _, i := range s.instances {
			if m := ofAllocation.FindStringSubmatch(i.ServiceID); m != nil {
				ids[m[1]] = true
				_, known := k.allocs[m[1]]
				unknown = unknown || !known
			}
		}
	}
	if unknown {
		list, _, err := k.c.c.Nomad.Allocations().List((&api.QueryOptions{Namespace: "*"}).WithContext(ctx))
		if err != nil {
			return nil, false, 0, fmt.Errorf("listing allocations, to know the namespaces of services: %w", err)
		}
		for _, a := range list {
			if ids[a.ID] {
				k.allocs[a.ID] = allocation{a.Namespace, a.JobID, fmt.Sprintf("%d/%s/%t", a.JobVersion, a.TaskGroup, a.DeploymentStatus != nil && a.DeploymentStatus.Canary)}
			}
		}
	}
	maps.DeleteFunc(k.allocs, func(id string, _ allocation) bool { return !ids[id] })
	namespaces, _, err := k.c.c.Nomad.Namespaces().List((&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nil, false, 0, fmt.Errorf("listing namespaces: %w", err)
	}
	several = len(namespaces) > 1
	defer func() { k.several = several }()
	for _, name := range slices.Sorted(maps.Keys(found)) {
		for _, i := range found[name].instances {
			r := edge.Registration{Service: name, ID: i.ServiceID, Index: i.CreateIndex, Tags: i.ServiceTags}
			if m := ofAllocation.FindStringSubmatch(i.ServiceID); m != nil {
				a, known := k.allocs[m[1]]
				several = several || !known // the token may not look into its namespace
				r.Namespace, r.Job, r.Version, r.Hidden = a.namespace, a.job, a.version, !known
			}
			if time.Since(found[name].changed) < settleTags {
				r.Version += "/" + strings.Join(i.ServiceTags, "\t")
			}
			all = append(all, r)
		}
	}
	return all, several, meta.LastIndex, nil
}
