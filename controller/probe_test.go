package controller

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/acme/pki"
	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/secrets"
)

// serving is an edge with one certificate.
func serving(t *testing.T, chain, key string) string {
	t.Helper()
	pair, err := tls.X509KeyPair([]byte(chain), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func(conn net.Conn) {
				_ = conn.(*tls.Conn).Handshake()
				_ = conn.Close()
			}(conn)
		}
	}()
	return l.Addr().String()
}

// TestProbeWithoutAll: of two instances one does not say where it serves; then
// Consul says nothing at all.
func TestProbeWithoutAll(t *testing.T) {
	t.Parallel()
	store := acme.NewStore(acme.Directory(t.TempDir()))
	names := []string{"a.example.com"}
	chain, key, err := acme.SelfSigned(names, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	serial := acme.Serial(pki.First(chain))
	o := &acme.Object{
		Spec: acme.Spec{Name: "a", Names: names}, Chain: chain, Key: secrets.NewValue(key),
		Status: acme.Status{Phase: acme.Ready, Serial: serial, ServedAs: serial},
	}
	if err := store.Put(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	// The edge is not asked for what only jobs serve.
	jobs := acme.Object{Spec: acme.Spec{Name: "jobs", Names: []string{"jobs.example.com"}, NoEdge: true}, Chain: chain, Key: o.Key, Status: o.Status}
	if err := store.Put(t.Context(), &jobs); err != nil {
		t.Fatal(err)
	}
	other, otherKey, err := acme.SelfSigned(names, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	good, bad := serving(t, chain, key), serving(t, other, otherKey)
	var (
		where []edge.Place
		lost  error
	)
	c := &controller{store: store, manager: acme.NewManager(acme.Config{Store: store}), clock: acme.SystemClock{}, stored: make(chan struct{}, 1)}
	c.c.Edge = func(context.Context) ([]edge.Place, error) { return where, lost }
	c.metrics = newMetrics(c)
	probe := func(all bool, samples ...string) {
		t.Helper()
		got, err := c.probe(t.Context())
		if got != all || !errors.Is(err, lost) {
			t.Errorf("%v, %v", got, err)
		}
		var lines []string
		for line := range strings.Lines(c.metrics.text(t.Context())) {
			if strings.HasPrefix(line, "drover_certificate_served_match{") {
				lines = append(lines, strings.TrimSpace(line))
			}
		}
		if strings.Join(lines, "\n") != strings.Join(samples, "\n") {
			t.Errorf("%q instead of %q", lines, samples)
		}
		if now, err := store.Get(t.Context(), "a"); err != nil || now.Status.Phase != acme.Ready {
			t.Errorf("%+v, %v", now.Status, err)
		}
	}
	sample := func(address, value string) string {
		return `drover_certificate_served_match{certificate="a",address="` + address + `"} ` + value
	}
	where = []edge.Place{{Address: good}}
	probe(true, sample(good, "1"))
	where, lost = []edge.Place{{Address: bad}}, errors.New("one instance does not answer")
	probe(false, sample(bad, "0"))
	where = nil
	probe(false)
}
