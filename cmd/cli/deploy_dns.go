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

// dnsBefore makes the records that are needed before the rollout. The
// controller goes on with them, also with what could not be made.
func (d *certDeployment) dnsBefore(ctx context.Context) error {
	if d.dns == nil {
		return nil
	}
	err := d.records(ctx, false)
	if !d.part { // else not all of the hosts are known
		err = errors.Join(err, d.leaveDNS(ctx, false))
	}
	return err
}

// leaveDNS tells the controller what the stack wants, when the rollout has
// worked or before that. Before, nothing is deleted on its account, unless
// that is what was wanted last time.
func (d *certDeployment) leaveDNS(ctx context.Context, deployed bool) error {
	client := d.clients.Nomad
	if d.dns == nil {
		return dns.Wants{Client: client}.Delete(ctx, dns.Owner(d.stack.Name, d.stack.Environment))
	}
	policy := d.dns.Policy
	if policy == dns.Sync && !deployed {
		same, err := dns.Wants{Client: client}.Has(ctx, &d.dns.Wanted)
		if err != nil {
			return err
		}
		if !same {
			policy = dns.UpsertOnly
		}
	}
	return d.dns.leave(ctx, client, policy)
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
	if m.Policy != d.dns.Policy && !d.part {
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
