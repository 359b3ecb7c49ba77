package imported

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// image is a container image of one layer.
type image struct {
	Files      []file
	Entrypoint []string
	Cmd        []string
	Env        []string // NAME=VALUE
	User       string
	WorkingDir string
	Ports      []string // 5432/tcp
	Volumes    []string // directories
}

// file is a file, a directory or a symbolic link of an image.
type file struct {
	Path     string      // in the image, without the first slash
	Source   string      // on this machine; "" for Text
	Text     string      // of a file, or the target of a symbolic link
	Mode     fs.FileMode // with the type; 0 is a program
	UID, GID int
}

// program returns a program and the libraries that it is linked with.
func program(t *testing.T, path, source string) []file {
	t.Helper()
	files := []file{{Path: path, Source: source}}
	out, err := exec.CommandContext(t.Context(), "ldd", source).Output()
	if err != nil {
		return files // it is linked statically
	}
	for word := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(word, "/") {
			files = append(files, file{Path: strings.TrimPrefix(word, "/"), Source: word})
		}
	}
	return files
}

// packed is an image as a registry has it.
type packed struct {
	manifest, config, layer []byte // layer is compressed
	tar                     []byte
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (i image) pack() (packed, error) {
	var p packed
	var err error
	if p.tar, err = layer(i.Files); err != nil {
		return p, err
	}
	var buf bytes.Buffer
	z, _ := gzip.NewWriterLevel(&buf, gzip.NoCompression) // it does not leave the machine
	if _, err := z.Write(p.tar); err != nil {
		return p, err
	}
	if err := z.Close(); err != nil {
		return p, err
	}
	p.layer = buf.Bytes()
	set := func(all []string) map[string]struct{} {
		m := map[string]struct{}{}
		for _, s := range all {
			m[s] = struct{}{}
		}
		return m
	}
	if p.config, err = json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "created": "2026-01-01T00:00:00Z",
		"config": map[string]any{
			"Entrypoint": i.Entrypoint, "Cmd": i.Cmd, "User": i.User, "WorkingDir": i.WorkingDir,
			"Env": append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, i.Env...), "ExposedPorts": set(i.Ports), "Volumes": set(i.Volumes),
		},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digest(p.tar)}},
	}); err != nil {
		return p, err
	}
	p.manifest, err = json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": mediaType + "manifest.v2+json",
		"config": map[string]any{"mediaType": "application/vnd.docker.container.image.v1+json", "size": len(p.config), "digest": digest(p.config)},
		"layers": []any{map[string]any{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": len(p.layer), "digest": digest(p.layer)}},
	})
	return p, err
}

const mediaType = "application/vnd.docker.distribution."

// layer returns the archive of the files, with the directories above them and with
// /tmp and the names of the users.
func layer(files []file) ([]byte, error) {
	files = append([]file{
		{Path: "tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		{Path: "etc/passwd", Mode: 0o644, Text: "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"},
		{Path: "etc/group", Mode: 0o644, Text: "root:x:0:\nnogroup:x:65534:\n"},
	}, files...)
	last := map[string]int{} // a later file replaces an earlier one
	for at, f := range files {
		last[f.Path] = at
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for at, f := range files {
		if last[f.Path] != at || f.Path == "" {
			continue
		}
		h := &tar.Header{Name: f.Path, Mode: int64(f.Mode.Perm()), Uid: f.UID, Gid: f.GID, Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0)}
		if f.Mode&fs.ModeSticky != 0 {
			h.Mode |= 0o1000
		}
		if f.Mode == 0 {
			h.Mode = 0o755
		}
		text := []byte(f.Text)
		var err error
		switch {
		case f.Mode.IsDir():
			h.Typeflag, text = tar.TypeDir, nil
		case f.Mode&fs.ModeSymlink != 0:
			h.Typeflag, h.Linkname, text = tar.TypeSymlink, f.Text, nil
		case f.Source != "":
			text, err = os.ReadFile(f.Source)
		}
		if err != nil {
			return nil, err
		}
		h.Size = int64(len(text))
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
		if _, err := w.Write(text); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// archive returns the image as docker load takes it.
func (p packed) archive(name string) ([]byte, error) {
	manifest, err := json.Marshal([]any{map[string]any{"Config": "config.json", "RepoTags": []string{name}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for name, text := range map[string][]byte{"manifest.json": manifest, "config.json": p.config, "layer.tar": p.tar} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}); err != nil {
			return nil, err
		}
		if _, err := w.Write(text); err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), w.Close()
}

// registry serves images to the nodes in the place of Docker Hub.
type registry struct {
	sync.Mutex
	manifests map[string][]byte // by REPOSITORY:TAG and REPOSITORY@DIGEST
	blobs     map[string][]byte // by digest
}

// add adds an image under a name of Docker Hub, such as haproxy:2.8 or shop/web.
func (r *registry) add(name string, p packed) {
	repository, tag, ok := strings.Cut(name, ":")
	if !ok {
		tag = "latest"
	}
	if !strings.Contains(repository, "/") {
		repository = "library/" + repository
	}
	r.Lock()
	defer r.Unlock()
	r.manifests[repository+":"+tag] = p.manifest
	r.manifests[repository+":"+digest(p.manifest)] = p.manifest
	r.blobs[digest(p.config)] = p.config
	r.blobs[digest(p.layer)] = p.layer
}

// ServeHTTP answers the reading half of the API of a registry.
func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.Lock()
	defer r.Unlock()
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	path, ok := strings.CutPrefix(req.URL.Path, "/v2/")
	if !ok {
		http.NotFound(w, req)
		return
	}
	if path == "" {
		_, _ = w.Write([]byte("{}"))
		return
	}
	var body []byte
	if repository, reference, is := strings.Cut(path, "/manifests/"); is {
		body = r.manifests[repository+":"+reference]
		w.Header().Set("Content-Type", mediaType+"manifest.v2+json")
	} else if _, name, is := strings.Cut(path, "/blobs/"); is {
		body = r.blobs[name]
		w.Header().Set("Content-Type", "application/octet-stream")
	}
	if body == nil {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"errors":[{"code":"MANIFEST_UNKNOWN","message":"the test has no such image"}]}`))
		return
	}
	w.Header().Set("Docker-Content-Digest", digest(body))
	http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(body))
}
