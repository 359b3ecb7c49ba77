// Package lint finds what can be known to be wrong with a stack without
// asking Nomad: mistakes that a rollout would only show when it fails.
package lint

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/hashicorp/hcl/v2"

	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// Severity of a finding.
type Severity string

// Severities. An error breaks something; a warning may be meant.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Finding is one thing that is wrong, where, and how to remedy it.
type Finding struct {
	File     string   `json:"file"`
	Line     int      `json:"line"`
	Column   int      `json:"column"`
	Severity Severity `json:"severity"`
	Rule     string   `json:"rule"`
	Message  string   `json:"message"`
	Mend     string   `json:"remedy"`
	// Services are those that the place concerns: many, when it is in a
	// layer that they share.
	Services []string `json:"services"`
}

// Rule is one thing that lint looks for.
type Rule struct {
	Name     string
	Severity Severity
	Why      string // one sentence, as in docs/reference/lint.md

	job   func(*subject)             // looks at one job
	stack func([]*subject, reporter) // looks at all of them
}

type reporter func(s *subject, at hcl.Range, message, remedy string)

// subject is one job under inspection.
type subject struct {
	render.Job
	syntax func() *render.Source // parses the job at the first call
	report func(at hcl.Range, message, remedy string)
}

func newSubject(j render.Job) *subject { return &subject{Job: j, syntax: sync.OnceValue(j.Source)} }

// at is where a path of blocks was written.
func (s *subject) at(path ...string) hcl.Range {
	source := s.syntax()
	if source == nil {
		return hcl.Range{Filename: s.File, Start: hcl.InitialPos, End: hcl.InitialPos}
	}
	return source.Find(path...)
}

// Stack inspects the jobs of a stack. Rules named in disable are left out.
func Stack(ctx context.Context, jobs []render.Job, disable []string) ([]Finding, error) {
	var all []*subject
	for _, j := range jobs {
		all = append(all, newSubject(j))
	}
	l := &list{}
	for _, r := range Rules() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if slices.Contains(disable, r.Name) {
			continue
		}
		report := func(s *subject, at hcl.Range, message, remedy string) { l.add(r, s.Service, at, message, remedy) }
		if r.stack != nil {
			r.stack(all, report)
		}
		if r.job != nil {
			for _, s := range all {
				s.report = func(at hcl.Range, message, remedy string) { report(s, at, message, remedy) }
				r.job(s)
			}
		}
	}
	return l.sorted(), nil
}

// FromError turns what loading or rendering a stack said into findings. It
// returns false for an error that is not about the stack's text, and for one of
// which disable leaves nothing: no rule has looked at such a stack, so it is not
// without findings.
func FromError(err error, disable []string) ([]Finding, bool) {
	var diags hcl.Diagnostics
	if !errors.As(err, &diags) {
		return nil, false
	}
	l := &list{}
	for _, d := range diags {
		name := "invalid"
		if code, ok := d.Extra.(stack.Code); ok {
			name = string(code)
		}
		if slices.Contains(disable, name) {
			continue
		}
		var at hcl.Range
		if d.Subject != nil {
			at = *d.Subject
		}
		l.add(Rule{Name: name, Severity: Error}, "", at, d.Summary, d.Detail)
	}
	return l.sorted(), len(l.findings) > 0
}

// list collects findings, one per rule, place and message.
type list struct{ findings []*Finding }

func (l *list) add(r Rule, service string, at hcl.Range, message, remedy string) {
	f := &Finding{File: at.Filename, Line: at.Start.Line, Column: at.Start.Column, Severity: r.Severity, Rule: r.Name, Message: message, Mend: remedy, Services: []string{}}
	for _, o := range l.findings {
		if o.Rule == f.Rule && o.File == f.File && o.Line == f.Line && o.Column == f.Column && o.Message == f.Message {
			f = o
			break
		}
	}
	if len(f.Services) == 0 {
		l.findings = append(l.findings, f)
	}
	if service != "" && !slices.Contains(f.Services, service) {
		f.Services = append(f.Services, service)
	}
}

func (l *list) sorted() []Finding {
	out := []Finding{}
	for _, f := range l.findings {
		out = append(out, *f)
	}
	slices.SortStableFunc(out, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Rule, b.Rule))
	})
	return out
}
