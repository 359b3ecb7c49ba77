package e2e

import (
	"bufio"
	"cmp"
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
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/edge"
)

// entrance is a dev cluster with an edge and a certificate of its CA.
type entrance struct {
	*running
	roots *x509.CertPool
	kind  edge.Kind
	https int // its ports; those of the environment dev when 0
	http  int
	seen  *devtest.Shared[seen]

	group *devtest.Group  // nil for a test that runs alone
	names map[string]bool // services that the test has registered
}

// seen is what edge.Look found: the requests of a look are many.
type seen struct {
	*edge.Report
	err error
}

// look returns what edge.Look finds now.
func (e *entrance) look(ctx context.Context) (*edge.Report, error) {
	s := e.seen.Get(func() seen {
		r, err := edge.Look(ctx, e.nomad, e.consul, edge.Options{Store: acme.NewStore(acme.NomadVariables(e.nomad))})
		return seen{r, err}
	})
	return s.Report, s.err
}

// in returns the entrance for a subtest of a group, or for one that runs beside
// others without a group.
func (e *entrance) in(g *devtest.Group) *entrance {
	of := *e
	of.group, of.names = g, map[string]bool{}
	return &of
}

// together runs subtests side by side. The edge loads their services at once.
func (e *entrance) together(t *testing.T, tests map[string]func(*testing.T, *entrance)) {
	t.Helper()
	group := map[string]func(*testing.T, *devtest.Group){}
	for name, test := range tests {
		group[name] = func(t *testing.T, g *devtest.Group) {
			test(t, e.in(g))
		}
	}
	devtest.TogetherIn(t, group)
}

func startEdge(t *testing.T) *entrance {
	t.Helper()
	e := &entrance{running: startOn(t, devcluster.Options{ACME: true}), roots: x509.NewCertPool(), seen: &devtest.Shared[seen]{}, names: map[string]bool{}}
	pem, err := os.ReadFile(e.CA())
	if err != nil || !e.roots.AppendCertsFromPEM(pem) {
		t.Fatalf("the CA of the dev cluster: %v", err)
	}
	return e
}

// stacks are those of the kinds of edges.
var stacks = map[edge.Kind]string{edge.HAProxy: "edge", edge.Nginx: "edge-nginx"}

// deploy brings one kind of edge up, with the certificate that the stack of
// oCIS asks for: the address of the edge.
func (e *entrance) deploy(t *testing.T, kind edge.Kind, args ...string) {
	t.Helper()
	e.kind = kind
	e.drover.must(t, append([]string{"deploy", stacks[kind], "-e", "dev"}, args...)...)
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
			to := cmp.Or(e.https, 9443)
			if port == "80" {
				to = cmp.Or(e.http, 9080)
			}
			return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(e.Loopback(), strconv.Itoa(to)))
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

// loaded waits until every edge has loaded the tags that are in Consul, of this test
// and of those beside it, and reaches what is behind the routes of this test.
func (e *entrance) loaded(t testing.TB) edge.Report {
	t.Helper()
	e.group.Registered()
	devtest.Cataloged(t, 2*time.Minute, e.consul)
	var r *edge.Report
	eventually(t, "the edge has loaded its routes", func() bool {
		var err error
		if r, err = e.look(t.Context()); err != nil {
			return false
		}
		return len(r.Instances) > 0 && !slices.ContainsFunc(r.Instances, func(i edge.Instance) bool { return !i.Current || i.Problem != "" }) &&
			!slices.ContainsFunc(r.Routes, func(s edge.RouteStatus) bool { return e.names[s.Service] && s.Bad() })
	})
	return *r
}

// register puts a service at address into Consul, until the test and those beside it
// are over.
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
	e.names[name] = true
	e.group.Cleanup(t, func() { _ = e.consul.Agent().ServiceDeregister(id) })
}

// backend is what stands behind the edge in these tests.
func backend(name string) http.Handler {
	mux := http.NewServeMux()
	// Answers with the request that arrived.
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
// under load. HAProxy and nginx have a cluster each and run side by side, but in make
// load, which measures.
func TestEdge(t *testing.T) {
	t.Parallel()
	var haproxy, nginx string
	table := heading(t, "make load") + "\n\n| edge | renewals and rolls | clients | requests | failed |\n|---|---|---|---:|---:|\n"
	kinds := map[string]func(*testing.T){
		"haproxy": func(t *testing.T) { haproxy = testEdge(t, edge.HAProxy) },
		"nginx":   func(t *testing.T) { nginx = testEdge(t, edge.Nginx) },
	}
	if os.Getenv(envLoad) == "" {
		devtest.Together(t, kinds)
	} else { // each with the whole machine, for the table
		for _, name := range []string{"haproxy", "nginx"} {
			t.Run(name, kinds[name])
		}
	}
	renew(t, "edge", table+haproxy+nginx)
}

// testEdge tests one kind of edge. It returns the lines of the table of testLoad.
//
// A new subtest that only registers services and sends requests belongs to a group of
// together, where it costs no time: it has services and hosts of its own, and registers
// them before it first calls loaded. One that counts what a process of the edge does, or
// disturbs the edge, runs alone, after the groups. Each deploy costs about 15 s.
func testEdge(t *testing.T, kind edge.Kind) (lines string) {
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
	args := []string{"-var", `users=["admins", "later"]`, "-var", "hsts_max_age=60", "-var", "drain=30s"}
	if kind == edge.HAProxy {
		args = append(args, "-var", "tcp_ports=[9389, 9390]")
	}

	// With the limits that an edge has by default. The streams are quiet for longer
	// than the timeouts while the routes of others come and go.
	e.deploy(t, kind, args...)
	e.drover.must(t, append([]string{"cert", "issue", "--no-check"}, ca...)...)
	eventually(t, "the certificate is served", func() bool {
		r, _ := e.status(t)
		return len(r.Instances) == 1 && len(r.Instances[0].Certificates) == 1 && r.Instances[0].Certificates[0].Match
	})
	wait := devtest.Start(t, "defaults", func(t *testing.T) { testDefaults(t, e.in(nil)) })
	defer wait()
	group := map[string]func(*testing.T, *entrance){"streams": testStreams}
	if kind == edge.HAProxy {
		group["tcp"] = testTCP
	} else {
		group["not of nginx"] = testNotOfNginx
	}
	e.together(t, group)
	t.Run("bad tags", func(t *testing.T) { testBadTags(t, e) })
	t.Run("refused", func(t *testing.T) { testRefused(t, e) })
	wait() // a service that goes would write the file again that the next subtest changes
	t.Run("untold", func(t *testing.T) { testUntold(t, e) })
	t.Run("killed", func(t *testing.T) { testKilled(t, e) })

	// With limits that the load does not reach.
	args = append(args, "-var", "requests_per_source=100000", "-var", "header_timeout=60s")
	e.deploy(t, kind, args...)
	t.Run("tags", func(t *testing.T) { testTags(t, e, hash) })
	t.Run("restarted", func(t *testing.T) { testRestarted(t, e) })
	if kind == edge.HAProxy { // nginx has no metrics of its backends
		t.Run("progressive", func(t *testing.T) { testProgressive(t, e) })
	}
	t.Run("load", func(t *testing.T) { lines = testLoad(t, e) })

	t.Run("proxy protocol in", func(t *testing.T) {
		e.deploy(t, kind, append(args, "-var", `accept_proxy=["127.0.0.0/8"]`)...)
		testAcceptProxy(t, e)
	})
	return lines
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
