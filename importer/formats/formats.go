// Package formats knows the formats that can be imported: their names, how an input
// is recognised, and their readers.
package formats

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/compose"
	"github.com/drover-nomad/drover/importer/ecs"
	"github.com/drover-nomad/drover/importer/kubernetes"
	"github.com/drover-nomad/drover/importer/marathon"
	"github.com/drover-nomad/drover/importer/nomad"
)

// Format is a format of applications.
type Format struct {
	Name string
	What string // one line for help
	Read importer.Reader

	// match reports whether a document of YAML or JSON is in the format.
	match func(root *importer.Node) bool
	// matchText reports whether a text is in the format that is neither YAML nor JSON;
	// nil if the format has none.
	matchText func(text []byte) bool
}

// All are the formats, in the order in which an input is compared with them.
func All() []Format {
	return []Format{
		{Name: "compose", What: "Docker Compose files and Swarm stacks", Read: compose.Read, match: compose.Match},
		{Name: "kubernetes", What: "Kubernetes manifests", Read: kubernetes.Read, match: kubernetes.Match, matchText: kubernetes.MatchTemplate},
		{Name: "marathon", What: "Apps, groups and pods of Mesos Marathon", Read: marathon.Read, match: marathon.Match},
		{Name: "ecs", What: "Task definitions and services of Amazon ECS, and CloudFormation templates", Read: ecs.Read, match: ecs.Match},
		{Name: "nomad", What: "Job files of Nomad, also of 0.1 to 0.12, and jobs of its API", Read: nomad.Read, match: nomad.Match, matchText: nomad.MatchText},
	}
}

// Names are the names of the formats.
func Names() []string {
	var out []string
	for _, f := range All() {
		out = append(out, f.Name)
	}
	return out
}

// ErrUnknown is returned by Detect for inputs in no known format.
var ErrUnknown = errors.New("the format is not known")

// Detect returns the format of the inputs: that of the first document that is in one.
// If there is none, it returns an *importer.SyntaxError for the first input that is
// neither YAML nor JSON, and else ErrUnknown, wrapped.
func Detect(inputs []importer.Input) (Format, error) {
	var broken error
	for _, in := range inputs {
		roots, err := documents(in)
		if err != nil && broken == nil {
			broken = err
		}
		for _, root := range roots {
			for _, f := range All() {
				if f.match(root) {
					return f, nil
				}
			}
		}
	}
	for _, in := range inputs { // templates and HCL are not YAML
		for _, f := range All() {
			if f.matchText != nil && f.matchText(in.Text) {
				return f, nil
			}
		}
	}
	name := ""
	for _, in := range inputs {
		if ext := filepath.Ext(in.Name); ext == ".nomad" || ext == ".hcl" {
			return formatOf("nomad")
		}
		name = cmp.Or(name, in.Name)
	}
	if broken != nil {
		return Format{}, broken
	}
	return Format{}, fmt.Errorf("%s: %w; name it: %s", name, ErrUnknown, strings.Join(Names(), ", "))
}

// documents are the documents of an input. It returns an *importer.SyntaxError for one
// that is neither YAML nor JSON, and beside the documents for JSON that only YAML takes.
func documents(in importer.Input) ([]*importer.Node, error) {
	l := importer.NewLedger(nil)
	l.KeepLast()
	var broken error
	if text := strings.TrimSpace(string(in.Text)); strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[") {
		roots, err := l.JSON(in.Name, in.Text)
		if err == nil {
			return roots, nil
		}
		if ext := filepath.Ext(in.Name); ext != ".yaml" && ext != ".yml" {
			broken = err
		}
	}
	roots, err := l.YAML(in.Name, in.Text)
	if err != nil {
		return nil, cmp.Or(broken, err)
	}
	if filepath.Ext(in.Name) != ".json" {
		return roots, nil
	}
	return roots, broken // YAML takes more than JSON, such as a comma behind the last value
}

// formatOf returns the format of this name, or ErrUnknown, wrapped.
func formatOf(name string) (Format, error) {
	for _, f := range All() {
		if f.Name == name {
			return f, nil
		}
	}
	return Format{}, fmt.Errorf("%q: %w; it is one of %s", name, ErrUnknown, strings.Join(Names(), ", "))
}

// Run imports src in the format of this name, or in the format of its inputs if name is
// "". It returns ErrUnknown, wrapped, if that is not known. An input that is neither YAML
// nor JSON is refused with its place.
func Run(ctx context.Context, name string, src importer.Source) (*importer.Result, error) {
	src.Inputs = slices.Clone(src.Inputs)
	for i, in := range src.Inputs {
		src.Inputs[i].Text = plain(in.Text)
	}
	f, err := Format{}, error(nil)
	if name == "" {
		f, err = Detect(src.Inputs)
	} else {
		f, err = formatOf(name)
	}
	var broken *importer.SyntaxError
	if errors.As(err, &broken) {
		f.Read = func(context.Context, importer.Source, *importer.Ledger) (*importer.Model, error) { return nil, broken }
	} else if err != nil {
		return nil, err
	}
	return importer.Run(ctx, f.Name, f.Read, src)
}

// plain returns a text without a byte order mark. A text in UTF-16 with one, as PowerShell
// writes it, is returned in UTF-8.
func plain(text []byte) []byte {
	order := binary.ByteOrder(nil)
	switch {
	case bytes.HasPrefix(text, []byte{0xff, 0xfe}):
		order = binary.LittleEndian
	case bytes.HasPrefix(text, []byte{0xfe, 0xff}):
		order = binary.BigEndian
	default:
		return bytes.TrimPrefix(text, []byte{0xef, 0xbb, 0xbf})
	}
	if len(text)%2 != 0 {
		return text
	}
	var units []uint16
	for i := 2; i < len(text); i += 2 {
		units = append(units, order.Uint16(text[i:]))
	}
	return []byte(string(utf16.Decode(units)))
}
