package rollout

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
)

// LogOptions say which lines Logs reads.
type LogOptions struct {
	Follow bool
	Tail   int    // the last lines of each task; all that Nomad has when negative
	Stream string // stdout or stderr
}

// LogLine is one line of one task.
type LogLine struct {
	AllocID string `json:"alloc_id"`
	JobID   string `json:"job_id,omitempty"` // of a run of a periodic or parameterized job
	Group   string `json:"group"`
	Task    string `json:"task"`
	Text    string `json:"text"`
}

// Logs reads the logs of all tasks of the job's allocations
// (GET /v1/client/fs/logs/:alloc): of those that run or, when none does, of
// the newest. The allocations of a periodic or parameterized job are those of
// its runs. With Follow it reads until ctx ends, also allocations that start
// meanwhile. emit is called from one goroutine at a time.
func Logs(ctx context.Context, c nomad.Clients, job render.Job, opts LogOptions, emit func(LogLine)) error {
	s := specOf(job.Job)
	var (
		mu    sync.Mutex
		wg    sync.WaitGroup
		index uint64
		errs  []error
	)
	defer wg.Wait()
	tell := func(l LogLine) {
		mu.Lock()
		defer mu.Unlock()
		emit(l)
	}
	seen, known := map[string]bool{}, map[string]bool{} // tasks, allocations
	for first := true; ; first = false {
		q := s.query(ctx)
		q.WaitIndex, q.WaitTime = index, 5*time.Minute
		allocs, meta, err := s.allocations(c, q)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("reading the allocations of job %q: %w", s.id, err)
		}
		if first && len(allocs) == 0 && !opts.Follow {
			if s.parent {
				return fmt.Errorf("job %q has no run that Nomad still knows; start one with `nomad job periodic force %[1]s` or `nomad job dispatch %[1]s`", s.id)
			}
			return fmt.Errorf("job %q has no allocation; look at `drover status`", s.id)
		}
		for _, a := range readable(allocs, first, known) {
			for task, st := range a.TaskStates {
				key := a.ID + "/" + task
				if seen[key] || st.State == "pending" {
					continue
				}
				seen[key] = true
				tail := opts
				if !first {
					tail.Tail = -1 // it started while we were looking
				}
				wg.Go(func() {
					if err := taskLogs(ctx, c, s, a, task, tail, tell); err != nil {
						mu.Lock()
						errs = append(errs, err)
						mu.Unlock()
					}
				})
			}
		}
		if !opts.Follow {
			wg.Wait()
			if len(errs) > 0 {
				return errs[0]
			}
			return nil
		}
		index = meta.LastIndex
	}
}

// allocations reads the allocations of the job (GET /v1/job/:id/allocations) or
// of its runs (GET /v1/allocations with a filter).
func (s spec) allocations(c nomad.Clients, q *api.QueryOptions) ([]*api.AllocationListStub, *api.QueryMeta, error) {
	if !s.parent {
		return c.Nomad.Jobs().Allocations(s.id, false, q)
	}
	q.Filter = "JobID matches " + strconv.Quote("^"+regexp.QuoteMeta(s.id)+"/(?:periodic|dispatch)-")
	return c.Nomad.Allocations().List(q)
}

// readable picks the allocations whose logs are of interest: those that run, at
// first the newest when none runs, later also those that have ended since. It
// adds all but those that have not started to known.
func readable(allocs []*api.AllocationListStub, first bool, known map[string]bool) []*api.AllocationListStub {
	var out []*api.AllocationListStub
	for _, a := range allocs {
		if a.ClientStatus == api.AllocClientStatusRunning || !first && !known[a.ID] {
			out = append(out, a)
		}
		known[a.ID] = a.ClientStatus != api.AllocClientStatusPending
	}
	if len(out) > 0 || !first || len(allocs) == 0 {
		return out
	}
	return []*api.AllocationListStub{slices.MaxFunc(allocs, func(a, b *api.AllocationListStub) int {
		return int(a.CreateIndex) - int(b.CreateIndex)
	})}
}

func taskLogs(ctx context.Context, c nomad.Clients, s spec, a *api.AllocationListStub, task string, opts LogOptions, tell func(LogLine)) error {
	// Nomad counts log positions in bytes: enough of them for the lines that
	// are wanted, and the surplus is cut off below.
	const bytesPerLine = 400
	origin, offset := "start", int64(0)
	if opts.Tail >= 0 {
		origin, offset = "end", int64(opts.Tail*bytesPerLine)
	}
	frames, errs := c.Nomad.AllocFS().Logs(&api.Allocation{ID: a.ID, NodeID: a.NodeID, Namespace: a.Namespace}, opts.Follow, task, opts.Stream, origin, offset, ctx.Done(), s.query(ctx))
	line := func(text string) {
		l := LogLine{AllocID: a.ID, Group: a.TaskGroup, Task: task, Text: text}
		if a.JobID != s.id {
			l.JobID = a.JobID
		}
		tell(l)
	}
	var (
		rest    []byte
		history = opts.Tail >= 0 // what was there already is still being read
		held    []string
		quiet   <-chan time.Time
	)
	flush := func() {
		if !history {
			return
		}
		for _, l := range held[max(0, len(held)-opts.Tail):] {
			line(l)
		}
		history, held = false, nil
	}
	for {
		select {
		case fr, ok := <-frames:
			if !ok {
				if len(rest) > 0 {
					held = append(held, string(rest))
					if !history {
						line(string(rest))
					}
				}
				flush()
				return nil
			}
			rest = append(rest, fr.Data...)
			for {
				i := bytes.IndexByte(rest, '\n')
				if i < 0 {
					break
				}
				text := strings.TrimSuffix(string(rest[:i]), "\r")
				rest = rest[i+1:]
				if history {
					held = append(held, text)
				} else {
					line(text)
				}
			}
			if history && opts.Follow {
				quiet = time.After(200 * time.Millisecond) // the history comes in one go
			}
		case <-quiet:
			flush()
		case err := <-errs:
			flush()
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("reading the log of task %s in allocation %.8s: %w", task, a.ID, err)
		case <-ctx.Done():
			return nil
		}
	}
}
