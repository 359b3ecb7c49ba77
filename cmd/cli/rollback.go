package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/deploy"
)

// renewing is a command that makes a release out of the record of others.
func renewing(streams *IO, f *factory, cmd *cobra.Command, run func(context.Context, deploy.Recorded, deploy.NewRelease, []string) error) (*cobra.Command, *releaseFlags) {
	var (
		flags releaseFlags
		env   string
	)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := flags.check(); err != nil {
			return err
		}
		return verbEnd(run(cmd.Context(), flags.recorded(cmd, streams, args[0], env), flags.new, args[1:]))
	}
	envFlag(cmd, &env)
	flags.register(cmd, f, 0)
	flags.registerNew(cmd)
	cmd.Flags().BoolVar(&flags.new.TakeOver, "take-over", false, "abandon an interrupted release, and start from what runs now")
	return cmd, &flags
}

func newRollback(streams *IO, f *factory) *cobra.Command {
	cmd, flags := renewing(streams, f, &cobra.Command{
		Use:   "rollback STACK [RELEASE]",
		Short: "Restore an earlier release",
		Long: `Restore an earlier release: RELEASE, or the newest good release before the one
that runs. A second rollback goes one release further back. The command registers
the job specs of the record as a new release, with the same checks as a deploy.
Services that were added later are stopped. If one of them runs, the command asks
for a confirmation on a terminal, and needs --prune elsewhere.

It needs neither the source of the stack nor Nomad's job versions: it works after
'nomad job stop -purge' and 'nomad system gc'. It restores job specs. It does not
restore data or secrets. The controller creates the DNS records of hosts that only
the restored release has.

The exit code tells the outcome: see 'drover help exit-codes'.`,
		Example: "  drover rollback ocis -e prod\n  drover rollback ocis 11 -e prod -m 'uploads fail'",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 && len(args) != 2 {
				return usagef("%s: give STACK [RELEASE]", cmd.CommandPath())
			}
			_, err := optionalRevision(args[1:])
			return err
		},
	}, func(ctx context.Context, r deploy.Recorded, n deploy.NewRelease, args []string) error {
		to, err := optionalRevision(args)
		if err != nil {
			return err
		}
		_, err = (&deploy.Rollback{Recorded: r, New: n, To: to}).Run(ctx)
		return err
	})
	pruneFlags(cmd, &flags.new.Prune)
	return cmd
}

// optionalRevision is the number of a release, 0 when none is given.
func optionalRevision(args []string) (int, error) {
	if len(args) == 0 {
		return 0, nil
	}
	return revision(args[0])
}

func newRedeploy(streams *IO, f *factory) *cobra.Command {
	cmd, _ := renewing(streams, f, &cobra.Command{
		Use:   "redeploy STACK [SERVICE…]",
		Short: "Replace every allocation of a stack by the same job",
		Long: `Replace every allocation of a stack, or of some of its services, by the same job.
The command follows the update block of each job and has all gates of a deploy.
If the tag of an image points to a new image, the driver decides whether it is
pulled again (docker: with the tag latest, or with force_pull).

It does not need the source of the stack. Jobs that run to completion (batch,
sysbatch) run again only if they are named. Nomad replaces allocations only if the
job changes: the command sets the job's meta drover_redeploy to the time, and
later deploys keep it.

The exit code tells the outcome: see 'drover help exit-codes'.`,
		Example: "  drover redeploy ocis -e prod\n  drover redeploy ocis gateway users -e prod -m 'new CA certificates'",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("%s: give STACK [SERVICE…]", cmd.CommandPath())
			}
			return nil
		},
	}, func(ctx context.Context, r deploy.Recorded, n deploy.NewRelease, services []string) error {
		_, err := (&deploy.Redeploy{Recorded: r, New: n, Services: services}).Run(ctx)
		return err
	})
	return cmd
}
