package release_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/nomad/variables/vartest"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/rollout"
)

// A release reads as much of the record with a long history as with a short one.
func TestDeploy_ReadsDoNotGrowWithHistory(t *testing.T) {
	t.Parallel()
	// reads returns how many requests that read make a release after more releases than
	// are kept.
	reads := func(t *testing.T, kept int) []string {
		w := newWorld(t)
		server := vartest.New()
		var out []string
		for i := range kept + 2 {
			w.d = w.deployer("ann") // a process for each
			w.d.Keep = kept
			w.d.Releases = release.InNomad(record.OpenReleases(vartest.Client(t, server), "shop", "prod"))
			server.TakeRequests()
			if res := w.deploy(request(fmt.Sprint(i))); res.Outcome() != rollout.Deployed {
				t.Fatalf("release %d: got %s, want %s", i+1, res.Outcome(), rollout.Deployed)
			}
			out = nil
			for _, r := range server.TakeRequests() {
				if strings.HasPrefix(r, "GET ") && !strings.Contains(r, "index=") { // those wait
					out = append(out, r)
				}
			}
		}
		if numbers, err := w.d.Releases.Numbers(t.Context()); err != nil || len(numbers) != kept {
			t.Errorf("%d releases are left, %v, want %d", len(numbers), err, kept)
		}
		return out
	}
	var short, long []string
	t.Run("short", func(t *testing.T) { short = reads(t, 10) })
	t.Run("long", func(t *testing.T) { long = reads(t, 60) })
	t.Cleanup(func() { // after both
		if len(short) != len(long) || len(short) == 0 {
			t.Errorf("%d requests read with a history of 10, and %d with one of 60:\n%s\n\n%s", len(short), len(long), strings.Join(short, "\n"), strings.Join(long, "\n"))
		}
	})
}
