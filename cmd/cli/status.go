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

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
)

func newStatus(streams *IO) *cobra.Command {
	var (
		flags  stackFlags
		format string
		watch  bool
	)
	cmd := &cobra.Command{
		Use:   "status STACK",
		Short: "Show how the services of a stack are now",
		Long: `Show how the services of a stack are now: those that its newest release left
running, by the record of the release. STACK is a directory, or the name of a stack
whose source need not be here; values of variables are not needed. Before the first
release the services of the source are shown.

The first line is the newest release and, while somebody changes the stack, who.
The exit code is 0 when every service is deployed, all its allocations are
healthy, all its checks pass and no release was left half-way, otherwise 1.
Of a periodic or parameterized job its runs are counted.

With -w it is shown again every few seconds until Ctrl-C: redrawn on a terminal,
in a pipe or with -o json whenever something has changed. The exit code is then
that of the last look.`,
		Example: `  drover status ocis -e prod
  drover status ocis -e prod -o json
  drover status ocis -e prod -w`,
		Args: exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			r, err := flags.running(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			read := func(ctx context.Context) (stackStatus, error) { return statusOf(ctx, r) }
			now, err := read(cmd.Context())
			if err != nil {
				return err
			}
			if err := now.print(streams, format == "json", watch && streams.TTY); err != nil {
				return err
			}
			if watch {
				now = watchStatus(cmd.Context(), streams, format == "json", now, read)
			}
			if !now.OK {
				return errSilent{exitError}
			}
			return nil
		},
	}
	flags.registerRunning(cmd)
	fl := cmd.Flags()
	fl.StringVarP(&format, "output", "o", "text", "text or json")
	fl.BoolVarP(&watch, "watch", "w", false, "show it again whenever it changes, until Ctrl-C")
	return cmd
}

// stackStatus is how a stack is at one moment.
type stackStatus struct {
	Stack       string                  `json:"stack"`
	Environment string                  `json:"environment"`
	OK          bool                    `json:"ok"`
	Services    []rollout.ServiceStatus `json:"services"`
	releaseStatus
}

func statusOf(ctx context.Context, r *running) (stackStatus, error) {
	out := stackStatus{Stack: r.releases.Stack(), Environment: r.releases.Environment()}
	var err error
	if out.Release, out.Holder, err = r.releases.Now(ctx); err != nil {
		return out, err
	}
	head := out.Release
	if head != nil && head.State == record.Unreadable { // which the first line says
		if head, err = r.newest(ctx); err != nil {
			return out, err
		}
	}
	what, err := r.jobs(ctx, head)
	if err != nil {
		return out, err
	}
	jobs := what.Jobs
	clients, err := r.dial(ctx, what.Targets, jobs, true)
	if err != nil {
		return out, err
	}
	targets := deploy.TargetNames(jobs)
	parts := make([][]rollout.ServiceStatus, len(targets))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8) // each may be far away
	for i, t := range targets {
		g.Go(func() (err error) {
			parts[i], err = rollout.Status(gctx, clients[t], deploy.JobsIn(jobs, t))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return out, err
	}
	for i, t := range targets {
		var registered []*api.Job
		for _, j := range deploy.JobsIn(jobs, t) {
			registered = append(registered, j.Job)
		}
		if err := release.MarkCompleted(ctx, r.releases, head, clients[t], t, registered, parts[i]); err != nil {
			return out, err
		}
	}
	for i, j := range jobs {
		if why := what.Unreadable[i]; why != nil {
			mark(parts[slices.Index(targets, j.Target)], j, fmt.Sprintf("%s; run `drover record check %s`", why, stackArgs(out.Stack, out.Environment)))
		}
	}
	out.Services = append([]rollout.ServiceStatus{}, slices.Concat(parts...)...)
	for i := range out.Services {
		if st := &out.Services[i]; head == nil && st.Status != statusMissing {
			st.OK, st.Detail = false, "no release of this stack and environment made it"
		}
	}
	out.OK = len(jobs) > 0 && out.ok() && !slices.ContainsFunc(out.Services, func(st rollout.ServiceStatus) bool { return !st.OK })
	return out, nil
}

// mark says why a job is not known to be well.
func mark(list []rollout.ServiceStatus, j render.Job, detail string) {
	for i := range list {
		if list[i].Service == j.Service && list[i].JobID == *j.Job.ID {
			list[i].OK, list[i].Detail = false, detail
		}
	}
}

func (s stackStatus) print(streams *IO, asJSON, redraw bool) error {
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
	s.releaseStatus.print(&b)
	if len(s.Services) == 0 {
		fmt.Fprintf(&b, "no service of stack %s is to run in environment %s\n", s.Stack, s.Environment)
	} else if err := printStatus(&b, s.Services); err != nil {
		return err
	}
	_, err := streams.Out.Write(b.Bytes())
	return err
}

// statusMissing is the status of a job that Nomad does not have.
const statusMissing = "missing"

// statusPause is the time between two looks of a watch: each is some five
// requests.
const statusPause = 5 * time.Second

// watchStatus shows the status until ctx ends, and returns the last one. A
// server that does not answer for a while does not end it.
func watchStatus(ctx context.Context, streams *IO, asJSON bool, last stackStatus, read func(context.Context) (stackStatus, error)) stackStatus {
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
		if problem != "" || redraw || !now.same(last) {
			if !asJSON && !redraw {
				fmt.Fprintln(streams.Out)
			}
			if now.print(streams, asJSON, redraw) != nil {
				return now // nobody reads it any more
			}
		}
		last, problem = now, ""
	}
}

