package cli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/cmd/cli/view"
	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
)

func newHistory(streams *IO, f *factory) *cobra.Command {
	var env, format string
	cmd := &cobra.Command{
		Use:   "history STACK",
		Short: "List the releases of a stack",
		Long: `List the releases of a stack, the newest first: the state, kind, version and
author of each, and how many of its services it changed.

STACK is a directory, or the name of a stack whose source need not be here. It needs
a token that may read the record of the stack. It changes nothing. It exits with 0,
and with 1 if there is no release.`,
		Example: "  drover history ocis -e prod",
		Args:    exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			res, err := deploy.History{Home: f.home(cmd), Stack: args[0], Environment: env}.Run(cmd.Context())
			var none *deploy.NoReleaseError
			if format == "json" && (err == nil || errors.As(err, &none)) {
				return json.NewEncoder(streams.Out).Encode(res.Releases)
			}
			if err != nil {
				return err
			}
			if err := printHistory(streams.Out, res); err != nil {
				return err
			}
			if slices.ContainsFunc(res.Releases, func(h *record.Release) bool { return h.State == record.Unreadable }) {
				fmt.Fprintf(streams.Err, "Next: drover record check %s\n", release.StackArgs(args[0], res.Environment))
			}
			return nil
		},
	}
	envFlag(cmd, &env)
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

func printHistory(out io.Writer, res deploy.HistoryResult) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "RELEASE\tSTATE\tKIND\tVERSION\tCHANGED\tBY\tSTARTED\tTOOK\tWHY")
	for _, h := range res.Releases {
		if h.State == record.Unreadable {
			fmt.Fprintf(w, "%d\t%s\t-\t-\t-\t-\t-\t-\t%s\n", h.Number, h.State, h.Detail)
			continue
		}
		took := "-"
		if !h.Ended.IsZero() {
			took = view.Round(h.Ended.Sub(h.Started)).String()
		}
		counts := fmt.Sprintf("%d of %d", h.Changed, h.Total)
		if h.Pruned > 0 {
			counts += fmt.Sprintf(", %d pruned", h.Pruned)
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s@%s\t%s\t%s\t%s\n", h.Number, res.StateOf(h), kindOf(h, ""), versions(h), counts, h.By.User, h.By.Host,
			h.Started.Local().Format("2006-01-02 15:04:05"), took, h.Message)
	}
	return w.Flush()
}

