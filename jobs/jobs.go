// Package jobs holds the stacks that ship inside drover.
package jobs

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

//go:embed all:autoscaler all:drover all:edge all:edge-base all:edge-nginx all:monitoring all:ocis
var files embed.FS

// Controller is the ID of the job of the controller, and of its service in Consul.
const Controller = "drover-controller"

// Names lists the stacks in alphabetical order.
func Names() []string {
	var names []string
	entries, _ := files.ReadDir(".") // an embedded directory can be read
	for _, e := range entries {
		if _, err := fs.Stat(files, e.Name()+"/stack.hcl"); err == nil {
			names = append(names, e.Name())
		}
	}
	return names
}

// edgeBase is the directory of the files that all edges share. It is no stack.
const edgeBase = "edge-base"

// Stack is the directory of one shipped stack. Each edge has the files of
// edge-base too.
func Stack(name string) (fs.FS, error) {
	if !slices.Contains(Names(), name) {
		return nil, fmt.Errorf("no stack %q ships with drover", name)
	}
	own, err := fs.Sub(files, name)
	if err != nil || !strings.HasPrefix(name, "edge") {
		return own, err
	}
	base, err := fs.Sub(files, edgeBase)
	return overlay{own, base}, err
}

// overlay is a directory with the files of another in its root.
type overlay struct{ own, base fs.FS }

// Open implements fs.FS.
func (o overlay) Open(name string) (fs.File, error) {
	if f, err := o.own.Open(name); !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	return o.base.Open(name)
}

// ReadDir implements fs.ReadDirFS.
func (o overlay) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(o.own, name)
	if err != nil || name != "." {
		return entries, err
	}
	base, err := fs.ReadDir(o.base, ".")
	entries = append(entries, base...)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, err
}
