package security

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/edge"
)

// attacker is the source address of attacks; clients have another.
const attacker = "127.0.0.66"

// Timeouts of the edge in these tests. A request may be silent for longer while
// the service has to answer, and a websocket always.
const (
	headerTimeout = 2 * time.Second
	clientTimeout = 3 * time.Second
	silence       = 5 * time.Second
)

// slow is a service that takes its time.
func slow(w http.ResponseWriter, r *http.Request) bool {
	switch r.URL.Path {
	case "/long":
		select {
		case <-r.Context().Done():
		case <-time.After(silence):
		}
		return false
	case "/events":
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
		case <-time.After(silence):
			fmt.Fprint(w, "data: late\n\n")
		}
		return true
	case "/socket":
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return true
		}
		defer conn.Close()
		// The answer to the key of RFC 6455, 1.3.
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
		_, _ = io.Copy(conn, rw)
		return true
	}
	return false
}

// testSlow holds connections with half TLS handshakes, half headers and bodies
// that stall. The edge ends them, and a client with another address is served
// meanwhile.
func testSlow(t *testing.T, w *world) {
	w.register(t, "slow", serve(t, "slow"), "drover.route=slow.test/")
	w.loaded(t, "slow.test")
	hello := []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("r", 100))
	attacks := []struct {
		name  string
		count int
		tls   bool
		start string
		drip  string
	}{
		{"half handshake", 300, false, string(hello), ""},
		{"half headers", 20, true, "GET / HTTP/1.1\r\nHost: slow.test\r\n", "X-A: b\r\n"},
		{"stalled body", 20, true, "PUT / HTTP/1.1\r\nHost: slow.test\r\nContent-Length: 100000\r\n\r\nx", ""},
	}
	began := time.Now()
	var wait sync.WaitGroup
	var lock sync.Mutex
	refused := map[string]int{}
	for _, a := range attacks {
		source := attacker
		if a.tls { // which the first attack leaves no connection
			source = "127.0.0.67"
		}
		for range a.count {
			wait.Add(1)
			go func() {
				defer wait.Done()
				var conn net.Conn
				var err error
				if a.tls {
					conn, err = w.dial(source)
				} else {
					conn, err = w.dialRaw(source)
				}
				if err != nil {
					lock.Lock()
					refused[a.name]++
					lock.Unlock()
					return
				}
				defer conn.Close()
				opened := time.Now()
				_, _ = io.WriteString(conn, a.start)
				ended := make(chan error, 1)
				go func() {
					_, err := io.Copy(io.Discard, conn)
					ended <- err
				}()
				tick := time.NewTicker(300 * time.Millisecond)
				defer tick.Stop()
				for {
					select {
					case err := <-ended:
						if e := net.Error(nil); errors.As(err, &e) && e.Timeout() {
							t.Errorf("%s: the edge still holds the connection after %s", a.name, time.Since(opened).Round(time.Second))
						}
						if time.Since(opened) < time.Second {
							lock.Lock()
							refused[a.name]++
							lock.Unlock()
						}
						return
					case <-tick.C:
						if a.drip != "" {
							_, _ = io.WriteString(conn, a.drip)
						}
					}
				}
			}()
		}
	}
	done := make(chan struct{})
	go func() { wait.Wait(); close(done) }()
	requests := 0
	var worst time.Duration
	for attacked := true; attacked; {
		select {
		case <-done:
			attacked = false
		case <-time.After(50 * time.Millisecond):
		}
		at := time.Now()
		if status, said := w.status("GET / HTTP/1.1\r\nHost: slow.test\r\nConnection: close\r\n\r\n"); status != http.StatusOK {
			t.Errorf("a client meanwhile: got %d %s, want 200", status, said)
		}
		worst = max(worst, time.Since(at))
		requests++
	}
	t.Logf("the attacks were over after %s; refused at once: %v; %d requests of a client meanwhile, the slowest took %s", time.Since(began).Round(time.Millisecond), refused, requests, worst.Round(time.Millisecond))
	if worst > 5*time.Second { // on a machine that has much else to do
		t.Errorf("the slowest request of a client took %s, want less than 5 s", worst)
	}
	if n := refused["half handshake"]; w.kind == edge.HAProxy && n < 150 {
		t.Errorf("one address had %d of 300 connections refused, want all above 128", n)
	}
}

// testSilent shows what the timeouts of clients must not end.
func testSilent(t *testing.T, w *world) {
	w.register(t, "silent", serve(t, "silent"), "drover.route=silent.test/")
	w.loaded(t, "silent.test")
	group := map[string]func(*testing.T){}
	for name, exchange := range map[string]func(*testing.T, net.Conn, *bufio.Reader){
		"long": func(t *testing.T, c net.Conn, r *bufio.Reader) {
			fmt.Fprint(c, "GET /long HTTP/1.1\r\nHost: silent.test\r\n\r\n")
			if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != http.StatusOK { //nolint:bodyclose // the connection is closed
				t.Errorf("got %+v, %v, want 200", res, err)
			}
		},
		"events": func(t *testing.T, c net.Conn, r *bufio.Reader) {
			fmt.Fprint(c, "GET /events HTTP/1.1\r\nHost: silent.test\r\nConnection: close\r\n\r\n")
			res, err := http.ReadResponse(r, nil) //nolint:bodyclose // the connection is closed
			if err != nil {
				t.Fatal(err)
			}
			if text, err := io.ReadAll(res.Body); err != nil || string(text) != "data: late\n\n" {
				t.Errorf("got %q, %v, want an event", text, err)
			}
		},
		"socket": func(t *testing.T, c net.Conn, r *bufio.Reader) {
			fmt.Fprint(c, "GET /socket HTTP/1.1\r\nHost: silent.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
			res, err := http.ReadResponse(r, nil) //nolint:bodyclose // the connection is closed
			if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("got %+v, %v, want 101", res, err)
			}
			select {
			case <-t.Context().Done():
			case <-time.After(silence):
			}
			fmt.Fprint(c, "hello")
			b := make([]byte, 5)
			if _, err := io.ReadFull(r, b); err != nil || string(b) != "hello" {
				t.Errorf("got %q, %v, want an echo", b, err)
			}
		},
	} {
		group[name] = func(t *testing.T) {
			conn, err := w.dial("")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			exchange(t, conn, bufio.NewReader(conn))
		}
	}
	devtest.Together(t, group)
}

