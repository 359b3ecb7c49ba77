package security

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/edge"
)

// requestsPerSource are the requests a second that an address may make in these tests.
const requestsPerSource = 300

// testRequests makes more requests than one address may make. Another address is served.
func testRequests(t *testing.T, w *world) {
	w.register(t, "requested", serve(t, "requested"), "drover.route=requested.test/")
	w.loaded(t, "requested.test")
	const source = "127.0.0.71"
	var served, rejected atomic.Int64
	var wait sync.WaitGroup
	over := time.Now().Add(patience)
	// send makes requests on one connection until one is rejected or the edge closes it:
	// nginx does after 1000.
	send := func() error {
		conn, err := w.dial(source)
		if err != nil {
			return err
		}
		defer conn.Close()
		answers := bufio.NewReader(conn)
		for rejected.Load() == 0 && time.Now().Before(over) {
			if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: requested.test\r\n\r\n"); err != nil {
				return nil //nolint:nilerr // closed
			}
			res, err := http.ReadResponse(answers, nil)
			if err != nil {
				return nil //nolint:nilerr // closed
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			switch res.StatusCode {
			case http.StatusOK:
				served.Add(1)
			case http.StatusTooManyRequests:
				rejected.Add(1)
			default:
				return fmt.Errorf("got %s, want 200 or 429", res.Status)
			}
		}
		return nil
	}
	for range 4 {
		wait.Go(func() {
			for rejected.Load() == 0 && time.Now().Before(over) {
				if err := send(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	t.Logf("%d requests of one address were served before the first was rejected", served.Load())
	if served.Load() < requestsPerSource*8 || rejected.Load() == 0 {
		t.Errorf("of one address, got %d requests served and %d rejected, want about %d served and then one rejected", served.Load(), rejected.Load(), requestsPerSource*10)
	}
	if status, said := w.status("GET / HTTP/1.1\r\nHost: requested.test\r\nConnection: close\r\n\r\n"); status != http.StatusOK {
		t.Errorf("another address: got %d %s, want 200", status, said)
	}
}

// testUnderWay has one address begin more requests of HTTP/2 than it may have under way,
// on connections of which it may have so many. Another address is served.
func testUnderWay(t *testing.T, w *world) {
	const source, connections, streamsOfOne = "127.0.0.72", 20, 32
	var arrived atomic.Int64
	release := make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	app := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/held" {
			return
		}
		arrived.Add(1)
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer app.Close()
	defer free()
	w.register(t, "held", app.Listener.Addr().String(), "drover.route=held.test/")
	w.loaded(t, "held.test")

	var rejected, others atomic.Int64
	var wait sync.WaitGroup
	defer wait.Wait()
	for range connections {
		conn, err := w.dial(source, "h2")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(2 * patience)); err != nil {
			t.Fatal(err)
		}
		framer := http2.NewFramer(conn, conn)
		framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		if err := request(conn, framer, "held.test", "/held", streamsOfOne); err != nil {
			t.Fatal(err)
		}
		wait.Go(func() {
			for {
				f, err := framer.ReadFrame()
				if err != nil { // at the end of the test, by the deferred Close
					return
				}
				if h, is := f.(*http2.MetaHeadersFrame); is {
					switch h.PseudoValue("status") {
					case "429":
						rejected.Add(1)
					case "200":
					default:
						others.Add(1)
					}
				}
			}
		})
	}
	const requests = connections * streamsOfOne
	devtest.Until(t, patience, "each request has arrived or was rejected", func() bool {
		return arrived.Load()+rejected.Load()+others.Load() >= requests
	})
	began := time.Now()
	if status, said := w.status("GET / HTTP/1.1\r\nHost: held.test\r\nConnection: close\r\n\r\n"); status != http.StatusOK {
		t.Errorf("another address: got %d %s, want 200", status, said)
	}
	t.Logf("%d requests are under way, %d were rejected, %d failed otherwise; another address was served in %s", arrived.Load(), rejected.Load(), others.Load(), time.Since(began).Round(time.Millisecond))
	most := map[edge.Kind]int64{edge.HAProxy: 4 * 128, edge.Nginx: 128}[w.kind]
	if n := arrived.Load(); n > most || n < most/2 || rejected.Load() == 0 || others.Load() > 0 {
		t.Errorf("one address has %d requests under way, %d were rejected and %d failed otherwise, want at most %d under way and the others rejected", n, rejected.Load(), others.Load(), most)
	}
}
