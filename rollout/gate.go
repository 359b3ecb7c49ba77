package rollout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/consul"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// Party is what a gate watches in one target: services that have been
// deployed.
type Party struct {
	Target  string
	Clients Clients
	Jobs    []render.Job
}

// GateOptions say what a gate asks for. The zero value asks once whether all
// services are healthy.
type GateOptions struct {
	stack.Gate
	// Bake is how long all must hold without a break.
	Bake time.Duration
	// Env is added to the environment of the command.
	Env    []string
	Redact func(string) string
}

// GateFirstLook is what a gate waits for before it knows anything.
const GateFirstLook = "a first look at the services"

// GateProgress is how a gate stands.
type GateProgress struct {
	// Since is when all began to hold; zero while Waiting says what does not.
	Since   time.Time
	Until   time.Time // when the bake is over, if all goes on to hold
	Waiting string
}

// GateResult is how a gate ended.
type GateResult struct {
	OK      bool
	Detail  string // why not
	Breaks  int    // how often it ceased to hold before it did for good
	Elapsed time.Duration
}

// Hold waits until, without a break of Bake, every service is healthy in
// Nomad and passing in Consul, none of its tasks restarts, and the HTTP probe
// is answered as it should be; then it runs the command. A break begins the
// bake anew. Hold gives up when it has not begun to hold within the timeout,
// or when a job is not the one any more that it was at the beginning. tell
// may be nil; it is called when something changes. An error means that ctx
// has ended.
func Hold(ctx context.Context, parties []Party, o GateOptions, tell func(GateProgress)) (GateResult, error) {
	if o.Redact == nil {
		o.Redact = func(s string) string { return s }
	}
	if tell == nil {
		tell = func(GateProgress) {}
	}
	wctx, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer func() { stop(); watching.Wait() }()
	changed := make(chan struct{}, 1)
	watched := make([]*watchedParty, len(parties))
	for i, p := range parties {
		watched[i] = &watchedParty{Party: p, changed: changed, waiting: GateFirstLook}
		watching.Go(func() { watched[i].run(wctx) })
	}
	var probe *watchedProbe
	if o.HTTP != nil {
		probe = &watchedProbe{check: o.HTTP, redact: o.Redact, changed: changed, waiting: "the first answer of " + shownURL(o.HTTP.URL)}
		probe.every = min(max(o.Bake/10, time.Second), 5*time.Second)
		watching.Go(func() { probe.run(wctx) })
	}

	begun := time.Now()
	var res GateResult
	var since, asked time.Time // asked: when the command was last run
	var problem string         // of the command
	var troubles int
	var told GateProgress
	for {
		st := look(watched, probe)
		now := time.Now()
		if st.lost != "" {
			res.Detail, res.Elapsed = st.lost, now.Sub(begun)
			return res, nil
		}
		if st.waiting == "" && !since.IsZero() && st.troubles > troubles {
			st.waiting = "a task restarted"
		}
		troubles = max(troubles, st.troubles)
		switch {
		case st.waiting != "":
			if !since.IsZero() {
				since = time.Time{}
				res.Breaks++
			}
		case since.IsZero():
			since = now
		}
		again := begun.Add(o.Timeout).Sub(now)
		if !since.IsZero() {
			again = since.Add(o.Bake).Sub(now)
		}
		p := GateProgress{Since: since, Waiting: st.waiting}
		switch {
		case since.IsZero() && again <= 0:
			res.Detail, res.Elapsed = "the gate did not hold within "+o.Timeout.String()+": "+o.Redact(st.waiting), now.Sub(begun)
			return res, nil
		case !since.IsZero() && again <= 0:
			const pause = 2 * time.Second
			if now.Sub(asked) >= pause {
				problem = runCommand(ctx, o)
				asked = time.Now()
			}
			if ctx.Err() != nil {
				return res, context.Cause(ctx)
			}
			res.Elapsed = time.Since(begun)
			switch {
			case problem == "":
				res.OK = true
				return res, nil
			case res.Elapsed > o.Bake+o.Timeout:
				res.Detail = "the gate did not hold within " + o.Timeout.String() + ": " + problem
				return res, nil
			}
			p.Waiting, again = problem, time.Until(asked.Add(pause))
		case !since.IsZero():
			p.Until = since.Add(o.Bake)
		}
		if p != told {
			tell(p)
			told = p
		}
		timer := time.NewTimer(max(again, 10*time.Millisecond))
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return res, context.Cause(ctx)
		}
		timer.Stop()
	}
}

