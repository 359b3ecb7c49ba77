package nomad

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/drover-nomad/drover/importer"
)

// tokenKind is the kind of a token of HCL1 or HCL2.
type tokenKind int

const (
	tokIdent tokenKind = iota
	tokNumber
	tokString  // with its quotes
	tokHeredoc // from << to the end of the line of its marker, without that line's end
	tokPunct
	tokNewline
	tokComment
	tokEOF
)

type token struct {
	kind      tokenKind
	text      string
	line, col int
	gap       string // blanks before it
}

// is reports whether t is this punctuation.
func (t token) is(text string) bool { return t.kind == tokPunct && t.text == text }

// lexer splits a text into tokens of both versions of HCL.
type lexer struct {
	file      string
	text      string
	at        int
	line, col int
}

func (x *lexer) fail(line, col int, format string, args ...any) error {
	return &importer.SyntaxError{Position: importer.Position{File: x.file, Line: line, Column: col}, Message: fmt.Sprintf(format, args...)}
}

// take moves on by n bytes and returns them.
func (x *lexer) take(n int) string {
	s := x.text[x.at : x.at+n]
	x.at += n
	if lines := strings.Count(s, "\n"); lines > 0 {
		x.line += lines
		x.col = 1 + utf8.RuneCountInString(s[strings.LastIndexByte(s, '\n')+1:])
	} else {
		x.col += utf8.RuneCountInString(s)
	}
	return s
}

func (x *lexer) rest() string { return x.text[x.at:] }

func tokenize(file, text string) ([]token, error) {
	if !utf8.ValidString(text) {
		return nil, &importer.SyntaxError{Position: importer.Position{File: file, Line: 1}, Message: "the file is not UTF-8 text"}
	}
	text = strings.ReplaceAll(strings.TrimPrefix(text, "\ufeff"), "\r\n", "\n")
	x := &lexer{file: file, text: text, line: 1, col: 1}
	var all []token
	for {
		blanks := len(x.rest()) - len(strings.TrimLeft(x.rest(), " \t\r"))
		gap := x.take(blanks)
		t := token{line: x.line, col: x.col, gap: gap}
		if x.at == len(x.text) {
			t.kind = tokEOF
			return append(all, t), nil
		}
		n, kind, err := x.scan()
		if err != nil {
			return nil, err
		}
		t.kind, t.text = kind, x.take(n)
		all = append(all, t)
	}
}

// scan returns the length and the kind of the next token.
func (x *lexer) scan() (int, tokenKind, error) {
	rest := x.rest()
	first, _ := utf8.DecodeRuneInString(rest)
	switch {
	case first == '\n':
		return 1, tokNewline, nil
	case first == '#', strings.HasPrefix(rest, "//"):
		if end := strings.IndexByte(rest, '\n'); end >= 0 {
			return end, tokComment, nil
		}
		return len(rest), tokComment, nil
	case strings.HasPrefix(rest, "/*"):
		end := strings.Index(rest[2:], "*/")
		if end < 0 {
			return 0, 0, x.fail(x.line, x.col, "the comment has no end: */ is missing")
		}
		return end + 4, tokComment, nil
	case first == '"':
		n, err := x.quoted(rest)
		return n, tokString, err
	case strings.HasPrefix(rest, "<<"):
		n, err := x.heredoc(rest)
		return n, tokHeredoc, err
	case first == '_' || unicode.IsLetter(first):
		return span(rest, func(r rune) bool {
			return r == '_' || r == '-' || r == '.' || unicode.IsLetter(r) || unicode.IsDigit(r)
		}), tokIdent, nil
	case first >= '0' && first <= '9', first == '-' && len(rest) > 1 && rest[1] >= '0' && rest[1] <= '9':
		n := 1 + span(rest[1:], func(r rune) bool { return r == '.' || r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r)) })
		if s := rest[:n]; n < len(rest)-1 && (s[n-1] == 'e' || s[n-1] == 'E') && !strings.HasPrefix(s, "0x") && (rest[n] == '-' || rest[n] == '+') {
			n += 1 + span(rest[n+1:], unicode.IsDigit)
		}
		return n, tokNumber, nil
	}
	return utf8.RuneLen(first), tokPunct, nil
}

