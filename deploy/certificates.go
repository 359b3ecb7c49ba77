package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/jobs"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// servedWithin is how long the edge may take to serve what is stored.
const servedWithin = time.Minute

// certificates is what Deploy does beside the rollout for a stack with certificates,
// routes or DNS records: placeholders → edge → DNS records → issued → served →
// controller. None of it needs the stack's own jobs, so it comes first. A failure there
// does not keep the stack from running; the verb returns it after the rollout.
type certificates struct {
	*stream
	home    *Home
	stack   *stack.Stack
	part    bool // not all of the services of the stack are deployed
	routes  []string
	routed  []*api.Service // with routes
	specs   []acme.Spec
	issuers []acme.Issuer
	dns     *DNS // nil without a provider
	issuing Issuing
	clients nomad.Clients

	// another deploys a stack that ships with drover.
	another func(ctx context.Context, s *stack.Stack, jobs []render.Job) error

	edge   edge.Present
	fresh  map[string]bool // certificates that could not be served before
	issued []acme.Result   // that are to be served, as far as it has come
	failed error           // why a certificate is not served, or a record not made
	told   string          // digest of what the controller got before the rollout
}

// newCertificates reads what the stack needs, and finds mistakes, without a request.
func (s *stream) newCertificates(home *Home, st *stack.Stack, rendered []render.Job, part, noCheck bool) (*certificates, error) {
	c := &certificates{stream: s, home: home, stack: st, part: part, routes: edge.Requested(nomadJobs(rendered)), routed: edge.Routed(nomadJobs(rendered)), fresh: map[string]bool{}}
	var err error
	if c.specs, c.issuers, err = acme.FromStack(st); err != nil {
		return nil, CertError(err)
	}
	c.issuing = Issuing{Home: home, Stack: st, NoCheck: noCheck, Timeout: time.Hour, Events: c.event, Warn: s.warn}
	if c.issuing.Port, err = ChallengePort(0, home.Getenv); err != nil {
		return nil, err
	}
	given, err := CA{}.Issuer(home.Getenv)
	if err != nil {
		return nil, err
	}
	for i := range c.specs {
		spec := &c.specs[i]
		if !acme.NeedsChallenge(*spec, c.issuers) {
			continue
		}
		if given != nil {
			spec.Issuers = []string{given.Name}
			continue
		}
		if at := slices.IndexFunc(spec.Names, isLocal); at >= 0 && len(spec.Issuers) == 0 {
			return nil, invalidAt(st.Certificates[i].Range, "certificate %s: Let's Encrypt issues nothing for %s, which only this network has:"+
				" name an issuer of your own (in a dev cluster: drover dev up --acme), or deploy with --no-certificates", spec.Name, spec.Names[at])
		}
	}
	if given != nil {
		c.issuers = append([]acme.Issuer{*given}, c.issuers...)
	}
	c.issuing.Issuers = c.issuers
	if c.dns, err = NewDNS(st, rendered, home.Getenv); err != nil {
		return nil, err
	}
	return c, nil
}

// isLocal reports whether a name or address is only for this network.
func isLocal(name string) bool {
	ip := net.ParseIP(name)
	return name == "localhost" || ip != nil && (ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast())
}

// needed reports whether there is anything to do before the rollout.
func (c *certificates) needed() bool {
	return c != nil && (len(c.specs) > 0 || len(c.routes) > 0 || c.dns != nil)
}

// needsEdge reports whether an edge has to serve the stack, or to answer a CA for it.
func (c *certificates) needsEdge() bool {
	return len(c.routes) > 0 || slices.ContainsFunc(c.specs, func(s acme.Spec) bool {
		return !s.NoEdge || s.Challenge == acme.HTTP01 && acme.NeedsChallenge(s, c.issuers)
	})
}

func (c *certificates) connect(ctx context.Context) (err error) {
	c.clients, err = c.home.Connect(ctx, true)
	return err
}

