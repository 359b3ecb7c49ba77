package memstore_test

import (
	"slices"
	"sync"
	"testing"

	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/release/memstore"
	"github.com/drover-nomad/drover/release/releasetest"
	"github.com/drover-nomad/drover/stack"
)

func TestStore_Contract(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	stores := map[string]*memstore.Store{}
	releasetest.TestStore(t, func(_ *testing.T, name string) release.Store {
		mu.Lock()
		defer mu.Unlock()
		if stores[name] == nil {
			stores[name] = memstore.New(name, "default")
		}
		return stores[name]
	})
}

func TestSecrets_GenerateWithoutValues(t *testing.T) {
	t.Parallel()
	secrets := memstore.NewSecrets(nil)
	made, err := secrets.Generate(t.Context(), []*stack.Secret{{Name: "token"}})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(made.Secrets, []string{"token"}) {
		t.Errorf("got secrets %q, want token", made.Secrets)
	}
}