func span(s string, ok func(rune) bool) int {
	for i, r := range s {
		if !ok(r) {
			return i
		}
	}
	return len(s)
}

// quoted returns the length of the string literal at the beginning of s. Between ${
// and }, quotes do not end it.
func (x *lexer) quoted(s string) (int, error) {
	braces, from := 0, 0
	for i := 1; i < len(s); i++ {
		if braces == 0 {
			from = i
		} else if i-from > maxTemplate {
			return 0, x.fail(x.line, x.col, "${ has no } within %d bytes", maxTemplate)
		}
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
		case c == '"' && braces == 0:
			return i + 1, nil
		case c == '\n' && braces == 0:
			return 0, x.fail(x.line, x.col, "the string has no end: a quote is missing in its line")
		case (c == '$' || c == '%' && braces > 0) && i+1 < len(s) && s[i+1] == '{':
			braces++
			i++
		case c == '{' && braces > 0:
			braces++
		case c == '}' && braces > 0:
			braces--
		}
	}
	return 0, x.fail(x.line, x.col, "the string has no end: a quote or a } is missing")
}

// heredoc returns the length of the heredoc at the beginning of s.
func (x *lexer) heredoc(s string) (int, error) {
	head, _, _ := strings.Cut(s, "\n")
	marker := strings.TrimSpace(strings.TrimPrefix(head[2:], "-"))
	if marker == "" {
		return 0, x.fail(x.line, x.col, "a heredoc needs a marker behind <<")
	}
	for i := len(head) + 1; i < len(s); {
		line, _, _ := strings.Cut(s[i:], "\n")
		if strings.TrimSpace(line) == marker {
			if longTemplate(s[:i]) {
				return 0, x.fail(x.line, x.col, "${ has no } within %d bytes", maxTemplate)
			}
			return i + len(line), nil
		}
		i += len(line) + 1
	}
	return 0, x.fail(x.line, x.col, "the heredoc has no end: a line with only %s is missing", marker)
}

// longTemplate reports whether a heredoc has a ${ or a %{ without a } soon after it.
func longTemplate(s string) bool {
	depth, from := 0, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case (c == '$' || c == '%') && i+1 < len(s) && s[i+1] == '{':
			if depth == 0 {
				from = i
			}
			depth++
			i++
		case c == '{' && depth > 0:
			depth++
		case c == '}' && depth > 0:
			depth--
		}
		if depth > 0 && i-from > maxTemplate {
			return true
		}
	}
	return false
}

// expr is the value of an attribute, as tokens of the input.
type expr struct{ tokens []token }

// item is an attribute or a block.
type item struct {
	lead  []token // comments before it
	trail []token // comments behind it in its line
	blank bool    // an empty line is before it

	name   token
	labels []token // of a block
	value  *expr   // of an attribute
	body   *body   // of a block, or of an attribute whose value is an object
	assign bool    // body is assigned by =
	opened []token // comments behind the opening brace
}

// body is the content of a file, a block or an object.
type body struct {
	items []*item
	tail  []token // comments before the end
}

// key returns the name without quotes.
func (i *item) key() string { return plain(i.name) }

// label returns the label of index n without quotes, "" if there is none.
func (i *item) label(n int) string {
	if n >= len(i.labels) {
		return ""
	}
	return plain(i.labels[n])
}

func plain(t token) string {
	if t.kind == tokString {
		return t.text[1 : len(t.text)-1]
	}
	return t.text
}

// parser makes a tree of tokens. It reads HCL1 and HCL2.
type parser struct {
	file   string
	tokens []token
	at     int
	depth  int
	commas []token // between attributes, which HCL2 does not allow
	lines  []token // = and { that are not in the line of their name, as HCL2 wants them
}

