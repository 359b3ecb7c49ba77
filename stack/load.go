package stack

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/nomad/jobspec2"
	"github.com/zclconf/go-cty/cty"
	ctyfunction "github.com/zclconf/go-cty/cty/function"
)

type function = ctyfunction.Function

// Files of a stack directory.
const (
	ConfigFile    = "stack.hcl"
	VariablesFile = "variables.hcl"
	BaseFile      = "_base.nomad.hcl"
	jobSuffix     = ".nomad.hcl"
	partSuffix    = ".stack.hcl"
	// DefaultEnvironment is used when none is named, if its file exists.
	DefaultEnvironment = "default"
)

// Options select the stack and the values with which it is loaded.
type Options struct {
	// Path is a stack directory or a single job file, as messages name it.
	Path string
	// FS, when set, is the stack directory; Path is then only its name.
	FS fs.FS

	// Environment is the NAME of environments/NAME.hcl or the path of a
	// file; "" stands for the default environment if the stack has one.
	Environment string

	Vars       []string // -var k=v
	ValueFiles []string // -var-file and -values, in the order given
	Environ    []string // os.Environ(): NOMAD_VAR_x
}

// Load reads a stack and resolves all its values. It returns mistakes in the
// operator's files as hcl.Diagnostics.
func Load(ctx context.Context, o Options) (*Stack, error) {
	l := &loader{Options: o, s: &Stack{Path: o.Path, FS: o.FS}}
	if err := l.open(); err != nil {
		return nil, err
	}
	diags, err := l.load(ctx)
	if err != nil {
		return nil, err
	}
	if diags.HasErrors() {
		return nil, diags
	}
	return l.s, nil
}

type loader struct {
	Options
	s      *Stack
	single string // name of the only job file below s.FS, when Path is a file
	env    hcl.Body
}

// open opens Path: a directory, a job file, or Options.FS.
func (l *loader) open() error {
	if l.FS != nil {
		return nil
	}
	info, err := os.Stat(l.Path)
	if err != nil {
		return fmt.Errorf("reading the stack: %w", err)
	}
	l.s.Dir = l.Path
	if !info.IsDir() {
		l.single = filepath.Base(l.Path)
		l.s.Dir = filepath.Dir(l.Path)
	}
	l.s.FS = os.DirFS(l.s.Dir)
	return nil
}

// display returns the name of a file below the stack's directory for messages.
func (l *loader) display(name string) string {
	if l.single != "" {
		return filepath.Join(filepath.Dir(l.Path), filepath.FromSlash(name))
	}
	return filepath.Join(l.Path, filepath.FromSlash(name))
}

// read returns a file of the stack, nil when it does not exist.
func (l *loader) read(name string) (*Layer, error) {
	src, err := fs.ReadFile(l.s.FS, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", l.display(name), err)
	}
	display := l.display(name)
	if l.single != "" && name == l.single {
		display = l.Path
	}
	return &Layer{File: display, Src: src}, nil
}

