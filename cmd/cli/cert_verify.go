package cli

import (
	"encoding/json"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/deploy"
)

func newCertVerify(streams *IO, f *factory) *cobra.Command {
	var (
		store   certStore
		at      []string
		format  string
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use: "verify NAME --at HOST:PORT…", Short: "Compare the served certificate with the stored one",
		Long: `Compare the certificate that servers present with the stored one.

The command connects to each --at by TLS, with the first name of the certificate
as server name. It writes the result to the status of the certificate.

It exits with 1 if a server presents another certificate or does not answer.`,
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
	store.register(cmd, f)
	cmd.Flags().StringSliceVar(&at, "at", nil, "address that must serve the certificate (repeatable)")
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Second, "time limit of each connection")
	return cmd
}
