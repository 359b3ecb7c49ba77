package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/nomad/variables"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/rollout"
)

// releaseFlags are the flags of every command that makes a release or goes on
// with one.
type releaseFlags struct {
	rollout   rollout.Options
	timeout   time.Duration
	lockWait  time.Duration
	approval  time.Duration
	keep      int
	keepFlag  *pflag.Flag // nil where there is none
	onFailure string
	message   string
	format    string
	prune     bool

	allowUnplaceable bool
}

// register adds the flags, and with -o json the last line to what ends before
// there is a release to tell of. wait is the default of --lock-wait.
func (f *releaseFlags) register(cmd *cobra.Command, wait time.Duration) {
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f.waitForNomad(cmd)
		err := run(cmd, args)
		if f.format == "json" {
			endOf(cmd.OutOrStdout(), err)
		}
		return err
	}
	fl := cmd.Flags()
	fl.IntVar(&f.rollout.Parallel, "parallel", 16, "how many services may be on their way at once")
	fl.DurationVar(&f.rollout.Timeout, "service-timeout", 0, fmt.Sprintf("how long one service may take to become healthy (default: its timeout in stack.hcl, or %s)", short(rollout.DefaultTimeout)))
	fl.DurationVar(&f.rollout.PlacementTimeout, "placement-timeout", 0, fmt.Sprintf("how long a service may wait for a node (default: its placement_timeout in stack.hcl, or %s)", short(rollout.DefaultPlacementTimeout)))
	fl.DurationVar(&f.timeout, "timeout", 0, "how long all of it may take, without going back (default: no limit)")
	fl.DurationVar(&f.lockWait, "lock-wait", wait, "how long to wait for somebody else who changes the stack")
	fl.DurationVar(&f.rollout.Silence, "unreachable-after", rollout.DefaultSilence, "how long Nomad may not answer before the command gives up, and leaves a release that has begun open")
	fl.DurationVar(&f.approval, "approval-wait", 0, "how long to wait for 'drover approve' where a wave needs it (default: the release is left open)")
	fl.StringVarP(&f.format, "output", "o", "text", "text, or json: one event per line")
}

// waitForNomad makes what comes before a release as patient with Nomad as the
// release, and says so on the terminal.
func (f *releaseFlags) waitForNomad(cmd *cobra.Command) {
	silence := cmp.Or(f.rollout.Silence, rollout.DefaultSilence)
	out := cmd.ErrOrStderr()
	cmd.SetContext(nomad.WithPatience(cmd.Context(), silence, func(err error) {
		fmt.Fprintf(out, "Nomad does not answer: %s; retrying for up to %s (--unreachable-after)\n", err, silence)
	}))
}

// registerNew adds those of a new release.
func (f *releaseFlags) registerNew(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVarP(&f.message, "message", "m", "", "why, for the record")
	fl.StringVar(&f.onFailure, "on-failure", "", "stop, revert-service or revert-release (default: revert-release, and stop with nothing good to go back to)")
	fl.BoolVar(&f.allowUnplaceable, "allow-unplaceable", false, "begin although no node has room for a service now, and wait for one")
	fl.IntVar(&f.keep, "history-max", 0, fmt.Sprintf("how many releases are kept (default: as many as before, %d at first)", release.DefaultKeep))
	f.keepFlag = fl.Lookup("history-max")
}

// endOf writes the last line of what has failed without one.
func endOf(w io.Writer, err error) {
	var (
		silent errSilent
		told   errTold
	)
	if err == nil || errors.As(err, &silent) || errors.As(err, &told) {
		return
	}
	code := exitCode(err)
	end := map[string]any{"time": time.Now(), "event": "end", "exit_code": code, "error": errorText(err)}
	if outcome := onlyOutcome(code); outcome != "" {
		end["outcome"] = outcome
	}
	_ = json.NewEncoder(w).Encode(end)
}

func (f *releaseFlags) check() error {
	if err := oneOf("-o", f.format, "text", "json"); err != nil {
		return err
	}
	if f.rollout.Parallel < 1 || f.rollout.Timeout < 0 || f.rollout.PlacementTimeout < 0 || f.timeout < 0 {
		return usagef("--parallel is greater than 0, and a timeout is a time, as 5m")
	}
	if f.rollout.Timeout > 0 && f.rollout.PlacementTimeout > f.rollout.Timeout {
		return usagef("--placement-timeout is longer than --service-timeout, which includes it")
	}
	if f.lockWait < 0 {
		return usagef("--lock-wait is a time, as 5m")
	}
	if f.onFailure != "" {
		if err := oneOf("--on-failure", f.onFailure, release.OnFailureStop, release.OnFailureRevertService, release.OnFailureRevertRelease); err != nil {
			return err
		}
	}
	if f.keepFlag != nil && f.keepFlag.Changed && f.keep < 1 {
		return usagef("--history-max is greater than 0")
	}
	return nil
}

