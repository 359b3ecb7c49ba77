package e2e

import (
	"bufio"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/acme/pki"
	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/nomad/variables"
)

// startIngress starts a cluster whose edge has a certificate of a CA that no ACME
// server runs for.
func startIngress(t *testing.T) *entrance {
	t.Helper()
	e := &entrance{running: startOn(t, devcluster.Options{}), roots: x509.NewCertPool(), seen: &devtest.Shared[seen]{}, names: map[string]bool{}}
	ca, key, err := pki.NewCA("ingress", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	e.roots.AddCert(ca)
	cert, private, err := pki.Sign(pki.Leaf{CommonName: e.Loopback(), IPAddresses: []string{e.Loopback()}, Lifetime: 24 * time.Hour}, ca, key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	e.variable(t, acme.Path("public"), api.VariableItems{acme.ItemBundle: cert + private, variables.LayoutItem: strconv.Itoa(acme.Layout), acme.ItemChain: cert, "spec": `{"name":"public","names":["` + e.Loopback() + `"]}`, "status": "{}"})
	e.variable(t, "drover/acme/public", api.VariableItems{"thumbprint": "none"})
	return e
}

func (e *entrance) variable(t *testing.T, path string, items api.VariableItems) {
	t.Helper()
	if _, _, err := e.nomad.Variables().Update(&api.Variable{Path: path, Items: items}, nil); err != nil {
		t.Fatal(err)
	}
}

// TestIngress is what an ingress of Kubernetes has. HAProxy and nginx have a cluster
// each and run side by side. testEdge says where a new subtest belongs.
func TestIngress(t *testing.T) {
	t.Parallel()
	devtest.Together(t, map[string]func(*testing.T){
		"haproxy": func(t *testing.T) { testIngress(t, edge.HAProxy) },
		"nginx":   func(t *testing.T) { testIngress(t, edge.Nginx) },
	})
}

func testIngress(t *testing.T, kind edge.Kind) {
	e := startIngress(t)
	cas := map[string]*authority{}
	for _, name := range []string{"partners", "others"} {
		cert, key, err := pki.NewCA(name, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		cas[name] = &authority{cert, key}
		e.variable(t, "drover/client-ca/"+name, api.VariableItems{"ca": pki.EncodeCertificate(cert.Raw)})
	}
	e.deploy(t, kind, "-var", `client_cas=["partners","others"]`, "-var", `authenticators=["authn","oauth2-proxy"]`, "-var", "trace_sample=100",
		"-var", `maintenance_page=<p>{{ back soon }}</p>`, "-var", `error_pages={"404"="<p>{{ not here }}</p>","504"="<p>too slow</p>"}`)
	e.together(t, map[string]func(*testing.T, *entrance){
		"forward-auth": testForwardAuth, "OIDC": testOIDC, "canary": testCanary, "deny": testDeny, "CORS": testCORS, "compress": testCompress,
		"rewrite": testRewrite, "timeout and retries": testTimeout, "trace": testTrace, "maintenance and pages": testMaintenance,
		"client certificates": func(t *testing.T, e *entrance) { testClientCerts(t, e, cas) }, "wildcards": testWildcards,
	})
	t.Run("breaker", func(t *testing.T) { testBreaker(t, e) }) // which a reload of the edge sets back
	t.Run("classes", func(t *testing.T) { testClasses(t, e) })
}

// refused waits until the edge has read the tags of a service, and wants it to have no
// route and the problem to be reported.
func (e *entrance) refused(t *testing.T, service, host, message string) {
	t.Helper()
	r := e.loaded(t)
	if !slices.ContainsFunc(r.Problems, func(p edge.Problem) bool {
		return p.Service == service && p.Costs == edge.CostsService && strings.Contains(p.Message, message)
	}) {
		t.Errorf("got problems %+v, want one of %s with %q", r.Problems, service, message)
	}
	e.do(t, http.StatusNotFound, "GET", "https://"+host+"/", nil, nil)
}

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

func (e *entrance) request(t *testing.T, method, url string, header http.Header) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header.Clone()
	req.Close = true
	return req
}

// raw sends a path as it is written, and returns the status of the answer.
func (e *entrance) raw(t *testing.T, host, path, cookie string) (int, error) {
	t.Helper()
	req := e.request(t, "GET", "https://"+host+"/", http.Header{"Cookie": {cookie}})
	req.URL.Opaque = "//" + host + path
	client := e.client(false)
	defer client.CloseIdleConnections()
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	return res.StatusCode, nil
}

func testCanary(t *testing.T, e *entrance) {
	stable, next, other := serve(t, "stable"), serve(t, "next"), serve(t, "other")
	e.register(t, "other", address(other))
	for host, tags := range map[string][]string{
		"none":   {"drover.weight=0 version next"},
		"half":   {"drover.weight=50 version next", "drover.weight=50 service other"},
		"all":    {"drover.weight=100 version next"},
		"client": {"drover.weight=50 version next", "drover.weight=50 version stable", "drover.sticky=cookie"},
		"chosen": {"drover.weight=100 version stable", "drover.canary=header X-Canary always version next", "drover.canary=cookie beta yes service other"},
		"gone":   {"drover.weight=100 service nothing"},
		"inside": {"drover.weight=100 version next", "drover.allow=10.0.0.0/8"},
	} {
		e.register(t, "roll-"+host, address(stable), append(tags, "stable", "drover.route="+host+".test/")...)
		e.register(t, "roll-"+host, address(next), "next")
	}
	e.register(t, "roll-bad", address(stable), "drover.route=bad.test/", "drover.weight=101 version next")
	e.loaded(t)
	counts := func(host string, header http.Header) map[string]int {
		t.Helper()
		out := map[string]int{}
		for range 40 {
			_, a := e.got(t, "GET", "https://"+host+".test/", header, nil)
			out[a.Backend]++
		}
		return out
	}
	for _, c := range []struct {
		host   string
		header http.Header
		want   []string // backends that answer, and no other
	}{
		{"all", nil, []string{"next"}},
		{"half", nil, []string{"next", "other"}},
		{"chosen", nil, []string{"stable"}},
		{"chosen", http.Header{"X-Canary": {"always"}}, []string{"next"}},
		{"chosen", http.Header{"X-Canary": {"alwaysx"}}, []string{"stable"}},
		{"chosen", http.Header{"Cookie": {"a=b; beta=yes"}}, []string{"other"}},
		{"chosen", http.Header{"Cookie": {"beta=no"}}, []string{"stable"}},
		{"none", nil, []string{"next", "stable"}}, // what is left of 100 is of all instances
		{"gone", nil, []string{"next", "stable"}},
	} {
		name := "https://" + c.host + ".test/"
		e.reached(t, name)
		eventually(t, fmt.Sprintf("%s with %v reaches %v", name, c.header, c.want), func() bool {
			got := counts(c.host, c.header)
			return len(got) == len(c.want) && !slices.ContainsFunc(c.want, func(b string) bool { return got[b] == 0 })
		})
	}
	if got := counts("client", nil); len(got) != 1 {
		t.Errorf("one client of a sticky service met %v", got)
	}
	e.do(t, http.StatusForbidden, "GET", "https://inside.test/", nil, nil)
	e.refused(t, "roll-bad", "bad.test", "not drover.weight=PERCENT")
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

func testCORS(t *testing.T, e *entrance) {
	var reached atomic.Int32
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reached.Add(1)
		w.Header().Set("Access-Control-Allow-Origin", "https://of-the-service.test")
		w.Header().Set("Access-Control-Allow-Credentials", "true")
	}))
	defer app.Close()
	e.register(t, "shared", address(app), "drover.route=shared.test/", "drover.cors=https://app.test,https://b.test:8443 credentials")
	e.register(t, "public", address(app), "drover.route=public.test/", "drover.cors=*")
	e.register(t, "cors-bad", address(app), "drover.route=cors-bad.test/", "drover.cors=* credentials")
	e.loaded(t)
	e.reached(t, "https://shared.test/")
	e.reached(t, "https://public.test/")
	const allow, credentials = "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials"
	for _, c := range []struct{ host, origin, allow, credentials string }{
		{"shared", "https://app.test", "https://app.test", "true"},
		{"shared", "https://b.test:8443", "https://b.test:8443", "true"},
		{"shared", "https://b.test", "", ""},
		{"shared", "https://app.test.evil.test", "", ""},
		{"shared", "https://appxtest", "", ""},
		{"shared", "", "", ""},
		{"public", "https://any.test", "*", ""},
	} {
		header := http.Header{}
		if c.origin != "" {
			header.Set("Origin", c.origin)
		}
		url := "https://" + c.host + ".test/"
		res, _ := e.do(t, http.StatusOK, "GET", url, header, nil)
		if res.Get(allow) != c.allow || len(res.Values(allow)) > 1 || res.Get(credentials) != c.credentials {
			t.Errorf("%s from %q: got %v, want %q and credentials %q", url, c.origin, res, c.allow, c.credentials)
		}
		if !strings.Contains(strings.Join(res.Values("Vary"), ","), "Origin") {
			t.Errorf("%s: got Vary %q, want Origin in it", url, res.Values("Vary"))
		}
		if c.origin == "" {
			continue
		}
		before, want := reached.Load(), http.StatusNoContent
		if c.allow == "" {
			want = http.StatusForbidden
		}
		header.Set("Access-Control-Request-Method", "PUT")
		header.Set("Access-Control-Request-Headers", "x-one, x-two")
		res, _ = e.do(t, want, "OPTIONS", url, header, nil)
		if res.Get(allow) != c.allow || res.Get(credentials) != c.credentials {
			t.Errorf("preflight of %s from %q: got %v", url, c.origin, res)
		}
		if c.allow != "" && (res.Get("Access-Control-Allow-Methods") != "PUT" || res.Get("Access-Control-Allow-Headers") != "x-one, x-two" || res.Get("Access-Control-Max-Age") != "600") {
			t.Errorf("preflight of %s from %q: got %v", url, c.origin, res)
		}
		if got := reached.Load(); got != before {
			t.Errorf("the preflight of %s from %q reached the service", url, c.origin)
		}
	}
	before := reached.Load()
	e.do(t, http.StatusOK, "OPTIONS", "https://shared.test/", nil, nil) // no preflight: WebDAV
	if got := reached.Load(); got != before+1 {
		t.Error("OPTIONS without an origin did not reach the service")
	}
	e.refused(t, "cors-bad", "cors-bad.test", "not drover.cors=ORIGIN")
}

