package render

// A Rule is how blocks of one type are merged. Types without a rule follow the default:
// blocks with labels are merged by their labels, others are single.
type Rule struct {
	Block string
	Mode  Mode
	// Keys are the alternatives for a Keyed block, the first whose first
	// attribute is present counts. A name ending in "?" counts by being
	// there, not by its value.
	Keys [][]string
	// Glob is true if a label may be a pattern that matches other labels.
	Glob bool
}

// Mode is how the blocks of one type are matched.
type Mode string

// The modes of a Rule.
const (
	Single   Mode = "single"   // the n-th merges into the n-th
	Labelled Mode = "labelled" // equal labels merge
	Keyed    Mode = "keyed"    // equal keys merge; without a key it is appended
	Append   Mode = "append"   // always appended
)

// Rules lists the block types that do not follow the default; it is the
// table of docs/reference/layers.md.
func Rules() []Rule {
	shorthand := []string{"version?", "semver?", "regexp?", "set_contains?", "set_contains_all?", "set_contains_any?", "is_set?", "is_not_set?"}
	operators := append([]string{"attribute", "operator"}, shorthand...)
	return []Rule{
		{Block: "job", Mode: Labelled, Glob: true},
		{Block: "group", Mode: Labelled, Glob: true},
		{Block: "task", Mode: Labelled, Glob: true},
		{Block: "affinity", Mode: Keyed, Keys: [][]string{operators}},
		{Block: "artifact", Mode: Keyed, Keys: [][]string{{"destination"}, {"source"}}},
		{Block: "check", Mode: Keyed, Keys: [][]string{{"name"}}},
		{Block: "constraint", Mode: Keyed, Keys: [][]string{operators, {"distinct_hosts?"}, {"distinct_property"}}},
		{Block: "device", Mode: Keyed, Keys: [][]string{{"host_path"}}},
		{Block: "devices", Mode: Keyed, Keys: [][]string{{"host_path"}}},
		{Block: "dynamic", Mode: Append},
		{Block: "identity", Mode: Keyed, Keys: [][]string{{"name"}, {""}}},
		{Block: "link", Mode: Keyed, Keys: [][]string{{"label"}}},
		{Block: "listener", Mode: Keyed, Keys: [][]string{{"port"}}},
		{Block: "mount", Mode: Keyed, Keys: [][]string{{"target"}}},
		{Block: "path", Mode: Keyed, Keys: [][]string{{"path"}}},
		{Block: "service", Mode: Keyed, Keys: [][]string{{"name"}, {"port"}}},
		{Block: "spread", Mode: Keyed, Keys: [][]string{{"attribute"}}},
		{Block: "template", Mode: Keyed, Keys: [][]string{{"destination"}}},
		{Block: "upstreams", Mode: Keyed, Keys: [][]string{{"destination_name"}}},
		{Block: "volume_mount", Mode: Keyed, Keys: [][]string{{"volume"}}},
	}
}

// ruleSet finds rules by block type.
type ruleSet map[string]Rule

func newRuleSet() ruleSet {
	rs := ruleSet{}
	for _, r := range Rules() {
		rs[r.Block] = r
	}
	return rs
}

// of is the rule for a block of the given type.
func (rs ruleSet) of(typ string, labels int) Rule {
	r, ok := rs[typ]
	switch {
	case ok && (r.Mode != Keyed || labels == 0):
		return r
	case labels > 0:
		return Rule{Block: typ, Mode: Labelled}
	}
	return Rule{Block: typ, Mode: Single}
}
