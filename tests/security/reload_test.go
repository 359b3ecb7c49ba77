package security

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/edge"
)

// hardStop is how long the edge lets connections of an old worker live.
const hardStop = 3 * time.Second

// generation is what the edge says of its files and of its worker.
func (w *world) generation() (files, worker string) {
	said, _ := w.published()
	g, _ := said["generation"].(map[string]any)
	files, _ = g["files"].(string)
	worker, _ = g["worker"].(string)
	return files, worker
}

// metrics is what the edge says at GET /metrics.
func (w *world) metrics() string {
	_, address := w.published()
	res, err := read("http://" + address + "/metrics?scope=backend")
	if err != nil {
		return ""
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return string(text)
}

// socket opens a websocket and returns a function that wants an echo of it.
func (w *world) socket(t *testing.T, host string) func() error {
	t.Helper()
	conn, err := w.dial("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(2 * patience)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET /socket HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", host)
	answers := bufio.NewReader(conn)
	if res, err := http.ReadResponse(answers, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols { //nolint:bodyclose // the connection is closed
		t.Fatalf("got %+v, %v, want 101", res, err)
	}
	return func() error {
		fmt.Fprint(conn, "hello")
		b := make([]byte, 5)
		if _, err := io.ReadFull(answers, b); err != nil || string(b) != "hello" {
			return fmt.Errorf("got %q, want an echo: %w", b, err)
		}
		return nil
	}
}

// testRoutes changes the routes of a service while a websocket is open. They are
// served without a reload, which would cut the websocket.
func testRoutes(t *testing.T, w *world) {
	address := serve(t, "changed")
	w.register(t, "changed", address, "drover.route=changed.test/")
	w.register(t, "beside-changed", serve(t, "beside-changed"), "drover.route=beside-changed.test/")
	w.loaded(t, "changed.test", "beside-changed.test")
	configuration := func() string {
		_, worker := w.generation()
		before, _, _ := strings.Cut(worker, "-")
		return before
	}
	first := configuration()
	echo := w.socket(t, "beside-changed.test")
	var many []string
	for i := range 150 {
		many = append(many, fmt.Sprintf("drover.route=h%d.changed.test/some/path/of/the/service/", i))
	}
	w.register(t, "changed", address, append(many, "drover.route=changed.test/", "drover.route=changed.test/more/", "drover.route=added.test/")...)
	w.loaded(t, "added.test", "changed.test")
	for i := range 150 {
		if status, backend := w.status(fmt.Sprintf("GET /some/path/of/the/service/x HTTP/1.1\r\nHost: h%d.changed.test\r\nConnection: close\r\n\r\n", i)); status != http.StatusOK || backend != "changed" {
			t.Fatalf("h%d.changed.test: got %d by %q, want 200", i, status, backend)
		}
	}
	w.register(t, "changed", address, "drover.route=added.test/")
	w.loaded(t, "added.test")
	for _, host := range []string{"changed.test", "h7.changed.test"} {
		if status, _ := w.status("GET /some/path/of/the/service/x HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n"); status != http.StatusNotFound {
			t.Errorf("%s, which is removed: got %d, want 404", host, status)
		}
	}
	select {
	case <-t.Context().Done():
	case <-time.After(hardStop + time.Second):
	}
	if err := echo(); err != nil {
		t.Errorf("the websocket after changes of routes: %v", err)
	}
	if now := configuration(); now != first || first == "" {
		t.Errorf("the edge was reloaded: got configuration %q, want %q", now, first)
	}
}

// testRenewal renews the certificate while a websocket is open. The new one is
// served, and the websocket lives longer than a reload would let it.
func testRenewal(t *testing.T, w *world) {
	w.register(t, "renewal", serve(t, "renewal"), "drover.route=renewal.test/")
	w.loaded(t, "renewal.test")
	devtest.Until(t, patience, "the worker has the newest files", func() bool {
		files, worker := w.generation()
		return files != "" && files == worker
	})
	echo := w.socket(t, "renewal.test")
	before := serial(t, w)
	w.certificate(t)
	devtest.Until(t, patience, "the new certificate is served", func() bool { return serial(t, w) != before })
	devtest.Until(t, patience, "the worker confirms it", func() bool {
		files, worker := w.generation()
		return files != "" && files == worker
	})
	select {
	case <-t.Context().Done():
	case <-time.After(hardStop + time.Second):
	}
	if err := echo(); err != nil {
		t.Errorf("the websocket after a renewal: %v", err)
	}
	metric := map[edge.Kind]string{edge.HAProxy: `haproxy_backend_active_servers{proxy="edge.generation"} 1`, edge.Nginx: "edge_generation_current 1"}[w.kind]
	devtest.Until(t, patience, "the metric says that the worker is current", func() bool { return strings.Contains(w.metrics(), metric) })
	// It is there for a moment while routes change.
	devtest.Until(t, patience, "no copy of the key is left", func() bool {
		left, err := filepath.Glob(filepath.Join(w.Dir(), "alloc", "*", "haproxy", "secrets", "next"))
		return err == nil && len(left) == 0
	})
}

func serial(t *testing.T, w *world) string {
	t.Helper()
	conn, err := w.dial("")
	if err != nil {
		return ""
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
}