// Bounds of what HCL2's parser is given, which is recursive: Go ends the process if its
// stack overflows.
const (
	maxDepth    = 200
	maxExpr     = 2000   // terms of an expression outside lists and objects
	maxTemplate = 10_000 // bytes between ${ and }
)

// parse reads a file.
func parse(file, text string) (*parser, *body, error) {
	tokens, err := tokenize(file, text)
	if err != nil {
		return nil, nil, err
	}
	p := &parser{file: file, tokens: tokens}
	b, err := p.body()
	if err != nil {
		return nil, nil, err
	}
	if t := p.peek(); t.kind != tokEOF {
		return nil, nil, p.fail(t, "a } too many")
	}
	return p, b, nil
}

func (p *parser) fail(t token, format string, args ...any) error {
	return &importer.SyntaxError{Position: importer.Position{File: p.file, Line: t.line, Column: t.col}, Message: fmt.Sprintf(format, args...)}
}

func (p *parser) peek() token { return p.tokens[p.at] }

func (p *parser) next() token {
	t := p.tokens[p.at]
	if t.kind != tokEOF {
		p.at++
	}
	return t
}

// body reads items to a } or the end of the file, which it does not take.
func (p *parser) body() (*body, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.fail(p.peek(), "blocks are nested more than %d deep", maxDepth)
	}
	defer func() { p.depth-- }()
	b := &body{}
	var lead []token
	newlines := 0
	for {
		t := p.peek()
		switch {
		case t.kind == tokNewline:
			newlines++
			p.next()
		case t.kind == tokComment:
			p.next()
			t.gap = ""
			if newlines > 1 {
				t.gap = "\n" // an empty line is before it
			}
			lead = append(lead, t)
			newlines = 0
		case t.is(","):
			if len(b.items) == 0 {
				return nil, p.fail(t, "an attribute or a block is expected, not a comma")
			}
			p.commas = append(p.commas, p.next())
			last := b.items[len(b.items)-1]
			if c := p.peek(); c.kind == tokComment && c.line == t.line {
				last.trail = append(last.trail, p.next())
			}
		case t.kind == tokEOF, t.is("}"):
			b.tail = lead
			return b, nil
		default:
			i, err := p.item(lead)
			if err != nil {
				return nil, err
			}
			i.blank = newlines > 1
			b.items = append(b.items, i)
			lead, newlines = nil, 0
		}
	}
}

func (p *parser) item(lead []token) (*item, error) {
	i := &item{lead: lead}
	var keys []token
	for {
		switch t := p.peek(); {
		case t.kind == tokIdent, t.kind == tokString:
			keys = append(keys, p.next())
			continue
		case t.kind == tokComment && len(keys) > 0:
			i.lead = append(i.lead, p.next())
			continue
		case t.kind == tokNewline && len(keys) > 0 && p.continues():
			for p.peek().kind == tokNewline {
				p.next()
			}
			p.lines = append(p.lines, p.peek())
			continue
		}
		break
	}
	if len(keys) == 0 {
		return nil, p.fail(p.peek(), "the name of an attribute or of a block is expected, not %s", describe(p.peek()))
	}
	i.name, i.labels = keys[0], keys[1:]
	switch t := p.peek(); {
	case t.is("{"):
		if err := p.braces(i); err != nil {
			return nil, err
		}
	case t.is("="):
		p.next()
		for p.peek().kind == tokComment || p.peek().kind == tokNewline {
			if c := p.next(); c.kind == tokComment {
				i.lead = append(i.lead, c)
			}
		}
		if err := p.assigned(i); err != nil {
			return nil, err
		}
		if len(i.labels) > 0 && i.body == nil {
			return nil, p.fail(i.labels[0], "an attribute has one name, and here is another: %s", i.labels[0].text)
		}
	default:
		return nil, p.fail(t, "= or { is expected behind %s, not %s", keys[len(keys)-1].text, describe(t))
	}
	end := p.tokens[p.at-1]
	for c := p.peek(); c.kind == tokComment && c.line == end.line+strings.Count(end.text, "\n"); c = p.peek() {
		i.trail = append(i.trail, p.next())
	}
	return i, nil
}

