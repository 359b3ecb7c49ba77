// Package compose reads Docker Compose files and Swarm stacks for the importer.
package compose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/sirupsen/logrus"
	"gopkg.in/yaml.v3"

	"github.com/drover-nomad/drover/importer"
)

// quiet keeps compose-go from writing warnings to the standard error: the reader
// reports them itself.
var quiet = sync.OnceFunc(func() { logrus.SetOutput(io.Discard) })

// maxFiles is how many files extends and include may bring.
const maxFiles = 200

// reader makes a model of a Compose project.
type reader struct {
	src    importer.Source
	ledger *importer.Ledger
	dir    string // of the first file
	root   string // the limit for files that the input names
	cwd    string
	env    types.Mapping
	docs   []document
	files  []types.ConfigFile
	v1     bool

	project *types.Project
	m       *importer.Model
	vars    map[string]string // variables of the stack: value
	build   map[string]bool   // services that are built
	labels  map[string]string // name in the input: label of the service
	volumes map[string]string // key in the input: name of the host volume
	merged  map[string]string // service: that in whose network it runs
	private map[string]bool   // variables of the input with secret values
	aliases []linkAlias       // of links
	memory  map[string]int    // MB, of x-drover
}

// document is a document of a file.
type document struct {
	file string // absolute
	root *importer.Node
	main bool // of the command line, not of include or extends
}

// Read is the importer.Reader of Compose files and Swarm stacks. Several inputs are
// merged in their order.
func Read(ctx context.Context, src importer.Source, l *importer.Ledger) (m *importer.Model, err error) {
	quiet()
	r := &reader{src: src, ledger: l, vars: map[string]string{}, build: map[string]bool{}, labels: map[string]string{}, volumes: map[string]string{}, merged: map[string]string{}, private: map[string]bool{}}
	if err := r.open(); err != nil {
		return nil, err
	}
	if len(r.docs) == 0 {
		l.Refuse(importer.Position{File: src.Inputs[0].Name}, "no-input", "the file is empty", "Name a file with services.")
	}
	if l.Refused() {
		return nil, nil
	}
	if !r.load(ctx) {
		r.takeAll()
		return nil, nil
	}
	return r.model(), nil
}

// takeAll marks the whole input, of which a refusal says what is wrong.
func (r *reader) takeAll() {
	for _, d := range r.docs {
		d.root.Take()
	}
}

// open parses the inputs and the files that they include.
func (r *reader) open() error {
	var err error
	if r.cwd, err = os.Getwd(); err != nil {
		return fmt.Errorf("reading the input: %w", err)
	}
	first := r.src.Inputs[0].Name
	r.dir = r.cwd
	if first != "-" {
		if r.dir, err = filepath.Abs(filepath.Dir(first)); err != nil {
			return fmt.Errorf("reading the input: %w", err)
		}
	}
	if r.root = r.src.Root; r.root == "" {
		r.root = repository(r.dir)
	}
	if r.root, err = filepath.Abs(r.root); err != nil {
		return fmt.Errorf("reading the input: %w", err)
	}
	r.environment()
	for _, in := range r.src.Inputs {
		file := filepath.Join(r.dir, "stdin.yaml")
		if in.Name != "-" {
			if file, err = filepath.Abs(in.Name); err != nil {
				return fmt.Errorf("reading the input: %w", err)
			}
		}
		if err := r.parse(in.Name, file, in.Text, true, nil); err != nil {
			return err
		}
	}
	return nil
}

// repository is the directory with .git at or above dir, else dir.
func repository(dir string) string {
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, ".git")); err == nil {
			return at
		}
		if at == filepath.Dir(at) {
			return dir
		}
	}
}

