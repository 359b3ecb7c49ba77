package importer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// Limits of an input. A reader that finds more refuses it.
const (
	MaxFile    = 16 << 20 // bytes of one file
	maxNodes   = 300_000
	maxAliased = 100_000 // of them below YAML aliases
	maxDepth   = 200
)

// state is what became of a node and of what is below it.
type state uint8

const (
	untouched state = iota
	taken
	dropped
	reported
)

// Kind is the kind of a node.
type Kind uint8

// Kinds of nodes.
const (
	Null Kind = iota
	Scalar
	List
	Map
)

// Node is a value of an input with its place. All methods accept a nil node, which
// stands for an absent value.
type Node struct {
	Kind Kind
	At   Position
	Key  string // below a map
	Tag  string // YAML's: !!str, !!int, !!bool, !!float, or one of the application's

	text     string
	index    int // below a list
	parent   *Node
	children []*Node
	state    state
	ledger   *Ledger
}

// Path returns the keys that lead to the node: services.web.ports[0].
func (n *Node) Path() string {
	if n == nil || n.parent == nil {
		return ""
	}
	if n.parent.Kind == List {
		return fmt.Sprintf("%s[%d]", n.parent.Path(), n.index)
	}
	key := n.Key
	if strings.ContainsAny(key, ". []") {
		key = strconv.Quote(key)
	}
	if up := n.parent.Path(); up != "" {
		return up + "." + key
	}
	return key
}

// Pos returns the place of the node, the zero Position for nil.
func (n *Node) Pos() Position {
	if n == nil {
		return Position{}
	}
	return n.At
}

func (n *Node) leaf() bool { return len(n.children) == 0 }

func (n *Node) each(do func(*Node)) {
	for _, c := range n.children {
		do(c)
	}
}

// touched reports whether the node or one below it has a state.
func (n *Node) touched() bool {
	return n.state != untouched || slices.ContainsFunc(n.children, (*Node).touched)
}

// Used reports whether anything at or below the node was taken or reported.
func (n *Node) Used() bool { return n != nil && n.touched() }

// Exists reports whether the value is present and not null.
func (n *Node) Exists() bool { return n != nil && n.Kind != Null }

// Get returns the node below a chain of keys, nil if there is none.
func (n *Node) Get(keys ...string) *Node {
	for _, k := range keys {
		if n == nil {
			return nil
		}
		at := slices.IndexFunc(n.children, func(c *Node) bool { return c.Key == k })
		if n.Kind != Map || at < 0 {
			return nil
		}
		n = n.children[at]
	}
	return n
}

// Fields returns the values of a map in the order of the file.
func (n *Node) Fields() []*Node { return n.below(Map) }

// Items returns the values of a list.
func (n *Node) Items() []*Node { return n.below(List) }

func (n *Node) below(kind Kind) []*Node {
	if n == nil {
		return nil
	}
	if n.leaf() && (n.Kind == kind || n.Kind == Null) {
		n.Take()
	}
	if n.Kind != kind {
		return nil
	}
	return n.children
}

// Keys returns the keys of a map in the order of the file, and takes nothing.
func (n *Node) Keys() []string {
	if n == nil || n.Kind != Map {
		return nil
	}
	keys := make([]string, len(n.children))
	for i, c := range n.children {
		keys[i] = c.Key
	}
	return keys
}

// Walk calls do for the node and all below it.
func (n *Node) Walk(do func(*Node)) {
	if n == nil {
		return
	}
	do(n)
	for _, c := range n.children {
		c.Walk(do)
	}
}

// Peek returns the text of a scalar without taking it.
func (n *Node) Peek() string {
	if n == nil || n.Kind != Scalar {
		return ""
	}
	return n.text
}

// Text takes a scalar and returns its text, "" for any other node.
func (n *Node) Text() string {
	if n == nil || n.Kind == Map || n.Kind == List {
		return ""
	}
	n.Take()
	return n.text
}

