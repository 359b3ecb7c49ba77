package cli

import (
	"bytes"
	"cmp"
	"context"
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

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
)

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
				if h.State == record.Unreadable {
					fmt.Fprintf(w, "%d\t%s\t-\t-\t-\t-\t-\t-\t%s\n", h.Number, h.State, h.Detail)
					continue
				}
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
			if err := w.Flush(); err != nil {
				return err
			}
			if slices.ContainsFunc(list, func(h *record.Release) bool { return h.State == record.Unreadable }) {
				fmt.Fprintf(streams.Err, "Next: drover record check %s\n", stackArgs(args[0], r.Environment()))
			}
			return nil
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
		Use:   "show STACK [RELEASE]",
		Short: "Show a release: what was deployed, by whom, and its outcome",
		Long: `Show a release, or the newest: what was deployed, by whom, with which flags, how
each wave ended and who approved it, and the outcome of each service.

With --job, the job spec of a service is printed as it was submitted; it can be
given to 'nomad job run -json -'. Secrets are never part of a record.`,
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
			ctx := cmd.Context()
			n, err := optionalRevision(args[1:])
			if err != nil {
				return err
			}
			clients, r, err := recorded(ctx, args[0], env)
			if err != nil {
				return err
			}
			if n == 0 {
				if n, err = newest(ctx, clients, r); err != nil {
					return err
				}
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

// newest is the number of the newest release; an error says that there is none.
func newest(ctx context.Context, clients rollout.Clients, r *record.Releases) (int, error) {
	kept, err := r.Numbers(ctx)
	if err == nil && len(kept) == 0 {
		err = noReleases(ctx, clients, r)
	}
	if err != nil {
		return 0, err
	}
	return kept[len(kept)-1], nil
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

// showWaves writes a line for each wave, if there are several or one needed an
// approval.
func showWaves(streams *IO, h *record.Release) error {
	if len(h.Waves) < 2 && !slices.ContainsFunc(h.Waves, func(w record.Wave) bool { return w.Approved != "" || w.State == record.NeedsApproval }) {
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
				took = round(wave.Ended.Sub(wave.Started)).String()
			}
		}
		if wave.Approved != "" {
			approved = fmt.Sprintf("by %s at %s", wave.Approved, wave.ApprovedAt.Local().Format("15:04:05"))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", wave.Name, cmp.Or(string(wave.State), "not started"), started, took, approved, wave.Detail)
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
		Long: `Show what differs between the job specs of two releases, or of one and the
newest, attribute by attribute and in the words of 'drover plan'. Defaults that
Nomad fills in are no difference.`,
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
				if b, err = newest(ctx, clients, r); err != nil {
					return err
				}
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
			return printDiff(streams, a, b, changes)
		},
	}
	envFlag(cmd, &env)
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

func printDiff(streams *IO, a, b int, changes []release.ServiceDiff) error {
	var out bytes.Buffer
	if len(changes) == 0 {
		fmt.Fprintf(&out, "Releases %d and %d deploy the same jobs.\n", a, b)
	}
	v := planView{w: &out, color: streams.Color}
	for _, c := range changes {
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
