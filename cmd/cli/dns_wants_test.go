package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/dns"
)

// TestDNSOfAnotherRelease interrupts a release while another one leaves its DNS
// records and is refused. When the first one is resumed, those records are not of
// what runs: nothing may be deleted on their account.
func TestDNSOfAnotherRelease(t *testing.T) {
	t.Parallel()
	w := newWorld(t, clusterEnv(t), "wanting")
	hook := filepath.Join(t.TempDir(), "hook")
	devtest.Script(t, hook, "#!/bin/sh\ncat >/dev/null\necho '{\"records\": []}'\n")
	write := func(version string) {
		t.Helper()
		w.write(svc{name: "a", value: version})
		text := fmt.Sprintf(`stack "wanting" {}
service "a" {}
dns {
  provider = "exec"
  command  = [%q]
  zones    = ["example.org"]
  policy   = "sync"
}
record "v%s" {
  type   = "A"
  values = ["192.0.2.1"]
}
`, hook, version)
		if err := os.WriteFile(filepath.Join(w.dir, "stack.hcl"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	wanted := func(name string, pending bool) {
		t.Helper()
		got, err := dns.DesiredRecords{Client: w.nomad}.Get(t.Context(), dns.Owner("wanting", "default"))
		if err != nil || got == nil || len(got.Records) != 1 || got.Records[0].Name != name || got.Pending != pending {
			t.Errorf("wanted is %+v, %v; want %s, pending %v", got, err, name, pending)
		}
	}
	interrupted := func(version string) {
		t.Helper()
		write(version)
		slowly(w, "a", "8s")
		w.interrupted("a", version)
		wanted("v"+version, true)
	}
	write("1")
	w.drover(exitOK, "deploy", w.dir)
	wanted("v1", false)
	interrupted("2")
	write("3")
	w.want(w.drover(exitBusy, "deploy", w.dir), "is interrupted")
	wanted("v2", true) // what is refused leaves nothing
	wants := dns.DesiredRecords{Client: w.nomad}
	other, err := wants.Get(t.Context(), dns.Owner("wanting", "default"))
	if err != nil {
		t.Fatal(err)
	}
	other.Records[0].Name = "v3" // as a deploy does that is refused under the lock
	if _, err := wants.Put(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	w.drover(exitOK, "resume", w.name)
	wanted("v3", true)
	// With nothing else wanted meanwhile, it is what runs.
	interrupted("4")
	w.drover(exitOK, "resume", w.name)
	wanted("v4", false)
}
