// Package jobs holds the stacks that ship inside drover.
package jobs

import (
	"embed"
	"fmt"
	"io/fs"
)

//go:embed all:drover all:edge all:edge-nginx all:ocis
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

// Stack is the directory of one shipped stack.
func Stack(name string) (fs.FS, error) {
	for _, n := range Names() {
		if n == name {
			return fs.Sub(files, name)
		}
	}
	return nil, fmt.Errorf("no stack %q ships with drover", name)
}
