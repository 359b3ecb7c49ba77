// Package view shows the events of a verb of package deploy: to a person as a live
// tree on a terminal or as lines in a pipe, to a program as NDJSON, and to GitHub
// Actions as annotations.
package view

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
)

// View shows the events of a verb: NDJSON on Out, or lines or a live tree on Err
// and a summary on Out. It is for one verb, whose events come one at a time.
type View struct {
	io        *IO
	complete  func(*deploy.End)
	name, env string // of the stack
	asJSON    bool
	waves     [][]render.Job
	waveOf    map[string]int // by the name of a service
	wave      int            // the one that live shows
	back      bool           // the release is being reverted
	live      *liveTree      // on a terminal, from the first event on
	plain     *plainLog      // in a pipe, likewise
}

// New returns a View that writes to streams, as NDJSON if asJSON. Before an end is
// written as NDJSON, complete sets what only the process knows: its exit code and
// how it words errors.
func New(streams *IO, asJSON bool, complete func(*deploy.End)) *View {
	return &View{io: streams, asJSON: asJSON, complete: complete}
}

// Event shows one event. It is the sink of every verb of package deploy.
func (v *View) Event(e deploy.Event) {
	if e.Kind == deploy.KindResolved {
		v.name, v.env = e.Resolved.Stack, e.Resolved.Environment
	}
	if e.Kind == deploy.KindRetry { // also with JSON, which has no such event
		fmt.Fprintf(v.io.Err, "Nomad does not answer: %s; retrying for up to %s (--unreachable-after)\n", e.Text, e.Limit)
		return
	}
	if e.Kind == deploy.KindEnd || e.Kind == deploy.KindPrerequisite {
		v.close()
		if r := e.End.Result; r != nil {
			annotateEnd(v.io, e.End.Stack, v.summary(e.End.Stack, *r), *r)
		}
	}
	if v.asJSON {
		v.json(e)
		return
	}
	switch e.Kind {
	case deploy.KindPhase:
	case deploy.KindResolved:
		PrintProcessValues(v.io.Err, e.Resolved.ProcessValues)
	case deploy.KindPlan:
		v.planned(e.Plan)
	case deploy.KindVolume:
		v.volume(*e.Volume)
	case deploy.KindSecrets:
		v.secrets(*e.Secrets)
	case deploy.KindCertificate:
		v.certificate(*e.Certificate)
	case deploy.KindRecord:
		v.line("record %s: %s: %s", e.Record.Key, e.Record.Action, FormatChange(*e.Record))
	case deploy.KindPrerequisite, deploy.KindEnd:
		v.end(e.End)
	default:
		v.release(*e.Release)
	}
}

// json writes an event as one line, except events that are for Go programs only.
func (v *View) json(e deploy.Event) {
	switch e.Kind {
	case deploy.KindPhase, deploy.KindResolved, deploy.KindPlan:
		return
	case deploy.KindPrerequisite, deploy.KindEnd:
		end := *e.End
		v.complete(&end)
		e.End = &end
	}
	_ = json.NewEncoder(v.io.Out).Encode(e)
}

// planned stores the services that will be shown, and prints which jobs will be
// stopped.
func (v *View) planned(p *release.Plan) {
	v.waves, v.waveOf = nil, map[string]int{}
	if changes := p.Secrets(); changes != nil {
		for _, j := range changes.Jobs {
			if j.Added = nil; len(j.Changed)+len(j.Removed) > 0 {
				v.line("secrets: %s", FormatJobSecrets(j))
			}
		}
	}
	for _, part := range p.Parts {
		for len(v.waves) <= part.Wave {
			v.waves = append(v.waves, nil)
		}
		v.waves[part.Wave] = append(v.waves[part.Wave], part.Jobs...)
		for _, j := range part.Jobs {
			v.waveOf[j.Name()] = part.Wave
		}
		for _, c := range part.Plan.Changes() {
			v.counts(c)
			if c.Action == rollout.ActionStop {
				of, where := "", "stack"
				if len(part.Jobs) == 0 {
					where = "environment"
				}
				if part.Target != "" {
					of = " of target " + part.Target
				}
				v.line("%s: job %s%s will be stopped at the end: it is no longer in the %s", c.Service, c.JobID, of, where)
			}
		}
	}
	for _, c := range p.Prunes() {
		if c.RenamedTo != "" {
			v.line("%s: the service becomes job %s: did a variable rename it?", c.Service, c.RenamedTo)
		}
	}
	for _, j := range p.Spared() {
		v.line("%s: job %s is not in the stack any more and keeps running: it belongs to %s", j.Service, j.JobID, j.Owner)
	}
	for _, name := range p.Forgotten() {
		v.line("%s keeps running and is forgotten", name)
	}
}

func (v *View) line(format string, args ...any) {
	if !v.asJSON {
		fmt.Fprintf(v.io.Err, format+"\n", args...)
	}
}

func (v *View) volume(o deploy.Volume) {
	name := o.Name
	if o.Target != "" {
		name += " of target " + o.Target
	}
	v.line("volume %s: created", name)
}

