package release

import (
	"encoding/json"
	"runtime"
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

// The memory that a plan allocates is proportional to the number of services, not to
// its square: 5,000 services took 7 GB.
func TestFits_AllocatesLinearly(t *testing.T) {
	d := &Deployer{Releases: unlimited{}}
	allocated := func(services int) uint64 {
		p := &Plan{req: Request{Targets: []*stack.Target{{}}}}
		for range services / 25 {
			part := &Part{}
			for range 25 {
				id := "job"
				part.Jobs = append(part.Jobs, render.Job{Service: id, Job: &api.Job{ID: &id}})
			}
			p.Parts = append(p.Parts, part)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := d.fits(p); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	few, many := allocated(500), allocated(4000)
	if many > 16*few {
		t.Errorf("got %d KB for 500 services and %d KB for 4000, want at most 16 times as much", few>>10, many>>10)
	}
}

type aStore = Store

// unlimited is a store into which every head fits.
type unlimited struct{ aStore }

func (unlimited) Fits(*record.Release) error { return nil }
func (unlimited) Stack() string              { return "many" }
func (unlimited) Environment() string        { return "default" }
