package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/deploy"
)

func newCertAccount(streams *IO, f *factory) *cobra.Command {
	cmd := &cobra.Command{
		Use: "account", Short: "Show or change the ACME account of a store",
		Example: "  drover cert account show",
	}
	cmd.AddCommand(newCertAccountShow(streams, f), newCertAccountRollover(streams, f), newCertAccountDeactivate(streams, f))
	return cmd
}

func newCertAccountShow(streams *IO, f *factory) *cobra.Command {
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
	store.register(cmd, f)
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

func printAccount(streams *IO, format string, a *acme.Account) error {
	if format == "json" {
		return json.NewEncoder(streams.Out).Encode(a)
	}
	fmt.Fprintf(streams.Out, "thumbprint  %s\n\n", a.Thumbprint)
	w := tabwriter.NewWriter(streams.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ISSUER\tDIRECTORY\tACCOUNT\tSINCE\tCONTACT\tTERMS\tACCEPTED BY")
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
		location := dash(r.Location)
		if !r.Deactivated.IsZero() {
			location = "deactivated " + r.Deactivated.Format(time.DateOnly)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Issuer, dir, location, since, dash(r.Contact), dash(r.Terms), dash(r.TermsBy))
	}
	return w.Flush()
}

func newCertAccountDeactivate(streams *IO, f *factory) *cobra.Command {
	var (
		flags certIssuing
		yes   bool
	)
	cmd := &cobra.Command{
		Use: "deactivate DIRECTORY", Short: "Deactivate the account at one CA, for good",
		Long: `Deactivate the ACME account at the CA with this directory (RFC 8555, 7.3.6): when
the CA is not used any more, or the account's key was stolen there. It asks for a
confirmation on a terminal, and needs -y elsewhere.

Certificates stay valid. Their renewal at this CA fails until 'drover cert account
rollover' has made another key, with which another account is registered.`,
		Example: "  drover cert account deactivate https://acme.example.net/directory",
		Args:    exactArgs(1, "DIRECTORY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := confirmable(streams, yes); err != nil {
				return err
			}
			b, err := flags.open(cmd.Context())
			if err != nil {
				return err
			}
			a, err := acme.NewStore(b).Account(cmd.Context())
			if err != nil && !errors.Is(err, acme.ErrNotFound) {
				return deploy.CertError(err)
			}
			if a == nil || a.CAs[args[0]].Location == "" {
				return usagef("there is no account at %s; `drover cert account show` lists all", args[0])
			}
			if err := confirm(streams, yes, "Deactivate the account at "+args[0]+" for good?"); err != nil {
				return err
			}
			return flags.with(cmd.Context(), streams, b, nil, nil, func(ctx context.Context, m *acme.Manager) error {
				return m.Deactivate(ctx, args[0])
			})
		},
	}
	flags.certStore.register(cmd, f)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask for a confirmation")
	cmd.Flags().DurationVar(&flags.timeout, "timeout", time.Minute, "time limit of the command")
	cmd.Flags().StringVarP(&flags.format, "output", "o", "text", "text, or json: one event per line")
	return cmd
}

func newCertAccountRollover(streams *IO, f *factory) *cobra.Command {
	var flags certIssuing
	cmd := &cobra.Command{
		Use: "rollover", Short: "Replace the key of the account at every CA",
		Long: `Replace the key of the ACME account at every CA where it is registered.

If it was interrupted, run it again. Edges answer HTTP-01 with the new thumbprint
after they read it from the store. Certificates are not changed.`,
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
	flags.certStore.register(cmd, f)
	cmd.Flags().DurationVar(&flags.timeout, "timeout", 2*time.Minute, "time limit of the command")
	cmd.Flags().StringVarP(&flags.format, "output", "o", "text", "text, or json: one event per line")
	return cmd
}
