package ui

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/rollout"
)

// Sizes of the graph in units of the SVG.
const (
	boxWidth, boxHeight = 168, 32
	gapX, gapY          = 56, 12
	maxRows             = 14 // of boxes below each other; then another column begins
	maxLetters          = 18 // of a name
)

// graph is the dependency graph of a stack, drawn from left to right: a service is right
// of all that it depends on.
type graph struct {
	Width, Height int
	Boxes         []box
	Lines         []line
	Text          string // the same in words, for those who do not see it
}

type box struct {
	X, Y, TextX, TextY int
	Name, Label        string
	Tone, Symbol       string
}

type line struct{ Path, Tone string }

// drawGraph draws the services of a release, with their state now. It returns nil if no
// service depends on another one.
func drawGraph(lines []record.Service, now []rollout.ServiceStatus) *graph {
	tone := map[string]string{}
	for _, st := range now {
		tone[serviceName(st.Service, st.Target)] = map[bool]string{true: "good", false: "bad"}[st.OK]
	}
	nodes, deps := map[string]record.Service{}, map[string][]string{}
	for _, l := range lines {
		if l.Runs() {
			nodes[serviceName(l.Name, l.Target)] = l
		}
	}
	edges := 0
	for id, l := range nodes {
		for _, d := range l.DependsOn {
			if to := serviceName(d, l.Target); nodes[to].JobID != "" && to != id {
				deps[id] = append(deps[id], to)
				edges++
			}
		}
	}
	if edges == 0 {
		return nil
	}
	g := &graph{}
	at := g.place(columns(nodes, deps))
	ids := make([]string, 0, len(nodes))
	for id := range nodes {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	var words []string
	for _, id := range ids {
		b := at[id]
		b.Name, b.Label, b.Tone = id, shorten(id), cmp.Or(tone[id], "quiet")
		b.Symbol = tones[b.Tone]
		g.Boxes = append(g.Boxes, b)
		for _, to := range deps[id] {
			g.Lines = append(g.Lines, connect(at[to], at[id], cmp.Or(tone[to], "quiet")))
		}
		if len(deps[id]) > 0 {
			words = append(words, id+" depends on "+strings.Join(deps[id], ", "))
		}
	}
	g.Text = "Dependency graph of " + fmt.Sprint(len(nodes)) + " services: " + strings.Join(words, "; ") + "."
	return g
}

// columns groups services by the length of the longest path to one without dependencies.
func columns(nodes map[string]record.Service, deps map[string][]string) [][]string {
	depth := map[string]int{}
	var depthOf func(id string, seen int) int
	depthOf = func(id string, seen int) int {
		if d, ok := depth[id]; ok || seen > len(nodes) { // a record without cycles never gets there
			return d
		}
		d := 0
		for _, to := range deps[id] {
			d = max(d, depthOf(to, seen+1)+1)
		}
		depth[id] = d
		return d
	}
	var out [][]string
	for id := range nodes {
		d := depthOf(id, 0)
		for len(out) <= d {
			out = append(out, nil)
		}
		out[d] = append(out[d], id)
	}
	for _, c := range out {
		slices.Sort(c)
	}
	return out
}

// place gives each service its box, and sets the size of the graph.
func (g *graph) place(cols [][]string) map[string]box {
	at, x := map[string]box{}, gapY
	for _, c := range cols {
		for part := range slices.Chunk(c, maxRows) {
			for row, id := range part {
				y := gapY + row*(boxHeight+gapY)
				at[id] = box{X: x, Y: y, TextX: x + 10, TextY: y + 21}
				g.Height = max(g.Height, y+boxHeight+gapY)
			}
			x += boxWidth + gapX
		}
	}
	g.Width = x - gapX + gapY
	return at
}

// connect draws a line from the right of a box to the left of another one.
func connect(from, to box, tone string) line {
	x1, y1, x2, y2 := from.X+boxWidth, from.Y+boxHeight/2, to.X, to.Y+boxHeight/2
	mid := (x1 + x2) / 2
	return line{fmt.Sprintf("M%d %d C%d %d %d %d %d %d", x1, y1, mid, y1, mid, y2, x2, y2), tone}
}

// shorten cuts a name to the width of a box.
func shorten(name string) string {
	if r := []rune(name); len(r) > maxLetters {
		return string(r[:maxLetters-1]) + "…"
	}
	return name
}
