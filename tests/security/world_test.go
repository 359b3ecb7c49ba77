package security

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acl"
	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/nomad/variables"
)

// patience is how long a test waits for what an idle machine does in seconds.
const patience = time.Minute

// world is a dev cluster with one edge.
type world struct {
	*devcluster.Cluster
	nomad  *api.Client
	consul *capi.Client
	drover devtest.Program
	kind   edge.Kind
	loads  *devtest.Shared[bool]
	group  *devtest.Group // nil for a test that runs alone
}

// together runs subtests side by side. The edge does not reload until all have ended.
func (w *world) together(t *testing.T, tests map[string]func(*testing.T, *world)) {
	t.Helper()
	group := map[string]func(*testing.T, *devtest.Group){}
	for name, test := range tests {
		group[name] = func(t *testing.T, g *devtest.Group) {
			of := *w
			of.group = g
			test(t, &of)
		}
	}
	devtest.TogetherIn(t, group)
}

func start(t *testing.T, kind edge.Kind) *world {
	t.Helper()
	cluster := devtest.Cluster(t, devcluster.Options{Secure: devtest.Secured()})
	env, err := cluster.Env("")
	if err != nil {
		t.Fatal(err)
	}
	if devtest.Secured() {
		env = append(env, devtest.Tokens(t, cluster, acl.Deployer)...)
	}
	w := &world{Cluster: cluster, drover: devtest.Program{Path: devtest.Build(t, t.TempDir()), Env: env}, kind: kind, loads: &devtest.Shared[bool]{}}
	if w.nomad, err = api.NewClient(cluster.NomadConfig()); err != nil {
		t.Fatal(err)
	}
	if w.consul, err = capi.NewClient(cluster.ConsulConfig()); err != nil {
		t.Fatal(err)
	}
	w.certificate(t)
	w.variable(t, "drover/acme/public", map[string]string{"thumbprint": "none"})
	return w
}

// bundle is a self-signed certificate and its key.
func bundle(t *testing.T, host string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})) + string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
}

// certificate stores a new certificate for the edge.
func (w *world) certificate(t *testing.T) {
	t.Helper()
	w.variable(t, acme.Path("public"), map[string]string{
		acme.ItemBundle: bundle(t, "edge.test"), variables.LayoutItem: strconv.Itoa(acme.Layout), "spec": `{"name":"public"}`, "status": "{}",
	})
}

func (w *world) variable(t *testing.T, path string, items map[string]string) {
	t.Helper()
	if _, _, err := w.nomad.Variables().Update(&api.Variable{Path: path, Items: items}, nil); err != nil {
		t.Fatal(err)
	}
}

// register puts a service at address into Consul, until the test and those beside it
// are over.
func (w *world) register(t *testing.T, name, address string, tags ...string) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprintf("%s-%s", name, address)
	if err := w.consul.Agent().ServiceRegister(&capi.AgentServiceRegistration{ID: id, Name: name, Address: host, Port: number, Tags: tags}); err != nil {
		t.Fatal(err)
	}
	w.group.Cleanup(t, func() { _ = w.consul.Agent().ServiceDeregister(id) })
}

// published is what the edge says of itself at GET /edge.
func (w *world) published() (said map[string]any, metrics string) {
	instances, _, err := w.consul.Health().Service(edge.ServiceName, "", false, nil)
	if err != nil || len(instances) != 1 {
		return nil, ""
	}
	s := instances[0].Service
	metrics = net.JoinHostPort(s.Address, strconv.Itoa(s.Port))
	res, err := read("http://" + metrics + "/edge")
	if err != nil {
		return nil, ""
	}
	defer res.Body.Close()
	_ = json.NewDecoder(res.Body).Decode(&said)
	return said, metrics
}

// Credentials of the port metrics, in the list admins.
const metricsUser, metricsPassword = "alice", "wonderland"

// read is a GET at the port metrics.
func read(url string) (*http.Response, error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.SetBasicAuth(metricsUser, metricsPassword)
	client := &http.Client{Timeout: 5 * time.Second}
	return client.Do(req)
}

// loaded waits until the edge has loaded the tags that are in Consul, of this test and
// of those beside it, and answers a GET of each host with 200.
func (w *world) loaded(t *testing.T, hosts ...string) {
	t.Helper()
	w.group.Registered()
	devtest.Cataloged(t, patience, w.consul)
	devtest.Until(t, patience, "the edge has loaded its routes", func() bool {
		return w.loads.Get(func() bool {
			services, _, err := w.consul.Catalog().Services(nil)
			if err != nil {
				return false
			}
			said, _ := w.published()
			g, _ := said["generation"].(map[string]any)
			return said["tags"] == edge.Digest(services) && g["files"] != "" && g["files"] == g["worker"]
		})
	})
	for _, host := range hosts {
		devtest.Until(t, patience, host+" is served", func() bool {
			for range 3 {
				if status, _ := w.status("GET / HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n"); status != http.StatusOK {
					return false
				}
			}
			return true
		})
	}
}

// dial connects to the HTTPS port, from a source address of 127.0.0.0/8.
func (w *world) dial(source string, protocols ...string) (*tls.Conn, error) {
	raw, err := w.dialRaw(source)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, ServerName: "edge.test", NextProtos: protocols})
	if err := conn.Handshake(); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, nil
}

func (w *world) dialRaw(source string) (net.Conn, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	if source != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(source)}
	}
	conn, err := d.Dial("tcp", w.Loopback()+":9443")
	if err == nil {
		err = conn.SetDeadline(time.Now().Add(20 * time.Second))
	}
	return conn, err
}

// response is an answer of the edge.
type response struct {
	*http.Response
	body []byte
	arrived
}

// arrived is a request as a backend has seen it.
type arrived struct {
	Backend, Method, URI string
	Header               http.Header
	Length               int
}

// send sends one request as it is written. source may be empty.
func (w *world) send(source, request string) (*response, error) {
	conn, err := w.dial(source)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		return nil, err
	}
	method, _, _ := strings.Cut(request, " ")
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	r := &response{Response: res, body: body}
	_ = json.Unmarshal(body, &r.arrived) // what is not of a backend of the test is no JSON
	return r, err
}

// status is the status of the answer and the backend that gave it.
func (w *world) status(request string) (int, string) {
	r, err := w.send("", request)
	if err != nil {
		return 0, err.Error()
	}
	return r.StatusCode, r.Backend
}

// serve runs a backend that answers what has arrived.
func serve(t *testing.T, name string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if slow(w, r) {
			return
		}
		n, _ := io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(arrived{name, r.Method, r.RequestURI, r.Header, int(n)})
	}))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.Listener.Addr().String()
}

// h2 is a client that speaks HTTP/2 to the HTTPS port, whatever the host of a URL.
func (w *world) h2() *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, ServerName: "edge.test"},
		ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, w.Loopback()+":9443")
		},
	}}
}
