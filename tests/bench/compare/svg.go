package main

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
)

type point struct{ x, y float64 }

type line struct {
	name   string
	points []point
}

// plot is a chart with logarithmic axes: what grows in proportion is a
// straight line under 45 degrees.
type plot struct {
	file, title, unit string
	lines             []line
}

// svg draws the plot, legible on white and on black.
func (p plot) svg() []byte {
	const width, height, left, right, top, bottom = 760, 420, 60, 20, 40, 40
	colours := [...]string{"#1b6ac9", "#d1495b", "#5aa469", "#b07bd3", "#e09f3e"}
	lo, hi := point{math.Inf(1), math.Inf(1)}, point{math.Inf(-1), math.Inf(-1)}
	for _, l := range p.lines {
		for _, at := range l.points {
			lo, hi = point{min(lo.x, at.x), min(lo.y, at.y)}, point{max(hi.x, at.x), max(hi.y, at.y)}
		}
	}
	floor := func(v float64) float64 { return math.Floor(math.Log10(v)) }
	ceil := func(v float64) float64 { return math.Ceil(math.Log10(v)) }
	x0, x1, y0, y1 := floor(lo.x), ceil(hi.x), floor(lo.y), ceil(hi.y)
	x := func(v float64) float64 {
		return left + (math.Log10(v)-x0)/(x1-x0)*(width-left-right)
	}
	y := func(v float64) float64 {
		return height - bottom - (math.Log10(v)-y0)/(y1-y0)*(height-top-bottom)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12" fill="#777">`+"\n", width, height)
	fmt.Fprintf(&b, `<text x="%d" y="20" font-size="14">%s</text>`+"\n", left, p.title)
	for e := x0; e <= x1; e++ {
		v := math.Pow(10, e)
		fmt.Fprintf(&b, `<path d="M%.1f %d V%d" stroke="#9994"/><text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", x(v), top, height-bottom, x(v), height-bottom+18, strconv.FormatFloat(v, 'g', -1, 64))
	}
	for e := y0; e <= y1; e++ {
		v := math.Pow(10, e)
		fmt.Fprintf(&b, `<path d="M%d %.1f H%d" stroke="#9994"/><text x="%d" y="%.1f" text-anchor="end">%s %s</text>`+"\n", left, y(v), width-right, left-6, y(v)+4, strconv.FormatFloat(v, 'g', -1, 64), p.unit)
	}
	for i, l := range p.lines {
		colour := colours[i%len(colours)]
		fmt.Fprintf(&b, `<polyline fill="none" stroke="%s" stroke-width="2" points="`, colour)
		for _, at := range l.points {
			fmt.Fprintf(&b, "%.1f,%.1f ", x(at.x), y(at.y))
		}
		b.WriteString(`"/>` + "\n")
		for _, at := range l.points {
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"><title>%.0f services: %.3g %s</title></circle>`+"\n", x(at.x), y(at.y), colour, at.x, at.y, p.unit)
		}
		fmt.Fprintf(&b, `<path d="M%d %d h18" stroke="%s" stroke-width="2"/><text x="%d" y="%d">%s</text>`+"\n", left+12, top+14+18*i, colour, left+36, top+18+18*i, l.name)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}
