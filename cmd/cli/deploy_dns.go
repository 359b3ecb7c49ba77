package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
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
	if d.part { // what the rest wants is not known
		return errors.Join(err, dns.Wants{Client: d.clients.Nomad}.Include(ctx, d.dns.Owner, d.dns.Hosts))
	}
	return errors.Join(err, d.leaveDNS(ctx, false))
}

// leaveDNS tells the controller what the stack wants, when the rollout has
// worked or before that. Before, nothing is deleted on its account, unless
// that is what was wanted last time.
func (d *certDeployment) leaveDNS(ctx context.Context, deployed bool) error {
	client := d.clients.Nomad
	if d.dns == nil {
		return dns.Wants{Client: client}.Delete(ctx, dns.Owner(d.stack.Name, d.stack.Environment))
	}
	pending := false
	if !deployed {
		same, err := dns.Wants{Client: client}.Has(ctx, &d.dns.Wanted)
		if err != nil {
			return err
		}
		pending = !same
	}
	if err := d.dns.leave(ctx, client, pending); err != nil {
		return err
	}
	var err error
	d.left, err = d.dns.Digest()
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

// settled tells how a release has ended, with the last line at the end. When it is
// not left open, the hosts of what runs now are left to the controller: a command
// that works from the record has neither the stack's files nor its credential, and
// a deploy that went back has left those of what did not stay. A deploy that was
// refused meanwhile may also have left those of another release.
func settled(ctx context.Context, d *release.Deployer, res release.Result, view *deployView) error {
	if res.Release == nil || res.Release.State.Open() {
		return view.end(res)
	}
	view.close()
	name, env := d.Releases.Stack(), d.Releases.Environment()
	changed, failed := followRoutes(ctx, d)
	if failed != nil && outcomeCode(res.Outcome()) == exitOK {
		return view.endBut(res, unsettled(failed))
	}
	if failed != nil {
		view.event(release.Event{
			Event: rollout.Event{Time: time.Now(), Kind: release.EventWarning},
			Text:  "the controller does not know what the stack wants in DNS now: " + errorText(failed),
		})
	}
	err := view.end(res)
	if changed {
		view.line("The routes have other hosts: their DNS records are left to the controller (drover dns plan %s -e %s)", name, env)
	}
	return err
}

// unsettled says that a release is at its end, and what it wants in DNS is not.
func unsettled(err error) error {
	return errRefused{fmt.Errorf("the release is at its end, but not what it wants in DNS: %s", errorText(err)), exitCode(err)}
}

// followRoutes says whether the routes of what runs after a release want anything
// else in DNS than what the controller was told last.
func followRoutes(ctx context.Context, d *release.Deployer) (changed bool, err error) {
	err = rollout.Persist(ctx, d.Rollout.Silence, func(ctx context.Context) error {
		clients, err := connect(ctx, false)
		if err != nil {
			return err
		}
		wants := dns.Wants{Client: clients.Nomad}
		more, err := wants.Follow(ctx, dns.Owner(d.Releases.Stack(), d.Releases.Environment()), func(ctx context.Context) (dns.Runs, error) {
			runs, err := d.Again(ctx)
			return dns.Runs{Jobs: nomadJobs(runs.Jobs), Deployed: runs.DNS}, err
		})
		changed = changed || more
		var destroyed *release.DestroyedError
		if errors.As(err, &destroyed) {
			return wants.Delete(ctx, dns.Owner(d.Releases.Stack(), d.Releases.Environment()))
		}
		return err
	})
	if errors.Is(err, record.ErrNoRelease) {
		return false, nil // the first one was given up; destroy removes its records
	}
	return changed, err
}