// Int takes a scalar and returns it as a number. It returns false, and takes
// nothing, if it is none.
func (n *Node) Int() (int64, bool) {
	v, err := strconv.ParseInt(strings.TrimSpace(n.Peek()), 0, 64)
	if err != nil {
		f, err := strconv.ParseFloat(n.Peek(), 64)
		if err != nil || f != float64(int64(f)) {
			return 0, false
		}
		v = int64(f)
	}
	n.Take()
	return v, true
}

// Float takes a scalar and returns it as a number. It returns false, and takes
// nothing, if it is none.
func (n *Node) Float() (float64, bool) {
	v, err := strconv.ParseFloat(strings.TrimSpace(n.Peek()), 64)
	if err != nil {
		return 0, false
	}
	n.Take()
	return v, true
}

// Bool takes a scalar and reports whether it is true. Any other text than that of
// a boolean is not taken.
func (n *Node) Bool() bool {
	switch strings.ToLower(n.Peek()) {
	case "true", "yes", "on":
		n.Take()
		return true
	case "false", "no", "off":
		n.Take()
	}
	return false
}

// Take marks the node and all below it as mapped.
func (n *Node) Take() { n.mark(taken) }

func (n *Node) mark(s state) {
	if n != nil && n.state < s {
		n.state = s
	}
}

// Drop marks the node and all below it as having no effect, for a reason.
func (n *Node) Drop(reason string) {
	if n == nil {
		return
	}
	n.mark(dropped)
	n.ledger.add(Finding{Position: n.At, Severity: LeftOut, Rule: RuleLeftOut, Path: n.Path(), Message: reason})
}

// MarkDropped marks the node and all below it as having no effect, which a finding about
// several nodes says.
func (n *Node) MarkDropped() { n.mark(dropped) }

// Warn reports a difference at the node, which counts as reported with all below it.
func (n *Node) Warn(rule, message, remedy string) {
	if n == nil {
		return
	}
	n.mark(reported)
	n.ledger.add(Finding{Position: n.At, Severity: Warning, Rule: rule, Path: n.Path(), Message: message, Remedy: remedy})
}

// Refuse refuses the input for the node. It returns true if the rule is allowed and
// the refusal became a warning.
func (n *Node) Refuse(rule, message, remedy string) bool {
	if n == nil {
		return false
	}
	n.mark(reported)
	return n.ledger.refuse(Finding{Position: n.At, Rule: rule, Path: n.Path(), Message: message, Remedy: remedy})
}

// SyntaxError is a text that is not in its format.
type SyntaxError struct {
	Position
	Message string
	Remedy  string // "" stands for: correct the input
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("%s: %s", e.Position, e.Message) }

// YAML adds the documents of a YAML file to the ledger and returns their roots. A
// document without content has no root. It returns a *SyntaxError for a text that is
// none, or that is too large, too deep, or refers to itself.
func (l *Ledger) YAML(name string, text []byte) ([]*Node, error) {
	if err := checkSize(name, text); err != nil {
		return nil, err
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var roots []*Node
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, yamlError(name, text, err)
		}
		if len(doc.Content) == 0 || doc.Content[0].Tag == "!!null" {
			continue
		}
		n, err := l.fromYAML(name, doc.Content[0], 0, nil)
		if err != nil {
			return nil, err
		}
		roots = append(roots, n)
	}
	l.roots = append(l.roots, roots...)
	return roots, nil
}

func checkSize(name string, text []byte) error {
	if len(text) > MaxFile {
		return &SyntaxError{Position: Position{File: name}, Message: fmt.Sprintf("the file has %d MiB; an input may have %d MiB", len(text)>>20, MaxFile>>20)}
	}
	if !utf8.Valid(text) {
		return &SyntaxError{Position: Position{File: name}, Message: "the file is not UTF-8 text"}
	}
	// A value of YAML or JSON ends with a comma or a line. The decoder of YAML keeps 250
	// bytes for each, before anything counts them.
	if bytes.Count(text, []byte(",")) > maxNodes || bytes.Count(text, []byte("\n")) > maxNodes {
		return &SyntaxError{Position: Position{File: name}, Message: fmt.Sprintf("the file has more than %d lines or commas, and may have too many values; import its parts one by one", maxNodes)}
	}
	return nil
}

