package deploy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/drover-nomad/drover/jobs"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// Source is where the files of a stack are, and which values its variables get.
type Source struct {
	Path        string   // a directory, a job file, or the name of a stack that ships with drover
	Environment string   // NAME of environments/NAME.hcl, or the path of a file
	Vars        []string // NAME=VALUE
	ValueFiles  []string // HCL, JSON or YAML; a later one overrides an earlier one
	Environ     []string // that of Home by default

	Services []string // only these, all when empty
	Targets  []string // only these, all when empty
}

// source returns s with the environment of the process.
func (h *Home) source(s Source) Source {
	if s.Environ == nil {
		s.Environ = h.Environ
	}
	return s
}

// Partial reports whether not all of the stack is asked for.
func (s *Source) Partial() bool { return len(s.Services)+len(s.Targets) > 0 }

// Load reads the stack. Mistakes in its files are hcl.Diagnostics.
func (s *Source) Load(ctx context.Context) (*stack.Stack, error) {
	o := stack.Options{Path: s.Path, Environment: s.Environment, Vars: s.Vars, ValueFiles: s.ValueFiles, Environ: s.Environ}
	info, err := os.Stat(s.Path)
	// A directory that is no stack does not hide one that ships.
	if err != nil || info.IsDir() && slices.Contains(jobs.Names(), s.Path) && !isStack(s.Path) {
		if err != nil && !errors.Is(err, fs.ErrNotExist) || strings.ContainsAny(s.Path, `/\`) {
			return nil, UnknownStack(s.Path)
		}
		if o.FS, err = jobs.Stack(s.Path); err != nil {
			return nil, UnknownStack(s.Path)
		}
	}
	return stack.Load(ctx, o)
}

// Render reads the stack and renders the services that are asked for.
func (s *Source) Render(ctx context.Context) (*stack.Stack, []render.Job, error) {
	loaded, err := s.Load(ctx)
	if err != nil {
		return nil, nil, err
	}
	rendered, err := render.Stack(ctx, loaded, render.Options{Services: s.Services, Targets: s.Targets})
	if err != nil {
		return nil, nil, err
	}
	return loaded, rendered, nil
}

// isStack reports whether a directory has what a stack is made of.
func isStack(dir string) bool {
	for _, pattern := range []string{"stack.hcl", "*.nomad.hcl"} {
		if files, err := filepath.Glob(filepath.Join(dir, pattern)); err == nil && len(files) > 0 {
			return true
		}
	}
	return false
}

// UnknownStack returns the diagnostics for a path that leads to no stack.
func UnknownStack(path string) error {
	return hcl.Diagnostics{{
		Severity: hcl.DiagError,
		Summary:  fmt.Sprintf("There is no stack %q", path),
		Detail:   fmt.Sprintf("Name a directory, a job file or one of the stacks that ship with drover: %s.", strings.Join(jobs.Names(), ", ")),
	}}
}

// StackName returns the name under which a stack is recorded: that of the stack
// whose files arg leads to, or arg itself, since a record outlives its source.
func StackName(arg string) (string, error) {
	info, err := os.Stat(arg)
	switch {
	case err == nil && !info.IsDir():
		return strings.TrimSuffix(strings.TrimSuffix(filepath.Base(arg), ".hcl"), ".nomad"), nil
	case err == nil:
		abs, err := filepath.Abs(arg)
		if err != nil {
			return "", fmt.Errorf("naming the stack: %w", err)
		}
		s, err := stack.Outline(filepath.Base(abs), os.DirFS(arg))
		if err != nil {
			return "", fmt.Errorf("%s does not tell its name (%w); give the name instead", arg, err)
		}
		return s.Name, nil
	}
	if files, err := jobs.Stack(arg); err == nil {
		if s, err := stack.Outline(arg, files); err == nil {
			return s.Name, nil
		}
	}
	if strings.ContainsAny(arg, `/\`) {
		return "", invalidf("there is no stack at %s; when its source is gone, give its name", arg)
	}
	return arg, nil
}

// EnvironmentName returns the name of an environment that is given as in
// Source.Environment.
func EnvironmentName(env string) string {
	switch {
	case env == "":
		return stack.DefaultEnvironment
	case strings.ContainsAny(env, `/\`) || strings.HasSuffix(env, ".hcl"):
		return strings.TrimSuffix(filepath.Base(env), ".hcl")
	}
	return env
}
