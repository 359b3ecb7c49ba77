package imported

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acme/pki"
	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
)

// password is that of the database in all inputs.
const password = "kV7!tulip-harbour-42"

// guestbook is the application in one format: a front end behind the edge, a back end,
// and PostgreSQL.
type guestbook struct {
	format string
	files  []string // of the input
	flags  []string // of the import
	secret string   // name of the password, if the input does not have its value
	vars   []string // of the deployment
	db     string   // job of the database
	group  string   // of the database in it
	edit   []string // of the input, old and new
	// restarts is true if Nomad restarts its tasks when an instance of another comes or
	// goes: templates name the addresses, so that a request may be lost at any time.
	restarts bool
	dir      string // of the stack
}

func (g *guestbook) stack() string { return "guestbook-" + g.format }
func (g *guestbook) host() string  { return g.format + ".example.org" }

// testGuestbook imports the same application from five formats and deploys it behind the
// edge, with certificates of Pebble.
func testGuestbook(t *testing.T, w *world, n *node) {
	began := time.Now()
	w.guestbookImages(t, n)
	dcs := on(n)
	data := n.dir + "/guestbook-db"
	n.Must(t, "mkdir", data)
	self, _, err := w.Nomad.Nodes().List(nil)
	must(t, err)
	for _, stub := range self {
		if value := "guestbook"; stub.Name == n.Name {
			_, err := w.Nomad.Nodes().Meta().Apply(&api.NodeMetaApplyRequest{NodeID: stub.ID, Meta: map[string]*string{"storage": &value}}, nil)
			must(t, err)
		}
	}
	books := []*guestbook{
		{format: "compose", files: []string{"compose/compose.yaml"}, vars: append([]string{"--var", "domain=compose.example.org"}, dcs...), db: "guestbook-compose-db", group: "db"},
		{format: "kubernetes", files: []string{"kubernetes/guestbook.yaml"}, vars: dcs, db: "guestbook-kubernetes-db", group: "db"},
		{format: "marathon", files: []string{"marathon/guestbook.json"}, secret: "guestbook_db_password", vars: dcs, db: "guestbook-marathon-db", group: "db"},
		{format: "ecs", files: []string{"ecs/db-task.json", "ecs/backend-task.json", "ecs/frontend-task.json", "ecs/services.json"}, secret: "postgres_password",
			flags: []string{"--allow", "volume-driver", "--route", "frontend=ecs.example.org"}, vars: dcs, db: "guestbook-ecs-db", group: "db"},
		// The operator of an old job adapts what is of the old cluster.
		{format: "nomad", files: []string{"nomad/guestbook.nomad"}, db: "guestbook", group: "db", restarts: true,
			edit: []string{`"dc1"`, `"` + n.Name + `"`, "/srv/guestbook/db", data}},
	}
	var certificates []string
	root := w.pebble(t, n)
	for _, g := range books {
		w.importGuestbook(t, g)
		certificates = append(certificates, `"`+g.stack()+`"`)
		w.Drover.Want(t, 0, append([]string{"cert", "prepare", g.dir}, g.vars...)...)
	}
	w.shipped(t, "edge", append([]string{"--var", "driver=raw_exec", "--var", "hsts_max_age=0", "--var", "certificates=[" + strings.Join(certificates, ",") + "]"}, dcs...)...)
	w.shipped(t, "drover", append([]string{"--var", "driver=raw_exec", "--var", "user=root", "--var", "replicas=1", "--var", "check_names=false", "--var", "drover_binary=" + w.Drover.Path}, dcs...)...)
	t.Logf("the edge runs after %s", time.Since(began).Round(100*time.Millisecond))
	var all sync.WaitGroup
	for _, g := range books {
		all.Go(func() { // no parallel test: it waits more than it works
			w.run(t, g.format, func(t *testing.T) {
				if g.format != "compose" {
					devtest.NeedsFull(t)
				}
				w.testFormat(t, n, g, root)
			})
		})
	}
	all.Wait()
}

