package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/stack"
)

// certView is a certificate as -o json shows it.
type certView struct {
	acme.Spec
	Status    acme.Status `json:"status"`
	Attention string      `json:"attention,omitempty"`
	OK        bool        `json:"ok"`
	Chain     string      `json:"chain,omitempty"`
	Edge      []string    `json:"edge,omitempty"` // why an edge does not take or serve it
}

// edgeLook is how long cert status waits for what it says of the edge.
const edgeLook = 20 * time.Second

// lookAtEdge reads what the edge instances serve. It checks no versions: it only reads.
func (f *factory) lookAtEdge(ctx context.Context, s *acme.Store) (*edge.Report, error) {
	clients, err := f.reach(ctx, &stack.Target{}, true)
	if err != nil {
		return nil, err
	}
	return edge.Look(ctx, clients.Nomad, clients.Consul, edge.Options{Store: s, Namespace: os.Getenv(edge.NamespaceEnv), Credentials: os.Getenv(edge.CredentialsEnv), Timeout: 5 * time.Second})
}

// atEdge returns why edge instances do not serve the certificate name, and whether an
// instance refused its configuration. An unreachable Consul is no error: the certificate
// store does not need it. A look that takes longer than limit is a note.
func atEdge(ctx context.Context, limit time.Duration, name string, look func(context.Context) (*edge.Report, error)) (notes []string, refused bool) {
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	r, err := look(within)
	if err != nil && within.Err() != nil && ctx.Err() == nil {
		return []string{fmt.Sprintf("Consul or the edge did not answer within %s; look at drover edge status", limit)}, false
	}
	if err != nil {
		return nil, false
	}
	for _, i := range r.Instances {
		if i.Problem != "" {
			notes = append(notes, fmt.Sprintf("%s: %s", i.Node, i.Problem))
		}
		if i.Refused != "" {
			refused = true
			notes = append(notes, fmt.Sprintf("%s refused its last configuration and serves the one before: %s", i.Node, i.Refused))
		}
		for _, c := range i.Certificates {
			if c.Name == name && !c.Match {
				notes = append(notes, fmt.Sprintf("%s: %s; `drover edge status` shows the details", i.Node, c.Problem))
			}
		}
	}
	return notes, refused
}

func viewOf(o *acme.Object, now time.Time) certView {
	rank, why := acme.Attention(o, now)
	return certView{Spec: o.Spec, Status: o.Status, Attention: why, OK: rank >= acme.RankWell, Chain: o.Chain}
}

func newCertStatus(streams *IO, f *factory) *cobra.Command {
	var (
		store  certStore
		format string
	)
	cmd := &cobra.Command{
		Use: "status NAME", Short: "Show the state of one certificate, and its reason",
		Long: `Show the state of one certificate, and its reason.

If edge instances are registered in Consul, the command also shows the instances
that do not serve the certificate or refused their configuration, as 'drover edge
status' does.

It exits with 0 if the certificate needs no attention, otherwise with 1.`,
		Example: "  drover cert status public",
		Args:    exactArgs(1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			s, o, err := store.get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			v := viewOf(o, time.Now())
			var refused bool
			v.Edge, refused = atEdge(cmd.Context(), edgeLook, o.Spec.Name, func(ctx context.Context) (*edge.Report, error) { return f.lookAtEdge(ctx, s) })
			v.OK = v.OK && !refused
			if format == "json" {
				err = json.NewEncoder(streams.Out).Encode(v)
			} else {
				err = printCert(streams, o, v.Edge)
			}
			if err == nil && !v.OK {
				err = errSilent{exitError}
			}
			return err
		},
	}
	store.register(cmd, f)
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

func printCert(streams *IO, o *acme.Object, edge []string) error {
	w := tabwriter.NewWriter(streams.Out, 0, 0, 2, ' ', 0)
	st, now := &o.Status, time.Now()
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, value)
		}
	}
	at := func(name string, t time.Time) {
		if !t.IsZero() {
			line(name, t.UTC().Format(time.RFC3339)+" ("+until(t, now)+")")
		}
	}
	line("certificate", o.Spec.Name)
	line("phase", string(st.Phase))
	line("reason", st.Reason)
	line("names", strings.Join(o.Spec.Names, ", "))
	line("issuers", strings.Join(o.Spec.Issuers, ", "))
	line("challenge", o.Spec.Challenge)
	line("profile", o.Spec.Profile)
	line("issued by", st.Issuer)
	line("serial", st.Serial)
	at("expires", st.NotAfter)
	at("renewed", st.RenewAt)
	line("because", st.RenewedBy)
	line("served", st.ServedAs)
	for _, why := range edge {
		line("edge", strings.ReplaceAll(why, "\n", "; "))
	}
	if st.Attempts > 0 {
		line("failed", fmt.Sprintf("%d times in a row", st.Attempts))
	}
	line("last error", strings.ReplaceAll(st.LastError, "\n", "; "))
	at("last attempt", st.LastAttempt)
	at("next attempt", st.NextAttempt)
	if st.Pending != nil {
		line("order", st.Pending.Order)
	}
	for _, l := range st.Leftovers {
		line("to be removed", "TXT "+l.Name)
	}
	return w.Flush()
}
