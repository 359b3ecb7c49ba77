package rollout

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/drover-nomad/drover/stack"
)

// watchedProbe makes the request of a gate again and again.
type watchedProbe struct {
	check   *stack.Check
	redact  func(string) string
	every   time.Duration
	changed chan<- struct{}

	mu      sync.Mutex
	waiting string
	since   time.Time // when it began to fail, while waiting says how
}

func (w *watchedProbe) run(ctx context.Context) {
	for ctx.Err() == nil {
		r := RunCheck(ctx, w.check, 0, w.redact)
		if ctx.Err() != nil {
			return
		}
		w.mu.Lock()
		was := w.waiting
		w.waiting = ""
		if !r.OK {
			w.waiting = r.URL + ": " + r.Problem
			if was == "" {
				w.since = time.Now()
			}
		}
		w.mu.Unlock()
		poke(w.changed)
		timer := time.NewTimer(w.every)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// runCommand runs the gate's command and returns what is wrong with it, ""
// when it ends with 0 or there is none.
func runCommand(ctx context.Context, o GateOptions) string {
	if len(o.Command) == 0 {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, max(o.Timeout, time.Minute))
	defer cancel()
	cmd := exec.CommandContext(ctx, o.Command[0], o.Command[1:]...) //nolint:gosec // the environment names it
	cmd.Env = append(os.Environ(), o.Env...)
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if err == nil {
		return ""
	}
	text := o.Command[0] + ": " + err.Error()
	if ctx.Err() != nil {
		text = o.Command[0] + ": not done in time"
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if last := lines[len(lines)-1]; last != "" {
		text += ": " + strings.ToValidUTF8(last[:min(len(last), 300)], "")
	}
	return o.Redact(text)
}
