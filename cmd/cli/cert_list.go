package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/acme"
)

func newCertList(streams *IO, f *factory) *cobra.Command {
	var (
		store  certStore
		format string
	)
	cmd := &cobra.Command{
		Use: "list", Short: "List certificates, those that need attention first", Args: exactArgs(0, "no arguments"),
		Example: `  drover cert list
  drover cert list -o json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			b, err := store.open(cmd.Context())
			if err != nil {
				return err
			}
			list, lerr := acme.NewStore(b).List(cmd.Context())
			if lerr != nil && len(list) == 0 {
				return lerr
			}
			now := time.Now()
			acme.SortByAttention(list, now)
			if format == "json" {
				views := make([]certView, 0, len(list))
				for _, o := range list {
					views = append(views, viewOf(o, now))
				}
				return errors.Join(json.NewEncoder(streams.Out).Encode(views), lerr)
			}
			w := tabwriter.NewWriter(streams.Out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tPHASE\tEXPIRES\tRENEWED\tISSUER\tNAMES\tATTENTION")
			for _, o := range list {
				_, why := acme.Attention(o, now)
				why, _, _ = strings.Cut(why, "\n")
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", o.Spec.Name, o.Status.Phase, until(o.Status.NotAfter, now), until(o.Status.RenewAt, now),
					dash(o.Status.Issuer), strings.Join(o.Spec.Names, ","), dash(why))
			}
			return errors.Join(w.Flush(), lerr)
		},
	}
	store.register(cmd, f)
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// until is how far away a time is.
func until(t, now time.Time) string {
	switch d := t.Sub(now); {
	case t.IsZero():
		return "-"
	case d < 0:
		return ago(-d) + " ago"
	default:
		return "in " + ago(d)
	}
}
