package chaos

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Together is the fault of a run with several.
const Together = "two at a time"

// Fault is the line of the table that a row belongs to.
func (r Row) Fault() string {
	switch len(r.Faults) {
	case 0:
		return "none"
	case 1:
		return r.Faults[0]
	}
	return Together
}

// Outcome is the exit code of the deploy, in a word.
func (r Row) Outcome() string {
	switch r.Code {
	case -1:
		return "killed"
	case 0:
		return "deployed"
	case 3:
		return "failed"
	case 4:
		return "went back"
	case 6:
		return "taken over"
	case 7:
		return "no node"
	case 8:
		return "timed out"
	case 10, 130:
		return "left open"
	}
	return fmt.Sprintf("exit code %d", r.Code)
}

// Table is the rows in Markdown, a line for each fault of each kind of site.
func Table(rows []Row) string {
	type key struct{ site, fault string }
	lines := map[key][]Row{}
	for _, r := range rows {
		k := key{r.Site, r.Fault()}
		lines[k] = append(lines[k], r)
	}
	keys := slices.SortedFunc(maps.Keys(lines), func(a, b key) int {
		return cmp.Or(cmp.Compare(a.site, b.site), cmp.Compare(a.fault, b.fault))
	})
	var out strings.Builder
	out.WriteString("| on | fault | runs | how the deploy ended | violations | recovered: median, max | requests lost | seeds |\n|---|---|---:|---|---:|---|---:|---|\n")
	for _, k := range keys {
		runs := lines[k]
		ends := map[string]int{}
		var times []time.Duration
		var seeds []uint64
		sent, lost, bad := 0, 0, 0
		for _, r := range runs {
			ends[r.Outcome()]++
			times, seeds = append(times, r.Recover), append(seeds, r.Seed)
			sent, lost = sent+r.Sent, lost+r.Lost
			if !r.Good() {
				bad++
			}
		}
		slices.Sort(times)
		var how []string
		for _, o := range slices.SortedFunc(maps.Keys(ends), func(a, b string) int { return cmp.Or(ends[b]-ends[a], cmp.Compare(a, b)) }) {
			how = append(how, fmt.Sprintf("%s %d", o, ends[o]))
		}
		requests := ""
		if sent > 0 {
			requests = fmt.Sprintf("%d of %d", lost, sent)
		}
		fmt.Fprintf(&out, "| %s | %s | %d | %s | %d | %.1f s, %.1f s | %s | %s |\n", k.site, k.fault, len(runs), strings.Join(how, ", "), bad,
			times[len(times)/2].Seconds(), times[len(times)-1].Seconds(), requests, Ranges(seeds))
	}
	return out.String()
}

// Summary says in a few lines what was run and where.
func Summary(rows []Row, machine string) string {
	var bad, files int
	commits, dates := map[string]bool{}, map[string]bool{}
	var seeds []uint64
	for _, r := range rows {
		commits[r.Commit], dates[r.Date] = true, true
		seeds = append(seeds, r.Seed)
		files += r.Files
		if !r.Good() {
			bad++
		}
	}
	return fmt.Sprintf("%d runs, seeds %s, on %s, commit %s, %s; %d with a violation. %d acknowledged files were compared afterwards.\n",
		len(rows), Ranges(seeds), strings.Join(slices.Sorted(maps.Keys(dates)), " and "), strings.Join(slices.Sorted(maps.Keys(commits)), ", "), machine, bad, files)
}

// Ranges is a list of numbers, those that follow each other as FIRST–LAST.
func Ranges(numbers []uint64) string {
	n := slices.Compact(slices.Sorted(slices.Values(numbers)))
	var out []string
	for len(n) > 0 {
		i := 1
		for i < len(n) && n[i] == n[i-1]+1 {
			i++
		}
		text := fmt.Sprint(n[0])
		if i > 1 {
			text = fmt.Sprintf("%d–%d", n[0], n[i-1])
		}
		out, n = append(out, text), n[i:]
	}
	return strings.Join(out, ", ")
}