func (l *loader) load(ctx context.Context) (hcl.Diagnostics, error) {
	s := l.s
	var diags hcl.Diagnostics
	var config *Layer
	var files []string
	var err error
	if l.single != "" {
		s.Name = strings.TrimSuffix(strings.TrimSuffix(l.single, ".hcl"), ".nomad")
		s.Services = []*Service{{Name: s.Name, File: l.single}}
		files = []string{l.single}
	} else {
		s.Name = filepath.Base(l.Path)
		if abs, err := filepath.Abs(l.Path); err == nil && l.FS == nil {
			s.Name = filepath.Base(abs)
		}
		if config, err = l.read(ConfigFile); err != nil {
			return nil, err
		}
		if config != nil {
			if f, ds := config.Parse(); !ds.HasErrors() { // what is wrong with it is said below
				s.Name = cmp.Or(stackLabel(f), s.Name)
			}
		}
		if s.Variables, err = l.read(VariablesFile); err != nil {
			return nil, err
		}
		if s.Base, err = l.read(BaseFile); err != nil {
			return nil, err
		}
		if files, err = l.jobFiles(); err != nil {
			return nil, err
		}
		if config == nil && len(files) == 0 {
			return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Not a stack: " + l.Path,
				Detail: "A stack is a directory with a " + ConfigFile + " or with job specs named *" + jobSuffix + "."}}, nil
		}
	}
	envGiven, ds, err := l.environment()
	if err != nil {
		return nil, err
	}
	diags = append(diags, ds...)

	// Declarations that all services share.
	shared := declarations{}
	for _, layer := range []*Layer{s.Variables, s.Base} {
		if layer == nil {
			continue
		}
		f, ds := layer.Parse()
		diags = append(diags, ds...)
		if ds.HasErrors() {
			continue
		}
		shared, ds = shared.declare(f)
		diags = append(diags, ds...)
	}

	vals := append(envGiven, environValues(l.Environ)...)
	for _, name := range l.ValueFiles {
		vs, ds := s.fileValues(name)
		diags = append(diags, ds...)
		vals = append(vals, vs...)
	}
	vs, ds := argValues(l.Vars)
	diags = append(diags, ds...)
	vals = append(vals, vs...)

	// stack.hcl is evaluated with the shared values.
	sharedVals, ds := shared.resolve(vals)
	diags = append(diags, ds...)
	if diags.HasErrors() {
		// A mistyped name is often the reason why another variable has no value.
		return append(diags, unknownNames(l.mentioned(shared, files), vals)...), nil
	}
	switch {
	case config != nil:
		body, ds, err := l.configBody(config)
		if diags = append(diags, ds...); err != nil || ds.HasErrors() {
			return diags, err
		}
		dir := s.Dir
		diags = append(diags, s.config(body, s.evalContext(sharedVals, jobspec2.Functions(dir, dir != "")))...)
		diags = append(diags, l.matchFiles(files)...)
	case l.single == "":
		for _, f := range files {
			s.Services = append(s.Services, &Service{Name: strings.TrimSuffix(f, jobSuffix), File: f})
		}
	}
	if diags.HasErrors() {
		return diags, nil
	}
	ds, err = l.services(ctx, shared, sharedVals, vals)
	if err != nil {
		return nil, err
	}
	diags = append(diags, ds...)
	s.Services = slices.DeleteFunc(s.Services, func(svc *Service) bool { return s.isDisabled(svc.Name) })
	diags = append(diags, s.checkReferences()...)
	diags = append(diags, s.checkNames()...)
	diags = append(diags, s.checkIssuers()...)
	if !diags.HasErrors() {
		diags = append(diags, s.sortServices()...)
	}
	if !diags.HasErrors() {
		dir := s.Dir
		diags = append(diags, s.environment(l.env, s.evalContext(sharedVals, jobspec2.Functions(dir, dir != "")), time.Now())...)
	}
	if l.single != "" && s.Overlay == nil && !slices.ContainsFunc(l.ValueFiles, isYAML) && !l.namesDrover() {
		s.Plain = &Plain{Vars: l.Vars, VarFiles: l.ValueFiles, Environ: l.Environ}
	}
	return diags, nil
}

// configBody is stack.hcl with its parts, the files *.stack.hcl beside it.
func (l *loader) configBody(config *Layer) (hcl.Body, hcl.Diagnostics, error) {
	parts, err := fs.Glob(l.s.FS, "*"+partSuffix)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the stack: %w", err)
	}
	layers := []*Layer{config}
	for _, name := range parts {
		part, err := l.read(name)
		if err != nil {
			return nil, nil, err
		}
		layers = append(layers, part)
	}
	var diags hcl.Diagnostics
	var bodies []hcl.Body
	for _, layer := range layers {
		f, ds := layer.Parse()
		if diags = append(diags, ds...); !ds.HasErrors() {
			labelDNS(f.Body)
			bodies = append(bodies, f.Body)
		}
	}
	return hcl.MergeBodies(bodies), diags, nil
}

// mentioned returns the names of variables for suggestions, also of those in services
// that could not be read.
func (l *loader) mentioned(shared declarations, files []string) []string {
	names := shared.names()
	for _, f := range files {
		if layer, err := l.read(f); err == nil && layer != nil {
			for _, m := range regexp.MustCompile(`variable\s+"?([\w-]+)`).FindAllSubmatch(layer.Src, -1) {
				names = append(names, string(m[1]))
			}
		}
	}
	return names
}