// environment is what interpolation knows: the process's, over that of .env.
func (r *reader) environment() {
	r.env = types.Mapping{}
	for _, kv := range r.src.Environ {
		if name, value, ok := strings.Cut(kv, "="); ok {
			r.env[name] = value
		}
	}
	files := r.src.EnvFiles
	if len(files) == 0 {
		files = []string{filepath.Join(r.dir, ".env")}
	}
	for _, file := range files {
		text, ok := r.readFile(importer.Position{File: file}, file, len(r.src.EnvFiles) > 0)
		if !ok {
			continue
		}
		values, err := dotenv.ParseWithLookup(bytes.NewReader(text), r.env.Resolve)
		if err != nil {
			r.ledger.Refuse(importer.Position{File: r.display(file)}, importer.RuleInvalid, "the file of variables cannot be read: "+redactEnv(err), "Write one NAME=VALUE a line.")
			continue
		}
		for k, v := range values {
			if _, known := r.env[k]; !known {
				r.env[k] = v
			}
		}
	}
}

// redactEnv keeps the values of a .env file, which may be secrets, out of a message.
func redactEnv(err error) string {
	if m := regexp.MustCompile(`line \d+`).FindString(err.Error()); m != "" {
		return m
	}
	return "it is not a list of variables"
}

// display is a path as a message names it: relative to the working directory if it is
// below it.
func (r *reader) display(file string) string {
	if rel, err := filepath.Rel(r.cwd, file); err == nil && !strings.HasPrefix(rel, "..") {
		return rel
	}
	return file
}

// inRoot reports whether a file is in the root, symbolic links resolved.
func (r *reader) inRoot(file string) bool {
	inside := func(root, file string) bool {
		rel, err := filepath.Rel(root, file)
		return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
	}
	if !inside(r.root, file) {
		return false
	}
	root, err := filepath.EvalSymlinks(r.root)
	if err != nil {
		return false
	}
	at := file
	for {
		real, err := filepath.EvalSymlinks(at)
		if err == nil {
			return inside(root, real)
		}
		if at == filepath.Dir(at) || !errors.Is(err, fs.ErrNotExist) {
			return false
		}
		at = filepath.Dir(at) // the nearest directory that exists decides
	}
}

// readFile returns a file that the input names. It refuses one outside the root, one
// that is too large, and with must, one that does not exist.
func (r *reader) readFile(at importer.Position, file string, must bool) ([]byte, bool) {
	if !r.inRoot(file) {
		if must {
			r.outside(at, file)
		}
		return nil, false
	}
	info, err := os.Stat(file)
	switch {
	case err != nil || info.IsDir():
		if must {
			r.ledger.Refuse(at, "missing-file", fmt.Sprintf("the file %s does not exist", r.display(file)), "Add it, or remove its name.")
		}
		return nil, false
	case !info.Mode().IsRegular():
		r.ledger.Refuse(at, importer.RuleInvalid, fmt.Sprintf("%s is no regular file", r.display(file)), "Name a regular file.")
		return nil, false
	case info.Size() > importer.MaxFile:
		r.ledger.Refuse(at, importer.RuleInvalid, fmt.Sprintf("%s has %d MiB", r.display(file), info.Size()>>20), fmt.Sprintf("An input may have %d MiB.", importer.MaxFile>>20))
		return nil, false
	}
	text, err := os.ReadFile(file)
	if err != nil {
		r.ledger.Refuse(at, importer.RuleInvalid, fmt.Sprintf("%s cannot be read", r.display(file)), "Make it readable.")
		return nil, false
	}
	return text, true
}

func (r *reader) outside(at importer.Position, file string) {
	r.ledger.Refuse(at, "outside-project", fmt.Sprintf("%s is outside the project %s", r.display(file), r.root), "Say --root DIR, if it may be read.")
}

