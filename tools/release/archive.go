package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// file is one file of an archive; name has slashes and no root.
type file struct {
	name string
	mode fs.FileMode
	data []byte
}

// tarball is a .tar.gz of files under one directory: sorted, owned by root,
// all of one time.
func tarball(dir string, files []file, at time.Time) ([]byte, error) {
	files = slices.SortedFunc(slices.Values(files), func(a, b file) int { return cmp.Compare(a.name, b.name) })
	var out bytes.Buffer
	zip, err := gzip.NewWriterLevel(&out, gzip.BestCompression) // its header has no time, no name
	if err != nil {
		return nil, err
	}
	tw := tar.NewWriter(zip)
	for _, f := range files {
		h := &tar.Header{
			Typeflag: tar.TypeReg, Name: dir + "/" + f.name, Size: int64(len(f.data)), Mode: int64(f.mode),
			ModTime: at, Uname: "root", Gname: "root", Format: tar.FormatUSTAR,
		}
		if err := tw.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := tw.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	if err := zip.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// debian packs the files of the archive at the paths of Debian's policy.
func debian(ctx context.Context, o options, src source, goarch string, files []file) (err error) {
	tree, err := os.MkdirTemp("", "drover-deb-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tree) }()

	type content struct {
		Src      string `json:"src"`
		Dst      string `json:"dst"`
		FileInfo struct {
			Mode  fs.FileMode `json:"mode"`
			Owner string      `json:"owner"`
			Group string      `json:"group"`
		} `json:"file_info"`
	}
	var contents []content
	for _, f := range files {
		dst, data := debianPath(f.name), f.data
		if strings.HasPrefix(dst, "/usr/share/man/") { // policy 12.1
			var zipped bytes.Buffer
			w, err := gzip.NewWriterLevel(&zipped, gzip.BestCompression)
			if err != nil {
				return err
			}
			if _, err := w.Write(data); err != nil {
				return err
			}
			if err := w.Close(); err != nil {
				return err
			}
			data = zipped.Bytes()
		}
		c := content{Src: filepath.Join(tree, filepath.FromSlash(f.name)), Dst: dst}
		c.FileInfo.Mode, c.FileInfo.Owner, c.FileInfo.Group = f.mode, "root", "root"
		if err := os.MkdirAll(filepath.Dir(c.Src), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(c.Src, data, f.mode); err != nil {
			return err
		}
		contents = append(contents, c)
	}
	config, err := json.Marshal(map[string]any{ // JSON is YAML
		"name": "drover", "arch": goarch, "platform": "linux",
		"version": debianVersion(src.version), "version_schema": "none",
		"section": "admin", "priority": "optional",
		"maintainer":  "The drover authors <drover@drover-nomad.invalid>",
		"homepage":    "https://github.com/drover-nomad/drover",
		"license":     "Apache-2.0",
		"description": "deploys applications of many services on Nomad\nReleases, an edge with certificates, and DNS records for\nNomad Community Edition with Consul, in one static binary.",
		"recommends":  []string{"ca-certificates"},
		"mtime":       src.time.Format(time.RFC3339),
		"contents":    contents,
		"deb":         map[string]any{"compression": "gzip"},
	})
	if err != nil {
		return err
	}
	configFile := filepath.Join(tree, "nfpm.yaml")
	if err := os.WriteFile(configFile, config, 0o600); err != nil {
		return err
	}
	nfpm, err := exec.LookPath(o.nfpm)
	if err != nil {
		return fmt.Errorf("the Debian package needs nfpm ('make bin/nfpm' builds it): %w", err)
	}
	to := filepath.Join(o.out, fmt.Sprintf("drover_%s_%s.deb", src.version, goarch))
	cmd := exec.CommandContext(ctx, nfpm, "package", "--packager", "deb", "--config", configFile, "--target", to)
	cmd.Env = append(os.Environ(), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", src.time.Unix()))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nfpm: %w\n%s", err, out)
	}
	return nil
}

// debianPath is where a file of the archive is installed.
func debianPath(name string) string {
	switch {
	case name == "drover":
		return "/usr/bin/drover"
	case strings.HasPrefix(name, "man/"):
		return "/usr/share/" + name + ".gz"
	case name == "completions/drover.bash":
		return "/usr/share/bash-completion/completions/drover"
	case name == "completions/_drover":
		return "/usr/share/zsh/vendor-completions/_drover"
	case name == "completions/drover.fish":
		return "/usr/share/fish/vendor_completions.d/drover.fish"
	case name == "LICENSE":
		return "/usr/share/doc/drover/copyright"
	}
	return "/usr/share/doc/drover/" + name
}

// debianVersion sorts a pre-release before its release, as semver does.
func debianVersion(v string) string {
	core, meta, _ := strings.Cut(v, "+")
	core = strings.Replace(core, "-", "~", 1)
	if meta != "" {
		core += "+" + meta
	}
	return core
}
