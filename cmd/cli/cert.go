package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/stack"
)

func newCert(streams *IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cert",
		Short: "Look at, issue and renew certificates",
		Long: `Look at, issue and renew certificates.

A certificate is one object in a store: Nomad Variables below drover/certs
unless --store names another. Renewals are the controller's; these commands
are for the first issuance, for looking, and for the day it goes wrong.`,
		Example: `  drover cert list
  drover cert issue ocis -e prod --dry-run`,
	}
	cmd.AddCommand(newCertList(streams), newCertStatus(streams), newCertPrepare(streams), newCertIssue(streams), newCertRenew(streams), newCertRevoke(streams),
		newCertInspect(streams), newCertVerify(streams), newCertExport(streams), newCertAccount(streams))
	return cmd
}

// certStore are the flags that say where certificates are.
type certStore struct {
	store    string
	sealFile string
}

// sealEnv has the key for a store in Consul when --seal-key-file does not.
const sealEnv = "DROVER_SEAL_KEY"

func (f *certStore) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.store, "store", "nomad", "where certificates are: nomad, consul or dir:PATH")
	cmd.Flags().StringVar(&f.sealFile, "seal-key-file", "", "file with the key that seals certificates in Consul (default $"+sealEnv+")")
}

func (f *certStore) open(ctx context.Context) (acme.Backend, error) {
	dir, isDir := strings.CutPrefix(f.store, "dir:")
	switch {
	case isDir && dir != "":
		return acme.Directory(dir), nil
	case f.store == "nomad":
		clients, err := connect(ctx, false)
		if err != nil {
			return nil, err
		}
		return acme.NomadVariables(clients.Nomad), nil
	case f.store == "consul":
		text := []byte(os.Getenv(sealEnv))
		if f.sealFile != "" {
			var err error
			if text, err = os.ReadFile(f.sealFile); err != nil {
				return nil, usagef("--seal-key-file: %s", err)
			}
		}
		key, err := acme.NewSealKey(text)
		if err != nil {
			return nil, usagef("--store consul: %s", err)
		}
		client, err := capi.NewClient(capi.DefaultConfig())
		if err != nil {
			return nil, err
		}
		return acme.ConsulKV(client, key), nil
	}
	return nil, usagef("--store cannot be %q; it is one of nomad, consul, dir:PATH", f.store)
}

func (f *certStore) get(ctx context.Context, name string) (*acme.Store, *acme.Object, error) {
	b, err := f.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	s := acme.NewStore(b)
	o, err := s.Get(ctx, name)
	if errors.Is(err, acme.ErrNotFound) {
		return s, nil, usagef("there is no certificate %q; `drover cert list` shows those that there are", name)
	}
	return s, o, deploy.CertError(err)
}

