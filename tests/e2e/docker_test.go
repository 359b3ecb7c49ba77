package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
)

// dockerSocket is where the engine answers: the docker command asks there by default.
const dockerSocket = "unix:///var/run/docker.sock"

// TestDocker deploys the whole stack with driver = "docker". It starts
// Debian's docker.io by hand if no engine answers, and makes images from
// scratch out of the same programs that the other tests run.
func TestDocker(t *testing.T) {
	devtest.NeedsFull(t)
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("a Docker engine can only be started by root")
	}
	startDocker(t)
	r := startOn(t, devcluster.Options{
		Tools: []string{devcluster.OCIS}, Supervisor: devcluster.Command{Env: []string{"DOCKER_HOST=" + dockerSocket}},
	})
	r.ocis = newOCIS("https://"+r.Loopback()+":9200", nil)

	// With client certificates Consul is reached by its socket.
	var consul []string
	if r.Secure() {
		sockets, err := filepath.Glob(filepath.Join(r.Dir(), "secure", "*", "http.sock"))
		if err != nil || len(sockets) != 1 {
			t.Fatalf("sockets of Consul: %q, %v", sockets, err)
		}
		consul = []string{"-var", "consul_address=unix://" + sockets[0], "-var", "consul_volume=consul"}
	}

	t.Run("controller", func(t *testing.T) { testControllerImage(t, r, consul) })

	const ocisImage, haproxyImage = "drover-e2e/ocis:2.0.0", "drover-e2e/haproxy:2.0.0"
	files := withLibraries(t, filepath.Join(r.BinDir(), "ocis"))
	files["usr/bin/ocis"] = filepath.Join(r.BinDir(), "ocis")
	importImage(t, ocisImage, `ENTRYPOINT ["/usr/bin/ocis"]`, files)
	files = withLibraries(t, "/usr/sbin/haproxy")
	files["usr/sbin/haproxy"] = "/usr/sbin/haproxy"
	importImage(t, haproxyImage, `ENTRYPOINT []`, files)

	vars := append([]string{"-var", "driver=docker", "-var", "image=" + ocisImage,
		"-var", "mesh_driver=docker", "-var", "mesh_image=" + haproxyImage,
		"-var", "user=1000", "-var", "uid=1000"}, consul...)
	began := time.Now()
	r.drover.must(t, append([]string{"deploy", "ocis", "-e", "dev", "--create-volumes", "--no-certificates"}, vars...)...)
	t.Logf("deployed in %s", time.Since(began).Round(time.Second))
	if n := len(r.processes(t)); n != 0 {
		t.Errorf("%d services run outside of containers", n)
	}
	admin := login{"admin", strings.TrimSpace(r.drover.must(t, "secrets", "show", "ocis", "admin_password", "-e", "dev"))}
	eventually(t, "the PROPFIND works", func() bool { return r.ocis.propfind(t.Context()) })
	testOCIS(t, r.ocis, admin)
	testProbe(t, r, vars)
	r.drover.must(t, "destroy", "ocis", "-e", "dev", "-y")
}

// testControllerImage runs the controller in the image that is released: the program
// alone, as an unprivileged user, with the API socket of its task.
func testControllerImage(t *testing.T, r *running, consul []string) {
	const image = "drover-e2e/drover:2.0.0"
	importImage(t, image, `ENTRYPOINT ["/usr/bin/drover"]`, map[string]string{"usr/bin/drover": r.drover.binary})
	r.drover.must(t, append([]string{"deploy", "drover", "-e", "dev", "-var", "driver=docker", "-var", "image=" + image, "-var", "user=65534"}, consul...)...)
	eventually(t, "two run and one works", func() bool {
		log := r.controllerLog(t)
		return strings.Count(log, `"msg":"listening"`) == 2 && strings.Count(log, `"event":"leader"`) == 1
	})
	r.drover.must(t, "destroy", "drover", "-e", "dev", "-y")
}