// parse adds a file to the ledger, and the files that it names in extends and include.
func (r *reader) parse(name, file string, text []byte, main bool, within []string) error {
	if slices.Contains(within, file) || slices.ContainsFunc(r.docs, func(d document) bool { return d.file == file }) {
		return nil // compose-go reports cycles
	}
	roots, err := r.ledger.YAML(name, text)
	if err != nil {
		return err
	}
	for _, root := range roots {
		if root.Kind != importer.Map {
			return &importer.SyntaxError{Position: root.At, Message: "a Compose file is a map with services"}
		}
		r.docs = append(r.docs, document{file, root, main})
	}
	if main {
		if len(roots) == 1 && isVersion1(roots[0]) {
			r.v1 = true
			if text, err = wrap(text); err != nil {
				return &importer.SyntaxError{Position: roots[0].At, Message: "the file cannot be read as a Compose file of version 1"}
			}
		}
		r.files = append(r.files, types.ConfigFile{Filename: file, Content: text})
	}
	if len(r.docs) > maxFiles {
		return &importer.SyntaxError{Position: importer.Position{File: name}, Message: fmt.Sprintf("extends and include bring more than %d files", maxFiles)}
	}
	within = append(within, file)
	for _, root := range roots {
		for _, n := range r.fileReferences(root) {
			path := r.substitute(n.Peek())
			if path == "" || strings.Contains(path, "://") || strings.HasPrefix(path, "oci:") || strings.HasPrefix(path, "git@") {
				if path != "" {
					n.Refuse("missing-file", fmt.Sprintf("%s is not on this machine", path), "Fetch it and name the local copy.")
				}
				continue
			}
			if !filepath.IsAbs(path) {
				path = filepath.Join(filepath.Dir(file), path)
			}
			if info, err := os.Stat(path); err == nil && info.IsDir() {
				continue // compose-go says what is missing in it
			}
			text, ok := r.readFile(n.At, path, true)
			if !ok {
				continue
			}
			if err := r.parse(r.display(path), path, text, false, within); err != nil {
				return err
			}
		}
		r.checkFiles(root, filepath.Dir(file))
	}
	return nil
}

// fileReferences are the nodes that name other Compose files.
func (r *reader) fileReferences(root *importer.Node) []*importer.Node {
	var all []*importer.Node
	scalars := func(n *importer.Node) {
		if n == nil {
			return
		}
		if n.Kind == importer.Scalar {
			all = append(all, n)
		}
		all = append(all, n.Items()...)
	}
	for _, n := range root.Get("include").Items() {
		if n.Kind == importer.Scalar {
			all = append(all, n)
		} else {
			scalars(n.Get("path"))
		}
	}
	services := root.Get("services")
	if isVersion1(root) {
		services = root
	}
	for _, s := range services.Fields() {
		if n := s.Get("extends", "file"); n != nil {
			all = append(all, n)
		}
	}
	return all
}

// checkFiles refuses files outside the root that compose-go would read.
func (r *reader) checkFiles(root *importer.Node, dir string) {
	check := func(n *importer.Node) {
		path := r.substitute(n.Peek())
		if path == "" {
			return
		}
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		if !r.inRoot(path) {
			r.outside(n.Pos(), path)
		} else if info, err := os.Stat(path); err == nil && info.Size() > importer.MaxFile {
			r.ledger.Refuse(n.Pos(), importer.RuleInvalid, fmt.Sprintf("%s has %d MiB", r.display(path), info.Size()>>20), fmt.Sprintf("An input may have %d MiB.", importer.MaxFile>>20))
		}
	}
	list := func(n *importer.Node) {
		if n == nil {
			return
		}
		if n.Kind == importer.Scalar {
			check(n)
		}
		if n.Kind == importer.List {
			for _, item := range n.Items() {
				if item.Kind == importer.Map {
					item = item.Get("path")
				}
				check(item)
			}
		}
	}
	services := root.Get("services")
	if isVersion1(root) {
		services = root
	}
	for _, s := range services.Fields() {
		list(s.Get("env_file"))
		list(s.Get("label_file"))
	}
	for _, n := range root.Get("include").Items() {
		if n.Kind == importer.Map {
			list(n.Get("env_file"))
		}
	}
	for _, kind := range []string{"configs", "secrets"} {
		for _, n := range root.Get(kind).Fields() {
			check(n.Get("file"))
		}
	}
}

