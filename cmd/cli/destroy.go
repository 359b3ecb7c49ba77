package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
)

func newDestroy(streams *IO, f *factory) *cobra.Command {
	var (
		flags   stackFlags
		purge   []string
		yes     bool
		message string
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use:   "destroy STACK",
		Short: "Stop and remove the jobs of a stack",
		Long: `Stop and remove the jobs that the newest release of a stack runs, each after
everything that depends on it, and before them its schedules. This makes a release,
so that 'drover rollback' restores the stack. A release that is open is abandoned. A
job that another stack or environment owns, or that another client created since,
keeps running and is listed.

It works from the record alone: STACK is a name, or leads to a stack, whose values
are not needed. It asks for a confirmation on a terminal, and needs -y elsewhere. It
needs a token that may stop the jobs and write the record of the stack.

Secrets, volumes and releases are kept, unless --purge names them: "secrets" deletes
the secrets of the stack, "data" its dynamic host volumes with all their files,
"history" its releases. drover cannot delete directories outside of volumes that a
task wrote.

It exits with 0 if everything stopped, with 2 if no job may be stopped, with 3 if a
job did not stop and with 11 if the stack is locked.`,
		Example: `  drover destroy ocis -e staging
  drover destroy ocis -e staging --yes --purge secrets
  drover destroy ocis -e staging --service search`,
		Args: exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, p := range purge {
				if err := oneOf("--purge", p, "secrets", "data", "history"); err != nil {
					return err
				}
			}
			v := deploy.Destroy{
				Home: f.home(cmd), Stack: args[0], Environment: flags.environment,
				Only:         release.Only{Services: flags.services, Targets: flags.targets},
				PurgeSecrets: slices.Contains(purge, "secrets"), PurgeData: slices.Contains(purge, "data"), PurgeHistory: slices.Contains(purge, "history"),
				Message: message, Timeout: timeout,
				Events: func(e deploy.Event) { printDestroyEvent(streams.Err, e) },
			}
			if (v.PurgeSecrets || v.PurgeHistory) && flags.partial() {
				return usagef("--purge secrets and history are for the whole stack, not with --service or --target")
			}
			if err := confirmable(streams, yes); err != nil {
				return err
			}
			shown := false
			v.Confirm = func(_ context.Context, p deploy.DestroyPlan) (bool, error) {
				if !shown {
					printDestroyPlan(streams.Err, p)
					shown = true
				}
				return true, confirm(streams, yes, destroyQuestion(v, p))
			}
			res, err := v.Run(cmd.Context())
			var outcome *deploy.OutcomeError
			switch {
			case errors.As(err, &outcome):
				return printUndestroyed(cmd.Context(), streams, res)
			case err != nil:
				return destroyError(err)
			}
			printDestroyed(streams.Out, v, res)
			return nil
		},
	}
	flags.register(cmd)
	hideFlags(cmd, "var", "var-file", "values") // the record has what they gave
	fl := cmd.Flags()
	fl.StringSliceVar(&purge, "purge", nil, "also delete: secrets, data, history (comma separated)")
	fl.BoolVarP(&yes, "yes", "y", false, "do not ask for a confirmation")
	fl.StringVarP(&message, "message", "m", "", "why, for the record")
	fl.DurationVar(&timeout, "timeout", 10*time.Minute, "how long the tasks may take to stop")
	return cmd
}

// destroyError gives an error of a destroy its exit code.
func destroyError(err error) error {
	var spared *deploy.SparedError
	if errors.As(err, &spared) {
		return errRefused{err, exitUsage}
	}
	return releaseError(err)
}

// printDestroyPlan prints the jobs that destroy removes and those that it keeps.
func printDestroyPlan(w io.Writer, p deploy.DestroyPlan) {
	if p.Release != nil && p.Release.State.Open() {
		fmt.Fprintf(w, "release %d is %s: it is abandoned\n", p.Release.Number, release.Describe(p.Release))
	}
	for _, s := range p.Schedules {
		fmt.Fprintf(w, "- schedule %s\n", s)
	}
	for _, c := range p.Stops {
		fmt.Fprintf(w, "- %s (job %s)\n", render.Job{Service: c.Service, Target: c.Target}.Name(), c.JobID)
	}
	for _, s := range p.Absent {
		fmt.Fprintf(w, "%s: does not exist\n", s)
	}
	for _, j := range p.Spared {
		fmt.Fprintf(w, "%s: job %s keeps running: %s\n", render.Job{Service: j.Service, Target: j.Target}.Name(), j.JobID, j.Reason())
	}
	for _, v := range p.Volumes {
		if v.AlsoOf == "" {
			fmt.Fprintf(w, "- volume %s\n", v)
		} else {
			fmt.Fprintf(w, "volume %s: kept: %s\n", v, deploy.KeptVolume(v))
		}
	}
}

