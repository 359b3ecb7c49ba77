package rollout

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
)

// The diff of a new job is its whole spec, and nothing needs it; that of a changed one
// stays.
func TestAskPlan_DiffOfANewJob(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		index      uint64
		kind       string
		wantGroups int
	}{
		"a new job":     {0, "Added", 0},
		"a changed job": {7, "Edited", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_ = json.NewEncoder(w).Encode(api.JobPlanResponse{JobModifyIndex: c.index, Diff: &api.JobDiff{
					Type: c.kind, ID: "j", Fields: []*api.FieldDiff{{Type: "Edited", Name: "Priority"}}, TaskGroups: []*api.TaskGroupDiff{{Type: c.kind, Name: "g"}},
				}})
			}))
			t.Cleanup(srv.Close)
			client, err := nomad.NewClient(&api.Config{Address: srv.URL, TLSConfig: &api.TLSConfig{}})
			if err != nil {
				t.Fatal(err)
			}
			job := mockJob("j", runs())
			s := &step{Job: render.Job{Job: job}, spec: specOf(job)}
			if err := s.askPlan(t.Context(), nomad.Clients{Nomad: client}); err != nil {
				t.Fatal(err)
			}
			if got := s.plan.Diff; got.Type != c.kind || len(got.TaskGroups) != c.wantGroups {
				t.Errorf("got a diff %s of %d groups, want %s of %d", got.Type, len(got.TaskGroups), c.kind, c.wantGroups)
			}
		})
	}
}
