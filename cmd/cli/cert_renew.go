package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/stack"
)

func newCertRenew(streams *IO, f *factory) *cobra.Command {
	var (
		flags certIssuing
		sf    stackFlags
		from  string
		force bool
	)
	cmd := &cobra.Command{
		Use:   "renew [NAME…]",
		Short: "Renew certificates that are due, or named ones at once",
		Long: `Renew the named certificates that are due for renewal. Without a NAME, renew
every certificate that is due.

With --force the named certificates are renewed even if they are not due, and the
backoff after failures is reset. Two limits of CAs still apply: a Retry-After
that a CA sent, and at most three new orders for the same names within a day.

With --force it exits with 0 only if there is a new certificate.

DNS-01 is answered here for the stack that --stack names. Otherwise the
controller answers it: with --force the command waits for the controller.`,
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
					renew := deploy.Reconcile
					if force {
						renew = deploy.Renew
					}
					r, err := renew(ctx, m, name)
					if errors.Is(err, acme.ErrNotFound) {
						return usagef("there is no certificate %q", name)
					}
					if force && errors.Is(err, acme.ErrElsewhere) {
						fmt.Fprintf(streams.Err, "%s is requested from the controller, which answers DNS-01 with the zones of the deployed stacks.\n", name)
						if r.Object, err = deploy.UntilIssued(ctx, acme.NewStore(b), name, r.Object.Status.Serial); err == nil {
							r.Issued = true
						}
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
	flags.register(cmd, f)
	for _, hidden := range []string{"directory", "ca", "email"} { // the certificate knows its issuers
		_ = cmd.Flags().MarkHidden(hidden)
	}
	sf.registerWhole(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "renew even if the certificate is not due")
	cmd.Flags().StringVar(&from, "stack", "", "use the dns block of this stack for DNS-01 here, instead of waiting for the controller")
	return cmd
}
