package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

func newStatus(streams *IO) *cobra.Command {
	var (
		flags  stackFlags
		format string
	)
	cmd := &cobra.Command{
		Use:   "status STACK",
		Short: "Show how the services of a stack are now",
		Long: `Show how the services of a stack are now.

The first line is the newest release and, while somebody changes the stack, who.
The exit code is 0 when every service is deployed, all its allocations are
healthy, all its checks pass and no release was left half-way, otherwise 1.`,
		Example: `  drover status ocis -e prod
  drover status ocis -e prod -o json`,
		Args: exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			s, jobs, err := flags.load(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			clients, err := connectTargets(cmd.Context(), s, jobs, true)
			if err != nil {
				return err
			}
			var list []rollout.ServiceStatus
			for _, t := range targetsOf(jobs) {
				part, err := rollout.Status(cmd.Context(), clients[t], jobsIn(jobs, t))
				if err != nil {
					return err
				}
				list = append(list, part...)
			}
			rel, err := releaseStatusOf(cmd.Context(), clients, s)
			if err != nil {
				return err
			}
			allOK := rel.ok()
			for _, st := range list {
				allOK = allOK && st.OK
			}
			if format == "json" {
				err = json.NewEncoder(streams.Out).Encode(map[string]any{"stack": s.Name, "environment": s.Environment, "ok": allOK, "services": list, "release": rel.Release, "lock": rel.Holder})
			} else {
				rel.print(streams)
				err = printStatus(streams, list)
			}
			if err == nil && !allOK {
				err = errSilent{exitError}
			}
			return err
		},
	}
	flags.register(cmd)
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

// releaseStatus is the newest release and who is at it.
type releaseStatus struct {
	Release *record.Release // nil when there is none
	Holder  *record.Holder  // nil when nobody holds the lock
}

func releaseStatusOf(ctx context.Context, targets map[string]rollout.Clients, s *stack.Stack) (releaseStatus, error) {
	var out releaseStatus
	home, ok := targets[""]
	if !ok {
		var err error
		if home, err = connect(ctx, false); err != nil {
			return out, err
		}
	}
	r := record.OpenReleases(home.Nomad, s.Name, s.Environment)
	var err error
	if out.Release, err = r.Last(ctx); err != nil {
		return out, err
	}
	out.Holder, err = r.Holder(ctx)
	return out, err
}

// ok says that no release is half-way without anybody at it.
func (s releaseStatus) ok() bool {
	return s.Release == nil || !s.Release.State.Open() || s.Holder != nil
}

func (s releaseStatus) print(streams *IO) {
	switch h := s.Release; {
	case h != nil && h.State.Open() && s.Holder != nil:
		fmt.Fprintf(streams.Out, "release %d is %s: %s\n\n", h.Number, h.State, s.Holder)
	case h != nil && h.State.Open():
		fmt.Fprintf(streams.Out, "release %d of %s is %s; drover resume %s finishes it, drover abort %s goes back\n\n",
			h.Number, h.Started.Local().Format("2006-01-02 15:04:05"), release.Describe(h), h.Stack, h.Stack)
	case s.Holder != nil:
		fmt.Fprintf(streams.Out, "being changed by %s\n\n", s.Holder)
	case h != nil:
		fmt.Fprintf(streams.Out, "release %d, %s by %s@%s %s ago\n\n", h.Number, h.State, h.By.User, h.By.Host, ago(time.Since(h.Started)))
	}
}

func printStatus(streams *IO, list []rollout.ServiceStatus) error {
	w := tabwriter.NewWriter(streams.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SERVICE\tSTATUS\tVERSION\tHEALTHY\tCHECKS\tAGE\t")
	for _, st := range list {
		version, healthy, checks, age := "-", "-", "-", "-"
		if st.Status != "missing" {
			version = fmt.Sprint(st.Version)
			healthy = fmt.Sprintf("%d/%d", st.Healthy, st.Desired)
		}
		if st.ChecksTotal > 0 {
			checks = fmt.Sprintf("%d/%d", st.ChecksPassing, st.ChecksTotal)
		}
		if !st.Submitted.IsZero() {
			age = ago(time.Since(st.Submitted))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", render.Job{Service: st.Service, Target: st.Target}.Name(), st.Status, version, healthy, checks, age, st.Detail)
	}
	return w.Flush()
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