// testFormat is what holds for the application from each format.
func (w *world) testFormat(t *testing.T, n *node, g *guestbook, root *x509.CertPool) {
	began := time.Now()
	w.Deploy(t, g.dir, append([]string{"--no-check"}, g.vars...)...)
	t.Logf("deployed after %s", time.Since(began).Round(100*time.Millisecond))
	site := newSite(n, g.host(), root)
	site.again = g.restarts
	site.shows(t, "guestbook 1.0")
	site.redirects(t)
	site.sign(t, "Ada", "deployed")
	site.shows(t, "Ada: deployed")
	old := w.database(t, g)

	g.upgrade(t)
	w.Drover.Want(t, 0, append([]string{"deploy", g.dir, "--no-check", "-y"}, g.vars...)...)
	t.Logf("redeployed after %s", time.Since(began).Round(100*time.Millisecond))
	site.shows(t, "guestbook 1.1", "Ada: deployed")
	site.sign(t, "Grace", "redeployed")
	site.shows(t, "Grace: redeployed")
	redeployed := w.database(t, g)
	if redeployed.ID == old.ID {
		t.Error("the redeploy did not replace the database")
	}

	w.Drover.Want(t, 0, "rollback", g.dir, "-y")
	t.Logf("rolled back after %s", time.Since(began).Round(100*time.Millisecond))
	site.shows(t, "guestbook 1.0", "Ada: deployed", "Grace: redeployed")
	site.sign(t, "Edsger", "rolled back")
	site.shows(t, "Edsger: rolled back")
	if rolled := w.database(t, g); rolled.ID == redeployed.ID {
		t.Error("the rollback did not replace the database")
	}

	devtest.Contains(t, w.Drover.Want(t, 0, "cert", "status", g.stack()), "Ready")
	jobs, _, err := w.Nomad.Jobs().PrefixList("guestbook")
	must(t, err)
	for _, stub := range jobs {
		job, _, err := w.Nomad.Jobs().Info(stub.ID, nil)
		must(t, err)
		text, err := json.Marshal(job)
		must(t, err)
		if strings.Contains(string(text), password) {
			t.Errorf("the spec of %s has the password of the database", stub.ID)
		}
	}
}

// importGuestbook imports the application with a host of its own.
func (w *world) importGuestbook(t *testing.T, g *guestbook) {
	t.Helper()
	dir := t.TempDir()
	must(t, os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "guestbook", g.format))))
	edit := strings.NewReplacer(append([]string{"guestbook.example.org", g.host()}, g.edit...)...)
	var files []string
	for _, name := range g.files {
		file := filepath.Join(dir, filepath.Base(name))
		text, err := os.ReadFile(file)
		must(t, err)
		must(t, os.WriteFile(file, []byte(edit.Replace(string(text))), 0o600))
		files = append(files, file)
	}
	g.dir = w.Import(t, g.stack(), append(g.flags, files...)...)
	if g.db != "guestbook" { // a layer of the environment; an old job has no layer under it
		must(t, os.WriteFile(filepath.Join(g.dir, "environments", "default.hcl"),
			[]byte("variables {}\njob \""+g.stack()+"-*\" {\n  group \"*\" {\n    update {\n      min_healthy_time = \"1s\"\n    }\n  }\n}\n"), 0o600))
	}
	if g.secret == "" {
		return
	}
	// The platform has the value, and the operator writes it into the file.
	file := filepath.Join(g.dir, "secrets.yaml")
	text, err := os.ReadFile(file)
	must(t, err)
	before := g.secret + `: ""`
	if !strings.Contains(string(text), before) {
		t.Fatalf("%s: got\n%s\nwant %s", file, text, before)
	}
	must(t, os.WriteFile(file, []byte(strings.ReplaceAll(string(text), before, g.secret+": "+password)), 0o600))
}

// versions are the tags of the images. "1.0" is also the default of a variable.
var versions = regexp.MustCompile(`(guestbook/\w+:)1\.0|(default\s+= ")1\.0(")`)

// upgrade writes other tags of all images into the stack.
func (g *guestbook) upgrade(t *testing.T) {
	t.Helper()
	must(t, filepath.WalkDir(g.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".hcl" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		after := strings.ReplaceAll(versions.ReplaceAllString(string(text), "${1}${2}1.1${3}"), `"postgres:15"`, `"postgres:15.18"`)
		return os.WriteFile(path, []byte(after), 0o600)
	}))
}

