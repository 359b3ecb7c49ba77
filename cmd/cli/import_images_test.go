package cli

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestImport_InspectImages: the ports of a service that nothing else names come from its
// image: of docker, of skopeo if docker does not have it, or of a saved image. The
// programs of the test print what those print.
func TestImport_InspectImages(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	compose := filepath.Join(dir, "compose.yaml")
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	write("compose.yaml", "services:\n  web: {image: 'web:1', expose: [80], environment: {API_HOST: api}}\n  api: {image: 'example.org/api:1'}\n", 0o600)
	outs := 0
	run := func(args ...string) (text, job string, code int) {
		t.Helper()
		outs++
		out := filepath.Join(dir, "out", strings.Repeat("x", outs))
		var b bytes.Buffer
		code = Run(t.Context(), &IO{In: strings.NewReader(""), Out: &b, Err: &b}, append([]string{"import", compose, "--out", out}, args...))
		spec, _ := os.ReadFile(filepath.Join(out, "api.nomad.hcl"))
		return b.String(), string(spec), code
	}
	if text, _, code := run("--inspect-images"); code != exitUsage || !strings.Contains(text, "neither docker nor skopeo is on PATH") || !strings.Contains(text, "Say --port api=PORT") {
		t.Errorf("without programs, got exit code %d and %s", code, text)
	}
	write("docker", "#!/bin/sh\n[ \"$*\" = 'image inspect --format {{json .Config}} -- example.org/api:1' ] || exit 9\n[ -n \"$HAVE\" ] && echo '{\"ExposedPorts\":{\"9000/tcp\":{},\"53/udp\":{},\"8000/tcp\":{}}}' || { echo 'No such image: api' >&2; exit 1; }\n", 0o700)
	if text, _, code := run("--inspect-images"); code != exitUsage || !strings.Contains(text, "docker: No such image: api") {
		t.Errorf("without the image, got exit code %d and %s", code, text)
	}
	write("skopeo", "#!/bin/sh\n[ \"$*\" = 'inspect --config docker://example.org/api:1' ] && echo '{\"config\":{\"ExposedPorts\":{\"7000/tcp\":{}}}}'\n", 0o700)
	if text, job, code := run("--inspect-images"); code != 0 || !strings.Contains(job, `port "p7000"`) || !strings.Contains(job, "From the configuration of the image example.org/api:1.") {
		t.Errorf("with skopeo, got exit code %d and %s%s", code, text, job)
	}
	t.Setenv("HAVE", "1")
	if text, job, code := run("--inspect-images"); code != 0 || !strings.Contains(job, `port "p8000"`) || !strings.Contains(job, `port "p9000"`) || strings.Contains(job, `"p53"`) || strings.Contains(job, "check {") {
		t.Errorf("with docker, got exit code %d and %s%s", code, text, job)
	}
	if text, job, code := run("--inspect-images", "--port", "api=1234"); code != 0 || strings.Contains(job, "p8000") {
		t.Errorf("with --port, got exit code %d and %s%s", code, text, job)
	}

	write("layout/index.json", `{"manifests":[{"digest":"sha256:a","annotations":{"org.opencontainers.image.ref.name":"example.org/other:1"}},{"digest":"sha256:b","annotations":{"io.containerd.image.name":"example.org/api:1"}}]}`, 0o600)
	write("layout/blobs/sha256/b", `{"manifests":[{"digest":"sha256:c"}]}`, 0o600)
	write("layout/blobs/sha256/c", `{"config":{"digest":"sha256:d"}}`, 0o600)
	write("layout/blobs/sha256/d", `{"config":{"ExposedPorts":{"6000/tcp":{}}}}`, 0o600)
	if text, job, code := run("--inspect-images=" + filepath.Join(dir, "layout")); code != 0 || !strings.Contains(job, `port "p6000"`) {
		t.Errorf("with a layout, got exit code %d and %s%s", code, text, job)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, f := range [][2]string{{"manifest.json", `[{"Config":"abc.json","RepoTags":["example.org/api:1"]}]`}, {"abc.json", `{"config":{"ExposedPorts":{"5000/tcp":{}}}}`}} {
		if err := w.WriteHeader(&tar.Header{Name: f[0], Size: int64(len(f[1])), Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	saved := write("saved.tar", archive.String(), 0o600)
	if text, job, code := run("--inspect-images=" + saved); code != 0 || !strings.Contains(job, `port "p5000"`) {
		t.Errorf("with an archive, got exit code %d and %s%s", code, text, job)
	}
	for name, c := range map[string]struct{ path, want string }{
		"a file that is no image":  {compose, "is no archive of docker save"},
		"a directory without one":  {dir, "is neither an OCI layout nor an archive of docker save"},
		"a path that is not there": {filepath.Join(dir, "none"), "cannot read"},
	} {
		t.Run(name, func(t *testing.T) {
			if text, _, code := run("--inspect-images=" + c.path); code != exitUsage || !strings.Contains(text, c.want) {
				t.Errorf("got exit code %d and %s, want %d and %q", code, text, exitUsage, c.want)
			}
		})
	}
	write("bad/index.json", `{"manifests":[{"digest":"sha256:../../../layout/blobs/sha256/c","annotations":{"org.opencontainers.image.ref.name":"example.org/api:1"}}]}`, 0o600)
	if text, _, code := run("--inspect-images=" + filepath.Join(dir, "bad")); code != exitUsage || !strings.Contains(text, "path escapes from parent") {
		t.Errorf("with a digest that leads out of the layout, got exit code %d and %s", code, text)
	}
}
