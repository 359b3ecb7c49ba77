package acme_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/acme/acmetest"
	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
)

func TestMain(m *testing.M) {
	// These tests wait for CAs and locks; they hardly compute.
	_ = flag.Set("test.parallel", "12")
	devtest.Main(m)
}

// cluster is a real Nomad and Consul.
func cluster(t *testing.T) (*api.Client, *capi.Client) {
	t.Helper()
	c := devtest.Cluster(t, devcluster.Options{})
	nc := api.DefaultConfig()
	nc.Address = c.NomadAddr()
	nomad, err := api.NewClient(nc)
	if err != nil {
		t.Fatal(err)
	}
	cc := capi.DefaultConfig()
	cc.Address = c.ConsulAddr()
	consul, err := capi.NewClient(cc)
	if err != nil {
		t.Fatal(err)
	}
	return nomad, consul
}

// TestStores puts every kind of store to the same tests.
func TestStores(t *testing.T) {
	t.Parallel()
	nomad, consul := cluster(t)
	key, err := acme.NewSealKey([]byte(rand.Text() + rand.Text())[:32])
	if err != nil {
		t.Fatal(err)
	}
	dir := acme.Directory(t.TempDir())
	// Everything at once: the tests wait for locks to end.
	t.Run("resealed", func(t *testing.T) { resealed(t, consul) })
	t.Run("all", func(t *testing.T) {
		for name, b := range map[string]acme.Backend{
			"nomad": acme.NomadVariables(nomad), "consul": acme.ConsulKV(consul, key), "directory": dir, "dry": acme.DryRun(dir),
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				storeTest(t, b)
			})
		}
		t.Run("issue", func(t *testing.T) {
			t.Parallel()
			raceInNomad(t, nomad)
		})
		t.Run("sealed", func(t *testing.T) {
			t.Parallel()
			sealed(t, consul, key)
			replayed(t, consul, key)
		})
		t.Run("lock of the dead", func(t *testing.T) {
			t.Parallel()
			deadHolder(t, nomad)
		})
	})
}

