package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/dns"
)

const (
	dnsRetry = time.Minute
	dnsLook  = 30 * time.Second // between look-ups of the edge
)

// kept is the state of the records of one stack.
type kept struct {
	wanted  *dns.Wanted
	records []dns.Record
	due     time.Time
	err     error  // of the last attempt
	last    string // the last report about it
}

// records reconciles the DNS records that deployments have stored in the cluster,
// in each namespace of the operator's table.
func (c *controller) records(ctx context.Context) {
	if c.c.Nomad == nil {
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, ns := range c.namespaces() {
		wg.Go(func() { c.recordsIn(ctx, ns) })
	}
}

// namespaces returns the namespaces whose records are reconciled: that of the
// controller, and those of the table.
func (c *controller) namespaces() []string {
	others := slices.DeleteFunc(c.c.Tenancy.Namespaces(), func(ns string) bool { return ns == c.c.namespace() })
	return append(others, c.c.namespace())
}

// namespace returns that of the controller.
func (c *Config) namespace() string { return cmp.Or(c.Namespace, api.DefaultNamespace) }

// in returns the client for a namespace.
func (c *controller) in(namespace string) *api.Client {
	if namespace == c.c.namespace() {
		return c.c.Nomad
	}
	client := *c.c.Nomad
	client.SetNamespace(namespace)
	return &client
}

// recordsIn is records in one namespace. A blocking query reports changes at once.
func (c *controller) recordsIn(ctx context.Context, namespace string) {
	var (
		wants  = dns.DesiredRecords{Client: c.in(namespace)}
		stacks = map[string]*kept{}
		index  uint64
		last   string
	)
	for {
		list, next, err := wants.List(ctx, index, min(dnsLook, c.c.LookEvery))
		index = next
		if ctx.Err() != nil {
			return
		}
		c.warn("dns", &last, err)
		there := map[string]bool{}
		results := make([]error, len(list))
		var wg sync.WaitGroup
		for i, w := range list {
			there[w.Owner] = true
			k := stacks[w.Owner]
			if k == nil {
				k = &kept{}
				stacks[w.Owner] = k
			}
			wg.Go(func() { results[i] = c.keep(ctx, namespace, wants, w, k) })
		}
		wg.Wait()
		if ctx.Err() != nil {
			return
		}
		for owner := range stacks {
			if !there[owner] && err == nil {
				delete(stacks, owner)
				c.metrics.dnsRecords(c.ownerIn(namespace, owner), nil)
			}
		}
		if errors.Join(append(results, err)...) == nil {
			c.metrics.done("dns")
		}
		if (err != nil || index == 0) && !wait(ctx, dnsLook) { // a blocking query needs an index above 0
			return
		}
	}
}

// keep reconciles the records of one stack if they are due or the desired ones changed.
func (c *controller) keep(ctx context.Context, namespace string, wants dns.DesiredRecords, w *dns.Wanted, k *kept) error {
	var (
		where []string
		err   error
	)
	if w.OfEdge() && c.c.Public != nil {
		var skipped []error
		where, skipped, err = c.c.Public(ctx)
		c.skipping.Lock()
		c.warn("edge", &c.skipped, errors.Join(skipped...))
		c.skipping.Unlock()
	}
	var m *dns.Manager
	var records []dns.Record
	if err == nil {
		m, records, err = w.Manager(nil, dns.NomadStore(wants), where)
	}
	if err == nil {
		if reflect.DeepEqual(w, k.wanted) && reflect.DeepEqual(records, k.records) && time.Now().Before(k.due) {
			return k.err
		}
		if m.Provider, err = wants.Open(ctx, w, c.c.Tenancy.DNS(namespace, c.c.Getenv)); err == nil {
			err = c.reconcileDNS(ctx, c.ownerIn(namespace, w.Owner), m, records)
		}
		k.wanted, k.records, k.due = w, records, time.Now().Add(c.c.LookEvery)
		if err != nil {
			k.due = time.Now().Add(min(dnsRetry, c.c.LookEvery))
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var credential *dns.CredentialError
	if errors.As(err, &credential) {
		err = fmt.Errorf("%w. Until then the records of the stack are not updated, and certificates are not renewed by DNS-01 in its zones", err)
	}
	if err != nil {
		err = fmt.Errorf("stack %s: %w", c.ownerIn(namespace, w.Owner), err)
	}
	k.err = err
	c.warn("dns", &k.last, err)
	return err
}

// ownerIn names an owner in logs and metrics: with its namespace, if that is not
// the controller's.
func (c *controller) ownerIn(namespace, owner string) string {
	if namespace == c.c.namespace() {
		return owner
	}
	return namespace + "/" + owner
}

func (c *controller) reconcileDNS(ctx context.Context, owner string, m *dns.Manager, records []dns.Record) error {
	plan, res, err := m.Reconcile(ctx, records)
	if err != nil {
		return err
	}
	counts := map[string]int{"failed": len(res.Failed), "conflict": len(plan.Conflicts())}
	for _, ch := range plan.Changes {
		if !ch.Pending() {
			counts[string(ch.Action)]++
		}
	}
	for _, ch := range res.Done {
		c.say("dns", "%s %s", ch.Action, ch.Key)
	}
	c.metrics.dnsRecords(owner, counts)
	var errs []error
	for _, f := range res.Failed {
		errs = append(errs, fmt.Errorf("%s of record %s: %w", f.Change.Action, f.Change.Key, f.Err))
	}
	for _, ch := range plan.Conflicts() {
		errs = append(errs, fmt.Errorf("record %s is not as the stack wants it: %s", ch.Key, ch.Reason))
	}
	for _, e := range plan.Errors {
		errs = append(errs, e)
	}
	return errors.Join(errs...)
}
