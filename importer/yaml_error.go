package importer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"

	yaml4 "go.yaml.in/yaml/v4"
)

// yamlError gives an error of the YAML decoder a position. The decoder names a line, and
// often a wrong one; the next version of its library, which Compose's own uses, knows line
// and column.
func yamlError(name string, text []byte, err error) error {
	at := Position{File: name, Line: 1, Column: 1}
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(msg, "line "); ok {
		if num, rest, ok := strings.Cut(rest, ": "); ok {
			if line, err := strconv.Atoi(num); err == nil {
				at.Line, msg = line, rest
			}
		}
	}
	if line, column, ok := yamlMark(text); ok {
		at.Line, at.Column = line, column
	}
	return notText(text, at, "YAML", msg+yamlHint(text, at))
}

// yamlMark returns where the text stops being YAML.
func yamlMark(text []byte) (line, column int, ok bool) {
	defer func() {
		if recover() != nil { // the place is not worth a panic of a library on odd input
			ok = false
		}
	}()
	var err error
	dec := yaml4.NewDecoder(bytes.NewReader(text))
	for n := bytes.Count(text, []byte("\n")) + 2; err == nil && n > 0; n-- { // documents end with lines
		var doc yaml4.Node
		err = dec.Decode(&doc)
	}
	if err == nil || errors.Is(err, io.EOF) {
		return 0, 0, false
	}
	// The types of the errors are internal to the library, and have a Mark.
	e := reflect.Indirect(reflect.ValueOf(err))
	if e.Kind() != reflect.Struct {
		return 0, 0, false
	}
	if offset := e.FieldByName("Offset"); offset.IsValid() && offset.CanInt() { // of a character that is not allowed
		before := text[:min(max(int(offset.Int()), 0), len(text))]
		start := bytes.LastIndexByte(before, '\n') + 1
		return bytes.Count(before, []byte("\n")) + 1, len(before) - start + 1, true
	}
	mark := e.FieldByName("Mark")
	if mark.Kind() != reflect.Struct || !mark.FieldByName("Line").CanInt() || !mark.FieldByName("Column").CanInt() {
		return 0, 0, false
	}
	line, column = int(mark.FieldByName("Line").Int()), int(mark.FieldByName("Column").Int())
	if reflect.ValueOf(err).Kind() == reflect.Struct {
		column++ // only the errors about aliases, which are pointers, count columns from 1
		if e.Type().Name() == "ParserError" {
			line++ // the parser counts lines from 0, the scanner from 1
		}
	}
	return max(line, 1), max(column, 1), true
}

// yamlHint returns an addition to the message for a common mistake at a place, else "".
func yamlHint(text []byte, at Position) string {
	lines := bytes.Split(text, []byte("\n"))
	if at.Line > len(lines) {
		return "; the last value is not closed"
	}
	line := lines[at.Line-1]
	if at.Column > len(line) {
		return ""
	}
	switch rest := line[at.Column-1:]; {
	case rest[0] == '\t':
		return "; YAML is indented with spaces, and here is a tab"
	case at.Column > 1 && line[at.Column-2] == '{': // of a template
	case rest[0] == '@' || rest[0] == '`' || rest[0] == '%':
		return fmt.Sprintf("; put the value that begins with %c in quotation marks", rest[0])
	}
	return ""
}
