package nomad

import (
	"fmt"
	"strings"
)

// Diff returns the lines that differ between two texts in the unified format, with
// three lines around each, and "" if the texts are equal.
func Diff(name string, before, after []byte) string {
	if string(before) == string(after) {
		return ""
	}
	a, b := lines(before), lines(after)
	ops := edits(a, b)
	const around = 3
	var out strings.Builder
	fmt.Fprintf(&out, "--- %s\n+++ %s\n", name, name)
	for at := 0; at < len(ops); {
		if ops[at].sign == ' ' {
			at++
			continue
		}
		from := max(0, at-around)
		to, same := at, 0
		for to < len(ops) && same <= 2*around {
			if same++; ops[to].sign != ' ' {
				same = 0
			}
			to++
		}
		to -= max(0, same-around)
		var minus, plus int
		for _, o := range ops[from:to] {
			if o.sign != '+' {
				minus++
			}
			if o.sign != '-' {
				plus++
			}
		}
		fmt.Fprintf(&out, "@@ -%s +%s @@\n", place(ops[from].a, minus), place(ops[from].b, plus))
		for _, o := range ops[from:to] {
			fmt.Fprintf(&out, "%c%s\n", o.sign, o.text)
		}
		at = to
	}
	return out.String()
}

// place is the place of n lines behind the first at lines.
func place(at, n int) string {
	if n > 0 {
		at++
	}
	if n == 1 {
		return fmt.Sprint(at)
	}
	return fmt.Sprintf("%d,%d", at, n)
}

func lines(text []byte) []string {
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// edit is a line of a diff. a and b are the numbers of lines before it.
type edit struct {
	sign rune
	text string
	a, b int
}

// maxCells bounds the table of a diff. Larger texts are replaced as a whole.
const maxCells = 16_000_000

// edits returns the edits that turn a into b by a longest common subsequence.
func edits(a, b []string) []edit {
	var all []edit
	i, j := 0, 0
	add := func(sign rune, text string) {
		all = append(all, edit{sign, text, i, j})
		if sign != '+' {
			i++
		}
		if sign != '-' {
			j++
		}
	}
	if (len(a)+1)*(len(b)+1) > maxCells {
		for i < len(a) {
			add('-', a[i])
		}
		for j < len(b) {
			add('+', b[j])
		}
		return all
	}
	common := make([][]int32, len(a)+1)
	for n := range common {
		common[n] = make([]int32, len(b)+1)
	}
	for x := len(a) - 1; x >= 0; x-- {
		for y := len(b) - 1; y >= 0; y-- {
			if a[x] == b[y] {
				common[x][y] = common[x+1][y+1] + 1
			} else {
				common[x][y] = max(common[x+1][y], common[x][y+1])
			}
		}
	}
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			add(' ', a[i])
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			add('-', a[i])
		default:
			add('+', b[j])
		}
	}
	return all
}