// secrets shows what was made.
func (v *View) secrets(s deploy.Secrets) {
	if n := len(s.Made.Secrets); n > 0 {
		v.line("secrets: %d generated", n)
	}
	for _, name := range s.Made.Renewed {
		v.line("secrets: certificate %s renewed", name)
	}
}

func (v *View) certificate(e acme.Event) {
	name := "certificate " + e.Certificate
	if e.Certificate == "" {
		name = "CA " + e.Issuer
	}
	v.line("%s: %s: %s", name, e.Kind, strings.ReplaceAll(e.Text, "\n", "; "))
}

func (v *View) release(e release.Event) {
	switch e.Kind {
	case release.EventLock:
		v.line("waiting for %s", e.Text)
	case release.EventWarning:
		v.line("Warning: %s", e.Text)
		annotate(v.io, "warning", e.Text, "title", v.name)
	case release.EventPruned:
		if e.Back {
			v.line("%s: stopped again", e.Service)
		} else {
			v.line("%s: stopped", e.Service)
		}
	case release.EventRelease:
		v.state(e)
	case release.EventWave:
		v.waveState(e)
	case release.EventGate:
		v.gate(e)
	case release.EventMetric:
		v.close()
		v.line("wave %s: %s", e.Wave, e.Metric)
	default:
		v.progress(e)
	}
}

// state prints the states before the end. The event "end" covers the others.
func (v *View) state(e release.Event) {
	switch e.State {
	case record.Running:
		v.line("release %d", e.Number)
	case record.Abandoned:
		v.line("release %d is abandoned", e.Number)
	case record.Reverting:
		v.close()
		v.back = true
		if e.Text != "" {
			v.line("%s", e.Text)
		}
		v.line("release %d: reverting its changes", e.Number)
	}
}

func (v *View) waveState(e release.Event) {
	v.close()
	text := string(e.State)
	switch e.State {
	case record.Running:
		text = "begins"
	case record.NeedsApproval:
		text = "waits for approval: drover approve " + v.stackArgs()
		if e.Text != "" { // its gate is inconclusive
			v.line("wave %s: %s; it %s, or drover abort %s", e.Wave, e.Text, text, v.stackArgs())
			return
		}
	}
	if e.Text != "" && e.State != record.FailedState { // a later event has the reason
		text += ": " + e.Text
	}
	v.line("wave %s: %s", e.Wave, text)
}

func (v *View) gate(e release.Event) {
	v.close()
	switch {
	case e.Waiting == rollout.GateFirstLook:
	case e.Waiting != "":
		v.line("wave %s: its gate waits for %s", e.Wave, e.Waiting)
	case time.Until(e.Until) > time.Second:
		v.line("wave %s: healthy; baking until %s (%s)", e.Wave, e.Until.Local().Format("15:04:05"), Round(time.Until(e.Until)))
	}
}

func (v *View) stackArgs() string { return release.StackArgs(v.name, v.env) }

func (v *View) progress(e release.Event) {
	if v.io.TTY && !v.back {
		wave := v.waveOf[e.Name()]
		if v.live != nil && wave != v.wave {
			v.close()
		}
		if v.live == nil {
			var jobs []render.Job
			if v.wave = wave; wave < len(v.waves) {
				jobs = v.waves[wave]
			}
			v.live = newLiveTree(v.io, jobs)
		}
		v.live.event(e.Event)
		return
	}
	if v.plain == nil {
		v.plain = newPlainLog(v.line, 15*time.Second)
	}
	v.plain.event(e.Event)
}

// close stops redrawing and reminders.
func (v *View) close() {
	if v.plain != nil {
		v.plain.close()
	}
	if v.live != nil {
		v.live.close()
	}
	v.plain, v.live = nil, nil
}

func resultLine(r rollout.ServiceResult) string {
	line := fmt.Sprintf("%s: %s", r.Name(), r.Outcome)
	if r.Submitted {
		line += fmt.Sprintf(" (%s)", Round(r.Elapsed))
	}
	if r.Detail != "" && !r.Outcome.OK() {
		line += ": " + r.Detail
	}
	if r.Note != "" {
		line += ": " + r.Note
	}
	return line
}

// end writes the failures, the summary and the next command.
func (v *View) end(e *deploy.End) {
	switch {
	case e.Run != nil:
		PrintRuns(v.io.Out, []record.Run{*e.Run})
		return
	case e.Outcome == deploy.Approved:
		fmt.Fprintf(v.io.Out, "%s: wave %s is approved; %s continues\n", e.Stack, e.Wave, e.Holder)
		return
	case e.Result == nil: // the error is printed instead
		return
	}
	r := *e.Result
	services := r.Services
	if r.Back != nil {
		services = append(slices.Clone(services), r.Back.Services...)
	}
	for _, s := range services {
		if s.Failure != nil {
			printFailure(v.io.Err, s)
		}
	}
	if h := r.Halt; h != nil && r.Back == nil && (h.Outcome == rollout.Failed || h.Outcome == rollout.Unreachable) {
		v.line("%s", h)
	}
	if r.Outcome() == rollout.Cancelled {
		var left []string
		for _, s := range services {
			if s.Outcome == rollout.Cancelled && s.Submitted {
				left = append(left, s.JobID)
			}
		}
		if len(left) > 0 {
			v.line("Interrupted. Submitted and left running in Nomad: %s", strings.Join(left, ", "))
		} else {
			v.line("Interrupted. Nothing was left half-way.")
		}
	}
	fmt.Fprintln(v.io.Out, v.summary(e.Stack, r))
	if next := v.next(r); next != "" {
		v.line("Next: %s", next)
	}
	if e.RoutesChanged {
		v.line("The routes have other hosts: their DNS records are left to the controller (drover dns plan %s -e %s)", e.Stack, e.Environment)
	}
}

