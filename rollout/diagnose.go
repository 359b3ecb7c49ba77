package rollout

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
)

const logLines = 10

// rank orders task events by how much they say about why a task failed.
var rank = map[string]int{
	api.TaskDriverFailure:          9,
	api.TaskSetupFailure:           9,
	api.TaskFailedValidation:       9,
	api.TaskArtifactDownloadFailed: 9,
	"Task hook failed":             9,
	api.TaskTerminated:             8,
	"Template":                     7, // "Missing: nomad.var…"
	"Alloc Unhealthy":              6,
	api.TaskRestarting:             3,
	api.TaskNotRestarting:          2,
	api.TaskKilling:                1,
}

// diagnose collects why the followed version is not healthy: per task the decisive
// event and the last log lines, the failing checks, and the reasons against a placement.
// It leaves out parts that cannot be read.
func (f *follower) diagnose(ctx context.Context, n snapshot) *Failure {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out := &Failure{}

	failures := map[string]*TaskFailure{}
	var order []string
	allocs := slices.Clone(n.allocs)
	slices.SortFunc(allocs, func(a, b *api.AllocationListStub) int { return cmp.Compare(b.CreateIndex, a.CreateIndex) })
	for _, a := range allocs {
		if healthy(a) {
			continue
		}
		for _, task := range slices.Sorted(maps.Keys(a.TaskStates)) {
			ev := decisive(a.TaskStates[task])
			if ev == nil {
				continue
			}
			t := &TaskFailure{AllocID: a.ID, Node: a.NodeName, Group: a.TaskGroup, Task: task, Event: ev.Type, Message: f.opts.Redact(message(a.TaskStates[task], ev)), Count: 1}
			key := t.Group + "\x00" + t.Task + "\x00" + t.Event + "\x00" + t.Message
			if same := failures[key]; same != nil {
				same.Count++
				continue
			}
			failures[key] = t
			order = append(order, key)
		}
	}
	for i, key := range order {
		t := failures[key]
		if i < 3 {
			t.Logs, t.LogType = f.lastLines(ctx, t)
		}
		out.Tasks = append(out.Tasks, *t)
	}
	for _, c := range f.failing {
		c.Output = f.opts.Redact(c.Output)
		out.Checks = append(out.Checks, c)
	}
	if n.hasBlocked() {
		out.Placement = f.step.spec.placements(n.evals)
	}
	if len(out.Tasks)+len(out.Checks)+len(out.Placement) == 0 {
		return nil
	}
	return out
}

func healthy(a *api.AllocationListStub) bool {
	if a.ClientStatus == api.AllocClientStatusFailed {
		return false
	}
	d := a.DeploymentStatus
	return d != nil && d.Healthy != nil && *d.Healthy || a.ClientStatus == api.AllocClientStatusComplete
}

// decisive picks the event that says most; of equals, the last one.
func decisive(st *api.TaskState) *api.TaskEvent {
	var best *api.TaskEvent
	for _, e := range st.Events {
		r := rank[e.Type]
		if e.Type == api.TaskTerminated && e.ExitCode == 0 && e.Signal == 0 && !oom(e) && e.Details["exit_code"] == "0" {
			r = 1
		}
		if r > 0 && (best == nil || r >= rank[best.Type]) {
			best = e
		}
	}
	return best
}

// TaskFailed is what Nomad says of why a task has failed, "" when it says
// nothing.
func TaskFailed(st *api.TaskState) string {
	if st == nil {
		return ""
	}
	if e := decisive(st); e != nil {
		return message(st, e)
	}
	return ""
}

func oom(e *api.TaskEvent) bool { return e.Details["oom_killed"] == "true" }

func message(st *api.TaskState, e *api.TaskEvent) string {
	m := cmp.Or(e.DisplayMessage, e.Message, e.Type)
	if oom(e) {
		m += " (out of memory)"
	}
	// Nomad says "Task not running for min_healthy_time of X by healthy_deadline
	// of Y" of every task that runs when the deadline has passed, however long it
	// has: it compares with a deadline of zero (client/allochealth/tracker.go,
	// TaskEvents). The text for a task that does not run is another one.
	_, rest, ok := strings.Cut(m, "not running for min_healthy_time of ")
	_, deadline, _ := strings.Cut(rest, " by healthy_deadline of ")
	then := time.Unix(0, e.Time)
	if ran := then.Sub(st.StartedAt).Round(time.Second); ok && ran > 0 && !st.StartedAt.IsZero() && (st.FinishedAt.IsZero() || st.FinishedAt.After(then)) {
		m = fmt.Sprintf("running for %s, but not healthy by healthy_deadline of %s", ran, deadline)
	}
	return strings.TrimSpace(m)
}

// lastLines reads the end of the task's log (GET /v1/client/fs/logs/:alloc):
// stderr, or stdout when that is empty.
func (f *follower) lastLines(ctx context.Context, t *TaskFailure) (lines []string, logType string) {
	s := f.step.spec
	for _, logType := range []string{"stderr", "stdout"} {
		frames, errs := f.clients.Nomad.AllocFS().Logs(&api.Allocation{ID: t.AllocID, Namespace: s.namespace}, false, t.Task, logType, "end", 4096, ctx.Done(), s.query(ctx))
		if text := drain(ctx, frames, errs); len(text) > 0 {
			lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
			lines = lines[max(0, len(lines)-logLines):]
			return strings.Split(f.opts.Redact(strings.Join(lines, "\n")), "\n"), logType
		}
	}
	return nil, ""
}

func drain(ctx context.Context, frames <-chan *api.StreamFrame, errs <-chan error) []byte {
	var buf bytes.Buffer
	for frames != nil {
		select {
		case fr, ok := <-frames:
			if !ok {
				return buf.Bytes()
			}
			buf.Write(fr.Data)
		case <-errs: //nolint:errcheck // what was read so far is better than nothing
			return buf.Bytes()
		case <-ctx.Done():
			return buf.Bytes()
		}
	}
	return nil
}
