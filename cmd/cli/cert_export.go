package cli

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/acme"
)

func newCertExport(streams *IO, f *factory) *cobra.Command {
	var (
		store certStore
		out   string
	)
	cmd := &cobra.Command{
		Use: "export NAME --out DIR", Short: "Write chain, key and bundle to new files with mode 0600",
		Example: "  drover cert export public --out ./public",
		Args:    exactArgs(1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if out == "" {
				return usagef("--out DIR is missing")
			}
			_, o, err := store.get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if err := os.MkdirAll(out, 0o700); err != nil {
				return fmt.Errorf("making %s: %w", out, err)
			}
			for _, f := range []struct{ name, text string }{
				{"fullchain.pem", o.Chain}, {"privkey.pem", o.Key.Reveal()}, {"bundle.pem", o.Bundle().Reveal()},
			} {
				path := filepath.Join(out, f.name)
				if err := writePrivate(path, []byte(f.text)); err != nil {
					return fmt.Errorf("exporting certificate %s: %w", args[0], err)
				}
				fmt.Fprintln(streams.Out, path)
			}
			if o.Status.Phase == acme.Temporary {
				fmt.Fprintln(streams.Err, "Note: this is the self-signed stand-in; no CA has issued the certificate yet.")
			}
			return nil
		},
	}
	store.register(cmd, f)
	cmd.Flags().StringVar(&out, "out", "", "directory to write to; it is created if missing")
	return cmd
}
