package cli

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/acme/pki"
	"github.com/drover-nomad/drover/deploy"
)

// revocationReasons are RFC 5280's, as far as CAs take them.
var revocationReasons = []struct {
	name string
	code int
}{{"unspecified", 0}, {"keyCompromise", 1}, {"affiliationChanged", 3}, {"superseded", 4}, {"cessationOfOperation", 5}}

func newCertRevoke(streams *IO) *cobra.Command {
	var (
		flags  certIssuing
		reason string
	)
	var names []string
	for _, r := range revocationReasons {
		names = append(names, r.name)
	}
	cmd := &cobra.Command{
		Use: "revoke NAME", Short: "Tell the CA that a certificate is not to be trusted any more",
		Long: `Tell the CA that a certificate is not to be trusted any more.

What is stored stays and is served; it is not renewed by itself. Get a new one
with drover cert renew --force NAME.`,
		Example: "  drover cert revoke public",
		Args:    exactArgs(1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			at := slices.Index(names, reason)
			if at < 0 {
				return usagef("--reason cannot be %q; it is one of %s", reason, strings.Join(names, ", "))
			}
			if _, _, err := flags.get(cmd.Context(), args[0]); err != nil {
				return err
			}
			b, err := flags.open(cmd.Context())
			if err != nil {
				return err
			}
			return flags.with(cmd.Context(), streams, b, nil, nil, func(ctx context.Context, m *acme.Manager) error {
				o, err := m.Revoke(ctx, args[0], revocationReasons[at].code)
				if err == nil && flags.format == "text" {
					fmt.Fprintf(streams.Out, "%s  revoked  serial %s\n", o.Spec.Name, o.Status.Serial)
				}
				return err
			})
		},
	}
	flags.certStore.register(cmd)
	cmd.Flags().StringVar(&reason, "reason", "unspecified", strings.Join(names, ", "))
	cmd.Flags().DurationVar(&flags.timeout, "timeout", time.Minute, "how long it may take")
	cmd.Flags().StringVarP(&flags.format, "output", "o", "text", "text, or json: one event per line")
	return cmd
}

