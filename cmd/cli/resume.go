package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
)

// proceeding completes a command that continues the open release.
func proceeding(streams *IO, f *factory, cmd *cobra.Command, run func(context.Context, deploy.Recorded) error) *cobra.Command {
	var (
		flags releaseFlags
		env   string
	)
	cmd.Args = exactArgs(1, "STACK")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := flags.check(); err != nil {
			return err
		}
		return verbEnd(run(cmd.Context(), flags.recorded(cmd, streams, args[0], env)))
	}
	envFlag(cmd, &env)
	// Longer than the lease, so that the lock of a killed process has expired.
	flags.register(cmd, f, 2*record.LockTTL+5*time.Second)
	return cmd
}

func newResume(streams *IO, f *factory) *cobra.Command {
	return proceeding(streams, f, &cobra.Command{
		Use:   "resume STACK",
		Short: "Continue an interrupted release",
		Long: `Continue a release that was interrupted, that is paused, or that waits. Submitted
jobs are followed. The other jobs are submitted, unless another client has changed
them since. If the release was being reverted, the revert continues.

It works from the record and does not need the source of the stack. It needs a
token that may deploy the stack. The exit code tells the outcome: see 'drover help
exit-codes'.`,
		Example: "  drover resume ocis -e prod",
	}, func(ctx context.Context, r deploy.Recorded) error {
		_, err := (&deploy.Resume{Recorded: r}).Run(ctx)
		return err
	})
}

func newPromote(streams *IO, f *factory) *cobra.Command {
	return proceeding(streams, f, &cobra.Command{
		Use:   "promote STACK",
		Short: "Promote the canaries of a release, and continue it",
		Long: `Promote the canaries of a release that is awaiting-promotion, and continue it as
'drover resume' does. To remove the canaries instead, run 'drover abort'.`,
		Example: "  drover promote ocis -e prod",
	}, func(ctx context.Context, r deploy.Recorded) error {
		_, err := (&deploy.Resume{Recorded: r, Promote: true}).Run(ctx)
		return err
	})
}

func newAbort(streams *IO, f *factory) *cobra.Command {
	return proceeding(streams, f, &cobra.Command{
		Use:   "abort STACK",
		Short: "Abort an interrupted release and restore the previous one",
		Long: `Abort a release that was interrupted, that is paused, or that waits. Every job that
it changed gets its former spec, even if another client wrote that spec. Jobs that
the release created are stopped.

It works from the record and does not need the source of the stack. It needs a
token that may deploy the stack. The exit code tells the outcome: see 'drover help
exit-codes'.`,
		Example: "  drover abort ocis -e prod",
	}, func(ctx context.Context, r deploy.Recorded) error {
		_, err := (&deploy.Abort{Recorded: r}).Run(ctx)
		return err
	})
}

func newPause(streams *IO, f *factory) *cobra.Command {
	var env string
	cmd := &cobra.Command{
		Use:   "pause STACK",
		Short: "Pause a running release",
		Long: `Pause a running release. Its drover process submits nothing more and ends, and the
Nomad deployments are paused. Then run 'drover resume' to continue the release, or
'drover abort' to revert it. If a target is unreachable, its deployments continue:
run the command again when the target is reachable.`,
		Example: "  drover pause ocis -e prod",
		Args:    exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := (&deploy.Pause{Home: f.home(cmd), Stack: args[0], Environment: env}).Run(cmd.Context())
			if err != nil {
				return verbError(err)
			}
			fmt.Fprintf(streams.Out, "%s: release %d is paused\n", h.Stack, h.Number)
			of := release.StackArgs(args[0], h.Environment)
			fmt.Fprintf(streams.Err, "Next: drover resume %s, or drover abort %s\n", of, of)
			return nil
		},
	}
	envFlag(cmd, &env)
	return cmd
}

func newUnlock(streams *IO, f *factory) *cobra.Command {
	var (
		env   string
		force bool
	)
	cmd := &cobra.Command{
		Use:   "unlock STACK --force",
		Short: "Remove the lock of a stack",
		Long: `Show the holder of the lock of a stack and, with --force, remove the lock. A holder
that is alive notices this before it submits anything more. The lock of a dead
holder expires after half a minute, so this command is rarely needed.`,
		Example: "  drover unlock ocis -e prod --force",
		Args:    exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, r, err := f.recorded(cmd.Context(), args[0], env)
			if err != nil {
				return err
			}
			holder, err := r.Holder(cmd.Context())
			if err != nil {
				return err
			}
			if holder == nil {
				fmt.Fprintf(streams.Out, "%s: not locked\n", r.Stack())
				return nil
			}
			fmt.Fprintf(streams.Err, "The lock is held by %s\n", holder)
			if !force {
				return usagef("nothing was done: add --force to remove the lock")
			}
			if _, err := r.Unlock(cmd.Context()); errors.Is(err, record.ErrHidden) {
				return errRefused{fmt.Errorf("nothing was done: %w; set NOMAD_TOKEN to one, or wait: the lock expires half a minute after its holder ends", err), exitCluster}
			} else if err != nil {
				return err
			}
			fmt.Fprintf(streams.Out, "%s: unlocked\n", r.Stack())
			return nil
		},
	}
	envFlag(cmd, &env)
	cmd.Flags().BoolVar(&force, "force", false, "remove the lock")
	return cmd
}