func testCompress(t *testing.T, e *entrance) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", r.URL.Query().Get("type"))
		_, _ = io.WriteString(w, strings.Repeat("drover ", 1000))
	}))
	defer app.Close()
	e.register(t, "zipped", address(app), "drover.route=zipped.test/", "drover.compress=gzip")
	e.register(t, "plain", address(app), "drover.route=plain.test/")
	e.loaded(t)
	for url, want := range map[string]string{"https://zipped.test/?type=text/css": "gzip", "https://zipped.test/?type=image/png": "", "https://plain.test/?type=text/css": ""} {
		e.reached(t, url)
		res, body := e.do(t, http.StatusOK, "GET", url, http.Header{"Accept-Encoding": {"gzip"}}, nil)
		if got := res.Get("Content-Encoding"); got != want || (len(body) < 5000) != (want == "gzip") {
			t.Errorf("%s: got encoding %q and %d bytes, want %q", url, got, len(body), want)
		}
	}
}

func testRewrite(t *testing.T, e *entrance) {
	app := serve(t, "app")
	e.register(t, "rewritten", address(app), "drover.route=rewritten.test/", "drover.rewrite=/v1/*/items/** /items/{1}/{2}", "drover.rewrite=/old.page /new", "drover.rewrite=/items/** /never")
	e.register(t, "both", address(app), "drover.route=both.test/app", "drover.strip=/app", "drover.rewrite=/a/* /b/{1}")
	e.register(t, "rewrite-bad", address(app), "drover.route=rewrite-bad.test/", "drover.rewrite=/(.*)+ /x")
	e.loaded(t)
	e.reached(t, "https://rewritten.test/")
	e.reached(t, "https://both.test/app")
	for from, want := range map[string]string{
		"rewritten.test/v1/x/items/a/b?q=1": "/items/x/a/b?q=1", // one rule is used
		"rewritten.test/v1/x/items/":        "/items/x/",
		"rewritten.test/v1/x/other":         "/v1/x/other",
		"rewritten.test/v1/x%20y/items/z":   "/items/x%20y/z",
		"rewritten.test/old.page":           "/new",
		"rewritten.test/old_page":           "/old_page",
		"rewritten.test/items/x":            "/never",
		"both.test/app/a/x":                 "/b/x",
		"both.test/app/c":                   "/c",
	} {
		if _, a := e.got(t, "GET", "https://"+from, nil, nil); a.URI != want {
			t.Errorf("%s arrives as %s, want %s", from, a.URI, want)
		}
	}
	e.refused(t, "rewrite-bad", "rewrite-bad.test", "not drover.rewrite=PATTERN PATH")
}

