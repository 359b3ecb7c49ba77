package render

import (
	"bytes"
	"slices"
	"sort"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/drover-nomad/drover/stack"
)

// A segment says where a run of the merged text comes from.
type segment struct {
	out   int // offset in the merged text
	layer *stack.Layer
	src   int  // offset in the layer
	own   bool // our own text: all of it stands for src
}

// sourceMap leads from the merged text back to the layers.
type sourceMap struct {
	text []byte
	segs []segment // by out
}

// emitter writes a tree as text.
type emitter struct {
	buf  bytes.Buffer
	segs []segment
}

func (e *emitter) chunk(c chunk) {
	if c.text == "" && c.start == c.end {
		return
	}
	if c.layer != nil {
		e.segs = append(e.segs, segment{out: e.buf.Len(), layer: c.layer, src: c.start, own: c.text != ""})
	}
	e.buf.Write(c.bytes())
}

// newline begins a new line unless one has just begun.
func (e *emitter) newline() {
	if b := e.buf.Bytes(); len(b) > 0 && b[len(b)-1] != '\n' {
		e.buf.WriteByte('\n')
	}
}

func (e *emitter) indent(depth int) { e.buf.WriteString(strings.Repeat("  ", depth)) }

// foreign reports whether n comes from another layer than the node before it
// and has no blank line of its own.
func (e *emitter) foreign(n *node) bool {
	if len(e.segs) == 0 || len(n.lead) == 0 || e.segs[len(e.segs)-1].layer == n.lead[0].layer {
		return false
	}
	text := e.buf.Bytes()
	return !bytes.HasPrefix(n.lead[0].bytes(), []byte("\n")) && !bytes.HasSuffix(text, []byte("{\n")) && !bytes.HasSuffix(text, []byte("\n\n"))
}

func (e *emitter) body(b *body, depth int) {
	for _, n := range b.items {
		e.node(n, depth)
	}
	for _, c := range b.tail {
		e.comment(c)
	}
	e.newline()
}

func (e *emitter) node(n *node, depth int) {
	e.newline()
	if !n.attr && e.foreign(n) {
		e.buf.WriteByte('\n')
	}
	// The white space before the item itself is its indentation.
	indent := -1
	for i, c := range n.lead {
		text := c.bytes()
		at := bytes.LastIndexByte(text, '\n') + 1
		if strings.TrimLeft(string(text[at:]), " \t") != "" {
			at = len(text) // a comment on the same line
		}
		if i > 0 {
			for len(text) > 0 && text[0] == '\n' {
				text, c.start, at = text[1:], c.start+1, at-1
			}
		}
		if at > 0 {
			e.chunk(chunk{layer: c.layer, start: c.start, end: c.start + at})
			e.newline()
		}
		if i == len(n.lead)-1 && (at > 0 && at < len(text) || c.layer.Src[max(c.start-1, 0)] == '\n') {
			indent = len(text) - at
			e.buf.Write(text[at:])
		}
	}
	if indent < 0 {
		e.indent(depth)
	}
	switch {
	case n.attr:
		e.chunk(n.text)
	case n.pristine:
		e.chunk(n.whole)
	default:
		e.chunk(n.text)
		e.body(n.body, depth+1)
		e.indent(depth)
		e.buf.WriteString("}\n")
	}
}

// comment writes what stands behind the last item, without the blanks before
// the closing brace.
func (e *emitter) comment(c chunk) {
	text := bytes.TrimRight(c.bytes(), " \t\r\n")
	if len(bytes.TrimSpace(text)) == 0 {
		return
	}
	e.newline()
	e.chunk(chunk{layer: c.layer, start: c.start, end: c.start + len(text)})
	e.newline()
}

// sourceMap returns the text and its map without the spare capacity of the emitter: a
// release of many services keeps one for each.
func (e *emitter) sourceMap() *sourceMap {
	return &sourceMap{text: bytes.Clone(e.buf.Bytes()), segs: slices.Clone(e.segs)}
}

// segmentAt returns the index of the segment that an offset is in, -1 before the
// first.
func segmentAt(segs []segment, off int) int {
	return sort.Search(len(segs), func(i int) bool { return segs[i].out > off }) - 1
}

// at maps an offset of the merged text to a position in a layer.
func (m *sourceMap) at(off int) (string, hcl.Pos, bool) {
	i := segmentAt(m.segs, off)
	if i < 0 {
		i = 0
	}
	if len(m.segs) == 0 {
		return "", hcl.Pos{}, false
	}
	s := m.segs[i]
	src := s.src
	if !s.own && off > s.out {
		src += off - s.out
	}
	return s.layer.File, position(s.layer.Src, src), true
}

// rng maps a range of the merged text.
func (m *sourceMap) rng(r hcl.Range) hcl.Range {
	file, start, ok := m.at(r.Start.Byte)
	if !ok {
		return r
	}
	endFile, end, _ := m.at(max(r.End.Byte-1, r.Start.Byte))
	if endFile != file || end.Byte < start.Byte {
		end = start
	}
	end.Column++
	end.Byte++
	return hcl.Range{Filename: file, Start: start, End: end}
}

// offset finds line and column in the merged text.
func (m *sourceMap) offset(line, column int) int {
	off := 0
	for ; line > 1; line-- {
		nl := bytes.IndexByte(m.text[off:], '\n')
		if nl < 0 {
			return len(m.text)
		}
		off += nl + 1
	}
	for ; column > 1 && off < len(m.text) && m.text[off] != '\n'; column-- {
		off++
		for off < len(m.text) && m.text[off]&0xC0 == 0x80 { // inside a rune
			off++
		}
	}
	return off
}

func position(src []byte, off int) hcl.Pos {
	off = min(off, len(src))
	line := 1 + bytes.Count(src[:off], []byte("\n"))
	start := bytes.LastIndexByte(src[:off], '\n') + 1
	return hcl.Pos{Line: line, Column: 1 + len([]rune(string(src[start:off]))), Byte: off}
}
