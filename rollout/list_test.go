package rollout

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/drover-nomad/drover/nomad"
)

// A job that /v1/jobs lists and /v1/jobs/statuses leaves out is read by itself:
// without its version and count, one that has failed would be healthy.
func TestList_LeftOutOfTheStatuses(t *testing.T) {
	t.Parallel()
	answers := map[string]any{
		"/v1/jobs":                []any{map[string]any{"ID": "once", "Type": "batch", "Status": "dead"}},
		"/v1/jobs/statuses":       []any{},
		"/v1/allocations":         []any{},
		"/v1/job/once":            map[string]any{"ID": "once", "Version": 3, "TaskGroups": []any{map[string]any{"Name": "g", "Count": 2}}},
		"/v1/job/once/deployment": nil,
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := answers[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(srv.Close)
	client, err := nomadClient(srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := specOf(mockJob("once", runs()))
	got, err := list(t.Context(), nomad.Clients{Nomad: client}, placesOf([]spec{s}))
	if err != nil {
		t.Fatal(err)
	}
	if l := got[s.at()]; l == nil || l.Version != 3 || l.GroupCountSum != 2 {
		t.Errorf("got %+v, want version 3 with 2 allocations", l)
	}
}
