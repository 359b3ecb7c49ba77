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

// proceeding is a command that continues with the release that is open.
func proceeding(streams *IO, cmd *cobra.Command, run func(context.Context, deploy.Recorded) error) *cobra.Command {
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
	// Twice the lease: that of a drover that was killed runs out by itself.
	flags.register(cmd, 2*record.LockTTL+5*time.Second)
	return cmd
}

func newResume(streams *IO) *cobra.Command {
	return proceeding(streams, &cobra.Command{
		Use:   "resume STACK",
		Short: "Go on with a release that was interrupted",
		Long: `Go on with a release that was interrupted, paused or waits, from its record: the
source of the stack is not needed. What was submitted is followed; what was not
is submitted, unless somebody else has changed the job since. A release that was
on its way back goes on going back.`,
		Example: "  drover resume ocis -e prod",
	}, func(ctx context.Context, r deploy.Recorded) error {
		_, err := (&deploy.Resume{Recorded: r}).Run(ctx)
		return err
	})
}

func newPromote(streams *IO) *cobra.Command {
	return proceeding(streams, &cobra.Command{
		Use:   "promote STACK",
		Short: "Promote the canaries of a release that waits, and go on with it",
		Long: `Promote the canaries of a release that is awaiting-promotion, and go on with it
as 'drover resume' does. 'drover abort' takes them away instead.`,
		Example: "  drover promote ocis -e prod",
	}, func(ctx context.Context, r deploy.Recorded) error {
		_, err := (&deploy.Resume{Recorded: r, Promote: true}).Run(ctx)
		return err
	})
}

func newAbort(streams *IO) *cobra.Command {
	return proceeding(streams, &cobra.Command{
		Use:   "abort STACK",
		Short: "Give up a release that was interrupted: everything goes back",
		Long: `Give up a release that was interrupted, paused or waits. Every job that it
changed gets the spec that it had before, whether a release of drover or somebody
else had made it; jobs that it created are stopped.`,
		Example: "  drover abort ocis -e prod",
	}, func(ctx context.Context, r deploy.Recorded) error {
		_, err := (&deploy.Abort{Recorded: r}).Run(ctx)
		return err
	})
}

func newPause(streams *IO) *cobra.Command {
	var env string
	cmd := &cobra.Command{
		Use:   "pause STACK",
		Short: "Stop a release where it is",
		Long: `Stop a release that is being made, where it is: its drover submits nothing more
and ends, and Nomad's deployments stand still. 'drover resume' goes on with it,
'drover abort' goes back. Where a target could not be reached, its deployments go
on until the release is paused again.`,
		Example: "  drover pause ocis -e prod",
		Args:    exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := (&deploy.Pause{Home: homeOf(cmd), Stack: args[0], Environment: env}).Run(cmd.Context())
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

func newUnlock(streams *IO) *cobra.Command {
	var (
		env   string
		force bool
	)
	cmd := &cobra.Command{
		Use:   "unlock STACK --force",
		Short: "Take the lock of a stack away from its holder",
		Long: `Show who holds the lock of a stack and, with --force, take it away. A holder that
still lives notices before it submits anything more. The lock of one that is gone
runs out by itself in half a minute: there is rarely a need for this.`,
		Example: "  drover unlock ocis -e prod --force",
		Args:    exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, r, err := recorded(cmd.Context(), args[0], env)
			if err != nil {
				return err
			}
			holder, err := r.Holder(cmd.Context())
			if err != nil {
				return err
			}
			if holder == nil {
				fmt.Fprintf(streams.Out, "%s: nobody holds the lock\n", r.Stack())
				return nil
			}
			fmt.Fprintf(streams.Err, "The lock is held by %s\n", holder)
			if !force {
				return usagef("nothing was done: add --force to take the lock away")
			}
			if _, err := r.Unlock(cmd.Context()); errors.Is(err, record.ErrHidden) {
				return errRefused{fmt.Errorf("nothing was done: %w; set NOMAD_TOKEN to one, or wait: the lock runs out half a minute after its holder is gone", err), exitCluster}
			} else if err != nil {
				return err
			}
			fmt.Fprintf(streams.Out, "%s: unlocked\n", r.Stack())
			return nil
		},
	}
	envFlag(cmd, &env)
	cmd.Flags().BoolVar(&force, "force", false, "take it away")
	return cmd
}
