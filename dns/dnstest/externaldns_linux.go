package dnstest

import (
	"bytes"
	"embed"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// externalDNS is a module. The names of its files end in ".txt": a directory with a
// go.mod would be another module, whose files cannot be embedded.
//
//go:embed externaldns/*.txt
var externalDNS embed.FS

// ExternalDNS serves the zones of s by the webhook protocol of external-dns, with
// its server and its provider for PowerDNS, and returns the URL.
func ExternalDNS(t testing.TB, s *Server, zones ...string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, externalDNS); err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(dir, "externaldns")
	for _, name := range []string{"main.go", "go.mod", "go.sum"} {
		if err := os.Rename(filepath.Join(dir, name+".txt"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(dir, "externaldns")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", program, ".")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build external-dns: %v\n%s", err, out)
	}
	address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	var log bytes.Buffer
	cmd := exec.Command(program, address, s.API, strings.Join(zones, ",")) //nolint:noctx // ends with the test
	cmd.Env = append(os.Environ(), "PDNS_API_KEY="+s.Key)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// The thread that starts the server must live as long as the server.
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer close(ended)
		started <- cmd.Start()
		_ = cmd.Wait()
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("external-dns:\n%s", log.String())
		}
	})
	url := "http://" + address
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get(url) //nolint:noctx,gosec // of this machine
		if err == nil {
			_ = resp.Body.Close()
			return url
		}
		if time.Now().After(deadline) {
			t.Fatalf("external-dns does not listen: %v", err)
		}
	}
}
