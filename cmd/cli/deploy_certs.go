package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/jobs"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// servedWithin is how long the edge may take to serve what is stored.
const servedWithin = time.Minute

// deployCerts is what deploy does beside the rollout for a stack with
// certificates and routes: stand-in → edge → DNS records → issued → served. None of it needs
// the stack's own jobs, so it comes first.
type deployCerts struct {
	skip    bool
	noCheck bool

	done certDeployment
}

func (c *deployCerts) register(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&c.skip, "no-certificates", false, "look after neither certificates nor DNS records nor the edge")
	cmd.Flags().BoolVar(&c.noCheck, "no-check", false, "ask the CA without looking first whether the names can be proven")
}

// deployStack deploys one of the stacks that ship, and returns the number of the
// release, 0 when none was needed.
type deployStack func(*stack.Stack, []render.Job, *release.Saved) (int, error)

// before does everything up to where the certificates are served. part says
// that rendered is not all of the stack. One that
// cannot be had does not keep the stack from running: after tells. check returns
// an error if the stack itself cannot be deployed; it is called before anything
// is written.
func (c *deployCerts) before(ctx context.Context, streams *IO, s *stack.Stack, rendered []render.Job, part, asJSON bool, check func() error, run deployStack) error {
	if c.skip {
		return nil
	}
	d := &c.done
	*d = certDeployment{stack: s, part: part, view: newDeployView(streams, s.Name, s.Environment, asJSON), run: run, fresh: map[string]bool{}}
	d.routes = edge.Requested(nomadJobs(rendered))
	if err := d.certificates(c.noCheck); err != nil {
		return err
	}
	if err := d.dnsOf(rendered); err != nil {
		return err
	}
	if len(d.specs) == 0 && len(d.routes) == 0 && d.dns == nil {
		return nil
	}
	if err := check(); err != nil {
		return err
	}
	if err := d.before(ctx, streams); err != nil {
		return err
	}
	if d.failed != nil {
		d.view.line("Warning: %s", d.failed)
	}
	return nil
}

// after is how the command ends, err being how the rollout did, made its release
// and silence how long Nomad may not answer.
func (c *deployCerts) after(ctx context.Context, made int, silence time.Duration, err error) error {
	if d := &c.done; err == nil && d.stack != nil && !d.part {
		err := d.finish(ctx, made, silence)
		if err != nil && made > 0 {
			err = unsettled(err)
		}
		d.failed = errors.Join(d.failed, err)
	}
	if err != nil || c.done.failed == nil {
		return err
	}
	c.done.end()
	return errTold{certError(c.done.failed)}
}

// finish does what waits until the rollout has worked.
func (d *certDeployment) finish(ctx context.Context, made int, silence time.Duration) error {
	var err error
	if d.clients.Nomad == nil { // of a stack without certificates, whose rollout has looked at the server
		if d.clients, err = rollout.Reach(ctx, &stack.Target{}, false); err != nil {
			return err
		}
	}
	if d.dns != nil && d.dns.Policy == dns.Sync {
		err = d.records(ctx, true)
	}
	releases := record.OpenReleases(d.clients.Nomad, d.stack.Name, d.stack.Environment)
	return errors.Join(err, rollout.Persist(ctx, silence, func(ctx context.Context) error {
		if made > 0 {
			// Nobody holds the lock any more: who has begun since tells it.
			last, err := releases.Last(ctx)
			if err != nil || last == nil || last.Number != made {
				return err
			}
		}
		return d.leaveDNS(ctx, true)
	}))
}

type certDeployment struct {
	stack   *stack.Stack
	part    bool // not all of its services are deployed
	view    *deployView
	run     deployStack
	routes  []string
	specs   []acme.Spec
	issuers []acme.Issuer
	dns     *dnsWants // nil without a provider
	asking  certIssuing
	clients rollout.Clients
	fresh   map[string]bool // certificates that could not be served before
	failed  error           // why a certificate is not served
	left    string          // digest of what the controller was told before the rollout
}

// certificates reads what the stack wants, and says what cannot be.
func (d *certDeployment) certificates(noCheck bool) error {
	var err error
	if d.specs, d.issuers, err = acme.FromStack(d.stack); err != nil {
		return certError(err)
	}
	d.asking = certIssuing{certStore: certStore{store: "nomad"}, noCheck: noCheck, format: "text", timeout: time.Hour, sink: d.event}
	given, err := d.asking.issuer()
	if err != nil {
		return err
	}
	for i := range d.specs {
		spec := &d.specs[i]
		if given != nil {
			spec.Issuers = []string{given.Name}
			continue
		}
		if at := slices.IndexFunc(spec.Names, isLocal); at >= 0 && len(spec.Issuers) == 0 {
			return usagef("certificate %s: Let's Encrypt issues nothing for %s, which only this network has: name an issuer of your own (in a dev cluster: drover dev up --acme), or deploy with --no-certificates", spec.Name, spec.Names[at])
		}
	}
	if given != nil {
		d.issuers = append([]acme.Issuer{*given}, d.issuers...)
	}
	return nil
}

func isLocal(name string) bool {
	ip := net.ParseIP(name)
	return name == "localhost" || ip != nil && (ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast())
}

func (d *certDeployment) names() []string {
	var out []string
	for _, s := range d.specs {
		out = append(out, s.Name)
	}
	return out
}