// namesDrover reports whether the single job file, or a file of values, may name
// drover.stack or drover.environment, which Nomad does not know.
func (l *loader) namesDrover() bool {
	for _, svc := range l.s.Services {
		if svc.Layer != nil && !isJSON(svc.Layer.Src) && usesDrover(svc.Layer.Src) {
			return true
		}
	}
	return slices.ContainsFunc(l.ValueFiles, func(name string) bool {
		src, err := os.ReadFile(name)
		return err == nil && usesDrover(src)
	})
}

func isYAML(name string) bool {
	ext := strings.ToLower(filepath.Ext(name))
	return ext == ".yaml" || ext == ".yml"
}

// services reads each service's file, its own declarations and its values.
func (l *loader) services(ctx context.Context, shared declarations, sharedVals map[string]cty.Value, vals []given) (hcl.Diagnostics, error) {
	s := l.s
	var diags hcl.Diagnostics
	known, defaults := map[string]bool{}, map[string]bool{}
	for name, d := range shared {
		known[name], defaults[name] = true, d.def != nil
	}
	s.Values = maps.Clone(sharedVals)
	own := map[string][]*Service{} // variables that services declare
	for _, svc := range s.Services {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		layer, err := l.read(svc.File)
		if err != nil {
			return nil, err
		}
		svc.Layer = layer
		svc.Values = sharedVals
		if svc.Range.Filename == "" {
			svc.Range = hcl.Range{Filename: layer.File, Start: hcl.InitialPos, End: hcl.InitialPos}
		}
		if !bytes.Contains(layer.Src, []byte("variable")) || isJSON(layer.Src) {
			continue // no declaration: parsed once, when it is rendered
		}
		f, ds := layer.Parse()
		diags = append(diags, ds...)
		if ds.HasErrors() {
			continue
		}
		ownDecls, ds := shared.declare(f)
		diags = append(diags, ds...)
		changed := declarations{}
		for name, d := range ownDecls {
			if shared[name] != d {
				changed[name] = d
				known[name], defaults[name] = true, defaults[name] || d.def != nil
				own[name] = append(own[name], svc)
			}
		}
		if len(changed) == 0 || s.isDisabled(svc.Name) {
			continue
		}
		ownVals, ds := changed.resolve(vals)
		diags = append(diags, ds...)
		svc.Values = maps.Clone(sharedVals)
		maps.Copy(svc.Values, ownVals)
	}
	s.ProcessValues = processValues(known, vals, func(name string) bool { return defaults[name] })
	for name, svcs := range own {
		first := svcs[0].Values[name]
		same := !slices.ContainsFunc(svcs, func(svc *Service) bool {
			return first == cty.NilVal || svc.Values[name] == cty.NilVal || !first.RawEquals(svc.Values[name])
		})
		if _, stackWide := sharedVals[name]; same && !stackWide {
			s.Values[name] = first
			continue
		}
		for _, svc := range svcs {
			s.Values[svc.Name+"."+name] = svc.Values[name]
		}
	}
	if l.single == "" || !isJSON(s.Services[0].Layer.Src) {
		diags = append(diags, unknownNames(slices.Sorted(maps.Keys(known)), vals)...)
	}
	return diags, nil
}

// jobFiles lists the services' files: *.nomad.hcl without a leading "_".
func (l *loader) jobFiles() ([]string, error) {
	entries, err := fs.ReadDir(l.s.FS, ".")
	if err != nil {
		return nil, fmt.Errorf("reading the stack: %w", err)
	}
	var out []string
	for _, e := range entries {
		n := e.Name()
		if !e.IsDir() && strings.HasSuffix(n, jobSuffix) && !strings.HasPrefix(n, "_") && !strings.HasPrefix(n, ".") {
			out = append(out, n)
		}
	}
	return out, nil
}

