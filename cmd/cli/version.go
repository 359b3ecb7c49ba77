package cli

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// What `drover version` prints. The build sets both with
// -ldflags "-X github.com/drover-nomad/drover/cmd/cli.Version=…".
var (
	// Version is that of the release (semver without a leading v).
	Version = "0.1.0"
	// Commit is the full hash of the commit that was built; empty if unknown.
	Commit = ""
)

// versionInfo is the JSON form of `drover version`.
type versionInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"`   // full hash, empty when unknown
	Go       string `json:"go"`       // of the compiler, as in go1.26.8
	Platform string `json:"platform"` // GOOS/GOARCH
}

func currentVersion() versionInfo {
	v := versionInfo{Version, Commit, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok && v.Commit == "" {
		for _, s := range info.Settings { // go install, go build in a clone
			if s.Key == "vcs.revision" {
				v.Commit = s.Value
			}
		}
	}
	return v
}

func newVersion(streams *IO) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print drover's version",
		Example: "  drover version\n  drover version -o json | jq -r .commit",
		Args:    exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			v := currentVersion()
			if format == "json" {
				return json.NewEncoder(streams.Out).Encode(v)
			}
			commit := ""
			if v.Commit != "" {
				commit = v.Commit[:min(12, len(v.Commit))] + ", "
			}
			_, err := fmt.Fprintf(streams.Out, "drover %s (%s%s, %s)\n", v.Version, commit, v.Go, v.Platform)
			return err
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}