func (d *certDeployment) before(ctx context.Context, streams *IO) (err error) {
	if d.clients, err = connect(ctx, true); err != nil {
		return err
	}
	if d.dns != nil {
		if err := d.dns.open(ctx, d.clients); err != nil {
			return err
		}
		if env := d.dns.private(); env != "" {
			d.view.line("Warning: the DNS credential is no secret of the stack (credential_secret), so the controller keeps no records of it and renews no certificates by DNS-01, unless its job has %s", env)
		}
	}
	if len(d.specs) == 0 && len(d.routes) == 0 {
		d.failed = d.dnsBefore(ctx)
		return ctx.Err()
	}
	state, err := edge.Presence(ctx, d.clients.Nomad, d.clients.Consul)
	if err != nil {
		return err
	}
	lacks := slices.DeleteFunc(d.names(), state.Serves)
	if state.Edge && len(lacks) > 0 {
		all := append(slices.Clone(state.Certificates), lacks...)
		return fmt.Errorf("the edge that runs does not read certificate %s: deploy it with -var '%s', or this stack with --no-certificates", strings.Join(lacks, ", "), certificatesVar(all))
	}
	edgeStack, controllerStack := d.shipped(edge.ServiceName), d.shipped("drover")
	if !state.Edge && !edgeStack {
		return fmt.Errorf("no edge runs that would serve %s: deploy one with `drover deploy edge -var '%s'` (docs/how-to/edge.md), or this stack with --no-certificates", d.what(), certificatesVar(d.names()))
	}
	err = d.asking.with(ctx, streams, acme.NomadVariables(d.clients.Nomad), d.stack, d.issuers, func(ctx context.Context, m *acme.Manager) error {
		for _, spec := range d.specs {
			o, err := m.Prepare(ctx, spec)
			if err != nil {
				return err
			}
			d.fresh[spec.Name] = o.Usable(time.Now()) != nil
		}
		if !state.Edge {
			if err := d.deploy(ctx, edge.ServiceName, "certificates="+list(d.names())); err != nil {
				return err
			}
		}
		d.failed = d.dnsBefore(ctx)
		for _, spec := range d.specs {
			if err := d.serve(ctx, m, spec.Name); err != nil {
				d.failed = errors.Join(d.failed, err)
				break
			}
		}
		switch {
		case state.Controller || len(d.specs) == 0:
			return nil
		case controllerStack:
			return d.deploy(ctx, "drover")
		}
		d.view.line("Warning: no controller runs, so nobody renews %s: drover deploy drover", d.what())
		return nil
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func list(names []string) string {
	text, _ := json.Marshal(append([]string{}, names...)) // a list, also without a name; strings do not fail
	return string(text)
}

func certificatesVar(names []string) string {
	if len(names) == 0 {
		names = []string{"NAME"}
	}
	return "certificates=" + list(names)
}

// what is at stake, for messages.
func (d *certDeployment) what() string {
	if len(d.specs) > 0 {
		return "certificate " + strings.Join(d.names(), ", ")
	}
	return "route " + strings.Join(d.routes, ", ")
}

// shipped says that a stack that ships with drover has the environment that
// is deployed, so that it is known how it is to run.
func (d *certDeployment) shipped(name string) bool {
	files, err := jobs.Stack(name)
	if err != nil {
		return false
	}
	_, err = fs.Stat(files, "environments/"+d.stack.Environment+".hcl")
	return err == nil
}

func (d *certDeployment) deploy(ctx context.Context, name string, vars ...string) error {
	files, err := jobs.Stack(name)
	if err != nil {
		return err
	}
	s, err := stack.Load(ctx, stack.Options{Path: name, FS: files, Environment: d.stack.Environment, Vars: vars, Environ: os.Environ()})
	if err != nil {
		return err
	}
	rendered, err := render.Stack(ctx, s, render.Options{})
	if err != nil {
		return err
	}
	_, err = d.run(s, rendered, nil)
	return err
}

// serve issues one certificate, if it is due, and waits until it is served.
func (d *certDeployment) serve(ctx context.Context, m *acme.Manager, name string) error {
	r, err := reconcile(ctx, m, name)
	if err == nil && !r.Issued && r.Object.Usable(time.Now()) != nil && r.Object.Status.NextAttempt.After(time.Now()) {
		// Former attempts failed, perhaps for want of the edge. Somebody
		// wants it now.
		if _, err = m.Force(ctx, name); err == nil {
			r, err = reconcile(ctx, m, name)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		if r.Object == nil || r.Object.Usable(time.Now()) != nil {
			return err
		}
		d.view.line("Warning: %s; the certificate that is stored goes on", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	if why := r.Object.Usable(time.Now()); why != nil {
		return fmt.Errorf("certificate %s cannot be used, %w: drover cert renew %s --force", name, why, name)
	}
	wait, cancel := context.WithTimeout(ctx, servedWithin)
	defer cancel()
	served, err := m.UntilServed(wait, name, edge.Addresses(d.clients.Consul))
	if err == nil && (r.Issued || d.fresh[name]) {
		d.event(acme.Event{Time: time.Now().UTC(), Kind: "served", Certificate: name, Serial: served[0].Serial,
			Text: fmt.Sprintf("by every instance of the edge (%d)", len(served))})
	}
	return err
}

func (d *certDeployment) event(e acme.Event) {
	if d.view.asJSON {
		type certificate acme.Event
		d.view.json(struct {
			Event string `json:"event"`
			certificate
		}{"certificate", certificate(e)})
		return
	}
	name := "certificate " + e.Certificate
	if e.Certificate == "" {
		name = "CA " + e.Issuer
	}
	d.view.line("%s: %s: %s", name, e.Kind, strings.ReplaceAll(e.Text, "\n", "; "))
}

// end is told when the stack is deployed and a certificate is not served.
func (d *certDeployment) end() {
	if d.view.asJSON {
		d.view.json(map[string]any{
			"time": time.Now(), "event": "end", "stack": d.stack.Name, "environment": d.stack.Environment,
			"outcome": "certificate-failed", "exit_code": exitCode(certError(d.failed)), "error": d.failed.Error(),
		})
	}
}
