package render

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// The table of docs/reference/layers.md is what the code does.
func TestLayersTableIsTheCode(t *testing.T) {
	text, err := os.ReadFile("../docs/reference/layers.md")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, line := range regexp.MustCompile(`(?m)^\| `+"`.*$").FindAllString(string(text), -1) {
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		key := ""
		if len(cells) > 2 {
			key = cells[2]
		}
		got = append(got, strings.Trim(cells[0], "`")+": "+strings.TrimSuffix(cells[1], " |")+": "+key)
	}
	var want []string
	for _, r := range Rules() {
		how := map[Mode]string{Labelled: "labelled", Keyed: "keyed", Append: "always appended", Single: "single"}[r.Mode]
		if r.Glob {
			how += ", patterns"
		}
		want = append(want, r.Block+": "+how+": "+describeKeys(r.Keys))
	}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("docs/reference/layers.md says\n%s\nthe code says\n%s", g, w)
	}
}

func describeKeys(keys [][]string) string {
	var out []string
	for _, k := range keys {
		var plain, presence []string
		for _, a := range k {
			if name, ok := strings.CutSuffix(a, "?"); ok {
				presence = append(presence, "`"+name+"`")
			} else {
				plain = append(plain, "`"+a+"`")
			}
		}
		switch {
		case k[0] == "":
			out = append(out, "there being none")
		case len(plain) == 0:
			out = append(out, "that "+presence[0]+" is there")
		case len(presence) > 0:
			out = append(out, fmt.Sprintf("%s and which shorthand is used (%s)", strings.Join(plain, " with "), strings.Join(presence, ", ")))
		default:
			out = append(out, strings.Join(plain, " with "))
		}
	}
	return strings.Join(out, ", else ")
}
