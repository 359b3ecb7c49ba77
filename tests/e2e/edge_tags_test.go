package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/edge"
)

// unsized is a body of unknown length.
type unsized struct{ io.ReadSeeker }

// testNotOfNginx asks nginx for what it does not have: the tag is reported, a route beside
// sni and tcp works, and a service with another such tag has no route.
func testNotOfNginx(t *testing.T, e *entrance) {
	s := serve(t, "lacking")
	e.register(t, "passed-on", address(s), "drover.route=passed-on.test/", "drover.sni=sni.test", "drover.tcp=9389")
	e.register(t, "lacking", address(s), "drover.route=lacking.test/", "drover.send-proxy=v2", "drover.timeout=tunnel 1m")
	r := e.loaded(t)
	got := map[string]edge.Cost{}
	for _, p := range r.Problems {
		if p.Message == "nginx cannot do this" {
			got[p.Service+" "+p.Tag] = p.Costs
		}
	}
	want := map[string]edge.Cost{
		"passed-on drover.sni=sni.test": edge.CostsTag, "passed-on drover.tcp=9389": edge.CostsTag,
		"lacking drover.send-proxy=v2": edge.CostsService, "lacking drover.timeout=tunnel 1m": edge.CostsService,
	}
	for what, costs := range want {
		if got[what] != costs {
			t.Errorf("%s costs %q, want %q", what, got[what], costs)
		}
	}
	e.reached(t, "https://passed-on.test/")
	e.do(t, http.StatusNotFound, "GET", "https://lacking.test/", nil, nil)
}

func testTags(t *testing.T, e *entrance, hash func(string) string) {
	plain, app := serve(t, "plain"), serve(t, "app")
	e.register(t, "plain", address(plain), "drover.route=a.test/", "drover.http=serve", "foreign",
		"drover.redirect=old.test/ 301 https://new.test/x%20y/", "drover.redirect=old.test/dav 307 /remote.php/dav/", "drover.redirect=old.test/a.b/ 302 http://c.test/?q=1")
	e.register(t, "app", address(app), "drover.route=a.test/app", "drover.strip=/app/", "drover.max-body=1k",
		`drover.header=response set Content-Security-Policy default-src 'self'; x "1" 100%`, "drover.header=response remove X-Powered-By",
		"drover.header=request set X-Set a  b%20c", "drover.header=request remove X-Gone", "drover.header=request set Host other.test")
	e.register(t, "locked", address(plain), "drover.route=locked.test/", "drover.auth=admins", "drover.header=request remove Authorization")
	e.register(t, "later", address(plain), "drover.route=later.test/", "drover.auth=later")
	e.register(t, "inside", address(plain), "drover.route=inside.test/", "drover.allow=10.0.0.0/8,2001:db8::/32,127.0.0.0/8", "drover.allow=127.0.0.1")
	// An instance cannot open a service that another instance restricts.
	e.register(t, "opened", address(plain), "drover.route=opened.test/", "drover.allow=10.0.0.0/8", "drover.allow=0.0.0.0/0")
	e.register(t, "outside", address(plain), "drover.route=outside.test/", "drover.allow=10.0.0.0/8")
	e.loaded(t)

	group := map[string]func(*testing.T, *entrance){}
	group["route"] = func(t *testing.T, e *entrance) {
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
	}
	group["http"] = func(t *testing.T, e *entrance) {
		res, a := e.got(t, "GET", "http://a.test/x", nil, nil)
		if a.Header.Get("X-Forwarded-Proto") != "http" || res.Get("Strict-Transport-Security") != "" {
			t.Errorf("%+v arrived, with HSTS %q", a, res.Get("Strict-Transport-Security"))
		}
		for from, to := range map[string]string{"http://a.test/app/x?y": "https://a.test:9443/app/x?y", "http://nobody.test/": "https://nobody.test:9443/", "http://locked.test/": "https://locked.test:9443/"} {
			if res, _ := e.do(t, http.StatusPermanentRedirect, "GET", from, nil, nil); res.Get("Location") != to {
				t.Errorf("%s leads to %s", from, res.Get("Location"))
			}
		}
	}
	group["strip"] = func(t *testing.T, e *entrance) {
		for from, to := range map[string]string{"/app": "/", "/app/": "/", "/app/x/y?z=1": "/x/y?z=1", "/apple": "/apple"} {
			if _, a := e.got(t, "GET", "https://a.test"+from, nil, nil); a.URI != to || a.Backend != "app" {
				t.Errorf("%s arrives at %s as %s", from, a.Backend, a.URI)
			}
		}
	}
	group["header"] = func(t *testing.T, e *entrance) {
		res, a := e.got(t, "GET", "https://a.test/app", http.Header{"X-Gone": {"1"}, "X-Set": {"2"}}, nil)
		if got := res.Values("Content-Security-Policy"); !slices.Equal(got, []string{`default-src 'self'; x "1" 100%`}) || res.Get("X-Powered-By") != "" {
			t.Errorf("response %v", res)
		}
		if got := a.Header.Values("X-Set"); !slices.Equal(got, []string{"a  b%20c"}) || a.Header.Get("X-Gone") != "" || a.Host != "other.test" {
			t.Errorf("request %v for %s", a.Header, a.Host)
		}
	}
	group["max-body"] = func(t *testing.T, e *entrance) {
		e.got(t, "PUT", "https://a.test/app", nil, bytes.NewReader(make([]byte, 1024)))
		e.do(t, http.StatusRequestEntityTooLarge, "PUT", "https://a.test/app", nil, bytes.NewReader(make([]byte, 1025)))
		want := http.StatusLengthRequired
		if e.kind == edge.Nginx {
			want = http.StatusRequestEntityTooLarge
		}
		// The edge answers before it has the body and closes, which the client may
		// see as a broken pipe before it reads the answer.
		eventually(t, "a body without length is answered", func() bool {
			req, err := http.NewRequestWithContext(t.Context(), "PUT", "https://a.test/app", unsized{bytes.NewReader(make([]byte, 2000))})
			if err != nil {
				t.Fatal(err)
			}
			res, err := e.client(false).Do(req)
			if err != nil {
				return false
			}
			res.Body.Close()
			if res.StatusCode != want {
				t.Fatalf("a body without length: got status %d, want %d", res.StatusCode, want)
			}
			return true
		})
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
	}
	group["redirect"] = func(t *testing.T, e *entrance) {
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
	}
	group["auth"] = func(t *testing.T, e *entrance) {
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
	}
	group["allow"] = func(t *testing.T, e *entrance) {
		e.got(t, "GET", "https://inside.test/", nil, nil)
		e.do(t, http.StatusForbidden, "GET", "https://outside.test/", nil, nil)
		e.do(t, http.StatusForbidden, "GET", "https://opened.test/", nil, nil)
	}
	group["sticky"] = func(t *testing.T, e *entrance) {
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
	}
	if e.kind == edge.HAProxy { // nginx answers 502
		group["a request waits for a server"] = testWaits
		group["a kept connection"] = testKept
	}
	group["a POST is sent once"] = func(t *testing.T, e *entrance) {
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
	}
	e.together(t, group)
}

