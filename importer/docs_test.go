package importer

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestRules_AreDocumented: the table of docs/reference/import.md is Rules.
func TestRules_AreDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/reference/import.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "| rule | why |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	var got []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(.*)` \\| (.*) \\|$").FindAllStringSubmatch(table, -1) {
		got = append(got, m[1]+" "+m[2])
	}
	var want []string
	for _, r := range Rules() {
		want = append(want, r.Name+" "+r.Why)
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
