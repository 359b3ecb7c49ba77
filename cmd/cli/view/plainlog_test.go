package view

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/drover-nomad/drover/rollout"
)

func TestPlainLogSaysLittle(t *testing.T) {
	var lines []string
	p := newPlainLog(func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }, time.Hour)
	p.event(rollout.Event{Kind: rollout.EventProgress, Service: "b", Desired: 1, Waiting: "a"}) // not submitted yet
	p.event(rollout.Event{Kind: rollout.EventSubmitted, Service: "a", Desired: 1})
	p.event(rollout.Event{Kind: rollout.EventProgress, Service: "a", Desired: 1, Waiting: "the scheduler"})
	p.event(rollout.Event{Kind: rollout.EventProgress, Service: "a", Desired: 1, Waiting: "a check"})
	p.remind(time.Now(), 10*time.Second)
	p.remind(time.Now().Add(11*time.Second), 10*time.Second)
	p.event(rollout.Event{Kind: rollout.EventDone, Service: "a", Result: &rollout.ServiceResult{Service: "a", Outcome: rollout.Unchanged}})
	p.remind(time.Now().Add(time.Minute), 10*time.Second)
	p.close()
	if want := []string{"a: submitted", "a: 0/1 healthy after 11s, waits for a check"}; !slices.Equal(lines, want) {
		t.Errorf("got  %q\nwant %q", lines, want)
	}
}
