package ui

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/drover-nomad/drover/cmd/cli/view"
	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/rollout"
)

// keptRuns is the number of actions whose lines are kept, and keptLines that of lines.
const (
	keptRuns  = 50
	keptLines = 2000
)

// runs are the actions that were started from this server.
type runs struct {
	base context.Context
	workers

	mu    sync.Mutex
	order []*run
	byID  map[string]*run
}

// run is one action and the lines that it has reported.
type run struct {
	ID      string
	Action  Action
	Started time.Time

	mu    sync.Mutex
	lines []string
	rest  string
	ended time.Time
	err   error
}

// Write implements io.Writer: it takes lines.
func (r *run) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := r.rest + string(p)
	for {
		line, rest, ok := strings.Cut(text, "\n")
		if !ok {
			r.rest = line
			return len(p), nil
		}
		r.lines = append(r.lines, line)
		r.lines = r.lines[max(0, len(r.lines)-keptLines):]
		text = rest
	}
}

// errEnded means that the server is being closed.
var errEnded = errors.New("drover ui is ending")

// start carries out an action beside the request that asked for it.
func (r *runs) start(source Source, a Action) (*run, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.base.Err() != nil {
		return nil, errEnded
	}
	one := &run{ID: random(), Action: a, Started: time.Now()}
	r.byID[one.ID], r.order = one, append(r.order, one)
	if n := len(r.order) - keptRuns; n > 0 {
		for _, old := range r.order[:n] {
			delete(r.byID, old.ID)
		}
		r.order = r.order[n:]
	}
	r.wg.Go(func() {
		v := view.New(&view.IO{In: strings.NewReader(""), Out: one, Err: one}, false, func(*deploy.End) {})
		err := source.Do(r.base, a, v.Event)
		one.mu.Lock()
		defer one.mu.Unlock()
		one.ended, one.err = time.Now(), err
	})
	return one, nil
}

// end waits for the actions after base has ended.
func (r *runs) end() {
	r.mu.Lock()   // a start that has seen base alive is over
	r.mu.Unlock() //nolint:staticcheck // see above
	r.wait()
}

func (r *runs) get(id string) *run {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byID[id]
}

// of returns the actions of a stack, the newest first.
func (r *runs) of(name, env string) []*run {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*run
	for _, one := range slices.Backward(r.order) {
		if one.Action.Stack == name && one.Action.Environment == env {
			out = append(out, one)
		}
	}
	return out
}

// runView is a run as a page shows it.
type runView struct {
	*run
	Lines   []string
	Ended   time.Time
	Problem string
	Outcome string // in words
}

func (r *run) view() runView {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := runView{run: r, Lines: slices.Clone(r.lines), Ended: r.ended, Outcome: "is running"}
	switch {
	case r.ended.IsZero():
	case r.err == nil:
		out.Outcome = "succeeded"
	default:
		out.Outcome, out.Problem = "did not succeed", r.err.Error()
	}
	return out
}

// verbInfo is what a page says of a verb before it is carried out.
type verbInfo struct {
	Label, Effect string
	Plans         bool // it makes a new release, of which a plan can be shown
}

// infoOf returns what the page says of a verb; false for an unknown one.
func infoOf(v Verb) (verbInfo, bool) {
	switch v { //exhaustive:enforce
	case Approve:
		return verbInfo{Label: "Approve", Effect: "The wave that waits begins; if its gate is inconclusive, it counts as passed. If no drover process waits for the approval, this one continues the release."}, true
	case Resume:
		return verbInfo{Label: "Resume", Effect: "The release continues from its record: forward, or back if it was being reverted."}, true
	case Promote:
		return verbInfo{Label: "Promote", Effect: "The canaries that wait are promoted, and the release continues."}, true
	case Abort:
		return verbInfo{Label: "Abort", Effect: "The release ends, and everything that it changed is restored to what ran before."}, true
	case Pause:
		return verbInfo{Label: "Pause", Effect: "The release stops where it is, and the deployments in Nomad stand still until it is resumed."}, true
	case Rollback:
		return verbInfo{Label: "Roll back", Effect: "A new release registers the job specs of an earlier one. Data and secrets are not restored.", Plans: true}, true
	case Redeploy:
		return verbInfo{Label: "Redeploy", Effect: "A new release replaces every allocation by one of the same job.", Plans: true}, true
	}
	return verbInfo{}, false
}

// verbsFor returns the verbs that make sense for a stack whose newest release is h.
func verbsFor(h *record.Release, holder *record.Holder) []Verb {
	if h == nil || h.State == record.Unreadable || h.MovedTo != "" {
		return nil
	}
	switch {
	case h.State == record.NeedsApproval:
		return []Verb{Approve, Abort}
	case h.State == record.NeedsPromotion:
		return []Verb{Promote, Abort}
	case h.State == record.Running && holder != nil:
		return []Verb{Pause}
	case h.State.Open() && holder == nil:
		return []Verb{Resume, Abort}
	case h.State.Open():
		return nil
	case h.State == record.Destroyed:
		return []Verb{Rollback}
	}
	return []Verb{Redeploy, Rollback}
}

// confirmation is the page on which an operator confirms an action.
type confirmation struct {
	Action
	Info     verbInfo
	Release  *record.Release // the newest
	Waves    []record.Wave
	Changes  []changeView
	Services []record.Service // that the open release concerns
	Choices  []*record.Release
	Stops    int // running jobs that stop
	Problem  string
	Seen     string // the state of the release that the page shows
	CSRF     string
	Who      string
}

// changeView is a change of a plan as a page shows it.
type changeView struct {
	release.Change
	Name  string
	Words string
}

