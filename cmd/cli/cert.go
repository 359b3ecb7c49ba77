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

func newCert(streams *IO, f *factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cert",
		Short: "Show, issue and renew certificates",
		Long: `Show, issue and renew certificates.

A certificate is one object in a store. The default store is Nomad Variables
below drover/certs; --store selects another. The controller renews certificates.
Use these commands to issue the first certificate, to inspect certificates, and
to repair a failed renewal.`,
		Example: `  drover cert list
  drover cert issue ocis -e prod --dry-run`,
	}
	cmd.AddCommand(newCertList(streams, f), newCertStatus(streams, f), newCertPrepare(streams, f), newCertIssue(streams, f), newCertRenew(streams, f), newCertRevoke(streams, f), newCertReseal(streams, f),
		newCertInspect(streams), newCertVerify(streams, f), newCertExport(streams, f), newCertGrant(streams, f), newCertAccount(streams, f))
	return cmd
}

// certStore has the flags that select the store of certificates.
type certStore struct {
	clients  *factory
	store    string
	sealFile string
}

// sealEnv has the key for a store in Consul when --seal-key-file does not.
const sealEnv = "DROVER_SEAL_KEY"

func (f *certStore) register(cmd *cobra.Command, clients *factory) {
	f.clients = clients
	cmd.Flags().StringVar(&f.store, "store", "nomad", "store of certificates: nomad, consul or dir:PATH")
	cmd.Flags().StringVar(&f.sealFile, "seal-key-file", "", "file with the keys that seal certificates in Consul, one a line (default $"+sealEnv+")")
}

func (f *certStore) open(ctx context.Context) (acme.Backend, error) {
	dir, isDir := strings.CutPrefix(f.store, "dir:")
	switch {
	case isDir && dir != "":
		return acme.Directory(dir), nil
	case f.store == "nomad":
		clients, err := f.clients.connect(ctx, false)
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
		return s, nil, usagef("there is no certificate %q; `drover cert list` lists all", name)
	}
	return s, o, deploy.CertError(err)
}
