package importer

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// parse returns the root of a YAML text and its ledger.
func parse(t *testing.T, text string, allow ...string) (*Ledger, *Node) {
	t.Helper()
	l := NewLedger(allow)
	roots, err := l.YAML("in.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return l, roots[0]
}

func lines(l *Ledger) []string {
	var out []string
	for _, f := range l.Findings() {
		out = append(out, f.String())
	}
	return out
}

func TestLedger_Finish(t *testing.T) {
	t.Parallel()
	const text = "a: 1\nb:\n  c: [x, y]\n  d:\n    e: 1\n    f: 2\ng: {}\nh: null\n"
	for _, c := range []struct {
		name   string
		read   func(*Node)
		want   []string
		counts Counts
	}{
		{"reports the highest node of which nothing was touched", func(*Node) {}, []string{"in.yaml:1: warning:  is not imported"}, Counts{Values: 7, Reported: 7}},
		{"reports a subtree once", func(n *Node) { n.Get("a").Take(); n.Get("g").Take(); n.Get("h").Take() },
			[]string{"in.yaml:2: warning: b is not imported"}, Counts{Values: 7, Mapped: 3, Reported: 4}},
		{"descends where something was touched", func(n *Node) {
			n.Get("a").Text()
			n.Get("b", "c").Take()
			n.Get("b", "d", "e").Drop("no effect")
			n.Get("g").Fields()
			n.Get("h").Items()
		}, []string{"in.yaml:6: warning: b.d.f is not imported", "in.yaml:5: left-out: no effect"}, Counts{Values: 7, Mapped: 5, LeftOut: 1, Reported: 1}},
		{"counts a warning at a subtree for all of it", func(n *Node) { n.Take(); n.Get("b").Warn("health", "differs", "look") },
			[]string{"in.yaml:2: warning: differs (health); look"}, Counts{Values: 7, Mapped: 3, Reported: 4}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l, root := parse(t, text)
			c.read(root)
			l.Finish()
			got := lines(l)
			if len(got) != len(c.want) {
				t.Fatalf("got %q, want %q", got, c.want)
			}
			for i := range got {
				if !strings.HasPrefix(got[i], c.want[i]) {
					t.Errorf("got %q, want %q", got[i], c.want[i])
				}
			}
			if l.Counts() != c.counts {
				t.Errorf("got %+v, want %+v", l.Counts(), c.counts)
			}
		})
	}
}

func TestLedger_Allow(t *testing.T) {
	t.Parallel()
	l, root := parse(t, "a: 1\nb: 2\n", "unknown-port", RuleInvalid)
	if !root.Get("a").Refuse("unknown-port", "no port", "say it") || l.Refused() {
		t.Error("got a refusal of an allowed rule, want a warning")
	}
	if root.Get("b").Refuse(RuleInvalid, "broken", "correct it") || !l.Refused() {
		t.Error("got a warning for an invalid input, want a refusal that cannot be allowed")
	}
}

func TestYAML_Refuses(t *testing.T) {
	t.Parallel()
	bomb := "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for i := 1; i < 9; i++ {
		bomb += fmt.Sprintf("a%d: &a%d [*a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d]\n", i, i, i-1, i-1, i-1, i-1, i-1, i-1, i-1, i-1, i-1)
	}
	for _, c := range []struct{ name, text, want string }{
		{"aliases that stand for too much", bomb, "the aliases of the input stand for more than"},
		{"an alias of itself", "a: &a\n  b: *a\n", "refers to itself"},
		{"deep nesting", strings.Repeat("[", 5000) + strings.Repeat("]", 5000), "levels deep"},
		{"a key twice", "a: 1\nb: 2\na: 3\n", `in.yaml:3: the key "a" is there twice`},
		{"no YAML", "a: [1\nb: 2\n", "in.yaml:"},
		{"no text", "a: \xff\n", "not UTF-8"},
		{"a large file", strings.Repeat("# 0123456789\n", MaxFile/10), "MiB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := NewLedger(nil).YAML("in.yaml", []byte(c.text))
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want a *SyntaxError with %q", err, c.want)
			}
		})
	}
}

