package importer

import (
	"maps"
	"path"
	"slices"
	"time"
)

// Defaults of the stack.
const (
	defaultCPU    = 100
	defaultMemory = 512
	mhzPerCore    = 1000
)

// OutFile is a file of a stack.
type OutFile struct {
	Path string // with slashes, below the stack's directory
	Text []byte
	Mode uint32
}

// writer turns a model into the files of a stack.
type writer struct {
	m   *Model
	net *network
	out map[string]OutFile

	killTimeout           time.Duration // of all tasks, 0 if they differ
	usesMemory, usesCores bool
}

// write returns the files of the stack in the order of their paths, without
// IMPORT.md.
func write(m *Model) *writer {
	w := &writer{m: m, net: plan(m), out: map[string]OutFile{}}
	w.killTimeout = commonKillTimeout(m)
	for _, s := range m.Services {
		w.add(s.Name+".nomad.hcl", w.job(s))
	}
	if w.net.needsMesh() {
		w.add(w.net.mesh+".nomad.hcl", w.meshJob())
	}
	if slices.ContainsFunc(m.Services, layered) {
		w.add("_base.nomad.hcl", w.base())
	}
	w.add("variables.hcl", w.variables())
	w.add("stack.hcl", w.stack())
	w.add("environments/default.hcl", w.environment())
	for name, text := range m.Files {
		w.add(path.Join("files", name), text)
	}
	if len(m.Secrets) > 0 {
		w.out["secrets.yaml"] = OutFile{Path: "secrets.yaml", Text: w.secrets(), Mode: 0o600}
		w.add(".gitignore", []byte("# The secrets of the imported application, in clear.\nsecrets.yaml\n"))
	}
	return w
}

// commonKillTimeout is the kill_timeout that most tasks have. It returns 0 unless all
// tasks have one.
func commonKillTimeout(m *Model) time.Duration {
	count := map[time.Duration]int{}
	for _, s := range m.Services {
		for _, t := range s.Tasks {
			count[t.KillTimeout]++
		}
	}
	if count[0] > 0 {
		return 0
	}
	best := time.Duration(0)
	for d, n := range count {
		if n > count[best] || n == count[best] && d < best {
			best = d
		}
	}
	return best
}

// layered reports whether the base is under the job of a service.
func layered(s *Service) bool { return s.Spec == nil }

func (w *writer) add(name string, text []byte) {
	w.out[name] = OutFile{Path: name, Text: text, Mode: 0o644}
}

// files returns the files in the order of their paths.
func (w *writer) files() []OutFile {
	var all []OutFile
	for _, name := range slices.Sorted(maps.Keys(w.out)) {
		all = append(all, w.out[name])
	}
	return all
}
