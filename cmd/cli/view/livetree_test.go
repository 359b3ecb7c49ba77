package view

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
)

// The last picture has every service with its outcome, no line is wider than
// the terminal, and without colour there is no escape but those that move.
func TestLiveTree(t *testing.T) {
	t.Parallel()
	const n = 50 // more than the terminal has lines
	var jobs []render.Job
	for i := range n {
		j := render.Job{Service: fmt.Sprintf("s%02d", i)}
		if i > 0 {
			j.DependsOn = []string{fmt.Sprintf("s%02d", i-1)}
		}
		jobs = append(jobs, j)
	}
	var out bytes.Buffer
	tree := newLiveTree(&IO{Err: &out, TTY: true, Width: 60}, jobs)
	for i, j := range jobs {
		tree.event(rollout.Event{Kind: rollout.EventSubmitted, Service: j.Service})
		r := &rollout.ServiceResult{Service: j.Service, Outcome: rollout.Deployed, Elapsed: time.Second}
		if i == n-1 {
			r.Outcome, r.Detail = rollout.Failed, "a long story\nof two lines that does not fit into the width of this terminal at all"
		}
		tree.mu.Lock()
		tree.draw(false)
		if tree.drawn > tree.height {
			t.Errorf("%d lines on a terminal of %d", tree.drawn, tree.height)
		}
		tree.mu.Unlock()
		tree.event(rollout.Event{Kind: rollout.EventDone, Service: j.Service, Healthy: 1, Desired: 1, Result: r})
	}
	tree.close()

	text := out.String()
	last := text[strings.LastIndex(text, "A\r")+1:] // after the cursor has gone up for the last time
	last = strings.NewReplacer("\r", "", "\x1b[2K", "", "\x1b[J", "").Replace(last)
	if strings.Contains(last, "\x1b") {
		t.Errorf("escapes without colour: %q", last)
	}
	lines := strings.Split(strings.TrimSpace(last), "\n")
	if len(lines) != n {
		t.Fatalf("%d lines:\n%s", len(lines), last)
	}
	for i, l := range lines {
		if !strings.Contains(l, jobs[i].Service) || len([]rune(l)) > 60 {
			t.Errorf("line %d is %q", i, l)
		}
	}
	if !strings.HasPrefix(lines[0], "✓ s00") || !strings.HasPrefix(lines[n-1], "✗ ") || !strings.Contains(lines[n-1], "failed") {
		t.Errorf("%q … %q", lines[0], lines[n-1])
	}
}
