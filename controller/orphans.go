package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"
)

// ofAllocation is in the ID of a service that Nomad registered.
var ofAllocation = regexp.MustCompile(`^_nomad-task-([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})-`)

// orphan is a registration that no agent removes, such as that of a lost client.
// Consul's deregister_critical_service_after does not remove it, because the agent
// that would act on it is gone too.
type orphan struct {
	ID, Service, Node, Allocation string
	// Sure is true if the service is certainly gone: Nomad knows that the
	// allocation has ended, or the node's Consul agent is dead (it registers its
	// services again when it returns). Otherwise the registration may belong to
	// another Nomad cluster with the same Consul.
	Sure bool
}

func (o orphan) String() string {
	return fmt.Sprintf("service %s of allocation %s on node %s (%s)", o.Service, o.Allocation[:8], o.Node, o.ID)
}

// known is an orphan that was found before.
type known struct {
	said    string // about it, so far
	removed bool
}

// orphans counts registrations whose allocation is over and, with
// Config.SweepOrphans, removes them.
func (c *controller) orphans(ctx context.Context) {
	if c.c.Nomad == nil || c.c.Consul == nil {
		return
	}
	var last string
	met := map[string]*known{}
	for {
		found, err := findOrphans(ctx, c.c.Nomad, c.c.Consul)
		if err == nil {
			err = c.sweep(ctx, found, met)
		}
		if ctx.Err() != nil {
			return
		}
		if c.warn("orphans", &last, err); err == nil {
			c.metrics.done("orphans")
		}
		if !wait(ctx, c.c.LookEvery) {
			return
		}
	}
}

// sweep reports or removes orphans that were found before. A service that is stopping
// is no longer registered the second time.
func (c *controller) sweep(ctx context.Context, found []orphan, met map[string]*known) error {
	left := 0
	var errs []error
	still := map[string]bool{}
	for _, o := range found {
		still[o.ID] = true
		k := met[o.ID]
		if k == nil {
			met[o.ID] = &known{}
			continue
		}
		var text string
		switch {
		case !o.Sure:
			text = "left behind, or of another Nomad cluster, so it stays: " + o.String()
		case !c.c.SweepOrphans:
			text = "left behind, and would be removed with --sweep-orphans: " + o.String()
		case k.removed:
			text = fmt.Sprintf("came back after it was removed: %s; the Consul agent of that node has it: there, consul services deregister -id=%s", o, o.ID)
		default:
			if err := deregister(ctx, c.c.Consul, o); err != nil {
				errs = append(errs, err)
				break
			}
			k.removed = true
			c.say("swept", "removed from Consul: %s", o)
			continue
		}
		left++
		if text != "" && text != k.said {
			c.say("orphan", "%s", text)
			k.said = text
		}
	}
	maps.DeleteFunc(met, func(id string, _ *known) bool { return !still[id] })
	c.metrics.orphaned(left)
	return errors.Join(errs...)
}

// deregister asks the node's own agent when that is ours, and the catalog
// otherwise.
func deregister(ctx context.Context, consul *capi.Client, o orphan) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	self, err := consul.Agent().NodeName()
	if err == nil && self == o.Node {
		err = consul.Agent().ServiceDeregisterOpts(o.ID, (&capi.QueryOptions{}).WithContext(ctx))
	} else if err == nil {
		_, err = consul.Catalog().Deregister(&capi.CatalogDeregistration{Node: o.Node, ServiceID: o.ID}, (&capi.WriteOptions{}).WithContext(ctx))
	}
	if err != nil {
		return fmt.Errorf("removing %s: %w", o, err)
	}
	return nil
}

// findOrphans lists registrations of allocations that do not run (Consul's
// /v1/catalog/service/NAME, Nomad's /v1/allocations), by ID.
func findOrphans(ctx context.Context, nomad *api.Client, consul *capi.Client) ([]orphan, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	ask := (&capi.QueryOptions{}).WithContext(ctx)
	names, _, err := consul.Catalog().Services(ask)
	if err != nil {
		return nil, fmt.Errorf("listing Consul's services: %w", err)
	}
	var found []orphan
	for name := range names {
		instances, _, err := consul.Catalog().Service(name, "", ask)
		if err != nil {
			return nil, fmt.Errorf("listing instances of %s: %w", name, err)
		}
		for _, i := range instances {
			if m := ofAllocation.FindStringSubmatch(i.ServiceID); m != nil {
				found = append(found, orphan{ID: i.ServiceID, Service: name, Node: i.Node, Allocation: m[1]})
			}
		}
	}
	if len(found) == 0 {
		return nil, nil
	}
	// Allocations are listed after: one that started meanwhile is among them.
	allocs, _, err := nomad.Allocations().List((&api.QueryOptions{Namespace: api.AllNamespacesNamespace}).WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("listing allocations: %w", err)
	}
	status := map[string]string{}
	for _, a := range allocs {
		status[a.ID] = a.ClientStatus
	}
	critical, _, err := consul.Health().State(capi.HealthCritical, ask)
	if err != nil {
		return nil, fmt.Errorf("asking Consul which nodes are dead: %w", err)
	}
	dead := map[string]bool{}
	for _, h := range critical {
		if h.CheckID == "serfHealth" {
			dead[h.Node] = true
		}
	}
	out := found[:0]
	for _, o := range found {
		s := status[o.Allocation]
		switch s {
		case api.AllocClientStatusRunning, api.AllocClientStatusPending, api.AllocClientStatusUnknown:
			continue // unknown is a client that may come back
		}
		o.Sure = s != "" || dead[o.Node]
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b orphan) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}