// testProbe looks at the volumes from containers, with an image that has little
// more than a shell.
func testProbe(t *testing.T, r *running, vars []string) {
	const image = "drover-e2e/shell:2.0.0"
	files := map[string]string{}
	for name, program := range map[string]string{"bin/sh": "sh", "bin/stat": "stat", "bin/id": "id", "bin/rm": "rm", "bin/sleep": "sleep"} {
		path, err := exec.LookPath(program)
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(files, withLibraries(t, path))
		files[name] = path
	}
	importImage(t, image, `ENTRYPOINT []`, files)
	out, stderr, code := r.drover.run(t.Context(), append([]string{"doctor", "ocis", "-e", "dev", "--probe", "--probe-driver", "docker", "--probe-image", image}, vars...)...)
	for _, volume := range []string{"storage-users", "idm", "nats"} {
		if !strings.Contains(out, "ocis-"+volume+" on ") {
			t.Errorf("doctor, which ended with %d, has not seen volume %s:\n%s%s", code, volume, out, stderr)
		}
	}
}

// startDocker makes sure that an engine answers on dockerSocket.
func startDocker(t *testing.T) {
	t.Helper()
	if exec.CommandContext(t.Context(), "docker", "info").Run() == nil {
		return
	}
	dir, err := os.MkdirTemp("", "drover-docker-")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	// Host networking only: no bridge, no firewall rules to clean up.
	cmd := exec.Command("dockerd", "--data-root", dir+"/data", "--exec-root", dir+"/exec", "--pidfile", dir+"/pid",
		"-H", dockerSocket, "--storage-driver=overlay2", "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--bridge=none")
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting dockerd (Debian: apt-get install docker.io): %v", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(30 * time.Second):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-exited
		}
		unmountBelow(dir)
		_ = os.Remove("/var/run/docker.sock")
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("removing Docker's data: %v", err)
		}
	})
	eventually(t, "dockerd answers", func() bool {
		select {
		case err := <-exited:
			t.Fatalf("dockerd ended: %v\n%s", err, tail(log.Bytes()))
		default:
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return exec.CommandContext(ctx, "docker", "info").Run() == nil
	})
}

func tail(b []byte) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// unmountBelow detaches what the engine left mounted, deepest first.
func unmountBelow(dir string) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return
	}
	lines := strings.Split(string(b), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if f := strings.Fields(lines[i]); len(f) > 1 && strings.HasPrefix(f[1], dir+"/") {
			_ = syscall.Unmount(f[1], syscall.MNT_DETACH)
		}
	}
}

// withLibraries maps the libraries of a dynamically linked program to their
// paths in an image.
func withLibraries(t *testing.T, program string) map[string]string {
	t.Helper()
	files := map[string]string{}
	out, err := exec.CommandContext(t.Context(), "ldd", program).Output()
	if err != nil {
		t.Fatalf("ldd %s: %v", program, err)
	}
	for word := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(word, "/") {
			files[strings.TrimPrefix(word, "/")] = word
		}
	}
	return files
}

// importImage makes an image out of files (path in the image: path here).
func importImage(t *testing.T, name, change string, files map[string]string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "docker", "import", "--change", change, "-", name)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	werr := writeImage(tar.NewWriter(in), files)
	_ = in.Close()
	if err := cmd.Wait(); err != nil || werr != nil {
		t.Fatalf("docker import %s: %v, %v\n%s", name, err, werr, out.Bytes())
	}
}

func writeImage(w *tar.Writer, files map[string]string) error {
	add := func(name string, mode fs.FileMode, content []byte) error {
		h := &tar.Header{Name: name, Mode: int64(mode.Perm()), Size: int64(len(content)), Typeflag: tar.TypeReg}
		if mode.IsDir() {
			h.Typeflag = tar.TypeDir
		}
		if mode&fs.ModeSticky != 0 {
			h.Mode |= 0o1000
		}
		if err := w.WriteHeader(h); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		_, err := w.Write(content)
		return err
	}
	if err := add("tmp", fs.ModeDir|fs.ModeSticky|0o777, nil); err != nil {
		return err
	}
	if err := add("etc/passwd", 0o644, []byte("root:x:0:0:root:/:/\nocis:x:1000:1000:ocis:/:/\n")); err != nil {
		return err
	}
	for name, path := range files {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := add(name, 0o755, content); err != nil {
			return err
		}
	}
	return w.Close()
}
