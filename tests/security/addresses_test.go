package security

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	capi "github.com/hashicorp/consul/api"
)

// oddAddresses are addresses of instances that would be directives of a configuration,
// or would make it invalid. The marker is in none of the other files.
var oddAddresses = []string{
	"127.0.0.1:1; } } server { listen 127.0.0.1:1; location /marked-by-an-address { return 200 x",
	"127.0.0.1:1\n  http-request return status 200 content-type text/marked-by-an-address",
	"marked-by-an-address.invalid",
	"127.0.0.1/marked-by-an-address",
}

// testAddresses registers instances whose addresses are none, as any job may (address in
// its service block). The edge takes its files, and others are served.
func testAddresses(t *testing.T, w *world) {
	taken := 0
	for i, address := range oddAddresses {
		name := fmt.Sprint("odd-", i)
		err := w.consul.Agent().ServiceRegister(&capi.AgentServiceRegistration{ID: name, Name: name, Address: address, Port: 80, Tags: []string{"drover.route=" + name + ".test/"}})
		if err != nil {
			t.Logf("Consul refuses the address %q: %v", address, err)
			continue
		}
		taken++
		w.group.Cleanup(t, func() { _ = w.consul.Agent().ServiceDeregister(name) })
	}
	if taken == 0 {
		t.Error("Consul refuses all addresses: nothing is tested")
	}
	w.register(t, "beside-odd", serve(t, "beside-odd"), "drover.route=beside-odd.test/")
	w.loaded(t, "beside-odd.test")
	files, err := filepath.Glob(filepath.Join(w.Dir(), "alloc", "*", string(w.kind), "local", "loaded.*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no configuration: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "marked-by-an-address") {
			t.Errorf("%s has what an instance calls its address", filepath.Base(file))
		}
	}
}
