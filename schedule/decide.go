package schedule

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// Outcomes of a check, beside those of a rollout.
const (
	InSync  = "in-sync"
	Drifted = "drifted"
)

// Decision is what a schedule does at a time.
type Decision struct {
	Base   int             // number of the newest good release; 0 if it is not known
	Resume *record.Release // a release of this schedule that is open and has to be finished instead
	Skip   string          // why it does nothing; "" if it does
}

// Decide returns what a schedule does now. heads are the releases of its stack, the
// newest first. The window limits the start of a release: an open one is resumed at
// any time, because it blocks every deploy.
func Decide(s *record.Schedule, heads []*record.Release, now time.Time) Decision {
	if s.Paused != "" {
		return Decision{Skip: "paused " + s.Paused}
	}
	if len(heads) > 0 && heads[0].State == record.Destroyed {
		return Decision{Skip: fmt.Sprintf("release %d has destroyed the stack", heads[0].Number)}
	}
	base := 0
	for _, h := range heads {
		if h.State == record.Done {
			base = h.Number
			break
		}
	}
	if len(heads) > 0 && release.Interrupted(heads[0], s.Name) {
		return Decision{Base: base, Resume: heads[0]}
	}
	switch {
	case !s.MayStart(now):
		return Decision{Skip: fmt.Sprintf("outside of its window: %s in %s", Window(&s.Schedule), s.TimeZone)}
	case len(heads) > 0 && heads[0].State.Open():
		return Decision{Skip: fmt.Sprintf("release %d is %s", heads[0].Number, heads[0].State)}
	case base == 0:
		return Decision{Skip: "there is no release that is deployed"}
	case s.Action == stack.ScheduleCheck:
		return Decision{Base: base}
	}
	// A release that failed would fail again: one attempt is enough.
	for i := len(s.Runs) - 1; i >= 0; i-- {
		last := s.Runs[i]
		if last.Skipped || passing(last) {
			continue
		}
		if !last.OK && last.Base == base {
			return Decision{Base: base, Skip: fmt.Sprintf("the same failed at %s (%s), and release %d has not changed since; drover schedule resume tries again",
				last.At.Format(time.RFC3339), last.Outcome, base)}
		}
		break
	}
	return Decision{Base: base}
}

// passing reports whether a run ended early for a reason that does not depend on
// the release, such as a Nomad that did not answer.
func passing(r record.Run) bool {
	return !r.OK && (r.Base == 0 || r.Outcome == string(rollout.Unreachable) || r.Outcome == string(rollout.Cancelled))
}

// Window is the window of a schedule as it is written, "" for any time.
func Window(s *stack.Schedule) string {
	if s.WindowFor == 0 {
		return ""
	}
	clock := func(d time.Duration) string {
		d %= 24 * time.Hour
		return fmt.Sprintf("%02d:%02d", int(d.Hours()), int(d.Minutes())%60)
	}
	return clock(s.WindowFrom) + "-" + clock(s.WindowFrom+s.WindowFor)
}

// Await waits for a forced run of a schedule: until the run is recorded, or
// until its job ends without a record. s is the schedule before the run.
func Await(ctx context.Context, c *api.Client, store *record.Schedules, s *record.Schedule, evalID string) (record.Run, error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	jobID := ""
	var failed error // told after one more look: a run that failed remembers that first
	for {
		if jobID == "" {
			if eval, _, err := c.Evaluations().Info(evalID, (&api.QueryOptions{}).WithContext(ctx)); err == nil {
				jobID = eval.JobID
			}
		}
		now, err := store.Read(ctx, s.Name)
		if err != nil {
			return record.Run{}, err
		}
		if run := runOf(jobID, s.Runs, now.Runs); run != nil {
			return *run, nil
		}
		if failed != nil {
			return record.Run{}, failed
		}
		if jobID != "" {
			if failed = ended(ctx, c, jobID); failed != nil {
				continue
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return record.Run{}, context.Cause(ctx)
		}
	}
}

// runOf returns the run of a job, nil before there is one. A run of an older drover has
// no job: then, and if the job is unknown, it returns the newest run that was not there
// before. It does not compare times, since each node has its own clock.
func runOf(jobID string, before, now []record.Run) *record.Run {
	for i := range now {
		if now[i].Job != "" && now[i].Job == jobID {
			return &now[i]
		}
	}
	if len(now) == 0 {
		return nil
	}
	newest := &now[len(now)-1]
	if newest.Job != "" && jobID != "" || len(before) > 0 && newest.At.Equal(before[len(before)-1].At) {
		return nil
	}
	return newest
}

// ended returns an error if the job has failed without a record.
func ended(ctx context.Context, c *api.Client, jobID string) error {
	allocs, _, err := c.Jobs().Allocations(jobID, false, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("reading the allocations of job %q: %w", jobID, err)
	}
	for _, a := range allocs {
		if a.ClientStatus != api.AllocClientStatusFailed {
			continue
		}
		for _, st := range a.TaskStates {
			if why := rollout.TaskFailed(st); why != "" {
				return fmt.Errorf("drover did not do its work in the cluster: %s; see nomad alloc logs -stderr %.8s", why, a.ID)
			}
		}
		return fmt.Errorf("drover did not run in the cluster: allocation %.8s of job %s failed", a.ID, jobID)
	}
	return nil
}
