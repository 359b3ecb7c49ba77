package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/cmd/cli/view"
	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

func newDNS(streams *IO, f *factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dns",
		Short: "Show and change the DNS records of a stack",
		Long: `Show and change the DNS records of a stack.

The dns block of stack.hcl names the provider, the zones that drover may change,
and the policy. The desired records are the record blocks of the stack and the
hosts of its routes. A Nomad Variable lists the records that drover owns. drover
does not change other records, unless --adopt is given.`,
		Example: `  drover dns plan ocis -e prod
  drover dns apply ocis -e prod`,
	}
	cmd.AddCommand(newDNSPlan(streams, f, false), newDNSPlan(streams, f, true), newDNSList(streams, f), newDNSHandOver(streams, f))
	return cmd
}

// dnsFlags has the flags of every dns command.
type dnsFlags struct {
	stackFlags
	adopt   bool
	timeout time.Duration
	format  string
	listing bool // the desired records are not needed
	factory *factory

	// Set by open.
	wants   *deploy.DNS
	clients nomad.Clients
}

// dnsWork is what one dns block of a stack is about.
type dnsWork struct {
	*dns.Manager
	records []dns.Record
}

func (f *dnsFlags) register(cmd *cobra.Command, clients *factory, jsonHelp string) {
	f.factory = clients
	f.registerWhole(cmd) // records are the stack's
	cmd.Flags().DurationVar(&f.timeout, "timeout", 30*time.Second, "time limit of each exchange with the DNS provider")
	cmd.Flags().StringVarP(&f.format, "output", "o", "text", jsonHelp)
}

// open reads the stack and returns the managers and desired records of its dns blocks:
// none if the stack has no provider in this environment.
func (f *dnsFlags) open(ctx context.Context, arg string) ([]dnsWork, *stack.Stack, error) {
	if err := oneOf("-o", f.format, "text", "json"); err != nil {
		return nil, nil, err
	}
	if f.timeout <= 0 {
		return nil, nil, usagef("--timeout must be greater than 0")
	}
	s, err := f.stack(ctx, arg)
	if err != nil {
		return nil, nil, err
	}
	if len(s.DNS) == 0 {
		return nil, s, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: fmt.Sprintf("The stack %q says nothing about DNS", s.Name),
			Detail: "Write a dns block into its stack.hcl, with provider and zones."}}
	}
	var rendered []render.Job
	routes := false
	for _, d := range s.DNSProviders() {
		d.Routes = d.Routes && !f.listing
		routes = routes || d.Routes
	}
	if routes {
		if rendered, err = render.Stack(ctx, s, render.Options{}); err != nil {
			return nil, s, err
		}
	}
	w, err := deploy.NewDNS(s, rendered, os.Getenv)
	if w == nil {
		return nil, s, err
	}
	clients, err := f.factory.connect(ctx, w.OfEdge())
	if err != nil {
		return nil, s, err
	}
	if err := w.Open(ctx, &deploy.Home{Dial: f.factory.dial}, clients); err != nil {
		return nil, s, err
	}
	var work []dnsWork
	warned := map[string]bool{}
	for _, b := range w.Blocks {
		m, records, err := b.Manager(ctx, clients)
		if err != nil {
			return nil, s, err
		}
		for _, err := range b.Skipped {
			if !warned[err.Error()] {
				warned[err.Error()] = true
				fmt.Fprintf(os.Stderr, "Warning: %s\n", err)
			}
		}
		m.Adopt, m.Timeout = f.adopt, f.timeout
		work = append(work, dnsWork{m, records})
	}
	f.wants, f.clients = w, clients
	return work, s, nil
}

