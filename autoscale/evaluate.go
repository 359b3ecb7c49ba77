package autoscale

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Group is the state of a task group.
type Group struct {
	Desired int // the count of the job
	Running int // allocations that run
	// Changed is when the count was last changed by anybody, zero if Nomad knows of no
	// change. Raised reports whether that change was up.
	Changed time.Time
	Raised  bool
}

// Decision is the result of one evaluation.
type Decision struct {
	Want   int // the count; Group.Desired for no change
	Check  string
	Reason string
	// Missing are the checks without data, with the cause.
	Missing []string
	// Cooldown is until when the count may not change again; zero if it may.
	Cooldown time.Time
	// Failed reports that the policy was not evaluated: a check that is set to fail has no data.
	Failed bool
}

// Changes reports whether the decision differs from the desired count of g.
func (d Decision) Changes(g Group) bool { return d.Want != g.Desired }

// Read returns the samples of a check in the order of time. No samples and an error both
// mean that there is no data.
type Read func(context.Context, Check) ([]float64, error)

// The directions of a vote. A greater one wins.
const (
	down = iota - 1
	none
	up
)

// vote is what a check asks for.
type vote struct {
	direction, count int
	check, reason    string
}

func (v *vote) beats(o *vote) bool {
	if o == nil || v.direction != o.direction {
		return o == nil || v.direction > o.direction
	}
	return v.direction != none && v.count > o.count
}

// Evaluate runs the checks of a policy and returns the count that the group should have.
// Among checks, up wins over no change and no change over down; of two in the same
// direction the higher count wins. A check without data votes for no change, so that the
// count is never lowered without all data.
func Evaluate(ctx context.Context, p Policy, g Group, now time.Time, read Read) Decision {
	d := Decision{Want: g.Desired}
	if !p.Schedule.isActive(now) {
		d.Reason = "outside the schedule of the policy"
		return d
	}
	groups := map[string][]*vote{}
	var order []string
	for _, c := range p.Checks {
		if !c.Schedule.isActive(now) {
			continue
		}
		v, err := c.vote(ctx, g, read)
		if err != nil {
			d.Missing = append(d.Missing, fmt.Sprintf("check %s: %s", c.Name, err))
			if c.OnError == onErrorFail || c.OnError == "" && p.Fail {
				d.Failed, d.Reason = true, fmt.Sprintf("check %s has no data: %s", c.Name, err)
				return d
			}
			// Not in the group of the check: there, other votes would hide it.
			groups["\x00missing"] = append(groups["\x00missing"], v)
			continue
		}
		if _, known := groups[c.Group]; !known {
			order = append(order, c.Group)
		}
		groups[c.Group] = append(groups[c.Group], v)
	}
	if len(groups["\x00missing"]) > 0 {
		order = append(order, "\x00missing")
	}
	var winner *vote
	for _, name := range order {
		if v := winnerOf(groups[name], name != ""); winner == nil || v.beats(winner) {
			winner = v
		}
	}
	if winner == nil {
		d.Reason = "no check is in its schedule"
		return d
	}
	d.Check, d.Reason = winner.check, fmt.Sprintf("check %s: %s", winner.check, winner.reason)
	d.settle(p, g, winner, now)
	return d
}

// settle applies the bounds and the cooldown to the vote that won.
func (d *Decision) settle(p Policy, g Group, winner *vote, now time.Time) {
	want := min(max(winner.count, p.Min), p.Max)
	if want != winner.count && winner.direction != none {
		d.Reason += fmt.Sprintf("; %d is limited to %d", winner.count, want)
	}
	// The vote counts instances that run. The desired count may be ahead of them.
	if winner.direction == up && want <= g.Desired || winner.direction == down && want >= g.Desired || winner.direction == none {
		return
	}
	pause := p.Cooldown
	if g.Raised {
		pause = p.CooldownUp
	}
	if until := g.Changed.Add(pause); !g.Changed.IsZero() && until.After(now) {
		d.Cooldown = until
		d.Reason += fmt.Sprintf("; wants %d, in cooldown until %s", want, until.UTC().Format(time.TimeOnly))
		return
	}
	d.Want = want
}

// winnerOf returns the vote that wins in a group of checks. In a named group, checks that
// want no change count only if all do.
func winnerOf(votes []*vote, named bool) *vote {
	var winner *vote
	for _, v := range votes {
		if named && v.direction == none {
			continue
		}
		if v.beats(winner) {
			winner = v
		}
	}
	if winner == nil {
		return votes[0]
	}
	return winner
}

// vote runs a check. With an error it returns a vote for no change too.
func (c Check) vote(ctx context.Context, g Group, read Read) (*vote, error) {
	unknown := &vote{count: g.Desired, check: c.Name, reason: "no data"}
	var samples []float64
	if c.needsData() {
		all, err := read(ctx, c)
		if err != nil {
			return unknown, err
		}
		if samples = finite(all); len(samples) == 0 {
			return unknown, fmt.Errorf("source %s has no data for %s", c.Source, strings.TrimSpace(c.Query))
		}
	}
	want, reason := c.Strategy.next(g.Running, samples)
	v := &vote{count: want, check: c.Name, reason: reason}
	switch {
	case want > g.Running:
		v.direction = up
	case want < g.Running:
		v.direction = down
	}
	return v, nil
}
