package record

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/secrets"
	"github.com/drover-nomad/drover/stack"
)

// Export is all secrets of the stack in clear, as "json" or "yaml".
func (s *Secrets) Export(ctx context.Context, format string) ([]byte, error) {
	m, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	if m.index == 0 {
		return nil, fmt.Errorf("stack %s has no secrets in environment %s", s.stack, s.env)
	}
	return secrets.Export{Layout: secrets.ExportLayout, Stack: s.stack, Environment: s.env, Secrets: m.items}.Encode(format)
}

// Imported is what Import took.
type Imported struct {
	Secrets []string // items with their new value
	Same    []string // items that had this value already
	secrets.Skipped
	Jobs []string // jobs whose variable was written
}

// Import takes secrets from a former export, or from a foreign YAML or JSON
// file through the ImportPaths of the stack's secrets. Values that differ
// from those that the stack has already are refused unless force. Either all
// is taken or nothing.
func (s *Secrets) Import(ctx context.Context, specs []*stack.Secret, jobs []render.Job, file []byte, force bool) (Imported, error) {
	found, skipped, err := secrets.ReadImport(specs, file)
	rep := Imported{Skipped: skipped}
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
			m.info[secrets.NameOf(specs, item)] = info{Made: s.now().UTC()}
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

func sorted(m map[string]string) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
