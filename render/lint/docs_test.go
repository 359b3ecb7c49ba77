package lint

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// The table of docs/reference/lint.md is what the code looks for.
func TestLintTableIsTheCode(t *testing.T) {
	text, err := os.ReadFile("../../docs/reference/lint.md")
	if err != nil {
		t.Fatal(err)
	}
	got := regexp.MustCompile(`(?m)^\| `+"`.*$").FindAllString(string(text), -1)
	var want []string
	for _, r := range Rules() {
		want = append(want, fmt.Sprintf("| `%s` | %s | %s |", r.Name, r.Severity, r.Why))
	}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("docs/reference/lint.md says\n%s\nthe code says\n%s", g, w)
	}
}