// continues reports whether = or { follows after ends of lines.
func (p *parser) continues() bool {
	for _, t := range p.tokens[p.at:] {
		if t.kind != tokNewline {
			return t.is("{") || t.is("=")
		}
	}
	return false
}

// braces reads the body of a block with its braces.
func (p *parser) braces(i *item) error {
	open := p.next()
	for c := p.peek(); c.kind == tokComment && c.line == open.line; c = p.peek() {
		i.opened = append(i.opened, p.next())
	}
	var err error
	if i.body, err = p.body(); err != nil {
		return err
	}
	if !p.peek().is("}") {
		return p.fail(open, "the block %s has no end: a } is missing", i.name.text)
	}
	p.next()
	return nil
}

// assigned reads the value of an attribute. An object is read as a body if it has the
// syntax of one.
func (p *parser) assigned(i *item) error {
	if p.peek().is("{") {
		at, commas := p.at, len(p.commas)
		i.assign = true
		if err := p.braces(i); err == nil && (p.ends() || p.peek().kind == tokIdent || p.peek().kind == tokString) {
			return nil
		}
		p.at, p.commas = at, p.commas[:commas]
		i.body, i.opened, i.assign = nil, nil, false
	}
	var err error
	i.value, err = p.expr()
	return err
}

// ends reports whether the next token ends a value.
func (p *parser) ends() bool {
	t := p.peek()
	return t.kind == tokNewline || t.kind == tokEOF || t.kind == tokComment || t.is("}") || t.is(",")
}

// expr reads a value. A literal or a list ends before a name in its line, as in HCL1;
// anything else ends with its line, as in HCL2.
func (p *parser) expr() (*expr, error) {
	e := &expr{}
	first := p.peek()
	if p.ends() {
		return nil, p.fail(first, "a value is expected behind =, not %s", describe(first))
	}
	literal := first.kind == tokString || first.kind == tokNumber || first.kind == tokHeredoc || first.is("[") ||
		first.kind == tokIdent && (first.text == "true" || first.text == "false")
	if p.template(first) {
		return nil, p.fail(first, "the file is a template: a value begins with %s", first.text)
	}
	for {
		switch t := p.peek(); {
		case p.ends():
			return e, nil
		case t.is("["), t.is("{"), t.is("("):
			if err := p.nested(e); err != nil {
				return nil, err
			}
		case literal && len(e.tokens) > 0 && (t.kind == tokIdent && !strings.HasPrefix(t.text, ".") || t.kind == tokString):
			return e, nil
		case t.is("]"), t.is(")"):
			return nil, p.fail(t, "%s closes nothing", t.text)
		case len(e.tokens) > maxExpr && !literal:
			return nil, p.fail(t, "the expression has more than %d terms", maxExpr)
		default:
			e.tokens = append(e.tokens, p.next())
		}
	}
}

// template reports whether a value that begins with t is a placeholder of a template.
func (p *parser) template(t token) bool {
	if t.is("$") || t.is("<") {
		return true
	}
	if !t.is("[") && !t.is("{") || p.at+2 >= len(p.tokens) {
		return false
	}
	second, third := p.tokens[p.at+1], p.tokens[p.at+2]
	return second.text == t.text && second.gap == "" && (t.is("{") || third.is(".") || third.is("$"))
}

