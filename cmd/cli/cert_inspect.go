package cli

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/acme/pki"
)

// inspected is a certificate that was read from a file or a server.
type inspected struct {
	Names     []string  `json:"names"`
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	Serial    string    `json:"serial"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Key       string    `json:"key"`
	CA        bool      `json:"ca"`
	Temporary bool      `json:"temporary,omitempty"`
}

func newCertInspect(streams *IO) *cobra.Command {
	var (
		format, server string
		timeout        time.Duration
	)
	cmd := &cobra.Command{
		Use: "inspect FILE | HOST:PORT", Short: "Show the certificates in a file or of a server",
		Long: `Show the certificate chain in a PEM file, or the chain that a server presents.

It exits with 1 if the first certificate has expired or is not valid yet, if the
chain is broken, or if the key in the file does not belong to the certificate.`,
		Example: `  drover cert inspect chain.pem
  drover cert inspect cloud.example.org:443`,
		Args: exactArgs(1, "FILE or HOST:PORT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			var chain []*x509.Certificate
			var problems []string
			text, err := os.ReadFile(args[0])
			switch {
			case err == nil:
				if chain, err = pki.ParseChain(string(text)); err != nil {
					return fmt.Errorf("%s: %w", args[0], err)
				}
				if key, kerr := pki.ParseKey(string(text)); kerr == nil && !pki.Fits(chain[0], key) {
					problems = append(problems, "the key in the file does not belong to the certificate")
				}
			case !errors.Is(err, fs.ErrNotExist) || !strings.Contains(args[0], ":"):
				return usagef("%s", err)
			default:
				if chain, err = acme.Dial(cmd.Context(), args[0], server, timeout); err != nil {
					if errors.Is(err, context.Canceled) {
						return err
					}
					return fmt.Errorf("%s", err) //nolint:errorlint // a place out of reach is not the cluster
				}
			}
			now := time.Now()
			if now.After(chain[0].NotAfter) {
				problems = append(problems, "it has expired")
			}
			if now.Before(chain[0].NotBefore) {
				problems = append(problems, "it is not valid yet")
			}
			for i := range chain[1:] {
				if err := chain[i].CheckSignatureFrom(chain[i+1]); err != nil {
					problems = append(problems, fmt.Sprintf("the chain is broken: %q is not signed by %q", chain[i].Subject, chain[i+1].Subject))
				}
			}
			if err := printChain(streams, format, chain, problems); err != nil {
				return err
			}
			if len(problems) > 0 {
				return errSilent{exitError}
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	cmd.Flags().StringVar(&server, "server-name", "", "server name (SNI) to send to HOST:PORT (default HOST)")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Second, "how long HOST:PORT may take to answer")
	return cmd
}

func printChain(streams *IO, format string, chain []*x509.Certificate, problems []string) error {
	var list []inspected
	for _, c := range chain {
		list = append(list, inspected{
			Names: acme.Names(c), Subject: c.Subject.String(), Issuer: c.Issuer.String(), Serial: acme.Serial(c), NotBefore: c.NotBefore.UTC(),
			NotAfter: c.NotAfter.UTC(), Key: c.PublicKeyAlgorithm.String(), CA: c.IsCA, Temporary: acme.IsTemporary(c),
		})
	}
	if format == "json" {
		return json.NewEncoder(streams.Out).Encode(map[string]any{"chain": list, "problems": problems})
	}
	w := tabwriter.NewWriter(streams.Out, 0, 0, 2, ' ', 0)
	now := time.Now()
	for n, c := range list {
		if n > 0 {
			fmt.Fprintln(w)
		}
		if len(c.Names) > 0 {
			fmt.Fprintf(w, "names\t%s\n", strings.Join(c.Names, ", "))
		}
		fmt.Fprintf(w, "subject\t%s\nissuer\t%s\nserial\t%s\nvalid\t%s – %s (ends %s)\nkey\t%s\n", dash(c.Subject), c.Issuer, c.Serial,
			c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339), until(c.NotAfter, now), c.Key)
		if c.Temporary {
			fmt.Fprintf(w, "note\tthe self-signed placeholder of drover\n")
		}
	}
	for _, p := range problems {
		fmt.Fprintf(w, "problem\t%s\n", p)
	}
	return w.Flush()
}
