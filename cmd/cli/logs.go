package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/rollout"
)

func newLogs(streams *IO) *cobra.Command {
	var (
		flags  stackFlags
		opts   rollout.LogOptions
		stderr bool
	)
	cmd := &cobra.Command{
		Use:   "logs STACK SERVICE",
		Short: "Print the logs of all instances of a service",
		Long: `Print the logs of all instances of a service, each line with allocation and
task before it. Of a periodic or parameterized job they are those of its runs:
of all that run or, when none does, of the newest.

STACK is a directory, or the name of a stack whose source need not be here: the record
of the newest release names the job. Before the first release the source is read.`,
		Example: "  drover logs ocis gateway -e prod",
		Args:    exactArgs(2, "STACK and SERVICE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			flags.services = []string{args[1]}
			r, err := flags.running(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			head, err := r.newest(cmd.Context())
			if err != nil {
				return err
			}
			what, err := r.jobs(cmd.Context(), head)
			if err != nil {
				return err
			}
			jobs := what.Jobs
			switch {
			case len(jobs) == 0 && len(flags.targets) == 0:
				return usagef("service %s of stack %s does not run", args[1], r.releases.Stack())
			case len(jobs) == 0:
				return usagef("service %s does not run in target %s", args[1], strings.Join(flags.targets, ", "))
			case len(jobs) > 1:
				return usagef("service %s runs in several targets; choose one of %s with --target", args[1], strings.Join(deploy.TargetNames(jobs), ", "))
			}
			clients, err := r.dial(cmd.Context(), what.Targets, jobs, false)
			if err != nil {
				return err
			}
			opts.Stream = "stdout"
			if stderr {
				opts.Stream = "stderr"
			}
			return rollout.Logs(cmd.Context(), clients[jobs[0].Target], jobs[0], opts, func(l rollout.LogLine) {
				fmt.Fprintf(streams.Out, "%.8s %s | %s\n", l.AllocID, l.Task, l.Text)
			})
		},
	}
	flags.registerRunning(cmd)
	_ = cmd.Flags().MarkHidden("service") // it is an argument here
	fl := cmd.Flags()
	fl.BoolVarP(&opts.Follow, "follow", "f", false, "go on with new lines until Ctrl-C")
	fl.IntVar(&opts.Tail, "tail", 100, "the last N lines of each task, -1 for all")
	fl.BoolVar(&stderr, "stderr", false, "what the tasks write to stderr")
	return cmd
}
