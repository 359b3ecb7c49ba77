package ecs

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/render/lint"
)

// scope is a document. Intrinsic functions have a meaning in a template only.
type scope struct {
	*reader
	root     *importer.Node
	template bool
	known    map[string]bool // values of conditions; false while one is computed
}

// piece is a part of a value: literal text, a parameter of the template, or what only
// AWS knows.
type piece struct {
	literal   string
	parameter string
	unknown   string // name for a variable
	what      string // how the input writes it
	secret    bool   // of a dynamic reference
}

// maxSteps is how many values are evaluated at most.
const maxSteps = 1_000_000

// call returns the intrinsic function of a node and its argument. The argument of a
// short tag is the node itself.
func (c *scope) call(n *importer.Node) (name string, arg *importer.Node, tagged bool) {
	if n == nil || !c.template {
		return "", nil, false
	}
	if strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!") {
		return n.Tag[1:], n, true
	}
	keys := n.Keys()
	if len(keys) != 1 {
		return "", nil, false
	}
	if keys[0] == "Ref" {
		return "Ref", n.Get("Ref"), false
	}
	if fn, ok := strings.CutPrefix(keys[0], "Fn::"); ok {
		return fn, n.Get(keys[0]), false
	}
	return "", nil, false
}

// reduce follows Fn::If, and returns nil for AWS::NoValue.
func (c *scope) reduce(n *importer.Node) *importer.Node {
	for range 100 {
		name, arg, _ := c.call(n)
		switch {
		case name == "Ref" && arg.Peek() == "AWS::NoValue":
			n.Take()
			return nil
		case name == "If" && arg != nil && arg.Kind == importer.List && len(arg.Items()) == 3:
			items := arg.Items()
			items[0].Take()
			chosen, other := items[1], items[2]
			if !c.condition(items[0].Peek()) {
				chosen, other = other, chosen
			}
			if fn, what, _ := c.call(other); fn == "Ref" && what.Peek() == "AWS::NoValue" {
				other.Take()
			} else {
				other.Drop(fmt.Sprintf("the condition %s chooses the other value, with the defaults of the parameters", items[0].Peek()))
			}
			n = chosen
		default:
			return n
		}
	}
	return nil
}

// get returns the value below keys, which are in camel case; templates begin them with
// a capital.
func (c *scope) get(n *importer.Node, keys ...string) *importer.Node {
	n = c.reduce(n)
	for _, k := range keys {
		child := n.Get(k)
		if child == nil {
			child = n.Get(strings.ToUpper(k[:1]) + k[1:])
		}
		n = c.reduce(child)
	}
	return n
}

// items returns the values of a list without those that conditions leave out.
func (c *scope) items(n *importer.Node) []*importer.Node {
	var out []*importer.Node
	for _, item := range c.reduce(n).Items() {
		if item = c.reduce(item); item != nil {
			out = append(out, item)
		}
	}
	return out
}

// condition is the value of a condition of the template with the defaults of its
// parameters.
func (c *scope) condition(name string) bool {
	if v, ok := c.known[name]; ok {
		return v
	}
	c.known[name] = false
	n := c.root.Get("Conditions", name)
	n.Take()
	v := c.test(n)
	c.known[name] = v
	return v
}

func (c *scope) test(n *importer.Node) bool {
	if keys := n.Keys(); len(keys) == 1 && keys[0] == "Condition" {
		return c.condition(n.Get("Condition").Peek())
	}
	name, arg, _ := c.call(n)
	items := arg.Items()
	switch name {
	case "Condition":
		return c.condition(arg.Peek())
	case "Equals":
		return len(items) == 2 && c.value(items[0]) == c.value(items[1])
	case "Not":
		return len(items) == 1 && !c.test(items[0])
	case "And":
		for _, i := range items {
			if !c.test(i) {
				return false
			}
		}
		return true
	case "Or":
		for _, i := range items {
			if c.test(i) {
				return true
			}
		}
	}
	return false
}

// value is a value with the defaults of the parameters. It takes nothing.
func (c *scope) value(n *importer.Node) string {
	var b strings.Builder
	for _, p := range c.pieces(n) {
		b.WriteString(c.withDefault(p))
	}
	return b.String()
}

func (c *scope) withDefault(p piece) string {
	if p.parameter == "" {
		return p.literal
	}
	text, _ := c.standard(p.parameter)
	return text
}

// standard is the default of a parameter, false if it has none.
func (c *scope) standard(name string) (string, bool) {
	p := c.root.Get("Parameters", name)
	d := p.Get("Default")
	if d == nil || strings.HasPrefix(p.Get("Type").Peek(), "AWS::SSM::Parameter::") {
		return "", false
	}
	return d.Peek(), true
}

// pieces evaluates a value.
func (c *scope) pieces(n *importer.Node) []piece { return c.evaluate(n, false) }

