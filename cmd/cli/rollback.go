package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/deploy"
)

// renewing is a command that makes a release out of the record of others.
func renewing(streams *IO, cmd *cobra.Command, run func(context.Context, deploy.Recorded, deploy.NewRelease, []string) error) (*cobra.Command, *releaseFlags) {
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
	flags.register(cmd, 0)
	flags.registerNew(cmd)
	cmd.Flags().BoolVar(&flags.new.TakeOver, "take-over", false, "leave a release that was interrupted as it is")
	return cmd, &flags
}

func newRollback(streams *IO) *cobra.Command {
	cmd, flags := renewing(streams, &cobra.Command{
		Use:   "rollback STACK [RELEASE]",
		Short: "Go back to an earlier release",
		Long: `Go back to an earlier release: the one given, or the newest good one before what
runs. After a rollback that is an older one still, not the release that was left.
Its job specs are registered again from the record, with the same checks
as a deploy, and make a new release. Services that came later are stopped; if one
of them runs, this asks on a terminal, and needs --prune elsewhere.

The source of the stack is not needed, and neither are Nomad's own job versions:
a rollback works after 'nomad job stop -purge' and 'nomad system gc'. It takes
back job specs, not data and not secrets. DNS records of hosts that only the
former release has are made by the controller.`,
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

func newRedeploy(streams *IO) *cobra.Command {
	cmd, _ := renewing(streams, &cobra.Command{
		Use:   "redeploy STACK [SERVICE…]",
		Short: "Replace every allocation of a stack by the same, step by step",
		Long: `Replace every allocation of a stack, or of some of its services, by the same job:
by the update block of each job and with all gates of a deploy. Images whose tag
has moved are pulled again where the driver does so (docker: latest, or
force_pull). The source of the stack is not needed.

Jobs that run to an end (batch, sysbatch) run again only when they are named. To
make Nomad replace anything a job has to change: its meta drover_redeploy is set
to the time, and later deploys leave it there.`,
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
