package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
)

func newRecord(streams *IO, f *factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "record",
		Short: "Check and repair the record of a stack",
		Long: `Check and repair the record of a stack: the Nomad Variables below drover/stacks
with its releases, its lock and its schedules. These commands change no job.`,
		Example: "  drover record check ocis -e prod\n  drover record repair ocis -e prod",
	}
	cmd.AddCommand(newRecordCheck(streams, f), newRecordRepair(streams, f))
	return cmd
}

func newRecordCheck(streams *IO, f *factory) *cobra.Command {
	var env, format string
	cmd := &cobra.Command{
		Use:   "check STACK",
		Short: "Find unreadable parts of the record of a stack",
		Long: `Read every variable of the record of a stack. List those that are unreadable,
missing or unreferenced, each with the repair that 'drover record repair' would do.

It needs a token that may read the record. It changes nothing. It exits with 1 if
it finds a problem.`,
		Example: "  drover record check ocis -e prod\n  drover record check ocis -e prod -o json",
		Args:    exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			clients, r, err := f.recorded(cmd.Context(), args[0], env)
			if err != nil {
				return err
			}
			got, err := r.Check(cmd.Context())
			if err != nil {
				return err
			}
			if format == "json" {
				if err := json.NewEncoder(streams.Out).Encode(got); err != nil {
					return err
				}
			} else {
				if len(got.Releases)+len(got.Problems) == 0 {
					return deploy.NoRelease(cmd.Context(), clients.Nomad, r)
				}
				if err := printProblems(streams.Out, got.Problems); err != nil {
					return err
				}
				fmt.Fprintf(streams.Out, "%s: %s readable, %s\n", r.Stack(), count(len(got.Releases), "release"), count(len(got.Problems), "problem"))
				if repairable(got.Problems) {
					fmt.Fprintf(streams.Err, "Next: drover record repair %s\n", release.StackArgs(args[0], r.Environment()))
				}
			}
			if len(got.Problems) > 0 {
				return errSilent{exitError}
			}
			return nil
		},
	}
	envFlag(cmd, &env)
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

func newRecordRepair(streams *IO, f *factory) *cobra.Command {
	var (
		env  string
		yes  bool
		wait time.Duration
	)
	cmd := &cobra.Command{
		Use:   "repair STACK",
		Short: "Repair what 'drover record check' finds",
		Long: `Show what 'drover record check' finds and, after a confirmation, repair it.

  - A release with some readable services becomes an abandoned release with these
    services. Their jobs keep running and belong to the stack. No rollback goes to
    that release.
  - A release without readable services is removed from the list.
  - Unreferenced variables and the lock of a dead holder are deleted.
  - Variables that a newer drover wrote are not changed.

It needs a token that may write the record. It takes the lock of the stack and
changes no job. It exits with 1 if a problem remains.`,
		Example: "  drover record repair ocis -e prod\n  drover record repair ocis -e prod -y",
		Args:    exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if err := confirmable(streams, yes); err != nil {
				return err
			}
			ctx := cmd.Context()
			_, r, err := f.recorded(ctx, args[0], env)
			if err != nil {
				return err
			}
			got, err := r.Check(ctx)
			if err != nil {
				return err
			}
			if len(got.Problems) == 0 {
				fmt.Fprintf(streams.Out, "%s: nothing to repair\n", r.Stack())
				return nil
			}
			if err := printProblems(streams.Out, got.Problems); err != nil {
				return err
			}
			if !repairable(got.Problems) {
				fmt.Fprintf(streams.Out, "%s: drover cannot repair any of this\n", r.Stack())
				return errSilent{exitError}
			}
			if err := confirm(streams, yes, fmt.Sprintf("Repair the record of stack %s (environment %s)", r.Stack(), r.Environment())); err != nil {
				return err
			}
			lease, err := r.Lock(ctx, record.Self(commandLine(cmd), os.Getenv), wait, func(h record.Holder) {
				fmt.Fprintf(streams.Err, "waiting for the lock, which is held by %s\n", h)
			})
			if err != nil {
				return releaseError(err)
			}
			done, err := r.Repair(ctx, got.Problems)
			if rerr := lease.Remove(ctx); err == nil {
				err = rerr
			}
			for _, p := range done {
				fmt.Fprintf(streams.Err, "%s: %s: done\n", p.Variable, p.Repair)
			}
			if err != nil {
				return err
			}
			left, err := r.Check(ctx)
			if err != nil {
				return err
			}
			fmt.Fprintf(streams.Out, "%s: %s repaired, %s left\n", r.Stack(), count(len(done), "problem"), count(len(left.Problems), "problem"))
			if len(left.Problems) > 0 {
				return errSilent{exitError}
			}
			return nil
		},
	}
	envFlag(cmd, &env)
	fl := cmd.Flags()
	fl.BoolVarP(&yes, "yes", "y", false, "do not ask")
	fl.DurationVar(&wait, "lock-wait", 2*record.LockTTL+5*time.Second, "how long to wait for the lock of the stack")
	return cmd
}

func repairable(problems []record.Problem) bool {
	for _, p := range problems {
		if p.Repair != "" {
			return true
		}
	}
	return false
}

func printProblems(out io.Writer, problems []record.Problem) error {
	if len(problems) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "VARIABLE\tPROBLEM\tREPAIR")
	for _, p := range problems {
		repair := p.Repair
		if repair == "" {
			repair = "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", p.Variable, strings.ReplaceAll(p.Problem, "\n", "; "), repair)
	}
	return w.Flush()
}

// recordHint returns the command that checks an unreadable record, "" for any
// other error.
func recordHint(err error) string {
	var broken *record.UnreadableError
	if !errors.As(err, &broken) || broken.Newer() {
		return ""
	}
	name, env, ok := record.OwnerOf(broken.Path)
	if !ok {
		return ""
	}
	return fmt.Sprintf("; run `drover record check %s`", release.StackArgs(name, env))
}
