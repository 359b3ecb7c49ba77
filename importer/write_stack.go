package importer

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

func (w *writer) stack() []byte {
	d := &document{}
	if w.m.Description != "" {
		d.comment(w.m.Description)
	}
	d.block("stack", []string{w.m.Name}, func() {
		d.attr("version", `"0.1.0"`)
		if len(w.m.Requires) > 0 {
			d.attr("requires_jobs", quotes(w.m.Requires))
		}
	})
	if w.net.needsMesh() {
		d.gap()
		d.comment("The names and the published ports of the services, on every node.")
		d.line("service %s {}", Quote(w.net.mesh))
	}
	for _, s := range w.m.Services {
		after := slices.Clone(s.DependsOn)
		if len(w.net.hosts[s.Name]) > 0 {
			after = append([]string{w.net.mesh}, after...)
		}
		items := w.secretsOf(s)
		d.block("service", []string{s.Name}, func() {
			if len(after) > 0 {
				d.attr("depends_on", quotes(after))
			}
			if len(items) > 0 {
				d.attr("secrets", quotes(items))
			}
			if t := w.timeout(s); t > 15*time.Minute {
				d.attr("timeout", duration(t))
			}
		})
	}
	for _, s := range w.m.Secrets {
		d.block("secret", []string{s.Name}, func() {
			d.attr("type", `"given"`)
			if s.Description != "" {
				d.attr("description", Quote(s.Description))
			}
		})
	}
	for _, v := range w.m.Volumes {
		d.gap()
		if v.Comment != "" {
			d.comment(v.Comment)
		}
		d.block2("volume", v.Name, func() {
			if len(v.Parameters) > 0 {
				var all []string
				for _, k := range slices.Sorted(maps.Keys(v.Parameters)) {
					all = append(all, k+" = "+Quote(v.Parameters[k]))
				}
				d.attr("parameters", "{ "+strings.Join(all, ", ")+" }")
			}
		})
	}
	for _, c := range w.m.Certificates {
		d.block("certificate", []string{cmp.Or(c.Name, w.m.Name)}, func() { d.attr("names", list(c.Names)) })
	}
	return d.bytes()
}

// block2 is block without a gap before it.
func (d *document) block2(typ, label string, body func()) {
	d.line("%s %s {", typ, Quote(label))
	body()
	d.line("}")
}

func (w *writer) timeout(s *Service) time.Duration {
	if s.Update != nil && s.Update.ProgressDeadline != nil {
		return *s.Update.ProgressDeadline + time.Minute
	}
	return 0
}

// secretsOf returns the items that the tasks of a service read, in order.
func (w *writer) secretsOf(s *Service) []string {
	used := map[string]bool{}
	for _, name := range s.SpecSecrets {
		used[name] = true
	}
	for _, t := range s.Tasks {
		for _, v := range t.Env {
			for _, name := range v.Value.Secrets() {
				used[name] = true
			}
		}
		for _, f := range t.Files {
			for _, name := range f.Content.Secrets() {
				used[name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(used))
}

func (w *writer) variables() []byte {
	d := &document{}
	if slices.ContainsFunc(w.m.Services, layered) {
		d.block("variable", []string{"datacenters"}, func() {
			d.attr("type", "list(string)")
			d.attr("description", `"Datacenters in which the services may run."`)
			d.attr("default", `["*"]`)
		})
	} else if len(w.m.Variables) == 0 {
		d.comment("Variables of the stack. The jobs have none yet.")
	}
	if w.usesMemory {
		d.block("variable", []string{"memory"}, func() {
			d.attr("type", "map(number)")
			d.attr("description", `"Memory in MB by service, for those whose input does not say how much they need."`)
			d.attr("default", "{}")
		})
	}
	if w.usesCores {
		d.block("variable", []string{"mhz_per_core"}, func() {
			d.attr("type", "number")
			d.attr("description", `"MHz that Nomad counts for one CPU of the input."`)
			d.attr("default", itoa(mhzPerCore))
		})
	}
	for _, v := range w.m.Variables {
		d.block("variable", []string{v.Name}, func() {
			d.attr("type", cmp.Or(v.Type, "string"))
			if v.Description != "" {
				d.attr("description", Quote(v.Description))
			}
			if v.Default != "" {
				d.attr("default", v.Default)
			}
		})
	}
	if slices.ContainsFunc(w.m.Services, func(s *Service) bool { return s.DNS != nil && s.DNS.byName }) {
		d.block("variable", []string{"mesh_dns"}, func() {
			d.attr("type", "list(string)")
			d.attr("description", `"DNS servers of the containers, on port 53. They must know the names of Consul."`)
			d.attr("default", `["$${attr.unique.network.ip-address}"]`)
		})
	}
	if w.net.needsMesh() {
		d.gap()
		d.b.WriteString(meshVariables)
		if w.m.network == "" {
			d.b.WriteString(meshRange)
		}
	}
	return d.bytes()
}

func (w *writer) environment() []byte {
	d := &document{}
	d.comment("Values for drover deploy without -e. Copy this file to another name for another environment: environments/prod.hcl is -e prod.")
	d.line("variables {}")
	return d.bytes()
}

func (w *writer) secrets() []byte {
	all := map[string]string{}
	for _, s := range w.m.Secrets {
		all[s.Name] = s.Value
	}
	// The file of drover secrets export, layout 1.
	text, err := yaml.Marshal(struct {
		Layout      int               `yaml:"layout"`
		Stack       string            `yaml:"stack"`
		Environment string            `yaml:"environment"`
		Secrets     map[string]string `yaml:"secrets"`
	}{1, w.m.Name, "default", all})
	if err != nil {
		return nil
	}
	return append([]byte("# For drover secrets import. Delete this file afterwards.\n"), text...)
}
