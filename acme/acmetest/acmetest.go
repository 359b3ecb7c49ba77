// Package acmetest gives tests a CA of their own: a real Pebble with the DNS
// server of pebble-challtestsrv, on a loopback address of its own, gone
// with the test.
package acmetest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/acme/pki"
	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
)

// Options of a CA.
type Options struct {
	// HTTPPort is where the CA connects to for http-01.
	HTTPPort int
	// Resolver is the name server, HOST:PORT, that the CA asks; its own when
	// empty.
	Resolver string
	// EAB requires external account bindings: key ID → MAC key.
	EAB map[string]string
	// RejectNonces is how many of 100 good nonces are refused.
	RejectNonces int
	// AlternateRoots is how many chains are offered beside the default one.
	AlternateRoots int
	// KeepAuthorizations lets valid authorizations be used again.
	KeepAuthorizations bool
}

// CA is a running Pebble.
type CA struct {
	Directory string // URL
	Root      string // PEM: what its own HTTPS is verified with
	DNS       string // host:port of its DNS server
	HTTPPort  int

	t          testing.TB
	dir        string
	opts       Options
	ip         string
	port, mgmt int
	challAPI   string
	stop       context.CancelFunc
	done       chan struct{}
	client     *http.Client
}

// Start runs a CA for the test.
func Start(t testing.TB, opts Options) *CA {
	t.Helper()
	devtest.NeedsServers(t)
	tools := devcluster.Tools{}
	pebble, err := tools.Path(t.Context(), devcluster.Pebble)
	if errors.Is(err, devcluster.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	chall, err := tools.Path(t.Context(), devcluster.PebbleChallTestSrv)
	if err != nil {
		t.Fatal(err)
	}
	ca := &CA{t: t, dir: t.TempDir(), opts: opts, HTTPPort: opts.HTTPPort}
	ca.ip = loopback()
	ca.port, ca.mgmt = 14000, 15000
	ca.DNS, ca.challAPI = ca.addr(8053), "http://"+ca.addr(8055)
	ca.Directory = "https://" + ca.addr(ca.port) + "/dir"
	root, key, err := pki.NewCA("pebble", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ca.Root = pki.EncodeCertificate(root.Raw)
	cert, certKey, err := pki.Sign(pki.Leaf{CommonName: "pebble", IPAddresses: []string{ca.ip}, DNSNames: []string{"localhost"}, Lifetime: time.Hour}, root, key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ca.write("cert.pem", cert)
	ca.write("key.pem", certKey)
	pool := x509.NewCertPool()
	pool.AddCert(root)
	ca.client = &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}},
	}
	t.Cleanup(ca.client.CloseIdleConnections)

	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := ca.run(ctx, "challtestsrv", nil, chall, "-dnsserver", ca.DNS, "-management", ca.addr(8055),
		"-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "")
	t.Cleanup(func() { stop(); <-done })
	ca.until("the DNS server", func() error {
		_, err := ca.post(ca.challAPI+"/clear-txt", map[string]string{"host": "none."})
		return err
	})
	ca.start(pebble)
	t.Cleanup(ca.Stop)
	return ca
}

func (ca *CA) start(pebble string) {
	ca.t.Helper()
	type profile struct {
		Description    string `json:"description"`
		ValidityPeriod uint64 `json:"validityPeriod"`
	}
	config := map[string]any{"pebble": map[string]any{
		"listenAddress": ca.addr(ca.port), "managementListenAddress": ca.addr(ca.mgmt),
		"certificate": filepath.Join(ca.dir, "cert.pem"), "privateKey": filepath.Join(ca.dir, "key.pem"),
		"httpPort": ca.HTTPPort, "tlsPort": 5001, "keyAlgorithm": "ecdsa",
		"externalAccountBindingRequired": len(ca.opts.EAB) > 0, "externalAccountMACKeys": ca.opts.EAB,
		"domainBlocklist": []string{"blocked.example"}, // with three labels, Pebble panics on names with two
		"retryAfter":      map[string]int{"authz": 0, "order": 0},
		"profiles": map[string]profile{
			"default": {"90 days", 7776000}, "shortlived": {"6 days", 518400},
		},
	}}
	text, err := json.Marshal(config)
	if err != nil {
		ca.t.Fatal(err)
	}
	ca.write("pebble.json", string(text))
	reuse := 0
	if ca.opts.KeepAuthorizations {
		reuse = 100
	}
	env := []string{
		"PEBBLE_VA_NOSLEEP=1", fmt.Sprint("PEBBLE_WFE_NONCEREJECT=", ca.opts.RejectNonces),
		fmt.Sprint("PEBBLE_AUTHZREUSE=", reuse), fmt.Sprint("PEBBLE_ALTERNATE_ROOTS=", ca.opts.AlternateRoots),
	}
	var ctx context.Context
	ctx, ca.stop = context.WithCancel(context.WithoutCancel(ca.t.Context()))
	ca.done = ca.run(ctx, "pebble", env, pebble, "-config", filepath.Join(ca.dir, "pebble.json"), "-dnsserver", cmp.Or(ca.opts.Resolver, ca.DNS))
	ca.until("pebble", func() error {
		_, err := ca.get(ca.Directory)
		return err
	})
}

// Stop ends the CA; its address refuses connections.
func (ca *CA) Stop() {
	ca.stop()
	<-ca.done
}

// Restart brings the CA back at the same address, having forgotten all it
// knew: accounts, orders, certificates, its own keys.
func (ca *CA) Restart() {
	ca.t.Helper()
	ca.Stop()
	pebble, err := devcluster.Tools{}.Path(ca.t.Context(), devcluster.Pebble)
	if err != nil {
		ca.t.Fatal(err)
	}
	ca.start(pebble)
}

// run starts a program whose end comes with ctx. The channel is closed when
// it has ended.
func (ca *CA) run(ctx context.Context, name string, env []string, path string, args ...string) chan struct{} {
	ca.t.Helper()
	log, err := os.Create(filepath.Join(ca.dir, name+".log"))
	if err != nil {
		ca.t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.WaitDelay = time.Second
	dieWithParent(cmd)
	if err := cmd.Start(); err != nil {
		ca.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait()
		_ = log.Close()
	}()
	return done
}

func (ca *CA) until(what string, f func() error) {
	ca.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			ca.t.Fatalf("%s does not answer: %v\n%s", what, err, ca.Log())
		}
		select {
		case <-ca.t.Context().Done():
			ca.t.Fatal(ca.t.Context().Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Log is what Pebble has written.
func (ca *CA) Log() string {
	b, _ := os.ReadFile(filepath.Join(ca.dir, "pebble.log"))
	return string(b)
}

func (ca *CA) write(name, text string) {
	ca.t.Helper()
	if err := os.WriteFile(filepath.Join(ca.dir, name), []byte(text), 0o600); err != nil {
		ca.t.Fatal(err)
	}
}

func (ca *CA) post(url string, body any) (string, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return "", err
	}
	return ca.do(http.MethodPost, url, bytes.NewReader(text))
}

func (ca *CA) get(url string) (string, error) { return ca.do(http.MethodGet, url, nil) }

func (ca *CA) do(method, url string, body io.Reader) (string, error) {
	req, err := http.NewRequestWithContext(context.WithoutCancel(ca.t.Context()), method, url, body)
	if err != nil {
		return "", err
	}
	resp, err := ca.client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	out, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, resp.Status, out)
	}
	return string(out), err
}

// SetDNS calls the management of the DNS server, such as
// SetDNS("set-cname", map[string]any{"host": "a.", "target": "b."}).
func (ca *CA) SetDNS(what string, body map[string]any) error {
	_, err := ca.post(ca.challAPI+"/"+what, body)
	return err
}

// SetRenewal makes the CA want a certificate renewed between start and end.
func (ca *CA) SetRenewal(chain string, start, end time.Time) error {
	first, _, _ := strings.Cut(chain, "-----END CERTIFICATE-----")
	info, err := json.Marshal(map[string]any{"suggestedWindow": map[string]time.Time{"start": start.UTC(), "end": end.UTC()}})
	if err != nil {
		return err
	}
	_, err = ca.post("https://"+ca.addr(ca.mgmt)+"/set-renewal-info/", map[string]string{
		"certificate": first + "-----END CERTIFICATE-----\n", "ariResponse": string(info),
	})
	return err
}

// KnowsReplaced reports whether Pebble finds the certificate with this serial
// number when an order replaces it. Pebble 2.10 misses one in 256: it compares the
// octets of the DER encoding, which begins with a zero if the first octet is 0x80
// or more (RFC 9773, 4.1), with those of the number.
func KnowsReplaced(serial string) bool {
	n, ok := new(big.Int).SetString(serial, 16)
	return ok && n.BitLen()%8 != 0
}

// IssuingRoot is the n-th root that issued certificates are verified with, in PEM;
// there is one more than AlternateRoots.
func (ca *CA) IssuingRoot(n int) (string, error) { return ca.manage(fmt.Sprint("/roots/", n)) }

// IsRevoked asks the CA about a serial number in hexadecimal.
func (ca *CA) IsRevoked(serial string) (bool, error) {
	text, err := ca.manage("/cert-status-by-serial/" + strings.TrimLeft(serial, "0"))
	return strings.Contains(text, `"Revoked"`), err
}

func (ca *CA) manage(path string) (string, error) {
	return ca.get("https://" + ca.addr(ca.mgmt) + path)
}

// Resolver asks the CA's DNS server.
func (ca *CA) Resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", ca.DNS)
	}}
}

// loopback returns a loopback address that no other process uses: a free port
// there stays free until the CA binds it.
func loopback() string {
	var b [3]byte
	_, _ = rand.Read(b[:])
	return fmt.Sprintf("127.%d.%d.%d", 64+b[0]%128, b[1], 1+b[2]%254)
}

func (ca *CA) addr(port int) string { return fmt.Sprintf("%s:%d", ca.ip, port) }
