// Package cli is drover's command line: flags, printing and exit codes, and
// nothing else. Every command is a thin caller of a package that returns
// values and events.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/drover-nomad/drover/cmd/cli/view"
	"github.com/drover-nomad/drover/deploy"
)

// Main runs drover with args (without the program's name) on the process's
// own streams and returns the exit code. The first SIGINT or SIGTERM cancels
// the command's context; a second one ends the process at once.
func Main(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		stop() // from here on the default handler is back: a second Ctrl-C kills
	}()
	return Run(ctx, systemIO(), args)
}

// Run executes one command line on the given streams and returns its exit
// code.
func Run(ctx context.Context, streams *IO, args []string) int {
	root := newRoot(streams)
	args = normalizeFlags(root, args)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	printError(streams.Err, err)
	var silent errSilent
	if !errors.As(err, &silent) {
		view.AnnotateError(streams, err)
	}
	var usage errUsage
	var wrong *deploy.InvalidError
	if errors.As(err, &usage) || errors.As(err, &wrong) {
		fmt.Fprintf(streams.Err, "Run 'drover help' for the commands and their flags.\n")
	}
	code := exitCode(err)
	if code != exitOK && code != exitCancelled && !errors.As(err, &silent) && isDetailed(args) {
		return exitError // 2 says that there are changes
	}
	return code
}

// isDetailed reports whether --detailed-exitcode is given, as pflag reads it: the
// last one counts, and one whose value is not a boolean is taken as given.
func isDetailed(args []string) bool {
	on := false
	for _, a := range args {
		name, value, has := strings.Cut(a, "=")
		switch {
		case a == "--":
			return on
		case name != "--"+flagDetailed:
		case !has:
			on = true
		default:
			is, err := strconv.ParseBool(value)
			on = is || err != nil
		}
	}
	return on
}

// Root is the tree of drover's commands, for what documents it: man pages,
// reference and completions.
func Root() *cobra.Command {
	root := newRoot(&IO{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard})
	root.InitDefaultCompletionCmd()
	root.DisableAutoGenTag = true
	return root
}

func newRoot(streams *IO) *cobra.Command {
	root := &cobra.Command{
		Use:   "drover",
		Short: "Deploy applications of many services on Nomad",
		Example: `  drover init ocis mycloud
  drover lint mycloud -e prod
  drover deploy mycloud -e prod`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.Err)
	root.PersistentFlags().BoolVar(&streams.GitHub, "github", false, "tell what went wrong as annotations of GitHub Actions, too")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		// A group has few flags: those that follow a misspelled command are
		// that command's.
		if cmd.HasSubCommands() && cmd.Flags().NArg() > 0 {
			return unknownCommand(cmd, cmd.Flags().Args())
		}
		return usagef("%s: %s", cmd.CommandPath(), err)
	})
	clients := &factory{}
	root.AddCommand(newVersion(streams), newRender(streams), newStacks(streams), newInit(streams), newImport(streams), newUpgrade(streams), newLint(streams))
	root.AddCommand(newDev(streams), newDNS(streams, clients), newCert(streams, clients), newController(streams, clients), newEdge(streams, clients))
	root.AddCommand(newPlan(streams, clients), newDrift(streams, clients), newAdopt(streams, clients), newRedeploy(streams, clients), newSchedule(streams, clients))
	root.AddCommand(newDeploy(streams, clients), newStatus(streams, clients), newDestroy(streams, clients), newLogs(streams, clients), newCheck(streams, clients), newSecrets(streams, clients), newExitCodes())
	root.AddCommand(newDoctor(streams, clients), newACL(streams, clients))
	root.AddCommand(newHistory(streams, clients), newShow(streams, clients), newDiff(streams, clients))
	root.AddCommand(newRollback(streams, clients), newResume(streams, clients), newAbort(streams, clients), newPause(streams, clients), newPromote(streams, clients), newApprove(streams, clients), newUnlock(streams, clients), newRecord(streams, clients))
	root.AddCommand(newList(streams, clients), newMove(streams, clients), newMaintenance(streams, clients), newUI(streams, clients), newOpen(streams, clients))
	completeGroups(root)
	completeWords(root, clients)
	return root
}

// completeGroups makes every command that has commands of its own print its
// help, and refuse a word that is none of them.
func completeGroups(cmd *cobra.Command) {
	if !cmd.HasSubCommands() {
		return
	}
	cmd.Args = unknownCommand
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	for _, sub := range cmd.Commands() {
		completeGroups(sub)
	}
}

// unknownCommand refuses args[0], which is no command of the group cmd, and
// suggests the commands with a similar name. It returns nil if args is empty.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2
	var similar []string
	for _, name := range cmd.SuggestionsFor(args[0]) {
		if !strings.HasPrefix(args[0], name[:1]) {
			continue // a typing error is rarely in the first letter, and "histroy" is not "destroy"
		}
		similar = append(similar, fmt.Sprintf("%q", cmd.CommandPath()+" "+name))
	}
	if len(similar) > 0 {
		return usagef("%s: unknown command %q; did you mean %s?", cmd.CommandPath(), args[0], strings.Join(similar, " or "))
	}
	return usagef("%s: unknown command %q", cmd.CommandPath(), args[0])
}

// normalizeFlags turns Nomad's single-dash long flags (-var, -var-file=x)
// into the double-dash form that pflag reads, so that both are accepted.
// Only names that some command defines are touched, and nothing after "--".
func normalizeFlags(root *cobra.Command, args []string) []string {
	known := map[string]bool{}
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		mark := func(f *pflag.Flag) { known[f.Name] = true }
		c.Flags().VisitAll(mark)
		c.PersistentFlags().VisitAll(mark)
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(root)
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = a
		if a == "--" {
			copy(out[i:], args[i:])
			break
		}
		if len(a) > 2 && a[0] == '-' && a[1] != '-' {
			if name, _, _ := strings.Cut(a[1:], "="); known[name] {
				out[i] = "-" + a
			}
		}
	}
	return out
}
