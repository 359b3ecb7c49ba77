//go:build linux

package devcluster_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
)

// pathWithout sets PATH to a directory with nothing but go (and what go
// needs), plus the given scripts.
func pathWithout(t *testing.T, scripts map[string]string) string {
	t.Helper()
	bin := t.TempDir()
	for _, name := range []string{"go", "gcc"} {
		if path, err := exec.LookPath(name); err == nil {
			if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, text := range scripts {
		devtest.Script(t, filepath.Join(bin, name), "#!/bin/sh\n"+text+"\n")
	}
	t.Setenv("PATH", bin+":/usr/bin:/bin")
	return bin
}

// TestBuild builds the smallest program from the pins in the binary, outside of
// any checkout, and once for three callers.
func TestBuild(t *testing.T) {
	devtest.NeedsServers(t)
	pathWithout(t, nil)
	t.Chdir(t.TempDir())
	cache := filepath.Join(t.TempDir(), "cache")
	var (
		mu     sync.Mutex
		builds int
		paths  = map[string]bool{}
		wg     sync.WaitGroup
	)
	for range 3 {
		wg.Go(func() {
			tools := devcluster.Tools{CacheDir: cache, Events: func(e devcluster.Event) {
				if strings.HasPrefix(e.Text, "building ") {
					mu.Lock()
					builds++
					mu.Unlock()
				}
			}}
			path, err := tools.Path(t.Context(), devcluster.Pebble)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			paths[path] = true
			mu.Unlock()
		})
	}
	wg.Wait()
	if builds != 1 || len(paths) != 1 {
		t.Fatalf("built %d times: %v", builds, paths)
	}
	for path := range paths {
		if out, err := exec.Command(path, "-h").CombinedOutput(); !strings.Contains(string(out), "-config") {
			t.Errorf("what was built does not run: %v\n%s", err, out)
		}
		// The build is on PATH now, and found there by its build information.
		t.Setenv("PATH", filepath.Dir(path))
		tools := devcluster.Tools{CacheDir: filepath.Join(cache, "unused"), Pins: fstest.MapFS{}}
		if got, err := tools.Path(t.Context(), devcluster.Pebble); err != nil || got != path {
			t.Errorf("on PATH: %s, %v", got, err)
		}
	}
}

func TestBuildCancelled(t *testing.T) {
	devtest.NeedsServers(t)
	pathWithout(t, nil)
	cache := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	// The first compiled package, or the first download, is in the middle.
	tools := devcluster.Tools{CacheDir: cache, Events: func(e devcluster.Event) {
		if strings.HasPrefix(e.Text, "building ") {
			cancel()
		}
	}}
	if _, err := tools.Path(ctx, devcluster.Pebble); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled build: %v", err)
	}
	onlyLocks(t, cache)
}

// onlyLocks fails for anything half-written.
func onlyLocks(t *testing.T, cache string) {
	t.Helper()
	err := filepath.WalkDir(cache, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != "lock" && !strings.Contains(path, "go-build") {
			t.Errorf("%s is left", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestBuildFails(t *testing.T) {
	pathWithout(t, nil)
	empty := fstest.MapFS{
		"pebble/go.mod.txt": {Data: []byte("module m\n\ngo 1.26\n")},
		"pebble/go.sum.txt": {},
	}
	cache := t.TempDir()
	_, err := devcluster.Tools{CacheDir: cache, Pins: empty}.Path(t.Context(), devcluster.Pebble)
	if err == nil || !strings.Contains(err.Error(), "building pebble: ") || !strings.Contains(err.Error(), "the last lines of the build are:\n  cannot find module providing package") {
		t.Errorf("a build that fails: %v", err)
	}
	onlyLocks(t, cache)
}

func TestBuildOnFullDisk(t *testing.T) {
	devtest.NeedsServers(t)
	needsRoot(t, "it mounts a small file system")
	pathWithout(t, nil)
	cache := t.TempDir()
	if err := syscall.Mount("tmpfs", cache, "tmpfs", 0, "size=6m"); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(cache, 0)
	// Go's own cache stays where it is: filling it takes half a minute.
	gocache, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOCACHE", strings.TrimSpace(string(gocache)))
	t.Setenv("XDG_CACHE_HOME", cache)
	_, err = devcluster.Tools{}.Path(t.Context(), devcluster.Pebble)
	if err == nil || !strings.Contains(err.Error(), "the disk is full: make room in "+cache) {
		t.Errorf("building on a full disk: %v", err)
	}
	onlyLocks(t, filepath.Join(cache, "drover"))
}

func TestWrongVersion(t *testing.T) {
	bin := pathWithout(t, map[string]string{
		"nomad":  "echo Nomad v1.9.7",
		"consul": "echo Consul v1.20.9; echo 'Build Date …'",
		"pebble": "echo never run; exit 1",
	})
	tools := devcluster.Tools{Pins: fstest.MapFS{}, CacheDir: t.TempDir()}
	_, err := tools.Path(t.Context(), devcluster.Nomad)
	if err == nil || !strings.Contains(err.Error(), "nomad 1.11 or 2.0 is needed ("+bin+"/nomad is Nomad v1.9.7)") {
		t.Errorf("an old Nomad: %v", err)
	}
	if path, err := tools.Path(t.Context(), devcluster.Consul); err != nil || path != filepath.Join(bin, "consul") {
		t.Errorf("a fitting Consul: %s, %v", path, err)
	}
	if _, err = tools.Path(t.Context(), devcluster.Pebble); err == nil || !strings.Contains(err.Error(), "of an unknown version") {
		t.Errorf("a script as pebble: %v", err)
	}
	if _, err = tools.Path(t.Context(), devcluster.OCIS); err == nil || !strings.Contains(err.Error(), "ocis 2.0.0 is needed (not on PATH)") {
		t.Errorf("no ocis: %v", err)
	}
	for _, version := range []string{"1.11.3", "2.0.0", "2.0.4"} {
		bin := pathWithout(t, map[string]string{"nomad": "echo Nomad v" + version})
		if path, err := tools.Path(t.Context(), devcluster.Nomad); err != nil || path != filepath.Join(bin, "nomad") {
			t.Errorf("Nomad %s on PATH: got %q, %v, want the one on PATH", version, path, err)
		}
	}
	var invalid *devcluster.InvalidError
	if _, err = tools.Path(t.Context(), "vault"); !errors.As(err, &invalid) {
		t.Errorf("an unknown tool: %v", err)
	}
}

// TestBuildFlags: what was built without them, or stands on PATH, is another
// program.
func TestBuildFlags(t *testing.T) {
	devtest.NeedsServers(t)
	bin := pathWithout(t, map[string]string{"consul": "echo Consul v1.20.9"})
	cache := t.TempDir()
	tools := devcluster.Tools{CacheDir: cache}
	plain, err := tools.Path(t.Context(), devcluster.Pebble)
	if err != nil {
		t.Fatal(err)
	}
	tools.BuildFlags = []string{"-tags=none"}
	flagged, err := tools.Path(t.Context(), devcluster.Pebble)
	if err != nil || flagged == plain {
		t.Errorf("with flags: %s, without: %s, %v", flagged, plain, err)
	}
	t.Setenv("PATH", "/nowhere") // without Go
	if path, err := tools.Path(t.Context(), devcluster.Consul); err == nil {
		t.Errorf("with flags, what is on PATH is taken: %s", path)
	}
	tools.Programs = map[string]string{devcluster.Consul: bin + "/consul"}
	if path, err := tools.Path(t.Context(), devcluster.Consul); err != nil || path != bin+"/consul" {
		t.Errorf("the program that was given: %s, %v", path, err)
	}
}
