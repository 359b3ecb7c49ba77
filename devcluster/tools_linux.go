package devcluster

import (
	"bufio"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/drover-nomad/drover/devcluster/pins"
)

// Path returns the path of the named program, which it builds if need be.
// Calls for the same program, of one process or several, build it only once.
func (t Tools) Path(ctx context.Context, name string) (string, error) {
	if path := t.Programs[name]; path != "" {
		return path, nil
	}
	tl, err := lookupTool(name)
	if err != nil {
		return "", err
	}
	other := "with flags of its own"
	if t.BuildFlags == nil {
		var path string
		if path, other = tl.onPath(ctx); path != "" {
			return path, nil
		}
	}
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("looking for %s: %w", name, err)
	}
	return t.build(ctx, tl, other)
}

func (t Tools) event(e Event) {
	if t.Events != nil {
		t.Events(e)
	}
}

// onPath returns the program on PATH if it fits, and otherwise what is there
// instead, for a person.
func (t tool) onPath(ctx context.Context) (path, other string) {
	path, err := exec.LookPath(t.name)
	if err != nil {
		return "", "not on PATH"
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", "not on PATH"
	}
	version := ""
	if t.ask {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, path, "version")
		cmd.Env = agentEnv() // CONSUL_* and NOMAD_* can change what it does
		cmd.WaitDelay = time.Second
		out, _ := cmd.Output()
		version, _, _ = strings.Cut(string(out), "\n")
	} else {
		version = t.builtVersion(path)
	}
	if t.fits.MatchString(version) {
		return path, ""
	}
	if version == "" {
		version = "of an unknown version"
	}
	return "", fmt.Sprintf("%s is %s", path, version)
}

var ocisLDFlag = regexp.MustCompile(`version\.(?:String|Tag)=(v?[0-9][^\s'"]*)`)

// builtVersion is the version of the tool's module in the build information
// of a binary, wherever it stands there.
func (t tool) builtVersion(path string) string {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return ""
	}
	if info.Main.Path == t.path && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	for _, d := range info.Deps {
		if d.Path == t.path {
			return d.Version
		}
	}
	if info.Main.Path == t.path { // built in a checkout: its Makefile sets the version
		for _, s := range info.Settings {
			if m := ocisLDFlag.FindStringSubmatch(s.Value); s.Key == "-ldflags" && m != nil {
				return m[1]
			}
		}
	}
	return ""
}

// module is the directory of one module of the pins.
func (t Tools) module(name string) (fs.FS, error) {
	if t.Pins != nil {
		return fs.Sub(t.Pins, name)
	}
	return fs.Sub(pins.FS, name)
}

func (t Tools) cacheDir() (string, error) {
	if t.CacheDir != "" {
		return filepath.Abs(t.CacheDir)
	}
	dir, err := os.UserCacheDir() // $XDG_CACHE_HOME or ~/.cache
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "drover", "tools"), nil
}

// build returns the tool from the cache, after building it if it is not there.
func (t Tools) build(ctx context.Context, tl tool, other string) (string, error) {
	cannot := func(err error) error {
		return fmt.Errorf("%s %s is needed (%s) and cannot be built: %w", tl.name, tl.wants, other, err)
	}
	module, err := t.module(tl.module)
	if err != nil {
		return "", cannot(err)
	}
	cache, err := t.cacheDir()
	if err != nil {
		return "", cannot(err)
	}
	key, version, err := tl.key(module, t.flags())
	if err != nil {
		return "", cannot(err)
	}
	dir := filepath.Join(cache, tl.name+"-"+key)
	target := filepath.Join(dir, tl.name)
	if isExecutable(target) {
		return target, nil
	}
	// Tasks that run as another user get a copy; the directory is for all.
	if err := os.MkdirAll(dir, 0o755); err != nil { // #nosec G301 -- programs, no secrets
		return "", cannot(noSpace(err, cache))
	}
	lock, err := lockFile(ctx, filepath.Join(dir, "lock"), func() {
		t.event(Event{Subject: tl.name, Text: "waiting for another drover that builds it"})
	})
	if err != nil {
		return "", cannot(noSpace(err, cache))
	}
	defer func() { _ = lock.Close() }()
	if isExecutable(target) {
		return target, nil
	}
	if _, err := exec.LookPath("go"); err != nil {
		return "", fmt.Errorf("%s %s is needed (%s): install it, or Go to build it with", tl.name, tl.wants, other)
	}
	start := time.Now()
	t.event(Event{Subject: tl.name, Text: fmt.Sprintf("building %s (%s); this is done once", version, other)})
	tmp := filepath.Join(dir, "."+tl.name+".new") // ours: the lock is held
	defer func() { _ = os.Remove(tmp) }()
	src, err := os.MkdirTemp(dir, ".src.*")
	if err == nil {
		defer func() { _ = os.RemoveAll(src) }()
		err = extract(module, src)
	}
	if err == nil {
		err = t.goBuild(ctx, tl, src, tmp)
	}
	if err != nil {
		if ctx.Err() != nil {
			return "", fmt.Errorf("building %s: %w", tl.name, ctx.Err())
		}
		return "", fmt.Errorf("building %s: %w", tl.name, noSpace(err, cache))
	}
	if err := errors.Join(os.Chmod(tmp, 0o755), os.Rename(tmp, target)); err != nil { // #nosec G302 -- a program for all
		return "", fmt.Errorf("building %s: %w", tl.name, noSpace(err, cache))
	}
	t.event(Event{Subject: tl.name, Text: fmt.Sprintf("built in %s", time.Since(start).Round(time.Second))})
	return target, nil
}

