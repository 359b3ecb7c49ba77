package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/edge"
)

// entrance is a dev cluster with an edge and a certificate of its CA.
type entrance struct {
	*running
	roots *x509.CertPool
	kind  edge.Kind
}

func startEdge(t *testing.T) *entrance {
	t.Helper()
	e := &entrance{running: startOn(t, devcluster.Options{ACME: true}), roots: x509.NewCertPool()}
	pem, err := os.ReadFile(e.CA())
	if err != nil || !e.roots.AppendCertsFromPEM(pem) {
		t.Fatalf("the CA of the dev cluster: %v", err)
	}
	return e
}

// deploy brings one kind of edge up, with the certificate that the stack of
// oCIS asks for: the address of the edge.
func (e *entrance) deploy(t *testing.T, kind edge.Kind, args ...string) {
	t.Helper()
	stack := map[edge.Kind]string{edge.HAProxy: "edge", edge.Nginx: "edge-nginx"}[kind]
	e.kind = kind
	e.drover.must(t, append([]string{"deploy", stack, "-e", "dev"}, args...)...)
}

// client speaks to the HTTPS port of the edge, whatever the host of a URL.
func (e *entrance) client(h2 bool) *http.Client {
	tr := &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: e.roots, ServerName: e.Loopback()},
		ForceAttemptHTTP2:   h2,
		MaxIdleConnsPerHost: 100,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			to := e.Loopback() + ":9443"
			if port == "80" {
				to = e.Loopback() + ":9080"
			}
			return (&net.Dialer{}).DialContext(ctx, network, to)
		},
	}
	if !h2 {
		tr.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// status is what drover edge status says.
func (e *entrance) status(t testing.TB) (edge.Report, int) {
	t.Helper()
	out, errs, code := e.drover.run(t.Context(), "edge", "status", "-o", "json")
	var r edge.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("drover edge status: %v\n%s%s", err, out, errs)
	}
	return r, code
}

// loaded waits until every edge has loaded the tags that are in Consul and
// reaches what is behind them.
func (e *entrance) loaded(t testing.TB) edge.Report {
	t.Helper()
	var r edge.Report
	eventually(t, "the edge has loaded its routes", func() bool {
		r, _ = e.status(t)
		return len(r.Instances) > 0 && !slices.ContainsFunc(r.Instances, func(i edge.Instance) bool { return !i.Current || i.Problem != "" }) &&
			!slices.ContainsFunc(r.Routes, edge.RouteStatus.Bad)
	})
	return r
}

// register puts a service at address into Consul, until the test is over.
func (e *entrance) register(t testing.TB, name, address string, tags ...string) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	var number int
	if _, err := fmt.Sscan(port, &number); err != nil {
		t.Fatal(err)
	}
	id := e.id(t, name, address)
	if err := e.consul.Agent().ServiceRegister(&capi.AgentServiceRegistration{ID: id, Name: name, Address: host, Port: number, Tags: tags}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.consul.Agent().ServiceDeregister(id) })
}

// backend is what stands behind the edge in these tests.
func backend(name string) http.Handler {
	mux := http.NewServeMux()
	// What arrived.
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Powered-By", "tests")
		if r.URL.Query().Has("hsts") {
			w.Header().Set("Strict-Transport-Security", "max-age=1")
		}
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(arrived{name, r.Method, r.URL.RequestURI(), r.Host, r.Proto, r.Header, n, hex.EncodeToString(sum.Sum(nil))})
	})
	// Server-sent events: numbers.
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := 0; ; i++ {
			if _, err := fmt.Fprintf(w, "data: %d\n\n", i); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	// A websocket, as far as the edge is concerned: a connection that is
	// something else from here on.
	mux.HandleFunc("/socket", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" || !strings.EqualFold(r.Header.Get("Connection"), "upgrade") {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		// RFC 6455, 4.2.2: HAProxy looks whether the answer is one to the key.
		accept := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(accept[:]))
		_, _ = io.Copy(conn, rw)
	})
	// As gRPC: each message is answered before the next one comes, and the
	// outcome is a trailer.
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Grpc-Status")
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			fmt.Fprintln(w, r.Proto, lines.Text())
			w.(http.Flusher).Flush()
		}
		w.Header().Set("Grpc-Status", "0")
	})
	return mux
}