// database is the running allocation of the database.
func (w *world) database(t *testing.T, g *guestbook) *api.AllocationListStub {
	t.Helper()
	list, _, err := w.Nomad.Jobs().Allocations(g.db, false, nil)
	must(t, err)
	at := slices.IndexFunc(list, func(a *api.AllocationListStub) bool {
		return a.TaskGroup == g.group && a.ClientStatus == "running" && a.DesiredStatus == "run"
	})
	if at < 0 {
		t.Fatalf("no allocation of %s runs", g.db)
	}
	return list[at]
}

// site is the guestbook, as a browser sees it.
type site struct {
	url    string
	client *http.Client
	again  bool // a person signs again after 502 or 503
}

// newSite asks the edge of the node, whatever the host, and trusts only the CA.
func newSite(n *node, host string, root *x509.CertPool) *site {
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(n.Address, port))
	}
	return &site{url: "https://" + host, client: &http.Client{
		Transport:     &http.Transport{DialContext: dial, DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: root, MinVersion: tls.VersionTLS12}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       20 * time.Second,
	}}
}

// shows waits until the page has all parts.
func (s *site) shows(t *testing.T, parts ...string) {
	t.Helper()
	got := ""
	defer func() {
		if t.Failed() {
			t.Logf("%s: got %s", s.url, got)
		}
	}()
	devtest.Until(t, 30*time.Second, fmt.Sprintf("the page has %q", parts), func() bool {
		resp, err := s.client.Get(s.url + "/")
		if err != nil {
			got = err.Error()
			return false
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		got = fmt.Sprint(resp.Status, " ", string(body), err)
		return err == nil && resp.StatusCode == http.StatusOK && strings.Contains(string(body), "Our guestbook") &&
			!slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(string(body), p) })
	})
}

// redirects checks that HTTP leads to HTTPS.
func (s *site) redirects(t *testing.T) {
	t.Helper()
	resp, err := s.client.Get(strings.Replace(s.url, "https:", "http:", 1) + "/")
	must(t, err)
	defer resp.Body.Close()
	if got := resp.Header.Get("Location"); resp.StatusCode < 300 || resp.StatusCode > 399 || got != s.url+"/" {
		t.Errorf("HTTP: got status %d to %q, want a redirect to %s/", resp.StatusCode, got, s.url)
	}
}

// sign adds an entry, once.
func (s *site) sign(t *testing.T, name, message string) {
	t.Helper()
	sign := func() (code int) {
		resp, err := s.client.PostForm(s.url+"/sign", url.Values{"name": {name}, "message": {message}})
		must(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusSeeOther {
			t.Logf("POST /sign: got status %d, %s %v", resp.StatusCode, body, err)
		}
		return resp.StatusCode
	}
	code := sign()
	if s.again && (code == http.StatusBadGateway || code == http.StatusServiceUnavailable) {
		s.shows(t) // it is back
		code = sign()
	}
	if code != http.StatusSeeOther {
		t.Errorf("POST /sign: got status %d, want 303", code)
	}
}

// shipped deploys a stack that ships with drover. It is destroyed when the test is over.
func (w *world) shipped(t *testing.T, name string, args ...string) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			w.explain(t, name)
		}
		cmd := exec.CommandContext(context.WithoutCancel(t.Context()), w.Drover.Path, "destroy", name, "-y")
		cmd.Env = append(os.Environ(), w.Drover.Env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("destroying %s: %v\n%s", name, err, out)
		}
	})
	w.Drover.Want(t, 0, append([]string{"deploy", name, "-y"}, args...)...)
}

// guestbookImages gives the node the images of the inputs.
func (w *world) guestbookImages(t *testing.T, n *node) {
	t.Helper()
	for _, name := range []string{"frontend", "backend"} {
		for _, version := range []string{"1.0", "1.1"} {
			p, err := image{Files: []file{{Path: name, Source: filepath.Join(w.Dir, name)}}, Entrypoint: []string{"/" + name}, Env: []string{"GUESTBOOK_VERSION=" + version}}.pack()
			must(t, err)
			n.load(t, "registry.example.org/guestbook/"+name+":"+version, p)
		}
	}
	p, err := postgresImage(t, filepath.Join(w.Dir, "postgres")).pack()
	must(t, err)
	n.load(t, "postgres:15", p)
	n.Must(t, "docker", "-H", "unix:///run/docker.sock", "tag", "postgres:15", "postgres:15.18")
}

