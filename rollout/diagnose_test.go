package rollout

import (
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
)

// What Nomad says of a task when its allocation is not healthy in time is taken
// for what it is: true of one that does not run, not of one that does.
func TestMessage(t *testing.T) {
	t.Parallel()
	const running, pending = "Task not running for min_healthy_time of 1s by healthy_deadline of 1m0s", "Task not running by healthy_deadline of 1m0s"
	then := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		says              string
		started, finished time.Duration // from then; 0 is never
		want              string
	}{
		"ran":                        {running, -58 * time.Second, 0, "running for 58s, but not healthy by healthy_deadline of 1m0s"},
		"ran, and was stopped after": {running, -58 * time.Second, time.Second, "running for 58s, but not healthy by healthy_deadline of 1m0s"},
		"just started":               {running, -time.Millisecond, 0, running},
		"started again since":        {running, 2 * time.Second, time.Second, running},
		"was to start again, and was stopped after": {pending, -30 * time.Second, time.Second, pending},
		"never": {pending, 0, 0, pending},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := func(d time.Duration) time.Time {
				if d == 0 {
					return time.Time{}
				}
				return then.Add(d)
			}
			st := &api.TaskState{StartedAt: at(c.started), FinishedAt: at(c.finished)}
			if got := message(st, &api.TaskEvent{Type: "Alloc Unhealthy", DisplayMessage: c.says, Time: then.UnixNano()}); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
