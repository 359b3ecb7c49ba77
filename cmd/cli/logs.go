package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/rollout"
)

func newLogs(streams *IO, f *factory) *cobra.Command {
	var (
		flags  stackFlags
		opts   rollout.LogOptions
		stderr bool
	)
	cmd := &cobra.Command{
		Use:   "logs STACK SERVICE",
		Short: "Print the logs of all instances of a service",
		Long: `Print the logs of all instances of a service, each line with its allocation and
task. Of a periodic or parameterized job they are the logs of its runs: of all that
run or, if none runs, of the newest.

STACK is a directory, or the name of a stack whose source need not be here: the record
of the newest release names the job. Before the first release the source is read. It
needs a token that may read the record and the logs (read-logs). It changes nothing.
It exits with 0 if all logs could be read, with 2 if there is no such service.`,
		Example: "  drover logs ocis gateway -e prod",
		Args:    exactArgs(2, "STACK and SERVICE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.Stream = "stdout"
			if stderr {
				opts.Stream = "stderr"
			}
			return deploy.Logs{
				Home: f.readingHome(cmd), Source: flags.source(args[0]), Service: args[1], Options: opts,
				Emit: func(l rollout.LogLine) {
					fmt.Fprintf(streams.Out, "%.8s %s | %s\n", l.AllocID, l.Task, l.Text)
				},
			}.Run(cmd.Context())
		},
	}
	flags.registerRecorded(cmd)
	_ = cmd.Flags().MarkHidden("service") // it is an argument here
	fl := cmd.Flags()
	fl.BoolVarP(&opts.Follow, "follow", "f", false, "print new lines until Ctrl-C")
	fl.IntVar(&opts.Tail, "tail", 100, "the last N lines of each task, -1 for all")
	fl.BoolVar(&stderr, "stderr", false, "print the standard error of the tasks")
	return cmd
}
