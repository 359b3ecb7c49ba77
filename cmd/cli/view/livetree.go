package view

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
)

// liveTree redraws one line per service on a terminal: its state, the healthy and
// desired allocations, the elapsed time, and what it waits for.
type liveTree struct {
	io      *IO
	height  int // of the terminal
	started time.Time
	stop    chan struct{}
	stopped chan struct{}

	mu    sync.Mutex
	rows  []*liveRow
	by    map[string]*liveRow
	drawn int // lines on the screen
}

type liveRow struct {
	name     string
	depth    int // in the dependency graph, for the indentation
	state    string
	last     rollout.Event
	began    time.Time
	finished time.Duration
}

func newLiveTree(streams *IO, jobs []render.Job) *liveTree {
	t := &liveTree{io: streams, height: 24, started: time.Now(), stop: make(chan struct{}), stopped: make(chan struct{}), by: map[string]*liveRow{}}
	for _, j := range jobs {
		r := &liveRow{name: j.Name(), state: "waiting"}
		for _, d := range j.DependsOn {
			if dep := t.by[render.Job{Service: d, Target: j.Target}.Name()]; dep != nil {
				r.depth = max(r.depth, dep.depth+1)
			}
		}
		t.rows = append(t.rows, r)
		t.by[r.name] = r
	}
	if f, ok := streams.Err.(*os.File); ok {
		if _, h, err := term.GetSize(int(f.Fd())); err == nil && h > 8 {
			t.height = h
		}
	}
	go t.run()
	return t
}

// run redraws a few times a second, so that the elapsed time moves.
func (t *liveTree) run() {
	defer close(t.stopped)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			t.mu.Lock()
			t.draw(false)
			t.mu.Unlock()
		case <-t.stop:
			return
		}
	}
}

func (t *liveTree) event(e rollout.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.by[e.Name()]
	if r == nil { // of a resumed release
		r = &liveRow{name: e.Name(), state: "waiting"}
		t.rows, t.by[r.name] = append(t.rows, r), r
	}
	r.last = e
	switch e.Kind {
	case rollout.EventSubmitted:
		r.state, r.began = "deploying", time.Now()
	case rollout.EventDone:
		r.state, r.finished = string(e.Result.Outcome), e.Result.Elapsed
		r.last.Waiting = ""
		if !e.Result.Outcome.OK() {
			r.last.Waiting = e.Result.Detail
		}
	}
}

// close draws the last state and leaves it on the screen.
func (t *liveTree) close() {
	close(t.stop)
	<-t.stopped
	t.mu.Lock()
	defer t.mu.Unlock()
	t.draw(true)
}

func (t *liveTree) draw(final bool) {
	var b strings.Builder
	if t.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", t.drawn)
	}
	rows := t.rows
	hidden := 0
	// A terminal cannot redraw more than it shows; finished rows go first.
	most := t.height - 3
	if !final && len(rows) > most {
		var busy []*liveRow
		for _, r := range rows {
			if r.finished == 0 && r.state != string(rollout.Unchanged) {
				busy = append(busy, r)
			}
		}
		rows = busy[:min(len(busy), most)]
		hidden = len(t.rows) - len(rows)
	}
	lines := 0
	for _, r := range rows {
		b.WriteString("\r\x1b[2K" + t.row(r) + "\n")
		lines++
	}
	if hidden > 0 {
		fmt.Fprintf(&b, "\r\x1b[2K  … and %d more\n", hidden)
		lines++
	}
	if !final {
		fmt.Fprintf(&b, "\r\x1b[2K%s elapsed\n", time.Since(t.started).Round(time.Second))
		lines++
	}
	b.WriteString("\x1b[J")
	t.drawn = lines
	fmt.Fprint(t.io.Err, b.String())
}

func (t *liveTree) row(r *liveRow) string {
	elapsed := ""
	switch {
	case r.finished > 0:
		elapsed = Round(r.finished).String()
	case !r.began.IsZero():
		elapsed = time.Since(r.began).Round(time.Second).String()
	}
	mark, colour := "…", "33"
	switch rollout.Outcome(r.state) {
	case rollout.Deployed, rollout.Unchanged:
		mark, colour = "✓", "32"
	case rollout.Failed, rollout.FailedReverted, rollout.PlacementFailed, rollout.TimedOut, rollout.Superseded:
		mark, colour = "✗", "31"
	case rollout.AwaitPromotion, rollout.Cancelled, rollout.Skipped:
		mark = "!"
	default:
		if r.state == "waiting" {
			mark, colour = "·", "2"
		}
	}
	name := strings.Repeat("  ", min(r.depth, 8)) + r.name
	text := fmt.Sprintf("%-28s %-12s %5s %6s", name, r.state, fmt.Sprintf("%d/%d", r.last.Healthy, r.last.Desired), elapsed)
	if r.last.Waiting != "" {
		text += "  " + r.last.Waiting
	}
	text = strings.Map(func(c rune) rune {
		if c < ' ' {
			return ' '
		}
		return c
	}, text)
	if runes := []rune(text); len(runes) > t.io.Width-3 && t.io.Width > 8 {
		text = string(runes[:t.io.Width-4]) + "…"
	}
	if t.io.Color {
		return "\x1b[" + colour + "m" + mark + "\x1b[0m " + text
	}
	return mark + " " + text
}
