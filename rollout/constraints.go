package rollout

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/nomad/api"
)

// nodeFacts are a node as the choice of a node for a volume sees it.
type nodeFacts struct {
	stub *api.NodeListStub // nil where the token may not list nodes
	node *api.Node         // nil while it was not read
}

func (n *nodeFacts) id() string { return n.stub.ID }

// target resolves the left or right side of a constraint, as Nomad's scheduler
// does (scheduler/feasible, resolveTarget).
func (n *nodeFacts) target(t string) (value string, found bool) {
	if !strings.HasPrefix(t, "${") {
		return t, true
	}
	key := strings.TrimSuffix(strings.TrimPrefix(t, "${"), "}")
	switch key {
	case "node.unique.id":
		return n.stub.ID, true
	case "node.unique.name":
		return n.stub.Name, true
	case "node.datacenter":
		return n.stub.Datacenter, true
	case "node.class":
		return n.stub.NodeClass, true
	case "node.pool":
		return n.stub.NodePool, true
	}
	if n.node == nil {
		return "", false
	}
	if attr, ok := strings.CutPrefix(key, "attr."); ok {
		value, found = n.node.Attributes[attr]
	} else if meta, ok := strings.CutPrefix(key, "meta."); ok {
		value, found = n.node.Meta[meta]
	}
	return value, found
}

// satisfies reports whether a node passes the constraints. Operands that need
// more than the node (distinct_hosts, distinct_property) or that drover does not
// evaluate (version, semver) pass.
func (n *nodeFacts) satisfies(constraints []*api.Constraint) bool {
	return !slices.ContainsFunc(constraints, func(c *api.Constraint) bool { return !n.satisfy(c) })
}

func (n *nodeFacts) satisfy(c *api.Constraint) bool {
	l, lFound := n.target(c.LTarget)
	r, rFound := n.target(c.RTarget)
	both := lFound && rFound
	words := func(s string) []string {
		out := strings.Split(s, ",")
		for i := range out {
			out[i] = strings.TrimSpace(out[i])
		}
		return out
	}
	switch c.Operand {
	case "=", "==", "is", "":
		return both && l == r
	case "!=", "not":
		return l != r
	case "<", "<=", ">", ">=":
		return both && ordered(c.Operand, l, r)
	case "is_set":
		return lFound
	case "is_not_set":
		return !lFound
	case "regexp":
		re, err := regexp.Compile(r)
		return both && (err != nil || re.MatchString(l))
	case "set_contains", "set_contains_all":
		has := words(l)
		return both && !slices.ContainsFunc(words(r), func(w string) bool { return !slices.Contains(has, w) })
	case "set_contains_any":
		has := words(l)
		return both && slices.ContainsFunc(words(r), func(w string) bool { return slices.Contains(has, w) })
	}
	return true
}

// ordered compares integers, floats or words, as Nomad does.
func ordered(operand, l, r string) bool {
	var c int
	li, lErr := strconv.ParseInt(l, 10, 64)
	ri, rErr := strconv.ParseInt(r, 10, 64)
	lf, lfErr := strconv.ParseFloat(l, 64)
	rf, rfErr := strconv.ParseFloat(r, 64)
	switch {
	case lErr == nil && rErr == nil:
		c = cmp.Compare(li, ri)
	case lfErr == nil && rfErr == nil:
		c = cmp.Compare(lf, rf)
	default:
		c = strings.Compare(l, r)
	}
	switch operand {
	case "<":
		return c < 0
	case "<=":
		return c <= 0
	case ">":
		return c > 0
	}
	return c >= 0
}
