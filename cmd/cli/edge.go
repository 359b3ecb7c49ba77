package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/edge"
)

func newEdge(streams *IO, f *factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "edge",
		Short:   "Show what each edge instance serves",
		Example: "  drover edge status",
	}
	cmd.AddCommand(newEdgeStatus(streams, f))
	return cmd
}

func newEdgeStatus(streams *IO, f *factory) *cobra.Command {
	var (
		store   certStore
		format  string
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what each edge instance serves, and which tags it ignores",
		Long: `Show which routes and certificates each edge instance serves, and which tags it
ignores and why.

Services in Consul request routes by their tags (docs/reference/routes.md). The
command reads the loaded configuration of each edge instance, and the certificates
that its HTTPS port presents. An instance that refused its last configuration
keeps serving the previous one; the reason is shown.

It exits with 0 if every instance serves all routes and certificates, otherwise
with 1.`,
		Example: "  drover edge status\n  drover edge status -o json | jq '.problems'",
		Args:    exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			clients, err := f.connect(cmd.Context(), true)
			if err != nil {
				return err
			}
			backend, err := store.open(cmd.Context())
			if err != nil {
				return err
			}
			report, err := edge.Look(cmd.Context(), clients.Nomad, clients.Consul, edge.Options{Store: acme.NewStore(backend), Namespace: os.Getenv(edge.NamespaceEnv), Credentials: os.Getenv(edge.CredentialsEnv), Timeout: timeout})
			if err != nil {
				return err
			}
			if format == "json" {
				enc := json.NewEncoder(streams.Out)
				enc.SetEscapeHTML(false)
				err = enc.Encode(report)
			} else {
				err = printEdge(streams, report)
			}
			if err == nil && !report.OK {
				err = errSilent{exitError}
			}
			return err
		},
	}
	store.register(cmd, f)
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Second, "how long one instance may take to answer")
	return cmd
}

func printEdge(streams *IO, r *edge.Report) error {
	if len(r.Instances) == 0 {
		fmt.Fprintln(streams.Out, "No edge is registered in Consul: drover deploy edge")
	}
	w := tabwriter.NewWriter(streams.Out, 0, 0, 2, ' ', 0)
	var notes []string
	if len(r.Instances) > 0 {
		fmt.Fprintln(w, "NODE\tEDGE\tHTTPS\tCONFIGURATION\tCERTIFICATES\t")
	}
	for _, i := range r.Instances {
		state := "current"
		switch {
		case i.Refused != "":
			state = "refused"
			notes = append(notes, fmt.Sprintf("%s: the last configuration was refused and the one before is served: %s", i.Node, i.Refused))
		case i.Kind == "":
			state = "unknown"
		case i.Generation.Stale():
			state = "outdated"
			notes = append(notes, fmt.Sprintf("%s: the worker has generation %s of the files, the newest is %s; the edge reloads it again", i.Node, dash(i.Generation.Worker), i.Generation.Files))
		case !i.Current:
			state = "outdated"
			notes = append(notes, fmt.Sprintf("%s: the routes are not those of the tags in Consul; look at nomad alloc logs -stderr %.8s", i.Node, i.AllocID))
		}
		if i.Problem != "" {
			notes = append(notes, fmt.Sprintf("%s: %s", i.Node, i.Problem))
		}
		var certs []string
		for _, c := range i.Certificates {
			certs = append(certs, c.Name+map[bool]string{true: " served", false: " not served"}[c.Match])
			if !c.Match {
				notes = append(notes, fmt.Sprintf("%s: certificate %s: %s", i.Node, c.Name, c.Problem))
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t\n", i.Node, dash(strings.TrimSpace(string(i.Kind)+" "+i.Class)), dash(i.Address), state, dash(strings.Join(certs, ", ")))
	}
	if len(r.Instances) > 0 {
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w, "ROUTE\tTO\tINSTANCES\tOPTIONS\t")
	for _, s := range r.Routes {
		from, to, instances := s.From, s.Service, fmt.Sprintf("%d/%d", s.Passing, s.Total)
		switch s.Kind {
		case edge.TCP:
			from = "tcp port " + from
		case edge.SNI:
			from = "tcp for " + from
		case edge.Redirect:
			to, instances = fmt.Sprintf("%d %s", s.Code, s.To), "-"
		}
		if s.Class != "" {
			from += " (" + s.Class + ")"
		}
		if s.Up != nil && *s.Up < s.Passing {
			instances += fmt.Sprintf(", reached %d", *s.Up)
		}
		// Their values are in the JSON: some are long.
		var options []string
		for _, o := range s.Options {
			key, _, _ := strings.Cut(strings.TrimPrefix(o, edge.Prefix), "=")
			options = append(options, key)
		}
		options = slices.Compact(options)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t\n", from, to, instances, dash(strings.Join(options, ", ")))
		if s.Bad() {
			why := "no instance passes its checks in Consul"
			if s.Passing > 0 {
				why = "the edge does not reach any instance: is its address and port open to the edge's node?"
			}
			notes = append(notes, fmt.Sprintf("%s: %s", from, why))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	cost := map[edge.Cost]string{edge.CostsService: "no route of this service is served", edge.CostsTag: "left out"}
	for _, p := range r.Problems {
		tag, costs := "", ""
		if p.Tag != "" {
			tag = fmt.Sprintf(" %q", p.Tag)
		}
		if c := cost[p.Costs]; c != "" {
			costs = " (" + c + ")"
		}
		notes = append(notes, fmt.Sprintf("service %s%s: %s%s; %s", p.Service, tag, p.Message, costs, p.Mend))
	}
	if len(notes) > 0 {
		fmt.Fprintf(streams.Out, "\n%s\n", strings.Join(notes, "\n"))
	}
	return nil
}
