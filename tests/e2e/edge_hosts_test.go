package e2e

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/drover-nomad/drover/edge"
)

// testWildcards has routes for all hosts below one.
func testWildcards(t *testing.T, e *entrance) {
	hosts := map[string]*httptest.Server{"any": serve(t, "any"), "deep": serve(t, "deep"), "one": serve(t, "one")}
	e.register(t, "any", address(hosts["any"]), "drover.route=*.wild.test/", "drover.http=serve", "drover.redirect=*.old.test/ 301 https://new.test/")
	e.register(t, "deep", address(hosts["deep"]), "drover.route=*.deep.wild.test/")
	e.register(t, "one", address(hosts["one"]), "drover.route=one.wild.test/app")
	own := httptest.NewUnstartedServer(backend("own"))
	own.StartTLS()
	t.Cleanup(own.Close)
	if e.kind == edge.HAProxy {
		e.register(t, "raw", address(own), "drover.sni=*.raw.wild.test")
		e.register(t, "ended", address(hosts["one"]), "drover.route=ended.raw.wild.test/")
	}
	e.loaded(t)
	e.reached(t, "https://one.wild.test/app")
	for url, want := range map[string]string{
		"https://x.wild.test/":          "any",
		"https://X.Y.wild.test/a":       "any",
		"http://x.wild.test/":           "any",
		"https://x.deep.wild.test/":     "deep",
		"https://one.wild.test/app/x":   "one",
		"https://x.one.wild.test/app/x": "any",
	} {
		if _, a := e.got(t, "GET", url, nil, nil); a.Backend != want {
			t.Errorf("%s: got backend %q, want %q", url, a.Backend, want)
		}
	}
	// A host with routes of its own has none of a wildcard.
	for _, url := range []string{"https://one.wild.test/", "https://wild.test/", "https://xwild.test/"} {
		e.do(t, http.StatusNotFound, "GET", url, nil, nil)
	}
	for _, url := range []string{"http://one.wild.test/app", "http://x.deep.wild.test/"} {
		e.do(t, http.StatusPermanentRedirect, "GET", url, nil, nil)
	}
	if res, _ := e.do(t, http.StatusMovedPermanently, "GET", "https://www.old.test/p?q", nil, nil); res.Get("Location") != "https://new.test/p?q" {
		t.Errorf("got the redirect %q, want https://new.test/p?q", res.Get("Location"))
	}
	if e.kind != edge.HAProxy {
		return
	}
	for name, raw := range map[string]bool{"x.raw.wild.test": true, "raw.wild.test": false, "ended.raw.wild.test": false} {
		conn, err := tls.Dial("tcp", e.Loopback()+":9443", &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.ConnectionState().PeerCertificates[0].Equal(own.Certificate()); got != raw {
			t.Errorf("%s: passed on undecrypted is %v, want %v", name, got, raw)
		}
		conn.Close()
	}
}

// testClasses has services of the class of the edge, of another one and of both. deploy
// deploys the edge with a class.
func testClasses(t *testing.T, e *entrance, deploy func(class string)) {
	s := serve(t, "classes")
	e.register(t, "outer", address(s), "drover.route=outer.test/")
	e.register(t, "inner", address(s), "drover.route=inner.test/", "drover.class=internal")
	e.register(t, "all-classes", address(s), "drover.route=all-classes.test/", "drover.class=internal", "drover.class=default")
	for _, c := range []struct {
		class, absent, message string
		hosts                  []string
	}{
		{"default", "inner", `No edge has the class "internal"`, []string{"outer", "all-classes"}},
		{"internal", "outer", "No edge takes services without drover.class=NAME", []string{"inner", "all-classes"}},
	} {
		deploy(c.class)
		r := e.loaded(t)
		if !slices.ContainsFunc(r.Problems, func(p edge.Problem) bool {
			return p.Service == c.absent && p.Costs == edge.CostsService && p.Message == c.message
		}) {
			t.Errorf("class %s: got problems %+v, want %q of %s", c.class, r.Problems, c.message, c.absent)
		}
		for _, host := range c.hosts {
			e.reached(t, "https://"+host+".test/")
		}
		e.do(t, http.StatusNotFound, "GET", "https://"+c.absent+".test/", nil, nil)
	}
}
