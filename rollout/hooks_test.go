package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
)

// The hooks see each service in order, and what Before refuses is not written.
func testHooks(t *testing.T, c nomad.Clients) {
	a, b := prefix(t)+"a", prefix(t)+"b"
	cleanUp(t, c, a, b)
	jobs := []render.Job{service(mockJob(a, runs())), service(mockJob(b, runs()), a)}
	var (
		mu   sync.Mutex
		seen []string
	)
	note := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, fmt.Sprintf(format, args...))
	}
	lost := errors.New("the lock is lost")
	opts := Options{
		Before: func(_ context.Context, s Submission) error {
			note("before %s %s %d", s.Service, *s.Job.ID, s.JobModifyIndex)
			if s.Service == b {
				return &Refusal{Superseded, lost}
			}
			return nil
		},
		After: func(_ context.Context, s Submission, index uint64) error {
			note("after %s %v", s.Service, index > 0)
			return nil
		},
		Done: func(_ context.Context, s Submission, r ServiceResult) { note("done %s %s", s.Service, r.Outcome) },
	}
	res, _ := deploy(t, c, opts, jobs...)
	wantOutcomes(t, res, Deployed, Superseded)
	want := []string{
		"before " + a + " " + a + " 0", "after " + a + " true", "done " + a + " deployed",
		"before " + b + " " + b + " 0", "done " + b + " superseded",
	}
	if !slices.Equal(seen, want) {
		t.Errorf("seen %q", seen)
	}
	if r := res.Services[1]; r.Submitted || !strings.Contains(r.Detail, "not submitted: the lock is lost") {
		t.Error(dump(res))
	}
	if _, _, err := c.Nomad.Jobs().Info(b, nil); !nomad.IsNotFound(err) {
		t.Errorf("the refused job: %v", err)
	}
	// An unchanged service is not written: no hook but the last.
	seen = nil
	res, _ = deploy(t, c, opts, jobs[0])
	wantOutcomes(t, res, Unchanged)
	if !slices.Equal(seen, []string{"done " + a + " unchanged"}) {
		t.Errorf("seen %q", seen)
	}
}
