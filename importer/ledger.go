package importer

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Position is a place in an input file. Line and Column begin at 1; Line is 0 for
// a warning about a whole file. A refusal of a whole file is at its beginning.
type Position struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
}

// String returns FILE:LINE, the form in which findings name a place.
func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// Severity is what a finding means for the import.
type Severity string

// Severities of a finding.
const (
	Refusal Severity = "refusal"  // nothing is written
	Warning Severity = "warning"  // imported with a difference that the operator has to know
	LeftOut Severity = "left-out" // has no effect when the application runs
)

// Finding is what an import reports about one place of its input.
type Finding struct {
	Position
	Severity Severity `json:"severity"`
	Rule     string   `json:"rule"`
	Path     string   `json:"path,omitempty"` // of the value in its file: services.web.image
	Message  string   `json:"message"`
	Remedy   string   `json:"remedy,omitempty"`
}

// String returns "FILE:LINE: SEVERITY: MESSAGE (RULE); REMEDY".
func (f Finding) String() string {
	var b strings.Builder
	if f.File != "" {
		fmt.Fprintf(&b, "%s: ", f.Position)
	}
	fmt.Fprintf(&b, "%s: %s (%s)", f.Severity, f.Message, f.Rule)
	if f.Remedy != "" {
		b.WriteString("; " + f.Remedy)
	}
	return b.String()
}

// Counts are the values of an input, by what became of them. A value is a scalar or
// an empty list or map. Every value is in exactly one of the counts.
type Counts struct {
	Values   int `json:"values"`
	Mapped   int `json:"mapped"`
	LeftOut  int `json:"left_out"`
	Reported int `json:"reported"` // by a warning or a refusal at it or above it
}

// Ledger accounts for every value of an input. A reader takes each value that it
// uses, drops each that has no effect with a reason, and warns of or refuses the
// rest. Finish reports what nothing has touched.
type Ledger struct {
	allow    map[string]bool
	allowed  map[string]bool // rules of allow that a finding used
	roots    []*Node
	nodes    int
	aliased  int // nodes below YAML aliases
	keepLast bool
	findings []Finding
	seen     map[string]bool // findings, to report each once
	counts   Counts
}

// NewLedger returns a ledger that turns refusals of the rules in allow into
// warnings.
func NewLedger(allow []string) *Ledger {
	l := &Ledger{allow: map[string]bool{}, allowed: map[string]bool{}, seen: map[string]bool{}}
	for _, a := range allow {
		l.allow[a] = true
	}
	return l
}

// KeepLast makes YAML accept a map with a key that is there twice: the last one counts,
// and the others are reported.
func (l *Ledger) KeepLast() { l.keepLast = true }

// Warn records a difference at a place that belongs to no node.
func (l *Ledger) Warn(at Position, rule, message, remedy string) {
	l.add(Finding{Position: at, Severity: Warning, Rule: rule, Message: message, Remedy: remedy})
}

// Refuse records a refusal at a place that belongs to no node. If its rule is
// allowed, it records a warning and returns true.
func (l *Ledger) Refuse(at Position, rule, message, remedy string) bool {
	return l.refuse(Finding{Position: at, Rule: rule, Message: message, Remedy: remedy})
}

func (l *Ledger) refuse(f Finding) bool {
	f.Severity = Refusal
	if l.allow[f.Rule] && f.Rule != RuleInvalid {
		l.allowed[f.Rule] = true
		f.Severity = Warning
	}
	l.add(f)
	return f.Severity == Warning
}

// LeaveOut records what was left out, at a place that belongs to no node.
func (l *Ledger) LeaveOut(at Position, message string) {
	l.add(Finding{Position: at, Severity: LeftOut, Rule: RuleLeftOut, Message: message})
}

func (l *Ledger) add(f Finding) {
	if f.Severity == Refusal && f.Line == 0 && f.File != "" { // about the whole file
		f.Line, f.Column = 1, 1
	}
	key := string(f.Severity) + "\x00" + f.Position.String() + "\x00" + f.Rule + "\x00" + f.Path + "\x00" + f.Message
	if l.seen[key] {
		return
	}
	l.seen[key] = true
	l.findings = append(l.findings, f)
}

// Refused reports whether there is a refusal.
func (l *Ledger) Refused() bool {
	return slices.ContainsFunc(l.findings, func(f Finding) bool { return f.Severity == Refusal })
}

// Finish warns of each value that no reader has touched, at the highest node of
// which nothing was touched, and counts all values. Call it once, after the reader.
func (l *Ledger) Finish() {
	for _, root := range l.roots {
		l.finish(root)
	}
	order := map[Severity]int{Refusal: 0, Warning: 1, LeftOut: 2}
	slices.SortStableFunc(l.findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(order[a.Severity], order[b.Severity]), cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Message, b.Message))
	})
}

func (l *Ledger) finish(n *Node) {
	switch {
	case n.state != untouched:
		l.count(n, n.state)
	case n.leaf() || !n.touched():
		l.add(Finding{Position: n.At, Severity: Warning, Rule: RuleNotImported, Path: n.Path(),
			Message: fmt.Sprintf("%s is not imported", n.Path()), Remedy: "Add what it does to the job by hand, if it is needed."})
		l.count(n, reported)
	default:
		n.each(l.finish)
	}
}

// count adds the values at and below n. A node below may have a state of its own.
func (l *Ledger) count(n *Node, as state) {
	if n.state != untouched {
		as = n.state
	}
	if !n.leaf() {
		n.each(func(c *Node) { l.count(c, as) })
		return
	}
	l.counts.Values++
	switch as {
	case dropped:
		l.counts.LeftOut++
	case reported:
		l.counts.Reported++
	default:
		l.counts.Mapped++
	}
}

// Findings returns what was reported: refusals first, then by place.
func (l *Ledger) Findings() []Finding { return l.findings }

// Counts returns how many values were mapped, left out and reported. It is valid
// after Finish.
func (l *Ledger) Counts() Counts { return l.counts }
