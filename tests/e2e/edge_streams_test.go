package e2e

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/edge"
)

// testStreams is what lives longer than a request.
func testStreams(t *testing.T, e *entrance) {
	s := serve(t, "streams")
	e.register(t, "streams", address(s), "drover.route=streams.test/")
	e.register(t, "grpc", address(s), "drover.route=grpc.test/", "drover.protocol=h2c")
	e.loaded(t)
	t.Run("websocket", func(t *testing.T) {
		ping := e.socket(t, "streams.test")
		for i := range 3 {
			if err := ping(fmt.Sprint("message ", i)); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("h2", func(t *testing.T) {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "https://streams.test/", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := e.client(true).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.Proto != "HTTP/2.0" || res.StatusCode != http.StatusOK {
			t.Errorf("%s %s", res.Proto, res.Status)
		}
	})
	t.Run("h2c", func(t *testing.T) {
		in, out := io.Pipe()
		req, err := http.NewRequestWithContext(t.Context(), "POST", "https://grpc.test/stream", in)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("TE", "trailers")
		go fmt.Fprintln(out, 0) // nginx answers after the first message
		res, err := e.client(true).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		answers := bufio.NewReader(res.Body)
		for i := range 3 {
			if i > 0 {
				fmt.Fprintln(out, i)
			}
			if line, err := answers.ReadString('\n'); line != fmt.Sprintf("HTTP/2.0 %d\n", i) {
				t.Fatalf("answer %q: %v", line, err)
			}
		}
		out.Close()
		if _, err := io.Copy(io.Discard, answers); err != nil || res.Trailer.Get("Grpc-Status") != "0" {
			t.Errorf("trailers %v: %v", res.Trailer, err)
		}
	})
}

// socket opens a websocket; what it returns sends a line and wants it back.
func (e *entrance) socket(t *testing.T, host string) func(string) error {
	t.Helper()
	conn, err := tls.Dial("tcp", e.Loopback()+":9443", &tls.Config{RootCAs: e.roots, ServerName: e.Loopback()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "GET /socket HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", host)
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %s", res.Status)
	}
	return func(text string) error {
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		fmt.Fprintln(conn, text)
		if line, err := r.ReadString('\n'); err != nil || line != text+"\n" {
			return fmt.Errorf("%q came back: %w", line, err)
		}
		return nil
	}
}

// testTCP is what HAProxy passes on as it is: by port, by name, with the PROXY
// protocol.
func testTCP(t *testing.T, e *entrance) {
	// A TLS server of its own, which says what it was sent before TLS.
	own := httptest.NewUnstartedServer(backend("own"))
	own.StartTLS()
	t.Cleanup(own.Close)
	echo := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					b := make([]byte, 256)
					n, _ := conn.Read(b)
					_, _ = conn.Write(b[:n])
				}()
			}
		}()
		return l.Addr().String()
	}
	plain := serve(t, "beside")
	e.register(t, "own", address(own), "drover.sni=own.test")
	e.register(t, "beside", address(plain), "drover.route=beside.test/")
	e.register(t, "echo", echo(), "drover.tcp=9389", "drover.send-proxy=v1")
	e.register(t, "shut", echo(), "drover.tcp=9390", "drover.allow=10.0.0.0/8")
	e.register(t, "greedy", echo(), "drover.tcp=22", "drover.tcp=9389")
	r := e.loaded(t)
	for _, want := range []string{"does not listen on port 22", "9389 belongs to echo already"} {
		if !slices.ContainsFunc(r.Problems, func(p edge.Problem) bool { return p.Service == "greedy" && strings.Contains(p.Message, want) }) {
			t.Errorf("status does not say %q: %+v", want, r.Problems)
		}
	}

	// Its own certificate, not the edge's.
	conn, err := tls.Dial("tcp", e.Loopback()+":9443", &tls.Config{ServerName: "own.test", InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if !conn.ConnectionState().PeerCertificates[0].Equal(own.Certificate()) {
		t.Error("own.test is served with another certificate")
	}
	// The others are served as before, and know their client.
	if _, a := e.got(t, "GET", "https://beside.test/", nil, nil); a.Backend != "beside" || a.Header.Get("X-Forwarded-For") != "127.0.0.1" {
		t.Errorf("%+v arrived", a)
	}
	tcp := func(port string) string {
		conn, err := net.Dial("tcp", e.Loopback()+":"+port)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "hello")
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		b, _ := io.ReadAll(conn)
		return string(b)
	}
	if got := tcp("9389"); !strings.HasPrefix(got, "PROXY TCP4 127.0.0.1 "+e.Loopback()+" ") {
		t.Errorf("the echo says %q", got)
	}
	if got := tcp("9390"); got != "" {
		t.Errorf("who is not allowed in gets %q", got)
	}
}

