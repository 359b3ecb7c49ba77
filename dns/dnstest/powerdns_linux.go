// Package dnstest starts real name servers for tests: on free ports of the
// loopback, in a temporary directory, gone with the test.
package dnstest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/devcluster/pdns"
)

// Server is a running PowerDNS with its HTTP API, dynamic updates (RFC 2136)
// and zone transfers, the last two for the TSIG key only.
type Server struct {
	API string // URL
	Key string // of the API
	DNS string // address of the name server, UDP and TCP

	TSIGName, TSIGSecret string // hmac-sha256

	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
	log    *os.File
}

const (
	tsigName   = "drover"
	tsigSecret = "a2VlcCBvbiBkcm92aW5nLCBrZWVwIG9uIGRyb3Zpbmc=" // #nosec G101 -- of a throwaway server
)

// PowerDNS starts a server with the given zones.
func PowerDNS(t testing.TB, zones ...string) *Server {
	t.Helper()
	devtest.NeedsServers(t)
	program, err := pdns.Path()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "dnstest") // short: it holds a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := (pdns.Config{Dir: dir}).Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	var s *Server
	for range 5 {
		// Another process may take the ports before the server does.
		if s, err = start(t, program, dir); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop() })
	t.Cleanup(func() {
		if t.Failed() {
			b, _ := os.ReadFile(filepath.Join(dir, "log"))
			lines := strings.Split(strings.TrimSpace(string(b)), "\n")
			t.Logf("PowerDNS:\n%s", strings.Join(lines[max(0, len(lines)-20):], "\n"))
		}
	})
	s.must(t, "POST", "/tsigkeys", map[string]any{"name": tsigName, "algorithm": "hmac-sha256", "key": tsigSecret})
	for _, z := range zones {
		s.Zone(t, z)
	}
	return s
}

func start(t testing.TB, program, dir string) (*Server, error) {
	c := pdns.Config{
		Dir: dir, Address: "127.0.0.1", DNSPort: freePort(t), APIPort: freePort(t),
		Key: "dnstest-api-key-" + rand.Text(), // servers must not be taken for each other
	}
	if err := os.WriteFile(c.File(), []byte(c.Text()), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	s := &Server{
		API: "http://127.0.0.1:" + strconv.Itoa(c.APIPort), Key: c.Key,
		DNS:      "127.0.0.1:" + strconv.Itoa(c.DNSPort),
		TSIGName: tsigName, TSIGSecret: tsigSecret, log: log,
	}
	s.cmd = exec.Command(program, c.Args()...) //nolint:noctx // ends with the test, see Stop
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting PowerDNS: %w", err)
	}
	exited, cmd := make(chan struct{}), s.cmd
	s.exited = exited
	go func() { _ = cmd.Wait(); close(exited) }()
	deadline := time.After(20 * time.Second)
	for {
		if s.up(t.Context()) {
			return s, nil
		}
		select {
		case <-exited:
			b, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("PowerDNS ended at once:\n%s", b)
		case <-deadline:
			s.Stop()
			return nil, errors.New("PowerDNS does not answer")
		case <-t.Context().Done():
			return nil, t.Context().Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *Server) up(ctx context.Context) bool {
	status, _, err := s.call(ctx, "GET", "", nil)
	if err != nil || status != http.StatusOK {
		return false
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.DNS)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// Stop ends the server; a second call does nothing.
func (s *Server) Stop() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.exited
	_ = s.log.Close()
	s.cmd = nil
}

// Pause makes the server hang: its ports stay open, and it answers nothing.
func (s *Server) Pause(t testing.TB) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
}

// Resume ends a Pause.
func (s *Server) Resume(t testing.TB) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// Zone makes a zone that the TSIG key may transfer and update.
func (s *Server) Zone(t testing.TB, name string) {
	t.Helper()
	name = strings.TrimSuffix(name, ".") + "."
	s.must(t, "POST", "/zones", map[string]any{
		"name": name, "kind": "Native", "nameservers": []string{"ns1." + name},
		"master_tsig_key_ids": []string{tsigName + "."}, // may transfer
	})
	s.must(t, "POST", "/zones/"+name+"/metadata", map[string]any{"kind": "TSIG-ALLOW-DNSUPDATE", "metadata": []string{tsigName}})
}

// Set writes a record set without drover, as another program would. Contents have
// the syntax of zone files; without any, the set is deleted.
func (s *Server) Set(t testing.TB, zone, name, typ string, ttl int, contents ...string) {
	t.Helper()
	type record struct {
		Content string `json:"content"`
	}
	set := map[string]any{"name": strings.TrimSuffix(name, ".") + ".", "type": typ, "changetype": "DELETE"}
	if len(contents) > 0 {
		var rs []record
		for _, c := range contents {
			rs = append(rs, record{c})
		}
		set["changetype"], set["ttl"], set["records"] = "REPLACE", ttl, rs
	}
	s.must(t, "PATCH", "/zones/"+strings.TrimSuffix(zone, ".")+".", map[string]any{"rrsets": []any{set}})
}

// Dump is every record of a zone but its SOA and NS, as "NAME TTL TYPE
// CONTENT", sorted by the server.
func (s *Server) Dump(t testing.TB, zone string) []string {
	t.Helper()
	status, b, err := s.call(t.Context(), "GET", "/zones/"+strings.TrimSuffix(zone, ".")+".", nil)
	if err != nil || status != http.StatusOK {
		t.Fatalf("reading zone %s: %d %v", zone, status, err)
	}
	var z struct {
		RRsets []struct {
			Name, Type string
			TTL        int
			Records    []struct{ Content string }
		}
	}
	if err := json.Unmarshal(b, &z); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, rs := range z.RRsets {
		if rs.Type == "SOA" || rs.Type == "NS" {
			continue
		}
		for _, r := range rs.Records {
			out = append(out, fmt.Sprintf("%s %d %s %s", rs.Name, rs.TTL, rs.Type, r.Content))
		}
	}
	return out
}

func (s *Server) must(t testing.TB, method, path string, in any) {
	t.Helper()
	status, b, err := s.call(t.Context(), method, path, in)
	if err != nil || status >= 300 {
		t.Fatalf("PowerDNS: %s %s: %d %v %s", method, path, status, err, b)
	}
}

func (s *Server) call(ctx context.Context, method, path string, in any) (int, []byte, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return 0, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.API+"/api/v1/servers/localhost"+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("X-API-Key", s.Key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, b, err
}

// freePort is one that TCP and UDP have free.
func freePort(t testing.TB) int {
	t.Helper()
	for range 20 {
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		u, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", fmt.Sprintf("127.0.0.1:%d", port))
		_ = l.Close()
		if err == nil {
			_ = u.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}
