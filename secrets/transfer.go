package secrets

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/drover-nomad/drover/nomad/variables"
	"github.com/drover-nomad/drover/stack"
)

// ExportLayout is the layout number of an Export.
const ExportLayout = 1

// Export is a file with all secrets of a stack in an environment, in clear.
type Export struct {
	Layout      int               `json:"layout" yaml:"layout"`
	Stack       string            `json:"stack" yaml:"stack"`
	Environment string            `json:"environment" yaml:"environment"`
	Secrets     map[string]string `json:"secrets" yaml:"secrets"` // by item
}

// Encode returns the file as "yaml", or as JSON for any other format.
func (e Export) Encode(format string) ([]byte, error) {
	if format == "yaml" {
		return yaml.Marshal(e)
	}
	out, err := json.MarshalIndent(e, "", "  ")
	return append(out, '\n'), err
}

// Skipped is what ReadImport did not take.
type Skipped struct {
	Missing []string // secrets of the stack that the file does not have
	Ignored []string // items of an Export that the stack does not have
}

// ReadImport returns the items of specs that file has, without those that have no
// value. file is an Export, or a foreign YAML or JSON file that is read through the
// ImportPaths of specs. An error quotes no value.
func ReadImport(specs []*stack.Secret, file []byte) (found map[string]string, rep Skipped, err error) {
	var tree yaml.Node
	err = yaml.Unmarshal(file, &tree)
	if err != nil || len(tree.Content) != 1 || tree.Content[0].Kind != yaml.MappingNode {
		return nil, rep, errors.New("the file is neither YAML nor JSON with names at the top") // the parser's words may quote a secret
	}
	found = map[string]string{}
	if layout := child(tree.Content[0], "layout"); layout != nil && child(tree.Content[0], "secrets") != nil {
		if err := variables.CheckLayout(layout.Value, "the secrets in the file", ExportLayout); err != nil {
			return nil, rep, err
		}
		var e Export
		if err := yaml.Unmarshal(file, &e); err != nil {
			return nil, rep, errors.New("the file is not what `drover secrets export` writes")
		}
		known := map[string]bool{}
		for _, spec := range specs {
			for _, item := range spec.Items() {
				known[item] = true
				if e.Secrets[item] == "" {
					rep.Missing = append(rep.Missing, item)
				}
			}
			if spec.Type == stack.SecretCertificate {
				known[CAKeyItem(spec.Name)], known[NextKeyItem(spec.Name)] = true, true
			}
		}
		for _, item := range slices.Sorted(maps.Keys(e.Secrets)) {
			switch {
			case !known[item]:
				rep.Ignored = append(rep.Ignored, item)
			case e.Secrets[item] != "":
				found[item] = e.Secrets[item]
			}
		}
	} else if err := readForeign(specs, tree.Content[0], found, &rep); err != nil {
		return nil, rep, err
	}
	if len(found) == 0 {
		return nil, rep, errors.New("the file has none of the secrets of this stack")
	}
	return found, rep, nil
}

func readForeign(specs []*stack.Secret, tree *yaml.Node, found map[string]string, rep *Skipped) error {
	for _, spec := range specs {
		from := ""
		for _, path := range spec.ImportPaths {
			value, ok := lookup(tree, path)
			switch {
			case !ok:
			case from == "":
				found[spec.Name], from = value, path
			case found[spec.Name] != value:
				return fmt.Errorf("secret %s is at %s and at %s of the file, with different values", spec.Name, from, path)
			}
		}
		if from == "" {
			rep.Missing = append(rep.Missing, spec.Name)
		}
	}
	return nil
}

// lookup finds a scalar by its dotted path, as it is written: a secret of
// digits only stays what it is.
func lookup(at *yaml.Node, path string) (string, bool) {
	for part := range strings.SplitSeq(path, ".") {
		if at = child(at, part); at == nil {
			return "", false
		}
	}
	return at.Value, at.Kind == yaml.ScalarNode && at.Tag != "!!null" && at.Value != ""
}

// child is the value of a name in a mapping, nil when there is none.
func child(n *yaml.Node, name string) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

// NameOf returns the name of the secret that an item belongs to, the item itself if
// it belongs to none.
func NameOf(specs []*stack.Secret, item string) string {
	for _, spec := range specs {
		if slices.Contains(spec.Items(), item) || spec.Type == stack.SecretCertificate && (item == CAKeyItem(spec.Name) || item == NextKeyItem(spec.Name)) {
			return spec.Name
		}
	}
	return item
}
