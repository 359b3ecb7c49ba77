package record_test

import (
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/release/releasetest"
)

func TestReleases_Contract(t *testing.T) {
	t.Parallel()
	dev := devtest.Cluster(t, devcluster.Options{})
	cfg := api.DefaultConfig()
	cfg.Address = dev.NomadAddr()
	client, err := api.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	releasetest.TestStore(t, func(_ *testing.T, name string) release.Store {
		return release.InNomad(record.OpenReleases(client, name, "default"))
	})
}
