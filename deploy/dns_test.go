package deploy

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/rollout"
)

// zoneServer answers like the API of PowerDNS, with one zone in memory.
type zoneServer struct {
	mu   sync.Mutex
	sets map[string]map[string]any // by name and type
	down bool
}

func (z *zoneServer) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.down {
		rw.WriteHeader(http.StatusUnauthorized)
		return
	}
	if r.Method == http.MethodPatch {
		var sent struct {
			RRsets []map[string]any `json:"rrsets"`
		}
		if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
			rw.WriteHeader(http.StatusBadRequest)
			return
		}
		for _, set := range sent.RRsets {
			key := set["name"].(string) + " " + set["type"].(string)
			if set["changetype"] == "DELETE" {
				delete(z.sets, key)
				continue
			}
			z.sets[key] = set
		}
		rw.WriteHeader(http.StatusNoContent)
		return
	}
	all := []map[string]any{}
	for _, set := range z.sets {
		all = append(all, set)
	}
	_ = json.NewEncoder(rw).Encode(map[string]any{"rrsets": all})
}

// withRecord gives the stack a DNS provider and a record.
func (w *world) withRecord(more string) *zoneServer {
	w.Helper()
	z := &zoneServer{sets: map[string]map[string]any{}}
	server := httptest.NewServer(z)
	w.Cleanup(server.Close)
	w.write("stack.hcl", "stack \"shop\" {}\ndns {\n  provider = \"powerdns\"\n  server = \""+server.URL+"\"\n  zones = [\"example.org\"]\n"+more+"}\nrecord \"www\" {\n  type = \"A\"\n  values = [\"192.0.2.1\"]\n}\n")
	return z
}

