package rollout

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
)

// Children are the runs of a periodic or parameterized job, each a job of its
// own. Nomad collects those that have ended after some hours.
type Children struct {
	Pending int     `json:"pending"`
	Running int     `json:"running"`
	Dead    int     `json:"dead"`
	Jobs    []Child `json:"jobs,omitempty"` // the newest first, at most ten
}

// Child is one run of a periodic or parameterized job.
type Child struct {
	JobID     string    `json:"job_id"`
	Status    string    `json:"status"` // one of the constants
	Submitted time.Time `json:"submitted"`
}

// States of a Child.
const (
	ChildPending  = "pending"
	ChildRunning  = "running"
	ChildComplete = "complete"
	ChildFailed   = "failed"
	ChildStopped  = "stopped"
)

// shownChildren bounds Children.Jobs: a job can be dispatched thousands of
// times.
const shownChildren = 10

func (c Children) String() string {
	switch {
	case c.Running > 0 && c.Pending > 0:
		return fmt.Sprintf("%d running, %d pending", c.Running, c.Pending)
	case c.Running > 0:
		return fmt.Sprintf("%d running", c.Running)
	case c.Pending > 0:
		return fmt.Sprintf("%d pending", c.Pending)
	}
	return "none running"
}

// note lists the newest runs.
func (c Children) note() string {
	var active []string
	for _, j := range c.Jobs {
		if j.Status == ChildRunning || j.Status == ChildPending {
			active = append(active, j.JobID)
		}
	}
	switch {
	case len(active) > 3:
		return fmt.Sprintf("%s and %d more", strings.Join(active[:3], ", "), c.Running+c.Pending-3)
	case len(active) > 0:
		return strings.Join(active, ", ")
	case len(c.Jobs) > 0:
		return fmt.Sprintf("the last run, %s, is %s", c.Jobs[0].JobID, c.Jobs[0].Status)
	}
	return "it has not run, or Nomad has collected its runs"
}

// countChildren counts the runs of a job.
func countChildren(stubs []*api.JobListStub) *Children {
	stubs = slices.Clone(stubs)
	slices.SortFunc(stubs, func(a, b *api.JobListStub) int { return int(b.CreateIndex) - int(a.CreateIndex) })
	out := &Children{}
	for _, s := range stubs {
		child := Child{JobID: s.ID, Submitted: time.Unix(0, s.SubmitTime), Status: childStatus(s)}
		switch child.Status {
		case ChildPending:
			out.Pending++
		case ChildRunning:
			out.Running++
		default:
			out.Dead++
		}
		if len(out.Jobs) < shownChildren {
			out.Jobs = append(out.Jobs, child)
		}
	}
	return out
}

func childStatus(s *api.JobListStub) string {
	switch {
	case s.Status != ChildPending && s.Status != ChildRunning && s.Stop:
		return ChildStopped
	case s.Status == ChildPending, s.Status == ChildRunning:
		return s.Status
	case s.JobSummary == nil:
		return ChildComplete
	}
	for _, g := range s.JobSummary.Summary {
		// One that failed first may have been rescheduled and completed.
		if g.Complete == 0 && g.Failed+g.Lost > 0 {
			return ChildFailed
		}
	}
	return ChildComplete
}

// children lists the runs of parents: one request for each region and namespace
// (GET /v1/jobs with a filter).
func children(ctx context.Context, c nomad.Clients, parents []spec) (map[jobAt]*Children, error) {
	out := map[jobAt]*Children{}
	var mu sync.Mutex
	err := eachPlace(ctx, placesOf(parents), func(at place, query func(string) *api.QueryOptions) error {
		stubs, _, err := c.Nomad.Jobs().List(query("ParentID"))
		if err != nil {
			return fmt.Errorf("cannot list the runs of periodic and parameterized jobs: %w", err)
		}
		of := map[string][]*api.JobListStub{}
		for _, s := range stubs {
			of[s.ParentID] = append(of[s.ParentID], s)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, p := range parents {
			if p.at().place == at {
				out[p.at()] = countChildren(of[p.id])
			}
		}
		return nil
	})
	return out, err
}