// testWaits sends a request while no server is there.
func testWaits(t *testing.T, e *entrance) {
	s := serve(t, "late")
	e.register(t, "late", address(s), "drover.route=late.test/")
	e.loaded(t)
	e.reached(t, "https://late.test/")
	check := &capi.AgentCheckRegistration{ID: "late", Name: "late", ServiceID: e.id(t, "late", address(s)), AgentServiceCheck: capi.AgentServiceCheck{TTL: "1h"}}
	if err := e.consul.Agent().CheckRegister(check); err != nil { // critical until it is updated
		t.Fatal(err)
	}
	gone := func() bool {
		r, _ := e.status(t)
		i := slices.IndexFunc(r.Routes, func(s edge.RouteStatus) bool { return s.Service == "late" })
		return i >= 0 && r.Routes[i].Up != nil && *r.Routes[i].Up == 0
	}
	client := e.client(false)
	defer client.CloseIdleConnections()
	// The edge waits for 5 s. A busy machine needs longer to find the server.
	eventually(t, "a request gets the server that comes while it waits", func() bool {
		if err := e.consul.Agent().UpdateTTL("late", "", capi.HealthCritical); err != nil {
			t.Fatal(err)
		}
		eventually(t, "no instance is left", gone)
		passes := time.AfterFunc(time.Second, func() { _ = e.consul.Agent().UpdateTTL("late", "", capi.HealthPassing) })
		defer passes.Stop()
		began := time.Now()
		res, err := client.Post("https://late.test/", "text/plain", strings.NewReader("pay 100"))
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		waited := time.Since(began)
		if res.StatusCode != http.StatusOK && waited < 4*time.Second || waited < 500*time.Millisecond {
			t.Fatalf("got status %d after %s, want the request to wait for the server or for 5 s", res.StatusCode, waited)
		}
		return res.StatusCode == http.StatusOK
	})
}

// testKept sends requests on connections that are older than a reload and a change of
// servers. Their process knows only the former server. The requests arrive unchanged.
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
		// Each request has an ID of its own.
		if a.Header.Get("X-Request-Id") == "" || a.Header.Get("X-Request-Id") == was.Header.Get("X-Request-Id") {
			t.Errorf("%s: got the request ID %q, want another than that of the first request", url, a.Header.Get("X-Request-Id"))
		}
		a.Header.Del("X-Request-Id")
		was.Header.Del("X-Request-Id")
		if fmt.Sprint(a) != fmt.Sprint(was) {
			t.Errorf("%s: what arrived was\n%v, and is\n%v", url, was, a)
		}
	}
}
