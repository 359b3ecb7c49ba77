package cli

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/acme/pki"
)

// Formats of cert export.
const (
	formatPEM    = "pem"
	formatPKCS12 = "pkcs12"
	formatJKS    = "jks"
)

func newCertExport(streams *IO, f *factory) *cobra.Command {
	var (
		store                 certStore
		out, format, password string
	)
	cmd := &cobra.Command{
		Use: "export NAME --out DIR", Short: "Write chain and key to new files with mode 0600",
		Long: `Write the certificate to new files with mode 0600 in a directory: in PEM, as a
PKCS #12 file or as a Java key store (JKS).

A PKCS #12 file or key store has the password in the file of --password-file.
Without the flag, the command makes a password and writes it to keystore.password.
It changes nothing in the store.`,
		Example: `  drover cert export public --out ./public
  drover cert export db --out ./db --format pkcs12 --password-file ./password`,
		Args: exactArgs(1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if out == "" {
				return usagef("--out DIR is missing")
			}
			if err := oneOf("--format", format, formatPEM, formatPKCS12, formatJKS); err != nil {
				return err
			}
			if password != "" && format == formatPEM {
				return usagef("--password-file goes with --format %s and %s", formatPKCS12, formatJKS)
			}
			_, o, err := store.get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			files, err := exported(o, format, password)
			if err != nil {
				return err
			}
			if err := os.MkdirAll(out, 0o700); err != nil {
				return fmt.Errorf("making %s: %w", out, err)
			}
			for _, f := range files {
				path := filepath.Join(out, f.name)
				if err := writePrivate(path, f.content); err != nil {
					return fmt.Errorf("exporting certificate %s: %w", args[0], err)
				}
				fmt.Fprintln(streams.Out, path)
			}
			if o.Status.Phase == acme.Temporary {
				fmt.Fprintln(streams.Err, "Note: this is the self-signed placeholder of drover; no CA has issued the certificate yet.")
			}
			return nil
		},
	}
	store.register(cmd, f)
	cmd.Flags().StringVar(&out, "out", "", "directory to write to; it is created if missing")
	cmd.Flags().StringVar(&format, "format", formatPEM, "pem, pkcs12 or jks")
	cmd.Flags().StringVar(&password, "password-file", "", "`FILE` with the password of the PKCS #12 file or key store")
	return cmd
}

// exportedFile is a file that cert export writes.
type exportedFile struct {
	name    string
	content []byte
}

func exported(o *acme.Object, format, passwordFile string) ([]exportedFile, error) {
	if format == formatPEM {
		return []exportedFile{{"fullchain.pem", []byte(o.Chain)}, {"privkey.pem", []byte(o.Key.Reveal())}, {"bundle.pem", []byte(o.Bundle().Reveal())}}, nil
	}
	key, err := pki.ParseKey(o.Key.Reveal())
	if err != nil {
		return nil, err
	}
	chain, err := pki.ParseChain(o.Chain)
	if err != nil {
		return nil, err
	}
	var files []exportedFile
	password := []byte(rand.Text())
	if passwordFile == "" {
		files = append(files, exportedFile{"keystore.password", append(bytes.Clone(password), '\n')})
	} else if password, err = os.ReadFile(passwordFile); err != nil {
		return nil, usagef("--password-file: %s", err)
	}
	if password = bytes.TrimRight(password, "\r\n"); len(password) < 6 {
		return nil, usagef("--password-file: the password has %d characters; Java needs at least 6", len(password))
	}
	var content []byte
	name := "keystore.p12"
	if format == formatJKS {
		name = "keystore.jks"
		content, err = pki.JKS(key, chain, o.Spec.Name, string(password), time.Now())
	} else {
		content, err = pki.PKCS12(key, chain, string(password))
	}
	return append(files, exportedFile{name, content}), err
}