// matchFiles checks that service blocks and job files belong together.
// Without any service block, every file is a service.
func (l *loader) matchFiles(files []string) hcl.Diagnostics {
	s := l.s
	if len(s.Services) == 0 {
		for _, f := range files {
			s.Services = append(s.Services, &Service{Name: strings.TrimSuffix(f, jobSuffix), File: f})
		}
		return nil
	}
	var diags hcl.Diagnostics
	used := map[string]hcl.Range{}
	for _, svc := range s.Services {
		if !fs.ValidPath(svc.File) {
			diags = append(diags, errAt(svc.Range, fmt.Sprintf("Service %q names a file outside the stack", svc.Name), "file is a path below the stack's directory, with forward slashes."))
			continue
		}
		if first, dup := used[svc.File]; dup && !svc.ownID {
			diags = append(diags, errAt(svc.Range, fmt.Sprintf("%s is the file of two services", svc.File), "The other one is at "+place(first)+". Give each of them an id to share the file."))
			continue
		}
		used[svc.File] = svc.Range
		if info, err := fs.Stat(l.s.FS, svc.File); err != nil || info.IsDir() {
			hint := "Write the job spec there or name another file with file = \"…\"."
			if near := Nearest(svc.File, files); near != "" {
				hint += fmt.Sprintf(" There is a %s.", near)
			}
			diags = append(diags, errAt(svc.Range, fmt.Sprintf("Service %q has no file %s", svc.Name, l.display(svc.File)), hint))
		}
	}
	for _, f := range files {
		if _, ok := used[f]; !ok {
			name := strings.TrimSuffix(f, jobSuffix)
			diags = append(diags, errAt(hcl.Range{Filename: l.display(f), Start: hcl.InitialPos, End: hcl.InitialPos},
				"Job file without a service block", fmt.Sprintf("Add service %q {} to %s, or begin the file's name with _ to leave it out.", name, l.display(ConfigFile))))
		}
	}
	return diags
}