func (l *Ledger) newNode(n Node, at Position, depth int) (*Node, error) {
	if l.nodes++; l.nodes > maxNodes {
		return nil, &SyntaxError{Position: at, Message: fmt.Sprintf("the input has more than %d values, aliases included", maxNodes)}
	}
	if depth > maxDepth {
		return nil, &SyntaxError{Position: at, Message: fmt.Sprintf("the input is nested more than %d levels deep", maxDepth)}
	}
	n.At, n.ledger = at, l
	return &n, nil
}

func (l *Ledger) fromYAML(name string, y *yaml.Node, depth int, within []*yaml.Node) (*Node, error) {
	at := Position{name, y.Line, y.Column}
	if y.Kind == yaml.AliasNode {
		if slices.Contains(within, y.Alias) {
			return nil, &SyntaxError{Position: at, Message: fmt.Sprintf("the alias *%s refers to itself", y.Value)}
		}
		return l.fromYAML(name, y.Alias, depth, append(within, y.Alias))
	}
	n, err := l.newNode(Node{Tag: y.ShortTag()}, at, depth)
	if err != nil {
		return nil, err
	}
	if len(within) > 0 {
		if l.aliased++; l.aliased > maxAliased {
			return nil, &SyntaxError{Position: at, Message: fmt.Sprintf("the aliases of the input stand for more than %d values", maxAliased)}
		}
	}
	switch y.Kind {
	case yaml.ScalarNode:
		if n.Kind = Scalar; n.Tag == "!!null" {
			n.Kind = Null
			break
		}
		n.text = y.Value
	case yaml.SequenceNode:
		n.Kind = List
		for i, c := range y.Content {
			child, err := l.fromYAML(name, c, depth+1, within)
			if err != nil {
				return nil, err
			}
			child.parent, child.index = n, i
			n.children = append(n.children, child)
		}
	case yaml.MappingNode:
		n.Kind = Map
		if err := l.fields(n, name, y, depth, within); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// fields adds the pairs of a mapping to n. The values of a merge key do not replace
// those of the mapping itself.
func (l *Ledger) fields(n *Node, name string, y *yaml.Node, depth int, within []*yaml.Node) error {
	known := map[string]bool{}
	var merged []*Node
	for i := 0; i+1 < len(y.Content); i += 2 {
		key := y.Content[i]
		child, err := l.fromYAML(name, y.Content[i+1], depth+1, within)
		if err != nil {
			return err
		}
		if key.ShortTag() == "!!merge" || key.Value == "<<" && key.Style == 0 {
			if child.Kind == List {
				for _, item := range child.children {
					merged = append(merged, item.children...)
				}
			} else {
				merged = append(merged, child.children...)
			}
			continue
		}
		for key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if first := slices.IndexFunc(n.children, func(c *Node) bool { return c.Key == key.Value }); known[key.Value] && l.keepLast && first >= 0 {
			n.children[first].Warn(RuleNotImported, fmt.Sprintf("the key %q is there twice; the last one counts", key.Value), "Remove one of them.")
			n.children[first].Key = ""
		} else if known[key.Value] {
			return &SyntaxError{Position: Position{name, key.Line, key.Column}, Message: fmt.Sprintf("the key %q is there twice", key.Value)}
		}
		known[key.Value] = true
		child.Key, child.parent = key.Value, n
		child.At = Position{name, key.Line, key.Column}
		n.children = append(n.children, child)
	}
	for _, child := range merged {
		if child.Key != "" && !known[child.Key] {
			known[child.Key] = true
			child.parent = n
			n.children = append(n.children, child)
		}
	}
	return nil
}

// JSON adds the values of a JSON text, one or several in a row, to the ledger and
// returns their roots. It returns a *SyntaxError for any other text.
func (l *Ledger) JSON(name string, text []byte) ([]*Node, error) {
	if err := checkSize(name, text); err != nil {
		return nil, err
	}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	p := &jsonReader{ledger: l, name: name, text: text, dec: json.NewDecoder(bytes.NewReader(text)), line: 1}
	p.dec.UseNumber()
	var roots []*Node
	for {
		n, err := p.value(0)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			var syntax *SyntaxError
			if errors.As(err, &syntax) {
				return nil, err
			}
			return nil, p.notJSON(err)
		}
		roots = append(roots, n)
	}
	l.roots = append(l.roots, roots...)
	return roots, nil
}

// notJSON gives an error of the JSON decoder a position.
func (p *jsonReader) notJSON(err error) error {
	at := p.at()
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) && int(syntax.Offset) > p.seen { // of the character behind the last token
		p.to(min(int(syntax.Offset)-1, len(p.text)))
		at = Position{p.name, p.line, p.seen - p.start + 1}
	}
	return notText(p.text, at, "JSON", strings.TrimPrefix(err.Error(), "json: "))
}

