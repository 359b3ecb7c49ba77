package cli

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/deploy"
)

func newAdopt(streams *IO, f *factory) *cobra.Command {
	var (
		flags    stackFlags
		message  string
		lockWait time.Duration
		yes      bool
	)
	cmd := &cobra.Command{
		Use:   "adopt STACK",
		Short: "Take over running jobs without a restart",
		Long: `Take over jobs that run already, without restarting them. The running jobs with the
job IDs of the stack are recorded as a release with their present specs. Afterwards they
belong to the stack: a deploy changes them, and a rollback can restore what was
adopted. The differences that the next deploy will change are shown first. Jobs that
do not exist are left to that deploy.

It needs the source of the stack, a token that may read the jobs and write the record
of the stack, and a confirmation on a terminal or -y. It writes the record and
changes no job.

It exits with 0, also if there is nothing to adopt, with 2 if another stack or
environment owns a job ('drover move' gives all jobs of an environment to another
one), and with 11 if a release is open or the stack is locked.`,
		Example: "  drover adopt mycloud -e prod\n  drover adopt mycloud -e prod -y && drover plan mycloud -e prod",
		Args:    exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			shown := false
			show := func(p *deploy.PlanResult) error {
				if shown || p == nil {
					return nil
				}
				shown = true
				return printAdoption(streams, p)
			}
			res, err := deploy.Adopt{
				Home: f.home(cmd), Source: flags.source(args[0]), Message: message, LockWait: lockWait,
				Confirm: func(_ context.Context, p *deploy.PlanResult) (bool, error) {
					if err := show(p); err != nil {
						return false, err
					}
					return true, confirm(streams, yes, "Record what runs now as a release of "+p.Stack.Name+"?")
				},
			}.Run(cmd.Context())
			if perr := show(res.Plan); err == nil {
				err = perr
			}
			if err != nil {
				return releaseError(err)
			}
			switch {
			case res.Owned:
				fmt.Fprintln(streams.Err, "There is nothing to adopt: these jobs are the stack's.")
			case res.Release == nil:
				fmt.Fprintln(streams.Err, "There is nothing to adopt: none of these jobs runs.")
			default:
				fmt.Fprintf(streams.Out, "%s: release %d: adopted %s\n", res.Plan.Stack.Name, res.Release.Number, count(res.Release.Total, "job"))
			}
			return nil
		},
	}
	flags.register(cmd)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask for a confirmation")
	cmd.Flags().StringVarP(&message, "message", "m", "", "why, for the record")
	cmd.Flags().DurationVar(&lockWait, "lock-wait", 0, "how long to wait for another holder of the lock")
	return cmd
}

// printAdoption shows what the next deploy will change.
func printAdoption(streams *IO, p *deploy.PlanResult) error {
	var b bytes.Buffer
	v := planView{w: &b, color: streams.Color}
	v.changes(p.Changes)
	fmt.Fprintf(&b, "%s: the next deploy: %s\n", p.Stack.Name, summarize(p.Changes))
	_, err := streams.Out.Write(b.Bytes())
	return err
}