type arrived struct {
	Backend, Method, URI, Host, Proto string
	Header                            http.Header
	Length                            int64
	SHA256                            string
}

// serve runs a backend in this process.
func serve(t *testing.T, name string) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(backend(name))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

func address(s *httptest.Server) string { return s.Listener.Addr().String() }

// TestEdge is the edge with cheap services behind it: each tag, what is wrong
// with tags, a configuration that is refused, and reloads and rolling updates
// under load, with HAProxy and with nginx.
func TestEdge(t *testing.T) {
	t.Parallel()
	e := startEdge(t)
	ca := []string{"ocis", "-e", "dev", "--directory", e.ACMEDirectory(), "--ca", e.ACMECA()}
	e.drover.must(t, append([]string{"cert", "prepare"}, ca...)...)
	hash := func(password string) string {
		out, err := exec.CommandContext(t.Context(), "openssl", "passwd", "-5", password).Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	if _, _, err := e.nomad.Variables().Create(&api.Variable{Path: "drover/users/admins", Items: api.VariableItems{"alice": hash("wonderland"), "clear": "text"}}, nil); err != nil {
		t.Fatal(err)
	}
	table := heading(t, "make load") + "\n\n| edge | renewals and rolls | clients | requests | failed |\n|---|---|---|---:|---:|\n"
	for _, kind := range []edge.Kind{edge.HAProxy, edge.Nginx} {
		t.Run(string(kind), func(t *testing.T) {
			args := []string{"-var", `users=["admins", "later"]`, "-var", "hsts_max_age=60"}
			if kind == edge.HAProxy {
				args = append(args, "-var", "tcp_ports=[9389, 9390]")
			} else { // two stacks that have the same job
				e.drover.must(t, "destroy", "edge", "-e", "dev", "-y")
			}
			e.deploy(t, kind, args...)
			e.drover.must(t, append([]string{"cert", "issue", "--no-check"}, ca...)...)
			eventually(t, "the certificate is served", func() bool {
				r, _ := e.status(t)
				return len(r.Instances) == 1 && len(r.Instances[0].Certificates) == 1 && r.Instances[0].Certificates[0].Match
			})
			t.Run("tags", func(t *testing.T) { testTags(t, e, hash) })
			t.Run("streams", func(t *testing.T) { testStreams(t, e) })
			if kind == edge.HAProxy {
				t.Run("tcp", func(t *testing.T) { testTCP(t, e) })
			}
			t.Run("bad tags", func(t *testing.T) { testBadTags(t, e) })
			t.Run("refused", func(t *testing.T) { testRefused(t, e) })
			t.Run("killed", func(t *testing.T) { testKilled(t, e) })
			t.Run("load", func(t *testing.T) { table += testLoad(t, e) })
			t.Run("proxy protocol in", func(t *testing.T) {
				e.deploy(t, kind, append(args, "-var", `accept_proxy=["127.0.0.0/8"]`)...)
				testAcceptProxy(t, e)
			})
		})
	}
	renew(t, "edge", table)
}

// id is that of a service in Consul which register has registered.
func (e *entrance) id(t testing.TB, name, address string) string {
	return fmt.Sprintf("%s-%s-%s", t.Name(), name, address)
}

// reached waits until no process from before the last reload, which lacks the
// route, takes connections.
func (e *entrance) reached(t testing.TB, url string) {
	t.Helper()
	client := e.client(false)
	defer client.CloseIdleConnections()
	eventually(t, url+" is reached", func() bool {
		for range 5 {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Close = true
			res, err := client.Do(req)
			if err != nil {
				return false
			}
			_ = res.Body.Close()
			if res.StatusCode != http.StatusOK {
				return false
			}
		}
		return true
	})
}

// do sends one request to the edge and wants this status.
func (e *entrance) do(t *testing.T, want int, method, url string, header http.Header, body io.Reader) (http.Header, []byte) {
	t.Helper()
	client := e.client(false)
	defer client.CloseIdleConnections()
	var res *http.Response
	for try := 1; ; try++ {
		req, err := http.NewRequestWithContext(t.Context(), method, url, body)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range header {
			req.Header[k] = v
		}
		if res, err = client.Do(req); err == nil {
			break
		}
		// An answer that comes before the body has been sent, and the end of
		// the connection, can be faster than the client.
		again, ok := body.(io.Seeker)
		if !ok || try == 5 || !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s %s: %v", method, url, err)
			return http.Header{}, nil
		}
		if _, err := again.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Errorf("%s %s: %v", method, url, err)
	}
	if res.StatusCode != want {
		t.Errorf("%s %s: status %d, want %d: %.200s", method, url, res.StatusCode, want, b)
	}
	return res.Header, b
}