func newCertList(streams *IO) *cobra.Command {
	var (
		store  certStore
		format string
	)
	cmd := &cobra.Command{
		Use: "list", Short: "List certificates, those that need attention first", Args: exactArgs(0, "no arguments"),
		Example: `  drover cert list
  drover cert list -o json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			b, err := store.open(cmd.Context())
			if err != nil {
				return err
			}
			list, lerr := acme.NewStore(b).List(cmd.Context())
			if lerr != nil && len(list) == 0 {
				return lerr
			}
			now := time.Now()
			acme.SortByAttention(list, now)
			if format == "json" {
				views := make([]certView, 0, len(list))
				for _, o := range list {
					views = append(views, viewOf(o, now))
				}
				return errors.Join(json.NewEncoder(streams.Out).Encode(views), lerr)
			}
			w := tabwriter.NewWriter(streams.Out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tPHASE\tEXPIRES\tRENEWED\tISSUER\tNAMES\tATTENTION")
			for _, o := range list {
				_, why := acme.Attention(o, now)
				why, _, _ = strings.Cut(why, "\n")
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", o.Spec.Name, o.Status.Phase, until(o.Status.NotAfter, now), until(o.Status.RenewAt, now),
					dash(o.Status.Issuer), strings.Join(o.Spec.Names, ","), dash(why))
			}
			return errors.Join(w.Flush(), lerr)
		},
	}
	store.register(cmd)
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// until is how far away a time is.
func until(t, now time.Time) string {
	switch d := t.Sub(now); {
	case t.IsZero():
		return "-"
	case d < 0:
		return ago(-d) + " ago"
	default:
		return "in " + ago(d)
	}
}

// certView is a certificate as -o json shows it.
type certView struct {
	acme.Spec
	Status    acme.Status `json:"status"`
	Attention string      `json:"attention,omitempty"`
	OK        bool        `json:"ok"`
	Chain     string      `json:"chain,omitempty"`
	Edge      []string    `json:"edge,omitempty"` // why an edge does not take or serve it
}

// atEdge is why instances of the edge do not serve a certificate, and whether
// one refused its configuration.
// Without a Consul that answers nobody knows, and that is no error here: the
// certificate is in a store that needs none.
func atEdge(ctx context.Context, s *acme.Store, o *acme.Object) (notes []string, refused bool) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	clients, err := connect(ctx, true)
	if err != nil {
		return nil, false
	}
	r, err := edge.Look(ctx, clients.Nomad, clients.Consul, edge.Options{Store: s, Timeout: 3 * time.Second})
	if err != nil {
		return nil, false
	}
	for _, i := range r.Instances {
		if i.Refused != "" {
			refused = true
			notes = append(notes, fmt.Sprintf("%s refused its last configuration and serves the one before: %s", i.Node, i.Refused))
		}
		for _, c := range i.Certificates {
			if c.Name == o.Spec.Name && !c.Match {
				notes = append(notes, fmt.Sprintf("%s: %s; drover edge status shows all of it", i.Node, c.Problem))
			}
		}
	}
	return notes, refused
}

func viewOf(o *acme.Object, now time.Time) certView {
	rank, why := acme.Attention(o, now)
	return certView{Spec: o.Spec, Status: o.Status, Attention: why, OK: rank >= 7, Chain: o.Chain}
}

func newCertStatus(streams *IO) *cobra.Command {
	var (
		store  certStore
		format string
	)
	cmd := &cobra.Command{
		Use: "status NAME", Short: "Show how one certificate is, and why",
		Long: `Show how one certificate is, and why.

Where Consul has an edge it is asked whether it takes the certificate: what it
refused is shown as in drover edge status.

The exit code is 0 when nobody needs to look at it, otherwise 1.`,
		Example: "  drover cert status public",
		Args:    exactArgs(1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			s, o, err := store.get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			v := viewOf(o, time.Now())
			var refused bool
			v.Edge, refused = atEdge(cmd.Context(), s, o)
			v.OK = v.OK && !refused
			if format == "json" {
				err = json.NewEncoder(streams.Out).Encode(v)
			} else {
				err = printCert(streams, o, v.Edge)
			}
			if err == nil && !v.OK {
				err = errSilent{exitError}
			}
			return err
		},
	}
	store.register(cmd)
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

func printCert(streams *IO, o *acme.Object, edge []string) error {
	w := tabwriter.NewWriter(streams.Out, 0, 0, 2, ' ', 0)
	st, now := &o.Status, time.Now()
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, value)
		}
	}
	at := func(name string, t time.Time) {
		if !t.IsZero() {
			line(name, t.UTC().Format(time.RFC3339)+" ("+until(t, now)+")")
		}
	}
	line("certificate", o.Spec.Name)
	line("phase", string(st.Phase))
	line("reason", st.Reason)
	line("names", strings.Join(o.Spec.Names, ", "))
	line("issuers", strings.Join(o.Spec.Issuers, ", "))
	line("challenge", o.Spec.Challenge)
	line("profile", o.Spec.Profile)
	line("issued by", st.Issuer)
	line("serial", st.Serial)
	at("expires", st.NotAfter)
	at("renewed", st.RenewAt)
	line("because", st.RenewedBy)
	line("served", st.ServedAs)
	for _, why := range edge {
		line("edge", strings.ReplaceAll(why, "\n", "; "))
	}
	if st.Attempts > 0 {
		line("failed", fmt.Sprintf("%d times in a row", st.Attempts))
	}
	line("last error", strings.ReplaceAll(st.LastError, "\n", "; "))
	at("last attempt", st.LastAttempt)
	at("next attempt", st.NextAttempt)
	if st.Pending != nil {
		line("order", st.Pending.Order)
	}
	for _, l := range st.Leftovers {
		line("to be removed", "TXT "+l.Name)
	}
	return w.Flush()
}

// certIssuing are the flags of commands that ask a CA.
type certIssuing struct {
	certStore
	staging   bool
	directory string
	caFile    string
	email     string
	listen    string
	noCheck   bool
	resolvers []string
	challenge int // port of HTTP-01; 80 when 0
	format    string
	timeout   time.Duration
}

func (f *certIssuing) register(cmd *cobra.Command) {
	f.certStore.register(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.directory, "directory", "", "URL of the ACME directory of the CA to ask, instead of the certificate's issuers (default $"+deploy.DirectoryEnv+")")
	fl.StringVar(&f.caFile, "ca", "", "file with the CA certificate of --directory's own HTTPS (default $"+deploy.CAEnv+")")
	fl.StringVar(&f.email, "email", "", "contact for --directory")
	fl.StringVar(&f.listen, "http", "", "answer HTTP-01 here, on HOST:PORT, instead of at the edge")
	fl.BoolVar(&f.noCheck, "no-check", false, "ask the CA without looking first whether the names can be proven")
	fl.IntVar(&f.challenge, "challenge-port", 0, "port at which the CA asks for HTTP-01 (default $"+deploy.ChallengeEnv+", or 80)")
	fl.StringArrayVar(&f.resolvers, "resolver", nil, "DNS server that must show a record of DNS-01, instead of those of the dns block (repeatable)")
	fl.DurationVar(&f.timeout, "timeout", 5*time.Minute, "how long it may take altogether")
	fl.StringVarP(&f.format, "output", "o", "text", "text, or json: one event per line")
}

// issuer is what --directory or --staging stand for, nil without them.
func (f *certIssuing) issuer() (*acme.Issuer, error) {
	var err error
	if f.challenge, err = deploy.ChallengePort(f.challenge, os.Getenv); err != nil {
		return nil, err
	}
	return deploy.CA{Directory: f.directory, File: f.caFile, Email: f.email, Staging: f.staging}.Issuer(os.Getenv)
}

// with makes a manager, and answers HTTP-01 while run runs when that is asked for.
func (f *certIssuing) with(ctx context.Context, streams *IO, b acme.Backend, s *stack.Stack, issuers []acme.Issuer, run func(context.Context, *acme.Manager) error) error {
	if err := oneOf("-o", f.format, "text", "json"); err != nil {
		return err
	}
	port, err := deploy.ChallengePort(f.challenge, os.Getenv)
	if err != nil {
		return err
	}
	i := &deploy.Issuing{
		Home: &deploy.Home{Environ: os.Environ()}, Store: b, Stack: s, Issuers: issuers, NoCheck: f.noCheck, Resolvers: f.resolvers,
		Port: port, Listen: f.listen, Timeout: f.timeout,
		Events: func(e acme.Event) { f.event(streams, e) },
		Warn:   func(text string) { fmt.Fprintln(streams.Err, text) },
	}
	return i.With(ctx, run)
}

func (f *certIssuing) event(streams *IO, e acme.Event) {
	if f.format == "json" {
		_ = json.NewEncoder(streams.Out).Encode(e)
		return
	}
	parts := []string{e.Kind}
	for _, p := range []string{e.Certificate, e.Issuer, e.Text} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	fmt.Fprintln(streams.Err, strings.Join(parts, "  "))
}

// sayResult is the line of one certificate on stdout.
func (f *certIssuing) sayResult(streams *IO, r acme.Result, what string) {
	if f.format == "json" || r.Object == nil {
		return
	}
	o := r.Object
	if !r.Issued {
		what = "unchanged"
	}
	fmt.Fprintf(streams.Out, "%s  %s  %s  expires %s  serial %s\n", o.Spec.Name, what, strings.Join(o.Spec.Names, ","), o.Status.NotAfter.Format(time.RFC3339), o.Status.Serial)
}

func newCertIssue(streams *IO) *cobra.Command {
	var (
		flags                                   certIssuing
		sf                                      stackFlags
		names                                   []string
		name, challenge, profile, keyType, only string
		dryRun                                  bool
	)
	cmd := &cobra.Command{
		Use:   "issue STACK | --names A,B",
		Short: "Get the certificates of a stack, or one for these names",
		Long: `Get the certificates of a stack, or one for these names.

Certificates that are there and not due are left alone. With --dry-run all is
done as it would be, at Let's Encrypt's staging environment or at --directory,
and the certificate is thrown away.`,
		Example: `  drover cert issue ocis -e prod --staging
  drover cert issue --names cloud.example.org --challenge http-01`,
		Args: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == (len(names) > 0) || len(args) > 1 {
				return usagef("%s: give STACK, or --names", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if dryRun && flags.directory == "" && os.Getenv(deploy.DirectoryEnv) == "" {
				flags.staging = true
			}
			given, err := flags.issuer()
			if err != nil {
				return err
			}
			var (
				s       *stack.Stack
				specs   []acme.Spec
				issuers []acme.Issuer
			)
			if len(args) == 1 {
				if s, err = sf.stack(ctx, args[0]); err != nil {
					return err
				}
				if specs, issuers, err = acme.FromStack(s); err != nil {
					return deploy.CertError(err)
				}
				if only != "" {
					specs = slices.DeleteFunc(specs, func(x acme.Spec) bool { return x.Name != only })
				}
				if len(specs) == 0 {
					return usagef("stack %s has no certificate to issue", s.Name)
				}
			} else {
				if name == "" {
					name = strings.Replace(names[0], "*", "wildcard", 1)
				}
				specs = []acme.Spec{{Name: name, Names: names, Challenge: challenge, Profile: profile, KeyType: keyType}}
			}
			if given != nil {
				issuers = append([]acme.Issuer{*given}, issuers...)
				for i := range specs {
					specs[i].Issuers = []string{given.Name}
				}
			}
			for _, spec := range specs { // all mistakes before anybody is asked
				n, err := spec.Normalize()
				if err != nil {
					return deploy.CertError(err)
				}
				if n.Challenge != acme.HTTP01 && (s == nil || s.DNS == nil || s.DNS.Provider == "") {
					return usagef("certificate %s: %s needs a DNS provider: issue it from a stack with a dns block", n.Name, n.Challenge)
				}
			}
			b, err := flags.open(ctx)
			if err != nil {
				return err
			}
			if dryRun {
				b = acme.DryRun(b)
			}
			return flags.with(ctx, streams, b, s, issuers, func(ctx context.Context, m *acme.Manager) error {
				var errs []error
				for _, spec := range specs {
					if _, err := m.Apply(ctx, spec); err != nil {
						return err
					}
				}
				for _, spec := range specs {
					r, err := deploy.Reconcile(ctx, m, spec.Name)
					if err == nil {
						what := "issued"
						if dryRun {
							what = "could be issued"
						}
						flags.sayResult(streams, r, what)
						if st := &r.Object.Status; !r.Issued && st.Phase != acme.Issued && st.Phase != acme.Ready {
							err = fmt.Errorf("certificate %s: not before %s, after %d failed attempts: %s (`drover cert renew %s --force` does not wait)",
								spec.Name, st.NextAttempt.Format(time.RFC3339), st.Attempts, st.LastError, spec.Name)
						}
					}
					errs = append(errs, err)
				}
				return errors.Join(errs...)
			})
		},
	}
	flags.register(cmd)
	sf.registerWhole(cmd)
	fl := cmd.Flags()
	fl.StringSliceVar(&names, "names", nil, "domains and IP addresses, separated by commas")
	fl.StringVar(&name, "name", "", "name of the certificate in the store (default the first of --names)")
	fl.StringVar(&only, "only", "", "only this certificate of the stack")
	fl.StringVar(&challenge, "challenge", "", "http-01, dns-01 or dns-persist-01, for --names")
	fl.StringVar(&profile, "profile", "", "profile of the CA, for --names")
	fl.StringVar(&keyType, "key-type", "", "p256, p384, rsa2048 or rsa4096, for --names")
	fl.BoolVar(&flags.staging, "staging", false, "ask Let's Encrypt's staging environment, whose certificates nobody trusts")
	fl.BoolVar(&dryRun, "dry-run", false, "do everything but keep the certificate")
	return cmd
}

func newCertRenew(streams *IO) *cobra.Command {
	var (
		flags certIssuing
		sf    stackFlags
		from  string
		force bool
	)
	cmd := &cobra.Command{
		Use:   "renew [NAME…]",
		Short: "Renew certificates that are due, or with --force those named",
		Long: `Renew certificates that are due, all when none is named. With --force they are
renewed whatever their age, and former failures are forgotten; a CA that asked
to be left alone still is, and so is one that got three new orders for the
same names within a day.`,
		Example: `  drover cert renew
  drover cert renew public --force`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if force && len(args) == 0 {
				return usagef("--force needs the NAME of a certificate")
			}
			var s *stack.Stack
			var issuers []acme.Issuer
			var err error
			if from != "" {
				if s, err = sf.stack(ctx, from); err != nil {
					return err
				}
				if _, issuers, err = acme.FromStack(s); err != nil {
					return deploy.CertError(err)
				}
			}
			b, err := flags.open(ctx)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				list, err := acme.NewStore(b).List(ctx)
				if err != nil {
					return deploy.CertError(err)
				}
				for _, o := range list {
					args = append(args, o.Spec.Name)
				}
			}
			return flags.with(ctx, streams, b, s, issuers, func(ctx context.Context, m *acme.Manager) error {
				var errs []error
				for _, name := range args {
					if force {
						if _, err := m.Force(ctx, name); err != nil {
							if errors.Is(err, acme.ErrNotFound) {
								err = usagef("there is no certificate %q", name)
							}
							return err
						}
					}
					r, err := deploy.Reconcile(ctx, m, name)
					if errors.Is(err, acme.ErrNotFound) {
						return usagef("there is no certificate %q", name)
					}
					if err == nil {
						flags.sayResult(streams, r, "renewed")
					}
					errs = append(errs, err)
				}
				return errors.Join(errs...)
			})
		},
	}
	flags.register(cmd)
	for _, hidden := range []string{"directory", "ca", "email"} { // the certificate knows its issuers
		_ = cmd.Flags().MarkHidden(hidden)
	}
	sf.registerWhole(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "renew at once")
	cmd.Flags().StringVar(&from, "stack", "", "stack whose dns block is used for DNS-01, instead of those that are deployed")
	return cmd
}
