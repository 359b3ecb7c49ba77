package cli

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"strings"
)

// inspectByProgram is the value of --inspect-images without a path.
const inspectByProgram = "program"

// maxImageFile is the most that an index, a manifest or a configuration may have.
const maxImageFile = 4 << 20

// imageConfig is what drover reads of an image's configuration (OCI image-spec,
// config.md).
type imageConfig struct {
	ExposedPorts map[string]struct{}
}

// ports returns the TCP ports in order.
func (c imageConfig) ports() []int {
	var all []int
	for p := range c.ExposedPorts {
		number, protocol, _ := strings.Cut(p, "/")
		if n, err := strconv.Atoi(number); err == nil && n > 0 && n < 65536 && (protocol == "" || protocol == "tcp") {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all
}

// exposedPorts returns the function that finds the ports of an image: with docker or
// skopeo, or in a saved image, an OCI layout or an archive of docker save.
func exposedPorts(ctx context.Context, from string) func(ref string) ([]int, error) {
	return func(ref string) ([]int, error) {
		var c imageConfig
		var err error
		if from == inspectByProgram {
			c, err = inspectImage(ctx, ref)
		} else {
			c, err = savedImage(from, ref)
		}
		return c.ports(), err
	}
}

// inspectImage asks docker for an image that it has, and skopeo for one of a registry.
func inspectImage(ctx context.Context, ref string) (imageConfig, error) {
	var problems []error
	for _, args := range [][]string{
		{"docker", "image", "inspect", "--format", "{{json .Config}}", "--", ref},
		{"skopeo", "inspect", "--config", "docker://" + ref},
	} {
		program, err := exec.LookPath(args[0])
		if err != nil {
			continue
		}
		var out, msg bytes.Buffer
		cmd := exec.CommandContext(ctx, program, args[1:]...) //nolint:gosec // the operator's own program
		cmd.Stdout, cmd.Stderr = &limitedBuffer{b: &out, left: maxImageFile}, &limitedBuffer{b: &msg, left: 64 << 10}
		if err := cmd.Run(); err != nil {
			if ctx.Err() != nil {
				return imageConfig{}, ctx.Err()
			}
			line, _, _ := strings.Cut(strings.TrimSpace(msg.String()), "\n")
			problems = append(problems, fmt.Errorf("%s: %s", args[0], line))
			continue
		}
		var c struct {
			imageConfig
			Config imageConfig `json:"config"` // of skopeo
		}
		if err := json.Unmarshal(out.Bytes(), &c); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", args[0], err))
			continue
		}
		if c.ExposedPorts == nil {
			c.ExposedPorts = c.Config.ExposedPorts
		}
		return c.imageConfig, nil
	}
	if len(problems) == 0 {
		return imageConfig{}, errors.New("neither docker nor skopeo is on PATH")
	}
	return imageConfig{}, errors.Join(problems...)
}

// savedImage reads the configuration of an image that was saved.
func savedImage(from, ref string) (imageConfig, error) {
	read := func(name string, v any) error {
		text, err := readSaved(from, name)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(text, v); err != nil {
			return fmt.Errorf("reading %s of %s: %w", name, from, err)
		}
		return nil
	}
	config, err := savedConfig(from, ref, read)
	if err != nil {
		return imageConfig{}, err
	}
	var c struct {
		Config imageConfig `json:"config"`
	}
	err = read(config, &c)
	return c.Config, err
}

// savedConfig returns the path of the configuration of an image: by manifest.json of
// docker save, or else by index.json (OCI image-spec, image-layout.md).
func savedConfig(from, ref string, read func(string, any) error) (string, error) {
	var images []struct {
		Config   string
		RepoTags []string
	}
	err := read("manifest.json", &images)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	for _, i := range images {
		if slices.ContainsFunc(i.RepoTags, func(t string) bool { return sameImage(t, ref) }) {
			return i.Config, nil
		}
	}
	type descriptor struct {
		Digest      string            `json:"digest"`
		Annotations map[string]string `json:"annotations"`
	}
	var index struct {
		Manifests []descriptor `json:"manifests"`
	}
	if err := read("index.json", &index); err != nil {
		if errors.Is(err, fs.ErrNotExist) && images == nil {
			return "", fmt.Errorf("%s is neither an OCI layout nor an archive of docker save", from)
		}
		return "", fmt.Errorf("%s has no image %s", from, ref)
	}
	blob := func(digest string) string { return path.Join("blobs", strings.Replace(digest, ":", "/", 1)) }
	at := slices.IndexFunc(index.Manifests, func(d descriptor) bool {
		return sameImage(d.Annotations["io.containerd.image.name"], ref) || sameImage(d.Annotations["org.opencontainers.image.ref.name"], ref)
	})
	if at < 0 {
		return "", fmt.Errorf("%s has no image %s", from, ref)
	}
	// An index of platforms has manifests itself; their ports are alike.
	next := index.Manifests[at].Digest
	for range 3 {
		var m struct {
			Config    descriptor   `json:"config"`
			Manifests []descriptor `json:"manifests"`
		}
		if err := read(blob(next), &m); err != nil {
			return "", err
		}
		if m.Config.Digest != "" {
			return blob(m.Config.Digest), nil
		}
		if len(m.Manifests) == 0 {
			break
		}
		next = m.Manifests[0].Digest
	}
	return "", fmt.Errorf("%s has no configuration of the image %s", from, ref)
}

// sameImage compares references of one image, one of which may leave out the registry
// and the tag that are the default.
func sameImage(a, b string) bool {
	full := func(ref string) string {
		ref = strings.TrimPrefix(strings.TrimPrefix(ref, "docker.io/"), "library/")
		if !strings.Contains(ref[strings.LastIndexByte(ref, '/')+1:], ":") && !strings.Contains(ref, "@") {
			ref += ":latest"
		}
		return ref
	}
	return a != "" && full(a) == full(b)
}

// readSaved reads a file of a directory or of an archive.
func readSaved(from, name string) ([]byte, error) {
	info, err := os.Stat(from)
	if err != nil {
		return nil, fmt.Errorf("reading the images: %w", err)
	}
	if info.IsDir() {
		root, err := os.OpenRoot(from)
		if err != nil {
			return nil, fmt.Errorf("reading the images: %w", err)
		}
		defer func() { _ = root.Close() }()
		f, err := root.Open(name)
		if err != nil {
			return nil, fmt.Errorf("reading the images: %w", err)
		}
		defer func() { _ = f.Close() }()
		return limited(f, name)
	}
	f, err := os.Open(from)
	if err != nil {
		return nil, fmt.Errorf("reading the images: %w", err)
	}
	defer func() { _ = f.Close() }()
	archive := tar.NewReader(f)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("reading the images: %s has no %s: %w", from, name, fs.ErrNotExist)
		}
		if err != nil {
			return nil, fmt.Errorf("%s is no archive of docker save: %w", from, err)
		}
		if path.Clean(h.Name) == name {
			return limited(archive, name)
		}
	}
}

// limited reads a small file.
func limited(r io.Reader, name string) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxImageFile+1))
	if err == nil && len(text) > maxImageFile {
		err = fmt.Errorf("%s has more than %d MiB", name, maxImageFile>>20)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the images: %w", err)
	}
	return text, nil
}
