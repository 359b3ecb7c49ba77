// Package formats knows the formats that can be imported: their names, how an input
// is recognised, and their readers.
package formats

import (
	"context"
	"errors"
	"fmt"
	"strings"

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
// It returns ErrUnknown, wrapped, if there is none.
func Detect(inputs []importer.Input) (Format, error) {
	for _, in := range inputs {
		for _, root := range documents(in) {
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
	if len(inputs) > 0 {
		name = inputs[0].Name + ": "
	}
	return Format{}, fmt.Errorf("%s%w; name it: %s", name, ErrUnknown, strings.Join(Names(), ", "))
}

// documents are the documents of an input, nil for one that is neither YAML nor JSON.
func documents(in importer.Input) []*importer.Node {
	l := importer.NewLedger(nil)
	l.KeepLast()
	if text := strings.TrimSpace(string(in.Text)); strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[") {
		if roots, err := l.JSON(in.Name, in.Text); err == nil {
			return roots
		}
	}
	roots, err := l.YAML(in.Name, in.Text)
	if err != nil {
		return nil
	}
	return roots
}

// Run imports src in the format of this name, or in the format of its inputs if name is
// "". It returns ErrUnknown, wrapped, if that is not known.
func Run(ctx context.Context, name string, src importer.Source) (*importer.Result, error) {
	if name == "" {
		f, err := Detect(src.Inputs)
		if err != nil {
			return nil, err
		}
		return importer.Run(ctx, f.Name, f.Read, src)
	}
	for _, f := range All() {
		if f.Name == name {
			return importer.Run(ctx, f.Name, f.Read, src)
		}
	}
	return nil, fmt.Errorf("%q: %w; it is one of %s", name, ErrUnknown, strings.Join(Names(), ", "))
}