// testAcceptProxy comes through a load balancer that speaks the PROXY
// protocol.
func testAcceptProxy(t *testing.T, e *entrance) {
	// The look at what is served comes past the load balancer.
	eventually(t, "the certificate is seen to be served", func() bool {
		_, _, code := e.drover.run(t.Context(), "cert", "verify", "public", "--at", e.Loopback()+":9443")
		return code == 0
	})
	s := serve(t, "behind")
	e.register(t, "behind", address(s), "drover.route=behind.test/", "drover.allow=203.0.113.0/24")
	eventually(t, "the address of the client arrives", func() bool {
		raw, err := net.Dial("tcp", e.Loopback()+":9443")
		if err != nil {
			return false
		}
		defer raw.Close()
		_ = raw.SetDeadline(time.Now().Add(5 * time.Second))
		fmt.Fprintf(raw, "PROXY TCP4 203.0.113.7 %s 4711 443\r\n", e.Loopback())
		conn := tls.Client(raw, &tls.Config{RootCAs: e.roots, ServerName: e.Loopback()})
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: behind.test\r\nConnection: close\r\n\r\n")
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return false
		}
		defer res.Body.Close()
		var a arrived
		return json.NewDecoder(res.Body).Decode(&a) == nil && a.Header.Get("X-Forwarded-For") == "203.0.113.7"
	})
}

// testDefaults has streams that are quiet for longer than client_timeout, and a large
// upload, with the limits that an edge has by default.
func testDefaults(t *testing.T, e *entrance) {
	const quiet, size = 35 * time.Second, 400 << 20
	s := serve(t, "defaults")
	e.register(t, "defaults", address(s), "drover.route=defaults.test/")
	e.register(t, "calls", address(s), "drover.protocol=h2c", "drover.route=calls.test/")
	e.loaded(t)
	wait := func(t *testing.T) {
		select {
		case <-t.Context().Done():
		case <-time.After(quiet):
		}
	}
	devtest.Together(t, map[string]func(*testing.T){
		"websocket": func(t *testing.T) {
			ping := e.socket(t, "defaults.test")
			wait(t)
			if err := ping("late"); err != nil {
				t.Error(err)
			}
		},
		"events": func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), "GET", "https://defaults.test/events", nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := e.client(false).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			lines := bufio.NewScanner(res.Body)
			for began, i := time.Now(), 0; time.Since(began) < quiet; i++ {
				if !lines.Scan() || lines.Text() != fmt.Sprintf("data: %d", i) || !lines.Scan() {
					t.Fatalf("event %d: got %q, %v", i, lines.Text(), lines.Err())
				}
			}
		},
		"call": func(t *testing.T) {
			in, out := io.Pipe()
			req, err := http.NewRequestWithContext(t.Context(), "POST", "https://calls.test/stream", in)
			if err != nil {
				t.Fatal(err)
			}
			req.Header = http.Header{"Te": {"trailers"}, "Content-Type": {"application/grpc"}}
			go fmt.Fprintln(out, 0)
			res, err := e.client(true).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			answers := bufio.NewReader(res.Body)
			for i := range 2 {
				if i > 0 {
					fmt.Fprintln(out, i)
				}
				if line, err := answers.ReadString('\n'); line != fmt.Sprintf("HTTP/2.0 %d\n", i) {
					t.Fatalf("answer %q: %v", line, err)
				}
				if i == 0 {
					wait(t)
				}
			}
			out.Close()
			if _, err := io.Copy(io.Discard, answers); err != nil || res.Trailer.Get("Grpc-Status") != "0" {
				t.Errorf("trailers %v: %v", res.Trailer, err)
			}
		},
		"upload": func(t *testing.T) {
			body := &slow{left: size, rnd: rand.New(rand.NewSource(1)), sum: sha256.New()}
			req, err := http.NewRequestWithContext(t.Context(), "PUT", "https://defaults.test/upload", body)
			if err != nil {
				t.Fatal(err)
			}
			req.ContentLength = size
			res, err := e.client(false).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			var a arrived
			if err := json.NewDecoder(res.Body).Decode(&a); err != nil || a.Length != size || a.SHA256 != hex.EncodeToString(body.sum.Sum(nil)) {
				t.Errorf("of the upload %d bytes arrived: %v", a.Length, err)
			}
		},
	})
}
