package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
)

func newStatus(streams *IO, f *factory) *cobra.Command {
	var (
		flags  stackFlags
		format string
		watch  bool
	)
	cmd := &cobra.Command{
		Use:   "status STACK",
		Short: "Show the state of the services of a stack",
		Long: `Show the state of the services of a stack: of those that its newest release left
running, by the record of the release. The first line is the newest release and,
while the stack is locked, the holder of the lock. Of a periodic or parameterized
job the runs are counted. Before the first release the services of the source are
shown. With -w the state is shown again every few seconds until Ctrl-C: a terminal
is redrawn, a pipe and -o json get it whenever it has changed.

STACK is a directory, or the name of a stack whose source need not be here. Values
of variables are not needed. It needs a token that may read jobs and the record of
the stack. It changes nothing.

It exits with 0 if every service is deployed, all its allocations are healthy, all
its checks pass and no release was interrupted, otherwise with 1. With -w that is the
last state that was shown.`,
		Example: `  drover status ocis -e prod
  drover status ocis -e prod -o json
  drover status ocis -e prod -w`,
		Args: exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			status := deploy.Status{Home: f.readingHome(cmd), Source: flags.source(args[0])}
			now, err := status.Run(cmd.Context())
			if err != nil {
				return err
			}
			if err := printStatus(streams, now, format == "json", watch && streams.TTY); err != nil {
				return err
			}
			if watch {
				now = watchStatus(cmd.Context(), streams, format == "json", now, status.Run)
			}
			if !now.OK {
				return errSilent{exitError}
			}
			return nil
		},
	}
	flags.registerRecorded(cmd)
	fl := cmd.Flags()
	fl.StringVarP(&format, "output", "o", "text", "text or json")
	fl.BoolVarP(&watch, "watch", "w", false, "show it again whenever it changes, until Ctrl-C")
	return cmd
}

func printStatus(streams *IO, s deploy.StatusResult, asJSON, redraw bool) error {
	if asJSON {
		return json.NewEncoder(streams.Out).Encode(s)
	}
	var b bytes.Buffer
	if redraw {
		b.WriteString("\x1b[H\x1b[2J") // from the top of an empty screen
	}
	if s.Release == nil && s.Holder == nil {
		fmt.Fprintf(&b, "stack %s has no release in environment %s; these are the services of its source\n\n", s.Stack, s.Environment)
	}
	printNewest(&b, s)
	if len(s.Services) == 0 {
		fmt.Fprintf(&b, "no service of stack %s is to run in environment %s\n", s.Stack, s.Environment)
	} else if err := printServices(&b, s.Services); err != nil {
		return err
	}
	printScaling(&b, s.Scaling)
	_, err := streams.Out.Write(b.Bytes())
	return err
}

// statusPause is the time between two requests of a watch.
const statusPause = 5 * time.Second

// watchStatus shows the status until ctx ends, and returns the last one. It
// reports an error of read once and tries again.
func watchStatus(ctx context.Context, streams *IO, asJSON bool, last deploy.StatusResult, read func(context.Context) (deploy.StatusResult, error)) deploy.StatusResult {
	tick := time.NewTicker(statusPause)
	defer tick.Stop()
	problem := ""
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return last
		}
		now, err := read(ctx)
		switch {
		case ctx.Err() != nil:
			return last
		case err != nil:
			if text := err.Error(); text != problem {
				printError(streams.Err, err)
				problem, last.OK = text, false
			}
			continue
		}
		redraw := streams.TTY && !asJSON
		if problem != "" || redraw || !sameStatus(now, last) {
			if !asJSON && !redraw {
				fmt.Fprintln(streams.Out)
			}
			if printStatus(streams, now, asJSON, redraw) != nil {
				return now // the reader of the pipe is gone
			}
		}
		last, problem = now, ""
	}
}

func sameStatus(s, t deploy.StatusResult) bool {
	a, errA := json.Marshal(s)
	b, errB := json.Marshal(t)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

// printNewest writes the newest release and the holder of the lock.
func printNewest(w io.Writer, s deploy.StatusResult) {
	switch h := s.Release; {
	case h != nil && h.State == record.Unreadable:
		fmt.Fprintf(w, "release %d: %s; run `drover record check %s`\n\n", h.Number, h.Detail, release.StackArgs(h.Stack, h.Environment))
	case h != nil && h.State.Open() && s.Holder != nil:
		fmt.Fprintf(w, "release %d is %s: %s\n\n", h.Number, h.State, s.Holder)
	case h != nil && h.State.Open():
		fmt.Fprintf(w, "release %d of %s is %s; drover %s %s finishes it, drover abort %s restores the release before it\n\n",
			h.Number, h.Started.Local().Format("2006-01-02 15:04:05"), release.Describe(h), release.Finisher(h.State), release.StackArgs(h.Stack, h.Environment), release.StackArgs(h.Stack, h.Environment))
	case s.Holder != nil:
		fmt.Fprintf(w, "locked by %s\n\n", s.Holder)
	case h != nil:
		fmt.Fprintf(w, "release %d, %s by %s@%s %s ago\n\n", h.Number, h.State, h.By.User, h.By.Host, ago(time.Since(h.Ended)))
	}
}

func printServices(out io.Writer, list []rollout.ServiceStatus) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SERVICE\tSTATUS\tVERSION\tHEALTHY\tCHECKS\tAGE\t")
	for _, st := range list {
		version, healthy, checks, age := "-", "-", "-", "-"
		if st.Status != rollout.StatusMissing && st.Status != "completed" {
			version = fmt.Sprint(st.Version)
			healthy = fmt.Sprintf("%d/%d", st.Healthy, st.Desired)
			if st.Children != nil {
				healthy = st.Children.String()
			}
		}
		if st.ChecksTotal > 0 {
			checks = fmt.Sprintf("%d/%d", st.ChecksPassing, st.ChecksTotal)
		}
		if !st.Submitted.IsZero() {
			age = ago(time.Since(st.Submitted))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", render.Job{Service: st.Service, Target: st.Target}.Name(), st.Status, version, healthy, checks, age, cmp.Or(st.Detail, st.Note))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	var hints []string
	for _, st := range list {
		for _, l := range st.Lost {
			if hint := l.Recreate(); !slices.Contains(hints, hint) {
				hints = append(hints, hint)
				fmt.Fprintf(out, "\n%s\n", hint)
			}
		}
	}
	return nil
}

// printScaling writes the newest decision about the count of each group that is scaled.
func printScaling(w io.Writer, list []deploy.GroupScaling) {
	for i, g := range list {
		if i == 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "scaling of %s, group %s: count %d", render.Job{Service: g.Service, Target: g.Target}.Name(), g.Group, g.Count)
		switch e := g.Last; {
		case e == nil:
			fmt.Fprintln(w, ", never scaled")
		case e.DryRun != nil:
			fmt.Fprintf(w, "; dry run %s ago: would be %d: %s\n", ago(time.Since(e.At)), *e.DryRun, e.Reason)
		case e.Error || e.From == e.To:
			fmt.Fprintf(w, "; %s ago: %s\n", ago(time.Since(e.At)), e.Reason)
		default:
			fmt.Fprintf(w, "; %d to %d %s ago by %s: %s\n", e.From, e.To, ago(time.Since(e.At)), cmp.Or(e.By, "an API call"), cmp.Or(e.Reason, "no reason given"))
		}
	}
}

// ago formats a duration in its largest unit.
func ago(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd", int(d.Hours())/24)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	case d >= 2*time.Minute:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	}
	return fmt.Sprintf("%ds", int(d.Seconds()))
}