// summary returns the result in one line.
func (v *View) summary(name string, r release.Result) string {
	line := fmt.Sprintf("%s: %s", name, r.Outcome())
	if c := counts(r.Result); c != "" {
		line += ": " + c
	}
	elapsed := r.Elapsed
	if len(r.Pruned) > 0 {
		line += fmt.Sprintf(", %d stopped", len(r.Pruned))
	}
	if r.Back != nil {
		line += "; reverted: " + cmp.Or(counts(*r.Back), "nothing")
		elapsed += r.Back.Elapsed
	}
	line += fmt.Sprintf(" in %s", Round(elapsed))
	if r.Release != nil {
		line += fmt.Sprintf(" (release %d is %s)", r.Release.Number, r.Release.State)
	}
	return line
}

// next returns the most helpful next command, "" if there is none.
func (v *View) next(r release.Result) string {
	if r.Release == nil {
		return nextCommand(r.Result)
	}
	switch r.Release.State {
	case record.Done, record.Aborted, record.Destroyed:
		return ""
	}
	if r.Release.State.Open() {
		return fmt.Sprintf("drover %s %s, or drover abort %s", release.Finisher(r.Release.State), v.stackArgs(), v.stackArgs())
	}
	return nextCommand(r.Result)
}

// counts returns the number of services of each outcome.
func counts(r rollout.Result) string {
	var parts []string
	for _, o := range []rollout.Outcome{
		rollout.Deployed, rollout.Unchanged, rollout.Failed, rollout.FailedReverted, rollout.AwaitPromotion,
		rollout.Superseded, rollout.PlacementFailed, rollout.TimedOut, rollout.Unreachable, rollout.Cancelled, rollout.Skipped,
	} {
		if n := r.Count(o); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, o))
		}
	}
	return strings.Join(parts, ", ")
}

// nextCommand returns the most helpful command after an outcome.
func nextCommand(r rollout.Result) string {
	for _, s := range r.Services {
		if s.Outcome != r.Outcome() {
			continue
		}
		switch s.Outcome {
		case rollout.Failed, rollout.FailedReverted, rollout.TimedOut, rollout.Superseded:
			return "nomad job status " + s.JobID
		case rollout.AwaitPromotion:
			return "nomad deployment promote " + s.DeploymentID
		case rollout.PlacementFailed:
			return "nomad node status"
		}
	}
	return ""
}

// printFailure writes the events, logs and checks of a failed service.
func printFailure(w io.Writer, r rollout.ServiceResult) {
	fmt.Fprintf(w, "\n%s (job %s) %s: %s\n", r.Name(), r.JobID, r.Outcome, r.Detail)
	f := r.Failure
	for _, t := range f.Tasks {
		fmt.Fprintf(w, "  task %s, allocation %s", t.Task, t.AllocID[:8])
		if t.Node != "" {
			fmt.Fprintf(w, " on %s", t.Node)
		}
		if t.Count > 1 {
			fmt.Fprintf(w, " (and %d more alike)", t.Count-1)
		}
		fmt.Fprintf(w, "\n    %s: %s\n", t.Event, indent(t.Message, "      "))
		if len(t.Logs) > 0 {
			fmt.Fprintf(w, "    last lines of %s:\n", t.LogType)
			for _, l := range t.Logs {
				fmt.Fprintf(w, "      %s\n", l)
			}
		}
	}
	for _, c := range f.Checks {
		if c.Check == "" {
			fmt.Fprintf(w, "  service %s of allocation %.8s is not in Consul\n", c.Service, c.AllocID)
			continue
		}
		fmt.Fprintf(w, "  check %q of %s is %s\n", c.Check, c.Service, c.Status)
		if c.Output != "" {
			fmt.Fprintf(w, "    %s\n", indent(c.Output, "    "))
		}
	}
	for _, p := range f.Placement {
		fmt.Fprintf(w, "  %s\n", p)
	}
	fmt.Fprintln(w)
}

// counts shows which counts of a changed job differ from those of the stack or
// replace one to which a group was scaled, and which allocations stop early.
func (v *View) counts(c rollout.Change) {
	if c.Action == rollout.ActionNone {
		return
	}
	name := render.Job{Service: c.Service, Target: c.Target}.Name()
	for _, k := range c.Kept {
		v.line("%s: %s", name, k)
	}
	for _, r := range c.Replaced {
		v.line("%s: %s", name, r)
	}
	for _, g := range c.Groups {
		if w := g.EarlyStop(); w != "" {
			v.line("%s: warning: %s", name, w)
		}
	}
}
