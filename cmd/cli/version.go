package cli

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// Version is what `drover version` prints. Releases set it with -ldflags.
var Version = "0.1.0-dev"

func newVersion(streams *IO) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print drover's version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			fmt.Fprintf(streams.Out, "drover %s (%s, %s/%s)\n", Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		},
	}
}
