// Package importer turns applications that were written for other platforms into
// stacks. A reader of a format, in a package below, makes a Model of its input and
// accounts for each value in a Ledger; Write makes the files of a stack from it.
package importer

import (
	"archive/zip"
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
	"slices"
	"strings"
	"time"

	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/render/lint"
	"github.com/drover-nomad/drover/stack"
)

// Input is one file of the input.
type Input struct {
	Name string // as the operator wrote it; "-" for the standard input
	Text []byte
}

// Source is what an operator gives to an import.
type Source struct {
	Inputs []Input
	// Root is the directory that files named by the input must be in. "" stands for
	// the enclosing Git repository of the first input, or else its directory.
	Root string

	Name   string            // of the stack; from the input when empty
	Images map[string]string // --image SERVICE=REF
	Ports  map[string][]int  // --port SERVICE=PORT
	// Routes are public names: --route SERVICE=HOST/PATH.
	Routes map[string][]string
	Kinds  map[string]string // --kind SERVICE=batch
	// Publish is how published ports are published, by service, "" for all others:
	// --publish SERVICE=static.
	Publish map[string]string
	Network string // --network; NetworkMesh when empty
	// ExposedPorts returns the TCP ports that the configuration of an image names:
	// --inspect-images. It may be nil.
	ExposedPorts func(ref string) ([]int, error)
	Hosts        map[string]string // --host NAME=ADDRESS
	Profiles     []string
	EnvFiles     []string // instead of .env
	Environ      []string // NAME=VALUE, for interpolation

	DropBinds bool
	KeepProxy bool     // a reverse proxy whose routes were taken
	Allow     []string // rules whose refusals become warnings
}

// Reader makes a model of a source. It accounts for each value of the input in the
// ledger, and reports mistakes there; an error is for what stops all reading, such as
// a file that cannot be opened. A *SyntaxError becomes a refusal. The model is not
// used if the ledger has a refusal.
type Reader func(ctx context.Context, src Source, l *Ledger) (*Model, error)

// Result is what came of an import.
type Result struct {
	Format   string       `json:"format"`
	Name     string       `json:"stack,omitempty"`
	Counts   Counts       `json:"counts"`
	Findings []Finding    `json:"findings"`
	Files    []OutFile    `json:"-"` // nil after a refusal; sorted by path
	Jobs     []render.Job `json:"-"` // what Files render to

	model *Model
}

// Refused reports whether the import was refused.
func (r *Result) Refused() bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity == Refusal })
}

// Run reads src, and makes a stack of it unless it is refused. It writes nothing.
// The stack renders and has no finding of severity error of drover lint.
func Run(ctx context.Context, format string, read Reader, src Source) (*Result, error) {
	l := NewLedger(src.Allow)
	res := &Result{Format: format}
	m, err := guard(ctx, read, src, l)
	var w *writer
	var syntax *SyntaxError
	switch {
	case errors.As(err, &syntax):
		l.add(Finding{Position: syntax.Position, Severity: Refusal, Rule: RuleInvalid, Message: syntax.Message, Remedy: cmp.Or(syntax.Remedy, "Correct the input.")})
	case err != nil:
		return nil, err
	case m != nil && !l.Refused():
		res.model = m
		if w = makeFiles(m, src, l); w != nil {
			res.Files = w.files()
		}
		if res.Name = m.Name; res.Files == nil { // --name has changed it
			break
		}
		if res.Jobs, err = verify(ctx, m.Name, res.Files, l); err != nil {
			return nil, err
		}
	}
	if res.Files == nil { // the refusal is about the whole input
		for _, root := range l.roots {
			root.mark(reported)
		}
	}
	l.Finish()
	res.Findings, res.Counts = l.Findings(), l.Counts()
	if res.Findings == nil {
		res.Findings = []Finding{}
	}
	if res.Refused() {
		res.Files, res.Jobs = nil, nil
		return res, nil
	}
	if w != nil {
		res.Files = append(res.Files, OutFile{Path: "IMPORT.md", Text: w.report(res), Mode: 0o644})
		slices.SortFunc(res.Files, func(a, b OutFile) int { return strings.Compare(a.Path, b.Path) })
	}
	return res, nil
}

// Mistake begins the message of a refusal that is a mistake of the importer, and not
// one of the input. Tests look for it.
const Mistake = "drover cannot read this input, which is a mistake of drover"

