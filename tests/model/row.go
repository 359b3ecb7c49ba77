// Package model compares drover on a real Nomad with a model of what it has to
// do. The test (make model) writes a Row for each sequence of operations.
package model

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Row is what came of one sequence.
type Row struct {
	Seed  uint64   `json:"seed"`
	Steps []string `json:"steps"` // operations, in their order
	// Violation is where drover and the model disagree, "" where they agree to
	// the end. A sequence ends with it.
	Violation string        `json:"violation,omitempty"`
	Took      time.Duration `json:"took_ns"`
	Commit    string        `json:"commit"`
	Date      string        `json:"date"` // YYYY-MM-DD
}

// Operations are the first words of steps.
var Operations = []string{
	"deploy unchanged", "deploy again", "deploy", "fail and stop", "fail", "fix", "rollback", "redeploy", "run again", "scale",
	"move", "foreign", "prune refused", "destroy", "drain", "gc",
}

// Operation is the operation of a step.
func Operation(step string) string {
	for _, o := range Operations {
		if step == o || strings.HasPrefix(step, o+" ") {
			return o
		}
	}
	return step
}

// Table is a summary of the rows and how often each operation was done, in
// Markdown.
func Table(rows []Row) string {
	steps, bad := 0, 0
	done, ended := map[string]int{}, map[string]int{}
	commits, dates := map[string]bool{}, map[string]bool{}
	for _, r := range rows {
		steps += len(r.Steps)
		commits[r.Commit], dates[r.Date] = true, true
		for _, s := range r.Steps {
			if !strings.Contains(s, "(no such command)") && !strings.Contains(s, "(nothing") && !strings.Contains(s, "(the last good") {
				done[Operation(s)]++
			}
		}
		if r.Violation != "" {
			bad++
			ended[Operation(r.Steps[len(r.Steps)-1])]++
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%d sequences of %d operations in all, on %s, commit %s; %d with a violation.\n\n",
		len(rows), steps, strings.Join(slices.Sorted(maps.Keys(dates)), " and "), strings.Join(slices.Sorted(maps.Keys(commits)), ", "), bad)
	out.WriteString("| operation | done | violations |\n|---|---:|---:|\n")
	for _, o := range slices.SortedFunc(maps.Keys(done), func(a, b string) int { return cmp.Or(done[b]-done[a], cmp.Compare(a, b)) }) {
		fmt.Fprintf(&out, "| %s | %d | %d |\n", o, done[o], ended[o])
	}
	return out.String()
}
