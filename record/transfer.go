package record

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/secrets"
	"github.com/drover-nomad/drover/stack"
)

// exported is the file that Export writes and Import reads.
type exported struct {
	Layout      int               `json:"layout" yaml:"layout"`
	Stack       string            `json:"stack" yaml:"stack"`
	Environment string            `json:"environment" yaml:"environment"`
	Secrets     map[string]string `json:"secrets" yaml:"secrets"`
}

// Export is all secrets of the stack in clear, as "json" or "yaml".
func (s *Secrets) Export(ctx context.Context, format string) ([]byte, error) {
	m, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	if m.index == 0 {
		return nil, fmt.Errorf("stack %s has no secrets in environment %s", s.stack, s.env)
	}
	e := exported{Layout: Layout, Stack: s.stack, Environment: s.env, Secrets: m.items}
	if format == "yaml" {
		return yaml.Marshal(e)
	}
	out, err := json.MarshalIndent(e, "", "  ")
	return append(out, '\n'), err
}

// Imported is what Import took.
type Imported struct {
	Secrets []string // items with their new value
	Same    []string // items that had this value already
	Missing []string // secrets of the stack that the file does not have
	Ignored []string // items of an export that the stack does not have
	Jobs    []string // jobs whose variable was written
}

// Import takes secrets from a former export, or from a foreign YAML or JSON
// file through the ImportPaths of the stack's secrets. Values that differ
// from those that the stack has already are refused unless force. Either all
// is taken or nothing.
func (s *Secrets) Import(ctx context.Context, specs []*stack.Secret, jobs []render.Job, file []byte, force bool) (Imported, error) {
	found, rep, err := readImport(specs, file)
	if err != nil {
		return rep, err
	}
	vars, err := s.held(ctx, jobs)
	if err != nil {
		return rep, err
	}
	fresh := rep
	m, err := s.update(ctx, func(m *master) error {
		rep = fresh
		var differ []string
		for _, item := range sorted(found) {
			switch m.items[item] {
			case found[item]:
				rep.Same = append(rep.Same, item)
				continue
			case "":
			default:
				differ = append(differ, item)
			}
			rep.Secrets = append(rep.Secrets, item)
			m.items[item] = found[item]
			m.info[secretOf(specs, item)] = info{Made: s.now().UTC()}
		}
		if len(differ) > 0 && !force {
			return fmt.Errorf("the stack already has other values for %s; --force replaces them", strings.Join(differ, ", "))
		}
		return m.fits(vars)
	})
	if err != nil {
		return rep, err
	}
	rep.Jobs, err = s.refresh(ctx, vars, m)
	return rep, err
}

func readImport(specs []*stack.Secret, file []byte) (map[string]string, Imported, error) {
	var rep Imported
	var tree yaml.Node
	err := yaml.Unmarshal(file, &tree)
	if err != nil || len(tree.Content) != 1 || tree.Content[0].Kind != yaml.MappingNode {
		return nil, rep, errors.New("the file is neither YAML nor JSON with names at the top") // the parser's words may quote a secret
	}
	found := map[string]string{}
	if layout := child(tree.Content[0], "layout"); layout != nil && child(tree.Content[0], "secrets") != nil {
		if err := checkLayout(layout.Value, "the secrets in the file"); err != nil {
			return nil, rep, err
		}
		var e exported
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
				known[secrets.CAKeyItem(spec.Name)], known[secrets.NextKeyItem(spec.Name)] = true, true
			}
		}
		for _, item := range sorted(e.Secrets) {
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

func readForeign(specs []*stack.Secret, tree *yaml.Node, found map[string]string, rep *Imported) error {
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

// secretOf is the secret that an item belongs to.
func secretOf(specs []*stack.Secret, item string) string {
	for _, spec := range specs {
		if slices.Contains(spec.Items(), item) || spec.Type == stack.SecretCertificate && (item == secrets.CAKeyItem(spec.Name) || item == secrets.NextKeyItem(spec.Name)) {
			return spec.Name
		}
	}
	return item
}

func sorted(m map[string]string) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
