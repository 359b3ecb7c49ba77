package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/deploy"
)

// newCertPrepare is what comes before the edge, as the edge comes before the
// first issuance over HTTP-01.
func newCertPrepare(streams *IO, f *factory) *cobra.Command {
	var (
		flags certIssuing
		sf    stackFlags
	)
	cmd := &cobra.Command{
		Use:   "prepare STACK",
		Short: "Create what an edge needs before the first issuance",
		Long: `Create what an edge needs to start: a temporary, self-signed certificate for each
certificate of the stack that does not exist yet, and the thumbprint of the ACME
account key. It sends no request to a CA.

Run 'drover cert issue' when the edge runs.`,
		Example: "  drover cert prepare ocis -e prod",
		Args:    exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			given, err := flags.issuer()
			if err != nil {
				return err
			}
			s, err := sf.stack(ctx, args[0])
			if err != nil {
				return err
			}
			specs, issuers, err := acme.FromStack(s)
			if err != nil {
				return deploy.CertError(err)
			}
			if len(specs) == 0 {
				return usagef("stack %s has no certificate to prepare", s.Name)
			}
			if given != nil {
				issuers = append([]acme.Issuer{*given}, issuers...)
			}
			b, err := flags.open(ctx)
			if err != nil {
				return err
			}
			return flags.with(ctx, streams, b, nil, issuers, func(ctx context.Context, m *acme.Manager) error {
				for _, spec := range specs {
					if given != nil && acme.NeedsChallenge(spec, issuers) {
						spec.Issuers = []string{given.Name}
					}
					o, err := m.Prepare(ctx, spec)
					if err != nil {
						return err
					}
					if err := flags.sayPrepared(streams, o); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	flags.register(cmd, f)
	sf.registerWhole(cmd)
	return cmd
}

// sayPrepared is the line of one certificate on stdout, with -o json an event
// like those of the manager.
func (f *certIssuing) sayPrepared(streams *IO, o *acme.Object) error {
	if f.format == "json" {
		return json.NewEncoder(streams.Out).Encode(acme.Event{Time: time.Now().UTC(), Kind: "prepared", Certificate: o.Spec.Name, Names: o.Spec.Names, Serial: o.Status.Serial, Text: string(o.Status.Phase)})
	}
	_, err := fmt.Fprintf(streams.Out, "%s  %s  %s\n", o.Spec.Name, o.Status.Phase, strings.Join(o.Spec.Names, ","))
	return err
}