func isExecutable(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular() && fi.Mode()&0o100 != 0
}

// pinSuffix ends the name of each file of a pinned module: see [pins.FS].
const pinSuffix = ".txt"

// extract writes a pinned module to dir, as go build wants it.
func extract(module fs.FS, dir string) error {
	return fs.WalkDir(module, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(module, path)
		if err != nil {
			return err
		}
		target := filepath.Join(dir, filepath.FromSlash(strings.TrimSuffix(path, pinSuffix)))
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil { // #nosec G301 -- source code, no secrets
			return err
		}
		return os.WriteFile(target, text, 0o644) // #nosec G306 -- as above
	})
}

// key identifies a build by everything that its result depends on. version is
// the pinned version, for a person.
func (t tool) key(module fs.FS, flags []string) (key, version string, err error) {
	h := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := fs.ReadFile(module, name+pinSuffix)
		if err != nil {
			return "", "", err
		}
		fmt.Fprintf(h, "%s %d\n%s", name, len(b), b)
		if name == "go.mod" {
			version = pinned(string(b), t.main)
		}
	}
	fmt.Fprintf(h, "%s %s %v %s/%s", t.main, flags, t.cgo, runtime.GOOS, runtime.GOARCH)
	return hex.EncodeToString(h.Sum(nil))[:16], version, nil
}

// pinned is the version of the module in go.mod that has the package.
func pinned(gomod, pkg string) string {
	for line := range strings.Lines(gomod) {
		f := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(f) >= 2 && (f[0] == pkg || strings.HasPrefix(pkg, f[0]+"/")) {
			return f[1]
		}
	}
	return ""
}

// noSpace puts a full disk in words; build output says it in many ways.
func noSpace(err error, dir string) error {
	if errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), "no space left on device") {
		return fmt.Errorf("the disk is full: make room in %s and in Go's cache, or set XDG_CACHE_HOME to another place (%w)", dir, err)
	}
	return err
}

// packageLine is what `go build -v` prints for each package that it compiles.
var packageLine = regexp.MustCompile(`^[\w.\-~/]+$`)

func (t Tools) goBuild(ctx context.Context, tl tool, src, out string) error {
	args := append([]string{"build", "-v", "-mod=readonly"}, t.flags()...)
	cmd := exec.CommandContext(ctx, "go", append(args, "-o", out, tl.main)...)
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "PWD="+src)
	if !tl.cgo {
		cmd.Env = append(cmd.Env, "CGO_ENABLED=0")
	}
	// A group of its own, so that a cancelled build ends with its compilers.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	pr, pw := io.Pipe()
	cmd.Stdout, cmd.Stderr = pw, pw

	type result struct{ last []string }
	done := make(chan result, 1)
	go func() {
		var (
			r                   result
			packages, downloads int
			shown               time.Time
		)
		sc := bufio.NewScanner(pr)
		sc.Buffer(nil, 1<<20)
		for sc.Scan() {
			line := strings.TrimRight(sc.Text(), " \r")
			switch {
			case strings.HasPrefix(line, "go: downloading "):
				downloads++
			case packageLine.MatchString(line):
				packages++
			case line != "":
				if r.last = append(r.last, line); len(r.last) > 8 {
					r.last = r.last[1:]
				}
			}
			if time.Since(shown) >= time.Second {
				shown = time.Now()
				text := fmt.Sprintf("%d packages compiled", packages)
				if packages == 0 {
					text = fmt.Sprintf("%d modules downloaded", downloads)
				}
				t.event(Event{Subject: tl.name, Text: text, Transient: true})
			}
		}
		_, _ = io.Copy(io.Discard, pr) // a line too long must not block the build
		done <- r
	}()
	err := cmd.Run()
	_ = pw.Close()
	r := <-done
	if err != nil && len(r.last) > 0 {
		return fmt.Errorf("%w; the last lines of the build are:\n  %s", err, strings.Join(r.last, "\n  "))
	}
	return err
}

// place puts the program at path into dir under its own name, in one step and
// without touching a copy that runs. A hard link saves the space, but only if
// every user may run it.
func place(path, dir, name string) error {
	src, err := os.Stat(path)
	if err != nil {
		return err
	}
	target := filepath.Join(dir, name)
	if have, err := os.Stat(target); err == nil && os.SameFile(src, have) {
		return nil
	}
	tmp, err := os.CreateTemp(dir, "."+name+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	defer func() { _ = tmp.Close() }()
	if src.Mode()&0o005 == 0o005 {
		link := tmp.Name() + ".link"
		if os.Link(path, link) == nil {
			if err := os.Rename(link, target); err != nil {
				_ = os.Remove(link)
				return err
			}
			return nil
		}
	}
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	_, err = io.Copy(tmp, in)
	return errors.Join(err, tmp.Chmod(0o755), tmp.Close(), os.Rename(tmp.Name(), target))
}