// refuseMistake turns a panic into a refusal.
func refuseMistake(src Source, l *Ledger) {
	if p := recover(); p != nil {
		l.Refuse(Position{File: src.Inputs[0].Name}, RuleInvalid, fmt.Sprintf("%s: %v", Mistake, p), "Report it with the input.")
	}
}

// guard is read without panics.
func guard(ctx context.Context, read Reader, src Source, l *Ledger) (m *Model, err error) {
	defer refuseMistake(src, l)
	return read(ctx, src, l)
}

// makeFiles completes the model and returns the writer with the files of the stack, nil
// after a refusal.
func makeFiles(m *Model, src Source, l *Ledger) *writer {
	defer refuseMistake(src, l)
	complete(m, src, l)
	if l.Refused() {
		return nil
	}
	return write(m)
}

// complete fills in what all formats have in common, and checks the model.
func complete(m *Model, src Source, l *Ledger) {
	if src.Name != "" {
		m.Name = src.Name
	}
	src = m.Overrides.under(src)
	slices.SortFunc(m.Services, func(a, b *Service) int { return strings.Compare(a.Name, b.Name) })
	known := map[string]*Service{}
	for _, s := range m.Services {
		if other := known[s.Name]; other != nil {
			l.Refuse(s.At, "name-collision", fmt.Sprintf("two services are named %s after their names were made valid (the other is at %s)", s.Name, other.At), "Rename one of them.")
		}
		known[s.Name] = s
	}
	addTagPorts(m)
	inferPorts(m, src, l)
	orderOnce(m)
	nameTags(m, l)
	for _, s := range m.Services {
		s.DependsOn = slices.DeleteFunc(s.DependsOn, func(d string) bool { return known[d] == nil || d == s.Name })
		slices.Sort(s.DependsOn)
		s.DependsOn = slices.Compact(s.DependsOn)
	}
	for _, s := range m.Services {
		for _, name := range slices.Sorted(maps.Keys(src.Hosts)) {
			entry := Lit(name + ":" + src.Hosts[name])
			if s.Network != "none" && !slices.ContainsFunc(s.ExtraHosts, func(t Text) bool { return slices.Equal(t, entry) }) {
				s.ExtraHosts = append(s.ExtraHosts, entry)
			}
		}
	}
	giveRoutes(m, src, l)
	separateTCP(m, l)
	wildcardRoutes(m, l)
	allowStops(m)
	coverFiles(m)
	publish(m, src, l)
	checkListeners(m, l)
	reach(m, src, l)
	separateStatic(m, l)
	slices.SortFunc(m.Secrets, func(a, b Secret) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(m.Variables, func(a, b Variable) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(m.Volumes, func(a, b Volume) int { return strings.Compare(a.Name, b.Name) })
	if len(m.Services) == 0 && !l.Refused() {
		l.Refuse(Position{File: src.Inputs[0].Name}, "no-input", "the input has nothing that runs", "Name a file with services.")
	}
}

// orderOnce has jobs that are not started again wait for the services that they may
// reach.
func orderOnce(m *Model) {
	awaited := map[string]bool{}
	for _, s := range m.Services {
		for _, name := range s.DependsOn {
			awaited[name] = true
		}
	}
	for _, s := range m.Services {
		if !s.Once || len(s.DependsOn) > 0 || awaited[s.Name] {
			continue
		}
		for _, other := range m.Services {
			if other != s && cmp.Or(other.Kind, KindService) == KindService && len(other.Hosts) > 0 && firstPort(other) != nil && sharesScope(s, other) {
				s.DependsOn = append(s.DependsOn, other.Name)
			}
		}
		if len(s.DependsOn) > 0 {
			s.Comments = append(s.Comments, "It is not started again after a failure, and so starts after the services that it may reach.")
		}
	}
}

// coverFiles has files below a directory that is mounted read-only rendered into it:
// Docker cannot mount a file there, because it cannot make the place for it. A directory
// with a secret is one of the secrets directory.
func coverFiles(m *Model) {
	for _, s := range m.Services {
		for _, t := range s.Tasks {
			for i := range t.Mounts {
				dir := &t.Mounts[i]
				if dir.Kind != "local" || !dir.ReadOnly || path.Join("/", dir.Source) != path.Clean(dir.Target) {
					continue
				}
				below := func(f File) bool { return strings.HasPrefix(f.Target, path.Clean(dir.Target)+"/") }
				if slices.ContainsFunc(t.Files, func(f File) bool { return below(f) && f.IsSecret }) {
					dir.Kind = "secrets"
				}
				for j := range t.Files {
					if f := &t.Files[j]; below(*f) {
						f.Covered, f.IsSecret = true, f.IsSecret || dir.Kind == "secrets"
					}
				}
			}
		}
	}
}

// allowStops raises the progress deadline of services whose tasks may take longer to
// stop: Nomad refuses such jobs.
func allowStops(m *Model) {
	for _, s := range m.Services {
		for _, t := range s.Tasks {
			deadline := 10 * time.Minute // the base's
			if s.Update != nil && s.Update.ProgressDeadline != nil {
				deadline = *s.Update.ProgressDeadline
			}
			if t.KillTimeout >= deadline {
				deadline = t.KillTimeout + 5*time.Minute
				if s.Update == nil {
					s.Update = &Update{}
				}
				s.Update.ProgressDeadline = &deadline
			}
		}
	}
}

// checkListeners refuses two published ports on one address. Of services that are
// alternatives, the first one has the port.
func checkListeners(m *Model, l *Ledger) {
	used := map[string]Published{}
	var kept []Published
	for _, p := range m.Published {
		key := fmt.Sprintf("%s:%d", p.HostIP, p.Port)
		other, ok := used[key]
		same := other.Service == p.Service && other.Target == p.Target
		msg := fmt.Sprintf("port %d of every node is published by %s and by %s", p.Port, other.Service, p.Service)
		switch {
		case !ok:
			used[key] = p
			kept = append(kept, p)
		case same:
		case other.Optional || p.Optional:
			l.Warn(p.At, "port-conflict", msg+", which are in profiles; "+other.Service+" has it", "Import one of the profiles.")
		default:
			l.Refuse(p.At, "port-conflict", msg, "Publish one of them on another port. Allowed, the first one has it.")
		}
	}
	m.Published = kept
}

// verify renders the stack and looks for mistakes, which are the importer's own.
func verify(ctx context.Context, name string, files []OutFile, l *Ledger) ([]render.Job, error) {
	fsys, err := archive(files)
	if err != nil {
		return nil, err
	}
	s, err := stack.Load(ctx, stack.Options{Path: name, FS: fsys})
	var jobs []render.Job
	if err == nil {
		jobs, err = render.Stack(ctx, s, render.Options{})
	}
	findings, about := lint.FromError(err, nil)
	if err != nil && !about {
		return nil, fmt.Errorf("rendering the imported stack: %w", err)
	}
	if err == nil {
		if findings, err = lint.Stack(ctx, jobs, nil); err != nil {
			return nil, fmt.Errorf("checking the imported stack: %w", err)
		}
	}
	for _, f := range findings {
		if f.Severity == lint.Error {
			l.Refuse(Position{File: f.File, Line: f.Line, Column: f.Column}, RuleInvalid, fmt.Sprintf("the stack would not be valid: %s (%s)", f.Message, f.Rule), f.Mend)
		}
	}
	return jobs, nil
}

// archive returns the files as a file system.
func archive(files []OutFile) (fs.FS, error) {
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	for _, f := range files {
		w, err := z.CreateHeader(&zip.FileHeader{Name: f.Path, Method: zip.Store})
		if err != nil {
			return nil, fmt.Errorf("checking the imported stack: %w", err)
		}
		if _, err := w.Write(f.Text); err != nil {
			return nil, fmt.Errorf("checking the imported stack: %w", err)
		}
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("checking the imported stack: %w", err)
	}
	return zip.NewReader(bytes.NewReader(buf.Bytes()), int64(buf.Len()))
}

// ErrNotEmpty is returned by WriteTo for a directory with files in it.
var ErrNotEmpty = stack.ErrNotEmpty

// WriteTo writes the files into dir, which must be empty or absent: all or none. It
// returns ErrNotEmpty for any other directory.
func (r *Result) WriteTo(dir string) error {
	return stack.WriteNew(dir, func(temp string) error {
		for _, f := range r.Files {
			to := filepath.Join(temp, filepath.FromSlash(f.Path))
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil { //nolint:gosec // a stack is no secret
				return err
			}
			if err := os.WriteFile(to, f.Text, fs.FileMode(f.Mode)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Imported reports whether a service of the stack is one of the input, and not the
// mesh.
func (r *Result) Imported(service string) bool {
	return r.model != nil && slices.ContainsFunc(r.model.Services, func(s *Service) bool { return s.Name == service })
}
