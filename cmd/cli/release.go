package cli

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/drover-nomad/drover/cmd/cli/view"
	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/rollout"
)

// releaseFlags has the flags of every command that makes or continues a release.
type releaseFlags struct {
	clients  *factory
	limits   deploy.Limits
	new      deploy.NewRelease
	keepFlag *pflag.Flag // nil where there is none
	format   string
}

// register adds the flags. wait is the default of --lock-wait. If the command
// fails before its verb runs, -o json still gets an event "end".
func (f *releaseFlags) register(cmd *cobra.Command, clients *factory, wait time.Duration) {
	f.clients = clients
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		err := run(cmd, args)
		if f.format == "json" {
			endOf(cmd.OutOrStdout(), err)
		}
		return err
	}
	fl, l := cmd.Flags(), &f.limits
	fl.IntVar(&l.Parallel, "parallel", 16, "maximum number of services that are deployed at once")
	fl.DurationVar(&l.ServiceTimeout, "service-timeout", 0, fmt.Sprintf("how long one service may take to become healthy (default: its timeout in stack.hcl, or %s)", short(rollout.DefaultTimeout)))
	fl.DurationVar(&l.PlacementTimeout, "placement-timeout", 0, fmt.Sprintf("how long a service may wait for a node (default: its placement_timeout in stack.hcl, or %s)", short(rollout.DefaultPlacementTimeout)))
	fl.DurationVar(&l.Timeout, "timeout", 0, "time limit of the deployment; a revert may take longer (default: no limit)")
	fl.DurationVar(&l.LockWait, "lock-wait", wait, "how long to wait for the lock of the stack while another process holds it")
	fl.DurationVar(&l.Unreachable, "unreachable-after", rollout.DefaultSilence, "how long Nomad may be unreachable before the command fails; the release stays open")
	fl.DurationVar(&l.ApprovalWait, "approval-wait", 0, "how long to wait for 'drover approve' if a wave needs it (default: do not wait, leave the release open)")
	fl.StringVarP(&f.format, "output", "o", "text", "text, or json: one event per line")
}

// registerNew adds the flags of a new release.
func (f *releaseFlags) registerNew(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVarP(&f.new.Message, "message", "m", "", "reason, stored in the record")
	fl.StringVar(&f.new.OnFailure, "on-failure", "", "stop, revert-service or revert-release (default: revert-release, or stop if there is no good release)")
	fl.BoolVar(&f.new.AllowUnplaceable, "allow-unplaceable", false, "start even if no node can take a service now, and wait for a node")
	fl.IntVar(&f.new.Keep, "history-max", 0, fmt.Sprintf("number of releases to keep (default: the number used before, at first %d)", release.DefaultKeep))
	f.keepFlag = fl.Lookup("history-max")
}

// endOf writes the event "end" of a command that failed before its verb ran.
func endOf(w io.Writer, err error) {
	var (
		silent errSilent
		told   errTold
	)
	if err == nil || errors.As(err, &silent) || errors.As(err, &told) {
		return
	}
	v := view.New(&IO{Out: w}, true, completeEnd)
	v.Event(deploy.Event{Time: time.Now(), Kind: deploy.KindEnd, End: &deploy.End{Err: err}})
}

func (f *releaseFlags) check() error {
	if err := oneOf("-o", f.format, "text", "json"); err != nil {
		return err
	}
	l := &f.limits
	if l.Parallel < 1 || l.ServiceTimeout < 0 || l.PlacementTimeout < 0 || l.Timeout < 0 {
		return usagef("--parallel must be greater than 0, and a timeout must be a duration such as 5m")
	}
	if l.ServiceTimeout > 0 && l.PlacementTimeout > l.ServiceTimeout {
		return usagef("--placement-timeout must not be longer than --service-timeout, which includes it")
	}
	if l.LockWait < 0 {
		return usagef("--lock-wait must be a duration such as 5m")
	}
	if f.new.OnFailure != "" {
		if err := oneOf("--on-failure", f.new.OnFailure, release.OnFailureStop, release.OnFailureRevertService, release.OnFailureRevertRelease); err != nil {
			return err
		}
	}
	if f.keepFlag != nil && f.keepFlag.Changed && f.new.Keep < 1 {
		return usagef("--history-max must be greater than 0")
	}
	return nil
}

// view shows the events of a verb.
func (f *releaseFlags) view(streams *IO) *view.View {
	return view.New(streams, f.format == "json", completeEnd)
}

