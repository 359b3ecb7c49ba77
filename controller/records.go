package controller

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/drover-nomad/drover/dns"
)

const (
	dnsEvery = 5 * time.Minute
	dnsRetry = time.Minute
	dnsLook  = 30 * time.Second // at the stack
)

// records keeps DNS as the stack wants it.
func (c *controller) records(ctx context.Context) {
	if c.c.DNS == nil {
		return
	}
	var (
		last    string
		wanted  []dns.Record
		applied time.Time
	)
	for {
		m, records, err := c.c.DNS(ctx)
		tried := true
		switch {
		case err != nil:
		case m == nil:
			c.metrics.done("dns") // the stack wants no provider here
		case !reflect.DeepEqual(records, wanted) || time.Since(applied) >= dnsEvery:
			wanted, applied = records, time.Now()
			if err = c.reconcileDNS(ctx, m, records); err != nil {
				applied = applied.Add(dnsRetry - dnsEvery)
				break
			}
			c.metrics.done("dns")
		default:
			tried = false
		}
		if ctx.Err() != nil {
			return
		}
		if tried {
			c.warn("dns", &last, err)
		}
		if !wait(ctx, dnsLook) {
			return
		}
	}
}

func (c *controller) reconcileDNS(ctx context.Context, m *dns.Manager, records []dns.Record) error {
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
	c.metrics.dnsRecords(m.Owner, counts)
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