// openRecorded returns the DNS managers of a stack whose source cannot be read,
// from the desired records that its last deployment stored for the controller.
// unread is the error of reading the source; it is returned if nothing is stored.
func (f *dnsFlags) openRecorded(ctx context.Context, arg string, unread error) ([]dnsWork, error) {
	var usage errUsage
	if errors.As(unread, &usage) || asClusterError(unread) != nil {
		return nil, unread
	}
	clients, r, err := f.factory.recorded(ctx, arg, f.environment)
	if err != nil {
		return nil, unread
	}
	wants, owner := dns.DesiredRecords{Client: clients.Nomad}, dns.Owner(r.Stack(), r.Environment())
	blocks, err := wants.Blocks(ctx, owner)
	if err != nil {
		return nil, err
	}
	var work []dnsWork
	for _, block := range blocks {
		w, err := wants.Get(ctx, dns.BlockOwner(owner, block))
		if err != nil {
			return nil, err
		}
		if w == nil {
			continue
		}
		// Without a provider: its server is what the last deployer wrote, and this process
		// has credentials of its own.
		m, _, err := w.Manager(nil, dns.NomadStore{Client: clients.Nomad}, nil)
		if err != nil {
			return nil, err
		}
		m.Timeout = f.timeout
		work = append(work, dnsWork{Manager: m})
	}
	if len(work) == 0 {
		return nil, unread
	}
	return work, nil
}

func newDNSPlan(streams *IO, f *factory, apply bool) *cobra.Command {
	var flags dnsFlags
	cmd := &cobra.Command{
		Use:   "plan STACK",
		Short: "Show what 'drover dns apply' would change",
		Long: `Show what 'drover dns apply' would change, and which records it would not change
and why. It changes nothing.

It exits with 1 if a zone cannot be read.`,
		Example: "  drover dns plan ocis -e prod",
		Args:    exactArgs(1, "STACK"),
	}
	if apply {
		cmd.Use, cmd.Short = "apply STACK", "Create, update and delete the DNS records of a stack"
		cmd.Example = "  drover dns apply ocis -e prod"
		cmd.Long = `Create, update and delete the DNS records of a stack.

Each zone is changed in one request if the provider can do that. If the provider
refuses the request, each name is changed by itself, so that one bad record does
not block the others. Afterwards the controller keeps the records.

It exits with 1 if a record could not be made as the stack wants it.`
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		work, s, err := flags.open(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		ctx := cmd.Context()
		v := &dnsView{io: streams, asJSON: flags.format == "json", owner: dns.Owner(s.Name, s.Environment)}
		if len(work) == 0 {
			if err := v.none(); err != nil || !apply {
				return err
			}
			clients, err := f.connect(ctx, false)
			if err != nil {
				return err
			}
			return dns.DesiredRecords{Client: clients.Nomad}.Delete(ctx, v.owner)
		}
		plans := make([]*dns.Plan, len(work))
		for i, w := range work {
			if plans[i], err = w.Plan(ctx, w.records); err != nil {
				return err
			}
		}
		if !apply {
			return v.plan(work, plans)
		}
		err = v.apply(ctx, work, plans)
		if left := flags.wants.Leave(ctx, flags.clients.Nomad, false); left != nil && ctx.Err() == nil {
			return cmp.Or(err, left)
		}
		return err
	}
	flags.register(cmd, f, "text, or json: one event per line")
	cmd.Flags().BoolVar(&flags.adopt, "adopt", false, "take over existing records that the stack wants and drover does not own")
	return cmd
}

// dnsView prints plans and their results.
type dnsView struct {
	io     *IO
	asJSON bool
	owner  string
	block  string // name of the dns block that is shown
}

// of makes v show what is done in the dns block of an owner.
func (v *dnsView) of(owner string) { _, v.block = dns.StackOwner(owner) }

type dnsEvent struct {
	Time  time.Time `json:"time"`
	Event string    `json:"event"`
	dns.Change
	DNS   string `json:"dns,omitempty"` // name of the dns block
	Error string `json:"error,omitempty"`
}

func (v *dnsView) json(value any) { _ = json.NewEncoder(v.io.Out).Encode(value) }

func (v *dnsView) end(outcome string, code int, counts map[string]int) {
	if v.asJSON {
		v.json(map[string]any{"time": time.Now(), "event": "end", "owner": v.owner, "outcome": outcome, "exit_code": code, "counts": counts})
	}
}

func (v *dnsView) none() error {
	if !v.asJSON {
		fmt.Fprintf(v.io.Out, "%s: no DNS provider in this environment: nothing to do\n", v.owner)
	}
	v.end("unchanged", exitOK, nil)
	return nil
}

var dnsMarks = map[dns.Action]string{dns.Create: "+", dns.Update: "~", dns.Delete: "-", dns.Foreign: "!", dns.Keep: "!"}

// show is a line for one change.
func (v *dnsView) show(c dns.Change) string {
	mark := dnsMarks[c.Action]
	if mark == "" || !c.Conflict && c.Action == dns.Foreign {
		mark = " "
	}
	line := fmt.Sprintf("%s %s\t%s\t%s\t%s", mark, c.Action, c.Name, c.Type, view.FormatChange(c))
	if c.Reason != "" {
		line += "  (" + c.Reason + ")"
	}
	return line
}

func (v *dnsView) changes(p *dns.Plan) {
	if v.asJSON {
		for _, c := range p.Changes {
			v.json(dnsEvent{Time: time.Now(), Event: "plan", Change: c, DNS: v.block})
		}
		return
	}
	w := tabwriter.NewWriter(v.io.Out, 0, 0, 2, ' ', 0)
	for _, c := range p.Changes {
		fmt.Fprintln(w, v.show(c))
	}
	_ = w.Flush()
}

func (v *dnsView) zoneErrors(p *dns.Plan) {
	for _, e := range p.Errors {
		if v.asJSON {
			failed := map[string]any{"time": time.Now(), "event": "zone-failed", "zone": e.Zone, "error": e.Err.Error()}
			if v.block != "" {
				failed["dns"] = v.block
			}
			v.json(failed)
			continue
		}
		fmt.Fprintf(v.io.Err, "Error: %s\n", e)
	}
}

func (v *dnsView) plan(work []dnsWork, plans []*dns.Plan) error {
	code, outcome := exitOK, "unchanged"
	counts := map[string]int{}
	for i, p := range plans {
		v.of(work[i].Owner)
		v.changes(p)
		v.zoneErrors(p)
		for _, c := range p.Changes {
			counts[string(c.Action)]++
		}
		if !p.Empty() {
			outcome = "changes"
		}
		if len(p.Errors) > 0 {
			code = exitError
		}
		if !v.asJSON {
			fmt.Fprintf(v.io.Out, "%s: %s\n", work[i].Owner, dnsTotals(p, len(p.Errors)))
		}
	}
	if code != exitOK {
		outcome = "failed"
	}
	v.end(outcome, code, counts)
	if code != exitOK {
		return errSilent{code}
	}
	return nil
}

func dnsTotals(p *dns.Plan, zones int) string {
	parts := []string{
		fmt.Sprintf("%d to create", p.Count(dns.Create)), fmt.Sprintf("%d to update", p.Count(dns.Update)),
		fmt.Sprintf("%d to delete", p.Count(dns.Delete)), fmt.Sprintf("%d unchanged", p.Count(dns.Unchanged)),
	}
	for _, a := range []dns.Action{dns.Foreign, dns.Keep, dns.Forget} {
		if n := p.Count(a); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, map[dns.Action]string{dns.Foreign: "foreign", dns.Keep: "kept", dns.Forget: "gone"}[a]))
		}
	}
	if zones > 0 {
		parts = append(parts, fmt.Sprintf("%d zones could not be read", zones))
	}
	return strings.Join(parts, ", ")
}

