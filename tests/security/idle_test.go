package security

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/drover-nomad/drover/edge"
)

// idleConnections are more than either edge takes with its memory.
const idleConnections = 1000

// testIdle has one address open connections of HTTP/2 and leave them idle, after an
// answer or without a request. A client with another address is served meanwhile.
func testIdle(t *testing.T, w *world) {
	w.register(t, "idle", serve(t, "idle"), "drover.route=idle.test/")
	w.loaded(t, "idle.test")
	for _, a := range []struct {
		name string
		ask  bool
	}{{"after an answer", true}, {"without a request", false}} {
		t.Run(a.name, func(t *testing.T) {
			began := time.Now()
			held, stop := w.hold(func(c *tls.Conn) error { return begin(c, a.ask) })
			defer stop()
			var worst time.Duration
			requests, attempted := 0, held.attempted
			var over <-chan time.Time // some seconds after the last attempt
			for attacked := true; attacked; {
				select {
				case <-attempted:
					attempted, over = nil, time.After(2*clientTimeout)
				case <-over:
					attacked = false
				case <-time.After(50 * time.Millisecond):
				}
				at := time.Now()
				if status, said := w.status("GET / HTTP/1.1\r\nHost: idle.test\r\nConnection: close\r\n\r\n"); status != http.StatusOK {
					t.Errorf("a client meanwhile: got %d %s, want 200", status, said)
				}
				worst = max(worst, time.Since(at))
				requests++
			}
			begun := held.count()
			t.Logf("after %s, %d of %d connections were begun; %d requests of a client meanwhile, the slowest took %s", time.Since(began).Round(time.Second), begun, idleConnections, requests, worst.Round(time.Millisecond))
			if worst > 5*time.Second { // on a machine that has much else to do
				t.Errorf("the slowest request of a client took %s, want less than 5 s", worst)
			}
			// HAProxy refuses those above memory of one address, and ends those without a
			// request after a while. nginx takes all, and closes the oldest idle ones.
			most := map[edge.Kind]int{edge.HAProxy: memory, edge.Nginx: idleConnections}[w.kind]
			if begun < most/2 || a.ask && begun > most {
				t.Errorf("one address began %d connections, want at most %d and at least half of it", begun, most)
			}
		})
	}
}

// holding counts connections that are held.
type holding struct {
	attempted chan struct{} // closed after the last attempt

	mu    sync.Mutex
	conns []*tls.Conn
}

func (h *holding) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.conns)
}

// hold opens connections of HTTP/2 from the address of the attacker, and keeps them until
// stop is called. start begins one.
func (w *world) hold(start func(*tls.Conn) error) (h *holding, stop func()) {
	h = &holding{attempted: make(chan struct{})}
	var attempts sync.WaitGroup
	slots := make(chan struct{}, 16)
	for range idleConnections {
		attempts.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			conn, err := w.dial(attacker, "h2")
			if err != nil {
				return
			}
			if err := start(conn); err != nil {
				_ = conn.Close()
				return
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			h.conns = append(h.conns, conn)
		})
	}
	go func() { attempts.Wait(); close(h.attempted) }()
	return h, func() {
		<-h.attempted
		for _, c := range h.conns {
			_ = c.Close()
		}
	}
}

// begin begins a connection of HTTP/2 (RFC 9113, 3.4), and waits for the settings of the
// edge, or for the end of an answer.
func begin(c *tls.Conn, asked bool) error {
	framer := http2.NewFramer(c, c)
	count := 0
	if asked {
		count = 1
	}
	err := request(c, framer, "idle.test", "/", count)
	for err == nil {
		var f http2.Frame
		if f, err = framer.ReadFrame(); err != nil {
			return err
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !asked && !f.IsAck() {
				return nil
			}
		case *http2.HeadersFrame:
			if f.StreamEnded() {
				return nil
			}
		case *http2.DataFrame:
			if f.StreamEnded() {
				return nil
			}
		}
	}
	return err
}

// request sends the preface of a connection of HTTP/2, and as many GETs of a path.
func request(c *tls.Conn, framer *http2.Framer, host, path string, count int) error {
	_, err := io.WriteString(c, http2.ClientPreface)
	err = errors.Join(err, framer.WriteSettings())
	var b bytes.Buffer
	encoder := hpack.NewEncoder(&b)
	for i := range uint32(count) {
		b.Reset()
		for _, h := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":path", path}, {":authority", host}} {
			err = errors.Join(err, encoder.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}))
		}
		err = errors.Join(err, framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: b.Bytes(), EndHeaders: true, EndStream: true}))
	}
	return err
}
