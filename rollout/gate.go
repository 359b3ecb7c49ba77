package rollout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/analysis"
	"github.com/drover-nomad/drover/consul"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// Party is what a gate watches in one target: services that have been
// deployed.
type Party struct {
	Target  string
	Clients nomad.Clients
	Jobs    []render.Job
}

// GateOptions say what a gate asks for. The zero value asks once whether all
// services are healthy.
type GateOptions struct {
	stack.Gate
	// Bake is how long all must hold without a break.
	Bake time.Duration
	// Canaries is set if the services are canaries that wait for their promotion: as many
	// as the jobs ask for have to be healthy.
	Canaries bool
	// Silence is how long Nomad or Consul may not answer; DefaultSilence when 0.
	Silence time.Duration
	// Env is added to the environment of the command.
	Env []string
	// Credentials are those of the sources of Gate.Metrics, in the same order.
	Credentials []analysis.Credentials
	// Measured is called with each measurement that changes the verdict of a metric. It
	// may be nil.
	Measured func(analysis.Measurement)
	Redact   func(string) string
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
	Away    bool   // not OK, for the services could not be seen: they have not failed
	Unknown bool   // not OK, for a metric is inconclusive: a person has to decide
	Detail  string // why not
	Breaks  int    // how often it ceased to hold before it did for good
	Elapsed time.Duration
}