func (v *dnsView) apply(ctx context.Context, work []dnsWork, plans []*dns.Plan) error {
	code, outcome := exitOK, "unchanged"
	total := map[string]int{"failed": 0, "conflicts": 0, "unchanged": 0}
	for i, w := range work {
		v.of(w.Owner)
		p := plans[i]
		counts, err := v.applyOne(ctx, w, p)
		for try := 0; errors.Is(err, dns.ErrChanged) && try < 3; try++ { // by the controller or another client
			if p, err = w.Plan(ctx, w.records); err == nil {
				counts, err = v.applyOne(ctx, w, p)
			}
		}
		if err != nil {
			return err
		}
		if counts["done"] > 0 {
			outcome = "applied"
		}
		delete(counts, "done")
		for what, n := range counts {
			total[what] += n
		}
		if counts["failed"] > 0 || len(p.Errors) > 0 || counts["conflicts"] > 0 {
			code = exitError
		}
	}
	switch {
	case ctx.Err() != nil:
		code, outcome = exitCancelled, "cancelled"
	case code != exitOK:
		outcome = "failed"
	}
	v.end(outcome, code, total)
	if code != exitOK {
		return errSilent{code}
	}
	return nil
}

// applyOne applies the plan of one dns block and returns how many changes ended how.
func (v *dnsView) applyOne(ctx context.Context, w dnsWork, p *dns.Plan) (map[string]int, error) {
	v.zoneErrors(p)
	for _, c := range p.Changes {
		switch {
		case v.asJSON && !c.Pending():
			v.json(dnsEvent{Time: time.Now(), Event: "left", Change: c, DNS: v.block})
		case c.Conflict:
			fmt.Fprintf(v.io.Err, "Error: record %s is not as the stack wants it: %s\n", c.Key, c.Reason)
		}
	}
	res, err := w.Apply(ctx, p, func(c dns.Change, err error) {
		switch {
		case v.asJSON && err != nil:
			v.json(dnsEvent{Time: time.Now(), Event: "failed", Change: c, DNS: v.block, Error: err.Error()})
		case v.asJSON:
			v.json(dnsEvent{Time: time.Now(), Event: "done", Change: c, DNS: v.block})
		case err != nil:
			fmt.Fprintf(v.io.Err, "Error: %s of record %s: %s\n", c.Action, c.Key, err)
		default:
			fmt.Fprintln(v.io.Out, strings.ReplaceAll(v.show(c), "\t", "  "))
		}
	})
	if err != nil {
		return nil, err
	}
	counts := map[string]int{"failed": len(res.Failed), "conflicts": len(p.Conflicts()), "unchanged": p.Count(dns.Unchanged), "done": len(res.Done)}
	for _, c := range res.Done {
		counts[string(c.Action)]++
	}
	if !v.asJSON {
		line := fmt.Sprintf("%s: %d created, %d updated, %d deleted, %d unchanged", w.Owner, counts["create"], counts["update"], counts["delete"], counts["unchanged"])
		if n := len(res.Failed) + len(p.Conflicts()); n > 0 {
			line += fmt.Sprintf(", %d not as wanted", n)
		}
		if len(p.Errors) > 0 {
			line += fmt.Sprintf(", %d zones could not be read", len(p.Errors))
		}
		fmt.Fprintln(v.io.Out, line)
	}
	return counts, nil
}

