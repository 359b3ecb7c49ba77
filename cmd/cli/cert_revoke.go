package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/deploy"
)

// revocationReasons are RFC 5280's, as far as CAs take them.
var revocationReasons = []struct {
	name string
	code int
}{{"unspecified", 0}, {"keyCompromise", 1}, {"affiliationChanged", 3}, {"superseded", 4}, {"cessationOfOperation", 5}}

func newCertRevoke(streams *IO, f *factory) *cobra.Command {
	var (
		flags  certIssuing
		reason string
	)
	var names []string
	for _, r := range revocationReasons {
		names = append(names, r.name)
	}
	cmd := &cobra.Command{
		Use: "revoke NAME", Short: "Revoke a certificate at its CA",
		Long: `Revoke a certificate at its CA.

The certificate stays in the store and edges keep serving it. It is not renewed
automatically. To replace it, run 'drover cert renew --force NAME'.`,
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
				o, err := deploy.Revoke(ctx, m, args[0], revocationReasons[at].code)
				if err == nil && flags.format == "text" {
					fmt.Fprintf(streams.Out, "%s  revoked  serial %s\n", o.Spec.Name, o.Status.Serial)
				}
				return err
			})
		},
	}
	flags.certStore.register(cmd, f)
	cmd.Flags().StringVar(&reason, "reason", "unspecified", strings.Join(names, ", "))
	cmd.Flags().DurationVar(&flags.timeout, "timeout", time.Minute, "time limit of the command")
	cmd.Flags().StringVarP(&flags.format, "output", "o", "text", "text, or json: one event per line")
	return cmd
}
