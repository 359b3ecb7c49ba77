package render

import (
	"maps"
	"slices"
	"strings"
	"text/template/parse"

	"github.com/hashicorp/nomad/api"
)

// SecretRead is a template that reads the job's own variable.
type SecretRead struct {
	Group, Task string
	Index       int // of the template in its task
	Template    *api.Template
	Items       []string // sorted
	// All reports whether it may read every item: it hands the whole variable
	// on, or its text is not known before it runs.
	All bool
}

// Reads reports whether the template reads an item.
func (r SecretRead) Reads(item string) bool { return r.All || slices.Contains(r.Items, item) }

// SecretReads finds the templates that read the variable at nomad/jobs/JOB_ID.
func SecretReads(job *api.Job) []SecretRead {
	var out []SecretRead
	for _, g := range job.TaskGroups {
		for _, t := range g.Tasks {
			for i, tmpl := range t.Templates {
				r := SecretRead{Task: t.Name, Index: i, Template: tmpl}
				if g.Name != nil {
					r.Group = *g.Name
				}
				items, all, known := templateItems(tmpl, *job.ID)
				if r.Items, r.All = items, all || !known; len(items) > 0 || r.All {
					out = append(out, r)
				}
			}
		}
	}
	return out
}

// templateItems returns the items of the job's variable that a template reads.
// known is false for a text that comes from a file or cannot be parsed.
func templateItems(tmpl *api.Template, jobID string) (items []string, all, known bool) {
	if tmpl.EmbeddedTmpl == nil || *tmpl.EmbeddedTmpl == "" {
		return nil, false, tmpl.SourcePath == nil || *tmpl.SourcePath == ""
	}
	delim := func(p *string) string {
		if p == nil {
			return ""
		}
		return *p
	}
	tree := parse.New("template")
	tree.Mode = parse.SkipFuncCheck // consul-template has functions of its own
	set := map[string]*parse.Tree{}
	if _, err := tree.Parse(*tmpl.EmbeddedTmpl, delim(tmpl.LeftDelim), delim(tmpl.RightDelim), set); err != nil {
		return nil, false, !strings.Contains(*tmpl.EmbeddedTmpl, "nomadVar")
	}
	w := &templateWalk{jobID: jobID, set: set, items: map[string]bool{}, in: map[string]bool{}}
	if tree.Root != nil {
		w.list(tree.Root, scope{vars: map[string]bool{}})
	}
	return slices.Sorted(maps.Keys(w.items)), w.all, true
}

// scope says which values of a template are the job's variable.
type scope struct {
	dot  bool
	vars map[string]bool
}

func (s scope) inner(dot bool) scope { return scope{dot, maps.Clone(s.vars)} }

// templateWalk collects the items that a template reads.
type templateWalk struct {
	jobID string
	set   map[string]*parse.Tree
	items map[string]bool
	all   bool
	in    map[string]bool // templates that are being walked
}

func (w *templateWalk) list(l *parse.ListNode, s scope) {
	if l == nil {
		return
	}
	for _, n := range l.Nodes {
		switch n := n.(type) {
		case *parse.ActionNode:
			w.pipe(n.Pipe, s)
		case *parse.IfNode:
			in := s.inner(s.dot)
			w.declare(n.Pipe, in)
			w.list(n.List, in)
			w.list(n.ElseList, in)
		case *parse.WithNode:
			own := w.own(n.Pipe, s)
			in := s.inner(own)
			w.declare(n.Pipe, in)
			if !own {
				w.pipe(n.Pipe, s)
			}
			w.list(n.List, in)
			w.list(n.ElseList, s.inner(s.dot))
		case *parse.RangeNode:
			in := s.inner(false)
			if w.own(n.Pipe, s) {
				w.all = true
			} else {
				w.pipe(n.Pipe, s)
			}
			w.list(n.List, in)
			w.list(n.ElseList, s.inner(s.dot))
		case *parse.TemplateNode:
			own := w.own(n.Pipe, s)
			if !own {
				w.pipe(n.Pipe, s)
			}
			if t := w.set[n.Name]; t != nil && t.Root != nil && !w.in[n.Name] {
				w.in[n.Name] = true
				w.list(t.Root, scope{dot: own, vars: map[string]bool{}})
				delete(w.in, n.Name)
			}
		}
	}
}