func (c *scope) evaluate(n *importer.Node, plain bool) []piece {
	if !plain {
		n = c.reduce(n)
	}
	// Functions inside functions could double the work at each level.
	if c.steps++; n == nil || c.steps > maxSteps {
		return nil
	}
	name, arg, tagged := c.call(n)
	if plain && tagged {
		name = ""
	}
	switch name {
	case "":
		if n.Kind != importer.Scalar {
			return nil
		}
		return c.dynamic(n.Peek())
	case "Ref":
		return c.ref(arg.Peek())
	case "Sub":
		return c.sub(arg)
	case "Join":
		items := arg.Items()
		if len(items) != 2 {
			return nil
		}
		var out []piece
		for i, part := range c.list(items[1]) {
			if i > 0 {
				out = append(out, piece{literal: c.value(items[0])})
			}
			out = append(out, part...)
		}
		return out
	case "Select":
		items := arg.Items()
		if len(items) != 2 {
			return nil
		}
		all := c.list(items[1])
		if i, err := strconv.Atoi(c.value(items[0])); err == nil && i >= 0 && i < len(all) {
			return all[i]
		}
	case "FindInMap":
		if items := arg.Items(); len(items) >= 3 {
			n := c.root.Get("Mappings", c.value(items[0]), c.value(items[1]), c.value(items[2]))
			if n != nil && n.Kind == importer.Scalar {
				n.Take()
				return []piece{{literal: n.Peek()}}
			}
		}
	case "Base64":
		text, known := "", true
		for _, p := range c.evaluate(arg, tagged) {
			text, known = text+c.withDefault(p), known && p.unknown == "" && !p.secret && p.parameter == ""
		}
		if known {
			return []piece{{literal: base64.StdEncoding.EncodeToString([]byte(text))}}
		}
	case "GetAtt":
		path := arg.Peek()
		for i, item := range arg.Items() {
			if i > 0 {
				path += "."
			}
			path += c.value(item)
		}
		return []piece{{unknown: snake(path), what: "the attribute " + path}}
	case "ImportValue":
		what := ""
		for _, p := range c.evaluate(arg, tagged) {
			what += c.withDefault(p)
		}
		return []piece{{unknown: snake(what), what: "the export " + what + " of another template"}}
	}
	return []piece{{unknown: snake(name + "_" + n.Key), what: "the function " + name}}
}

// list evaluates the values of a list.
func (c *scope) list(n *importer.Node) [][]piece {
	n = c.reduce(n)
	name, arg, _ := c.call(n)
	var out [][]piece
	literals := func(text, separator string) {
		for _, s := range strings.Split(text, separator) {
			out = append(out, []piece{{literal: s}})
		}
	}
	switch {
	case name == "" && n != nil && n.Kind == importer.List:
		for _, item := range c.items(n) {
			out = append(out, c.pieces(item))
		}
	case name == "Split" && len(arg.Items()) == 2:
		if by := c.value(arg.Items()[0]); by != "" {
			literals(c.value(arg.Items()[1]), by)
		}
	case name == "Ref":
		if text, ok := c.standard(arg.Peek()); ok {
			literals(text, ",")
			break
		}
		out = append(out, c.pieces(n))
	default:
		out = append(out, c.pieces(n))
	}
	return out
}

// ref is the value of Ref and of ${NAME} in Fn::Sub.
func (c *scope) ref(name string) []piece {
	switch name {
	case "AWS::StackName":
		return []piece{{literal: c.m.Name}}
	case "AWS::Partition":
		return []piece{{literal: "aws"}}
	case "AWS::URLSuffix":
		return []piece{{literal: "amazonaws.com"}}
	case "AWS::NoValue":
		return nil
	}
	if c.root.Get("Parameters", name) != nil {
		return []piece{{parameter: name}}
	}
	return []piece{{unknown: snake(name), what: name}}
}

func (c *scope) sub(arg *importer.Node) []piece {
	text, own := arg.Peek(), (*importer.Node)(nil)
	if items := arg.Items(); len(items) == 2 {
		text, own = items[0].Peek(), items[1]
	}
	var out []piece
	for {
		at := strings.Index(text, "${")
		end := -1
		if at >= 0 {
			end = strings.IndexByte(text[at:], '}')
		}
		if end < 0 {
			return append(out, c.dynamic(text)...)
		}
		out = append(out, c.dynamic(text[:at])...)
		name := strings.TrimSpace(text[at+2 : at+end])
		text = text[at+end+1:]
		switch {
		case strings.HasPrefix(name, "!"):
			out = append(out, piece{literal: "${" + name[1:] + "}"})
		case own.Get(name) != nil:
			out = append(out, c.pieces(own.Get(name))...)
		case strings.Contains(name, ".") && !strings.HasPrefix(name, "AWS::"):
			out = append(out, piece{unknown: snake(name), what: "the attribute " + name})
		default:
			out = append(out, c.ref(name)...)
		}
	}
}