// notText is the error for a text that is not in its syntax.
func notText(text []byte, at Position, syntax, msg string) error {
	e := &SyntaxError{Position: at, Message: fmt.Sprintf("the text is not %s: %s (column %d)", syntax, msg, at.Column)}
	for _, mark := range []string{"{{", "{%", "<%"} {
		if bytes.Contains(text, []byte(mark)) {
			e.Remedy = fmt.Sprintf("Correct the input. If it is a template (it has %s), render it first.", mark)
			break
		}
	}
	return e
}

type jsonReader struct {
	ledger *Ledger
	name   string
	text   []byte
	dec    *json.Decoder

	line, start, seen int // of the last position: line, its first byte, bytes counted
}

// at returns the position of the next token.
func (p *jsonReader) at() Position {
	to := int(p.dec.InputOffset())
	for to < len(p.text) && strings.IndexByte(" \t\r\n,:", p.text[to]) >= 0 {
		to++
	}
	p.to(to)
	return Position{p.name, p.line, to - p.start + 1}
}

// to counts the lines before the byte at end.
func (p *jsonReader) to(end int) {
	for ; p.seen < end; p.seen++ {
		if p.text[p.seen] == '\n' {
			p.line, p.start = p.line+1, p.seen+1
		}
	}
}

func (p *jsonReader) value(depth int) (*Node, error) {
	at := p.at()
	tok, err := p.dec.Token()
	if err != nil {
		if errors.Is(err, io.EOF) && depth > 0 {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	n, err := p.ledger.newNode(Node{Kind: Scalar}, at, depth)
	if err != nil {
		return nil, err
	}
	switch tok := tok.(type) {
	case json.Delim:
		return n, p.container(n, tok, depth)
	case string:
		n.text, n.Tag = tok, "!!str"
	case json.Number:
		n.text, n.Tag = tok.String(), "!!int"
		if strings.ContainsAny(n.text, ".eE") {
			n.Tag = "!!float"
		}
	case bool:
		n.text, n.Tag = strconv.FormatBool(tok), "!!bool"
	default:
		n.Kind, n.Tag = Null, "!!null"
	}
	return n, nil
}

func (p *jsonReader) container(n *Node, open json.Delim, depth int) error {
	known := map[string]bool{}
	for p.dec.More() {
		at, key := p.at(), ""
		if open == '{' {
			tok, err := p.dec.Token()
			if err != nil {
				return err
			}
			key, _ = tok.(string)
		}
		child, err := p.value(depth + 1)
		if err != nil {
			return err
		}
		child.parent, child.index = n, len(n.children)
		if open == '{' {
			child.Key, child.At = key, at
			if first := slices.IndexFunc(n.children, func(c *Node) bool { return c.Key == key }); known[key] && first >= 0 {
				// The last one counts, as for every common reader of JSON.
				n.children[first].Warn(RuleNotImported, fmt.Sprintf("the key %q is there twice; the last one counts", key), "Remove one of them.")
				n.children[first].Key = ""
			}
			known[key] = true
		}
		n.children = append(n.children, child)
	}
	n.Kind = List
	if open == '{' {
		n.Kind = Map
	}
	_, err := p.dec.Token() // the closing delimiter
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}