// got is what a request to the edge is when it arrives.
func (e *entrance) got(t *testing.T, method, url string, header http.Header, body io.Reader) (http.Header, arrived) {
	t.Helper()
	res, b := e.do(t, http.StatusOK, method, url, header, body)
	var a arrived
	if err := json.Unmarshal(b, &a); err != nil {
		t.Errorf("%s %s: %v: %.200s", method, url, err, b)
		a.Header = http.Header{}
	}
	return res, a
}

// unsized is a body whose length nobody knows.
type unsized struct{ io.ReadSeeker }

func testTags(t *testing.T, e *entrance, hash func(string) string) {
	plain, app := serve(t, "plain"), serve(t, "app")
	e.register(t, "plain", address(plain), "drover.route=a.test/", "drover.http=serve", "foreign",
		"drover.redirect=old.test/ 301 https://new.test/x%20y/", "drover.redirect=old.test/dav 307 /remote.php/dav/", "drover.redirect=old.test/a.b/ 302 http://c.test/?q=1")
	e.register(t, "app", address(app), "drover.route=a.test/app", "drover.strip=/app/", "drover.max-body=1k",
		`drover.header=response set Content-Security-Policy default-src 'self'; x "1" 100%`, "drover.header=response remove X-Powered-By",
		"drover.header=request set X-Set a  b%20c", "drover.header=request remove X-Gone", "drover.header=request set Host other.test")
	e.register(t, "locked", address(plain), "drover.route=locked.test/", "drover.auth=admins", "drover.header=request remove Authorization")
	e.register(t, "later", address(plain), "drover.route=later.test/", "drover.auth=later")
	e.register(t, "inside", address(plain), "drover.route=inside.test/", "drover.allow=10.0.0.0/8,2001:db8::/32", "drover.allow=127.0.0.0/8")
	e.register(t, "outside", address(plain), "drover.route=outside.test/", "drover.allow=10.0.0.0/8")
	e.loaded(t)

	t.Run("route", func(t *testing.T) {
		res, a := e.got(t, "GET", "https://A.test/x?y=%2F", http.Header{"X-Forwarded-For": {"1.2.3.4"}, "Forwarded": {"for=1.2.3.4"}}, nil)
		if a.Backend != "plain" || a.URI != "/x?y=%2F" || !strings.EqualFold(a.Host, "a.test") {
			t.Errorf("%+v arrived", a)
		}
		if f := a.Header; f.Get("X-Forwarded-For") != "127.0.0.1" || len(f["X-Forwarded-For"]) != 1 || f.Get("Forwarded") != "" || f.Get("X-Forwarded-Proto") != "https" || !strings.EqualFold(f.Get("X-Forwarded-Host"), "a.test") {
			t.Errorf("headers %v", f)
		}
		if got := res.Values("Strict-Transport-Security"); !slices.Equal(got, []string{"max-age=60"}) {
			t.Errorf("HSTS is %q", got)
		}
		if res, _ := e.got(t, "GET", "https://a.test/?hsts", nil, nil); !slices.Equal(res.Values("Strict-Transport-Security"), []string{"max-age=1"}) {
			t.Errorf("HSTS of the service is %q", res.Values("Strict-Transport-Security"))
		}
		if _, b := e.do(t, http.StatusNotFound, "GET", "https://nobody.test/", nil, nil); !bytes.Contains(b, []byte("No service has a route")) {
			t.Errorf("without a route: %.100s", b)
		}
	})
	t.Run("http", func(t *testing.T) {
		res, a := e.got(t, "GET", "http://a.test/x", nil, nil)
		if a.Header.Get("X-Forwarded-Proto") != "http" || res.Get("Strict-Transport-Security") != "" {
			t.Errorf("%+v arrived, with HSTS %q", a, res.Get("Strict-Transport-Security"))
		}
		for from, to := range map[string]string{"http://a.test/app/x?y": "https://a.test:9443/app/x?y", "http://nobody.test/": "https://nobody.test:9443/", "http://locked.test/": "https://locked.test:9443/"} {
			if res, _ := e.do(t, http.StatusPermanentRedirect, "GET", from, nil, nil); res.Get("Location") != to {
				t.Errorf("%s leads to %s", from, res.Get("Location"))
			}
		}
	})
	t.Run("strip", func(t *testing.T) {
		for from, to := range map[string]string{"/app": "/", "/app/": "/", "/app/x/y?z=1": "/x/y?z=1", "/apple": "/apple"} {
			if _, a := e.got(t, "GET", "https://a.test"+from, nil, nil); a.URI != to || a.Backend != "app" {
				t.Errorf("%s arrives at %s as %s", from, a.Backend, a.URI)
			}
		}
	})
	t.Run("header", func(t *testing.T) {
		res, a := e.got(t, "GET", "https://a.test/app", http.Header{"X-Gone": {"1"}, "X-Set": {"2"}}, nil)
		if got := res.Values("Content-Security-Policy"); !slices.Equal(got, []string{`default-src 'self'; x "1" 100%`}) || res.Get("X-Powered-By") != "" {
			t.Errorf("response %v", res)
		}
		if got := a.Header.Values("X-Set"); !slices.Equal(got, []string{"a  b%20c"}) || a.Header.Get("X-Gone") != "" || a.Host != "other.test" {
			t.Errorf("request %v for %s", a.Header, a.Host)
		}
	})
	t.Run("max-body", func(t *testing.T) {
		e.got(t, "PUT", "https://a.test/app", nil, bytes.NewReader(make([]byte, 1024)))
		e.do(t, http.StatusRequestEntityTooLarge, "PUT", "https://a.test/app", nil, bytes.NewReader(make([]byte, 1025)))
		want := http.StatusLengthRequired
		if e.kind == edge.Nginx {
			want = http.StatusRequestEntityTooLarge
		}
		e.do(t, want, "PUT", "https://a.test/app", nil, unsized{bytes.NewReader(make([]byte, 2000))})
		req, err := http.NewRequestWithContext(t.Context(), "PUT", "https://a.test/app", unsized{bytes.NewReader(make([]byte, 2000))})
		if err != nil {
			t.Fatal(err)
		}
		res, err := e.client(true).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != want || res.ProtoMajor != 2 {
			t.Errorf("over %s: status %d", res.Proto, res.StatusCode)
		}
		if _, a := e.got(t, "PUT", "https://a.test/", nil, unsized{bytes.NewReader(make([]byte, 3<<20))}); a.Length != 3<<20 {
			t.Errorf("%d bytes arrived without a limit", a.Length)
		}
	})
	t.Run("redirect", func(t *testing.T) {
		for from, want := range map[string]struct {
			code int
			to   string
		}{
			"/a/b?c=%20d": {301, "https://new.test/x%20y/a/b?c=%20d"},
			"/":           {301, "https://new.test/x%20y/"},
			"/dav/x":      {307, "/remote.php/dav/"},
			"/a.b/c":      {302, "http://c.test/?q=1"},
			"/aXb/c":      {301, "https://new.test/x%20y/aXb/c"},
		} {
			res, _ := e.do(t, want.code, "GET", "https://old.test"+from, nil, nil)
			// nginx completes a path to an address.
			if got := strings.TrimPrefix(res.Get("Location"), "https://old.test:9443"); got != want.to && strings.TrimPrefix(got, "https://old.test") != want.to {
				t.Errorf("%s leads to %s, want %s", from, got, want.to)
			}
		}
	})
	t.Run("auth", func(t *testing.T) {
		basic := func(user, password string) http.Header {
			r := &http.Request{Header: http.Header{}}
			r.SetBasicAuth(user, password)
			return r.Header
		}
		res, _ := e.do(t, http.StatusUnauthorized, "GET", "https://locked.test/", nil, nil)
		if !strings.HasPrefix(res.Get("Www-Authenticate"), "Basic realm=") {
			t.Errorf("asks for %q", res.Get("Www-Authenticate"))
		}
		e.do(t, http.StatusUnauthorized, "GET", "https://locked.test/", basic("alice", "wrong"), nil)
		e.do(t, http.StatusUnauthorized, "GET", "https://locked.test/", basic("clear", "text"), nil)
		if _, a := e.got(t, "GET", "https://locked.test/", basic("alice", "wonderland"), nil); a.Header.Get("Authorization") != "" {
			t.Error("the password is passed on")
		}
		// A list that is not there yet keeps everybody out, and is read when
		// it comes.
		e.do(t, http.StatusUnauthorized, "GET", "https://later.test/", basic("bob", "builder"), nil)
		if _, _, err := e.nomad.Variables().Create(&api.Variable{Path: "drover/users/later", Items: api.VariableItems{"bob": hash("builder")}}, nil); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = e.nomad.Variables().Delete("drover/users/later", nil) })
		eventually(t, "the new list is read", func() bool {
			req, err := http.NewRequestWithContext(t.Context(), "GET", "https://later.test/", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header = basic("bob", "builder")
			res, err := e.client(false).Do(req)
			if err != nil {
				return false
			}
			defer res.Body.Close()
			return res.StatusCode == http.StatusOK
		})
	})
	t.Run("allow", func(t *testing.T) {
		e.got(t, "GET", "https://inside.test/", nil, nil)
		e.do(t, http.StatusForbidden, "GET", "https://outside.test/", nil, nil)
	})
	t.Run("sticky", func(t *testing.T) {
		for i := range 4 {
			e.register(t, "sticky", address(serve(t, fmt.Sprint("sticky", i))), "drover.route=sticky.test/", "drover.sticky=cookie")
		}
		eventually(t, "all four are reached", func() bool {
			r, _ := e.status(t)
			i := slices.IndexFunc(r.Routes, func(s edge.RouteStatus) bool { return s.Service == "sticky" })
			return i >= 0 && r.Routes[i].Passing == 4 && (r.Routes[i].Up == nil || *r.Routes[i].Up == 4)
		})
		e.reached(t, "https://sticky.test/")
		seen := map[string]bool{}
		for range 8 {
			res, first := e.got(t, "GET", "https://sticky.test/", nil, nil)
			seen[first.Backend] = true
			header := http.Header{}
			if e.kind == edge.HAProxy {
				c, err := http.ParseSetCookie(res.Get("Set-Cookie"))
				if err != nil || !c.Secure || !c.HttpOnly {
					t.Fatalf("cookie %q: %v", res.Get("Set-Cookie"), err)
				}
				header.Set("Cookie", c.Name+"="+c.Value)
			}
			for range 4 {
				if _, a := e.got(t, "GET", "https://sticky.test/", header, nil); a.Backend != first.Backend {
					t.Fatalf("%s follows %s", a.Backend, first.Backend)
				}
			}
		}
		if many := len(seen) > 1; many != (e.kind == edge.HAProxy) {
			t.Errorf("new clients met %v", seen)
		}
	})
	if e.kind == edge.HAProxy { // nginx answers 502
		t.Run("a request waits for a server", func(t *testing.T) { testWaits(t, e) })
		t.Run("a kept connection", func(t *testing.T) { testKept(t, e) })
	}
	t.Run("a POST is sent once", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		var posts, gets atomic.Int32
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					req, err := http.ReadRequest(bufio.NewReader(conn))
					switch {
					case err != nil: // a check
					case req.Method == "POST":
						posts.Add(1)
					default:
						gets.Add(1)
					}
				}()
			}
		}()
		e.register(t, "dies", l.Addr().String(), "drover.route=dies.test/")
		e.loaded(t)
		e.do(t, http.StatusBadGateway, "POST", "https://dies.test/", nil, strings.NewReader("pay 100"))
		if n := posts.Load(); n != 1 {
			t.Errorf("one POST arrived %d times", n)
		}
		if e.kind == edge.HAProxy {
			e.do(t, http.StatusBadGateway, "GET", "https://dies.test/", nil, nil)
			if n := gets.Load(); n < 2 {
				t.Errorf("one GET was tried %d times", n)
			}
		}
	})
}

