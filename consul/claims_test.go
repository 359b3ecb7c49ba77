package consul

import (
	"slices"
	"testing"

	"github.com/hashicorp/nomad/api"
)

// Several edges of one cluster share their name. A job that is no edge may not have it too.
func TestClaims_NameOfEdges(t *testing.T) {
	t.Parallel()
	edge := Claim{ClaimService, "edge"}
	for id, want := range map[string]bool{"edge": false, "edge-internal": false, "edgeless": true, "web": true} {
		job := api.NewServiceJob(id, id, "global", 50).AddTaskGroup(&api.TaskGroup{Services: []*api.Service{
			{Name: "edge", Provider: "consul"}, {Name: "beside", Provider: "consul"},
		}})
		got := Claims(job)
		if slices.Contains(got, edge) != want || !slices.Contains(got, Claim{ClaimService, "beside"}) {
			t.Errorf("job %s: got claims %+v, want one on the service edge: %t", id, got, want)
		}
	}
}