// testLimit makes more requests than a route allows.
func testLimit(t *testing.T, w *world) {
	w.register(t, "limited", serve(t, "limited"), "drover.route=limited.test/", "drover.limit=5/m")
	w.register(t, "free", serve(t, "free"), "drover.route=free.test/")
	w.loaded(t, "free.test")
	count := func(source, host string) (served, rejected int) {
		for range 20 {
			r, err := w.send(source, "GET / HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
			switch {
			case err != nil:
				t.Errorf("%s: %v", host, err)
			case r.StatusCode == http.StatusOK:
				served++
			case r.StatusCode == http.StatusTooManyRequests:
				rejected++
			}
		}
		return served, rejected
	}
	if served, rejected := count(attacker, "limited.test"); served < 5 || served > 7 || served+rejected != 20 {
		t.Errorf("with a limit of 5: got %d served and %d rejected of 20", served, rejected)
	}
	if served, _ := count(attacker, "free.test"); served != 20 {
		t.Errorf("another route: got %d served of 20", served)
	}
	if served, _ := count("127.0.0.68", "limited.test"); served < 5 {
		t.Errorf("another address: got %d served, want 5", served)
	}
}

// testTrusted comes through an HTTP proxy that the edge trusts, and through one
// that it does not.
func testTrusted(t *testing.T, w *world) {
	w.register(t, "trusting", serve(t, "trusting"), "drover.route=trusting.test/", "drover.allow=203.0.113.0/24")
	w.register(t, "beside-trusting", serve(t, "beside-trusting"), "drover.route=beside-trusting.test/")
	w.loaded(t, "beside-trusting.test")
	request := "GET / HTTP/1.1\r\nHost: trusting.test\r\nConnection: close\r\nX-Forwarded-For: 198.51.100.1, 203.0.113.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-User: alice\r\n\r\n"
	r, err := w.send(trusted, request)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"X-Forwarded-For": "203.0.113.7", "X-Real-Ip": "203.0.113.7", "X-Forwarded-Proto": "http", "X-Forwarded-User": "alice", "X-Forwarded-Port": "9443"} {
		if got := strings.Join(r.arrived.Header[name], "|"); got != want {
			t.Errorf("%s: got %q, want %q (status %d)", name, got, want, r.StatusCode)
		}
	}
	if status, _ := w.status(request); status != http.StatusForbidden {
		t.Errorf("from an address that is not trusted: got %d, want 403", status)
	}
}

// testStalled has a body of HTTP/2 without a known length stall. The edge ends it,
// and does not end a quiet gRPC stream.
func testStalled(t *testing.T, w *world) {
	w.register(t, "stalled", serve(t, "stalled"), "drover.route=stalled.test/")
	w.register(t, "patient", serve(t, "patient"), "drover.route=patient.test/", "drover.timeout=response 1h")
	w.loaded(t, "stalled.test")
	w.loaded(t, "patient.test")
	group := map[string]func(*testing.T){}
	if w.kind == edge.HAProxy {
		group["many of one address with a long timeout for the answer"] = func(t *testing.T) {
			ended := make(chan bool, 40)
			for range cap(ended) {
				conn, err := w.dial("127.0.0.68")
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				_, _ = io.WriteString(conn, "PUT / HTTP/1.1\r\nHost: patient.test\r\nContent-Length: 100000\r\n\r\nx")
				go func() {
					_, err := io.Copy(io.Discard, conn)
					e := net.Error(nil)
					ended <- !errors.As(err, &e) || !e.Timeout()
				}()
			}
			some := false
			for range cap(ended) {
				if some = <-ended; some {
					break
				}
			}
			if !some {
				t.Error("the edge holds 40 stalled bodies of one address, want those above 32 ended")
			}
		}
	}
	for kind, quiet := range map[string]bool{"application/octet-stream": false, "application/grpc": w.kind == edge.HAProxy} {
		group[kind] = func(t *testing.T) {
			client := w.h2()
			defer client.CloseIdleConnections()
			in, out := io.Pipe()
			defer out.Close()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://stalled.test/", in)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", kind)
			ended := make(chan string, 1)
			go func() {
				res, err := client.Do(req)
				if err != nil {
					ended <- err.Error()
					return
				}
				_ = res.Body.Close()
				ended <- res.Status
			}()
			if _, err := out.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			select {
			case how := <-ended:
				if quiet || strings.HasPrefix(how, "200") || strings.Contains(how, "Client.Timeout") {
					t.Errorf("the stream ended: got %s, want it open: %t", how, quiet)
				}
				return
			case <-time.After(2 * silence):
				if !quiet {
					t.Errorf("the edge still holds the stream after %s", 2*silence)
				}
			}
			_ = out.Close()
			if how := <-ended; !strings.HasPrefix(how, "200") {
				t.Errorf("after the silence: got %s, want 200", how)
			}
		}
	}
	devtest.Together(t, group)
}
