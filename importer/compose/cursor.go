package compose

import (
	"github.com/drover-nomad/drover/importer"
)

// nodes are all places of the input that say something about one value: overrides,
// extends and include merge several into one.
type nodes []*importer.Node

func (n nodes) get(keys ...string) nodes {
	var out nodes
	for _, x := range n {
		if c := x.Get(keys...); c != nil {
			out = append(out, c)
		} else if old := version1[keys[0]]; old != "" {
			if c := x.Get(old); c != nil {
				out = append(out, c)
			}
		}
	}
	return out
}

// version1 are keys of services of version 1, by those of today.
var version1 = map[string]string{"network_mode": "net", "logging": "log_driver"}

// take marks a value as mapped.
func (n nodes) take(keys ...string) {
	for _, x := range n.get(keys...) {
		x.Take()
	}
}

// takeEach marks several keys as mapped.
func (n nodes) takeEach(keys ...string) {
	for _, k := range keys {
		n.take(k)
	}
}

// pos is the last place, which overrides the others.
func (n nodes) pos() importer.Position {
	if len(n) == 0 {
		return importer.Position{}
	}
	return n[len(n)-1].Pos()
}

func (n nodes) drop(reason string) {
	for _, x := range n {
		x.Drop(reason)
	}
}

// warn reports a difference at the last place; the others count as reported with it.
func (n nodes) warn(rule, message, remedy string) {
	for i, x := range n {
		if i == len(n)-1 {
			x.Warn(rule, message, remedy)
		} else {
			x.Take()
		}
	}
}

func (n nodes) refuse(rule, message, remedy string) bool {
	allowed := true
	for i, x := range n {
		if i == len(n)-1 {
			allowed = x.Refuse(rule, message, remedy)
		} else {
			x.Take()
		}
	}
	return allowed
}

// eachText calls do for the scalars at and below the nodes. It takes nothing.
func (n nodes) eachText(do func(*importer.Node)) {
	for _, c := range n.scalars() {
		do(c)
	}
}

// scalars are the scalars at and below the nodes.
func (n nodes) scalars() []*importer.Node {
	var out []*importer.Node
	for _, x := range n {
		x.Walk(func(c *importer.Node) {
			if c.Kind == importer.Scalar {
				out = append(out, c)
			}
		})
	}
	return out
}