// kindOf describes the kind of a release and the release that it repeats.
func kindOf(h *record.Release, noun string) string {
	switch {
	case h.Of == 0:
		return h.Kind
	case h.Kind == release.KindRollback:
		return fmt.Sprintf("%s to %s%d", h.Kind, noun, h.Of)
	}
	return fmt.Sprintf("%s of %s%d", h.Kind, noun, h.Of)
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

func newShow(streams *IO, f *factory) *cobra.Command {
	var env, format, service string
	cmd := &cobra.Command{
		Use:   "show STACK [RELEASE]",
		Short: "Show one release with the outcome of each service",
		Long: `Show a release, or the newest: what was deployed, by whom and with which flags, the
end of each wave and who approved it, and the outcome of each service. With --job,
print the job spec of a service as JSON for 'nomad job run -json -'. The spec is the
one that was submitted. Records contain no secrets.

It needs a token that may read the record of the stack. It changes nothing. It exits
with 0, and with 1 if there is no such release.`,
		Example: "  drover show ocis -e prod\n  drover show ocis 12 -e prod --job gateway | nomad job plan -json -",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 && len(args) != 2 {
				return usagef("%s: give STACK [RELEASE]", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			n, err := optionalRevision(args[1:])
			if err != nil {
				return err
			}
			show := deploy.Show{Home: f.home(cmd), Stack: args[0], Environment: env, Release: n}
			if service != "" {
				job, err := show.JobSpec(cmd.Context(), service)
				if err != nil {
					return err
				}
				return printJobSpec(streams, job)
			}
			res, err := show.Run(cmd.Context())
			if err != nil {
				return err
			}
			if format == "json" {
				return json.NewEncoder(streams.Out).Encode(res)
			}
			return printRelease(streams, res)
		},
	}
	envFlag(cmd, &env)
	fl := cmd.Flags()
	fl.StringVar(&service, "job", "", "print the job spec of this service")
	fl.StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

// printJobSpec writes a job spec as 'nomad job run -json' takes it.
func printJobSpec(streams *IO, job json.RawMessage) error {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetIndent("", "  ")
	if err := enc.Encode(map[string]any{"Job": job}); err != nil {
		return fmt.Errorf("cannot encode the job spec: %w", err)
	}
	_, err := streams.Out.Write(out.Bytes())
	return err
}

func printRelease(streams *IO, res deploy.ShowResult) error {
	h, lines, values := res.Release, res.Services, res.Values
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
	row("Kind", "%s", kindOf(h, "release "))
	row("Version", "%s", versions(h))
	row("By", "%s", h.By)
	if h.Message != "" {
		row("Why", "%s", h.Message)
	}
	row("Started", "%s", h.Started.Local().Format(time.RFC3339))
	if !h.Ended.IsZero() {
		row("Ended", "%s, after %s", h.Ended.Local().Format(time.RFC3339), view.Round(h.Ended.Sub(h.Started)))
	}
	row("On failure", "%s", h.OnFailure)
	if h.Keep > 0 {
		row("Kept releases", "%d", h.Keep)
	}
	row("Inputs", "%s", h.Inputs)
	if err := w.Flush(); err != nil {
		return err
	}
	if err := showWaves(streams, h); err != nil {
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
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", render.Job{Service: l.Name, Target: l.Target}.Name(), l.Change, l.Step, l.JobID, l.Index, spec, l.Detail)
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

// showWaves writes a line for each wave, if there are several or one needed an
// approval.
func showWaves(streams *IO, h *record.Release) error {
	if len(h.Waves) < 2 && !slices.ContainsFunc(h.Waves, func(w record.Wave) bool { return w.Approved != "" || w.Passed != "" || w.State == record.NeedsApproval }) {
		return nil
	}
	fmt.Fprintln(streams.Out)
	w := tabwriter.NewWriter(streams.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WAVE\tSTATE\tSTARTED\tTOOK\tAPPROVED\t")
	for _, wave := range h.Waves {
		started, took, approved := "-", "-", "-"
		if !wave.Started.IsZero() {
			started = wave.Started.Local().Format("2006-01-02 15:04:05")
			if !wave.Ended.IsZero() {
				took = view.Round(wave.Ended.Sub(wave.Started)).String()
			}
		}
		if by, at := wave.Approval(); *by != "" {
			approved = fmt.Sprintf("by %s at %s", *by, at.Local().Format("15:04:05"))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", wave.Name, cmp.Or(string(wave.State), "not started"), started, took, approved, wave.Detail)
	}
	return w.Flush()
}

func newDiff(streams *IO, f *factory) *cobra.Command {
	var env, format string
	cmd := &cobra.Command{
		Use:   "diff STACK RELEASE [RELEASE]",
		Short: "Compare the job specs of two releases",
		Long: `Compare the job specs of two releases, or of one and the newest, and show each
attribute that differs as 'drover plan' does. Defaults that Nomad fills in do not
differ.

It needs a token that may read the record of the stack. It changes nothing. It exits
with 0, also if the releases differ, and with 1 if there is no such release.`,
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
			from, err := revision(args[1])
			if err != nil {
				return err
			}
			to, err := optionalRevision(args[2:])
			if err != nil {
				return err
			}
			res, err := deploy.Diff{Home: f.home(cmd), Stack: args[0], Environment: env, From: from, To: to}.Run(cmd.Context())
			if err != nil {
				return err
			}
			if format == "json" {
				return json.NewEncoder(streams.Out).Encode(res)
			}
			return printDiff(streams, res)
		},
	}
	envFlag(cmd, &env)
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

func printDiff(streams *IO, res deploy.DiffResult) error {
	var out bytes.Buffer
	if len(res.Services) == 0 {
		fmt.Fprintf(&out, "Releases %d and %d deploy the same jobs.\n", res.From, res.To)
	}
	v := planView{w: &out, color: streams.Color}
	for _, c := range res.Services {
		name := render.Job{Service: c.Service, Target: c.Target}.Name()
		switch c.Kind {
		case "added":
			v.line(0, "%s %s: added", v.mark("+"), name)
		case "removed":
			v.line(0, "%s %s: removed", v.mark("-"), name)
		default:
			v.line(0, "%s %s:", v.mark("~"), name)
			for _, f := range c.Fields {
				v.field(f)
			}
		}
	}
	_, err := streams.Out.Write(out.Bytes())
	return err
}