// dynamic is a literal text, which in a template may be a dynamic reference to the
// Parameter Store or the Secrets Manager.
func (c *scope) dynamic(text string) []piece {
	if at := strings.Index(text, "{{resolve:"); at >= 0 && c.template {
		if end := strings.Index(text[at:], "}}"); end > 0 {
			ref := text[at+len("{{resolve:") : at+end]
			p := piece{unknown: snake(ref), what: "the value of " + ref, secret: !strings.HasPrefix(ref, "ssm:")}
			return append(append(c.dynamic(text[:at]), p), c.dynamic(text[at+end+2:])...)
		}
	}
	if text == "" {
		return nil
	}
	return []piece{{literal: text}}
}

// word takes a value and returns it with the defaults of the parameters.
func (c *scope) word(n *importer.Node) string {
	if n = c.reduce(n); n == nil {
		return ""
	}
	for _, p := range c.pieces(n) {
		if p.parameter != "" {
			c.fixed(p.parameter)
		}
	}
	n.Take()
	return c.value(n)
}

// fixed notes that the default of a parameter is written where its value is used.
func (c *scope) fixed(name string) {
	p := c.root.Get("Parameters", name)
	p.Take()
	if text, ok := c.standard(name); ok && !c.hidden(name) {
		c.ledger.LeaveOut(p.Pos(), fmt.Sprintf("the parameter %s is no variable where a job needs a name or a number: its default %q is written there", name, text))
	}
}

// number takes a number. It warns of a value that is none.
func (c *scope) number(n *importer.Node) (int, bool) {
	if n = c.reduce(n); !n.Exists() {
		n.Take()
		return 0, false
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(c.value(n)), 64)
	if err != nil || f != float64(int(f)) || f < -1<<31 || f > 1<<31 {
		n.Warn("unset-variable", fmt.Sprintf("%s has no number in the input", n.Path()), "Write it into the job.")
		return 0, false
	}
	c.word(n)
	return int(f), true
}

// flag takes a truth value.
func (c *scope) flag(n *importer.Node) bool {
	return strings.EqualFold(c.word(n), "true")
}

// text takes a value and returns it with variables for the parameters of the template.
func (c *scope) text(n *importer.Node) importer.Text {
	if n = c.reduce(n); n == nil {
		return nil
	}
	var out importer.Text
	for _, p := range c.pieces(n) {
		switch {
		case p.parameter != "":
			out = append(out, c.parameter(p.parameter)...)
		case p.unknown != "" && p.secret:
			out = append(out, importer.SecretText(c.secret(p.unknown, "", p.what+"."))...)
		case p.unknown != "":
			name := importer.Identifier(p.unknown)
			c.ledger.Warn(n.Pos(), "unset-variable", fmt.Sprintf("only AWS knows %s; the variable %s is empty", p.what, name), "Set it in environments/default.hcl.")
			out = append(out, c.variable(name, "", "In AWS "+p.what+".")...)
		case p.literal != "":
			out = append(out, importer.Part{Literal: p.literal})
		}
	}
	n.Take()
	return out
}

// plain is text for a place where no secret can be.
func (c *scope) plain(n *importer.Node) importer.Text {
	t := c.text(n)
	if len(t.Secrets()) > 0 {
		return importer.Lit(c.value(n))
	}
	return t
}

// hidden reports whether a parameter is a secret.
func (c *scope) hidden(name string) bool {
	value, ok := c.standard(name)
	return strings.EqualFold(c.root.Get("Parameters", name, "NoEcho").Peek(), "true") || lint.InClear(name, value) || !ok && lint.InClear(name, "unknown")
}

// parameter is a parameter of the template: a variable, or a secret.
func (c *scope) parameter(name string) importer.Text {
	p := c.root.Get("Parameters", name)
	p.Take()
	value, ok := c.standard(name)
	description := p.Get("Description").Peek()
	if c.hidden(name) {
		return importer.SecretText(c.secret(snake(name), value, "The parameter "+name+"."))
	}
	id := importer.Identifier(snake(name))
	if !ok {
		c.ledger.Warn(p.Pos(), "unset-variable", fmt.Sprintf("the parameter %s has no default; the variable %s is empty", name, id), "Set it in environments/default.hcl.")
	}
	if description == "" {
		description = "The parameter " + name + " of the template."
	}
	return c.variable(id, value, strings.Join(strings.Fields(description), " "))
}

func (c *scope) variable(name, value, description string) importer.Text {
	if c.vars[name] == "" {
		c.vars[name] = "var"
		c.m.Variables = append(c.m.Variables, importer.Variable{Name: name, Type: "string", Default: importer.Quote(value), Description: description})
	}
	return importer.Var(name)
}

// snake returns a name in lower case with underscores for a name in camel case.
func snake(s string) string {
	var b strings.Builder
	for i, r := range s {
		if i > 0 && r >= 'A' && r <= 'Z' {
			before := s[i-1]
			next := i+1 < len(s) && s[i+1] >= 'a' && s[i+1] <= 'z'
			if before >= 'a' && before <= 'z' || before >= '0' && before <= '9' || next && before >= 'A' && before <= 'Z' {
				b.WriteByte('_')
			}
		}
		b.WriteRune(r)
	}
	return importer.Identifier(b.String())
}
