package release

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// The timeouts of a service are kept in the record, from which a release is
// resumed, reverted, rolled back and redeployed.
func TestTimeoutsAreRecorded(t *testing.T) {
	t.Parallel()
	id := "nightly"
	job := render.Job{Service: "nightly", Limits: stack.Limits{Timeout: time.Hour, PlacementTimeout: time.Minute}, Job: &api.Job{ID: &id}}
	text, err := json.Marshal(line(job))
	if err != nil {
		t.Fatal(err)
	}
	var l record.Service
	if err := json.Unmarshal(text, &l); err != nil {
		t.Fatal(err)
	}
	if got := ofLine(render.Job{Job: job.Job}, l, nil).Limits; got != job.Limits {
		t.Errorf("got %+v, want %+v", got, job.Limits)
	}
	old := record.Service{Name: "nightly", JobID: id}
	if got := ofLine(render.Job{Job: job.Job}, old, nil).Limits; got != (stack.Limits{}) {
		t.Errorf("a record of an older version: got %+v", got)
	}
}
