// Package nomad reads job files of Nomad 0.1 to 0.12, which are in HCL1 or JSON, and
// rewrites them for today's Nomad: HCL2, with their comments.
package nomad

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/nomad/jobspec2"

	"github.com/drover-nomad/drover/importer"
)

// Change is something that Upgrade wrote differently. It means the same to today's
// Nomad as the input to the Nomad of its time.
type Change struct {
	importer.Position
	Message string `json:"message"`
}

// String returns "FILE:LINE: MESSAGE".
func (c Change) String() string { return c.Position.String() + ": " + c.Message }

// Upgrade rewrites a job file for today's Nomad. It records mistakes and differences
// in behaviour in the ledger. The text is returned as it is if there is
// nothing to change. The result is not used if the ledger has a refusal.
func Upgrade(name string, text []byte, l *importer.Ledger) ([]byte, []Change) {
	return (&upgrader{file: name, ledger: l}).upgrade(text)
}

func (u *upgrader) upgrade(text []byte) ([]byte, []Change) {
	name := u.file
	p, b, err := parse(name, string(text))
	if err != nil {
		u.syntaxError(err, text)
		return nil, nil
	}
	_, diags := hclsyntax.ParseConfig(text, name, hcl.InitialPos)
	u.broken = diags.HasErrors()
	if u.broken {
		u.syntax(p, b)
	}
	u.fields(b)
	out := text
	if len(u.changes) > 0 {
		var source []int
		out, source = print(b)
		u.check(out, source)
	} else {
		u.check(out, nil)
	}
	slices.SortStableFunc(u.changes, func(a, b Change) int { return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column)) })
	return out, u.changes
}

// upgrader rewrites one file.
type upgrader struct {
	file    string
	ledger  *importer.Ledger
	broken  bool   // the file is no HCL2
	old     bool   // the file is for Nomad before 0.12
	kind    string // type of the job
	whole   bool   // the file is a whole job, and no layer under others
	changes []Change
	// model receives what a whole job needs of the stack; nil for Upgrade.
	model   *importer.Model
	secrets []string // of the job
}

func (u *upgrader) pos(t token) importer.Position {
	return importer.Position{File: u.file, Line: t.line, Column: t.col}
}

func (u *upgrader) change(t token, format string, args ...any) {
	c := Change{u.pos(t), fmt.Sprintf(format, args...)}
	if !slices.Contains(u.changes, c) {
		u.changes = append(u.changes, c)
	}
}

func (u *upgrader) warn(t token, rule, message, remedy string) {
	u.ledger.Warn(u.pos(t), rule, message, remedy)
}

func (u *upgrader) refuse(t token, message, remedy string) {
	u.ledger.Refuse(u.pos(t), importer.RuleInvalid, message, remedy)
}

const renderFirst = "Render the template first, with the values that it needs, and give the result."

// syntaxError refuses the file, with another remedy if it is a template.
func (u *upgrader) syntaxError(err error, text []byte) {
	var syntax *importer.SyntaxError
	if !errors.As(err, &syntax) {
		syntax = &importer.SyntaxError{Position: importer.Position{File: u.file, Line: 1}, Message: err.Error()}
	}
	remedy := "Correct the file: Nomad never accepted it."
	if templated.Match(text) {
		remedy = renderFirst
	}
	u.ledger.Refuse(syntax.Position, importer.RuleInvalid, syntax.Message, remedy)
}

// templated matches what only templates of Terraform, Levant and the like have.
var templated = regexp.MustCompile(`=\s*\$\{|\\\$\$?\{|=\s*\[\[\s*[.$]|\[\[\s*(if|range|end|\.)|(?m)^\s*\{\{|=\s*\{\{|=\s*<%`)

// check has Nomad's parser read the result, and refuses what it refuses. source is the
// line of the input for each line of text, nil if they are equal. A file with variables
// is checked only for its syntax: their values are elsewhere.
func (u *upgrader) check(text []byte, source []int) {
	if u.ledger.Refused() {
		return
	}
	position := func(r *hcl.Range) importer.Position {
		at := importer.Position{File: u.file}
		if r == nil || r.Start.Line == 0 {
			return at
		}
		if at.Line = r.Start.Line; source != nil {
			at.Line = source[min(at.Line, len(source))-1]
		}
		return at
	}
	_, diags := hclsyntax.ParseConfig(text, u.file, hcl.InitialPos)
	var err error
	if !diags.HasErrors() && !usesVariables(text) {
		err = evaluate(u.file, text)
		if !errors.As(err, &diags) && err != nil {
			u.refuseMessage(err, position)
			return
		}
	}
	for _, d := range diags {
		if d.Severity == hcl.DiagError {
			u.ledger.Refuse(position(d.Subject), importer.RuleInvalid, fmt.Sprintf("%s: %s", strings.TrimSuffix(d.Summary, "."), strings.TrimSuffix(d.Detail, ".")), "Correct it in the input.")
		}
	}
}

