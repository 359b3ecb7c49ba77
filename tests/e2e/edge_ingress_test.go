package e2e

import (
	"crypto/x509"
	"net/http"
	"slices"
	"strconv"
	"strings"
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
