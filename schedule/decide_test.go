package schedule

import (
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/stack"
)

func TestDecide(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	redeploy := stack.Schedule{Name: "nightly", Action: stack.ScheduleRedeploy, TimeZone: "UTC"}
	check, window := redeploy, redeploy
	check.Action = stack.ScheduleCheck
	window.WindowFrom, window.WindowFor = 5*time.Hour, time.Hour
	good := &record.Release{Number: 4, State: record.Done}
	failed := []record.Run{{Base: 4, Outcome: "failed"}}
	for name, tt := range map[string]struct {
		schedule record.Schedule
		heads    []*record.Release
		skip     string // a part of it; "" if the schedule runs
		base     int
		resume   int
	}{
		"a good release":                   {record.Schedule{Schedule: redeploy}, []*record.Release{good}, "", 4, 0},
		"a failed one after it":            {record.Schedule{Schedule: redeploy}, []*record.Release{{Number: 5, State: record.Reverted}, good}, "", 4, 0},
		"paused":                           {record.Schedule{Schedule: redeploy, Paused: "by ann"}, []*record.Release{good}, "paused by ann", 0, 0},
		"no release":                       {record.Schedule{Schedule: redeploy}, nil, "no release that is deployed", 0, 0},
		"destroyed":                        {record.Schedule{Schedule: redeploy}, []*record.Release{{Number: 5, State: record.Destroyed}, good}, "release 5 has destroyed", 0, 0},
		"outside of the window":            {record.Schedule{Schedule: window}, []*record.Release{good}, "outside of its window", 0, 0},
		"an open release":                  {record.Schedule{Schedule: redeploy}, []*record.Release{{Number: 5, State: record.Interrupted}, good}, "release 5 is interrupted", 0, 0},
		"its own open release":             {record.Schedule{Schedule: redeploy}, []*record.Release{{Number: 5, State: record.Interrupted, Schedule: "nightly"}, good}, "", 4, 5},
		"its own, outside of the window":   {record.Schedule{Schedule: window}, []*record.Release{{Number: 5, State: record.Interrupted, Schedule: "nightly"}, good}, "", 4, 5},
		"the same failed before":           {record.Schedule{Schedule: redeploy, Runs: failed}, []*record.Release{good}, "the same failed", 4, 0},
		"the same failed, and was skipped": {record.Schedule{Schedule: redeploy, Runs: append(failed, record.Run{Skipped: true, OK: true})}, []*record.Release{good}, "the same failed", 4, 0},
		"Nomad did not answer before":      {record.Schedule{Schedule: redeploy, Runs: []record.Run{{Base: 4, Outcome: "unreachable"}}}, []*record.Release{good}, "", 4, 0},
		"a newer release after a failure":  {record.Schedule{Schedule: redeploy, Runs: failed}, []*record.Release{{Number: 5, State: record.Done}, good}, "", 5, 0},
		"a check after a failure":          {record.Schedule{Schedule: check, Runs: failed}, []*record.Release{good}, "", 4, 0},
	} {
		got := Decide(&tt.schedule, tt.heads, now)
		resume := 0
		if got.Resume != nil {
			resume = got.Resume.Number
		}
		if (got.Skip == "") != (tt.skip == "") || !strings.Contains(got.Skip, tt.skip) {
			t.Errorf("%s: got skip %q, want %q", name, got.Skip, tt.skip)
		}
		if got.Base != tt.base || resume != tt.resume {
			t.Errorf("%s: got base %d and resume %d, want %d and %d", name, got.Base, resume, tt.base, tt.resume)
		}
	}
}
