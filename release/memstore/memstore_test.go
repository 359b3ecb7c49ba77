package memstore_test

import (
	"sync"
	"testing"

	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/release/memstore"
	"github.com/drover-nomad/drover/release/releasetest"
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
