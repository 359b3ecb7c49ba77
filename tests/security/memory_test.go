package security

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/edge"
)

const (
	memory    = 64 // MB of the edge's task
	passwords = 5  // a second and source
)

// resident is the memory of all processes of the edge's task, in MB.
func resident(t *testing.T, w *world) int {
	t.Helper()
	return devtest.UsageOf(t, w.Cluster, "edge").KB >> 10
}

// testMemory holds as many connections as the edge takes, from many addresses, and
// as many requests as each may have. The edge stays within the memory of its task,
// and serves others when the attack is over.
func testMemory(t *testing.T, w *world) {
	w.register(t, "flooded", serve(t, "flooded"), "drover.route=flooded.test/")
	w.loaded(t, "flooded.test")
	before := resident(t, w)
	if before == 0 {
		t.Fatal("the edge has no process")
	}
	hello := func(c net.Conn, _ *tls.Conn) error {
		_, err := io.WriteString(c, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"+strings.Repeat("r", 100))
		return err
	}
	body := func(_ net.Conn, c *tls.Conn) error {
		_, err := io.WriteString(c, "PUT / HTTP/1.1\r\nHost: flooded.test\r\nContent-Length: 100000\r\n\r\nx")
		return err
	}
	// HAProxy keeps a connection whose streams have ended for a minute, and takes no
	// other in its place: some are left to the client.
	connections := map[edge.Kind]int{edge.HAProxy: memory*6 - 12, edge.Nginx: 600}[w.kind]
	for _, a := range []struct {
		name     string
		protocol string
		count    int
		start    func(net.Conn, *tls.Conn) error
	}{
		{"stalled streams", "h2", connections, streams},
		{"half handshakes", "", 2000, hello},
		{"stalled bodies", "http/1.1", 800, body},
	} {
		began := time.Now()
		most, open := flood(t, w, a.count, a.protocol, a.start)
		t.Logf("%s for %s: %d connections of %d were open; the edge had %d MB of %d, before %d MB", a.name, time.Since(began).Round(time.Second), open, a.count, most, memory, before)
		if most > memory {
			t.Errorf("%s: the edge had %d MB, want %d at most", a.name, most, memory)
		}
		devtest.Until(t, patience, "a client is served after "+a.name, func() bool {
			status, _ := w.status("GET / HTTP/1.1\r\nHost: flooded.test\r\nConnection: close\r\n\r\n")
			return status == http.StatusOK
		})
	}
}

// streams begins 32 requests whose bodies stall, on one connection of HTTP/2.
func streams(_ net.Conn, c *tls.Conn) error {
	framer := http2.NewFramer(c, nil)
	var b bytes.Buffer
	encoder := hpack.NewEncoder(&b)
	_, err := io.WriteString(c, http2.ClientPreface)
	err = errors.Join(err, framer.WriteSettings())
	for i := range uint32(32) {
		b.Reset()
		for _, h := range [][2]string{{":method", "POST"}, {":scheme", "https"}, {":path", "/"}, {":authority", "flooded.test"}, {"content-length", "100000"}} {
			err = errors.Join(err, encoder.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}))
		}
		err = errors.Join(err, framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: b.Bytes(), EndHeaders: true}), framer.WriteData(2*i+1, false, []byte("x")))
	}
	return err
}

// flood opens connections, 10 from each address, and holds them for some seconds.
// It returns how much memory the edge had at most, and how many connections it took.
func flood(t *testing.T, w *world, count int, protocol string, start func(net.Conn, *tls.Conn) error) (most, open int) {
	t.Helper()
	var wait, attempts sync.WaitGroup
	var taken atomic.Int64
	stop := make(chan struct{})
	slots := make(chan struct{}, 32)
	for i := range count {
		wait.Add(1)
		attempts.Add(1)
		go func() {
			defer wait.Done()
			slots <- struct{}{}
			raw, err := w.dialRaw(fmt.Sprintf("127.1.%d.%d", i/10/250, 1+i/10%250))
			var conn *tls.Conn
			if err == nil {
				defer raw.Close()
				if protocol != "" {
					conn = tls.Client(raw, &tls.Config{InsecureSkipVerify: true, ServerName: "edge.test", NextProtos: []string{protocol}})
					_ = raw.SetDeadline(time.Now().Add(20 * time.Second))
					err = conn.HandshakeContext(t.Context())
				}
			}
			if err == nil {
				err = start(raw, conn)
			}
			<-slots
			attempts.Done()
			if err != nil {
				return
			}
			taken.Add(1)
			_ = raw.SetDeadline(time.Time{})
			ended := make(chan struct{})
			go func() {
				_, _ = io.Copy(io.Discard, raw)
				close(ended)
			}()
			select {
			case <-stop:
			case <-ended:
			}
		}()
	}
	attempted := make(chan struct{})
	go func() { attempts.Wait(); close(attempted) }()
	var held <-chan time.Time // after all were opened
	for waiting := true; waiting; {
		select {
		case <-attempted:
			attempted, held = nil, time.After(2*time.Second)
		case <-held:
			waiting = false
		case <-time.After(200 * time.Millisecond):
		}
		most = max(most, resident(t, w))
		if held == nil || protocol != "h2" || w.kind != edge.HAProxy {
			continue
		}
		// Streams must not take the file descriptors that connections of others need.
		if r, err := w.send("127.0.0.70", "GET / HTTP/1.1\r\nHost: flooded.test\r\nConnection: close\r\n\r\n"); err != nil {
			t.Errorf("a client meanwhile: %v", err)
		} else if r.StatusCode != http.StatusOK && r.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("a client meanwhile: got %d, want 200 or 503", r.StatusCode)
		}
	}
	close(stop)
	wait.Wait()
	return most, int(taken.Load())
}
