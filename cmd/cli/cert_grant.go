package cli

import (
	"cmp"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/acl"
	"github.com/drover-nomad/drover/acme"
)

func newCertGrant(streams *IO, f *factory) *cobra.Command {
	var (
		job, namespace string
		remove         bool
	)
	cmd := &cobra.Command{
		Use:   "grant NAME --job ID",
		Short: "Let one job read one certificate",
		Long: `Let the tasks of one job, of any stack, read one certificate in Nomad Variables: a
mail server or a database that serves it by itself. The command creates a Nomad
policy that is attached to the job. With it the tasks read that certificate and what
clients trust (drover/trust), and no other certificate.

It needs a token that may manage ACLs, and Nomad with ACLs; without ACLs every job
reads every variable. The certificate need not exist yet. It is idempotent. With
--remove it deletes the policy.`,
		Example: `  drover cert grant mail --job postfix
  drover cert grant mail --job postfix --remove`,
		Args: exactArgs(1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if job == "" || strings.Contains(job, "*") {
				return usagef("%s: --job needs the ID of one job", cmd.CommandPath())
			}
			if _, err := (acme.Spec{Name: args[0], Names: []string{"a.example"}}).Normalize(); err != nil {
				return usagef("%s", err)
			}
			own := cmp.Or(os.Getenv("NOMAD_NAMESPACE"), "default")
			p := acl.Scope{Namespace: own}.OfCertificate(acme.Path(args[0]), job, cmp.Or(namespace, own))
			clients, err := f.connect(ctx, false)
			if err != nil {
				return err
			}
			if remove {
				if err := acl.RemoveNomadPolicy(ctx, clients.Nomad, p.Name); err != nil {
					return err
				}
				fmt.Fprintf(streams.Out, "job %s in namespace %s may no longer read %s\n", p.Job, p.Namespace, acme.Path(args[0]))
				return nil
			}
			if err := acl.PutNomadPolicy(ctx, clients.Nomad, p); err != nil {
				return err
			}
			fmt.Fprintf(streams.Out, "job %s in namespace %s may read %s: policy %s\n", p.Job, p.Namespace, acme.Path(args[0]), p.Name)
			return nil
		},
	}
	cmd.Flags().StringVar(&job, "job", "", "`ID` of the job")
	cmd.Flags().StringVar(&namespace, "job-namespace", "", "Nomad `NAMESPACE` of the job (default that of the certificate)")
	cmd.Flags().BoolVar(&remove, "remove", false, "delete the policy")
	return cmd
}
