package controller

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"
)

// In a cluster with several namespaces, an instance that comes just after the instances
// were read is found as soon as they may be read again, also if nothing else changes.
func TestCatalog_ReadsAfterAChange(t *testing.T) {
	t.Parallel()
	const services = 500 // which are read every 10 s
	var mu sync.Mutex
	index, instances, waited := 1, 1, ""
	answer := func(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.Header().Set("X-Consul-Index", fmt.Sprint(index))
		switch {
		case r.URL.Path == "/v1/catalog/services":
			waited = r.URL.Query().Get("wait")
			all := map[string][]string{}
			for i := range services {
				all[fmt.Sprint("web-", i)] = []string{fmt.Sprintf("drover.route=web-%d.test/", i)}
			}
			answer(w, all)
		case strings.HasPrefix(r.URL.Path, "/v1/catalog/service/"):
			var all []capi.CatalogService
			for i := range instances {
				all = append(all, capi.CatalogService{ServiceID: fmt.Sprint(i)})
			}
			answer(w, all)
		case r.URL.Path == "/v1/namespaces":
			answer(w, []api.Namespace{{Name: "default"}, {Name: "shop"}})
		default:
			answer(w, []any{})
		}
	}))
	defer server.Close()
	nomad, err := api.NewClient(&api.Config{Address: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	consul, err := capi.NewClient(&capi.Config{Address: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	k := catalog{c: &controller{c: Config{Nomad: nomad, Consul: consul, LookEvery: time.Hour}}, services: map[string]service{}, allocs: map[string]allocation{}}
	var last uint64
	read := func() (registrations int, asked time.Duration) {
		t.Helper()
		all, several, next, err := k.read(t.Context(), last)
		if err != nil || !several {
			t.Fatalf("got several namespaces %t and error %v", several, err)
		}
		last = next
		mu.Lock()
		defer mu.Unlock()
		asked, err = time.ParseDuration(waited)
		if err != nil {
			t.Fatal(err)
		}
		return len(all), asked
	}
	if got, _ := read(); got != services {
		t.Fatalf("got %d instances, want %d", got, services)
	}
	mu.Lock()
	index, instances = 2, 2
	mu.Unlock()
	if got, asked := read(); got != services || asked != dnsLook {
		t.Fatalf("just after: got %d instances and a wait of %s, want %d and %s", got, asked, services, dnsLook)
	}
	if _, asked := read(); asked > 10*time.Second {
		t.Errorf("after a change that was not read: got a wait of %s, want 10s at most", asked)
	}
	if k.behind {
		t.Error("nothing has changed since, and the catalog is still behind")
	}
}
