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
		watched[i] = &watchedParty{Party: p, changed: changed, waiting: GateFirstLook, gap: time.Duration(2*len(parties)) * gateGap}
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

// watchedParty keeps the state of a party up to date. Nomad is read again
// when its event stream says that something changed; Consul's answers come by
// themselves.
type watchedParty struct {
	Party
	changed chan<- struct{}
	gap     time.Duration // at least, between two readings

	mu       sync.Mutex
	waiting  string
	lost     string
	troubles int

	specs   []spec
	first   map[string]uint64 // JobModifyIndex by job, as seen first
	list    []ServiceStatus   // as last read, nil when that failed
	running []map[string]string
	problem string // of the last reading
}

// gateGap is how far apart the two requests are, on the average, that reading
// a party takes.
const gateGap = time.Second

func (p *watchedParty) name(service string) string {
	return render.Job{Service: service, Target: p.Target}.Name()
}

func (p *watchedParty) run(ctx context.Context) {
	p.specs = specsOf(p.Jobs)
	var names []string
	for _, s := range p.specs {
		names = append(names, consul.Names(s.consul)...)
	}
	h := newHub(ctx, p.Clients.Nomad, p.specs)
	var watcher *consul.Watcher
	var inConsul <-chan struct{}
	if len(names) > 0 && p.Clients.Consul != nil {
		slices.Sort(names)
		watcher = consul.Watch(ctx, p.Clients.Consul, slices.Compact(names))
		inConsul = watcher.Changed()
	}
	var read, due time.Time
	for {
		if now := time.Now(); !now.Before(due) {
			p.read(ctx)
			if ctx.Err() != nil {
				return
			}
			wait := 15 * time.Second
			if !h.allLive() {
				wait = 2 * p.gap // no event stream
			}
			read, due = now, now.Add(max(wait, p.gap))
		}
		p.judge(watcher)
		poke(p.changed)
		timer := time.NewTimer(time.Until(due))
		select {
		case <-h.any:
			// Changes come in bursts: they are seen together.
			if soon := read.Add(p.gap); soon.Before(due) {
				due = soon
			}
		case <-inConsul:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// read asks Nomad.
func (p *watchedParty) read(ctx context.Context) {
	rctx, cancel := context.WithTimeoutCause(ctx, 20*time.Second, errors.New("no answer within 20 seconds"))
	defer cancel()
	is, err := list(rctx, p.Clients, p.specs)
	if p.list, p.running, p.problem = nil, nil, ""; err != nil {
		where := ""
		if p.Target != "" {
			where = " of target " + p.Target
		}
		p.problem = "an answer from the servers" + where + ": " + firstLine(plain(err).Error())
		return
	}
	for i, s := range p.specs {
		st, running := s.status(p.Jobs[i], is[s.at()], s.total())
		p.list, p.running = append(p.list, st), append(p.running, running)
	}
}

// judge says how the party stands, with what Consul says now.
func (p *watchedParty) judge(watcher *consul.Watcher) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting = p.problem; p.list == nil {
		return
	}
	if p.first == nil {
		p.first = map[string]uint64{}
	}
	p.troubles = 0
	for i, st := range p.list {
		p.troubles += st.troubles
		switch index, seen := p.first[st.JobID]; {
		case !seen:
			p.first[st.JobID] = st.index
		case index != st.index:
			p.lost = fmt.Sprintf("%s: somebody else changed job %q", p.name(st.Service), st.JobID)
			if st.Status == "stopped" {
				p.lost = fmt.Sprintf("%s: somebody else stopped job %q", p.name(st.Service), st.JobID)
			}
		}
		if st.OK && watcher != nil {
			st.Detail = unwell(watcher, p.specs[i], p.running[i])
		}
		switch {
		case p.waiting != "" || st.Detail == "":
		case st.Detail == GateFirstLook:
			p.waiting = st.Detail
		default:
			p.waiting = p.name(st.Service) + ": " + st.Detail
		}
	}
}

// unwell says what is wrong with the instances in Consul, "" when nothing is.
func unwell(watcher *consul.Watcher, s spec, running map[string]string) string {
	h, known, err := watcher.Judge(s.consul, running)
	switch {
	case len(s.consul) == 0:
		return ""
	case err != nil:
		return err.Error()
	case !known:
		return GateFirstLook
	}
	return describe(h.Failing)
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
