package formats_test

import (
	"encoding/binary"
	"errors"
	"path/filepath"
	"testing"
	"unicode/utf16"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/formats"
	"github.com/drover-nomad/drover/importer/importertest"
)

// TestRun_Broken: a text that is neither YAML nor JSON is refused with its line and column,
// and not as a format that is not known.
func TestRun_Broken(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, file, text string
		line, column     int
		message, remedy  string
	}{
		{"an indentation that matches nothing", "compose.yaml", "services:\n  web:\n    image: a\n   command: b\n", 4, 4, "the text is not YAML: did not find expected key (column 4)", ""},
		{"a tab", "compose.yaml", "services:\n  web:\n\timage: a\n", 3, 1, "the text is not YAML: found character that cannot start any token; YAML is indented with spaces, and here is a tab (column 1)", ""},
		{"two colons", "compose.yaml", "services: {}\nx: a: b\n", 2, 5, "the text is not YAML: mapping values are not allowed in this context (column 5)", ""},
		{"two colons in the first line", "compose.yaml", "services: web: x\n", 1, 14, "the text is not YAML: mapping values are not allowed in this context (column 14)", ""},
		{"a quotation mark without an end", "app.yaml", "kind: Pod\napiVersion: \"v1\n", 3, 1, "the text is not YAML: found unexpected end of stream (column 1)", ""},
		{"a bracket without an end", "app.yaml", "a: [1, 2\nb: c\n", 2, 2, "the text is not YAML: did not find expected ',' or ']' (column 2)", ""},
		{"a value that begins with @", "app.yaml", "a: b\nc: @d\n", 2, 4, "the text is not YAML: found character that cannot start any token; put the value that begins with @ in quotation marks (column 4)", ""},
		{"an unknown alias", "app.yaml", "a: *b\n", 1, 4, "the text is not YAML: unknown anchor 'b' referenced (column 4)", ""},
		{"a character that is not allowed", "app.yaml", "a: b\nc: \x01\n", 2, 4, "the text is not YAML: control characters are not allowed (column 4)", ""},
		{"a template", "app.yaml", "services:\n{% for x in y %}\n  web: {}\n", 2, 2, "the text is not YAML: found character that cannot start any token (column 2)", "Correct the input. If it is a template (it has {%), render it first."},
		{"a word in JSON", "app.json", "{\n  \"id\": \"/a\",\n  \"cpus\": x\n}", 3, 11, "the text is not JSON: invalid character 'x' looking for beginning of value (column 11)", ""},
		{"a comma too many in JSON", "app.json", "{\"id\": \"/a\",\n\"b\": [1,\n]}", 3, 1, "the text is not JSON: invalid character ']' looking for beginning of value (column 1)", ""},
		{"JSON without an end", "app.json", "{\"id\": [\n", 2, 1, "the text is not JSON: unexpected EOF (column 1)", ""},
		{"YAML in braces", "app.yaml", "{services: {web: {image: a}}\n", 2, 1, "the text is not YAML: did not find expected ',' or '}' (column 1)", ""},
		{"a job file without its end", "web.nomad", "job web {\n  group \"a\" {\n", 2, 13, "the block group has no end: a } is missing", "Correct the file: Nomad never accepted it."},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			res, err := formats.Run(t.Context(), "", importer.Source{Inputs: []importer.Input{{Name: c.file, Text: []byte(c.text)}}})
			if err != nil {
				t.Fatalf("got error %v, want a refusal", err)
			}
			if len(res.Findings) != 1 || !res.Refused() {
				t.Fatalf("got %v, want one refusal", res.Findings)
			}
			remedy := c.remedy
			if remedy == "" {
				remedy = "Correct the input."
			}
			want := importer.Finding{Position: importer.Position{File: c.file, Line: c.line, Column: c.column}, Severity: importer.Refusal, Rule: importer.RuleInvalid, Message: c.message, Remedy: remedy}
			if got := res.Findings[0]; got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

// TestDetect: what is recognised by its text or by its name, and what is not.
func TestDetect(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, file, text, want string }{
		{"a job without quotation marks", "web", "job web {\n  type = \"batch\"\n}\n", "nomad"},
		{"a brace in a line of its own", "web", "job \"web\"\n{\n}\n", "nomad"},
		{"a template of Levant", "web", "job [[ .name ]] {\n}\n", "nomad"},
		{"a name that ends with .nomad", "web.nomad", "variable \"a\" {}\n", "nomad"},
		{"a job file in JSON", "web.json", `{"job": {"web": {"group": {}}}}`, "nomad"},
		{"a list of jobs of the API", "jobs.json", `[{"Job": {"ID": "a", "TaskGroups": []}}]`, "nomad"},
		{"YAML of another kind", "a.yaml", "a: b\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f, err := formats.Detect([]importer.Input{{Name: c.file, Text: []byte(c.text)}})
			if f.Name != c.want || (err != nil) != (c.want == "") {
				t.Errorf("got %q and %v, want %q", f.Name, err, c.want)
			}
			if c.want == "" && !errors.Is(err, formats.ErrUnknown) {
				t.Errorf("got %v, want ErrUnknown", err)
			}
		})
	}
}

// TestRun_ByteOrderMark: texts of editors and shells of Windows are read.
func TestRun_ByteOrderMark(t *testing.T) {
	t.Parallel()
	const text = "services:\r\n  web:\r\n    image: example.org/web:1\r\n    command: wéb\r\n"
	wide := func(order binary.AppendByteOrder) []byte {
		out := order.AppendUint16(nil, 0xfeff)
		for _, u := range utf16.Encode([]rune(text)) {
			out = order.AppendUint16(out, u)
		}
		return out
	}
	for name, in := range map[string][]byte{"UTF-8": []byte("\ufeff" + text), "UTF-16": wide(binary.LittleEndian), "UTF-16 with the first byte first": wide(binary.BigEndian)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			res, err := formats.Run(t.Context(), "", importer.Source{Name: "shop", Inputs: []importer.Input{{Name: filepath.Join(t.TempDir(), "compose.yaml"), Text: in}}})
			if err != nil {
				t.Fatal(err)
			}
			importertest.Imported(t, res, map[string][]string{"web.nomad.hcl": {`args = ["wéb"]`}})
		})
	}
}