// same says that nothing has changed.
func (s stackStatus) same(t stackStatus) bool {
	a, errA := json.Marshal(s)
	b, errB := json.Marshal(t)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

// releaseStatus is the newest release and who is at it.
type releaseStatus struct {
	Release *record.Release `json:"release"` // nil when there is none
	Holder  *record.Holder  `json:"lock"`    // nil when nobody holds the lock
}

// ok says that no release is half-way without anybody at it.
func (s releaseStatus) ok() bool {
	return s.Release == nil || s.Release.State != record.Unreadable && (!s.Release.State.Open() || s.Holder != nil)
}

func (s releaseStatus) print(w io.Writer) {
	switch h := s.Release; {
	case h != nil && h.State == record.Unreadable:
		fmt.Fprintf(w, "release %d: %s; run `drover record check %s`\n\n", h.Number, h.Detail, stackArgs(h.Stack, h.Environment))
	case h != nil && h.State.Open() && s.Holder != nil:
		fmt.Fprintf(w, "release %d is %s: %s\n\n", h.Number, h.State, s.Holder)
	case h != nil && h.State.Open():
		fmt.Fprintf(w, "release %d of %s is %s; drover %s %s finishes it, drover abort %s goes back\n\n",
			h.Number, h.Started.Local().Format("2006-01-02 15:04:05"), release.Describe(h), release.Finisher(h.State), stackArgs(h.Stack, h.Environment), stackArgs(h.Stack, h.Environment))
	case s.Holder != nil:
		fmt.Fprintf(w, "being changed by %s\n\n", s.Holder)
	case h != nil:
		fmt.Fprintf(w, "release %d, %s by %s@%s %s ago\n\n", h.Number, h.State, h.By.User, h.By.Host, ago(time.Since(h.Ended)))
	}
}

func printStatus(out io.Writer, list []rollout.ServiceStatus) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SERVICE\tSTATUS\tVERSION\tHEALTHY\tCHECKS\tAGE\t")
	for _, st := range list {
		version, healthy, checks, age := "-", "-", "-", "-"
		if st.Status != statusMissing && st.Status != "completed" {
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

// ago is a duration in its largest unit.
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