// gateState is what can be seen at one moment.
type gateState struct {
	waiting  string // what does not hold, "" when all does
	lost     string // why waiting is of no use any more
	troubles int    // restarts and failed allocations so far
}

func look(parties []*watchedParty, probe *watchedProbe) gateState {
	var st gateState
	for _, p := range parties {
		p.mu.Lock()
		if st.waiting == "" {
			st.waiting = p.waiting
		}
		if st.lost == "" {
			st.lost = p.lost
		}
		st.troubles += p.troubles
		p.mu.Unlock()
	}
	if probe != nil && st.waiting == "" {
		probe.mu.Lock()
		st.waiting = probe.waiting
		probe.mu.Unlock()
	}
	return st
}

// watchedParty keeps the state of a party up to date: it is read when Nomad's
// event stream or Consul says that something changed.
type watchedParty struct {
	Party
	changed chan<- struct{}

	mu       sync.Mutex
	waiting  string
	lost     string
	troubles int

	first map[string]uint64 // JobModifyIndex by job, as seen first
}

func (p *watchedParty) name(service string) string {
	return render.Job{Service: service, Target: p.Target}.Name()
}

func (p *watchedParty) run(ctx context.Context) {
	specs := make([]spec, len(p.Jobs))
	var names []string
	for i, j := range p.Jobs {
		specs[i] = specOf(j.Job)
		names = append(names, consul.Names(specs[i].consul)...)
	}
	h := newHub(ctx, p.Clients.Nomad, specs)
	var inConsul <-chan struct{}
	if len(names) > 0 && p.Clients.Consul != nil {
		slices.Sort(names)
		inConsul = consul.Watch(ctx, p.Clients.Consul, slices.Compact(names)).Changed()
	}
	for {
		begun := time.Now()
		p.read(ctx)
		if ctx.Err() != nil {
			return
		}
		poke(p.changed)
		const atMost, atLeast = 15 * time.Second, 250 * time.Millisecond
		wait := atMost
		if !h.allLive() {
			wait = 2 * time.Second // no event stream
		}
		timer := time.NewTimer(wait)
		select {
		case <-h.any:
		case <-inConsul:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		// Changes come in bursts: a moment later they are seen together.
		timer = time.NewTimer(max(atLeast-time.Since(begun), 0))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

func (p *watchedParty) read(ctx context.Context) {
	rctx, cancel := context.WithTimeoutCause(ctx, 20*time.Second, errors.New("no answer within 20 seconds"))
	defer cancel()
	list, err := Status(rctx, p.Clients, p.Jobs)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = ""
	if err != nil {
		where := ""
		if p.Target != "" {
			where = " of target " + p.Target
		}
		p.waiting = "an answer from the servers" + where + ": " + firstLine(plain(err).Error())
		return
	}
	if p.first == nil {
		p.first = map[string]uint64{}
	}
	p.troubles = 0
	for _, s := range list {
		p.troubles += s.troubles
		switch index, seen := p.first[s.JobID]; {
		case !seen:
			p.first[s.JobID] = s.index
		case index != s.index:
			p.lost = fmt.Sprintf("%s: somebody else changed job %q", p.name(s.Service), s.JobID)
			if s.Status == "stopped" {
				p.lost = fmt.Sprintf("%s: somebody else stopped job %q", p.name(s.Service), s.JobID)
			}
		}
		if !s.OK && p.waiting == "" {
			p.waiting = p.name(s.Service) + ": " + s.Detail
		}
	}
}

// watchedProbe makes the request of a gate again and again.
type watchedProbe struct {
	check   *stack.Check
	redact  func(string) string
	every   time.Duration
	changed chan<- struct{}

	mu      sync.Mutex
	waiting string
}

func (w *watchedProbe) run(ctx context.Context) {
	for ctx.Err() == nil {
		r := RunCheck(ctx, w.check, 0, w.redact)
		if ctx.Err() != nil {
			return
		}
		w.mu.Lock()
		w.waiting = ""
		if !r.OK {
			w.waiting = r.URL + ": " + r.Problem
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

func poke(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// trouble counts what a healthy service does not have: restarts of tasks and
// allocations that failed or were lost.
func trouble(allocs []*api.AllocationListStub) int {
	n := 0
	for _, a := range allocs {
		if a.ClientStatus == api.AllocClientStatusFailed || a.ClientStatus == api.AllocClientStatusLost {
			n++
		}
		for _, t := range a.TaskStates {
			n += int(t.Restarts) //nolint:gosec // a count
		}
	}
	return n
}
