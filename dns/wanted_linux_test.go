package dns_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/dns"
)

func newWants(t *testing.T) dns.DesiredRecords {
	t.Helper()
	config := api.DefaultConfig()
	config.Address = devtest.Cluster(t, devcluster.Options{}).NomadAddr()
	client, err := api.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	return dns.DesiredRecords{Client: client}
}

// The stored records do not depend on where the deployment ran, hold no
// credential, and are written only if they differ.
func TestWants(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), newWants(t)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, []byte("a bundle\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := dns.Wanted{
		Owner: "wanting/pro.d", Zones: []string{"example.org"}, Policy: dns.Sync,
		Options: dns.Options{Provider: dns.ProviderPowerDNS, Server: "https://ns1:8081", CAFile: ca, CredentialSecret: "dns_key"}.WithCredential("not-to-be-seen"),
		Records: []dns.Record{{Name: "www", Type: "A", Values: []string{"192.0.2.1"}, Source: "/somewhere/stack.hcl:1:1"}},
	}
	put := func(want bool) {
		t.Helper()
		if got, err := s.Put(ctx, &w); err != nil || got != want {
			t.Fatalf("written: %t, want %t: %v", got, want, err)
		}
	}
	put(true)
	w.Records[0].Source = "elsewhere:2:1"
	put(false)
	if same, err := s.Has(ctx, &w); err != nil || !same {
		t.Errorf("it is not what was left: %v", err)
	}
	got, err := s.Get(ctx, w.Owner)
	if err != nil || got.Options.CA != "a bundle\n" || got.Records[0].Source != "" || got.Options.CredentialSecret != "dns_key" {
		t.Errorf("%+v, %v", got, err)
	}
	metas, _, err := s.Client.Variables().PrefixList(dns.WantedFolder+"/", nil)
	if err != nil || len(metas) != 1 {
		t.Fatalf("%d, %v", len(metas), err)
	}
	if v, _, err := s.Client.Variables().Read(metas[0].Path, nil); err != nil || strings.Contains(fmt.Sprint(v.Items), "not-to-be-seen") {
		t.Errorf("%v, %v", v, err)
	}

	// Without the credential the error says which one; with it all is there.
	var missing *dns.CredentialError
	got.Options.CA = ""
	if _, err := s.Open(ctx, got, dns.Allowed{OwnServers: true}); !errors.As(err, &missing) || missing.Secret != "dns_key" {
		t.Errorf("without a credential: %v", err)
	}
	if _, err := s.PutCredential(ctx, w.Owner, "the-key"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(ctx, got, dns.Allowed{OwnServers: true}); err != nil {
		t.Error(err)
	}

	// Other jobs, other hosts, and nothing else is different.
	other := &api.Job{TaskGroups: []*api.TaskGroup{{Services: []*api.Service{{Tags: []string{"drover.route=other.example.org/"}}}}}}
	follows := func(deployed string, want bool) *dns.Wanted {
		t.Helper()
		runs := func(context.Context) (dns.Runs, error) {
			return dns.Runs{Jobs: []*api.Job{other}, Deployed: deployed}, nil
		}
		if changed, err := s.Follow(ctx, w.Owner, runs); err != nil || changed != want {
			t.Fatalf("%v, %v", changed, err)
		}
		now, err := s.Get(ctx, w.Owner)
		if err != nil {
			t.Fatal(err)
		}
		return now
	}
	follows("", false) // it wants no records of routes
	w.Routes, w.Pending = true, true
	put(true)
	now := follows("", true)
	follows("", false)
	if !slices.Equal(now.Hosts, []string{"other.example.org"}) || len(now.Records) != len(w.Records) || now.Policy != w.Policy || !now.Pending {
		t.Errorf("%+v", now)
	}
	// The deployed release stored other records than the pending ones.
	former := w
	former.Records = nil
	for deployed, pending := range map[*dns.Wanted]bool{&former: true, &w: false} {
		digest, err := deployed.Digest()
		if err != nil {
			t.Fatal(err)
		}
		w.Pending = true
		if _, err := s.Put(ctx, &w); err != nil {
			t.Fatal(err)
		}
		if now = follows(digest, true); now.Pending != pending {
			t.Errorf("pending: %v, want %v", now.Pending, pending)
		}
	}
	// Until then nothing is deleted on its account.
	for pending, want := range map[bool]dns.Policy{true: dns.UpsertOnly, false: dns.Sync} {
		now.Policy, now.Pending = dns.Sync, pending
		if m, _, err := now.Manager(nil, nil, nil); err != nil || m.Policy != want {
			t.Errorf("pending %v: %v, %v", pending, m.Policy, err)
		}
	}
	w.Pending = false
	put(true)

	// More than fits into one item as it is.
	_, index, err := s.List(ctx, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		w.Records = append(w.Records, dns.Record{Name: fmt.Sprintf("host-%d", i), Type: "TXT", Values: []string{"something that takes its space"}})
	}
	put(true)
	list, _, err := s.List(ctx, index, 10*time.Second)
	if err != nil || len(list) != 1 || len(list[0].Records) != 1001 {
		t.Fatalf("%d, %v", len(list), err)
	}

	// One that names another owner would get the credential of that one.
	stolen, _, err := s.Client.Variables().Read(metas[0].Path, nil)
	if err != nil {
		t.Fatal(err)
	}
	delete(stolen.Items, "_lock")
	if _, _, err := s.Client.Variables().Create(&api.Variable{Path: dns.WantedFolder + "/thief/prod", Items: stolen.Items}, nil); err != nil {
		t.Fatal(err)
	}
	if list, _, err = s.List(ctx, 0, 0); len(list) != 1 || err == nil || !strings.Contains(err.Error(), `which has no right to that path`) {
		t.Errorf("got %d lists and error %v, want one list and the thief refused", len(list), err)
	}
	if err := s.Delete(ctx, "thief/prod"); err != nil {
		t.Error(err)
	}

	// One that cannot be read does not hide the others.
	if _, _, err := s.Client.Variables().Create(&api.Variable{Path: dns.WantedFolder + "/other/prod", Items: api.VariableItems{"_layout": "2"}}, nil); err != nil {
		t.Fatal(err)
	}
	if list, _, err = s.List(ctx, 0, 0); len(list) != 1 || err == nil || !strings.Contains(err.Error(), "written by a newer drover") {
		t.Errorf("%d, %v", len(list), err)
	}
	if err := s.Delete(ctx, "other/prod"); err != nil {
		t.Error(err)
	}
	for _, want := range []bool{true, false} {
		if stored, err := s.Stored(ctx, w.Owner); err != nil || stored != want {
			t.Errorf("stored: got %t, %v, want %t", stored, err, want)
		}
		if err := s.Delete(ctx, w.Owner); err != nil {
			t.Error(err)
		}
	}
	if has, err := s.HasCredential(ctx, w.Owner); has || err != nil {
		t.Errorf("the credential is left: %v", err)
	}
	if got, err := s.Get(ctx, w.Owner); got != nil || err != nil {
		t.Errorf("it is left: %v", err)
	}
}
