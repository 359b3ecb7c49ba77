//go:build linux

package devcluster_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/acme/pki"
	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
)

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// acmeWorks asks for the directory and returns the root of what is issued.
func acmeWorks(t testing.TB, c *devcluster.Cluster) string {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(read(t, c.ACMECA()))) {
		t.Fatalf("there is no certificate in %s", c.ACMECA())
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer tr.CloseIdleConnections()
	res, err := (&http.Client{Transport: tr, Timeout: 10 * time.Second}).Get(c.ACMEDirectory())
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusOK || !strings.Contains(string(b), `"newOrder"`) {
		t.Errorf("%s: %s\n%s", c.ACMEDirectory(), res.Status, b)
	}
	root := read(t, c.CA())
	if cert := pki.First(root); cert == nil || !cert.IsCA || !strings.HasPrefix(cert.Subject.CommonName, "Pebble Root CA") {
		t.Errorf("%s is not Pebble's root:\n%s", c.CA(), root)
	}
	i := slices.IndexFunc(c.Agents(t.Context()), func(a devcluster.Agent) bool { return a.Name == "pebble" })
	if i < 0 {
		t.Fatal("pebble is not among the agents")
	}
	if a := c.Agents(t.Context())[i]; a.State != devcluster.StateRunning || a.PID == 0 || a.Addr+"/dir" != c.ACMEDirectory() {
		t.Errorf("the agent pebble is %+v", a)
	}
	return root
}

// TestACME adds Pebble to a cluster that runs; it survives down and up.
func TestACME(t *testing.T) {
	t.Parallel()
	opts := devtest.Options(t, devcluster.Options{})
	t.Cleanup(func() { devtest.Remove(t, opts.Dir) })
	c := up(t, opts)
	env, err := c.Env("")
	if c.ACMEDirectory()+c.ACMECA()+c.CA() != "" || err != nil || strings.Contains(strings.Join(env, " "), "DROVER_") {
		t.Errorf("without Pebble there is %q, %q, %q, %v (%v)", c.ACMEDirectory(), c.ACMECA(), c.CA(), env, err)
	}

	with := opts
	with.ACME = true
	if c = up(t, with); c.AlreadyRunning {
		t.Error("nothing was started")
	}
	root, api := acmeWorks(t, c), read(t, c.ACMECA())
	env, err = c.Env("")
	for _, want := range []string{
		"DROVER_ACME_DIRECTORY=" + c.ACMEDirectory(), "DROVER_ACME_CA=" + filepath.Join(c.Dir(), "acme", "api-ca.pem"), "DROVER_ACME_HTTP_PORT=9080", "DROVER_ACME_TERMS=any",
		"DROVER_DEV_CA=" + filepath.Join(c.Dir(), "acme", "ca.pem"), "NOMAD_VAR_domain=" + c.Loopback() + ":9443",
	} {
		if err != nil || !slices.Contains(env, want) {
			t.Errorf("env lacks %s: %v (%v)", want, env, err)
		}
	}
	for _, name := range []string{"pebble.json", "api-key.pem"} {
		if fi, err := os.Stat(filepath.Join(c.Dir(), "acme", name)); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
	}
	if again := up(t, with); !again.AlreadyRunning {
		t.Error("a second up with ACME started something")
	}
	if err := c.Restart(t.Context(), "pebble"); err != nil {
		t.Fatal(err)
	}
	restarted := acmeWorks(t, c)
	if restarted == root {
		t.Error("the root is not the one of the restarted Pebble")
	}

	if err := devcluster.Down(t.Context(), opts, false); err != nil {
		t.Fatal(err)
	}
	noLeftovers(t, c)
	c2 := up(t, opts)
	if acmeWorks(t, c2) == restarted {
		t.Error("the root is that of the run before")
	}
	if c2.ACMEDirectory() != c.ACMEDirectory() || read(t, c2.ACMECA()) != api {
		t.Errorf("the directory was %s with one CA and is %s", c.ACMEDirectory(), c2.ACMEDirectory())
	}
	if err := devcluster.Down(t.Context(), opts, true); err != nil {
		t.Fatal(err)
	}
	noLeftovers(t, c2)
	if _, err := os.Stat(opts.Dir); err == nil {
		t.Error("after a wipe the directory is there")
	}
}

// TestACMENew makes a cluster with Pebble at once.
func TestACMENew(t *testing.T) {
	t.Parallel()
	acmeWorks(t, devtest.Cluster(t, devcluster.Options{ACME: true}))
}
