package dnstest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/drover-nomad/drover/devcluster/devtest"
)

// Resolver starts a BIND that asks the name server at authority, HOST:PORT, and
// caches what it says, also that a name does not exist. It returns the address.
func Resolver(t testing.TB, authority, zone string) string {
	t.Helper()
	devtest.NeedsServers(t)
	named, err := exec.LookPath("/usr/sbin/named")
	if err != nil {
		t.Skip("BIND is not installed (apt-get install bind9)")
	}
	host, port, err := net.SplitHostPort(authority)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		// Another process may take the port before the server does.
		if address := startResolver(t, named, host, port, zone); address != "" {
			return address
		}
	}
	t.Fatal("BIND does not answer")
	return ""
}

func startResolver(t testing.TB, named, host, port, zone string) string {
	dir, listen := t.TempDir(), freePort(t)
	conf := fmt.Sprintf(`options {
  directory %q; pid-file none; session-keyfile none; managed-keys-directory %q;
  listen-on port %d { 127.0.0.1; }; listen-on-v6 { none; };
  recursion yes; dnssec-validation no; empty-zones-enable no;
  forward only; forwarders { %s port %s; };
};
controls { };
`, dir, dir, listen, host, port)
	if err := os.WriteFile(filepath.Join(dir, "named.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), named, "-g", "-n", "1", "-c", filepath.Join(dir, "named.conf"))
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("BIND:\n%s", b)
		}
	})
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(listen))
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(zone), dns.TypeSOA)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if r, err := dns.Exchange(q, address); err == nil && len(r.Answer) > 0 {
			return address
		}
		select {
		case <-t.Context().Done():
			return ""
		case <-time.After(20 * time.Millisecond):
		}
	}
	return ""
}
