package record

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"
)

// Scrub removes the secrets that older versions of drover recorded in clear, and their
// blobs. An open release keeps the probe that it needs.
func testScrub(t *testing.T, c *api.Client, _ *tamper) {
	r := OpenReleases(c, "scrub", "default")
	old, err := Pack(Blob{Values: json.RawMessage(`{"mac":"value-in-clear","web.mac":"value-in-clear","domain":"example.org"}`)})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Store(t.Context(), []Packed{old}, nil); err != nil {
		t.Fatal(err)
	}
	gate := json.RawMessage(`{"Name":"all","Gate":{"HTTP":{"URL":"https://example.org/","Username":"u","Password":"gate-in-clear"}}}`)
	for i, state := range []State{Done, Done, Interrupted} {
		j, err := r.Create(t.Context(), &Release{Number: i + 1, State: state, Owner: "me", Values: old.Digest, Waves: []Wave{{Name: "all", Gate: gate}}}, lines(1))
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	got, err := r.Scrub(t.Context(), []string{"mac"})
	if err != nil || !slices.Equal(got, []int{3, 2, 1}) {
		t.Fatalf("%v, %v", got, err)
	}
	if again, err := r.Scrub(t.Context(), []string{"mac"}); err != nil || len(again) > 0 {
		t.Errorf("once more: %v, %v", again, err)
	}
	for n := 1; n <= 3; n++ {
		h, err := r.Read(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		if h.Scrubbed != nil {
			t.Errorf("release %d says %v, although release 3 still holds a credential", n, h.Scrubbed)
		}
		if strings.Contains(string(h.Waves[0].Gate), "in-clear") != (n == 3) {
			t.Errorf("release %d: %s", n, h.Waves[0].Gate)
		}
		b, err := r.Blob(t.Context(), h.Values)
		if err != nil || string(b.Values) != `{"domain":"example.org"}` {
			t.Errorf("release %d has %s, %v", n, b.Values, err)
		}
	}
	if items := items(t, c, r.blobPath(old.Digest)); items != nil {
		t.Error("the values in clear are still there")
	}
}
