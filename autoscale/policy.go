// Package autoscale evaluates the scaling blocks of Nomad's jobs. It reads the HCL of
// HashiCorp's nomad-autoscaler 0.5 (https://developer.hashicorp.com/nomad/tools/autoscaling/policy)
// and computes counts. It changes nothing: the controller does.
package autoscale

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
)

// The defaults of nomad-autoscaler.
const (
	DefaultInterval = 10 * time.Second
	DefaultCooldown = 5 * time.Minute
	DefaultWindow   = time.Minute
)

// The sources of a check.
const (
	SourceNomad      = "nomad-apm"
	SourcePrometheus = "prometheus"
	SourceEdge       = "edge" // drover's own
)

// Keys in the meta of scaling events (GET /v1/job/:id/scale).
const (
	MetaBy      = "drover"          // drover's controller wrote it
	MetaCheck   = "drover_check"    // that decided
	MetaDryRun  = "drover_dry_run"  // the count that a dry run did not set
	MetaForeign = "nomad_policy_id" // nomad-autoscaler wrote it
)

// Values of on_error and on_check_error: the behaviour without data.
const (
	onErrorIgnore = "ignore"
	onErrorFail   = "fail"
)

// Policy is the scaling block of a group.
type Policy struct {
	Namespace, Job, Group string
	Min, Max              int

	Interval time.Duration // between two evaluations
	Cooldown time.Duration // after the count was lowered
	// CooldownUp is the pause after the count was raised.
	CooldownUp time.Duration
	// Fail ends an evaluation if a check has no data. Otherwise such a check only
	// prevents a lower count.
	Fail     bool
	DryRun   bool
	Schedule *Schedule // when the policy is evaluated; nil for always
	Checks   []Check
}

// Check computes a count from one query.
type Check struct {
	Name     string
	Group    string // checks of one group vote together
	Source   string
	Query    string
	Window   time.Duration
	Offset   time.Duration
	Instant  bool // the newest sample only
	OnError  string
	Schedule *Schedule // nil for always
	Strategy Strategy
}

// needsData reports whether the check has a query.
func (c Check) needsData() bool {
	_, fixed := c.Strategy.(fixedValue)
	return !fixed
}

// Problem is a mistake in a scaling block.
type Problem struct {
	// Path leads from the block scaling to the place: block types with their labels, and
	// the attribute.
	Path    []string
	Message string
	Remedy  string
}

func (p Problem) Error() string { return p.Message }

// Parse reads a scaling block, as a job file or Nomad's API has it (GET
// /v1/scaling/policy/:id). It returns all mistakes; the policy can be used if there are
// none. A block without a policy has no checks. Parse does not look at enabled.
func Parse(s *api.ScalingPolicy) (Policy, []Problem) {
	p := Policy{
		Namespace: s.Target["Namespace"], Job: s.Target["Job"], Group: s.Target["Group"],
		Interval: DefaultInterval, Cooldown: DefaultCooldown,
	}
	if s.Min != nil {
		p.Min = int(*s.Min)
	}
	r := &reader{}
	if p.Max = p.Min; s.Max != nil {
		p.Max = int(*s.Max)
	} else {
		r.problem("The scaling block has no max", "Write max, the greatest count.")
	}
	// The parser of job files and the API use different types for blocks.
	text, err := json.Marshal(s.Policy)
	if err == nil {
		err = json.Unmarshal(text, &r.content)
	}
	if err != nil {
		r.problem("The policy cannot be read: "+err.Error(), "Write it as nomad-autoscaler documents.")
		return p, r.problems
	}
	if len(r.content) == 0 {
		return p, r.problems
	}
	r.path = []string{"policy"}
	r.knows("cooldown", "cooldown_on_scale_up", "evaluation_interval", "on_check_error", "check", "schedule", "target")
	p.Interval = r.duration("evaluation_interval", p.Interval, time.Second)
	p.Cooldown = r.duration("cooldown", p.Cooldown, 0)
	p.CooldownUp = r.duration("cooldown_on_scale_up", p.Cooldown, 0)
	p.Fail = r.onError("on_check_error") == onErrorFail
	p.Schedule = r.schedule()
	for label, target := range r.blocks("target") {
		if label != "nomad" && label != "nomad-target" {
			target.problem(fmt.Sprintf("Unknown target %q", label), "A group is scaled by Nomad: remove the block, or name it nomad.")
		}
		p.DryRun = target.text("dry-run") == "true"
	}
	for label, check := range r.blocks("check") {
		c := check.check(label)
		if place, long := strings.CutPrefix(c.Query, "taskgroup_"); long && c.Source == SourceNomad && p.Job != "" {
			if _, place, _ = strings.Cut(place, "/"); place != p.Group+"/"+p.Job+"@"+p.Namespace {
				check.problem(fmt.Sprintf("Query %q is about another group", c.Query), "Write the short form: avg_cpu.", "query")
			}
		}
		p.Checks = append(p.Checks, c)
	}
	if len(p.Checks) == 0 {
		r.problem("The policy has no check", `Write a check "NAME" with a source, a query and a strategy.`)
	}
	return p, r.problems
}

// reader reads one block. Sub-blocks share the list of problems by parent.
type reader struct {
	parent   *reader
	path     []string
	content  map[string]any
	problems []Problem
}

func (r *reader) problem(message, remedy string, below ...string) {
	root := r
	for root.parent != nil {
		root = root.parent
	}
	root.problems = append(root.problems, Problem{slices.Concat(r.path, below), message, remedy})
}