var inMessage = regexp.MustCompile(`:(\d+),\d+-\d+(?:,\d+)?: (.*)`)

// refuseMessage refuses with an error of Nomad's parser that is only text.
func (u *upgrader) refuseMessage(err error, position func(*hcl.Range) importer.Position) {
	at, message := importer.Position{File: u.file, Line: 1}, strings.TrimSpace(err.Error())
	if m := inMessage.FindStringSubmatch(message); m != nil {
		line := 0
		_, _ = fmt.Sscan(m[1], &line)
		at, message = position(&hcl.Range{Start: hcl.Pos{Line: line}}), m[2]
	}
	u.ledger.Refuse(at, importer.RuleInvalid, message, "Correct it in the input.")
}

var variables = regexp.MustCompile(`(?m)^\s*(variables?|locals)\b|\b(var|local|each|drover)\.[a-zA-Z_]`)

func usesVariables(text []byte) bool { return variables.Match(text) }

// evaluate calls jobspec2, and returns its panics on odd input as errors.
func evaluate(file string, text []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("cannot parse the job: %v", p)
		}
	}()
	_, err = jobspec2.ParseWithConfig(&jobspec2.ParseConfig{Path: file, Body: text, Strict: true})
	return err
}

// syntax turns the syntax of HCL1 into that of HCL2.
func (u *upgrader) syntax(p *parser, b *body) {
	u.old = true
	for _, c := range p.commas {
		u.change(c, "the comma between two arguments is a new line")
	}
	for _, t := range p.lines {
		u.change(t, "%s is in the line of its name", t.text)
	}
	b.walk(func(i *item) {
		if i.body != nil && len(i.body.items) > 0 && i.body.items[0].name.line == i.name.line && !i.assign &&
			(len(i.body.items) > 1 || i.body.items[0].body != nil) {
			u.change(i.name, "%s is written on several lines", i.key())
		}
		if i.name.kind == tokString && hclsyntax.ValidIdentifier(i.key()) && !i.assign {
			u.change(i.name, "the name %s has no quotes", i.key())
		}
		if i.body != nil && !i.assign && len(i.labels) == 0 && freeForm(i.key()) && !slices.ContainsFunc(i.body.items, func(c *item) bool { return c.body != nil }) &&
			slices.ContainsFunc(i.body.items, func(c *item) bool { return !hclsyntax.ValidIdentifier(c.key()) }) {
			i.assign = true
			u.change(i.name, "%s is an attribute, because not all of its keys are identifiers", i.key())
		}
		if i.value != nil {
			u.separate(i.value)
			for n := range i.value.tokens {
				u.oldToken(&i.value.tokens[n])
			}
		}
	})
}

// separate writes the commas between the attributes of objects in one line, which HCL1
// does not need.
func (u *upgrader) separate(e *expr) {
	var open, out []token
	for n, t := range e.tokens {
		object := len(open) > 0 && open[len(open)-1].is("{")
		if object && n+1 < len(e.tokens) && e.tokens[n+1].is("=") && (t.kind == tokIdent || t.kind == tokString) {
			if last := e.tokens[n-1]; last.kind != tokNewline && last.kind != tokComment && !last.is("{") && !last.is(",") {
				out = append(out, token{kind: tokPunct, text: ",", line: last.line, col: last.col})
				u.change(t, "a comma is before %s", t.text)
			}
		}
		switch {
		case t.is("["), t.is("{"), t.is("("):
			open = append(open, t)
		case (t.is("]") || t.is("}") || t.is(")")) && len(open) > 0:
			open = open[:len(open)-1]
		}
		out = append(out, t)
	}
	e.tokens = out
}

// freeForm reports whether the keys of a block are names of the operator.
func freeForm(name string) bool {
	return slices.Contains([]string{"env", "meta", "labels", "port_map", "sysctl", "ulimit", "storage_opt", "config", "header"}, name)
}

