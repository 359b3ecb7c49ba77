package deploy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/secrets"
	"github.com/drover-nomad/drover/stack"
)

// DNS is what the dns blocks of a stack need that name a provider.
type DNS struct {
	Owner  string // see [dns.Owner]
	Blocks []*DNSBlock
	stack  *stack.Stack
}

// DNSBlock is what one dns block of a stack needs at its provider.
type DNSBlock struct {
	dns.Wanted
	block      *stack.DNS
	stack      *stack.Stack
	getenv     func(string) string
	provider   dns.Provider
	credential secrets.Value // when it is a secret of the stack

	// Skipped says which instances in Consul do not count as the edge, once Manager
	// was called.
	Skipped []error
}

// NewDNS finds every mistake that can be found without a request. It returns nil if no
// dns block of s names a provider. getenv returns credentials. Open comes before the
// other methods.
func NewDNS(s *stack.Stack, rendered []render.Job, getenv func(string) string) (*DNS, error) {
	d := &DNS{Owner: dns.Owner(s.Name, s.Environment), stack: s}
	var errs hcl.Diagnostics
	seen := map[string]bool{}
	for _, block := range s.DNSProviders() {
		b := &DNSBlock{block: block, stack: s, getenv: getenv}
		d.Blocks = append(d.Blocks, b)
		for _, diag := range dnsDiagnostics(s, block, b.check(rendered)) {
			if !seen[diag.Error()] { // a record may be in several blocks
				seen[diag.Error()] = true
				errs = append(errs, diag)
			}
		}
	}
	switch {
	case len(errs) > 0:
		return nil, errs
	case len(d.Blocks) == 0:
		return nil, nil //nolint:nilnil // as documented
	}
	return d, nil
}

// check sets what b wants, and returns what is wrong with it.
func (b *DNSBlock) check(rendered []render.Job) error {
	opts, records := dns.FromStack(b.stack, b.block)
	zones := b.block.Zones
	if opts.Provider != dns.ProviderCloudflare { // of several blocks, the others have no such setting
		for i := range records {
			records[i].Proxied = nil
		}
	}
	b.Wanted = dns.Wanted{
		Owner: dns.BlockOwner(dns.Owner(b.stack.Name, b.stack.Environment), b.block.Name), Options: opts, Zones: zones, Repair: b.block.Repair, Cluster: b.block.Cluster,
		TTL: b.block.TTL, Targets: b.block.Targets, Resolvers: b.block.Resolvers, NoChallenges: b.block.NoChallenges, Records: records, Routes: b.block.Routes,
	}
	var err error
	if b.Policy, err = dns.ParsePolicy(b.block.Policy); err != nil {
		return err
	}
	if _, err := dns.Normalize(records, zones); err != nil {
		return err
	}
	if b.Routes {
		if err := b.SetRoutes(nomadJobs(rendered)); err != nil {
			return err
		}
	}
	routed, err := b.Routed(b.block.Targets)
	if err != nil {
		return err
	}
	for host, s := range b.Settings {
		if s.Proxied != nil && opts.Provider != dns.ProviderCloudflare && len(b.stack.DNSProviders()) == 1 {
			return fmt.Errorf("route %s: the DNS provider %s cannot proxy a record; remove the tag %sproxied", host, opts.Provider, dns.HostPrefix)
		}
	}
	if _, err := dns.Normalize(slices.Concat(records, routed), zones); err != nil {
		return err
	}
	opts.Getenv = b.getenv
	b.provider, err = dns.Open(opts)
	var credential *dns.CredentialError
	if errors.As(err, &credential) && credential.Secret != "" {
		return nil // Nomad has it
	}
	return err
}

// OfEdge reports whether the records need the address of the edge.
func (d *DNS) OfEdge() bool {
	return slices.ContainsFunc(d.Blocks, func(b *DNSBlock) bool { return b.Wanted.OfEdge() })
}

// deletes reports whether the policy of a block is [dns.Sync].
func (d *DNS) deletes() bool {
	return slices.ContainsFunc(d.Blocks, func(b *DNSBlock) bool { return b.Policy == dns.Sync })
}

// Open reads the credentials of the providers where they are secrets of the stack.
// clients are those of h.Connect.
func (d *DNS) Open(ctx context.Context, h *Home, clients nomad.Clients) (err error) {
	for _, b := range d.Blocks {
		if b.Options.CredentialSecret == "" {
			continue
		}
		if b.provider, b.credential, err = h.openProvider(ctx, d.stack, b.block, clients, b.getenv); err != nil {
			return err
		}
	}
	return nil
}