func newDNSList(streams *IO, f *factory) *cobra.Command {
	flags := dnsFlags{listing: true}
	cmd := &cobra.Command{
		Use:   "list STACK",
		Short: "List the DNS records that drover owns, with their state",
		Long: `List the DNS records that drover owns for a stack, with their present contents.

STACK is a directory, or the name of a stack whose source need not be here. For a name,
the zones are not read, so the state of the records is unknown.`,
		Example: "  drover dns list ocis -e prod",
		Args:    exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			v := &dnsView{io: streams, asJSON: flags.format == "json"}
			work, s, err := flags.open(cmd.Context(), args[0])
			if err == nil {
				v.owner = dns.Owner(s.Name, s.Environment)
			} else if work, err = flags.openRecorded(cmd.Context(), args[0], err); err != nil {
				return err
			}
			if len(work) == 0 {
				return v.none()
			}
			return v.list(cmd.Context(), work)
		},
	}
	flags.register(cmd, f, "text, or json: one record per line")
	return cmd
}

// list prints the owned records with their contents in the zones. If a zone
// cannot be read, its records are listed without contents.
func (v *dnsView) list(ctx context.Context, work []dnsWork) error {
	w := tabwriter.NewWriter(v.io.Out, 0, 0, 2, ' ', 0)
	if !v.asJSON {
		fmt.Fprintln(w, "NAME\tTYPE\tSTATE\tSINCE\tCONTENTS")
	}
	var failed []dns.ZoneError
	unread := false
	for _, m := range work {
		v.of(m.Owner)
		bad, err := v.listOne(ctx, m.Manager, w)
		if err != nil {
			return err
		}
		failed = append(failed, bad...)
		unread = unread || m.Provider == nil
	}
	_ = w.Flush()
	if unread {
		fmt.Fprintln(v.io.Err, "The zones are not read: give the directory of the stack to see what they hold.")
	}
	for _, e := range failed {
		fmt.Fprintf(v.io.Err, "Error: %s\n", e)
	}
	if len(failed) > 0 {
		return errSilent{exitError}
	}
	return nil
}