// Hold waits until, without a break of Bake, every service is healthy in
// Nomad and passing in Consul, none of its tasks restarts, and the HTTP probe
// is answered as it should be; then every metric has to hold, and it runs the command.
// A break begins the bake anew. A metric that fails ends the gate at once. One that has
// no value for the timeout makes it Unknown. Hold gives up when it has not begun to hold within the timeout,
// or when a job is not the one any more that it was at the beginning, but for
// the counts of groups with a scaling block. A server
// that does not answer begins the bake anew too, but says nothing of the
// services: the timeout does not count until it answers, and then from its
// beginning; after Silence the result is Away. tell may be nil; it is called
// when something changes. An error means that ctx has ended.
func Hold(ctx context.Context, parties []Party, o GateOptions, tell func(GateProgress)) (GateResult, error) {
	if o.Redact == nil {
		o.Redact = func(s string) string { return s }
	}
	if tell == nil {
		tell = func(GateProgress) {}
	}
	if o.Measured == nil {
		o.Measured = func(analysis.Measurement) {}
	}
	wctx, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer func() { stop(); watching.Wait() }()
	changed := make(chan struct{}, 1)
	watched := make([]*watchedParty, len(parties))
	for i, p := range parties {
		watched[i] = &watchedParty{Party: p, changed: changed, look: make(chan struct{}, 1), away: GateFirstLook, gap: time.Duration(len(parties)) * gateGap, canaries: o.Canaries}
		watching.Go(func() { watched[i].run(wctx) })
	}
	var probe *watchedProbe
	if o.HTTP != nil {
		probe = &watchedProbe{check: o.HTTP, redact: o.Redact, changed: changed, waiting: "the first answer of " + shownURL(o.HTTP.URL)}
		probe.every = min(max(o.Bake/10, time.Second), 5*time.Second)
		watching.Go(func() { probe.run(wctx) })
	}
	metrics := watchMetrics(wctx, o, changed, &watching)

	begun := time.Now()
	clock := gateClock{from: begun, timeout: o.Timeout, silence: cmp.Or(o.Silence, DefaultSilence)}
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
		measured := metrics.look(now)
		for _, m := range measured.news {
			o.Measured(m)
		}
		switch {
		case measured.failed != "":
			res.Detail, res.Elapsed = measured.failed, now.Sub(begun)
			return res, nil
		case measured.inconclusive != "" && st.away == "": // with a server away, the network may be gone
			res.Unknown, res.Detail, res.Elapsed = true, measured.inconclusive, now.Sub(begun)
			return res, nil
		}
		if st.waiting == "" && !since.IsZero() && st.troubles > troubles {
			st.waiting = "a task restarted"
		}
		troubles = max(troubles, st.troubles)
		clock.see(st, now)
		switch {
		case st.waiting != "" || st.away != "":
			if !since.IsZero() {
				since = time.Time{}
				res.Breaks++
			}
		case since.IsZero():
			since = now
		}
		again := clock.remaining(now)
		if !since.IsZero() {
			again = since.Add(o.Bake).Sub(now)
		}
		p := GateProgress{Since: since, Waiting: cmp.Or(st.waiting, st.away)}
		switch {
		case since.IsZero() && again <= 0 && st.unsure && !clock.silent(now):
			for _, w := range watched {
				poke(w.look)
			}
			again = time.Second
		case since.IsZero() && again <= 0 && clock.silent(now):
			res.Away, res.Elapsed = true, now.Sub(begun)
			res.Detail = "the services could not be seen for " + clock.silence.String() + ": it waited for " + o.Redact(st.away)
			return res, nil
		case since.IsZero() && again <= 0:
			res.Detail, res.Elapsed = "the gate did not hold within "+o.Timeout.String()+": "+o.Redact(st.waiting), now.Sub(begun)
			return res, nil
		case !since.IsZero() && again <= 0 && measured.waiting != "":
			if p.Waiting, again = measured.waiting, clock.from.Add(o.Bake+o.Timeout).Sub(now); again <= 0 {
				res.Unknown, res.Elapsed = measured.unknown, now.Sub(begun)
				res.Detail = "the gate did not hold within " + o.Timeout.String() + ": " + measured.waiting
				return res, nil
			}
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
			case time.Since(clock.from) > o.Bake+o.Timeout:
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

// gateClock is how long a gate may still wait: for what does not hold, the
// timeout, and for servers that do not answer, the silence.
type gateClock struct {
	timeout, silence time.Duration

	from  time.Time // of the timeout
	away  time.Time // since when something could not be seen, when not zero
	blind bool      // what could be seen held, and not all could be

	scalings int
}

func (c *gateClock) see(st gateState, now time.Time) {
	switch {
	case st.away == "":
		c.away = time.Time{}
	case c.away.IsZero():
		c.away = now
	}
	blind := st.away != "" && st.waiting == ""
	if c.blind && !blind {
		c.from = now // whatever it is that does not hold now, it was not seen to fail for long
	}
	c.blind = blind
	if st.scalings > c.scalings {
		c.from, c.scalings = now, st.scalings // what an autoscaler starts is new, and not yet healthy
	}
}

// silent reports whether a server has not answered for too long.
func (c *gateClock) silent(now time.Time) bool {
	return !c.away.IsZero() && now.Sub(c.away) >= c.silence
}

// remaining returns the longest time that a gate that does not hold may continue.
func (c *gateClock) remaining(now time.Time) time.Duration {
	timeout, silence := c.from.Add(c.timeout).Sub(now), c.away.Add(c.silence).Sub(now)
	switch {
	case c.away.IsZero():
		return timeout
	case c.blind:
		return silence
	}
	return min(timeout, silence)
}

// gateState is what can be seen at one moment.
type gateState struct {
	waiting  string // what does not hold, "" when all that is seen does
	away     string // the server that does not say, "" when all do
	unsure   bool   // the probe fails, and the servers were not asked since: the network may be gone
	lost     string // why waiting is of no use any more
	troubles int    // restarts and failed allocations so far
	scalings int    // how often an autoscaler has changed a count so far
}

func look(parties []*watchedParty, probe *watchedProbe) gateState {
	var st gateState
	seen := time.Now() // when the party was asked that was asked the longest ago
	for _, p := range parties {
		p.mu.Lock()
		if p.seen.Before(seen) {
			seen = p.seen
		}
		if st.waiting == "" {
			st.waiting = p.waiting
		}
		if st.away == "" {
			st.away = p.away
		}
		if st.lost == "" {
			st.lost = p.lost
		}
		st.troubles += p.troubles
		st.scalings += p.scalings
		p.mu.Unlock()
	}
	// With a server away, the probe may fail for nothing but the same network.
	if probe != nil && st.waiting == "" && st.away == "" {
		probe.mu.Lock()
		st.waiting = probe.waiting
		st.unsure = st.waiting != "" && seen.Before(probe.since)
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
	look    chan struct{} // receives when Nomad is to be read soon
	gap     time.Duration // at least, between two readings

	canaries bool // see GateOptions

	mu       sync.Mutex
	seen     time.Time // when the last reading began
	waiting  string
	away     string
	lost     string
	troubles int
	scalings int

	specs   []spec
	first   []uint64 // JobModifyIndex of each job, as seen first or scaled since; nil before the first look
	marks   highWater
	counted int             // scalings, as last read
	list    []ServiceStatus // as last read, nil when that failed
	running []map[string]string
	native  []consul.Health // of the services that Nomad itself registers
	problem string          // of the last reading
}

// gateGap is the least time between two readings of a party, which are three
// requests each, where there is one party. Several parties read less often.
const gateGap = 2 * time.Second

func (p *watchedParty) name(service string) string {
	return render.Job{Service: service, Target: p.Target}.Name()
}

func (p *watchedParty) run(ctx context.Context) {
	p.specs = specsOf(p.Jobs)
	var names []string
	for _, s := range p.specs {
		names = append(names, consul.Names(s.consul)...)
	}
	h := newHub(ctx, p.Clients.Nomad, p.specs, nil)
	var watcher *consul.Watcher
	var inConsul <-chan struct{}
	if len(names) > 0 && p.Clients.Consul != nil {
		slices.Sort(names)
		watcher = consul.Watch(ctx, p.Clients.Consul, p.Clients.ConsulDatacenters, slices.Compact(names))
		inConsul = watcher.Changed()
	}
	native := slices.ContainsFunc(p.specs, func(s spec) bool { return len(s.native) > 0 })
	var read, due time.Time
	for {
		if now := time.Now(); !now.Before(due) {
			p.read(ctx)
			if ctx.Err() != nil {
				return
			}
			wait := 15 * time.Second
			if !h.allLive() || p.list == nil || native {
				wait = 2 * p.gap // no event says that something has changed, or that Nomad answers again
			}
			read, due = now, now.Add(max(wait, p.gap))
		}
		p.judge(read, watcher)
		poke(p.changed)
		timer := time.NewTimer(time.Until(due))
		select {
		case <-h.any:
			// Changes come in bursts: they are seen together.
			if soon := read.Add(p.gap); soon.Before(due) {
				due = soon
			}
		case <-p.look:
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
	is, err := list(rctx, p.Clients, placesOf(p.specs))
	if err == nil {
		err = p.scaled(rctx, is)
	}
	if p.list, p.running, p.native, p.problem = nil, nil, nil, ""; err == nil {
		for i, s := range p.specs {
			st, running := s.status(p.Jobs[i], is[s.at()], s.total())
			if l := is[s.at()]; p.canaries && l != nil && !l.stub.Stop && l.deploying() && l.LatestDeployment.RequiresPromotion && st.Healthy >= s.first {
				st.OK, st.Detail = true, ""
			}
			p.list, p.running = append(p.list, st), append(p.running, running)
		}
		p.native, err = readNative(rctx, p.Clients, p.specs, p.running)
	}
	if err != nil {
		where := ""
		if p.Target != "" {
			where = " of target " + p.Target
		}
		p.list, p.running = nil, nil
		p.problem = "an answer from the servers" + where + ": " + firstLine(nomad.Plain(err).Error())
	}
}

// readNative judges the services of jobs that Nomad itself registers.
func readNative(ctx context.Context, c nomad.Clients, specs []spec, running []map[string]string) ([]consul.Health, error) {
	out := make([]consul.Health, len(specs))
	return out, parallel.Each(len(specs), 8, func(i int) error {
		instances, err := specs[i].nativeInstances(ctx, c, running[i])
		out[i] = consul.Judge(specs[i].native, running[i], instances)
		return err
	})
}

// scaled finds the jobs that only scaling has changed: the counts of groups with a
// scaling block differ. They count as unchanged. Allocations that scaling added or
// removed need not be healthy.
func (p *watchedParty) scaled(ctx context.Context, is map[jobAt]*listed) error {
	for i, s := range p.specs {
		l, job := is[s.at()], p.Jobs[i].Job
		if l == nil || l.stub.Stop || p.first != nil && l.stub.JobModifyIndex == p.first[i] || !slices.ContainsFunc(job.TaskGroups, scaled) {
			continue
		}
		now, err := compare(ctx, p.Clients, job)
		if err != nil {
			return err
		}
		if !now.unchanged() {
			continue
		}
		if now.spec.total() < s.total() {
			p.specs[i] = now.spec
		}
		if p.first != nil && p.first[i] != 0 {
			p.first[i] = l.stub.JobModifyIndex
			p.counted++
		}
	}
	return nil
}

// judge updates the state of the party from the last answer of Nomad, which is of the
// time read, and the present state in Consul.
func (p *watchedParty) judge(read time.Time, watcher *consul.Watcher) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen, p.scalings = read, p.counted
	if p.waiting, p.away = "", p.problem; p.list == nil {
		return
	}
	if p.first == nil {
		p.marks = highWater{}
		for _, st := range p.list {
			p.first = append(p.first, st.index)
		}
	}
	for i, st := range p.list {
		p.troubles += p.marks.raise(st.troubles)
		if p.first[i] != st.index {
			p.lost = fmt.Sprintf("%s: another client changed job %q", p.name(st.Service), st.JobID)
			if st.Status == "stopped" {
				p.lost = fmt.Sprintf("%s: another client stopped job %q", p.name(st.Service), st.JobID)
			}
		}
		if st.OK {
			st.Detail = describe(p.native[i].Failing)
		}
		if st.OK && st.Detail == "" && watcher != nil {
			var away string
			st.Detail, away = unwell(watcher, p.specs[i], p.running[i])
			p.away = cmp.Or(p.away, away)
		}
		if p.waiting == "" && st.Detail != "" {
			p.waiting = p.name(st.Service) + ": " + st.Detail
		}
	}
}

// unwell returns the problem of the instances in Consul, "" if there is none, and in away
// what is missing if Consul has not answered.
func unwell(watcher *consul.Watcher, s spec, running map[string]string) (detail, away string) {
	h, known, err := watcher.Judge(s.consul, running)
	switch {
	case len(s.consul) == 0:
		return "", ""
	case err != nil:
		return "", "an answer from Consul: " + firstLine(err.Error())
	case !known:
		return "", GateFirstLook
	}
	return describe(h.Failing), ""
}

func poke(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// highWater is the most trouble of each allocation that was ever listed. Nomad
// collects failed allocations: the trouble of those that it lists may fall and
// hide a new restart.
type highWater map[string]int

// raise returns by how much the trouble has grown.
func (h highWater) raise(troubles map[string]int) int {
	more := 0
	for id, n := range troubles {
		more += max(0, n-h[id])
		h[id] = max(n, h[id])
	}
	return more
}

// trouble counts, by allocation ID, what a healthy service does not have:
// restarts of tasks, and an allocation that failed or was lost.
func trouble(allocs []*api.AllocationListStub) map[string]int {
	out := map[string]int{}
	for _, a := range allocs {
		n := 0
		if a.ClientStatus == api.AllocClientStatusFailed || a.ClientStatus == api.AllocClientStatusLost {
			n++
		}
		for _, t := range a.TaskStates {
			n += int(t.Restarts) //nolint:gosec // a count
		}
		if n > 0 {
			out[a.ID] = n
		}
	}
	return out
}
