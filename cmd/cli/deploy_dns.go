package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/render"
)

// dnsOf is what the stack wants in DNS, nil for nothing. It asks nobody.
func (d *certDeployment) dnsOf(rendered []render.Job) (err error) {
	if s := d.stack; s.DNS != nil && s.DNS.Provider != "" {
		d.dns, err = wantsDNS(s, rendered)
	}
	return err
}

// records makes the DNS records of the stack. Before the rollout, since a CA
// that asks by HTTP-01 finds the edge through them: the edge runs by then, so
// its address is known. Nothing is deleted before the rollout has worked.
func (d *certDeployment) records(ctx context.Context, deployed bool) error {
	if d.dns == nil {
		return nil
	}
	m, records, err := d.dns.manager(ctx, d.clients)
	if err != nil {
		return err
	}
	if m.Policy == dns.Sync && !deployed {
		m.Policy = dns.UpsertOnly
	}
	plan, res, err := m.Reconcile(ctx, records)
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range res.Done {
		d.record(c)
	}
	for _, f := range res.Failed {
		errs = append(errs, f)
	}
	conflicts := plan.Conflicts()
	if m.Policy != d.dns.policy {
		conflicts = nil // the second time tells
	}
	for _, c := range conflicts {
		errs = append(errs, fmt.Errorf("record %s is not as the stack wants it: %s", c.Key, c.Reason))
	}
	for _, e := range plan.Errors {
		errs = append(errs, e)
	}
	return errors.Join(errs...)
}

// record tells a change that was made.
func (d *certDeployment) record(c dns.Change) {
	if d.view.asJSON {
		d.view.json(dnsEvent{Time: time.Now(), Event: "record", Change: c})
		return
	}
	d.view.line("record %s: %s: %s", c.Key, c.Action, contents(c))
}
