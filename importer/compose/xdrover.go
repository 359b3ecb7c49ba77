package compose

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/drover-nomad/drover/importer"
)

// overrides reads x-drover of the services: what an operator says with flags. A flag
// counts before it.
func (r *reader) overrides() {
	images, kinds := maps.Clone(r.src.Images), maps.Clone(r.src.Kinds)
	if images == nil {
		images = map[string]string{}
	}
	if kinds == nil {
		kinds = map[string]string{}
	}
	r.memory = map[string]int{}
	said := importer.Overrides{Ports: map[string][]int{}, Routes: map[string][]string{}, Publish: map[string]string{}}
	for _, name := range r.project.ServiceNames() {
		label := r.labels[name]
		for _, n := range r.at(name).get("x-drover") {
			for _, c := range n.Fields() {
				if !slices.Contains([]string{"image", "kind", "publish", "port", "route", "memory"}, c.Key) {
					continue // reported as not imported
				}
				values := r.scalarsOf(c)
				bad := func(want string) {
					c.Refuse(importer.RuleInvalid, fmt.Sprintf("%s of x-drover of %s is %s", c.Key, name, want), "Correct it, or leave it out and use a flag of drover import.")
				}
				one := func(allowed ...string) string {
					if len(values) == 1 && (len(allowed) == 0 && values[0] != "" || slices.Contains(allowed, values[0])) {
						return values[0]
					}
					bad("one of " + strings.Join(allowed, ", "))
					return ""
				}
				switch c.Key {
				case "image":
					if v := one(); v != "" && r.src.Images[name] == "" {
						images[name] = v
					}
				case "kind":
					if v := one(importer.KindService, importer.KindBatch, importer.KindSystem, importer.KindSysbatch); v != "" && r.src.Kinds[name] == "" {
						kinds[name] = v
					}
				case "publish":
					said.Publish[label] = one(importer.PublishMesh, importer.PublishStatic, importer.PublishEdge)
				case "port":
					said.Ports[label] = nil // a later file replaces the ports
					for _, v := range values {
						port, err := strconv.Atoi(v)
						if err != nil || port < 1 || port > 65535 {
							bad("a port, or a list of ports, from 1 to 65535")
							break
						}
						said.Ports[label] = append(said.Ports[label], port)
					}
				case "route":
					said.Routes[label] = nil
					for _, v := range values {
						if !importer.IsRoute(v) {
							bad("HOST, HOST/PATH or a list of them, with a host name and a plain path")
							break
						}
						said.Routes[label] = append(said.Routes[label], v)
					}
				case "memory":
					v := one()
					if mb, err := strconv.Atoi(v); err == nil && mb > 0 {
						r.memory[name] = mb
					} else if b := bytesOf(v); b > 0 {
						r.memory[name] = int((b + 1<<20 - 1) >> 20)
					} else if v != "" {
						bad("MB, or a size such as 512m")
					}
				}
			}
		}
		maps.DeleteFunc(said.Routes, func(_ string, all []string) bool { return len(all) == 0 })
	}
	r.src.Images, r.src.Kinds, r.m.Overrides = images, kinds, said
}

// scalarsOf takes a scalar, or a list of them, and returns the values.
func (r *reader) scalarsOf(n *importer.Node) []string {
	if n.Kind != importer.List {
		return []string{r.substitute(n.Text())}
	}
	var all []string
	for _, c := range n.Items() {
		all = append(all, r.substitute(c.Text()))
	}
	return all
}