func printDestroyEvent(w io.Writer, e deploy.Event) {
	switch e.Kind {
	case release.EventPruned:
		fmt.Fprintf(w, "%s: stopped\n", e.Release.Name())
	case release.EventWarning:
		fmt.Fprintf(w, "Warning: %s\n", e.Release.Text)
	case deploy.KindRemoved:
		fmt.Fprintf(w, "%s: %s\n", objectName(e.Object), removedVerb(e.Object))
	case deploy.KindKept:
		fmt.Fprintf(w, "%s: kept: %s\n", objectName(e.Object), e.Object.Reason)
	}
}

func objectName(o *deploy.Object) string {
	switch {
	case o.What == deploy.ObjectPolicy:
		return "ACL policy " + o.Name
	case o.Name == "":
		return o.What
	}
	return o.What + " " + o.Name
}

// removedVerb is "removed" for what can be made again, otherwise "deleted".
func removedVerb(o *deploy.Object) string {
	if o.What == deploy.ObjectSchedule {
		return "removed"
	}
	return "deleted"
}

func printDestroyed(w io.Writer, v deploy.Destroy, res deploy.DestroyResult) {
	if res.Release == 0 {
		fmt.Fprintf(w, "%s: destroyed: it has no release\n", res.Stack)
		return
	}
	number := ""
	if res.Result.Release != nil && !v.PurgeHistory {
		number = fmt.Sprintf(" (release %d)", res.Release)
	}
	fmt.Fprintf(w, "%s: destroyed: %d of %d services were running%s\n", res.Stack, res.Stopped, res.Total, number)
}

// printUndestroyed reports a destroy that has not stopped everything.
func printUndestroyed(ctx context.Context, streams *IO, res deploy.DestroyResult) error {
	r, of := res.Result, release.StackArgs(res.Stack, res.Environment)
	for _, s := range r.Services {
		if !s.Outcome.OK() {
			fmt.Fprintf(streams.Err, "%s: %s: %s\n", s.Name(), s.Outcome, s.Detail)
		}
	}
	next := "drover destroy " + of
	if r.Release.State.Open() {
		next = "drover resume " + of + ", or drover abort " + of
	}
	fmt.Fprintf(streams.Err, "Next: %s\n", next)
	fmt.Fprintf(streams.Out, "%s: %s: release %d is %s\n", res.Stack, r.Outcome(), r.Release.Number, r.Release.State)
	if ctx.Err() != nil {
		return errSilent{exitCancelled}
	}
	return errSilent{outcomeCode(r.Outcome())}
}

func destroyQuestion(v deploy.Destroy, p deploy.DestroyPlan) string {
	q := fmt.Sprintf("Stop and remove %s", count(len(p.Stops), "service"))
	if len(p.Schedules) > 0 {
		q += " and " + count(len(p.Schedules), "schedule")
	}
	q += fmt.Sprintf(" of stack %s (environment %s)", p.Stack, p.Environment)
	if v.PurgeSecrets {
		q += ", delete its SECRETS"
	}
	if v.PurgeHistory {
		q += ", delete its RELEASES"
	}
	if v.PurgeData {
		q += ", delete its volumes with all DATA"
	}
	return q + "?"
}

// confirmable insists on -y where there is no terminal.
func confirmable(streams *IO, yes bool) error {
	if !yes && !streams.Ask {
		return usagef("this needs a confirmation and there is no terminal: add -y")
	}
	return nil
}

// confirm asks on a terminal.
func confirm(streams *IO, yes bool, question string) error {
	if err := confirmable(streams, yes); yes || err != nil {
		return err
	}
	fmt.Fprintf(streams.Err, "%s [y/N] ", question)
	answer, _ := bufio.NewReader(streams.In).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	fmt.Fprintln(streams.Err, "Nothing was done.")
	return errSilent{exitCancelled}
}
