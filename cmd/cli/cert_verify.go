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