// seen names a state of the newest release, so that an action is not carried out on
// another one than the page has shown.
func seen(h *record.Release) string {
	waits := ""
	for _, w := range h.Waves {
		if w.State == record.NeedsApproval {
			waits = w.Name
		}
	}
	return fmt.Sprintf("%d/%s/%s", h.Number, h.State, waits)
}

// action reads an action from the path and the values of a request.
func action(r *http.Request, value func(string) string) (Action, verbInfo, error) {
	a := Action{Verb: Verb(r.PathValue("verb")), Stack: r.PathValue("stack"), Environment: r.PathValue("env"), Message: strings.TrimSpace(value("message"))}
	info, ok := infoOf(a.Verb)
	if !ok {
		return a, info, notFound("There is no action %s.", a.Verb)
	}
	if text := value("to"); text != "" && a.Verb == Rollback {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return a, info, badRequest("%q is not the number of a release.", text)
		}
		a.To = n
	}
	if text := value("service"); text != "" && a.Verb == Redeploy {
		a.Services = []string{text}
	}
	return a, info, nil
}

// confirm shows what an action would do, and asks.
func (s *Server) confirm(ctx context.Context, r *http.Request) (page, error) {
	if s.opts.ReadOnly {
		return page{}, &httpError{http.StatusForbidden, "This page is read-only: it was started with --read-only."}
	}
	a, info, err := action(r, r.URL.Query().Get)
	if err != nil {
		return page{}, err
	}
	history, err := s.opts.Source.History(ctx, a.Stack, a.Environment)
	if err != nil {
		return page{}, err
	}
	c := confirmation{Action: a, Info: info, Release: history.Releases[0], Seen: seen(history.Releases[0]), Who: s.opts.Operator}
	if session, ok := r.Context().Value(sessionKey{}).(*session); ok {
		c.CSRF = session.csrf
	}
	if a.Verb == Rollback {
		for _, h := range history.Releases {
			if h.Number == a.To || h.State == record.Done && h.Number != c.Release.Number {
				c.Choices = append(c.Choices, h)
			}
		}
		if c.To == 0 && len(c.Choices) > 0 {
			c.To = c.Choices[0].Number
		}
	}
	switch {
	case !slices.Contains(verbsFor(c.Release, history.Holder), a.Verb) && (a.Verb != Rollback && a.Verb != Redeploy || c.Release.State.Open()):
		c.Problem = fmt.Sprintf("Release %d is %s: there is nothing to %s.", c.Release.Number, history.StateOf(c.Release), strings.ToLower(info.Label))
	case info.Plans:
		s.planned(ctx, &c)
	default:
		s.concerned(ctx, &c)
	}
	return page{Title: info.Label + " " + a.Stack, Name: "confirm", Data: c}, nil
}

// planned adds the plan of a new release.
func (s *Server) planned(ctx context.Context, c *confirmation) {
	changes, err := s.opts.Source.Plan(ctx, c.Action)
	if err != nil {
		c.Problem = err.Error()
		return
	}
	for _, ch := range changes {
		if ch.Action == rollout.ActionNone {
			continue
		}
		if ch.Action == rollout.ActionStop && ch.Running {
			c.Stops++
		}
		c.Changes = append(c.Changes, changeView{Change: ch, Name: serviceName(ch.Service, ch.Target), Words: words(ch)})
	}
}

// words returns a change in a few words.
func words(c release.Change) string {
	var parts []string
	for _, g := range c.Groups {
		if t := g.String(); t != "" {
			parts = append(parts, g.Group+": "+t)
		}
	}
	if c.Reason != "" {
		parts = append(parts, c.Reason)
	}
	return strings.Join(append(parts, c.Warnings...), "; ")
}

// concerned adds the services that an open release changes, with how far they are.
func (s *Server) concerned(ctx context.Context, c *confirmation) {
	shown, err := s.opts.Source.Show(ctx, c.Stack, c.Environment, c.Release.Number)
	if err != nil {
		c.Problem = err.Error()
		return
	}
	c.Waves = shown.Release.Waves
	for _, l := range shown.Services {
		if l.Change != record.ChangeNone {
			c.Services = append(c.Services, l)
		}
	}
}

// act carries out an action that was confirmed.
func (s *Server) act(w http.ResponseWriter, r *http.Request) {
	if s.opts.ReadOnly {
		s.fail(w, r, http.StatusForbidden, "This page is read-only: it was started with --read-only.")
		return
	}
	a, _, err := action(r, r.PostForm.Get)
	if err != nil {
		s.failWith(w, r, err)
		return
	}
	a.Prune = r.PostForm.Get("prune") == "yes"
	history, err := s.opts.Source.History(r.Context(), a.Stack, a.Environment)
	if err != nil {
		s.failWith(w, r, err)
		return
	}
	if now := seen(history.Releases[0]); r.PostForm.Get("seen") != now {
		s.fail(w, r, http.StatusConflict, "The stack has changed since the page was shown. Nothing was done. Go back and load it again.")
		return
	}
	one, err := s.runs.start(s.opts.Source, a)
	if err != nil {
		s.fail(w, r, http.StatusServiceUnavailable, err.Error())
		return
	}
	http.Redirect(w, r, href("runs", one.ID), http.StatusSeeOther)
}

// showRun shows an action that was started.
func (s *Server) showRun(_ context.Context, r *http.Request) (page, error) {
	one := s.runs.get(r.PathValue("id"))
	if one == nil {
		return page{}, notFound("This drover ui has not started such an action, or it was long ago. The history of the stack has it.")
	}
	v := one.view()
	info, _ := infoOf(one.Action.Verb)
	return page{Title: info.Label + " " + one.Action.Stack, Name: "run", Data: v, Status: info.Label + " " + v.Outcome}, nil
}
