package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/deploy"
)

func newCertReseal(streams *IO, f *factory) *cobra.Command {
	var store certStore
	cmd := &cobra.Command{
		Use: "reseal", Short: "Encrypt the store in Consul with a new key",
		Long: `Encrypt the store in Consul with a new key.

$` + sealEnv + `, or the file of --seal-key-file, has one key a line: first the new
one, then the old one. Every certificate and the ACME account are written again. The
controller needs both keys before, and only the new one afterwards. The old key does
not open the store any more.

The command exits with 1 if an object cannot be read with any of the keys.`,
		Example: "  drover cert reseal --store consul --seal-key-file keys",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if store.store != "consul" {
				return usagef("--store cannot be %q; only objects in consul are sealed", store.store)
			}
			b, err := store.open(cmd.Context())
			if err != nil {
				return err
			}
			n, err := acme.NewStore(b).Reseal(cmd.Context())
			fmt.Fprintf(streams.Out, "%d objects are sealed with the first key\n", n)
			return deploy.CertError(err)
		},
	}
	store.register(cmd, f)
	return cmd
}