// nested adds the tokens from an opening bracket to its end.
func (p *parser) nested(e *expr) error {
	var open []token
	run := 0 // of operators
	for {
		t := p.next()
		if t.kind == tokEOF {
			return p.fail(open[0], "%s is not closed", open[0].text)
		}
		if t.is("!") || t.is("-") || t.is("?") || t.is(":") {
			if run++; run > maxExpr {
				return p.fail(t, "the expression has more than %d operators", maxExpr)
			}
		}
		e.tokens = append(e.tokens, t)
		switch {
		case t.is("["), t.is("{"), t.is("("):
			open = append(open, t)
		case t.is("]"), t.is("}"), t.is(")"):
			last := open[len(open)-1]
			if pair := last.text + t.text; pair != "[]" && pair != "{}" && pair != "()" {
				return p.fail(t, "%s does not close the %s of line %d", t.text, last.text, last.line)
			}
			if open = open[:len(open)-1]; len(open) == 0 {
				return nil
			}
		}
		if len(open) > maxDepth {
			return p.fail(t, "brackets are nested more than %d deep", maxDepth)
		}
	}
}

func describe(t token) string {
	switch t.kind {
	case tokEOF:
		return "the end of the file"
	case tokNewline:
		return "the end of the line"
	}
	if len(t.text) > 40 {
		return t.text[:strings.LastIndexFunc(t.text[:40], func(r rune) bool { return r < utf8.RuneSelf })] + "…"
	}
	return t.text
}

// blocks returns the blocks of this name, also those assigned by =.
func (b *body) blocks(name string) []*item {
	var out []*item
	for _, i := range b.items {
		if i.body != nil && i.key() == name {
			out = append(out, i)
		}
	}
	return out
}

// block returns the first block of this name, nil if there is none.
func (b *body) block(name string) *item {
	if all := b.blocks(name); len(all) > 0 {
		return all[0]
	}
	return nil
}

// attr returns the attribute of this name, nil if there is none.
func (b *body) attr(name string) *item {
	for _, i := range b.items {
		if i.value != nil && i.key() == name {
			return i
		}
	}
	return nil
}

// remove takes an item out. The comments above it stay.
func (b *body) remove(gone *item) {
	at := slices.Index(b.items, gone)
	if at < 0 {
		return
	}
	if at+1 < len(b.items) {
		b.items[at+1].lead = append(slices.Clone(gone.lead), b.items[at+1].lead...)
		b.items[at+1].blank = b.items[at+1].blank || gone.blank
	} else {
		b.tail = append(slices.Clone(gone.lead), b.tail...)
	}
	b.items = slices.Delete(b.items, at, at+1)
}

// insert puts items before the first block of name, or at the end.
func (b *body) insert(before string, all ...*item) {
	at := slices.IndexFunc(b.items, func(i *item) bool { return i.body != nil && i.key() == before })
	if at < 0 {
		at = len(b.items)
	}
	b.items = slices.Insert(b.items, at, all...)
}

// walk calls do for each item below b, from the outside.
func (b *body) walk(do func(*item)) {
	for _, i := range b.items {
		do(i)
		if i.body != nil {
			i.body.walk(do)
		}
	}
}

// text returns the value of a string literal, if e is one.
func (e *expr) text() (string, bool) {
	if e == nil || len(e.tokens) != 1 || e.tokens[0].kind != tokString {
		return "", false
	}
	return unquote(e.tokens[0].text), true
}

// scalar returns the value of a string, a number or a bool.
func (e *expr) scalar() (string, bool) {
	if s, ok := e.text(); ok {
		return s, true
	}
	if e == nil || len(e.tokens) != 1 || e.tokens[0].kind == tokHeredoc {
		return "", false
	}
	return e.tokens[0].text, true
}

// literal is an expression with this text, at the place of t.
func literal(t token, text string) *expr {
	kind := tokNumber
	if strings.HasPrefix(text, `"`) {
		kind = tokString
	}
	return &expr{tokens: []token{{kind: kind, text: text, line: t.line, col: t.col}}}
}

// unquote resolves the escapes of a quoted string.
func unquote(s string) string {
	s = s[1 : len(s)-1]
	if !strings.Contains(s, `\`) {
		return s
	}
	return strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\n`, "\n", `\t`, "\t", `\r`, "\r").Replace(s)
}
