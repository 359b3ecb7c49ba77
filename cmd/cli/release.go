package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/jobs"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// releaseFlags are the flags of every command that makes a release or goes on
// with one.
type releaseFlags struct {
	rollout   rollout.Options
	timeout   time.Duration
	lockWait  time.Duration
	approval  time.Duration
	keep      int
	onFailure string
	message   string
	format    string
}

// register adds the flags. wait is the default of --lock-wait.
func (f *releaseFlags) register(cmd *cobra.Command, wait time.Duration) {
	fl := cmd.Flags()
	fl.IntVar(&f.rollout.Parallel, "parallel", 16, "how many services may be on their way at once")
	fl.DurationVar(&f.rollout.Timeout, "service-timeout", 15*time.Minute, "how long one service may take to become healthy")
	fl.DurationVar(&f.timeout, "timeout", 0, "how long all of it may take, without going back (default: no limit)")
	fl.DurationVar(&f.lockWait, "lock-wait", wait, "how long to wait for somebody else who changes the stack")
	fl.DurationVar(&f.rollout.Silence, "unreachable-after", rollout.DefaultSilence, "how long Nomad may not answer before the release is left open")
	fl.DurationVar(&f.approval, "approval-wait", 0, "how long to wait for 'drover approve' where a wave needs it (default: the release is left open)")
	fl.StringVarP(&f.format, "output", "o", "text", "text, or json: one event per line")
}

// registerNew adds those of a new release.
func (f *releaseFlags) registerNew(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVarP(&f.message, "message", "m", "", "why, for the record")
	fl.StringVar(&f.onFailure, "on-failure", "", "stop, revert-service or revert-release (default: revert-release, and stop with nothing good to go back to)")
	fl.IntVar(&f.keep, "history-max", release.DefaultKeep, "how many releases are kept")
}

func (f *releaseFlags) check() error {
	if err := oneOf("-o", f.format, "text", "json"); err != nil {
		return err
	}
	if f.rollout.Parallel < 1 || f.rollout.Timeout <= 0 || f.timeout < 0 {
		return usagef("--parallel and --service-timeout are greater than 0")
	}
	if f.lockWait < 0 {
		return usagef("--lock-wait is a time, as 5m")
	}
	if f.onFailure != "" {
		if err := oneOf("--on-failure", f.onFailure, release.OnFailureStop, release.OnFailureRevertService, release.OnFailureRevertRelease); err != nil {
			return err
		}
	}
	if f.keep < 0 {
		return usagef("--history-max is greater than 0")
	}
	return nil
}

// deployer makes the releases of a stack through the clients of the home
// cluster.
func (f *releaseFlags) deployer(cmd *cobra.Command, clients rollout.Clients, name, env string) *release.Deployer {
	return &release.Deployer{
		Releases:     record.OpenReleases(clients.Nomad, name, env),
		Dial:         rollout.Dial,
		Holder:       record.Self(commandLine(cmd), os.Getenv),
		ApprovalWait: f.approval,
		LockWait:     f.lockWait, Timeout: f.timeout, Keep: f.keep, Drover: Version,
		Rollout: f.rollout,
	}
}

// commandLine is what was typed, as far as it is of interest to others: the
// command and its arguments, without flags, whose values may be secret.
func commandLine(cmd *cobra.Command) string {
	return strings.Join(append([]string{cmd.CommandPath()}, cmd.Flags().Args()...), " ")
}

