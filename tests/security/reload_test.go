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

// testRenewal renews the certificate while a websocket is open. The new one is
// served, and the websocket lives longer than a reload would let it.
func testRenewal(t *testing.T, w *world) {
	w.register(t, "renewal", serve(t, "renewal"), "drover.route=renewal.test/")
	w.loaded(t, "renewal.test")
	devtest.Until(t, patience, "the worker has the newest files", func() bool {
		files, worker := w.generation()
		return files != "" && files == worker
	})
	conn, err := w.dial("")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /socket HTTP/1.1\r\nHost: renewal.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	answers := bufio.NewReader(conn)
	if res, err := http.ReadResponse(answers, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols { //nolint:bodyclose // the connection is closed
		t.Fatalf("got %+v, %v, want 101", res, err)
	}
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
	fmt.Fprint(conn, "hello")
	b := make([]byte, 5)
	if _, err := io.ReadFull(answers, b); err != nil || string(b) != "hello" {
		t.Errorf("the websocket after a renewal: got %q, %v, want an echo", b, err)
	}
	metrics := func() string {
		_, address := w.published()
		res, err := http.Get("http://" + address + "/metrics?scope=backend")
		if err != nil {
			return ""
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		return string(text)
	}
	devtest.Until(t, patience, "the metric says that the worker is current", func() bool {
		return strings.Contains(metrics(), `haproxy_backend_active_servers{proxy="edge.generation"} 1`)
	})
	if left, _ := filepath.Glob(filepath.Join(w.Dir(), "alloc", "*", "haproxy", "secrets", "next")); len(left) > 0 {
		t.Errorf("a copy of the key is left in %s", left)
	}
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