// listOne prints the records of one dns block to w.
func (v *dnsView) listOne(ctx context.Context, m *dns.Manager, w io.Writer) ([]dns.ZoneError, error) {
	owned, err := m.Store.Load(ctx, m.Owner)
	if err != nil {
		return nil, err
	}
	var (
		actual map[string]map[dns.Key]dns.Set
		failed []dns.ZoneError
	)
	if m.Provider != nil {
		actual, failed = m.Read(ctx)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	type row struct {
		Zone string `json:"zone"`
		dns.Key
		State   string    `json:"state"` // present, gone, unknown
		Set     *dns.Set  `json:"set,omitempty"`
		Since   time.Time `json:"since"`
		Adopted bool      `json:"adopted,omitempty"`
		DNS     string    `json:"dns,omitempty"` // name of the dns block
	}
	keys := slices.SortedFunc(maps.Keys(owned.Claims), func(a, b dns.Key) int { return strings.Compare(a.String(), b.String()) })
	for _, key := range keys {
		c := owned.Claims[key]
		r := row{Zone: c.Zone, Key: key, State: "unknown", Since: c.Since, Adopted: c.Adopted, DNS: v.block}
		text := "-"
		if zone, readable := actual[c.Zone]; readable {
			r.State = "gone"
			if set, there := zone[key]; there {
				r.State, r.Set, text = "present", &set, view.FormatSet(set)
			}
		}
		if v.asJSON {
			v.json(r)
			continue
		}
		if v.block != "" {
			text += "  (" + v.block + ")"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.Name, r.Type, r.State, r.Since.Format(time.DateOnly), text)
	}
	return failed, nil
}

func newDNSHandOver(streams *IO, f *factory) *cobra.Command {
	var flags dnsFlags
	cmd := &cobra.Command{
		Use:   "hand-over STACK",
		Short: "Give the DNS records of a stack away, unchanged",
		Long: `Give the DNS records of a stack away, unchanged, so that another stack or a
drover in another cluster takes them over with 'drover dns apply --adopt'.

STACK is a directory, or the name of a stack whose source need not be here. The command
ends drover's claims on the records and stops the controller from updating them. No
record changes, so that there is no moment without one. Before the next deploy of the
stack, set provider = "" in its dns block: it would ask for the records again.

It exits with 0, also if there was nothing to give away.`,
		Example: "  drover dns hand-over ocis -e prod",
		Args:    exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", flags.format, "text", "json"); err != nil {
				return err
			}
			ctx := cmd.Context()
			v := &dnsView{io: streams, asJSON: flags.format == "json"}
			var clients nomad.Clients
			s, err := flags.stack(ctx, args[0])
			if err == nil {
				v.owner = dns.Owner(s.Name, s.Environment)
				clients, err = f.connect(ctx, false)
			} else if known, r, rerr := f.recorded(ctx, args[0], flags.environment); rerr == nil {
				v.owner, clients, err = dns.Owner(r.Stack(), r.Environment()), known, nil
			}
			if err != nil {
				return err
			}
			keys, err := dns.HandOver(ctx, clients.Nomad, v.owner)
			if err != nil {
				return err
			}
			for _, key := range keys {
				if v.asJSON {
					v.json(dnsEvent{Time: time.Now(), Event: "handed-over", Change: dns.Change{Action: dns.Forget, Key: key}})
				} else {
					fmt.Fprintf(streams.Out, "%s is no longer drover's\n", key)
				}
			}
			if !v.asJSON {
				fmt.Fprintf(streams.Out, "%s: %d records handed over; take them with drover dns apply --adopt\n", v.owner, len(keys))
			}
			v.end("handed-over", exitOK, map[string]int{"handed-over": len(keys)})
			return nil
		},
	}
	flags.factory = f
	flags.registerWhole(cmd)
	cmd.Flags().StringVarP(&flags.format, "output", "o", "text", "text, or json: one event per line")
	return cmd
}