func TestYAML_Memory(t *testing.T) {
	// Not parallel: it measures.
	bomb := "a0: &a0 [" + strings.Repeat("x, ", 1000) + "x]\n"
	bomb += "b: [" + strings.Repeat("*a0, ", 100000) + "*a0]\n"
	for name, text := range map[string]string{
		"100 million values of aliases": bomb,
		"seven million values":          "[" + strings.Repeat("a,", MaxFile/2-10) + "a]",
		"two million lines":             strings.Repeat("a: b\n", MaxFile/8),
	} {
		var before, after runtime.MemStats
		in := []byte(text)
		runtime.GC()
		runtime.ReadMemStats(&before)
		if _, err := NewLedger(nil).YAML("in.yaml", in); err == nil {
			t.Errorf("%s: got no error", name)
		}
		runtime.ReadMemStats(&after)
		if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 150 {
			t.Errorf("%s: allocated %d MiB, want at most 150", name, used)
		}
	}
}

func TestYAML_MergeKeys(t *testing.T) {
	t.Parallel()
	_, root := parse(t, "x: &x\n  a: 1\n  b: 2\ny:\n  <<: *x\n  b: 3\n")
	if got := root.Get("y", "a").Text() + root.Get("y", "b").Text(); got != "13" {
		t.Errorf("got %q, want 13: a mapping's own keys win", got)
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	l := NewLedger(nil)
	roots, err := l.JSON("in.json", []byte("{\n  \"a\": [1, {\"b\": true}],\n\t\"c\": \"x\", \"c\": null}\n[2.5]"))
	if err != nil {
		t.Fatal(err)
	}
	if len(roots) != 2 {
		t.Fatalf("got %d roots, want 2", len(roots))
	}
	b := roots[0].Get("a").Items()[1].Get("b")
	if got := fmt.Sprint(b.Path(), " ", b.At, " ", b.Bool()); got != "a[1].b in.json:2 true" {
		t.Errorf("got %q", got)
	}
	if got := b.At.Column; got != 13 {
		t.Errorf("got column %d, want 13", got)
	}
	if !slices.ContainsFunc(l.Findings(), func(f Finding) bool { return f.Line == 3 && strings.Contains(f.Message, "twice") }) {
		t.Errorf("got %q, want a warning about the key c", lines(l))
	}
	for _, text := range []string{`{"a": `, `{"a"}`, `[1,]`, `{`, strings.Repeat("[", 1000)} {
		if _, err := NewLedger(nil).JSON("in.json", []byte(text)); err == nil || !strings.HasPrefix(err.Error(), "in.json:1") {
			t.Errorf("%s: got %v, want an error with a place", text, err)
		}
	}
}

func FuzzTrees(f *testing.F) {
	f.Add([]byte("a: &x [1]\nb: *x\n<<: {c: 1}\n"), false)
	f.Add([]byte(`{"a": [1, {"a": null}]}`), true)
	f.Fuzz(func(t *testing.T, text []byte, json bool) {
		l := NewLedger(nil)
		read := l.YAML
		if json {
			read = l.JSON
		}
		roots, err := read("in", text)
		if err != nil {
			return
		}
		for _, r := range roots {
			r.Walk(func(n *Node) { _ = n.Path() })
		}
		l.Finish()
		if c := l.Counts(); c.Values != c.Mapped+c.LeftOut+c.Reported {
			t.Errorf("got %+v, want every value in one count", c)
		}
	})
}

// TestLedger_PlaceOfARefusal: a refusal of a whole file is at its beginning.
func TestLedger_PlaceOfARefusal(t *testing.T) {
	t.Parallel()
	l := NewLedger([]string{"no-input"})
	l.Refuse(Position{File: "a"}, RuleInvalid, "x", "y")
	l.Refuse(Position{File: "a"}, "no-input", "x", "y")
	want := []string{"a:1: refusal: x (invalid); y", "a: warning: x (no-input); y"}
	l.Finish()
	if got := lines(l); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
