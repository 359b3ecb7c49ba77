package cli

import (
	"context"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// stackFlags has the flags of every command that reads a stack.
type stackFlags struct {
	environment string
	vars        []string
	valueFiles  []string // -var-file and -values share one order
	services    []string
	targets     []string
}

func (f *stackFlags) register(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVarP(&f.environment, "env", "e", "", "environment: NAME of environments/NAME.hcl, or the path of a file")
	fl.StringArrayVar(&f.vars, "var", nil, "set a variable: NAME=VALUE (repeatable)")
	fl.Var((*appendValue)(&f.valueFiles), "var-file", "file of variable values, HCL or JSON (repeatable)")
	fl.Var((*appendValue)(&f.valueFiles), "values", "file of variable values, HCL, JSON or YAML (repeatable)")
	fl.StringArrayVar(&f.services, "service", nil, "only this service (repeatable)")
	fl.StringArrayVar(&f.targets, "target", nil, "only this target of the environment (repeatable)")
}

// registerWhole is register for commands that always work on the whole stack:
// --service and --target are accepted and hidden.
func (f *stackFlags) registerWhole(cmd *cobra.Command) {
	f.register(cmd)
	hideFlags(cmd, "service", "target")
}

// registerRecorded is register for commands that work from the record of a stack.
// Values are accepted and not shown: only a source that is read because there is
// no release needs them.
func (f *stackFlags) registerRecorded(cmd *cobra.Command) {
	f.register(cmd)
	hideFlags(cmd, "var", "var-file", "values")
}

func hideFlags(cmd *cobra.Command, names ...string) {
	for _, name := range names {
		_ = cmd.Flags().MarkHidden(name)
	}
}

// partial reports whether only a part of the stack is selected.
func (f *stackFlags) partial() bool { return len(f.services)+len(f.targets) > 0 }

// appendValue lets two flags fill one list in the order of the command line.
type appendValue []string

func (v *appendValue) String() string { return "" }
func (v *appendValue) Type() string   { return "FILE" }
func (v *appendValue) Set(s string) error {
	*v = append(*v, s)
	return nil
}

// Append, Replace and GetSlice make it a pflag.SliceValue.
func (v *appendValue) Append(s string) error      { return v.Set(s) }
func (v *appendValue) Replace(all []string) error { *v = all; return nil }
func (v *appendValue) GetSlice() []string         { return *v }

// source is the stack that arg names, a directory, a job file or a stack that ships
// with drover.
func (f *stackFlags) source(arg string) deploy.Source {
	return deploy.Source{
		Path: arg, Environment: f.environment, Vars: f.vars, ValueFiles: f.valueFiles, Environ: os.Environ(),
		Services: f.services, Targets: f.targets,
	}
}

// load reads the stack that arg names and renders its services.
func (f *stackFlags) load(ctx context.Context, arg string) (*stack.Stack, []render.Job, error) {
	s := f.source(arg)
	return s.Render(ctx)
}

// stack is load without rendering.
func (f *stackFlags) stack(ctx context.Context, arg string) (*stack.Stack, error) {
	return f.stackWith(ctx, arg, nil)
}

// stackWith is stack with values, as -var takes them, that -var overrides.
func (f *stackFlags) stackWith(ctx context.Context, arg string, values []string) (*stack.Stack, error) {
	s := f.source(arg)
	s.Vars = slices.Concat(values, f.vars)
	return s.Load(ctx)
}