// inspected is a certificate as it was met.
type inspected struct {
	Names     []string  `json:"names"`
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	Serial    string    `json:"serial"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Key       string    `json:"key"`
	CA        bool      `json:"ca"`
	Temporary bool      `json:"temporary,omitempty"`
}

func newCertInspect(streams *IO) *cobra.Command {
	var (
		format, server string
		timeout        time.Duration
	)
	cmd := &cobra.Command{
		Use: "inspect FILE | HOST:PORT", Short: "Show the certificates in a file, or those that are served",
		Long: `Show the certificates in a file, or those that are served.

The exit code is 1 when the first certificate has expired or is not valid yet,
when the chain is broken, or when a key in the file is not its own.`,
		Example: `  drover cert inspect chain.pem
  drover cert inspect cloud.example.org:443`,
		Args: exactArgs(1, "FILE or HOST:PORT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			var chain []*x509.Certificate
			var problems []string
			text, err := os.ReadFile(args[0])
			switch {
			case err == nil:
				if chain, err = pki.ParseChain(string(text)); err != nil {
					return fmt.Errorf("%s: %w", args[0], err)
				}
				if key, kerr := pki.ParseKey(string(text)); kerr == nil && !pki.Fits(chain[0], key) {
					problems = append(problems, "the key in the file is not that of the certificate")
				}
			case !errors.Is(err, fs.ErrNotExist) || !strings.Contains(args[0], ":"):
				return usagef("%s", err)
			default:
				if chain, err = acme.Dial(cmd.Context(), args[0], server, timeout); err != nil {
					if errors.Is(err, context.Canceled) {
						return err
					}
					return fmt.Errorf("%s", err) //nolint:errorlint // a place out of reach is not the cluster
				}
			}
			now := time.Now()
			if now.After(chain[0].NotAfter) {
				problems = append(problems, "it has expired")
			}
			if now.Before(chain[0].NotBefore) {
				problems = append(problems, "it is not valid yet")
			}
			for i := range chain[1:] {
				if err := chain[i].CheckSignatureFrom(chain[i+1]); err != nil {
					problems = append(problems, fmt.Sprintf("the chain is broken: %q is not signed by %q", chain[i].Subject, chain[i+1].Subject))
				}
			}
			if err := printChain(streams, format, chain, problems); err != nil {
				return err
			}
			if len(problems) > 0 {
				return errSilent{exitError}
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	cmd.Flags().StringVar(&server, "server-name", "", "name to ask for at HOST:PORT (default HOST)")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Second, "how long HOST:PORT may take to answer")
	return cmd
}

func printChain(streams *IO, format string, chain []*x509.Certificate, problems []string) error {
	var list []inspected
	for _, c := range chain {
		list = append(list, inspected{
			Names: acme.Names(c), Subject: c.Subject.String(), Issuer: c.Issuer.String(), Serial: acme.Serial(c), NotBefore: c.NotBefore.UTC(),
			NotAfter: c.NotAfter.UTC(), Key: c.PublicKeyAlgorithm.String(), CA: c.IsCA, Temporary: acme.IsTemporary(c),
		})
	}
	if format == "json" {
		return json.NewEncoder(streams.Out).Encode(map[string]any{"chain": list, "problems": problems})
	}
	w := tabwriter.NewWriter(streams.Out, 0, 0, 2, ' ', 0)
	now := time.Now()
	for n, c := range list {
		if n > 0 {
			fmt.Fprintln(w)
		}
		if len(c.Names) > 0 {
			fmt.Fprintf(w, "names\t%s\n", strings.Join(c.Names, ", "))
		}
		fmt.Fprintf(w, "subject\t%s\nissuer\t%s\nserial\t%s\nvalid\t%s – %s (ends %s)\nkey\t%s\n", dash(c.Subject), c.Issuer, c.Serial,
			c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339), until(c.NotAfter, now), c.Key)
		if c.Temporary {
			fmt.Fprintf(w, "note\ta self-signed stand-in of drover\n")
		}
	}
	for _, p := range problems {
		fmt.Fprintf(w, "problem\t%s\n", p)
	}
	return w.Flush()
}

func newCertVerify(streams *IO) *cobra.Command {
	var (
		store   certStore
		at      []string
		format  string
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use: "verify NAME --at HOST:PORT…", Short: "Compare what is served with what is stored",
		Long: `Compare what is served with what is stored.

Every --at is asked by TLS for the first name of the certificate. The result is
noted in its status. The exit code is 1 when one of them serves something else.`,
		Example: "  drover cert verify public --at cloud.example.org:443",
		Args:    exactArgs(1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			if len(at) == 0 {
				return usagef("--at HOST:PORT is missing: where is the certificate served?")
			}
			s, _, err := store.get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			served, o, err := acme.NewManager(acme.Config{Store: s}).Verify(cmd.Context(), args[0], at, timeout)
			if err != nil {
				return deploy.CertError(err)
			}
			ok := !slices.ContainsFunc(served, func(s acme.Served) bool { return !s.Match })
			if format == "json" {
				err = json.NewEncoder(streams.Out).Encode(map[string]any{"certificate": o.Spec.Name, "serial": o.Status.Serial, "ok": ok, "served": served})
			} else {
				w := tabwriter.NewWriter(streams.Out, 0, 0, 2, ' ', 0)
				fmt.Fprintf(w, "AT\tSERIAL\tEXPIRES\t\nstored\t%s\t%s\t\n", o.Status.Serial, o.Status.NotAfter.Format(time.RFC3339))
				for _, s := range served {
					expires := "-"
					if !s.Expires.IsZero() {
						expires = s.Expires.Format(time.RFC3339)
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", s.Address, dash(s.Serial), expires, s.Problem)
				}
				err = w.Flush()
			}
			if err == nil && !ok {
				err = errSilent{exitError}
			}
			return err
		},
	}
	store.register(cmd)
	cmd.Flags().StringSliceVar(&at, "at", nil, "where it is served (repeatable)")
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Second, "how long one place may take to answer")
	return cmd
}

func newCertExport(streams *IO) *cobra.Command {
	var (
		store certStore
		out   string
	)
	cmd := &cobra.Command{
		Use: "export NAME --out DIR", Short: "Write chain, key and bundle into new files that only you can read",
		Example: "  drover cert export public --out ./public",
		Args:    exactArgs(1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if out == "" {
				return usagef("--out DIR is missing")
			}
			_, o, err := store.get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if err := os.MkdirAll(out, 0o700); err != nil {
				return fmt.Errorf("making %s: %w", out, err)
			}
			for _, f := range []struct{ name, text string }{
				{"fullchain.pem", o.Chain}, {"privkey.pem", o.Key.Reveal()}, {"bundle.pem", o.Bundle().Reveal()},
			} {
				path := filepath.Join(out, f.name)
				if err := writePrivate(path, []byte(f.text)); err != nil {
					return fmt.Errorf("exporting certificate %s: %w", args[0], err)
				}
				fmt.Fprintln(streams.Out, path)
			}
			if o.Status.Phase == acme.Temporary {
				fmt.Fprintln(streams.Err, "Note: this is the self-signed stand-in; no CA has issued the certificate yet.")
			}
			return nil
		},
	}
	store.register(cmd)
	cmd.Flags().StringVar(&out, "out", "", "directory")
	return cmd
}

func newCertAccount(streams *IO) *cobra.Command {
	cmd := &cobra.Command{
		Use: "account", Short: "The ACME account of a store",
		Example: "  drover cert account show",
	}
	cmd.AddCommand(newCertAccountShow(streams), newCertAccountRollover(streams))
	return cmd
}

func newCertAccountShow(streams *IO) *cobra.Command {
	var (
		store  certStore
		format string
	)
	cmd := &cobra.Command{
		Use: "show", Short: "Show the account and the CAs that know it", Args: exactArgs(0, "no arguments"),
		Example: "  drover cert account show",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			b, err := store.open(cmd.Context())
			if err != nil {
				return err
			}
			a, err := acme.NewStore(b).Account(cmd.Context())
			if errors.Is(err, acme.ErrNotFound) {
				return errors.New("there is no account yet; the first `drover cert issue` makes one")
			}
			if err != nil {
				return deploy.CertError(err)
			}
			return printAccount(streams, format, a)
		},
	}
	store.register(cmd)
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

func printAccount(streams *IO, format string, a *acme.Account) error {
	if format == "json" {
		return json.NewEncoder(streams.Out).Encode(a)
	}
	fmt.Fprintf(streams.Out, "thumbprint  %s\n\n", a.Thumbprint)
	w := tabwriter.NewWriter(streams.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ISSUER\tDIRECTORY\tACCOUNT\tSINCE")
	var dirs []string
	for dir := range a.CAs {
		dirs = append(dirs, dir)
	}
	slices.Sort(dirs)
	for _, dir := range dirs {
		r := a.CAs[dir]
		since := "-"
		if !r.Registered.IsZero() {
			since = r.Registered.Format(time.DateOnly)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.Issuer, dir, dash(r.Location), since)
	}
	return w.Flush()
}

func newCertAccountRollover(streams *IO) *cobra.Command {
	var flags certIssuing
	cmd := &cobra.Command{
		Use: "rollover", Short: "Give the account a new key at every CA that knows it",
		Long: `Give the account a new key at every CA that knows it.

It can be repeated when it was interrupted. Edges answer HTTP-01 with the new
thumbprint as soon as they have read it; certificates are not touched.`,
		Example: "  drover cert account rollover",
		Args:    exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := flags.open(cmd.Context())
			if err != nil {
				return err
			}
			return flags.with(cmd.Context(), streams, b, nil, nil, func(ctx context.Context, m *acme.Manager) error {
				a, err := m.Rollover(ctx)
				if err == nil && flags.format == "text" {
					err = printAccount(streams, "text", a)
				}
				return err
			})
		},
	}
	flags.certStore.register(cmd)
	cmd.Flags().DurationVar(&flags.timeout, "timeout", 2*time.Minute, "how long it may take")
	cmd.Flags().StringVarP(&flags.format, "output", "o", "text", "text, or json: one event per line")
	return cmd
}