// testWaits sends a request while no server is there.
func testWaits(t *testing.T, e *entrance) {
	s := serve(t, "late")
	e.register(t, "late", address(s), "drover.route=late.test/")
	e.loaded(t)
	e.reached(t, "https://late.test/")
	check := &capi.AgentCheckRegistration{ID: "late", Name: "late", ServiceID: e.id(t, "late", address(s)), AgentServiceCheck: capi.AgentServiceCheck{TTL: "1h"}}
	if err := e.consul.Agent().CheckRegister(check); err != nil { // it fails until somebody says something else
		t.Fatal(err)
	}
	eventually(t, "nobody is left", func() bool {
		r, _ := e.status(t)
		i := slices.IndexFunc(r.Routes, func(s edge.RouteStatus) bool { return s.Service == "late" })
		return i >= 0 && r.Routes[i].Up != nil && *r.Routes[i].Up == 0
	})
	passes := time.AfterFunc(time.Second, func() { _ = e.consul.Agent().UpdateTTL("late", "", capi.HealthPassing) })
	defer passes.Stop()
	e.got(t, "POST", "https://late.test/", nil, strings.NewReader("pay 100"))
}

// testKept sends requests on connections that a reload and a change of servers
// have outlived: the process that they belong to knows only the server of
// before. What arrives is the same.
func testKept(t *testing.T, e *entrance) {
	before, after := serve(t, "before"), serve(t, "after")
	e.register(t, "kept", address(before), "drover.route=kept.test/", "drover.http=serve")
	e.loaded(t)
	urls := []string{"https://kept.test/", "http://kept.test/"}
	clients := map[string]*http.Client{}
	get := func(url string) (a arrived, reused bool) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { reused = c.Reused }})
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := clients[url].Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
			t.Fatalf("%s: status %d, %v", url, res.StatusCode, err)
		}
		_, _ = io.Copy(io.Discard, res.Body) // or the connection is not kept
		return a, reused
	}
	first := map[string]arrived{}
	for _, url := range urls {
		e.reached(t, url)
		clients[url] = e.client(false)
		defer clients[url].CloseIdleConnections()
		first[url], _ = get(url)
	}

	e.register(t, "kept-other", address(before), "drover.route=kept-other.test/")
	e.loaded(t)
	e.reached(t, "https://kept-other.test/")
	e.register(t, "kept", address(after), "drover.route=kept.test/", "drover.http=serve")
	if err := e.consul.Agent().ServiceDeregister(e.id(t, "kept", address(before))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other server answers", func() bool {
		for range 5 {
			if _, a := e.got(t, "GET", urls[0], nil, nil); a.Backend != "after" {
				return false
			}
		}
		return true
	})
	before.CloseClientConnections()
	before.Listener.Close()
	for _, url := range urls {
		a, reused := get(url)
		if !reused {
			t.Errorf("%s: the connection was not kept", url)
		}
		was := first[url]
		was.Backend = "after"
		if fmt.Sprint(a) != fmt.Sprint(was) {
			t.Errorf("%s: what arrived was\n%v, and is\n%v", url, was, a)
		}
	}
}