// recordedStack finds the name under which a stack is recorded: that of the
// stack that arg leads to, or arg itself, since a record outlives its source.
func recordedStack(arg string) (string, error) {
	info, err := os.Stat(arg)
	switch {
	case err == nil && !info.IsDir():
		return strings.TrimSuffix(strings.TrimSuffix(filepath.Base(arg), ".hcl"), ".nomad"), nil
	case err == nil:
		abs, err := filepath.Abs(arg)
		if err != nil {
			return "", fmt.Errorf("naming the stack: %w", err)
		}
		s, err := stack.Outline(filepath.Base(abs), os.DirFS(arg))
		if err != nil {
			return "", fmt.Errorf("%s does not tell its name (%w); give the name instead", arg, err)
		}
		return s.Name, nil
	}
	if files, err := jobs.Stack(arg); err == nil {
		if s, err := stack.Outline(arg, files); err == nil {
			return s.Name, nil
		}
	}
	if strings.ContainsAny(arg, `/\`) {
		return "", usagef("there is no stack at %s; when its source is gone, give its name", arg)
	}
	return arg, nil
}

// environmentName is the name of what -e gives.
func environmentName(env string) string {
	switch {
	case env == "":
		return stack.DefaultEnvironment
	case strings.ContainsAny(env, `/\`) || strings.HasSuffix(env, ".hcl"):
		return strings.TrimSuffix(filepath.Base(env), ".hcl")
	}
	return env
}

// recorded opens the record that a command names.
func recorded(ctx context.Context, arg, env string) (rollout.Clients, *record.Releases, error) {
	name, err := recordedStack(arg)
	if err != nil {
		return rollout.Clients{}, nil, err
	}
	clients, err := connect(ctx, false)
	if err != nil {
		return clients, nil, err
	}
	return clients, record.OpenReleases(clients.Nomad, name, environmentName(env)), nil
}

// noReleases is the error for a stack without any; it names those that have.
func noReleases(ctx context.Context, clients rollout.Clients, r *record.Releases) error {
	msg := fmt.Sprintf("stack %s has no releases in environment %s", r.Stack(), r.Environment())
	if others, err := record.Stacks(ctx, clients.Nomad); err == nil && len(others) > 0 {
		msg += "; there are releases of " + strings.Join(others, ", ")
	}
	return errors.New(msg)
}

func forgetFlag(cmd *cobra.Command, forget *[]string) {
	cmd.Flags().StringArrayVar(forget, "forget", nil, "leave the jobs of this target, which the environment does not have any more, as they are (repeatable)")
}

func envFlag(cmd *cobra.Command, env *string) {
	cmd.Flags().StringVarP(env, "env", "e", "", "environment: NAME, or the path of its file")
}

func newHistory(streams *IO) *cobra.Command {
	var env, format string
	cmd := &cobra.Command{
		Use:   "history STACK",
		Short: "List the releases of a stack",
		Long: `List the releases of a stack, the newest first.

STACK is a directory, or the name of a stack whose source need not be here.`,
		Example: "  drover history ocis -e prod",
		Args:    exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			clients, r, err := recorded(cmd.Context(), args[0], env)
			if err != nil {
				return err
			}
			list, err := r.List(cmd.Context())
			if err != nil {
				return err
			}
			if format == "json" {
				if list == nil {
					list = []*record.Release{}
				}
				return json.NewEncoder(streams.Out).Encode(list)
			}
			if len(list) == 0 {
				return noReleases(cmd.Context(), clients, r)
			}
			holder, err := r.Holder(cmd.Context())
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(streams.Out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "RELEASE\tSTATE\tKIND\tVERSION\tCHANGED\tBY\tSTARTED\tTOOK\tWHY")
			for _, h := range list {
				kind := h.Kind
				if h.Of > 0 {
					kind += fmt.Sprintf(" to %d", h.Of)
				}
				took := "-"
				if !h.Ended.IsZero() {
					took = round(h.Ended.Sub(h.Started)).String()
				}
				state := string(h.State)
				if holder == nil && h.State.Open() {
					state = openState(h)
				}
				counts := fmt.Sprintf("%d of %d", h.Changed, h.Total)
				if h.Pruned > 0 {
					counts += fmt.Sprintf(", %d pruned", h.Pruned)
				}
				fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s@%s\t%s\t%s\t%s\n", h.Number, state, kind, versions(h), counts, h.By.User, h.By.Host,
					h.Started.Local().Format("2006-01-02 15:04:05"), took, h.Message)
			}
			return w.Flush()
		},
	}
	envFlag(cmd, &env)
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

// openState is a state in one word, of a release that nobody is at.
func openState(h *record.Release) string {
	if h.State == record.Running || h.State == record.Reverting {
		return string(record.Interrupted)
	}
	return string(h.State)
}

func versions(h *record.Release) string {
	switch {
	case h.Version == "" && h.AppVersion == "":
		return "-"
	case h.AppVersion == "":
		return h.Version
	}
	return h.Version + " (" + h.AppVersion + ")"
}

// revision reads the number of a release.
func revision(text string) (int, error) {
	n, err := strconv.Atoi(strings.TrimPrefix(text, "r"))
	if err != nil || n < 1 {
		return 0, usagef("%q is not the number of a release; `drover history` lists them", text)
	}
	return n, nil
}

func newShow(streams *IO) *cobra.Command {
	var env, format, service string
	cmd := &cobra.Command{
		Use:   "show STACK RELEASE",
		Short: "Show a release: what was deployed, by whom, and what became of it",
		Long: `Show a release: what was deployed, by whom, and what became of it.

With --job, the job spec of a service is printed as it was submitted; it can be
given to 'nomad job run -json -'. Secrets are never part of a record.`,
		Example: "  drover show ocis 12 -e prod\n  drover show ocis 12 -e prod --job gateway | nomad job plan -json -",
		Args:    exactArgs(2, "STACK RELEASE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			ctx := cmd.Context()
			n, err := revision(args[1])
			if err != nil {
				return err
			}
			clients, r, err := recorded(ctx, args[0], env)
			if err != nil {
				return err
			}
			h, lines, err := readRelease(ctx, clients, r, n)
			if err != nil {
				return err
			}
			if service != "" {
				return showJob(ctx, streams, r, h, lines, service)
			}
			var values json.RawMessage
			if h.Values != "" {
				b, err := r.Blob(ctx, h.Values)
				if err != nil {
					return err
				}
				values = b.Values
			}
			if format == "json" {
				return json.NewEncoder(streams.Out).Encode(map[string]any{"release": h, "services": lines, "values": values})
			}
			return showText(streams, h, lines, values)
		},
	}
	envFlag(cmd, &env)
	fl := cmd.Flags()
	fl.StringVar(&service, "job", "", "print the job spec of this service")
	fl.StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

func readRelease(ctx context.Context, clients rollout.Clients, r *record.Releases, n int) (*record.Release, []record.Service, error) {
	h, err := r.Read(ctx, n)
	if errors.Is(err, record.ErrNoRelease) {
		kept, kerr := r.Numbers(ctx)
		switch {
		case kerr != nil:
			return nil, nil, kerr
		case len(kept) == 0:
			return nil, nil, noReleases(ctx, clients, r)
		}
		return nil, nil, fmt.Errorf("%w; there are %d to %d", err, kept[0], kept[len(kept)-1])
	}
	if err != nil {
		return nil, nil, err
	}
	lines, err := r.Services(ctx, h)
	return h, lines, err
}

func showJob(ctx context.Context, streams *IO, r *record.Releases, h *record.Release, lines []record.Service, service string) error {
	var names []string
	for _, l := range lines {
		if l.Name != service || l.Spec == "" {
			names = append(names, l.Name)
			continue
		}
		b, err := r.Blob(ctx, l.Spec)
		if err != nil {
			return err
		}
		var pretty strings.Builder
		enc := json.NewEncoder(&pretty)
		enc.SetIndent("", "  ")
		if err := enc.Encode(map[string]any{"Job": b.Job}); err != nil {
			return fmt.Errorf("encoding job %s: %w", l.JobID, err)
		}
		_, err = io.WriteString(streams.Out, pretty.String())
		return err
	}
	return usagef("release %d has no service %q; it has %s", h.Number, service, strings.Join(names, ", "))
}

func showText(streams *IO, h *record.Release, lines []record.Service, values json.RawMessage) error {
	w := tabwriter.NewWriter(streams.Out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row("Release", "%d of %s, environment %s", h.Number, h.Stack, h.Environment)
	state := string(h.State)
	if h.Cause != "" {
		state += ", because of: " + h.Cause
	}
	if h.Detail != "" {
		state += " (" + h.Detail + ")"
	}
	row("State", "%s", state)
	if h.Of > 0 {
		row("Kind", "%s to release %d", h.Kind, h.Of)
	} else {
		row("Kind", "%s", h.Kind)
	}
	row("Version", "%s", versions(h))
	row("By", "%s", h.By)
	if h.Message != "" {
		row("Why", "%s", h.Message)
	}
	row("Started", "%s", h.Started.Local().Format(time.RFC3339))
	if !h.Ended.IsZero() {
		row("Ended", "%s, after %s", h.Ended.Local().Format(time.RFC3339), round(h.Ended.Sub(h.Started)))
	}
	row("On failure", "%s", h.OnFailure)
	row("Inputs", "%s", h.Inputs)
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(streams.Out)
	w = tabwriter.NewWriter(streams.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SERVICE\tCHANGE\tSTEP\tJOB\tINDEX\tSPEC\t")
	for _, l := range lines {
		spec := "-"
		if l.Spec != "" {
			spec = l.Spec[:12]
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", serviceName(l), l.Change, l.Step, l.JobID, l.Index, spec, l.Detail)
	}
	if err := w.Flush(); err != nil || len(values) == 0 {
		return err
	}
	var named map[string]json.RawMessage
	if err := json.Unmarshal(values, &named); err != nil {
		return fmt.Errorf("reading the values of release %d: %w", h.Number, err)
	}
	fmt.Fprintln(streams.Out)
	w = tabwriter.NewWriter(streams.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "VARIABLE\tVALUE")
	var names []string
	for name := range named {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(w, "%s\t%s\n", name, named[name])
	}
	return w.Flush()
}

func serviceName(l record.Service) string {
	if l.Target == "" {
		return l.Name
	}
	return l.Name + "@" + l.Target
}

func newDiff(streams *IO) *cobra.Command {
	var env, format string
	cmd := &cobra.Command{
		Use:   "diff STACK RELEASE [RELEASE]",
		Short: "Show what differs between two releases",
		Long: `Show what differs between two releases, or between one and the newest: the job
specs as they were submitted, attribute by attribute.`,
		Example: "  drover diff ocis 11 12 -e prod",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 && len(args) != 3 {
				return usagef("%s: give STACK RELEASE [RELEASE]", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			ctx := cmd.Context()
			a, err := revision(args[1])
			if err != nil {
				return err
			}
			b := 0
			if len(args) == 3 {
				if b, err = revision(args[2]); err != nil {
					return err
				}
			}
			clients, r, err := recorded(ctx, args[0], env)
			if err != nil {
				return err
			}
			if b == 0 {
				kept, err := r.Numbers(ctx)
				if err != nil {
					return err
				}
				if len(kept) == 0 {
					return noReleases(ctx, clients, r)
				}
				b = kept[len(kept)-1]
			}
			for _, n := range []int{a, b} {
				if _, _, err := readRelease(ctx, clients, r, n); err != nil {
					return err
				}
			}
			changes, err := release.Diff(ctx, r, a, b)
			if err != nil {
				return err
			}
			if format == "json" {
				return json.NewEncoder(streams.Out).Encode(map[string]any{"stack": r.Stack(), "environment": r.Environment(), "from": a, "to": b, "services": changes})
			}
			printDiff(streams.Out, a, b, changes)
			return nil
		},
	}
	envFlag(cmd, &env)
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

func printDiff(w io.Writer, a, b int, changes []release.ServiceDiff) {
	if len(changes) == 0 {
		fmt.Fprintf(w, "Releases %d and %d deploy the same jobs.\n", a, b)
		return
	}
	for _, c := range changes {
		switch c.Kind {
		case "added":
			fmt.Fprintf(w, "+ %s: added\n", c.Service)
		case "removed":
			fmt.Fprintf(w, "- %s: removed\n", c.Service)
		default:
			fmt.Fprintf(w, "~ %s:\n", c.Service)
			for _, f := range c.Fields {
				fmt.Fprintf(w, "    %s: %s → %s\n", f.Path, orNone(f.Old), orNone(f.New))
			}
		}
	}
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

func newRollback(streams *IO) *cobra.Command {
	var (
		flags    releaseFlags
		env      string
		takeOver bool
	)
	cmd := &cobra.Command{
		Use:   "rollback STACK [RELEASE]",
		Short: "Go back to an earlier release",
		Long: `Go back to an earlier release: the one given, or the last good one before the
newest. Its job specs are registered again from the record, with the same checks
as a deploy, and make a new release. Services that came later are stopped.

The source of the stack is not needed, and neither are Nomad's own job versions:
a rollback works after 'nomad job stop -purge' and 'nomad system gc'. It takes
back job specs, not data and not secrets.`,
		Example: "  drover rollback ocis -e prod\n  drover rollback ocis 11 -e prod -m 'uploads fail'",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 && len(args) != 2 {
				return usagef("%s: give STACK [RELEASE]", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			n := 0
			if len(args) == 2 {
				var err error
				if n, err = revision(args[1]); err != nil {
					return err
				}
			}
			ctx := cmd.Context()
			clients, r, err := recorded(ctx, args[0], env)
			if err != nil {
				return err
			}
			d := flags.deployer(cmd, clients, r.Stack(), r.Environment())
			if err := redacting(ctx, d, clients); err != nil {
				return err
			}
			req, err := d.Rollback(ctx, n)
			if err != nil {
				return err
			}
			req.Message, req.OnFailure, req.TakeOver = flags.message, flags.onFailure, takeOver
			return makeRelease(ctx, d, req, newDeployView(streams, r.Stack(), r.Environment(), flags.format == "json"), nil, true)
		},
	}
	envFlag(cmd, &env)
	flags.register(cmd, 0)
	flags.registerNew(cmd)
	cmd.Flags().BoolVar(&takeOver, "take-over", false, "leave a release that was interrupted as it is")
	return cmd
}

func newRedeploy(streams *IO) *cobra.Command {
	var (
		flags    releaseFlags
		env      string
		takeOver bool
	)
	cmd := &cobra.Command{
		Use:   "redeploy STACK [SERVICE…]",
		Short: "Replace every allocation of a stack by the same, step by step",
		Long: `Replace every allocation of a stack, or of some of its services, by the same job:
by the update block of each job and with all gates of a deploy. Images whose tag
has moved are pulled again where the driver does so (docker: latest, or
force_pull). The source of the stack is not needed.

Jobs that run to an end (batch, sysbatch) run again only when they are named. To
make Nomad replace anything a job has to change: its meta drover_redeploy is set
to the time, and later deploys leave it there.`,
		Example: "  drover redeploy ocis -e prod\n  drover redeploy ocis gateway users -e prod -m 'new CA certificates'",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("%s: give STACK [SERVICE…]", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			ctx := cmd.Context()
			clients, r, err := recorded(ctx, args[0], env)
			if err != nil {
				return err
			}
			d := flags.deployer(cmd, clients, r.Stack(), r.Environment())
			if err := redacting(ctx, d, clients); err != nil {
				return err
			}
			req, err := d.Redeploy(ctx, args[1:], time.Now())
			if err != nil {
				return releaseError(err)
			}
			req.Message, req.OnFailure, req.TakeOver = flags.message, flags.onFailure, takeOver
			return makeRelease(ctx, d, req, newDeployView(streams, r.Stack(), r.Environment(), flags.format == "json"), nil, false)
		},
	}
	envFlag(cmd, &env)
	flags.register(cmd, 0)
	flags.registerNew(cmd)
	cmd.Flags().BoolVar(&takeOver, "take-over", false, "leave a release that was interrupted as it is")
	return cmd
}

// redacting hides the values of the stack's secrets in what the deployer
// tells.
func redacting(ctx context.Context, d *release.Deployer, clients rollout.Clients) error {
	hide, err := record.OpenSecrets(clients.Nomad, d.Releases.Stack(), d.Releases.Environment(), nil).Redactor(ctx)
	d.Rollout.Redact = hide
	return err
}

// goOn is a command that goes on with the release that is open.
func goOn(streams *IO, cmd *cobra.Command, do func(context.Context, *release.Deployer) (release.Result, error)) *cobra.Command {
	var (
		flags releaseFlags
		env   string
	)
	cmd.Args = exactArgs(1, "STACK")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := flags.check(); err != nil {
			return err
		}
		ctx := cmd.Context()
		clients, r, err := recorded(ctx, args[0], env)
		if err != nil {
			return err
		}
		d := flags.deployer(cmd, clients, r.Stack(), r.Environment())
		d.Approve = asker(streams, flags.format)
		if err := redacting(ctx, d, clients); err != nil {
			return err
		}
		view := newDeployView(streams, r.Stack(), r.Environment(), flags.format == "json")
		d.Emit = view.event
		res, err := do(ctx, d)
		if err != nil {
			view.close()
			return releaseError(err)
		}
		return view.end(res)
	}
	envFlag(cmd, &env)
	// Twice the lease: that of a drover that was killed runs out by itself.
	flags.register(cmd, 2*record.LockTTL+5*time.Second)
	return cmd
}

func newResume(streams *IO) *cobra.Command {
	return goOn(streams, &cobra.Command{
		Use:   "resume STACK",
		Short: "Go on with a release that was interrupted",
		Long: `Go on with a release that was interrupted, paused or waits, from its record: the
source of the stack is not needed. What was submitted is followed; what was not
is submitted, unless somebody else has changed the job since. A release that was
on its way back goes on going back.`,
		Example: "  drover resume ocis -e prod",
	}, func(ctx context.Context, d *release.Deployer) (release.Result, error) { return d.Resume(ctx, false) })
}

func newPromote(streams *IO) *cobra.Command {
	return goOn(streams, &cobra.Command{
		Use:   "promote STACK",
		Short: "Promote the canaries of a release that waits, and go on with it",
		Long: `Promote the canaries of a release that is awaiting-promotion, and go on with it
as 'drover resume' does. 'drover abort' takes them away instead.`,
		Example: "  drover promote ocis -e prod",
	}, func(ctx context.Context, d *release.Deployer) (release.Result, error) { return d.Resume(ctx, true) })
}

func newAbort(streams *IO) *cobra.Command {
	return goOn(streams, &cobra.Command{
		Use:   "abort STACK",
		Short: "Give up a release that was interrupted: everything goes back",
		Long: `Give up a release that was interrupted, paused or waits. Every job that it
changed gets the spec that it had before, whether a release of drover or somebody
else had made it; jobs that it created are stopped.`,
		Example: "  drover abort ocis -e prod",
	}, func(ctx context.Context, d *release.Deployer) (release.Result, error) { return d.Abort(ctx) })
}

func newPause(streams *IO) *cobra.Command {
	var env string
	cmd := &cobra.Command{
		Use:   "pause STACK",
		Short: "Stop a release where it is",
		Long: `Stop a release that is being made, where it is: its drover submits nothing more
and ends, and Nomad's deployments stand still. 'drover resume' goes on with it,
'drover abort' goes back.`,
		Example: "  drover pause ocis -e prod",
		Args:    exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var flags releaseFlags
			clients, r, err := recorded(cmd.Context(), args[0], env)
			if err != nil {
				return err
			}
			d := flags.deployer(cmd, clients, r.Stack(), r.Environment())
			h, err := d.Pause(cmd.Context(), d.Holder.User+"@"+d.Holder.Host)
			if err != nil {
				return releaseError(err)
			}
			fmt.Fprintf(streams.Out, "%s: release %d is paused\n", r.Stack(), h.Number)
			fmt.Fprintf(streams.Err, "Next: drover resume %s, or drover abort %s\n", args[0], args[0])
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
			if _, err := r.Unlock(cmd.Context()); err != nil {
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

		relocated *release.RelocatedError
	)
	if errors.As(err, &retired) && exitCode(err) == exitCluster {
		return errRefused{err, exitCluster} // said with what it is about
	}
	if errors.As(err, &large) || errors.As(err, &foreign) || errors.As(err, &relocated) {
		return errRefused{err, exitUsage}
	}
	if errors.As(err, &open) || errors.As(err, &notOpen) || errors.As(err, &waits) || errors.Is(err, record.ErrLocked) {
		return errRefused{err, exitBusy}
	}
	return err
}
