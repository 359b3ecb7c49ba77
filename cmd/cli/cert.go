package cli

import (
	"context"
	"errors"
	"os"
	"strings"

	capi "github.com/hashicorp/consul/api"
	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/deploy"
)

func newCert(streams *IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cert",
		Short: "Look at, issue and renew certificates",
		Long: `Look at, issue and renew certificates.

A certificate is one object in a store: Nomad Variables below drover/certs
unless --store names another. Renewals are the controller's; these commands
are for the first issuance, for looking, and for the day it goes wrong.`,
		Example: `  drover cert list
  drover cert issue ocis -e prod --dry-run`,
	}
	cmd.AddCommand(newCertList(streams), newCertStatus(streams), newCertPrepare(streams), newCertIssue(streams), newCertRenew(streams), newCertRevoke(streams),
		newCertInspect(streams), newCertVerify(streams), newCertExport(streams), newCertAccount(streams))
	return cmd
}

// certStore are the flags that say where certificates are.
type certStore struct {
	store    string
	sealFile string
}

// sealEnv has the key for a store in Consul when --seal-key-file does not.
const sealEnv = "DROVER_SEAL_KEY"

func (f *certStore) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.store, "store", "nomad", "where certificates are: nomad, consul or dir:PATH")
	cmd.Flags().StringVar(&f.sealFile, "seal-key-file", "", "file with the key that seals certificates in Consul (default $"+sealEnv+")")
}

func (f *certStore) open(ctx context.Context) (acme.Backend, error) {
	dir, isDir := strings.CutPrefix(f.store, "dir:")
	switch {
	case isDir && dir != "":
		return acme.Directory(dir), nil
	case f.store == "nomad":
		clients, err := connect(ctx, false)
		if err != nil {
			return nil, err
		}
		return acme.NomadVariables(clients.Nomad), nil
	case f.store == "consul":
		text := []byte(os.Getenv(sealEnv))
		if f.sealFile != "" {
			var err error
			if text, err = os.ReadFile(f.sealFile); err != nil {
				return nil, usagef("--seal-key-file: %s", err)
			}
		}
		key, err := acme.NewSealKey(text)
		if err != nil {
			return nil, usagef("--store consul: %s", err)
		}
		client, err := capi.NewClient(capi.DefaultConfig())
		if err != nil {
			return nil, err
		}
		return acme.ConsulKV(client, key), nil
	}
	return nil, usagef("--store cannot be %q; it is one of nomad, consul, dir:PATH", f.store)
}

func (f *certStore) get(ctx context.Context, name string) (*acme.Store, *acme.Object, error) {
	b, err := f.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	s := acme.NewStore(b)
	o, err := s.Get(ctx, name)
	if errors.Is(err, acme.ErrNotFound) {
		return s, nil, usagef("there is no certificate %q; `drover cert list` shows those that there are", name)
	}
	return s, o, deploy.CertError(err)
}