// testStreams is what lives longer than a request.
func testStreams(t *testing.T, e *entrance) {
	s := serve(t, "streams")
	e.register(t, "streams", address(s), "drover.route=streams.test/")
	if e.kind == edge.HAProxy {
		e.register(t, "grpc", address(s), "drover.route=grpc.test/", "drover.protocol=h2c")
	}
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
	if e.kind == edge.HAProxy {
		t.Run("h2c", func(t *testing.T) {
			in, out := io.Pipe()
			req, err := http.NewRequestWithContext(t.Context(), "POST", "https://grpc.test/stream", in)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("TE", "trailers")
			res, err := e.client(true).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			answers := bufio.NewReader(res.Body)
			for i := range 3 {
				fmt.Fprintln(out, i)
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

// testBadTags registers what nobody should: a good route keeps working, every
// bad service is named, and the edge takes each configuration.
func testBadTags(t *testing.T, e *entrance) {
	s := serve(t, "good")
	e.register(t, "good", address(s), "drover.route=good.test/")
	rnd := rand.New(rand.NewSource(1))
	pieces := []string{
		"drover.", "route", "redirect", "tcp", "sni", "protocol", "strip", "sticky", "auth", "allow", "max-body", "header", "http", "send-proxy", "=", "=", "=",
		"a.test", "/", "x", " ", "301", "999", "https://b.test/", "10.0.0.0/8", "10.0.0.0/33", "::1", "1::2::3", ",", "request", "response", "set", "remove", "Host", "X-A", "Connection",
		"\"", "'", "\\", "$", "$host", "%", "%[src]", "{{", "}}", "{", "}", ";", "\n", "\r", "\t", "#", "`", "ü", "\x00", strings.Repeat("y", 3000), "good.test", "h2c", "cookie", "10k", "serve", "v2",
	}
	bad := map[string]bool{}
	for i := range 150 {
		name := fmt.Sprint("bad-", i)
		tags := []string{fmt.Sprintf("drover.route=bad-%d.test/", i)}
		for range 1 + rnd.Intn(3) {
			tag := "drover."
			if f := edge.Forms(); rnd.Intn(2) == 0 {
				tag = f[rnd.Intn(len(f))].Example // a good one with something behind it
			}
			for range rnd.Intn(7) {
				tag += pieces[rnd.Intn(len(pieces))]
			}
			tags = append(tags, tag)
		}
		e.register(t, name, address(s), tags...)
		bad[name] = true
	}
	// Good, but as large as it may be.
	e.register(t, "large", address(s), "drover.route=large.test/"+strings.Repeat("p", 1500), "drover.route="+strings.Repeat("h.", 120)+"test/",
		"drover.header=response set X-Large "+strings.Repeat(`"`, 1900), "drover.header=response set X-Larger "+strings.Repeat("%", 1900),
		"drover.allow="+strings.TrimSuffix(strings.Repeat("127.0.0.0/8,", 160), ","))
	e.register(t, "Upper", address(s), "drover.route=upper.test/")
	e.register(t, "no_name", address(s), "drover.route=upper.test/")
	for _, name := range []string{"metrics", "http", "https", "no", "consul-resolver"} {
		e.register(t, name, address(s), "drover.route="+name+".test/")
	}
	r := e.loaded(t)
	for _, i := range r.Instances {
		if i.Refused != "" {
			t.Errorf("refused: %s", i.Refused)
		}
	}
	e.got(t, "GET", "https://good.test/", nil, nil)
	e.got(t, "GET", "https://metrics.test/", nil, nil)
	if res, _ := e.do(t, http.StatusOK, "GET", "https://large.test/"+strings.Repeat("p", 1500), nil, nil); len(res.Get("X-Large")) != 1900 || len(res.Get("X-Larger")) != 1900 {
		t.Errorf("%d and %d bytes of large headers", len(res.Get("X-Large")), len(res.Get("X-Larger")))
	}
	e.do(t, http.StatusNotFound, "GET", "https://upper.test/", nil, nil)
	// What status says is served is served, and the rest is not.
	served := map[string]bool{}
	for _, s := range r.Routes {
		if s.Kind == edge.HTTP {
			served[s.From] = true
		}
	}
	named := map[string]bool{}
	for _, p := range r.Problems {
		named[p.Service] = true
		delete(bad, p.Service)
	}
	for name := range map[string]bool{"Upper": true, "no_name": true} {
		if !named[name] {
			t.Errorf("%s is not named", name)
		}
	}
	for i := range 150 {
		host := fmt.Sprintf("bad-%d.test", i)
		res, _ := e.do2(t, "https://"+host+"/")
		if got := res != http.StatusNotFound; got != served[host+"/"] {
			t.Errorf("%s answers %d, and the status says that it is served: %v", host, res, served[host+"/"])
		}
	}
	t.Logf("%d of 150 services are named, %d routes are served", 150-len(bad), len(served))
}

// do2 is the status of a GET, whatever it is.
func (e *entrance) do2(t *testing.T, url string) (int, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := e.client(false)
	defer client.CloseIdleConnections()
	res, err := client.Do(req)
	if err != nil {
		t.Errorf("GET %s: %v", url, err)
		return 0, err
	}
	res.Body.Close()
	return res.StatusCode, nil
}

// testRefused gives the edge a certificate that none is: it goes on with the
// one before, and status says why.
func testRefused(t *testing.T, e *entrance) {
	s := serve(t, "kept")
	e.register(t, "kept", address(s), "drover.route=kept.test/")
	e.loaded(t)
	v, _, err := e.nomad.Variables().Peek("drover/certs/public", nil)
	if err != nil {
		t.Fatal(err)
	}
	bundle := v.Items["bundle"]
	put := func(bundle string) {
		t.Helper()
		v.Items["bundle"] = bundle
		if _, _, err := e.nomad.Variables().Update(v, nil); err != nil {
			t.Fatal(err)
		}
	}
	put("no certificate")
	var r edge.Report
	eventually(t, "status says that the configuration was refused", func() bool {
		var code int
		r, code = e.status(t)
		return code == 1 && len(r.Instances) == 1 && r.Instances[0].Refused != ""
	})
	if why := r.Instances[0].Refused; !strings.Contains(why, "public.pem") || strings.Contains(why, e.Dir()) {
		t.Errorf("the reason is %q", why)
	}
	t.Log(r.Instances[0].Refused)
	if out, _, _ := e.drover.run(t.Context(), "edge", "status"); !strings.Contains(out, "refused") || !strings.Contains(out, "the one before is served") {
		t.Errorf("status says\n%s", out)
	}
	if out, _, code := e.drover.run(t.Context(), "cert", "status", "public"); code != 1 || !strings.Contains(out, "refused its last configuration and serves the one before: ") {
		t.Errorf("status of the certificate: %d\n%s", code, out)
	}
	e.got(t, "GET", "https://kept.test/", nil, nil)
	put(bundle)
	eventually(t, "the configuration is taken", func() bool {
		r, _ = e.status(t)
		return len(r.Instances) == 1 && r.Instances[0].Refused == ""
	})
	e.got(t, "GET", "https://kept.test/", nil, nil)
}

// testKilled kills the edge and changes what it has to load before Nomad has
// started it again: Nomad must not give it up.
func testKilled(t *testing.T, e *entrance) {
	s := serve(t, "killed")
	for i := range 2 {
		for _, pid := range e.ofEdge(t) {
			if err := kill(pid); err != nil && !errors.Is(err, syscall.ESRCH) { // with the one before
				t.Fatal(err)
			}
		}
		name := fmt.Sprintf("killed-%d", i)
		e.register(t, name, address(s), "drover.route="+name+".test/")
		e.reached(t, "https://"+name+".test/")
	}
}

// ofEdge lists the processes of the edge's task: those with its environment,
// and the first of nginx, which writes its title over that.
func (e *entrance) ofEdge(t testing.TB) []int {
	t.Helper()
	var pids []int
	add := func(text string) {
		pid, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	for _, f := range glob(t, "/proc/[0-9]*/environ") {
		env, err := os.ReadFile(f)
		if err == nil && bytes.Contains(env, []byte("NOMAD_JOB_ID=edge\x00")) && bytes.Contains(env, []byte("NOMAD_TASK_DIR="+e.Dir()+"/")) {
			add(filepath.Base(filepath.Dir(f)))
		}
	}
	if e.kind == edge.Nginx {
		for _, f := range glob(t, filepath.Join(e.Dir(), "alloc/*/nginx/local/nginx.pid")) {
			pid, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			add(string(pid))
		}
	}
	if len(pids) == 0 {
		t.Fatal("the edge has no process")
	}
	return pids
}

func glob(t testing.TB, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return files
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