// postgresImage is an image of Debian's PostgreSQL that behaves as the image postgres.
func postgresImage(t *testing.T, entrypoint string) image {
	t.Helper()
	all, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	must(t, err)
	if len(all) == 0 {
		t.Fatal("PostgreSQL is not installed (Debian: apt-get install --no-install-recommends postgresql)")
	}
	bin := filepath.Dir(all[len(all)-1])
	version := filepath.Base(filepath.Dir(bin))
	files := []file{
		{Path: "etc/passwd", Mode: 0o644, Text: "root:x:0:0:root:/:/bin/sh\npostgres:x:999:999:postgres:/:/bin/sh\n"},
		{Path: "etc/group", Mode: 0o644, Text: "root:x:0:\npostgres:x:999:\n"},
		{Path: "docker-entrypoint", Source: entrypoint},
	}
	files = append(files, program(t, "bin/sh", "/bin/sh")...)
	for _, name := range []string{"postgres", "initdb"} {
		files = append(files, program(t, strings.TrimPrefix(filepath.Join(bin, name), "/"), filepath.Join(bin, name))...)
	}
	files = append(files, program(t, "usr/bin/pg_isready", filepath.Join(bin, "pg_isready"))...)
	for _, dir := range []string{"/usr/share/postgresql/" + version, "/usr/lib/postgresql/" + version + "/lib", "/usr/share/zoneinfo/Etc"} {
		must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			// The compiler of queries is optional, and large.
			if err != nil || d.IsDir() || strings.Contains(path, "llvmjit") || strings.Contains(path, "/bitcode/") {
				return err
			}
			files = append(files, file{Path: strings.TrimPrefix(path, "/"), Source: path, Mode: 0o644})
			return nil
		}))
	}
	return image{Files: files, Entrypoint: []string{"/docker-entrypoint"}, Cmd: []string{"postgres"}, Env: []string{"PG_BIN=" + bin}, Ports: []string{"5432/tcp"}, Volumes: []string{"/var/lib/postgresql/data"}}
}

// pebble starts an ACME server that finds each name at the node, tells drover of it, and returns its root.
func (w *world) pebble(t *testing.T, n *node) *x509.CertPool {
	t.Helper()
	ca, key, err := pki.NewCA("pebble", time.Now())
	must(t, err)
	cert, certKey, err := pki.Sign(pki.Leaf{CommonName: "pebble", IPAddresses: []string{serverAddress}, Lifetime: time.Hour}, ca, key, time.Now())
	must(t, err)
	file := w.write(t, "pebble-ca.pem", pki.EncodeCertificate(ca.Raw))
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": serverAddress + ":14000", "managementListenAddress": serverAddress + ":15000",
		"certificate": w.write(t, "pebble.pem", cert), "privateKey": w.write(t, "pebble-key.pem", certKey),
		"httpPort": 80, "tlsPort": 443, "keyAlgorithm": "ecdsa", "retryAfter": map[string]int{"authz": 0, "order": 0},
		"profiles": map[string]any{"default": map[string]any{"description": "90 days", "validityPeriod": 7776000}},
	}})
	must(t, err)
	w.start(t, "challtestsrv", nil, filepath.Join(w.Dir, devcluster.PebbleChallTestSrv), "-dnsserver", serverAddress+":8053", "-management", serverAddress+":8055",
		"-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "", "-defaultIPv4", n.Address, "-defaultIPv6", "")
	w.start(t, "pebble", nil, "env", "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0", "PEBBLE_AUTHZREUSE=0",
		filepath.Join(w.Dir, devcluster.Pebble), "-config", w.write(t, "pebble.json", string(config)), "-dnsserver", serverAddress+":8053")
	trusted := x509.NewCertPool()
	trusted.AddCert(ca)
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}}}
	root := x509.NewCertPool()
	devtest.Until(t, time.Minute, "pebble answers", func() bool {
		resp, err := client.Get("https://" + serverAddress + ":15000/roots/0")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		return err == nil && root.AppendCertsFromPEM(text)
	})
	w.Drover.Env = append(w.Drover.Env, "DROVER_ACME_DIRECTORY=https://"+serverAddress+":14000/dir", "DROVER_ACME_CA="+file, "DROVER_ACME_TERMS=any")
	return root
}