// deployer makes the releases of a stack through the clients of the home
// cluster.
func (f *releaseFlags) deployer(cmd *cobra.Command, clients rollout.Clients, name, env string) *release.Deployer {
	return &release.Deployer{
		Releases:     release.InNomad(record.OpenReleases(clients.Nomad, name, env)),
		Dial:         release.DialNomad(rollout.Dial),
		Holder:       record.Self(commandLine(cmd), os.Getenv),
		ApprovalWait: f.approval,
		LockWait:     f.lockWait, Timeout: f.timeout, Keep: f.keep, Drover: Version,
		Rollout: f.rollout,
		Secrets: release.SecretsInNomad(record.OpenSecrets(clients.Nomad, name, env, nil)),
		Secret: func(ctx context.Context, item string) (string, error) {
			v, err := record.OpenSecrets(clients.Nomad, name, env, nil).Item(ctx, item)
			return v.Reveal(), err
		},
	}
}

// open makes the deployer of the stack that a command names, from its record.
func (f *releaseFlags) open(cmd *cobra.Command, streams *IO, arg, env string) (*release.Deployer, *deployView, error) {
	clients, r, err := recorded(cmd.Context(), arg, env)
	if err != nil {
		return nil, nil, err
	}
	return f.openAt(cmd, streams, clients, r.Stack(), r.Environment())
}

// openAt makes the deployer of a stack through clients.
func (f *releaseFlags) openAt(cmd *cobra.Command, streams *IO, clients rollout.Clients, name, env string) (*release.Deployer, *deployView, error) {
	d := f.deployer(cmd, clients, name, env)
	d.Approve = asker(streams, f.format)
	return d, newDeployView(streams, name, env, f.format == "json"), redacting(cmd.Context(), d, clients)
}

// redacting hides the values of the stack's secrets in what the deployer
// tells.
func redacting(ctx context.Context, d *release.Deployer, clients rollout.Clients) error {
	hide, err := record.OpenSecrets(clients.Nomad, d.Releases.Stack(), d.Releases.Environment(), nil).Redactor(ctx)
	d.Rollout.Redact = hide
	return err
}

// commandLine is the command as it was typed, for the record and for those who
// wait for the lock. It leaves out the values of variables, which may be
// private, and flags that say nothing of what was done.
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

// recorded opens the record that a command names.
func recorded(ctx context.Context, arg, env string) (rollout.Clients, *record.Releases, error) {
	name, err := deploy.StackName(arg)
	if err != nil {
		return rollout.Clients{}, nil, err
	}
	clients, err := connect(ctx, false)
	if err != nil {
		return clients, nil, err
	}
	return clients, record.OpenReleases(clients.Nomad, name, deploy.EnvironmentName(env)), nil
}

// short is a time in whole minutes, as a flag takes it.
func short(d time.Duration) string { return fmt.Sprintf("%dm", int(d.Minutes())) }

func forgetFlag(cmd *cobra.Command, forget *[]string) {
	cmd.Flags().StringArrayVar(forget, "forget", nil, "leave the jobs of this target, which the environment does not have any more, as they are (repeatable)")
}

// pruneFlags adds --prune, and -y with the same meaning.
func pruneFlags(cmd *cobra.Command, prune *bool) {
	cmd.Flags().BoolVar(prune, "prune", false, "stop running jobs that are not in the stack any more, without asking")
	cmd.Flags().BoolVarP(prune, "yes", "y", false, "do not ask: the same as --prune")
}

func envFlag(cmd *cobra.Command, env *string) {
	cmd.Flags().StringVarP(env, "env", "e", "", "environment: NAME, or the path of its file")
}

// releaseError gives the errors of package release their exit codes: what
// refuses to begin has done nothing.
func releaseError(err error) error {
	var (
		large   *release.TooLargeError
		foreign *release.ForeignError
		open    *release.OpenError
		notOpen *release.NotOpenError
		waits   *release.NoApprovalError
		retired *release.RetiredError
		owner   *record.OwnerError
		refused *record.RefusedError

		relocated *release.RelocatedError
		same      *release.SameJobError
		noRecord  *release.RecordTooLargeError
		prune     *release.PruneError
		moved     *record.MovedError
		shared    *release.SharedNameError
	)
	var nowhere *rollout.Unplaceable
	if errors.As(err, &nowhere) {
		return errRefused{err, exitPlacement}
	}
	if errors.As(err, &retired) && exitCode(err) == exitCluster {
		return errRefused{err, exitCluster} // said with what it is about
	}
	if errors.As(err, &large) || errors.As(err, &foreign) || errors.As(err, &relocated) || errors.As(err, &prune) || errors.As(err, &shared) || errors.As(err, &same) || errors.As(err, &noRecord) || errors.As(err, &owner) || errors.As(err, &refused) {
		return errRefused{err, exitUsage}
	}
	if errors.As(err, &open) || errors.As(err, &notOpen) || errors.As(err, &waits) || errors.As(err, &moved) || errors.Is(err, variables.ErrLocked) {
		return errRefused{err, exitBusy}
	}
	return err
}