// recorded are the options of a verb that works from the record of a stack.
func (f *releaseFlags) recorded(cmd *cobra.Command, streams *IO, arg, env string) deploy.Recorded {
	return deploy.Recorded{
		Home: f.clients.home(cmd), Stack: arg, Environment: env, Limits: f.limits, Person: f.person(streams), Events: f.view(streams).Event,
	}
}

// commandLine returns the command with its flags, for the record and for
// processes that wait for the lock. It leaves out the values of variables, which
// may be private, and flags without influence on the release.
func commandLine(cmd *cobra.Command) string {
	words := append([]string{cmd.CommandPath()}, cmd.Flags().Args()...)
	cmd.Flags().Visit(func(f *pflag.Flag) {
		switch f.Name {
		case "message", "yes", "output", "github": // Release.Message has the first
			return
		}
		values := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, v := range values {
			switch {
			case f.Name == "var":
				name, _, _ := strings.Cut(v, "=")
				v = name + "=…"
			case f.Value.Type() == "bool" && v == "true":
				words = append(words, "--"+f.Name)
				continue
			case strings.ContainsAny(v, " \t\n\"'"):
				v = strconv.Quote(v)
			}
			words = append(words, "--"+f.Name+" "+v)
		}
	})
	return strings.Join(words, " ")
}

// short formats d in whole minutes, as a flag accepts it.
func short(d time.Duration) string { return fmt.Sprintf("%dm", int(d.Minutes())) }

func forgetFlag(cmd *cobra.Command, forget *[]string) {
	cmd.Flags().StringArrayVar(forget, "forget", nil, "keep running the jobs of a target that was removed from the environment, and forget them (repeatable)")
}

// pruneFlags adds --prune, and -y with the same meaning.
func pruneFlags(cmd *cobra.Command, prune *bool) {
	cmd.Flags().BoolVar(prune, "prune", false, "stop running jobs that are no longer in the stack, without a confirmation")
	cmd.Flags().BoolVarP(prune, "yes", "y", false, "the same as --prune")
}

func envFlag(cmd *cobra.Command, env *string) {
	cmd.Flags().StringVarP(env, "env", "e", "", "environment: NAME, or the path of its file")
}

// releaseError sets the exit code of an error that prevented a release from
// starting.
func releaseError(err error) error {
	var (
		retired *release.RetiredError
		wrong   *deploy.InvalidError
		diags   hcl.Diagnostics
	)
	switch class := deploy.ClassOf(err); {
	case class == deploy.ClassUnplaceable:
		return errRefused{err, exitPlacement}
	case errors.As(err, &retired) && exitCode(err) == exitCluster:
		return errRefused{err, exitCluster} // said with what it is about
	case errors.As(err, &wrong), errors.As(err, &diags): // which are printed in their own way
	case class == deploy.ClassInvalid:
		return errRefused{err, exitUsage}
	case class == deploy.ClassBusy:
		return errRefused{err, exitBusy}
	}
	return err
}

// verbError gives an error of a verb of package deploy its exit code.
func verbError(err error) error {
	var (
		settle *deploy.SettleError
		pause  *deploy.PauseError
	)
	switch {
	case errors.As(err, &settle):
		return errRefused{err, exitCode(settle.Err)}
	case errors.As(err, &pause):
		return errRefused{err, exitCode(pause.Err)}
	}
	return releaseError(err)
}

// verbEnd returns the error of a command whose verb has reported its end.
func verbEnd(err error) error {
	var outcome *deploy.OutcomeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &outcome):
		return errSilent{outcomeCode(outcome.Outcome)}
	case errors.Is(err, deploy.ErrDeclined):
		return errSilent{exitCancelled}
	}
	return errTold{verbError(err)}
}

// completeEnd sets the exit code, the text of the error and, if it has none, the
// outcome of the end of a verb.
func completeEnd(end *deploy.End) {
	code := endCode(end)
	if end.Err != nil {
		end.ErrorText = errorText(verbError(end.Err))
		if end.Outcome == "" {
			end.Outcome = rollout.Outcome(onlyOutcome(code))
		}
	}
	end.ExitCode = &code
}

// endCode returns the exit code of a verb with this end.
func endCode(e *deploy.End) int {
	switch {
	case e.Err != nil:
		return exitCode(verbError(e.Err))
	case e.Run != nil:
		return runCode(*e.Run)
	case e.Outcome == deploy.Approved:
		return exitOK
	}
	return outcomeCode(e.Outcome)
}