// credential reads that of the DNS provider.
func (c *certificates) credential(ctx context.Context) error {
	if c.dns == nil {
		return nil
	}
	if err := c.dns.Open(ctx, c.home, c.clients); err != nil {
		return err
	}
	for _, env := range c.dns.PrivateCredentials() {
		c.warn(fmt.Sprintf("the DNS credential is no secret of the stack (credential_secret), so the controller keeps no records of it and renews no certificates by DNS-01,"+
			" unless the operator configured the provider in the controller's tenancy file, and its job has %s", env))
	}
	return nil
}

// before runs the phases that come before the rollout.
func (c *certificates) before(ctx context.Context) error {
	var err error
	if len(c.specs) == 0 && len(c.routes) == 0 {
		err = runPhases(ctx, []phase{{PhaseDNS, c.recordsBefore}}, c.emit)
	} else {
		err = c.withEdge(ctx)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	if c.failed != nil {
		c.warn(c.failed.Error())
	}
	return nil
}

func (c *certificates) withEdge(ctx context.Context) error {
	var err error
	if c.edge, err = finder(c.home, c.clients).Presence(ctx, c.routed); err != nil {
		return err
	}
	if len(c.edge.Untaken) > 0 {
		return fmt.Errorf("no edge that runs takes services %s: deploy one of that class beside it (docs/how-to/edge.md), or this stack with --no-certificates", ofClasses(c.edge.Untaken))
	}
	for _, p := range c.edge.Problems {
		c.warn(fmt.Sprintf("service %s, tag %q: the running edge does not serve it: %s. %s", p.Service, p.Tag, p.Message, p.Mend))
	}
	lacks := slices.DeleteFunc(c.edgeNames(), c.edge.Serves)
	if c.edge.Edge && len(lacks) > 0 {
		all := append(slices.Clone(c.edge.Certificates), lacks...)
		return fmt.Errorf("the edge that runs does not read certificate %s: deploy it with -var '%s', or this stack with --no-certificates", strings.Join(lacks, ", "), certificatesVar(all))
	}
	if c.needsEdge() && !c.edge.Edge && !c.ships(edge.ServiceName) {
		return fmt.Errorf("no edge runs that would serve %s: deploy one with `drover deploy edge -var '%s'` (docs/how-to/edge.md), or this stack with --no-certificates", c.what(), certificatesVar(c.edgeNames()))
	}
	c.issuing.Store = acme.NomadVariables(c.clients.Nomad)
	return c.issuing.With(ctx, func(ctx context.Context, m *acme.Manager) error {
		return runPhases(ctx, []phase{
			{PhaseEdge, func(ctx context.Context) error { return c.startEdge(ctx, m) }},
			{PhaseDNS, c.recordsBefore},
			{PhaseCertificates, func(ctx context.Context) error { return c.issue(ctx, m) }},
			{PhaseServed, func(ctx context.Context) error { return c.served(ctx, m) }},
			{PhaseController, c.startController},
		}, c.emit)
	})
}

// ofClasses names services of these classes of edges, "" for those without one.
func ofClasses(classes []string) string {
	var out []string
	for _, c := range classes {
		if c == "" {
			out = append(out, "without "+edge.ClassTag+"NAME")
		} else {
			out = append(out, "with "+edge.ClassTag+c)
		}
	}
	return strings.Join(out, ", or ")
}

// startEdge makes placeholders for missing certificates, and deploys the
// edge where none runs.
func (c *certificates) startEdge(ctx context.Context, m *acme.Manager) error {
	for _, spec := range c.specs {
		o, err := m.Prepare(ctx, spec)
		if err != nil {
			return err
		}
		c.fresh[spec.Name] = o.Usable(time.Now()) != nil
	}
	if c.edge.Edge || !c.needsEdge() {
		return nil
	}
	return c.deployShipped(ctx, edge.ServiceName, "certificates="+list(c.edgeNames()))
}

func (c *certificates) startController(ctx context.Context) error {
	switch {
	case c.edge.Controller || len(c.specs) == 0:
		return nil
	case c.ships("drover"):
		return c.deployShipped(ctx, "drover")
	}
	c.warn(fmt.Sprintf("no controller runs to renew %s: drover deploy drover", c.what()))
	return nil
}

func (c *certificates) names() []string {
	var out []string
	for _, s := range c.specs {
		out = append(out, s.Name)
	}
	return out
}

// edgeNames are the names of the certificates that the edge serves.
func (c *certificates) edgeNames() []string {
	var out []string
	for _, s := range c.specs {
		if !s.NoEdge {
			out = append(out, s.Name)
		}
	}
	return out
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

// what names what needs the edge, for messages.
func (c *certificates) what() string {
	if len(c.specs) > 0 {
		return "certificate " + strings.Join(c.names(), ", ")
	}
	return "route " + strings.Join(c.routes, ", ")
}

// ships reports whether a stack that ships with drover has the environment that is
// deployed, which says how it is to run.
func (c *certificates) ships(name string) bool {
	files, err := jobs.Stack(name)
	if err != nil {
		return false
	}
	_, err = fs.Stat(files, "environments/"+c.stack.Environment+".hcl")
	return err == nil
}

func (c *certificates) deployShipped(ctx context.Context, name string, vars ...string) error {
	files, err := jobs.Stack(name)
	if err != nil {
		return err
	}
	s, err := stack.Load(ctx, stack.Options{Path: name, FS: files, Environment: c.stack.Environment, Vars: vars, Environ: c.home.Environ})
	if err != nil {
		return err
	}
	rendered, err := render.Stack(ctx, s, render.Options{})
	if err != nil {
		return err
	}
	return c.another(ctx, s, rendered)
}

// issue issues the certificates that are due. The first that fails ends it.
func (c *certificates) issue(ctx context.Context, m *acme.Manager) error {
	for _, spec := range c.specs {
		r, err := c.issueOne(ctx, m, spec.Name)
		if err != nil {
			c.failed = errors.Join(c.failed, err)
			break
		}
		c.issued = append(c.issued, r)
	}
	return nil
}

func (c *certificates) issueOne(ctx context.Context, m *acme.Manager, name string) (acme.Result, error) {
	r, err := Reconcile(ctx, m, name)
	if err == nil && !r.Issued && r.Object.Usable(time.Now()) != nil && r.Object.Status.NextAttempt.After(time.Now()) {
		// Former attempts failed, perhaps for want of the edge, and a person asks now.
		r, err = Renew(ctx, m, name)
	}
	if ctx.Err() != nil {
		return r, ctx.Err()
	}
	if err != nil {
		if r.Object == nil || r.Object.Usable(time.Now()) != nil {
			return r, err
		}
		c.warn(fmt.Sprintf("%s; the certificate that is stored goes on", strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
	if why := r.Object.Usable(time.Now()); why != nil {
		return r, fmt.Errorf("certificate %s cannot be used, %w: drover cert renew %s --force", name, why, name)
	}
	return r, nil
}

// finder finds the instances of the edge.
func finder(home *Home, clients nomad.Clients) edge.Finder {
	return edge.Finder{Nomad: clients.Nomad, Consul: clients.Consul, Namespace: home.Getenv(edge.NamespaceEnv), Credentials: home.Getenv(edge.CredentialsEnv)}
}

// served waits until the edge serves what is stored.
func (c *certificates) served(ctx context.Context, m *acme.Manager) error {
	for _, r := range c.issued {
		if r.Object.Spec.NoEdge {
			continue
		}
		if err := c.servedOne(ctx, m, r); err != nil {
			c.failed = errors.Join(c.failed, err)
			break
		}
	}
	return nil
}

func (c *certificates) servedOne(ctx context.Context, m *acme.Manager, r acme.Result) error {
	name := r.Object.Spec.Name
	wait, cancel := context.WithTimeout(ctx, servedWithin)
	defer cancel()
	served, err := m.UntilServed(wait, name, func(ctx context.Context) ([]string, error) {
		places, err := finder(c.home, c.clients).Places(ctx)
		return edge.Reading(edge.Taking(places, c.routed), name), err
	})
	if err == nil && (r.Issued || c.fresh[name]) {
		c.event(acme.Event{
			Time: time.Now().UTC(), Kind: "served", Certificate: name, Serial: served[0].Serial,
			Text: fmt.Sprintf("by every instance of the edge (%d)", len(served)),
		})
	}
	return err
}

func (c *certificates) event(e acme.Event) {
	c.emit(Event{Time: e.Time, Kind: KindCertificate, Certificate: &e})
}

// recordsBefore makes the DNS records that are needed before the rollout. The
// controller keeps them, and retries those that could not be made.
func (c *certificates) recordsBefore(ctx context.Context) error {
	if c.dns == nil {
		return nil
	}
	err := c.records(ctx, false)
	if c.part { // what the rest needs is not known
		err = errors.Join(err, c.dns.include(ctx, c.clients.Nomad))
	} else {
		err = errors.Join(err, c.tellController(ctx, false))
	}
	c.failed = errors.Join(c.failed, err)
	return nil
}

// tellController tells the controller what the stack needs, when the rollout has
// worked or before that. Before, nothing is deleted on that account, unless it is
// what was needed last time.
func (c *certificates) tellController(ctx context.Context, deployed bool) error {
	client := c.clients.Nomad
	if c.dns == nil {
		return dns.DesiredRecords{Client: client}.Delete(ctx, dns.Owner(c.stack.Name, c.stack.Environment))
	}
	pending := false
	if !deployed {
		same, err := c.dns.has(ctx, client)
		if err != nil {
			return err
		}
		pending = !same
	}
	if err := c.dns.Leave(ctx, client, pending); err != nil {
		return err
	}
	var err error
	c.told, err = c.dns.digest()
	return err
}

// records makes the DNS records of the stack: before the rollout, because a CA that
// asks by HTTP-01 finds the edge through them, and the edge runs by then. Nothing is
// deleted before the rollout has worked.
func (c *certificates) records(ctx context.Context, deployed bool) error {
	var errs []error
	for _, b := range c.dns.Blocks {
		if deployed && b.Policy != dns.Sync {
			continue // made before
		}
		errs = append(errs, c.recordsOf(ctx, b, deployed))
	}
	return errors.Join(errs...)
}

// recordsOf is records for one dns block.
func (c *certificates) recordsOf(ctx context.Context, b *DNSBlock, deployed bool) error {
	m, records, err := b.Manager(ctx, c.clients)
	if err != nil {
		return err
	}
	for _, err := range b.Skipped {
		if !deployed {
			c.warn(err.Error())
		}
	}
	if m.Policy == dns.Sync && !deployed {
		m.Policy = dns.UpsertOnly
	}
	plan, res, err := m.Reconcile(ctx, records)
	if err != nil {
		return err
	}
	var errs []error
	for _, change := range res.Done {
		c.emit(Event{Kind: KindRecord, Record: &change})
	}
	for _, f := range res.Failed {
		errs = append(errs, f)
	}
	conflicts := plan.Conflicts()
	if m.Policy != b.Policy && !c.part {
		conflicts = nil // reported after the rollout
	}
	for _, conflict := range conflicts {
		errs = append(errs, fmt.Errorf("record %s is not as the stack wants it: %s", conflict.Key, conflict.Reason))
	}
	for _, e := range plan.Errors {
		errs = append(errs, e)
	}
	return errors.Join(errs...)
}

// after does what waits until the rollout has worked. made is the release, nil when
// none was needed.
func (c *certificates) after(ctx context.Context, made *record.Release, unreachable time.Duration) error {
	if c.clients.Nomad == nil { // of a stack without certificates, whose rollout has looked at the server
		var err error
		if c.clients, err = c.home.reach(ctx); err != nil {
			return err
		}
	}
	var err error
	if c.dns != nil && c.dns.deletes() {
		err = c.records(ctx, true)
	}
	releases := c.home.store(c.clients, c.stack.Name, c.stack.Environment)
	return errors.Join(err, rollout.Persist(ctx, unreachable, func(ctx context.Context) error {
		if c.dns == nil {
			stored, err := dns.DesiredRecords{Client: c.clients.Nomad}.Stored(ctx, dns.Owner(c.stack.Name, c.stack.Environment))
			if err != nil || !stored {
				return err
			}
		}
		if made != nil {
			// The lock is free: a release that has begun since tells the controller itself.
			last, err := releases.Last(ctx)
			if err != nil || last == nil || last.Number != made.Number {
				return err
			}
		}
		return c.tellController(ctx, true)
	}))
}
