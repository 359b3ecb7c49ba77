// Command release builds the files of a release: static binaries, archives, Debian
// packages, bills of materials and their checksums. The build is reproducible: the same
// commit and the same Go give the same bytes, on any machine and in any directory.
//
//	go run ./tools/release -out dist        everything
//	go run ./tools/release -docs docs/reference/cli   only the reference of the commands
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// platforms lists the GOOS/GOARCH pairs of a release.
var platforms = [...]string{"linux/amd64", "linux/arm64", "darwin/amd64", "darwin/arm64"}

func main() {
	var o options
	var only, docs string
	flag.StringVar(&o.out, "out", "dist", "directory to write to; what is in it goes")
	flag.StringVar(&o.nfpm, "nfpm", "bin/nfpm", "program that makes the Debian packages")
	flag.StringVar(&only, "platforms", strings.Join(platforms[:], ","), "GOOS/GOARCH, separated by commas")
	flag.StringVar(&docs, "docs", "", "only write the reference of the commands into this directory")
	flag.Parse()
	o.platforms = strings.Split(only, ",")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := func() error {
		if docs != "" {
			return writeMarkdown(docs)
		}
		return release(ctx, o)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

type options struct {
	out       string
	nfpm      string
	platforms []string
}

// source is the commit that is released.
type source struct {
	version string // semver without a leading v
	commit  string
	time    time.Time // of the commit: the time of everything in a release
}

// release builds everything into an empty o.out, from the repository of the
// working directory.
func release(ctx context.Context, o options) error {
	src, err := describe(ctx)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(o.out); err != nil {
		return err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil { //nolint:gosec // a release is public
		return err
	}
	// The Containerfile copies this beside the binary: a /tmp for all users.
	tmp := filepath.Join(o.out, "rootfs", "tmp")
	if err := os.MkdirAll(tmp, 0o755); err != nil { //nolint:gosec // as above
		return err
	}
	if err := os.Chmod(tmp, 0o777|os.ModeSticky); err != nil { //nolint:gosec // that is what /tmp is
		return err
	}
	pages, err := manPages(src)
	if err != nil {
		return err
	}
	shells, err := completions()
	if err != nil {
		return err
	}
	for _, p := range o.platforms {
		goos, goarch, ok := strings.Cut(p, "/")
		if !ok {
			return fmt.Errorf("platform %q is not GOOS/GOARCH", p)
		}
		if err := platform(ctx, o, src, goos, goarch, slices.Concat(pages, shells)); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return checksums(o.out)
}

// platform builds binary, bill of materials, archive and package of one.
func platform(ctx context.Context, o options, src source, goos, goarch string, docs []file) error {
	dir := filepath.Join(o.out, goos+"_"+goarch)
	binary := filepath.Join(dir, "drover")
	if err := build(ctx, src, goos, goarch, binary); err != nil {
		return err
	}
	program, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	linked, err := linkedModules(ctx, goos, goarch)
	if err != nil {
		return err
	}
	notices, err := thirdParty(ctx, linked)
	if err != nil {
		return err
	}
	bom, err := sbom(binary, program, src, linked)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("drover_%s_%s_%s", src.version, goos, goarch)
	if err := os.WriteFile(filepath.Join(o.out, name+".cdx.json"), bom, 0o644); err != nil { //nolint:gosec // public
		return err
	}

	files := slices.Concat(docs, []file{{"drover", 0o755, program}, {"THIRD-PARTY-LICENSES", 0o644, notices}})
	for _, f := range []string{"LICENSE", "README.md"} {
		text, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		files = append(files, file{f, 0o644, text})
	}
	archive, err := tarball(name, files, src.time)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(o.out, name+".tar.gz"), archive, 0o644); err != nil { //nolint:gosec // public
		return err
	}
	if goos != "linux" {
		return nil
	}
	return debian(ctx, o, src, goarch, files)
}

// describe returns the commit that is checked out. Without a tag its version is that of
// the code, followed by the commit.
func describe(ctx context.Context) (source, error) {
	git := func(args ...string) (string, error) {
		var stderr bytes.Buffer
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
		}
		return strings.TrimSpace(string(out)), nil
	}
	commit, err := git("rev-parse", "HEAD")
	if err != nil {
		return source{}, err
	}
	seconds, err := git("log", "-1", "--format=%ct")
	if err != nil {
		return source{}, err
	}
	unix, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return source{}, fmt.Errorf("time of the commit: %w", err)
	}
	described, err := git("describe", "--tags", "--always", "--dirty", "--abbrev=12")
	return source{version(described), commit, time.Unix(unix, 0).UTC()}, err
}

// version returns the semver for the output of git describe: a release (v1.2.3),
// something after one (v1.2.3-4-gabc), or a commit before the first.
func version(described string) string {
	if !strings.HasPrefix(described, "v") {
		return "0.1.0+" + strings.ReplaceAll(described, "-", ".")
	}
	v := strings.TrimPrefix(described, "v")
	if m := regexp.MustCompile(`^(.*)-(\d+-g[0-9a-f]+(?:-dirty)?)$`).FindStringSubmatch(v); m != nil {
		return m[1] + "+" + strings.ReplaceAll(m[2], "-", ".")
	}
	if clean, ok := strings.CutSuffix(v, "-dirty"); ok {
		return clean + "+dirty"
	}
	return v
}

// build compiles drover without cgo, paths, and anything else that differs
// from one machine to the next.
func build(ctx context.Context, src source, goos, goarch, to string) error {
	const pkg = "github.com/drover-nomad/drover/cmd/cli"
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly",
		"-ldflags", "-s -w -buildid= -X "+pkg+".Version="+src.version+" -X "+pkg+".Commit="+src.commit,
		"-o", to, "./cmd/drover")
	cmd.Env = append(buildEnv(goos, goarch), "GOFLAGS=", "GOEXPERIMENT=", "GOAMD64=v1", "GOARM64=v8.0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// buildEnv is the environment in which go builds and lists for a platform.
func buildEnv(goos, goarch string) []string {
	return append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOOS="+goos, "GOARCH="+goarch)
}

// checksums writes SHA256SUMS over the files of dir, as sha256sum -c reads it.
func checksums(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var sums bytes.Buffer
	for _, e := range entries { // sorted by name
		if !e.Type().IsRegular() {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(text), e.Name())
	}
	if sums.Len() == 0 {
		return errors.New("nothing was built")
	}
	return os.WriteFile(filepath.Join(dir, "SHA256SUMS"), sums.Bytes(), 0o644) //nolint:gosec // public
}
