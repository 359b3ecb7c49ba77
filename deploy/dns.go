package deploy

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/secrets"
	"github.com/drover-nomad/drover/stack"
)

// DNS is what a stack with a DNS provider needs there.
type DNS struct {
	dns.Wanted
	stack      *stack.Stack
	getenv     func(string) string
	provider   dns.Provider
	credential secrets.Value // when it is a secret of the stack

	// Skipped says which instances in Consul do not count as the edge, once Manager
	// was called.
	Skipped []error
}

// NewDNS finds every mistake that can be found without a request. s.DNS names a
// provider; getenv returns credentials. Open comes before the other methods.
func NewDNS(s *stack.Stack, rendered []render.Job, getenv func(string) string) (*DNS, error) {
	opts, records := dns.FromStack(s)
	d := &DNS{stack: s, getenv: getenv, Wanted: dns.Wanted{
		Owner: dns.Owner(s.Name, s.Environment), Options: opts, Zones: s.DNS.Zones, Repair: s.DNS.Repair, Cluster: s.DNS.Cluster, TTL: s.DNS.TTL,
		Targets: s.DNS.Targets, Resolvers: s.DNS.Resolvers, Records: records,
	}}
	if _, err := dns.Normalize(records, s.DNS.Zones); err != nil {
		return nil, dnsDiagnostics(s, err)
	}
	if d.Routes = s.DNS.Routes; d.Routes {
		d.Hosts = dns.RoutedHosts(dns.RouteHosts(nomadJobs(rendered)), s.DNS.Zones, records)
	}
	if d.Routes {
		var err error
		if d.Settings, err = dns.RouteSettings(nomadJobs(rendered)); err != nil {
			return nil, dnsDiagnostics(s, err)
		}
	}
	routed, err := d.Routed(s.DNS.Targets)
	for _, r := range routed {
		if r.Proxied != nil && opts.Provider != dns.ProviderCloudflare {
			return nil, dnsDiagnostics(s, fmt.Errorf("%s: the DNS provider %s cannot proxy a record; remove the tag %sproxied", r.Source, opts.Provider, dns.HostPrefix))
		}
	}
	if err == nil {
		_, err = dns.Normalize(slices.Concat(records, routed), s.DNS.Zones)
	}
	if err == nil {
		opts.Getenv = getenv
		d.provider, err = dns.Open(opts)
		var credential *dns.CredentialError
		if errors.As(err, &credential) && credential.Secret != "" {
			err = nil // Nomad has it
		}
	}
	if err == nil {
		d.Policy, err = dns.ParsePolicy(s.DNS.Policy)
	}
	if err != nil {
		return nil, dnsDiagnostics(s, err)
	}
	return d, nil
}

// Open reads the credential of the provider where it is a secret of the stack.
func (d *DNS) Open(ctx context.Context, clients nomad.Clients) (err error) {
	if d.Options.CredentialSecret != "" {
		d.provider, d.credential, err = openProvider(ctx, d.stack, clients.Nomad, d.getenv)
	}
	return err
}

// openProvider makes the provider of a stack's dns block. The value is the
// credential, when it is a secret of the stack.
func openProvider(ctx context.Context, s *stack.Stack, client *api.Client, getenv func(string) string) (dns.Provider, secrets.Value, error) {
	var value secrets.Value
	opts, _ := dns.FromStack(s)
	opts.Getenv = getenv
	if name := opts.CredentialSecret; name != "" {
		var err error
		if value, err = record.OpenSecrets(client, s.Name, s.Environment, nil).Lookup(ctx, name); err != nil {
			return nil, value, err
		}
		if value.Reveal() == "" {
			return nil, value, invalidf("stack %s needs its DNS credential, the secret %s, which only you can give; run `drover secrets set %s %s -e %s`", s.Name, name, s.Name, name, s.Environment)
		}
		opts = opts.WithCredential(value.Reveal())
	}
	provider, err := dns.Open(opts)
	if err != nil {
		err = dnsDiagnostics(s, err)
	}
	return provider, value, err
}

// PrivateCredential names the credential that only this process has; "" when the
// controller needs none, or is given it.
func (d *DNS) PrivateCredential() string {
	o := d.Options
	o.CredentialFile = ""
	_, err := dns.Open(o)
	var missing *dns.CredentialError
	switch {
	case !errors.As(err, &missing) || missing.Secret != "":
		return ""
	case d.Options.CredentialFile != "":
		return "the file " + d.Options.CredentialFile
	}
	return "$" + missing.Env
}

// Manager returns the manager of the provider, and the records that are to be there
// now: those of routes lead to where the edge runs.
func (d *DNS) Manager(ctx context.Context, clients nomad.Clients) (*dns.Manager, []dns.Record, error) {
	var where []string
	if d.OfEdge() {
		f := edge.Finder{Nomad: clients.Nomad, Consul: clients.Consul, Namespace: d.getenv(edge.NamespaceEnv), Credentials: d.getenv(edge.CredentialsEnv)}
		var err error
		if where, d.Skipped, err = f.Public(ctx); err != nil {
			return nil, nil, err
		}
	}
	return d.Wanted.Manager(d.provider, dns.NomadStore{Client: clients.Nomad}, where)
}

// Leave tells the controller what the stack needs, so that it keeps it. With
// pending it deletes nothing on that account.
func (d *DNS) Leave(ctx context.Context, client *api.Client, pending bool) error {
	wants := dns.DesiredRecords{Client: client}
	// The credential first: the controller looks as soon as the rest changes.
	var err error
	if d.Options.CredentialSecret != "" {
		_, err = wants.PutCredential(ctx, d.Owner, d.credential.Reveal())
	} else {
		err = wants.DeleteCredential(ctx, d.Owner)
	}
	if err == nil {
		c := d.Wanted
		c.Pending = pending
		_, err = wants.Put(ctx, &c)
	}
	if err != nil {
		return fmt.Errorf("leaving for the controller what stack %s wants of DNS: %w", d.stack.Name, err)
	}
	return nil
}

// dnsDiagnostics gives every mistake its place in the stack.
func dnsDiagnostics(s *stack.Stack, err error) error {
	var diags hcl.Diagnostics
	errs := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // not a cause: the parts
		errs = joined.Unwrap()
	}
	for _, e := range errs {
		d := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: e.Error(), Subject: &s.DNS.Range}
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
