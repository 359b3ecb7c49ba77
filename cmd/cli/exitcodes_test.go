package cli

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/rollout"
)

// The table in the code, the help topic, the page and the constants say the
// same.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/reference/exit-codes.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows strings.Builder
	for _, e := range exitCodes {
		outcome := ""
		if e.outcome != "" {
			outcome = "`" + strings.ReplaceAll(e.outcome, ", ", "`, `") + "`"
		}
		fmt.Fprintf(&rows, "| %d | %s | %s | %s |\n", e.code, outcome, e.meaning, e.next)
	}
	if !strings.Contains(string(page), rows.String()) {
		t.Errorf("docs/reference/exit-codes.md does not have this table:\n%s", rows.String())
	}

	var out bytes.Buffer
	if code := Run(t.Context(), &IO{In: strings.NewReader(""), Out: &out, Err: &out}, []string{"help", "exit-codes"}); code != 0 {
		t.Fatalf("exit code %d: %s", code, out.String())
	}
	for _, e := range exitCodes {
		if !regexp.MustCompile(`(?m)^ +` + strconv.Itoa(e.code) + `  \S`).MatchString(out.String()) {
			t.Errorf("help exit-codes lacks %d:\n%s", e.code, out.String())
		}
	}

	var worst []string
	for _, o := range rollout.WorstFirst() {
		worst = append(worst, string(o))
	}
	if order := strings.Join(worst, ", ") + "."; !strings.Contains(strings.Join(strings.Fields(string(page)), " "), "in this order: "+order) {
		t.Errorf("docs/reference/exit-codes.md does not have the order of outcomes: %s", order)
	}
	if want := "the worst counts: 130, 3, 4, 8, 7, 6, 10, 5."; !strings.Contains(out.String(), want) {
		t.Errorf("help exit-codes lacks %q:\n%s", want, out.String())
	}

	source, err := os.ReadFile("exit.go")
	if err != nil {
		t.Fatal(err)
	}
	constants := regexp.MustCompile(`(?m)^\texit[A-Z]\w+ += (\d+)`).FindAllStringSubmatch(string(source), -1)
	if len(constants) != len(exitCodes) {
		t.Fatalf("%d constants, %d rows", len(constants), len(exitCodes))
	}
	for i, m := range constants {
		if m[1] != strconv.Itoa(exitCodes[i].code) {
			t.Errorf("row %d is %d, the constant %s", i, exitCodes[i].code, m[1])
		}
	}

	for _, e := range exitCodes {
		for o := range strings.SplitSeq(e.outcome, ", ") {
			if o != "" && outcomeCode(rollout.Outcome(o)) != e.code {
				t.Errorf("outcome %s has code %d, the table says %d", o, outcomeCode(rollout.Outcome(o)), e.code)
			}
		}
	}
}