// substitute interpolates a text; it returns "" for an invalid one, which compose-go
// reports.
func (r *reader) substitute(s string) string {
	out, err := template.SubstituteWithOptions(s, r.env.Resolve, template.WithoutLogging)
	if err != nil {
		return ""
	}
	return out
}

// isVersion1 reports whether a file has its services at the top.
func isVersion1(root *importer.Node) bool {
	services := 0
	for _, key := range root.Keys() {
		switch key {
		case "services", "version", "name", "include", "networks", "volumes", "secrets", "configs", "models", "jobs":
			return false
		}
		n := root.Get(key)
		if n.Get("image") != nil || n.Get("build") != nil || n.Get("extends") != nil {
			services++
		}
	}
	return services > 0
}

// wrap makes a file of version 1 one of today, with the keys that were renamed.
func wrap(text []byte) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("no mapping")
	}
	services := doc.Content[0]
	for i := 1; i < len(services.Content); i += 2 {
		modernise(services.Content[i])
	}
	scalar := func(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }
	return yaml.Marshal(&yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: []*yaml.Node{scalar("services"), services}})
}

// modernise renames the keys of a service of version 1.
func modernise(s *yaml.Node) {
	if s.Kind != yaml.MappingNode {
		return
	}
	scalar := func(v string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: v} }
	var kept, logging []*yaml.Node
	var build, dockerfile *yaml.Node
	for i := 0; i+1 < len(s.Content); i += 2 {
		key, value := s.Content[i], s.Content[i+1]
		switch key.Value {
		case "net":
			kept = append(kept, scalar("network_mode"), value)
		case "log_driver":
			logging = append(logging, scalar("driver"), value)
		case "log_opt":
			logging = append(logging, scalar("options"), value)
		case "dockerfile":
			dockerfile = value
		case "build":
			build = value
		default:
			kept = append(kept, key, value)
		}
	}
	if len(logging) > 0 {
		kept = append(kept, scalar("logging"), &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: logging})
	}
	if build != nil {
		if dockerfile != nil {
			build = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: []*yaml.Node{scalar("context"), build, scalar("dockerfile"), dockerfile}}
		}
		kept = append(kept, scalar("build"), build)
	}
	s.Content = kept
}

// load has compose-go load the project. It reports a mistake in the input and returns
// false for one.
func (r *reader) load(ctx context.Context) (ok bool) {
	defer func() {
		if p := recover(); p != nil {
			r.ledger.Refuse(r.docs[0].root.At, importer.RuleInvalid, "Compose's library cannot read the file", "Check it with docker compose config.")
			ok = false
		}
	}()
	name := r.src.Name
	explicit := name != ""
	if !explicit {
		if name = r.env["COMPOSE_PROJECT_NAME"]; name != "" {
			explicit = true
		} else {
			name = filepath.Base(r.dir)
		}
	}
	if name = loader.NormalizeProjectName(name); name == "" {
		name = "stack"
	}
	env := maps.Clone(r.env)
	project, err := loader.LoadWithContext(ctx, types.ConfigDetails{WorkingDir: r.dir, ConfigFiles: r.files, Environment: env}, func(o *loader.Options) {
		o.SetProjectName(name, explicit)
		o.Profiles = r.src.Profiles
	})
	if err != nil {
		at := r.locate(err.Error())
		r.ledger.Refuse(at, importer.RuleInvalid, "Compose refuses the file: "+r.message(err), "Correct it; docker compose config shows the same mistake.")
		return false
	}
	r.project = project
	return true
}