func storeTest(t *testing.T, b acme.Backend) {
	ctx := t.Context()
	path := acme.Path("*.example.com")
	if strings.ContainsAny(path, "*.") {
		t.Errorf("path %q", path)
	}
	if _, _, err := b.Get(ctx, path); !errors.Is(err, acme.ErrNotFound) {
		t.Errorf("nothing: %v", err)
	}
	one := acme.Items{"a": "1", "bundle": strings.Repeat("x", 40_000)}
	v1, err := b.Put(ctx, path, one, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(ctx, path, acme.Items{"a": "2"}, ""); !errors.Is(err, acme.ErrConflict) {
		t.Errorf("made twice: %v", err)
	}
	got, v, err := b.Get(ctx, path)
	if err != nil || !maps.Equal(got, one) || v != v1 {
		t.Errorf("%d items, version %s instead of %s, %v", len(got), v, v1, err)
	}
	// Ten writers, one wins.
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for i := range 10 {
		wg.Go(func() {
			_, err := b.Put(ctx, path, acme.Items{"a": fmt.Sprint("writer ", i)}, v1)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won++
			case !errors.Is(err, acme.ErrConflict):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d of ten writers won", won)
	}
	list, err := b.List(ctx, acme.CertFolder)
	if err != nil || !slices.Contains(list, path) {
		t.Errorf("list %v, %v", list, err)
	}
	if err := b.Delete(ctx, path, v1); err == nil {
		if _, _, err := b.Get(ctx, path); err != nil && !strings.Contains(b.Name(), "directory") {
			t.Error("an old version was deleted")
		}
	}
	if _, v, err = b.Get(ctx, path); err == nil {
		if err := b.Delete(ctx, path, v); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := b.Get(ctx, path); !errors.Is(err, acme.ErrNotFound) {
		t.Errorf("deleted: %v", err)
	}

	lock := "drover/acme/locks/test"
	l, err := b.Lock(ctx, lock, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Lock(ctx, lock, 10*time.Second); !errors.Is(err, acme.ErrLocked) {
		t.Errorf("locked twice: %v", err)
	}
	if err := l.Release(ctx); err != nil {
		t.Error(err)
	}
	again, err := b.Lock(ctx, lock, 10*time.Second)
	if err != nil {
		t.Fatalf("after a release: %v", err)
	}
	// Held longer than its time, because it is renewed.
	if b.Name() == "Nomad Variables" || b.Name() == "Consul KV" {
		select {
		case <-again.Lost():
			t.Error("lost while it was renewed")
		case <-time.After(13 * time.Second):
		}
	}
	if err := again.Release(ctx); err != nil {
		t.Error(err)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := b.Get(canceled, path); b.Name() == "Nomad Variables" && !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// deadHolder: who dies without a word keeps others out no longer than
// 2 × TTL + a second.
func deadHolder(t *testing.T, nomad *api.Client) {
	path := "drover/acme/locks/dead"
	v := &api.Variable{Path: path, Lock: &api.VariableLock{TTL: "10s", LockDelay: "1s"}}
	if _, _, err := nomad.Variables().AcquireLock(v, nil); err != nil {
		t.Fatal(err)
	}
	b := acme.NomadVariables(nomad)
	start := time.Now()
	for {
		l, err := b.Lock(t.Context(), path, 10*time.Second)
		if err == nil {
			t.Logf("taken over after %s", time.Since(start).Truncate(time.Millisecond))
			if err := l.Release(t.Context()); err != nil {
				t.Error(err)
			}
			return
		}
		if !errors.Is(err, acme.ErrLocked) || time.Since(start) > 25*time.Second {
			t.Fatalf("after %s: %v", time.Since(start), err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// sealed: what is in Consul tells nothing, and cannot be exchanged.
func sealed(t *testing.T, consul *capi.Client, key acme.SealKey) {
	b := acme.ConsulKV(consul, key)
	for _, p := range []string{"drover/sealed/a", "drover/sealed/b"} {
		if _, err := b.Put(t.Context(), p, acme.Items{"key": "very secret " + p}, ""); err != nil {
			t.Fatal(err)
		}
	}
	pair, _, err := consul.KV().Get("drover/sealed/a", nil)
	if err != nil || strings.Contains(string(pair.Value), "secret") || strings.Contains(string(pair.Value), "key") {
		t.Errorf("in Consul: %q, %v", pair.Value, err)
	}
	pair.Key = "drover/sealed/b"
	if _, err := consul.KV().Put(pair, nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Get(t.Context(), "drover/sealed/b"); err == nil || !strings.Contains(err.Error(), "changed since") {
		t.Errorf("exchanged: %v", err)
	}
	other, err := acme.NewSealKey([]byte(rand.Text() + rand.Text())[:32])
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := acme.ConsulKV(consul, other).Get(t.Context(), "drover/sealed/a"); err == nil {
		t.Error("opened with a different key")
	}
	if _, err := acme.NewSealKey([]byte("short")); err == nil {
		t.Error("a short key")
	}
}

// replayed puts an old object back, as a writer of Consul can.
func replayed(t *testing.T, consul *capi.Client, key acme.SealKey) {
	const path = "drover/sealed/replayed"
	b := acme.ConsulKV(consul, key)
	version, err := b.Put(t.Context(), path, acme.Items{"key": "old"}, "")
	if err != nil {
		t.Fatal(err)
	}
	old, _, err := consul.KV().Get(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(t.Context(), path, acme.Items{"key": "new"}, version); err != nil {
		t.Fatal(err)
	}
	if items, _, err := b.Get(t.Context(), path); err != nil || len(items) != 1 || items["key"] != "new" {
		t.Fatalf("got %v, %v, want the new object and no other item", items, err)
	}
	if _, err := consul.KV().Put(old, nil); err != nil {
		t.Fatal(err)
	}
	if items, _, err := b.Get(t.Context(), path); err == nil || !strings.Contains(err.Error(), "an old object was written back") {
		t.Errorf("got %v, %v, want the old object refused", items, err)
	}
	// Another process has seen neither, and writes a newer one.
	other := acme.ConsulKV(consul, key)
	_, version, err = other.Get(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Put(t.Context(), path, acme.Items{"key": "newer"}, version); err != nil {
		t.Fatal(err)
	}
	if items, _, err := b.Get(t.Context(), path); err != nil || items["key"] != "newer" {
		t.Errorf("got %v, %v, want the newer object", items, err)
	}
}

// resealed: every object is encrypted with a new key, and the old one opens none.
func resealed(t *testing.T, consul *capi.Client) {
	line := func() string { return base64.StdEncoding.EncodeToString([]byte(rand.Text() + rand.Text())[:32]) }
	first, second := line(), line()
	keys := map[string]acme.SealKey{}
	for _, text := range []string{first, second, second + "\n" + first} {
		k, err := acme.NewSealKey([]byte(text + "\n"))
		if err != nil {
			t.Fatal(err)
		}
		keys[text] = k
	}
	if _, err := acme.NewSealKey([]byte(first + "\nshort")); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("got %v, want an error that names line 2", err)
	}
	path := acme.Path("resealed")
	if _, err := acme.ConsulKV(consul, keys[first]).Put(t.Context(), path, acme.Items{"key": "kept"}, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = consul.KV().Delete(path, nil) })
	if n, err := acme.NewStore(acme.ConsulKV(consul, keys[second+"\n"+first])).Reseal(t.Context()); err != nil || n < 1 {
		t.Fatalf("got %d, %v, want 1 object or more", n, err)
	}
	if items, _, err := acme.ConsulKV(consul, keys[second]).Get(t.Context(), path); err != nil || items["key"] != "kept" {
		t.Errorf("with the new key: got %v, %v", items, err)
	}
	if _, _, err := acme.ConsulKV(consul, keys[first]).Get(t.Context(), path); err == nil {
		t.Error("the old key still opens it")
	}
}

// raceInNomad lets managers race over the variables and locks of a real Nomad.
func raceInNomad(t *testing.T, nomad *api.Client) {
	w := newWorldOn(t, acmetest.Options{}, acme.NomadVariables(nomad))
	if _, err := w.manager(t).Apply(t.Context(), acme.Spec{Name: "race.example.com", Names: []string{"race.example.com", "www.race.example.com"}}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	issued := 0
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for range 3 {
		m := w.manager(t)
		wg.Go(func() {
			for {
				r, err := m.Reconcile(ctx, "race.example.com")
				if r.Issued {
					mu.Lock()
					issued++
					mu.Unlock()
				}
				if err == nil {
					return
				}
				if !errors.Is(err, acme.ErrLocked) {
					t.Error(err)
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
	wg.Wait()
	if issued != 1 || w.count("ordered") != 1 {
		t.Errorf("%d issued, %d ordered\n%s", issued, w.count("ordered"), w.said())
	}
	v, _, err := nomad.Variables().Read("drover/certs/race~example~com", nil)
	if err != nil {
		t.Fatal(err)
	}
	if b := v.Items[acme.ItemBundle]; !strings.HasPrefix(b, "-----BEGIN CERTIFICATE-----") || !strings.HasSuffix(b, "-----END PRIVATE KEY-----\n") {
		t.Error("the bundle is not a chain and a key")
	}
}
