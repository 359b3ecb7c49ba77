package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/deploy"
)

func newMaintenance(streams *IO, f *factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "maintenance",
		Short:   "Let the edge answer for a stack in maintenance",
		Example: "  drover maintenance on mycloud -e prod",
	}
	cmd.AddCommand(newMaintenanceTo(streams, f, true), newMaintenanceTo(streams, f, false))
	return cmd
}

func newMaintenanceTo(streams *IO, f *factory, on bool) *cobra.Command {
	var flags stackFlags
	word, short, result := "on", "Answer requests to a stack with a maintenance page", "maintenance is on for %s\n"
	effect := "makes the edge answer every request to the routes of the stack with 503 and the page\nof its variable maintenance_page, and close TCP connections"
	if !on {
		word, short, effect, result = "off", "End the maintenance of a stack", "makes the edge pass requests to the routes of the stack again", "maintenance is off for %s\n"
	}
	cmd := &cobra.Command{
		Use:   word + " STACK",
		Short: short,
		Long: fmt.Sprintf(`%s. The edge does so within seconds.

STACK is a directory, or the name of a stack whose source need not be here: the record
of the newest release names its services. It needs a token that may read the record,
and in the namespace of the edge (DROVER_EDGE_NAMESPACE) read jobs and write the
variable nomad/jobs/JOB/edge of each edge. It changes these variables and nothing else.
It exits with 0 if they are written, with 2 if no service of the stack has a route.`, strings.ToUpper(effect[:1])+effect[1:]),
		Example: "  drover maintenance " + word + " mycloud -e prod",
		Args:    exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			services, err := deploy.Maintenance{Home: f.readingHome(cmd), Source: flags.source(args[0]), On: on}.Run(cmd.Context())
			if err != nil {
				return err
			}
			fmt.Fprintf(streams.Out, result, strings.Join(services, ", "))
			return nil
		},
	}
	flags.registerRecorded(cmd)
	hideFlags(cmd, "service") // a stack has one state
	return cmd
}