func TestDeploy_Records(t *testing.T) {
	t.Parallel()
	withDNS := slices.Insert(slices.Clone(deployPhases), 5, PhaseDNS)
	t.Run("are made before the rollout and kept for the controller", func(t *testing.T) {
		w := newWorld(t)
		z := w.withRecord("  policy = \"sync\"\n")
		w.home.Environ = []string{"PDNS_API_KEY=key"}
		v := w.deployVerb()
		v.NoCertificates = false
		_, err := v.Run(t.Context())
		w.wantEnd(err, rollout.Deployed, ClassNone)
		if got := w.phases(); !slices.Equal(got, withDNS) {
			t.Errorf("got phases %q, want %q", got, withDNS)
		}
		if z.sets["www.example.org. A"] == nil {
			t.Errorf("got records %v, want that of www", z.sets)
		}
		if !slices.ContainsFunc(w.events, func(e Event) bool { return e.Kind == KindRecord && e.Record.Name == "www.example.org" }) {
			t.Errorf("got events %+v, want one of the record", w.events)
		}
		wanted, err := dns.DesiredRecords{Client: w.nomad.client(t)}.Get(t.Context(), dns.Owner("shop", "default"))
		if err != nil || wanted == nil || wanted.Pending {
			t.Errorf("got %+v, %v, want what the controller keeps", wanted, err)
		}
	})
	t.Run("of several dns blocks go to each, and the release stores what each left", func(t *testing.T) {
		w := newWorld(t)
		inside := w.withRecord("")
		outside := &zoneServer{sets: map[string]map[string]any{}}
		server := httptest.NewServer(outside)
		t.Cleanup(server.Close)
		text, err := os.ReadFile(filepath.Join(w.dir, "stack.hcl"))
		if err != nil {
			t.Fatal(err)
		}
		w.write("stack.hcl", strings.Replace(string(text), "dns {\n", "dns {\n  challenges = false\n", 1)+
			"dns \"outside\" {\n  provider = \"powerdns\"\n  server = \""+server.URL+"\"\n  zones = [\"example.org\"]\n  policy = \"sync\"\n}\n"+
			"record \"shop\" {\n  type = \"A\"\n  values = [\"192.0.2.2\"]\n  dns = [\"outside\"]\n}\n")
		w.home.Environ = []string{"PDNS_API_KEY=key"}
		v := w.deployVerb()
		v.NoCertificates = false
		_, err = v.Run(t.Context())
		w.wantEnd(err, rollout.Deployed, ClassNone)
		for name, z := range map[string]*zoneServer{"inside": inside, "outside": outside} {
			if got := z.sets["www.example.org. A"] != nil; !got {
				t.Errorf("%s: got no record of www", name)
			}
			if got := z.sets["shop.example.org. A"] != nil; got != (name == "outside") {
				t.Errorf("%s: got a record of shop: %t", name, got)
			}
		}
		var digests []string
		for _, name := range []string{"", "outside"} {
			wanted, err := dns.DesiredRecords{Client: w.nomad.client(t)}.Get(t.Context(), dns.BlockOwner(dns.Owner("shop", "default"), name))
			if err != nil || wanted == nil || wanted.Pending {
				t.Fatalf("got %+v, %v, want what the controller keeps of block %q", wanted, err, name)
			}
			digest, err := wanted.Digest()
			if err != nil {
				t.Fatal(err)
			}
			digests = append(digests, digest)
		}
		last, err := w.store.Last(t.Context())
		if err != nil || last == nil || last.DNS != strings.Join(digests, ",") {
			t.Errorf("got release %+v, %v, want the digests %q", last, err, digests)
		}
	})
	t.Run("a secret of the stack is the credential", func(t *testing.T) {
		w := newWorld(t)
		w.withRecord("  credential_secret = \"dns_key\"\n}\nsecret \"dns_key\" {\n  type = \"given\"\n")
		v := w.deployVerb()
		v.NoCertificates = false
		_, err := v.Run(t.Context())
		w.wantEnd(err, "", ClassInvalid)
		if got, want := w.phases(), deployPhases[:3]; !slices.Equal(got, want) {
			t.Errorf("got phases %q, want %q", got, want)
		}
		// The secrets of the world are in its backend, and not in Nomad.
		w.secrets.Set("dns_key", "key")
		v = w.deployVerb()
		v.NoCertificates = false
		if _, err = v.Run(t.Context()); is[*InvalidError](err) {
			t.Errorf("with the credential: got %v, want no error of the stack", err)
		}
		w.wantRunning("api=1 web=1")
	})
	t.Run("a provider that refuses does not stop the rollout", func(t *testing.T) {
		w := newWorld(t)
		w.withRecord("").down = true
		w.home.Environ = []string{"PDNS_API_KEY=key"}
		v := w.deployVerb()
		v.NoCertificates = false
		_, err := v.Run(t.Context())
		w.wantEnd(err, CertificateFailed, ClassOther)
		if !is[*CertificatesError](err) {
			t.Errorf("got %v, want a *CertificatesError", err)
		}
		w.wantRunning("api=1 web=1")
	})
	for name, more := range map[string]string{"without a credential": "", "with a policy that does not exist": "  policy = \"none\"\n"} {
		t.Run("refuses "+name, func(t *testing.T) {
			w := newWorld(t)
			w.withRecord(more)
			v := w.deployVerb()
			v.NoCertificates = false
			_, err := v.Run(t.Context())
			if end := w.end(t); ClassOf(err) != ClassInvalid || end.Err == nil {
				t.Errorf("got %v and end %+v, want class %d", err, end, ClassInvalid)
			}
			w.wantRunning("")
		})
	}
}

func TestDeploy_CertificateWithoutAnEdge(t *testing.T) {
	w := newWorld(t)
	w.write("stack.hcl", "stack \"shop\" {}\ncertificate \"public\" {\n  names = [\"www.example.org\"]\n}\n")
	v := w.deployVerb()
	v.NoCertificates = false
	_, err := v.Run(t.Context())
	w.wantEnd(err, "", ClassOther)
	if got, want := w.phases(), deployPhases[:5]; !slices.Equal(got, want) {
		t.Errorf("got phases %q, want %q", got, want)
	}
	if !strings.Contains(message(err), "no edge runs that would serve certificate public") {
		t.Errorf("got %v, want that no edge runs", err)
	}
	w.wantRunning("")
}