var (
	quotedKey  = regexp.MustCompile(`\$\{(attr|meta|node|env)((?:\.[\w-]+)*)\.?(?:\[)?"([\w.-]+)"\]?((?:\.[\w-]+)*)\}`)
	traversal  = regexp.MustCompile(`^[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*$`)
	sequence   = regexp.MustCompile(`\$\{[^}]*\}?`)
	oddEscape  = regexp.MustCompile(`\\(x[0-9a-fA-F]{2}|[0-7]{3}|.)`)
	oldNumber  = regexp.MustCompile(`^-?0[0-7]+$`)
	hexNumber  = regexp.MustCompile(`^-?0[xX][0-9a-fA-F]+$`)
	oldNomad   = regexp.MustCompile(`(^|[^$\w])\$((?:attr|node|meta)\.[\w.-]*\w)`)
	oldRuntime = regexp.MustCompile(`(^|[^$\w])\$(NOMAD_\w+)`)
)

// oldToken rewrites a literal of HCL1 that HCL2 reads otherwise.
func (u *upgrader) oldToken(t *token) {
	before := t.text
	switch t.kind {
	case tokNumber:
		if oldNumber.MatchString(t.text) || hexNumber.MatchString(t.text) {
			n := int64(0)
			text := t.text
			if oldNumber.MatchString(text) {
				text = strings.Replace(text, "0", "0o", 1)
			}
			if _, err := fmt.Sscan(text, &n); err == nil {
				t.text = fmt.Sprint(n)
				u.change(*t, "%s is %s, as HCL1 reads it", before, t.text)
			}
		}
		return
	case tokString:
		t.text = quotedKey.ReplaceAllStringFunc(t.text, plainKey)
		t.text = escapes(t.text)
	case tokHeredoc:
		t.text = quotedKey.ReplaceAllStringFunc(dedent(t.text), plainKey)
	default:
		return
	}
	t.text = sequence.ReplaceAllStringFunc(t.text, func(s string) string {
		if traversal.MatchString(strings.TrimSuffix(s[2:], "}")) && strings.HasSuffix(s, "}") {
			return s
		}
		return "$" + s
	})
	t.text = strings.ReplaceAll(t.text, "$$${", "$${")
	t.text = strings.ReplaceAll(strings.ReplaceAll(t.text, "%{", "%%{"), "%%%{", "%%{")
	if t.text != before {
		u.change(*t, "the text is written for HCL2")
	}
}

// plainKey writes ${attr."a"} and ${env["X"]} as today's Nomad does.
func plainKey(s string) string {
	m := quotedKey.FindStringSubmatch(s)
	if m[1] == "env" {
		return "${" + m[3] + "}"
	}
	return "${" + m[1] + m[2] + "." + m[3] + m[4] + "}"
}

// escapes writes the escapes of HCL1 that HCL2 does not have.
func escapes(s string) string {
	return oddEscape.ReplaceAllStringFunc(s, func(e string) string {
		switch e[1] {
		case 'n', 't', 'r', '"', '\\', 'u', 'U':
			return e
		case 'a':
			return `\u0007`
		case 'b':
			return `\u0008`
		case 'f':
			return `\u000c`
		case 'v':
			return `\u000b`
		case 'x':
			if len(e) == 4 {
				return `\u00` + e[2:]
			}
		}
		n := 0
		if len(e) == 4 {
			if _, err := fmt.Sscanf(e[1:], "%o", &n); err == nil {
				return fmt.Sprintf(`\u%04x`, n)
			}
		}
		return e
	})
}

// dedent writes a heredoc of <<- without its indentation if HCL1 and HCL2 remove
// another one: HCL1 removes that of the marker, and only if all lines have it; HCL2
// removes what all lines have.
func dedent(s string) string {
	lines := strings.Split(s, "\n")
	if !strings.HasPrefix(s, "<<-") || len(lines) < 3 {
		return s
	}
	blanks := func(l string) string { return l[:len(l)-len(strings.TrimLeft(l, " \t"))] }
	content := lines[1 : len(lines)-1]
	marker := blanks(lines[len(lines)-1])
	one, two := len(marker), -1
	for _, l := range content {
		if !strings.HasPrefix(l, marker) {
			one = 0
		}
		if strings.TrimSpace(l) != "" && (two < 0 || len(blanks(l)) < two) {
			two = len(blanks(l))
		}
	}
	if one == max(two, 0) {
		return s
	}
	for n, l := range content {
		content[n] = l[one:]
	}
	return "<<" + strings.TrimPrefix(lines[0], "<<-") + "\n" + strings.Join(append(content, strings.TrimSpace(lines[len(lines)-1])), "\n")
}
