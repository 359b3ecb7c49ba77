package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/stack"
)

// certIssuing has the flags of commands that send requests to a CA.
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
	terms     []string
}

const acceptTermsHelp = "accept the CA's terms of service at this `URL`, or \"any\" (repeatable; default $" + deploy.TermsEnv + ")"

func (f *certIssuing) register(cmd *cobra.Command, clients *factory) {
	f.certStore.register(cmd, clients)
	fl := cmd.Flags()
	fl.StringVar(&f.directory, "directory", "", "URL of the ACME directory of the CA, instead of the certificate's issuers (default $"+deploy.DirectoryEnv+")")
	fl.StringVar(&f.caFile, "ca", "", "file with the CA certificate that verifies HTTPS of --directory (default $"+deploy.CAEnv+")")
	fl.StringVar(&f.email, "email", "", "contact for --directory")
	fl.StringVar(&f.listen, "http", "", "answer HTTP-01 on HOST:PORT of this machine, instead of at the edge")
	fl.BoolVar(&f.noCheck, "no-check", false, "do not check first whether the challenges of the names can succeed")
	fl.IntVar(&f.challenge, "challenge-port", 0, "port to which the CA sends HTTP-01 requests (default $"+deploy.ChallengeEnv+", or 80)")
	fl.StringArrayVar(&f.resolvers, "resolver", nil, "DNS server that must return a DNS-01 record before the CA is asked, instead of those of the dns block (repeatable)")
	fl.StringArrayVar(&f.terms, "accept-terms", nil, acceptTermsHelp)
	fl.DurationVar(&f.timeout, "timeout", 5*time.Minute, "time limit of the command")
	fl.StringVarP(&f.format, "output", "o", "text", "text, or json: one event per line")
}

// issuer returns the issuer of --directory or --staging, nil without these flags.
func (f *certIssuing) issuer() (*acme.Issuer, error) {
	var err error
	if f.challenge, err = deploy.ChallengePort(f.challenge, os.Getenv); err != nil {
		return nil, err
	}
	return deploy.CA{Directory: f.directory, File: f.caFile, Email: f.email, Staging: f.staging}.Issuer(os.Getenv)
}

// with calls run with a manager. With --http it answers HTTP-01 meanwhile.
func (f *certIssuing) with(ctx context.Context, streams *IO, b acme.Backend, s *stack.Stack, issuers []acme.Issuer, run func(context.Context, *acme.Manager) error) error {
	if err := oneOf("-o", f.format, "text", "json"); err != nil {
		return err
	}
	port, err := deploy.ChallengePort(f.challenge, os.Getenv)
	if err != nil {
		return err
	}
	i := &deploy.Issuing{
		Home: &deploy.Home{Dial: f.clients.dial, Environ: os.Environ()}, Store: b, Stack: s, Issuers: issuers, NoCheck: f.noCheck, Resolvers: f.resolvers,
		Port: port, Listen: f.listen, Timeout: f.timeout, AcceptTerms: f.terms,
		Events: func(e acme.Event) { f.event(streams, e) },
		Warn:   func(text string) { fmt.Fprintln(streams.Err, text) },
	}
	if streams.Ask && f.format == "text" {
		i.AskTerms = func(_ context.Context, issuer, url string) (string, error) {
			return askTerms(streams, issuer, url), nil
		}
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

func newCertIssue(streams *IO, f *factory) *cobra.Command {
	var (
		flags                                   certIssuing
		sf                                      stackFlags
		names                                   []string
		name, challenge, profile, keyType, only string
		dryRun, adopt                           bool
	)
	cmd := &cobra.Command{
		Use:   "issue STACK | --names A,B",
		Short: "Issue the certificates of a stack, or one for given names",
		Long: `Issue the certificates of a stack, or one certificate for the names of --names.

A certificate that exists and is not due for renewal is not changed. With
--dry-run the command issues from Let's Encrypt's staging environment, or from
--directory, and discards the certificate.

A CA registers an account only for those who accept its terms of service. The
command shows their URL and asks on a terminal. Elsewhere it needs --accept-terms,
$DROVER_ACME_TERMS or accept_terms in the issuer block, and exits with 2 without.`,
		Example: `  drover cert issue ocis -e prod --staging
  drover cert issue --names cloud.example.org --challenge http-01
  drover cert issue ocis -e prod --accept-terms https://letsencrypt.org/documents/LE-SA-v1.6-August-18-2025.pdf`,
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
					if acme.NeedsChallenge(specs[i], issuers) {
						specs[i].Issuers = []string{given.Name}
					}
				}
			}
			for _, spec := range specs { // all mistakes before anybody is asked
				n, err := spec.Normalize()
				if err != nil {
					return deploy.CertError(err)
				}
				if n.Challenge == acme.DNS01 && acme.NeedsChallenge(n, issuers) && (s == nil || !slices.ContainsFunc(s.DNSProviders(), func(d *stack.DNS) bool { return !d.NoChallenges })) {
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
					if o, err := acme.NewStore(b).Get(ctx, spec.Name); adopt && err == nil && o.Spec.Owner != spec.Owner {
						if err := acme.NewStore(b).Reown(ctx, o.Spec.Owner, spec.Owner, spec.Name); err != nil {
							return err
						}
					}
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
	flags.register(cmd, f)
	sf.registerWhole(cmd)
	fl := cmd.Flags()
	fl.StringSliceVar(&names, "names", nil, "domains and IP addresses, separated by commas")
	fl.StringVar(&name, "name", "", "name of the certificate in the store (default the first of --names)")
	fl.StringVar(&only, "only", "", "only this certificate of the stack")
	fl.StringVar(&challenge, "challenge", "", "http-01, dns-01 or dns-persist-01, for --names")
	fl.StringVar(&profile, "profile", "", "profile of the CA, for --names")
	fl.StringVar(&keyType, "key-type", "", "p256, p384, rsa2048 or rsa4096, for --names")
	fl.BoolVar(&flags.staging, "staging", false, "use Let's Encrypt's staging environment; browsers do not trust its certificates")
	fl.BoolVar(&dryRun, "dry-run", false, "issue the certificate, and discard it")
	fl.BoolVar(&adopt, "adopt", false, "take over certificates of these names that belong to another stack")
	return cmd
}
