package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/record"
)

func newList(streams *IO, f *factory) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List every stack and environment with a release",
		Long: `List every stack and environment that has a release in the cluster of
NOMAD_ADDR and the namespace of NOMAD_NAMESPACE: its newest release, the state and
age of the release, and who made it.

It needs a token that may list and read the variables below drover/stacks. It changes
nothing. It exits with 0, also if there is no release.`,
		Example: "  drover list\n  drover list -o json | jq -r '.[] | select(.release.state != \"deployed\") | .stack'",
		Args:    exactArgs(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			list, err := deploy.List{Home: f.home(cmd)}.Run(cmd.Context())
			if err != nil {
				return err
			}
			if format == "json" {
				return json.NewEncoder(streams.Out).Encode(list)
			}
			if len(list) == 0 {
				fmt.Fprintln(streams.Err, "No stack has a release here.")
				return nil
			}
			w := tabwriter.NewWriter(streams.Out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "STACK\tENVIRONMENT\tRELEASE\tSTATE\tVERSION\tAGE\tBY\t")
			for _, l := range list {
				fmt.Fprintln(w, strings.Join(listed(l, time.Now()), "\t"))
			}
			return w.Flush()
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

// listed returns the columns of a stack.
func listed(l record.ListedStack, now time.Time) []string {
	h := l.Release
	if h == nil {
		return []string{l.Stack, l.Environment, "-", "unreadable", "-", "-", "-", l.Error}
	}
	state := string(h.State)
	switch {
	case h.MovedTo != "":
		state = "moving to " + h.MovedTo
	case l.Holder != nil:
		state += " (locked by " + l.Holder.User + "@" + l.Holder.Host + ")"
	}
	since := h.Started
	if !h.Ended.IsZero() {
		since = h.Ended
	}
	return []string{l.Stack, l.Environment, fmt.Sprint(h.Number), state, cmp.Or(h.AppVersion, h.Version, "-"), ago(now.Sub(since)), h.By.User + "@" + h.By.Host, ""}
}