func testTimeout(t *testing.T, e *entrance) {
	var tries atomic.Int32
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tries.Add(1)
		_, _ = io.Copy(io.Discard, r.Body) // or the end of the connection is not seen
		if r.URL.Query().Has("hang") {
			<-r.Context().Done()
		}
		if r.URL.Query().Has("fail") {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer app.Close()
	second := httptest.NewServer(app.Config.Handler) // nginx tries each instance once
	defer second.Close()
	for name, tags := range map[string][]string{
		"impatient": {"drover.timeout=response 1s"},
		"retried":   {"drover.retries=1 503"},
		"tried":     {"drover.retries=0"},
	} {
		e.register(t, name, address(app), append(tags, "drover.route="+name+".test/")...)
		e.register(t, name, address(second), append(tags, "drover.route="+name+".test/")...)
	}
	e.register(t, "timeout-bad", address(app), "drover.route=timeout-bad.test/", "drover.timeout=response 1")
	e.loaded(t)
	for _, name := range []string{"impatient", "retried", "tried"} {
		e.reached(t, "https://"+name+".test/")
	}
	start := time.Now()
	if _, body := e.do(t, http.StatusGatewayTimeout, "POST", "https://impatient.test/?hang", nil, strings.NewReader("x")); string(body) != "<p>too slow</p>" {
		t.Errorf("after a timeout: got %q, want the page", body)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("the timeout of 1s came after %s", took)
	}
	for _, c := range []struct {
		method, host string
		want         int32
	}{{"GET", "retried", 2}, {"POST", "retried", 1}, {"GET", "tried", 1}} {
		tries.Store(0)
		e.do(t, http.StatusServiceUnavailable, c.method, "https://"+c.host+".test/?fail", nil, nil)
		if got := tries.Load(); got != c.want {
			t.Errorf("%s of %s was tried %d times, want %d", c.method, c.host, got, c.want)
		}
	}
	e.refused(t, "timeout-bad", "timeout-bad.test", "not drover.timeout=connect")
}

func testBreaker(t *testing.T, e *entrance) {
	var tries atomic.Int32
	failing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/pay" {
			tries.Add(1)
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer failing.Close()
	good := serve(t, "good")
	for _, a := range []string{address(failing), address(good)} {
		e.register(t, "breaks", a, "drover.route=breaks.test/", "drover.breaker=3 30s")
	}
	e.loaded(t)
	e.reached(t, "https://breaks.test/")
	const requests = 60
	client := e.client(false)
	defer client.CloseIdleConnections()
	for range requests {
		method := http.MethodPost
		if e.kind == edge.Nginx { // it only counts what it may send again
			method = http.MethodGet
		}
		req, err := http.NewRequestWithContext(t.Context(), method, "https://breaks.test/pay", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	// Each process or thread counts for itself.
	if got := tries.Load(); got == 0 || got > requests/3 {
		t.Errorf("the instance that fails got %d of %d requests, want a few", got, requests)
	}
}

func testTrace(t *testing.T, e *entrance) {
	e.register(t, "traced", address(serve(t, "traced")), "drover.route=traced.test/")
	e.loaded(t)
	url := "https://traced.test/"
	e.reached(t, url)
	id, parent := regexp.MustCompile(`^[a-f0-9-]{32,36}$`), regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-01$`)
	const valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
	ids := map[string]bool{}
	for _, c := range []struct {
		id, parent string
		kept       bool
	}{
		{"", "", false},
		{"", "", false},
		{"abc.1_2-3", valid, true},
		{"a b", "00-00000000000000000000000000000000-b7ad6b7169203331-00", false},
		{strings.Repeat("x", 129), "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false},
		{`"><script>`, "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false},
	} {
		header := http.Header{"Tracestate": {"vendor=1"}}
		if c.id != "" {
			header["X-Request-Id"], header["Traceparent"] = []string{c.id}, []string{c.parent}
		}
		res, a := e.got(t, "GET", url, header, nil)
		gotID, gotParent, state := a.Header.Get("X-Request-Id"), a.Header.Get("Traceparent"), a.Header.Get("Tracestate")
		if res.Get("X-Request-Id") != gotID || len(a.Header.Values("X-Request-Id")) != 1 || len(a.Header.Values("Traceparent")) != 1 {
			t.Errorf("%+v: the client got %v, the service %v", c, res, a.Header)
		}
		if c.kept && (gotID != c.id || gotParent != c.parent || state != "vendor=1") {
			t.Errorf("%+v: arrived as %q, %q, %q", c, gotID, gotParent, state)
		}
		if !c.kept && (!id.MatchString(gotID) || !parent.MatchString(gotParent) || state != "" || ids[gotID] || ids[gotParent]) {
			t.Errorf("%+v: got %q, %q, %q, want new ones", c, gotID, gotParent, state)
		}
		ids[gotID], ids[gotParent] = true, true
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

// testMaintenance deploys a stack with a route, and puts it into maintenance.
func testMaintenance(t *testing.T, e *entrance) {
	app := serve(t, "shop")
	_, port, err := net.SplitHostPort(address(app))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "shop")
	spec := fmt.Sprintf(`job "shop" {
  group "web" {
    shutdown_delay = "0s"
    service {
      name     = "shop"
      provider = "consul"
      address  = "127.0.0.1"
      port     = %q
      tags     = ["drover.route=shop.test/"]
    }
    task "web" {
      driver = "mock_driver"
      config {
        run_for = "1h"
      }
    }
  }
}
`, port)
	for name, text := range map[string]string{"stack.hcl": "stack \"shop\" {\n  version = \"1\"\n}\n", "web.nomad.hcl": spec} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	e.drover.must(t, "deploy", dir, "--no-certificates")
	inner := filepath.Join(t.TempDir(), "inner.nomad.hcl")
	if err := os.WriteFile(inner, []byte(strings.NewReplacer("drover.route=shop.test/", "v1", `"shop"`, `"inner"`).Replace(spec)), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := e.drover.run(t.Context(), "maintenance", "on", inner); code != 2 || !strings.Contains(errs, "no service of stack inner has a route") {
		t.Errorf("a stack without routes: got exit code %d and %q", code, errs)
	}
	defer e.drover.must(t, "destroy", dir, "-y")
	e.register(t, "shop-other", address(app), "drover.route=shop-other.test/", "drover.timeout=response 1s")
	e.loaded(t)
	url := "https://shop.test/x"
	e.reached(t, url)
	e.reached(t, "https://shop-other.test/")
	answers := func(want int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s answers %d", url, want), func() bool {
			for range 5 {
				res, err := e.client(false).Do(e.request(t, "GET", url, nil))
				if err != nil {
					return false
				}
				res.Body.Close()
				if res.StatusCode != want {
					return false
				}
			}
			return true
		})
	}
	if out := e.drover.must(t, "maintenance", "on", dir); !strings.Contains(out, "on for shop") {
		t.Errorf("drover maintenance on: got %q", out)
	}
	answers(http.StatusServiceUnavailable)
	res, body := e.do(t, http.StatusServiceUnavailable, "GET", url, nil, nil)
	if string(body) != "<p>{{ back soon }}</p>" || res.Get("Retry-After") == "" || !strings.HasPrefix(res.Get("Content-Type"), "text/html") {
		t.Errorf("in maintenance: got %v %q", res, body)
	}
	e.do(t, http.StatusOK, "GET", "https://shop-other.test/", nil, nil)
	e.drover.must(t, "maintenance", "off", dir)
	answers(http.StatusOK)

	res, body = e.do(t, http.StatusNotFound, "GET", "https://no-route.test/", nil, nil)
	if string(body) != "<p>{{ not here }}</p>" || !strings.HasPrefix(res.Get("Content-Type"), "text/html") {
		t.Errorf("without a route: got %v %q, want the page", res, body)
	}
}
