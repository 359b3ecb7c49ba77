package acme

import (
	"context"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"
)

// DryRun returns a backend that keeps certificates and locks in memory. The account is
// that of b, because the edge answers HTTP-01 for no other.
func DryRun(b Backend) Backend {
	return &dryBackend{Backend: b, objects: map[string]dryObject{}, locks: map[string]bool{}}
}

type dryBackend struct {
	Backend
	mu      sync.Mutex
	objects map[string]dryObject
	locks   map[string]bool
	n       int
}

type dryObject struct {
	items   Items
	version string
}

func dry(path string) bool { return strings.HasPrefix(path, CertFolder+"/") }

func (b *dryBackend) Get(ctx context.Context, path string) (Items, string, error) {
	if !dry(path) {
		return b.Backend.Get(ctx, path)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	o, ok := b.objects[path]
	if !ok {
		return nil, "", ErrNotFound
	}
	return maps.Clone(o.items), o.version, nil
}

func (b *dryBackend) Put(ctx context.Context, path string, items Items, version string) (string, error) {
	if !dry(path) {
		return b.Backend.Put(ctx, path, items, version)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.objects[path].version != version {
		return "", ErrConflict
	}
	b.n++
	b.objects[path] = dryObject{maps.Clone(items), strconv.Itoa(b.n)}
	return strconv.Itoa(b.n), nil
}

func (b *dryBackend) Delete(ctx context.Context, path, version string) error {
	if !dry(path) {
		return b.Backend.Delete(ctx, path, version)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.objects, path)
	return nil
}

func (b *dryBackend) List(ctx context.Context, folder string) ([]string, error) {
	if folder != CertFolder {
		return b.Backend.List(ctx, folder)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var paths []string
	for p := range b.objects {
		paths = append(paths, p)
	}
	return paths, nil
}

func (b *dryBackend) Lock(_ context.Context, path string, _ time.Duration) (Lease, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.locks[path] {
		return nil, ErrLocked
	}
	b.locks[path] = true
	return &dirLease{lost: make(chan struct{}), unlock: func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.locks, path)
	}}, nil
}
