package cli

import (
	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/release"
)

// savedPlan reads the file that arg names when that is a saved plan, and returns nil
// when it is not.
func (f *stackFlags) savedPlan(cmd *cobra.Command, arg string) (*release.Saved, error) {
	saved, err := deploy.ReadSavedPlan(arg)
	if err != nil || saved == nil {
		return nil, err
	}
	for _, name := range []string{"var", "var-file", "values", "service", "target"} {
		if cmd.Flags().Changed(name) {
			return nil, usagef("--%s does not go with a saved plan: everything in %s is fixed", name, arg)
		}
	}
	return saved, nil
}
