package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
)

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