// declare notes the variables that a pipeline sets. A scope keeps them for what
// comes after it.
func (w *templateWalk) declare(p *parse.PipeNode, s scope) {
	if p == nil {
		return
	}
	own := w.own(p, s)
	for _, v := range p.Decl {
		s.vars[v.Ident[0]] = own
	}
	if !own {
		w.pipe(p, s)
	}
}

// pipe collects what a pipeline reads.
func (w *templateWalk) pipe(p *parse.PipeNode, s scope) {
	if p == nil {
		return
	}
	if len(p.Decl) > 0 {
		own := w.own(p, s)
		for _, v := range p.Decl {
			s.vars[v.Ident[0]] = own
		}
		if own {
			return
		}
	} else if w.own(p, s) { // printed, or an argument
		w.all = true
		return
	}
	for _, c := range p.Cmds {
		args := c.Args
		if name, ok := args[0].(*parse.IdentifierNode); ok && name.Ident == "index" && len(args) > 2 && w.own(args[1], s) {
			if key, ok := args[2].(*parse.StringNode); ok {
				w.items[key.Text] = true
			} else {
				w.all = true
			}
			args = args[2:]
		}
		for i, a := range args {
			// A variable that is a whole argument of a function is handed on.
			if (i > 0 || len(p.Cmds) > 1) && w.own(a, s) {
				w.all = true
				continue
			}
			w.node(a, s)
		}
	}
}

func (w *templateWalk) node(n parse.Node, s scope) {
	switch n := n.(type) {
	case *parse.FieldNode:
		if s.dot {
			w.field(n.Ident[0])
		}
	case *parse.VariableNode:
		if s.vars[n.Ident[0]] && len(n.Ident) > 1 {
			w.field(n.Ident[1])
		}
	case *parse.ChainNode:
		if w.own(n.Node, s) {
			w.field(n.Field[0])
		} else {
			w.node(n.Node, s)
		}
	case *parse.PipeNode:
		w.pipe(n, s)
	}
}

// field notes an item, or a method of consul-template's NomadVarItems.
func (w *templateWalk) field(name string) {
	switch name {
	case "Items", "Values", "Tuples":
		w.all = true
	case "Keys", "Metadata", "Parent":
	default:
		w.items[name] = true
	}
}

// own reports whether a value is the job's variable.
func (w *templateWalk) own(n parse.Node, s scope) bool {
	switch n := n.(type) {
	case *parse.PipeNode:
		if n == nil || len(n.Cmds) == 0 {
			return false
		}
		last := n.Cmds[len(n.Cmds)-1].Args
		if len(n.Cmds) == 2 && len(last) == 1 && isIdent(last[0], "nomadVar") {
			return w.ownPath(n.Cmds[0].Args...)
		}
		if len(n.Cmds) != 1 {
			return false
		}
		if len(last) == 1 {
			return w.own(last[0], s)
		}
		return len(last) == 2 && isIdent(last[0], "nomadVar") && w.ownPath(last[1])
	case *parse.DotNode:
		return s.dot
	case *parse.VariableNode:
		return len(n.Ident) == 1 && s.vars[n.Ident[0]]
	}
	return false
}

func isIdent(n parse.Node, name string) bool {
	i, ok := n.(*parse.IdentifierNode)
	return ok && i.Ident == name
}

// ownPath reports whether a path is that of the job's variable: the literal, or one that
// a template makes of NOMAD_JOB_ID or NOMAD_JOB_PARENT_ID. Lint has a rule for the wrong
// one of the two.
func (w *templateWalk) ownPath(args ...parse.Node) bool {
	const prefix = "nomad/jobs/"
	if len(args) == 1 {
		switch n := args[0].(type) {
		case *parse.StringNode:
			path, _, _ := strings.Cut(n.Text, "@") // PATH@NAMESPACE.REGION
			return path == prefix+w.jobID
		case *parse.PipeNode:
			return len(n.Cmds) > 0 && w.ownPath(n.Cmds[len(n.Cmds)-1].Args...)
		}
		return false
	}
	// #nosec G602 -- there are three
	return len(args) == 3 && isIdent(args[0], "printf") && strings.Contains(args[1].String(), prefix+"%s\"") &&
		(strings.Contains(args[2].String(), `"NOMAD_JOB_ID"`) || strings.Contains(args[2].String(), `"NOMAD_JOB_PARENT_ID"`))
}
