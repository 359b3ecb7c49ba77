package security

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/edge"
)

// authority issues certificates of services.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of a test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{key, cert}
}

func (a authority) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
}

func (a authority) issue(t *testing.T, host string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// serveTLS runs a backend with this certificate.
func serveTLS(t *testing.T, name string, cert tls.Certificate) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(arrived{name, r.Method, r.RequestURI, r.Header, 0})
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.StartTLS()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.Listener.Addr().String()
}

// testAuthorities reaches services that speak HTTPS: only those whose certificate
// is verified, and those that say that it is not.
func testAuthorities(t *testing.T, w *world) {
	internal, foreign := newAuthority(t), newAuthority(t)
	w.variable(t, "drover/ca/internal", map[string]string{"ca": internal.pem()})
	https := func(host string, more ...string) []string {
		return append([]string{"drover.route=" + host + "/", "drover.protocol=https"}, more...)
	}
	w.register(t, "verified", serveTLS(t, "verified", internal.issue(t, "verified.service.consul")), https("verified.test", "drover.ca=internal")...)
	w.register(t, "named", serveTLS(t, "named", internal.issue(t, "named.test")), https("named.test", "drover.ca=internal named.test")...)
	w.register(t, "other-name", serveTLS(t, "other-name", internal.issue(t, "verified.service.consul")), https("other-name.test", "drover.ca=internal")...)
	w.register(t, "forged", serveTLS(t, "forged", foreign.issue(t, "forged.service.consul")), https("forged.test", "drover.ca=internal")...)
	w.register(t, "unverified", serveTLS(t, "unverified", foreign.issue(t, "any.test")), https("unverified.test", "drover.ca=none")...)
	w.register(t, "silently", serveTLS(t, "silently", foreign.issue(t, "any.test")), https("silently.test")...)
	w.register(t, "unknown-ca", serveTLS(t, "unknown-ca", foreign.issue(t, "any.test")), https("unknown-ca.test", "drover.ca=nosuch")...)
	leaf, _, err := w.consul.Agent().ConnectCALeaf("mesh", nil)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair([]byte(leaf.CertPEM), []byte(leaf.PrivateKeyPEM))
	if err != nil {
		t.Fatal(err)
	}
	w.register(t, "mesh", serveTLS(t, "mesh", cert), https("mesh.test", "drover.ca=consul")...)
	w.register(t, "not-mesh", serveTLS(t, "not-mesh", foreign.issue(t, "not-mesh.service.consul")), https("not-mesh.test", "drover.ca=consul")...)
	hosts := []string{"verified.test", "named.test", "unverified.test"}
	if w.kind == edge.HAProxy { // nginx verifies a name, and Consul's certificates have none
		hosts = append(hosts, "mesh.test")
	}
	w.loaded(t, hosts...)
	for host, want := range map[string]int{
		"other-name.test": http.StatusServiceUnavailable, "forged.test": http.StatusServiceUnavailable, "not-mesh.test": http.StatusServiceUnavailable,
		"silently.test": http.StatusNotFound, "unknown-ca.test": http.StatusNotFound,
	} {
		if want == http.StatusServiceUnavailable && w.kind == edge.Nginx {
			want = http.StatusBadGateway
		}
		if got, backend := w.status("GET / HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n"); got != want {
			t.Errorf("%s: got %d by %q, want %d", host, got, backend, want)
		}
	}
	// Another authority at run time.
	w.variable(t, "drover/ca/internal", map[string]string{"ca": foreign.pem()})
	devtest.Until(t, patience, "the new authority is taken", func() bool {
		status, _ := w.status("GET / HTTP/1.1\r\nHost: forged.test\r\nConnection: close\r\n\r\n")
		return status == http.StatusOK
	})
}

// testMetrics asks for a password at the port metrics.
func testMetrics(t *testing.T, w *world) {
	w.loaded(t)
	_, address := w.published()
	for path, want := range map[string][2]int{"/health": {200, 200}, "/metrics": {401, 200}, "/edge": {401, 200}} {
		for i, with := range []bool{false, true} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if with {
				req.SetBasicAuth(metricsUser, metricsPassword)
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != want[i] {
				t.Errorf("%s with a password %t: got %d, want %d", path, with, res.StatusCode, want[i])
			}
		}
	}
	if out, _ := w.drover.Run(t, "edge", "status"); !strings.Contains(out, "$"+edge.CredentialsEnv) {
		t.Errorf("drover edge status does not name $%s:\n%s", edge.CredentialsEnv, out)
	}
	with := w.drover
	with.Env = append(slices.Clone(with.Env), edge.CredentialsEnv+"="+metricsUser+":"+metricsPassword)
	var out string
	defer func() {
		if t.Failed() {
			t.Log(out)
		}
	}()
	devtest.Until(t, patience, "drover edge status has the password", func() bool {
		out, _ = with.Run(t, "edge", "status", "-o", "json")
		var r edge.Report
		return json.Unmarshal([]byte(out), &r) == nil && len(r.Instances) == 1 && r.Instances[0].Kind == w.kind && r.Instances[0].Problem == ""
	})
}