// knows reports the names that the block must not have.
func (r *reader) knows(names ...string) {
	for _, name := range slices.Sorted(maps.Keys(r.content)) {
		if !slices.Contains(names, name) {
			r.problem(fmt.Sprintf("Unknown name %q", name), "There are "+strings.Join(names, ", ")+".", name)
		}
	}
}

// text returns the value of an attribute as text, "" without one.
func (r *reader) text(name string) string {
	switch v := r.content[name].(type) {
	case nil:
		return ""
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	default:
		return fmt.Sprint(v)
	}
}

func (r *reader) duration(name string, without, least time.Duration) time.Duration {
	text := r.text(name)
	if text == "" {
		return without
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < least {
		r.problem(fmt.Sprintf("%s is %q", name, text), fmt.Sprintf(`Write a duration of at least %s, such as "30s".`, least), name)
		return without
	}
	return d
}

func (r *reader) onError(name string) string {
	v := r.text(name)
	if v != "" && v != onErrorIgnore && v != onErrorFail {
		r.problem(fmt.Sprintf("%s is %q", name, v), `Write "ignore" or "fail".`, name)
	}
	return v
}

// number returns an attribute, without if it is missing. need reports it as missing.
func (r *reader) number(name string, without float64, need bool) float64 {
	text := r.text(name)
	if text == "" {
		if need {
			r.problem(fmt.Sprintf("The strategy has no %s", name), "Write "+name+" = NUMBER.")
		}
		return without
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		r.problem(fmt.Sprintf("%s is %q", name, text), "Write a number.", name)
		return without
	}
	return v
}

// whole is number for whole numbers of at least least.
func (r *reader) whole(name string, without, least int, need bool) int {
	v := r.number(name, float64(without), need)
	if v != float64(int(v)) || int(v) < least && r.text(name) != "" {
		r.problem(fmt.Sprintf("%s is %q", name, r.text(name)), fmt.Sprintf("Write a whole number of at least %d.", least), name)
		return without
	}
	return int(v)
}

// blocks returns the labelled blocks of a type in the order of the file.
func (r *reader) blocks(kind string) func(func(string, *reader) bool) {
	return func(yield func(string, *reader) bool) {
		list, _ := r.content[kind].([]any)
		for _, entry := range list {
			byLabel, _ := entry.(map[string]any)
			for _, label := range slices.Sorted(maps.Keys(byLabel)) {
				content := map[string]any{}
				if inner, ok := byLabel[label].([]any); ok && len(inner) == 1 {
					content, _ = inner[0].(map[string]any)
				}
				if !yield(label, &reader{parent: r, path: append(slices.Clone(r.path), kind+" "+label), content: content}) {
					return
				}
			}
		}
	}
}

func (r *reader) schedule() *Schedule {
	list, _ := r.content["schedule"].([]any)
	if len(list) == 0 {
		return nil
	}
	inner := &reader{parent: r, path: append(slices.Clone(r.path), "schedule")}
	inner.content, _ = list[0].(map[string]any)
	inner.knows("start", "end", "duration")
	s, err := newSchedule(inner.text("start"), inner.text("end"), inner.text("duration"))
	if err != nil {
		inner.problem(err.Error(), `Write start = CRON and either end = CRON or duration = "8h". Times are in UTC.`)
		return nil
	}
	return s
}

func (r *reader) check(label string) Check {
	r.knows("group", "on_error", "query", "query_window", "query_window_offset", "schedule", "source", "strategy")
	c := Check{
		Name: label, Group: r.text("group"), Source: r.text("source"), Query: r.text("query"), OnError: r.onError("on_error"),
		Window: DefaultWindow, Schedule: r.schedule(),
	}
	if c.Instant = r.text("query_window") == "instant"; !c.Instant {
		c.Window = r.duration("query_window", DefaultWindow, time.Second)
	}
	c.Offset = r.duration("query_window_offset", 0, 0)
	n := 0
	for name, strategy := range r.blocks("strategy") {
		n++
		c.Strategy = strategy.strategy(name)
	}
	if n != 1 {
		r.problem(fmt.Sprintf("Check %q has %d strategies", label, n), "Write one of the blocks "+quoted(strategyNames)+".")
	}
	if c.Strategy != nil && !c.needsData() {
		return c
	}
	if c.Query == "" {
		r.problem(fmt.Sprintf("Check %q has no query", label), "Write query.")
		return c
	}
	switch c.Source {
	case SourcePrometheus:
	case SourceNomad, "": // nomad-autoscaler's default
		c.Source = SourceNomad
		if _, err := parseUsage(c.Query); err != nil {
			r.problem(err.Error(), `Write avg_cpu, avg_memory, avg_cpu-allocated or avg_memory-allocated, or another of sum, min and max.`, "query")
		}
	case SourceEdge:
		if _, err := parseEdge(c.Query); err != nil {
			r.problem(err.Error(), "Write avg_requests, avg_queue or avg_sessions, or sum_, and the Consul service after it: avg_requests/web.", "query")
		}
	default:
		r.problem(fmt.Sprintf("Unknown source %q", c.Source), "The controller has "+quoted([]string{SourceNomad, SourcePrometheus, SourceEdge})+".", "source")
	}
	return c
}

func quoted(words []string) string {
	var out []string
	for _, w := range words {
		out = append(out, strconv.Quote(w))
	}
	return strings.Join(out, ", ")
}