// openProvider makes the provider of a dns block of a stack. The value is the
// credential, when it is a secret of the stack.
func (h *Home) openProvider(ctx context.Context, s *stack.Stack, block *stack.DNS, clients nomad.Clients, getenv func(string) string) (dns.Provider, secrets.Value, error) {
	var value secrets.Value
	opts, _ := dns.FromStack(s, block)
	opts.Getenv = getenv
	if name := opts.CredentialSecret; name != "" {
		var err error
		if value, err = h.secretStore(clients, s.Name, s.Environment).Lookup(ctx, name); err != nil {
			return nil, value, err
		}
		if value.Reveal() == "" {
			return nil, value, invalidf("stack %s needs its DNS credential, the secret %s, which only you can give; run `drover secrets set %s %s -e %s`", s.Name, name, s.Name, name, s.Environment)
		}
		opts = opts.WithCredential(value.Reveal())
	}
	provider, err := dns.Open(opts)
	if err != nil {
		err = dnsDiagnostics(s, block, err)
	}
	return provider, value, err
}

// PrivateCredentials names the credentials that only this process has; none when the
// controller needs none, or is given them.
func (d *DNS) PrivateCredentials() []string {
	var out []string
	for _, b := range d.Blocks {
		o := b.Options
		o.CredentialFile = ""
		_, err := dns.Open(o)
		var missing *dns.CredentialError
		switch {
		case !errors.As(err, &missing) || missing.Secret != "":
		case b.Options.CredentialFile != "":
			out = append(out, "the file "+b.Options.CredentialFile)
		default:
			out = append(out, "$"+missing.Env)
		}
	}
	return out
}

// Manager returns the manager of the provider, and the records that are to be there
// now: those of routes lead to where the edge runs.
func (b *DNSBlock) Manager(ctx context.Context, clients nomad.Clients) (*dns.Manager, []dns.Record, error) {
	var where []string
	if b.OfEdge() {
		f := edge.Finder{Nomad: clients.Nomad, Consul: clients.Consul, Namespace: b.getenv(edge.NamespaceEnv), Credentials: b.getenv(edge.CredentialsEnv)}
		var err error
		if where, b.Skipped, err = f.Public(ctx); err != nil {
			return nil, nil, err
		}
	}
	return b.Wanted.Manager(b.provider, dns.NomadStore{Client: clients.Nomad}, where)
}

// Leave stores for the controller what the stack needs, and removes what other dns
// blocks of it needed. With pending the controller deletes nothing on that account.
func (d *DNS) Leave(ctx context.Context, client *api.Client, pending bool) error {
	wants := dns.DesiredRecords{Client: client}
	var owners []string
	for _, b := range d.Blocks {
		// The credential first: the controller looks as soon as the rest changes.
		var err error
		if b.Options.CredentialSecret != "" {
			_, err = wants.PutCredential(ctx, b.Owner, b.credential.Reveal())
		} else {
			err = wants.DeleteCredential(ctx, b.Owner)
		}
		if err == nil {
			c := b.Wanted
			c.Pending = pending
			_, err = wants.Put(ctx, &c)
		}
		if err != nil {
			return fmt.Errorf("leaving for the controller what stack %s wants of DNS: %w", d.stack.Name, err)
		}
		owners = append(owners, b.Owner)
	}
	return wants.Delete(ctx, d.Owner, owners...)
}

// has reports whether the controller has just what the stack needs.
func (d *DNS) has(ctx context.Context, client *api.Client) (bool, error) {
	for _, b := range d.Blocks {
		if same, err := (dns.DesiredRecords{Client: client}).Has(ctx, &b.Wanted); err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

// include adds the hosts of a part of the stack to what the controller has.
func (d *DNS) include(ctx context.Context, client *api.Client) error {
	var errs []error
	for _, b := range d.Blocks {
		errs = append(errs, dns.DesiredRecords{Client: client}.Include(ctx, b.Owner, b.Hosts, b.Settings))
	}
	return errors.Join(errs...)
}

// digest is that of all blocks, as in [dns.Runs].
func (d *DNS) digest() (string, error) {
	out := make([]string, 0, len(d.Blocks))
	for _, b := range d.Blocks {
		one, err := b.Digest()
		if err != nil {
			return "", err
		}
		out = append(out, one)
	}
	return strings.Join(out, ","), nil
}

// dnsDiagnostics gives every mistake in a dns block its place in the stack.
func dnsDiagnostics(s *stack.Stack, block *stack.DNS, err error) hcl.Diagnostics {
	var diags hcl.Diagnostics
	if err == nil {
		return nil
	}
	errs := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // not a cause: the parts
		errs = joined.Unwrap()
	}
	for _, e := range errs {
		d := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: e.Error(), Subject: &block.Range}
		var bad *dns.RecordError
		if errors.As(e, &bad) {
			d.Summary = fmt.Sprintf("Record %q (%s): %s", bad.Record.Name, bad.Record.Type, bad.Msg)
			for _, r := range s.Records {
				if bad.Record.Source == fmt.Sprintf("%s:%d:%d", r.Range.Filename, r.Range.Start.Line, r.Range.Start.Column) {
					d.Subject = &r.Range
				}
			}
		}
		diags = append(diags, d)
	}
	return diags
}