var (
	lineOf    = regexp.MustCompile(`line (\d+)`)
	pathOf    = regexp.MustCompile(`\b((?:services|networks|volumes|secrets|configs)(?:\.[A-Za-z0-9_-]+)+)`)
	serviceOf = regexp.MustCompile(`service ["']?([A-Za-z0-9_.-]+)["']?`)
	quotedOf  = regexp.MustCompile(`'([A-Za-z0-9_.-]+)'|"([A-Za-z0-9_.-]+)"`)
)

// locate finds the place that a message of compose-go speaks of.
func (r *reader) locate(msg string) importer.Position {
	file := r.docs[0]
	for _, d := range r.docs {
		if strings.Contains(msg, d.file) || strings.Contains(msg, filepath.Base(d.file)) && !strings.Contains(msg, file.file) {
			file = d
		}
	}
	at := file.root.At
	if m := lineOf.FindStringSubmatch(msg); m != nil {
		at.Line, _ = strconv.Atoi(m[1])
		at.Column = 1
		return at
	}
	find := func(keys []string) *importer.Node {
		for _, d := range append([]document{file}, r.docs...) {
			n := d.root
			if r.v1 && keys[0] == "services" {
				keys = keys[1:]
			}
			var last *importer.Node
			for _, k := range keys {
				if n = n.Get(k); n == nil {
					break
				}
				last = n
			}
			if last != nil && last.At.Line > 0 {
				return last
			}
		}
		return nil
	}
	if m := pathOf.FindStringSubmatch(msg); m != nil {
		if n := find(strings.Split(m[1], ".")); n != nil {
			at = n.At
			for _, q := range quotedOf.FindAllStringSubmatch(msg, -1) {
				if c := n.Get(q[1] + q[2]); c != nil {
					return c.At
				}
			}
			return at
		}
	}
	if n := r.named(msg); n != nil {
		return n.At
	}
	if m := serviceOf.FindStringSubmatch(msg); m != nil {
		if n := find([]string{"services", m[1]}); n != nil {
			return n.At
		}
	}
	for _, q := range quotedOf.FindAllStringSubmatch(msg, -1) {
		if n := find([]string{q[1] + q[2]}); n != nil {
			return n.At
		}
	}
	// Many messages end with the value that cannot be read.
	value := strings.Trim(msg[strings.LastIndex(msg, ": ")+1:], " \"'")
	for _, d := range append([]document{file}, r.docs...) {
		for _, n := range (nodes{r.servicesOf(d)}).scalars() {
			if len(value) > 1 && strings.Contains(r.substitute(n.Peek()), value) {
				return n.At
			}
		}
	}
	return at
}

// named finds the name of a file of variables or of labels that a message speaks of.
func (r *reader) named(msg string) *importer.Node {
	for _, d := range r.docs {
		for _, s := range r.servicesOf(d).Fields() {
			for _, n := range (nodes{s.Get("env_file"), s.Get("label_file")}).scalars() {
				file := r.substitute(n.Peek())
				if !filepath.IsAbs(file) {
					file = filepath.Join(filepath.Dir(d.file), file)
				}
				if n.Peek() != "" && strings.Contains(msg, " "+file+" ") {
					return n
				}
			}
		}
	}
	return nil
}

// message is an error of compose-go with paths as the operator wrote them.
func (r *reader) message(err error) string {
	msg := strings.ReplaceAll(err.Error(), "\n", " ")
	msg = strings.ReplaceAll(msg, r.cwd+string(filepath.Separator), "")
	return strings.TrimSpace(strings.TrimSuffix(msg, ": invalid compose project"))
}

// Match reports whether a document is a Compose file.
func Match(root *importer.Node) bool {
	if root.Kind != importer.Map || root.Get("apiVersion") != nil {
		return false
	}
	if root.Get("services").Exists() && root.Get("services").Kind == importer.Map {
		return true
	}
	if root.Get("include") != nil && root.Get("include").Kind == importer.List {
		return true
	}
	return isVersion1(root)
}
