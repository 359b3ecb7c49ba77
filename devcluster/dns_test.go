//go:build linux

package devcluster_test

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
)

// dnsWorks writes a record by the API and reads it by DNS.
func dnsWorks(t testing.TB, c *devcluster.Cluster, name string) {
	t.Helper()
	key, err := c.DNSKey()
	if err != nil {
		t.Fatal(err)
	}
	body := `{"rrsets":[{"name":"` + name + `.","type":"A","ttl":60,"changetype":"REPLACE","records":[{"content":"192.0.2.7"}]}]}`
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, c.DNSAPI()+"/api/v1/servers/localhost/zones/"+devcluster.DNSZone+".", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-API-Key", key)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusNoContent {
		t.Fatalf("writing a record: %s", res.Status)
	}
	dnsHas(t, c, name)
}

func dnsHas(t testing.TB, c *devcluster.Cluster, name string) {
	t.Helper()
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, c.DNSServer())
	}}
	if got, err := r.LookupHost(t.Context(), name); err != nil || !slices.Equal(got, []string{"192.0.2.7"}) {
		t.Errorf("%s is %v: %v", name, got, err)
	}
}

// TestDNS adds PowerDNS to a cluster that runs with Pebble; it and its records
// survive down and up.
func TestDNS(t *testing.T) {
	t.Parallel()
	opts := devtest.Options(t, devcluster.Options{ACME: true})
	t.Cleanup(func() { devtest.Remove(t, opts.Dir) })
	c := up(t, opts)
	if c.DNSServer()+c.DNSAPI() != "" {
		t.Error("there is PowerDNS already")
	}
	root := acmeWorks(t, c)
	with := opts
	with.DNS = true
	if c = up(t, with); c.AlreadyRunning {
		t.Error("nothing was started")
	}
	dnsWorks(t, c, "www."+devcluster.DNSZone)
	if acmeWorks(t, c) == root {
		t.Error("Pebble was not restarted, so it asks another server for names")
	}
	env, err := c.Env("")
	for _, want := range []string{"DROVER_DEV_DNS=" + c.DNSServer(), "NOMAD_VAR_dns_server=" + c.DNSAPI(), `NOMAD_VAR_dns_zones=["drover.test"]`} {
		if err != nil || !slices.Contains(env, want) {
			t.Errorf("env lacks %s: %v (%v)", want, env, err)
		}
	}
	for _, name := range []string{"pdns.conf", "api-key"} {
		if fi, err := os.Stat(filepath.Join(c.Dir(), "dns", name)); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
	}
	if again := up(t, with); !again.AlreadyRunning {
		t.Error("a second up with DNS started something")
	}
	if err := c.Restart(t.Context(), "powerdns"); err != nil {
		t.Fatal(err)
	}
	dnsHas(t, c, "www."+devcluster.DNSZone)
	if err := devcluster.Down(t.Context(), opts, false); err != nil {
		t.Fatal(err)
	}
	noLeftovers(t, c)
	c2 := up(t, opts)
	dnsHas(t, c2, "www."+devcluster.DNSZone)
	if c2.DNSServer() != c.DNSServer() || c2.DNSAPI() != c.DNSAPI() {
		t.Errorf("PowerDNS was at %s and is at %s", c.DNSServer(), c2.DNSServer())
	}
	if err := devcluster.Down(t.Context(), opts, true); err != nil {
		t.Fatal(err)
	}
	noLeftovers(t, c2)
}
