package acme

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Directory keeps each object as a JSON file below dir, which only its owner can read.
// The locks work on one machine, and end with the process that holds them.
func Directory(dir string) Backend { return &dirBackend{dir: dir} }

type dirBackend struct{ dir string }

const dirSuffix = ".json"

func (b *dirBackend) Name() string { return "directory " + b.dir }

func (b *dirBackend) file(path string) string {
	return filepath.Join(b.dir, filepath.FromSlash(path)+dirSuffix)
}

func (b *dirBackend) Get(_ context.Context, path string) (Items, string, error) {
	text, err := os.ReadFile(b.file(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", ErrNotFound
	}
	if err != nil {
		return nil, "", storeError(b, err, "reading %s", path)
	}
	var items Items
	if json.Unmarshal(text, &items) != nil { // the parser's words may quote a key
		return nil, "", storeError(b, errors.New("the file is not JSON"), "reading %s", path)
	}
	return items, versionOf(text), nil
}

func versionOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

// checked runs f while no other process writes, after comparing versions.
func (b *dirBackend) checked(ctx context.Context, path, version string, f func(file string) error) error {
	file := b.file(path)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	unlock, err := flock(filepath.Join(b.dir, ".write.lock"), true)
	if err != nil {
		return err
	}
	defer unlock()
	_, now, err := b.Get(ctx, path)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if now != version {
		return ErrConflict
	}
	return f(file)
}

func (b *dirBackend) Put(ctx context.Context, path string, items Items, version string) (string, error) {
	text, err := json.Marshal(map[string]string(items))
	if err != nil {
		return "", storeError(b, err, "encoding %s", path)
	}
	err = b.checked(ctx, path, version, func(file string) error { return writeFile(file, text) })
	return versionOf(text), storeError(b, err, "writing %s", path)
}

// writeFile writes the whole file or nothing, even if the power fails.
func writeFile(file string, text []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), ".tmp-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = tmp.Write(text)
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	return dir.Sync()
}

func (b *dirBackend) Delete(ctx context.Context, path, version string) error {
	err := b.checked(ctx, path, version, os.Remove)
	if errors.Is(err, ErrConflict) {
		if _, _, gone := b.Get(ctx, path); errors.Is(gone, ErrNotFound) {
			return nil
		}
	}
	return storeError(b, err, "deleting %s", path)
}

func (b *dirBackend) List(_ context.Context, folder string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(b.dir, filepath.FromSlash(folder)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, storeError(b, err, "listing %s", folder)
	}
	var paths []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), dirSuffix); ok && !strings.HasPrefix(name, ".") {
			paths = append(paths, folder+"/"+name)
		}
	}
	return paths, nil
}

func (b *dirBackend) Lock(_ context.Context, path string, _ time.Duration) (Lease, error) {
	file := filepath.Join(b.dir, filepath.FromSlash(path)+".lock")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, storeError(b, err, "locking %s", path)
	}
	unlock, err := flock(file, false)
	if err != nil {
		return nil, storeError(b, err, "locking %s", path)
	}
	return &dirLease{unlock: unlock, lost: make(chan struct{})}, nil
}

type dirLease struct {
	once   sync.Once
	unlock func()
	lost   chan struct{}
}

func (l *dirLease) Lost() <-chan struct{} { return l.lost }

func (l *dirLease) Release(context.Context) error {
	l.once.Do(func() { l.unlock(); close(l.lost) })
	return nil
}
