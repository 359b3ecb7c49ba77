package e2e

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/jobs"
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

// testClasses has services of the class of the edge, of another one and of both, and a
// second edge beside it for the other class: HAProxy beside HAProxy, and beside nginx.
func testClasses(t *testing.T, e *entrance) {
	s := serve(t, "classes")
	e.register(t, "outer", address(s), "drover.route=outer.test/")
	e.register(t, "inner", address(s), "drover.route=inner.test/", "drover.class=internal")
	e.register(t, "all-classes", address(s), "drover.route=all-classes.test/", "drover.class=internal", "drover.class=default")
	finder := edge.Finder{Nomad: e.nomad, Consul: e.consul}
	untaken := func(service, message string) {
		t.Helper()
		is := func(p edge.Problem) bool {
			return p.Service == service && p.Costs == edge.CostsService && p.Message == message
		}
		if r := e.loaded(t); !slices.ContainsFunc(r.Problems, is) {
			t.Errorf("drover edge status: got problems %+v, want %q of %s", r.Problems, message, service)
		}
		if r, err := finder.Review(t.Context()); err != nil || !slices.ContainsFunc(r.Problems, is) {
			t.Errorf("drover doctor: got problems %+v and error %v, want %q of %s", r.Problems, err, message, service)
		}
	}
	untaken("inner", `No edge has the class "internal"`)

	other := *e
	other.https, other.http, other.kind = 9543, 9180, edge.HAProxy
	files, err := jobs.Stack(stacks[other.kind])
	if err != nil {
		t.Fatal(err)
	}
	values, err := fs.ReadFile(files, "environments/dev.hcl")
	if err != nil {
		t.Fatal(err)
	}
	environment := filepath.Join(t.TempDir(), "internal.hcl") // one stack has one edge in each
	if err := os.WriteFile(environment, values, 0o600); err != nil {
		t.Fatal(err)
	}
	e.drover.must(t, "deploy", stacks[other.kind], "-e", environment, "-var", "name=edge-internal", "-var", "class=internal", "-var", "https_port=9543", "-var", "http_port=9180")
	r := e.loaded(t)
	if len(r.Instances) != 2 {
		t.Fatalf("got %d instances, want one of each edge: %+v", len(r.Instances), r.Instances)
	}
	if i := slices.IndexFunc(r.Problems, func(p edge.Problem) bool { return strings.HasPrefix(p.Message, "No edge") }); i >= 0 {
		t.Errorf("got problem %+v, want none with an edge for each class", r.Problems[i])
	}
	of := map[string]*entrance{"outer": e, "inner": &other}
	for host, at := range of {
		at.reached(t, "https://"+host+".test/")
		at.reached(t, "https://all-classes.test/")
		for absent := range of {
			if absent != host {
				at.do(t, http.StatusNotFound, "GET", "https://"+absent+".test/", nil, nil)
			}
		}
	}
	// Maintenance holds at both.
	for _, on := range []bool{true, false} {
		if err := finder.SetMaintenance(t.Context(), "classes", []string{"all-classes"}, on); err != nil {
			t.Fatal(err)
		}
		for _, at := range of {
			eventually(t, fmt.Sprintf("the edge at port %d is in maintenance: %t", cmp.Or(at.https, 9443), on), func() bool {
				res, err := at.client(false).Do(at.request(t, "GET", "https://all-classes.test/", nil))
				if err != nil {
					return false
				}
				res.Body.Close()
				return (res.StatusCode == http.StatusServiceUnavailable) == on
			})
		}
	}
	for _, class := range []string{"drover.class=internal", "drover.class=default"} {
		p, err := finder.Presence(t.Context(), []*api.Service{{Name: "stack", Tags: []string{class, "drover.sni=stack.test"}}})
		if err != nil || !p.Edge || len(p.Untaken) > 0 || !p.Serves("public") {
			t.Errorf("a stack with %s: got %+v and error %v, want an edge", class, p, err)
		}
		nginx := class == "drover.class=default" && e.kind == edge.Nginx
		if nginx != (len(p.Problems) == 1) {
			t.Errorf("a stack with %s and drover.sni: got problems %+v, want one if its edge is nginx (%t)", class, p.Problems, nginx)
		}
	}

	e.drover.must(t, "destroy", stacks[e.kind], "-e", "dev", "-y")
	eventually(t, "the first edge is gone", func() bool {
		r, err := e.look(t.Context())
		return err == nil && len(r.Instances) == 1
	})
	untaken("outer", "No edge takes services without drover.class=NAME")
	other.reached(t, "https://inner.test/")
}
