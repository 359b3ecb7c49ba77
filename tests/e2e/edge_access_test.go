package e2e

import (
	"bufio"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drover-nomad/drover/acme/pki"
	"github.com/drover-nomad/drover/edge"
)

func testForwardAuth(t *testing.T, e *entrance) {
	asked := make(chan *http.Request, 1000)
	var answer atomic.Pointer[string] // instead of one in HTTP
	authn := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r
		if text := answer.Load(); text != nil {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, *text)
			conn.Close()
			return
		}
		user, _ := r.Cookie("user")
		w.Header().Set("X-User", "nobody")
		switch {
		case user == nil:
			http.SetCookie(w, &http.Cookie{Name: "state", Value: "1"})
			http.SetCookie(w, &http.Cookie{Name: "csrf", Value: "2"})
			http.Redirect(w, r, "https://login.test/?rd="+r.Header.Get("X-Forwarded-Uri"), http.StatusFound)
		case user.Value == "banned":
			w.WriteHeader(http.StatusForbidden)
		case user.Value == "expired":
			w.Header().Set("Www-Authenticate", "Bearer realm=test")
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintln(w, "log in again")
		case user.Value == "hasty":
			w.WriteHeader(http.StatusTooManyRequests)
			fmt.Fprintln(w, "later")
		case user.Value == "broken":
			w.WriteHeader(http.StatusInternalServerError)
		default:
			w.Header().Set("X-User", user.Value)
			w.WriteHeader(http.StatusAccepted)
		}
	}))
	defer authn.Close()
	var reached atomic.Int32
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reached.Add(1)
		n, _ := io.Copy(io.Discard, r.Body)
		_ = json.NewEncoder(w).Encode(arrived{Backend: "app", Method: r.Method, URI: r.URL.RequestURI(), Header: r.Header, Length: n})
	}))
	defer app.Close()
	e.register(t, "authn", address(authn))
	id := e.id(t, "authn", address(authn))
	e.register(t, "guarded", address(app), "drover.route=guarded.test/", "drover.forward-auth=authn/check X-User,X-Groups")
	e.register(t, "stranger", address(app), "drover.route=stranger.test/", "drover.forward-auth=other/")
	e.register(t, "pathless", address(app), "drover.route=pathless.test/", "drover.forward-auth=authn")
	e.loaded(t)
	cookie := func(user string) http.Header { return http.Header{"Cookie": {"user=" + user}} }
	url := "https://guarded.test/"
	eventually(t, "the authenticator is asked", func() bool {
		res, err := e.client(false).Do(e.request(t, "GET", url, cookie("alice")))
		if err != nil {
			return false
		}
		defer res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	last := func() (r *http.Request) {
		t.Helper()
		for len(asked) > 0 {
			r = <-asked
		}
		if r == nil {
			t.Fatal("the authenticator was not asked")
		}
		return r
	}

	t.Run("allowed", func(t *testing.T) {
		header := cookie("alice")
		header["X-User"], header["X-Groups"], header["X-Forwarded-Uri"] = []string{"root"}, []string{"admins"}, []string{"/public"}
		_, a := e.got(t, "POST", url+"a%20b?c=d", header, strings.NewReader("pay 100"))
		if a.Method != "POST" || a.Length != 7 || a.URI != "/a%20b?c=d" {
			t.Errorf("%+v arrived", a)
		}
		if got := a.Header.Values("X-User"); !slices.Equal(got, []string{"alice"}) || a.Header.Get("X-Groups") != "" {
			t.Errorf("headers %v arrived, want those of the authenticator", a.Header)
		}
		r := last()
		if r.Method != "GET" || r.URL.Path != "/check" || r.Header.Get("X-User") != "" || r.Header.Get("X-Groups") != "" {
			t.Errorf("the authenticator got %s %s with %v", r.Method, r.URL, r.Header)
		}
		for name, want := range map[string]string{"X-Forwarded-Method": "POST", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "guarded.test", "X-Forwarded-Uri": "/a%20b?c=d", "X-Forwarded-For": "127.0.0.1", "Cookie": "user=alice"} {
			if got := r.Header.Values(name); !slices.Equal(got, []string{want}) {
				t.Errorf("the authenticator got %s %q, want %q", name, got, want)
			}
		}
	})
	t.Run("denied", func(t *testing.T) {
		before := reached.Load()
		res, _ := e.do(t, http.StatusFound, "GET", url+"x?y=1", nil, nil)
		if res.Get("Location") != "https://login.test/?rd=/x?y=1" || !slices.Equal(res.Values("Set-Cookie"), []string{"state=1", "csrf=2"}) {
			t.Errorf("got headers %v, want those of the authenticator", res)
		}
		res, _ = e.do(t, http.StatusFound, "POST", url+"x?y=1", nil, strings.NewReader(strings.Repeat("x", 64<<10)))
		if res.Get("Location") != "https://login.test/?rd=/x?y=1" || !strings.HasPrefix(res.Get("Set-Cookie"), "state=1") {
			t.Errorf("with a body: got headers %v, want those of the authenticator", res)
		}
		e.do(t, http.StatusForbidden, "GET", url, cookie("banned"), nil)
		res, body := e.do(t, http.StatusUnauthorized, "GET", url, cookie("expired"), nil)
		if res.Get("Www-Authenticate") != "Bearer realm=test" {
			t.Errorf("got headers %v, want those of the authenticator", res)
		}
		if string(body) != "log in again\n" {
			t.Errorf("got body %q, want that of the authenticator", body)
		}
		if _, body := e.do(t, http.StatusTooManyRequests, "GET", url, cookie("hasty"), nil); string(body) != "later\n" {
			t.Errorf("got body %q, want that of the authenticator", body)
		}
		e.do(t, http.StatusInternalServerError, "GET", url, cookie("broken"), nil)
		if got := reached.Load(); got != before {
			t.Errorf("%d requests that were denied arrived", got-before)
		}
	})
	t.Run("paths", func(t *testing.T) {
		if e.kind == edge.Nginx {
			before := reached.Load()
			for _, path := range []string{"public/../secret", "/secret", "a/%2e%2e/secret"} {
				if status, err := e.raw(t, "guarded.test", "/"+path, "user=alice"); err != nil || status != http.StatusBadRequest {
					t.Errorf("%s: got status %d, %v, want 400", path, status, err)
				}
			}
			if got := reached.Load(); got != before {
				t.Errorf("%d odd paths arrived", got-before)
			}
			return
		}
		for path, want := range map[string]string{"/public/../secret": "/secret", "//secret?x": "/secret?x", "/a/%2e%2e/%73ecret": "/secret"} {
			if status, err := e.raw(t, "guarded.test", path, "user=alice"); err != nil || status != http.StatusOK {
				t.Errorf("%s: got status %d, %v", path, status, err)
			}
			if got := last().Header.Get("X-Forwarded-Uri"); got != want {
				t.Errorf("%s: the authenticator got %q, want %q", path, got, want)
			}
		}
	})
	t.Run("invalid", func(t *testing.T) {
		e.refused(t, "stranger", "stranger.test", `no authenticator "other"`)
		e.refused(t, "pathless", "pathless.test", "not drover.forward-auth=SERVICE/PATH")
	})
	t.Run("fails closed", func(t *testing.T) {
		before := reached.Load()
		closed := func(what string) {
			t.Helper()
			res, err := e.client(false).Do(e.request(t, "GET", url, cookie("alice")))
			if err != nil {
				t.Errorf("%s: %v", what, err)
				return
			}
			defer res.Body.Close()
			if res.StatusCode < 500 {
				t.Errorf("%s: got status %d, want an error of the edge", what, res.StatusCode)
			}
		}
		for _, a := range []string{"", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nX-Us", "garbage\r\n\r\n"} {
			answer.Store(&a)
			closed(fmt.Sprintf("the answer %q", a))
		}
		authn.CloseClientConnections()
		authn.Close()
		closed("no authenticator")
		if err := e.consul.Agent().ServiceDeregister(id); err != nil {
			t.Fatal(err)
		}
		closed("none in Consul")
		if got := reached.Load(); got != before {
			t.Errorf("%d requests arrived without an authenticator", got-before)
		}
	})
}

func testDeny(t *testing.T, e *entrance) {
	app := serve(t, "app")
	e.register(t, "denied", address(app), "drover.route=denied.test/", "drover.deny=10.0.0.0/8", "drover.deny=192.0.2.1,127.0.0.1")
	e.register(t, "passed", address(app), "drover.route=passed.test/", "drover.limit=1000/s", "drover.deny=10.0.0.0/8,2001:db8::/32")
	e.register(t, "misspelt", address(app), "drover.route=misspelt.test/", "drover.deny=10.0.0.0/33")
	e.loaded(t)
	e.reached(t, "https://passed.test/")
	e.do(t, http.StatusForbidden, "GET", "https://denied.test/", nil, nil)
	e.refused(t, "misspelt", "misspelt.test", "not drover.deny=ADDRESS")
	for _, i := range e.loaded(t).Instances {
		if i.Refused != "" {
			t.Errorf("the edge refused its configuration: %s", i.Refused)
		}
	}
}

// authority is a CA for clients.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// client is a certificate of a client.
func (a *authority) client(t *testing.T, name string) tls.Certificate {
	t.Helper()
	cert, key, err := pki.Sign(pki.Leaf{CommonName: name, ClientAuth: true, Lifetime: time.Hour}, a.cert, a.key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// session is a cache of one TLS session, whatever the host.
type session struct{ state *tls.ClientSessionState }

func (s *session) Get(string) (*tls.ClientSessionState, bool) { return s.state, s.state != nil }

func (s *session) Put(_ string, state *tls.ClientSessionState) {
	if state != nil {
		s.state = state
	}
}

// testClientCerts connects with certificates of two CAs, to hosts that ask for one of
// the first, of the second, and for none.
func testClientCerts(t *testing.T, e *entrance, cas map[string]*authority) {
	app := serve(t, "app")
	e.register(t, "partners", address(app), "drover.route=partners.test/", "drover.client-cert=partners", "drover.http=serve")
	e.register(t, "others", address(app), "drover.route=others.test/", "drover.client-cert=others")
	e.register(t, "second", address(app), "drover.route=partners.test/second", "drover.client-cert=others")
	e.register(t, "open", address(app), "drover.route=open.test/")
	e.register(t, "unknown", address(app), "drover.route=unknown.test/", "drover.client-cert=unknown")
	e.loaded(t)
	e.reached(t, "https://open.test/")
	get := func(sni, host, path string, cert *tls.Certificate, s *session, version uint16) (status int, a arrived) {
		t.Helper()
		config := &tls.Config{InsecureSkipVerify: true, ServerName: sni, MaxVersion: version}
		if s != nil {
			config.ClientSessionCache = s
		}
		if cert != nil {
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
		}
		conn, err := tls.Dial("tcp", e.Loopback()+":9443", config)
		if err != nil {
			return 0, a
		}
		defer conn.Close()
		_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nX-Client-Cert-Subject: CN=root\r\nClient-Cert: :AA==:\r\n\r\n", path, host)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return 0, a
		}
		defer res.Body.Close()
		_ = json.NewDecoder(res.Body).Decode(&a)
		return res.StatusCode, a
	}
	alice, mallory := cas["partners"].client(t, "alice"), cas["others"].client(t, "mallory")
	eventually(t, "alice is let in", func() bool {
		status, _ := get("partners.test", "partners.test", "/", &alice, nil, 0)
		return status == http.StatusOK
	})
	// With a certificate of another CA, HAProxy ends the handshake.
	wrong := map[edge.Kind]int{edge.HAProxy: 0, edge.Nginx: http.StatusBadRequest}[e.kind]
	second := map[edge.Kind]int{edge.HAProxy: http.StatusMisdirectedRequest, edge.Nginx: http.StatusForbidden}[e.kind]
	for _, c := range []struct {
		sni, host, path string
		cert            *tls.Certificate
		want            int
	}{
		{"partners.test", "partners.test", "/", nil, http.StatusForbidden},
		{"partners.test", "partners.test", "/", &mallory, wrong},
		{"others.test", "others.test", "/", &mallory, http.StatusOK},
		{"others.test", "others.test", "/", &alice, wrong},
		{"others.test", "partners.test", "/", &mallory, http.StatusMisdirectedRequest},
		{"open.test", "partners.test", "/", &alice, http.StatusMisdirectedRequest},
		{"partners.test", "partners.test", "/second", &alice, second},
		{"open.test", "open.test", "/", nil, http.StatusOK},
	} {
		status, a := get(c.sni, c.host, c.path, c.cert, nil, 0)
		if status != c.want {
			t.Errorf("%+v: got status %d", c, status)
		}
		want := ""
		if c.sni == "others.test" {
			want = "CN=mallory"
		}
		if got := a.Header.Get("X-Client-Cert-Subject"); status == http.StatusOK && got != want {
			t.Errorf("%+v: the service got the subject %q, want %q", c, got, want)
		}
		if got := a.Header.Get("Client-Cert"); got == ":AA==:" {
			t.Errorf("%+v: the service got a certificate that the client made up", c)
		}
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		var s session
		if status, a := get("partners.test", "partners.test", "/", &alice, &s, version); status != http.StatusOK || a.Header.Get("X-Client-Cert-Subject") != "CN=alice" {
			t.Errorf("alice: got status %d and %v", status, a.Header)
		}
		if status, _ := get("others.test", "others.test", "/", nil, &s, version); status == http.StatusOK {
			t.Errorf("version %x: a session for another host was resumed with its certificate", version)
		}
	}
	if res, err := e.client(false).Do(e.request(t, "GET", "http://partners.test/", nil)); err != nil {
		t.Error(err)
	} else if res.Body.Close(); res.StatusCode < 400 {
		t.Errorf("over HTTP: got status %d", res.StatusCode)
	}
	e.refused(t, "unknown", "unknown.test", `no CAs "unknown"`)
}