// environment finds and reads the environment: its values, and the layer
// whose job blocks lie over every service.
func (l *loader) environment() ([]given, hcl.Diagnostics, error) {
	s, name := l.s, l.Environment
	s.Environment = DefaultEnvironment
	var layer *Layer
	var err error
	switch {
	case name == "":
		if l.single == "" {
			layer, err = l.read(path.Join("environments", DefaultEnvironment+".hcl"))
		}
	case strings.ContainsAny(name, `/\`) || strings.HasSuffix(name, ".hcl"):
		var src []byte
		if src, err = os.ReadFile(name); err != nil {
			return nil, nil, fmt.Errorf("reading the environment: %w", err)
		}
		layer = &Layer{File: name, Src: src}
		s.Environment = strings.TrimSuffix(filepath.Base(name), ".hcl")
	default:
		s.Environment = name
		if layer, err = l.read(path.Join("environments", name+".hcl")); err == nil && layer == nil {
			return nil, hcl.Diagnostics{l.unknownEnvironment(name)}, nil
		}
	}
	if err != nil || layer == nil {
		return nil, nil, err
	}
	f, diags := layer.Parse()
	if diags.HasErrors() {
		return nil, diags, nil
	}
	s.Overlay, l.env = layer, f.Body
	var vals []given
	seen := map[string]hcl.Range{}
	for _, b := range f.Body.(*hclsyntax.Body).Blocks {
		if b.Type != "variables" {
			continue // jobs and locals: read as a layer by package render; the rest: environment.go
		}
		if len(b.Body.Blocks) > 0 {
			diags = append(diags, errAt(b.Body.Blocks[0].DefRange(), "The variables block of an environment holds only values", "Write NAME = VALUE."))
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(b.Body.Attributes)) {
			a := b.Body.Attributes[name]
			if first, dup := seen[name]; dup {
				diags = append(diags, errAt(a.SrcRange, fmt.Sprintf("Variable %q is set twice", name), "It is already set at "+place(first)+"."))
			}
			seen[name] = a.SrcRange
			v, ds := a.Expr.Value(&hcl.EvalContext{Variables: map[string]cty.Value{DroverObject: s.droverObject()}, Functions: jobspec2.Functions(s.Dir, s.Dir != "")})
			diags = append(diags, ds...)
			rng := a.Expr.Range()
			vals = append(vals, given{name: name, value: v, rng: &rng, at: a.NameRange.Ptr(), from: "environment " + s.Environment})
		}
	}
	return vals, diags, nil
}

func (l *loader) unknownEnvironment(name string) *hcl.Diagnostic {
	var known []string
	matches, _ := fs.Glob(l.s.FS, "environments/*.hcl")
	for _, m := range matches {
		known = append(known, strings.TrimSuffix(path.Base(m), ".hcl"))
	}
	hint := fmt.Sprintf("Write %s.", l.display("environments/"+name+".hcl"))
	if near := Nearest(name, known); near != "" {
		hint = fmt.Sprintf("Did you mean %q?", near)
	} else if len(known) > 0 {
		hint = "There are " + strings.Join(known, ", ") + "."
	}
	return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: fmt.Sprintf("Unknown environment %q", name), Detail: hint}
}

// isJSON is Nomad's rule for job files in HCL's JSON syntax.
func isJSON(src []byte) bool {
	src = bytes.TrimLeft(src, " ")
	return len(src) > 0 && src[0] == '{'
}

// dynamicServices reports whether stack.hcl makes service blocks of a table.
func dynamicServices(f *hcl.File) bool {
	body, ok := f.Body.(*hclsyntax.Body)
	return ok && slices.ContainsFunc(body.Blocks, func(b *hclsyntax.Block) bool {
		return b.Type == "dynamic" && len(b.Labels) == 1 && b.Labels[0] == "service"
	})
}

// defaults knows the variables of the stack that have a plain default.
func (l *loader) defaults() (*hcl.EvalContext, error) {
	values := map[string]cty.Value{}
	file, err := l.read(VariablesFile)
	if err != nil {
		return nil, err
	}
	if file != nil {
		f, diags := file.Parse()
		if diags.HasErrors() {
			return nil, diags
		}
		for _, b := range f.Body.(*hclsyntax.Body).Blocks {
			if a := b.Body.Attributes["default"]; b.Type == "variable" && len(b.Labels) == 1 && a != nil {
				if v, diags := a.Expr.Value(nil); !diags.HasErrors() {
					values[b.Labels[0]] = v
				}
			}
		}
	}
	return &hcl.EvalContext{Variables: map[string]cty.Value{"var": cty.ObjectVal(values)}}, nil
}

// Outline reads the parts of stack.hcl that need no values: name, versions, description
// and the names of the services, disabled ones too. Texts that depend on variables have
// the defaults of these; they are empty if one has none.
func Outline(name string, files fs.FS) (*Stack, error) {
	l := &loader{Options: Options{Path: name, FS: files}, s: &Stack{Name: name, Path: name, FS: files}}
	jobFiles, err := l.jobFiles()
	if err != nil {
		return nil, err
	}
	config, err := l.read(ConfigFile)
	if err != nil {
		return nil, err
	}
	if config == nil {
		for _, f := range jobFiles {
			l.s.Services = append(l.s.Services, &Service{Name: strings.TrimSuffix(f, jobSuffix), File: f})
		}
		return l.s, nil
	}
	f, diags := config.Parse()
	if diags.HasErrors() {
		return nil, diags
	}
	defaults, err := l.defaults()
	if err != nil {
		return nil, err
	}
	for _, b := range f.Body.(*hclsyntax.Body).Blocks {
		switch b.Type {
		case "stack":
			text := func(attr string) string {
				a := b.Body.Attributes[attr]
				if a == nil {
					return ""
				}
				v, diags := a.Expr.Value(defaults)
				if diags.HasErrors() || !v.IsKnown() || v.IsNull() || v.Type() != cty.String {
					return ""
				}
				return v.AsString()
			}
			if len(b.Labels) == 1 {
				l.s.Name = b.Labels[0]
			}
			l.s.Version, l.s.AppVersion, l.s.Description = text("version"), text("app_version"), text("description")
		case "service":
			if len(b.Labels) == 1 {
				l.s.Services = append(l.s.Services, &Service{Name: b.Labels[0], Range: b.DefRange()})
			}
		}
	}
	if rows := dynamicServices(f); rows || len(l.s.Services) == 0 {
		for _, file := range jobFiles {
			name := strings.TrimSuffix(file, jobSuffix)
			if !slices.ContainsFunc(l.s.Services, func(svc *Service) bool { return svc.Name == name }) {
				l.s.Services = append(l.s.Services, &Service{Name: name, File: file})
			}
		}
	}
	return l.s, nil
}
