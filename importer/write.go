package importer

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/drover-nomad/drover/render"

	"gopkg.in/yaml.v3"
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

// pattern matches the jobs of all services of these kinds.
func (w *writer) pattern(kinds ...string) string {
	var names []string
	for _, s := range w.m.Services {
		if layered(s) && slices.Contains(kinds, cmp.Or(s.Kind, KindService)) {
			names = append(names, s.Name)
		}
	}
	switch {
	case len(names) == 0:
		return ""
	case len(names) == len(w.m.Services):
		return w.m.Name + "-*"
	case len(names) == 1:
		return w.m.Name + "-" + names[0]
	}
	return w.m.Name + "-{" + strings.Join(names, ",") + "}"
}

func (w *writer) base() []byte {
	d := &document{}
	d.comment("The layer under the jobs of the stack, except the mesh.")
	hosts := w.net.common
	if len(hosts) > 0 {
		d.gap()
		d.line("locals {")
		d.comment("Names of the services, as they call one another, and the addresses on which the mesh of each node listens for them.")
		d.attr("hosts", quotes(hosts))
		d.line("}")
	}
	all, services := w.pattern(KindService, KindBatch, KindSystem, KindSysbatch), w.pattern(KindService)
	d.block("job", []string{all}, func() {
		d.attr("datacenters", "var.datacenters")
		if services == all {
			d.attr("type", `"service"`)
		}
		d.block("group", []string{"*"}, func() {
			if services == all {
				w.serviceBase(d)
			}
			d.gap()
			d.comment("A process that ends starts again on its node, and is never given up.")
			d.line("restart {")
			d.attr("attempts", "20")
			d.attr("interval", `"5m"`)
			d.attr("delay", `"1s"`)
			d.attr("mode", `"delay"`)
			d.line("}")
			d.block("task", []string{"*"}, func() {
				if w.killTimeout > 0 {
					d.attr("kill_timeout", duration(w.killTimeout))
				}
				if len(hosts) > 0 {
					d.block("config", nil, func() { d.attr("extra_hosts", "local.hosts") })
				}
				d.block("logs", nil, func() {
					d.attr("max_files", "3")
					d.attr("max_file_size", "10")
				})
			})
		})
	})
	if services != "" && services != all {
		d.block("job", []string{services}, func() {
			d.attr("type", `"service"`)
			d.block("group", []string{"*"}, func() { w.serviceBase(d) })
		})
	}
	if p := w.pattern(KindSystem); p != "" {
		d.block("job", []string{p}, func() {
			d.attr("type", `"system"`)
			d.block("group", []string{"*"}, func() {
				d.line("update {")
				d.attr("max_parallel", "1")
				w.updateBase(d)
				d.line("}")
				d.attr("shutdown_delay", `"2s"`)
			})
		})
	}
	return d.bytes()
}

// serviceBase writes what all jobs of type service share.
func (w *writer) serviceBase(d *document) {
	d.comment("The new instance starts beside the old one and takes over when its checks pass.")
	d.line("update {")
	d.attr("max_parallel", "1")
	d.attr("canary", "1")
	d.attr("auto_promote", "true")
	w.updateBase(d)
	d.line("}")
	d.gap()
	d.comment("Instances of a lost node are replaced in any case. Without this, a failed version would be tried elsewhere until progress_deadline.")
	d.line("reschedule {")
	d.attr("attempts", "0")
	d.attr("unlimited", "false")
	d.line("}")
	d.gap()
	d.comment("Consul learns first that an instance stops.")
	d.attr("shutdown_delay", `"2s"`)
}

func (w *writer) updateBase(d *document) {
	d.attr("auto_revert", "true")
	d.attr("health_check", `"checks"`)
	d.attr("min_healthy_time", `"5s"`)
	d.attr("healthy_deadline", `"5m"`)
	d.attr("progress_deadline", `"10m"`)
}

func (w *writer) job(s *Service) []byte {
	if s.Spec != nil {
		return s.Spec
	}
	d := &document{}
	if s.At.File != "" {
		d.comment("From " + s.At.String() + ".")
	}
	for _, c := range s.Comments {
		d.comment(c)
	}
	kind := cmp.Or(s.Kind, KindService)
	d.block2("job", w.m.Name+"-"+s.Name, func() {
		if kind == KindBatch || kind == KindSysbatch {
			d.attr("type", Quote(kind))
		}
		w.periodic(d, s)
		d.block("group", []string{s.Name}, func() { w.group(d, s, kind) })
	})
	return d.bytes()
}

func (w *writer) periodic(d *document, s *Service) {
	p := s.Periodic
	if p == nil {
		return
	}
	d.block("periodic", nil, func() {
		d.attr("crons", quotes(p.Crons))
		if p.TimeZone != "" {
			d.attr("time_zone", Quote(p.TimeZone))
		}
		if p.ProhibitOverlap {
			d.attr("prohibit_overlap", "true")
		}
		if p.Disabled {
			d.attr("enabled", "false")
		}
	})
}

func (w *writer) group(d *document, s *Service, kind string) {
	if s.Count != nil && *s.Count != 1 && (kind == KindService || kind == KindBatch) {
		d.attr("count", itoa(*s.Count))
	}
	w.updateOf(d, s, kind)
	w.restart(d, s.Restart)
	w.placement(d, s)
	w.network(d, s)
	w.services(d, s)
	for _, v := range s.Volumes {
		d.block("volume", []string{v.Name}, func() {
			d.attr("type", `"host"`)
			d.attr("source", Quote(v.Source))
			mode := "single-node-writer"
			if v.Shared {
				mode = "single-node-multi-writer"
			}
			if v.ReadOnly {
				d.attr("read_only", "true")
				mode = "single-node-multi-writer"
			}
			d.attr("access_mode", Quote(mode))
			d.attr("attachment_mode", `"file-system"`)
		})
	}
	if s.EphemeralDisk > 0 {
		d.block("ephemeral_disk", nil, func() { d.attr("size", itoa(s.EphemeralDisk)) })
	}
	if s.MigrateParallel > 0 {
		d.block("migrate", nil, func() { d.attr("max_parallel", itoa(s.MigrateParallel)) })
	}
	for i, t := range s.Tasks {
		w.task(d, s, t, i)
	}
}

// updateOf writes what differs from the base.
func (w *writer) updateOf(d *document, s *Service, kind string) {
	if kind != KindService && kind != KindSystem {
		return
	}
	u := Update{}
	if s.Update != nil {
		u = *s.Update
	}
	alone := s.Single
	static := slices.ContainsFunc(s.Ports, func(p Port) bool { return p.Static != 0 }) || s.Network == "host" && slices.ContainsFunc(s.Ports, func(p Port) bool { return !p.Dynamic })
	zero, no := 0, false
	if kind == KindService && (alone || static) {
		u.Canary, u.AutoPromote = &zero, &no
	}
	if kind == KindSystem {
		u.Canary, u.AutoPromote = nil, nil
	}
	if u.Canary != nil && *u.Canary == 0 {
		u.AutoPromote = &no
	}
	unchecked := len(w.checks(s)) == 0
	if u != (Update{}) || unchecked {
		d.gap()
		switch {
		case static && kind == KindService:
			d.comment("A second instance cannot have the same port of a node: the old one stops first.")
		case alone:
			d.comment("The old instance stops before the new one opens its data.")
		}
		d.line("update {")
		num := func(name string, v *int) {
			if v != nil {
				d.attr(name, itoa(*v))
			}
		}
		flag := func(name string, v *bool) {
			if v != nil {
				d.attr(name, fmt.Sprint(*v))
			}
		}
		span := func(name string, v *time.Duration) {
			if v != nil {
				d.attr(name, duration(*v))
			}
		}
		num("max_parallel", u.MaxParallel)
		num("canary", u.Canary)
		flag("auto_promote", u.AutoPromote)
		flag("auto_revert", u.AutoRevert)
		if unchecked {
			d.attr("health_check", `"task_states"`)
		}
		span("min_healthy_time", u.MinHealthyTime)
		span("healthy_deadline", u.HealthyDeadline)
		span("progress_deadline", u.ProgressDeadline)
		d.line("}")
	}
	switch {
	case s.ShutdownDelay != nil:
		d.attr("shutdown_delay", duration(*s.ShutdownDelay))
	case alone && len(registered(s)) > 0:
		d.attr("shutdown_delay", `"0s"`)
	}
}

func (w *writer) restart(d *document, r *Restart) {
	if r == nil {
		return
	}
	d.block("restart", nil, func() {
		d.attr("attempts", itoa(r.Attempts))
		if r.Interval > 0 {
			d.attr("interval", duration(max(r.Interval, 5*time.Second)))
		}
		if r.Delay > 0 {
			d.attr("delay", duration(r.Delay))
		}
		d.attr("mode", Quote(cmp.Or(r.Mode, "fail")))
	})
}

func (w *writer) placement(d *document, s *Service) {
	for _, c := range s.Constraints {
		typ := "constraint"
		if c.Weight != 0 {
			typ = "affinity"
		}
		d.block(typ, nil, func() {
			if c.Attribute != "" {
				d.attr("attribute", Quote(c.Attribute))
				// ${…} is Nomad's here, not HCL's.
			}
			switch {
			case c.Attribute != "" && c.Value == "" && (c.Operator == "" || c.Operator == "=" || c.Operator == "=="):
				d.attr("operator", `"is_set"`) // Nomad compares with no empty text
			case c.Operator == "" || c.Operator == "=" || c.Operator == "==":
			default:
				d.attr("operator", Quote(c.Operator))
			}
			if c.Value != "" {
				d.attr("value", Quote(c.Value))
			}
			if c.Weight != 0 {
				d.attr("weight", itoa(c.Weight))
			}
		})
	}
	for _, a := range s.Spreads {
		d.block("spread", nil, func() { d.attr("attribute", Quote(a)) })
	}
}

func (w *writer) network(d *document, s *Service) {
	mode := cmp.Or(s.Network, "bridge")
	if mode == "none" && len(s.Ports) == 0 {
		return // the driver's own setting says so
	}
	d.block("network", nil, func() {
		d.attr("mode", Quote(mode))
		if !s.Hostname.Empty() && mode == "bridge" {
			d.attr("hostname", s.Hostname.HCL())
		}
		labels := map[string]bool{}
		for _, p := range s.Ports {
			if labels[p.label()] {
				continue // of TCP and UDP
			}
			labels[p.label()] = true
			d.gap()
			if p.Reason != "" {
				d.comment(p.Reason)
			}
			d.line("port %s {", Quote(p.label()))
			static := p.Static
			if mode == "host" && static == 0 && !p.Dynamic {
				static = p.Number
			}
			for _, other := range s.Ports {
				if other.label() == p.label() && other.Static != 0 {
					static = other.Static
				}
			}
			if static != 0 {
				d.attr("static", itoa(static))
			}
			if mode != "host" && !p.Dynamic {
				d.attr("to", itoa(p.Number))
			}
			d.line("}")
		}
		if s.DNS != nil {
			d.block("dns", nil, func() {
				switch {
				case s.DNS.byName && len(s.DNS.Servers) > 0:
					d.attr("servers", "concat(var.mesh_dns, "+quotes(s.DNS.Servers)+")")
				case s.DNS.byName:
					d.attr("servers", "var.mesh_dns")
				case len(s.DNS.Servers) > 0:
					d.attr("servers", quotes(s.DNS.Servers))
				}
				for _, x := range []struct {
					name string
					all  []string
				}{{"searches", s.DNS.Searches}, {"options", s.DNS.Options}} {
					if len(x.all) > 0 {
						d.attr(x.name, quotes(x.all))
					}
				}
			})
		}
	})
}

// checks returns the checks of a service with their ports. Without any, the first
// port is connected to, unless it is assumed.
func (w *writer) checks(s *Service) []Check {
	if s.NoCheck {
		return nil
	}
	first := firstPort(s)
	if len(s.Checks) > 0 {
		return slices.DeleteFunc(slices.Clone(s.Checks), func(c Check) bool { return first == nil && c.Type != "script" })
	}
	if first == nil || first.Assumed {
		return nil
	}
	return []Check{{Type: "tcp"}}
}

func (w *writer) services(d *document, s *Service) {
	checks := w.checks(s)
	ports := registered(s)
	for i, p := range ports {
		d.block("service", nil, func() {
			d.attr("name", Quote(w.net.consulName(s, p)))
			d.attr("port", Quote(p.label()))
			d.attr("provider", `"consul"`)
			tags := p.Tags
			if i == 0 {
				tags = slices.Concat(s.Tags, p.Tags)
			}
			if len(tags) > 0 {
				d.attr("tags", list(tags))
			}
			if i == 0 && len(s.Meta) > 0 {
				var all []EnvVar
				for _, k := range slices.Sorted(maps.Keys(s.Meta)) {
					all = append(all, EnvVar{k, Lit(s.Meta[k])})
				}
				d.pairs("meta", all)
			}
			for j, c := range checks {
				if c.Port == p.Number || c.Port == 0 && i == 0 || i == 0 && !slices.ContainsFunc(ports, func(o Port) bool { return o.Number == c.Port }) {
					w.check(d, s, c, j)
				}
			}
			// The other ports have no check of their own: the input does not say that
			// the service listens on them, and a check that fails stops the deployment.
		})
	}
	w.names(d, s, checks)
	if len(ports) > 0 {
		return
	}
	// Without a port, a script decides about the health of the service.
	scripts := slices.DeleteFunc(slices.Clone(checks), func(c Check) bool { return c.Type != "script" })
	if len(scripts) == 0 {
		return
	}
	d.block("service", nil, func() {
		d.attr("name", Quote(shorten(w.m.Name+"-"+s.Name, 63)))
		d.attr("provider", `"consul"`)
		for j, c := range scripts {
			w.check(d, s, c, j)
		}
	})
}

// names registers the names of a service for Consul's DNS.
func (w *writer) names(d *document, s *Service, checks []Check) {
	names := w.m.dnsNames(s)
	if len(names) == 0 {
		return
	}
	port := &s.Ports[0]
	if first := firstPort(s); first != nil {
		port = first
	}
	d.gap()
	d.comment("Its names in DNS, which are tags: NAME." + w.m.namesService() + ".service.consul.")
	d.line("service {")
	d.attr("name", Quote(w.m.namesService()))
	d.attr("port", Quote(port.label()))
	d.attr("provider", `"consul"`)
	d.attr("tags", quotes(names))
	for j, c := range checks {
		if !port.UDP && c.Type != "script" && (c.Port == 0 || c.Port == port.Number) {
			c.Restart = 0 // that of the other service restarts it
			w.check(d, s, c, j)
		}
	}
	d.line("}")
}

func (w *writer) check(d *document, s *Service, c Check, index int) {
	d.block("check", nil, func() {
		if index > 0 {
			d.attr("name", Quote(fmt.Sprintf("%s-%d", c.Type, index+1)))
		}
		d.attr("type", Quote(c.Type))
		switch c.Type {
		case "script":
			d.attr("task", Quote(cmp.Or(c.Task, s.Tasks[0].Name)))
			d.attr("command", Quote(c.Command))
			d.attr("args", quotes(c.Args))
		case "http":
			d.attr("path", Quote(cmp.Or(c.Path, "/")))
			if c.Protocol != "" {
				d.attr("protocol", Quote(c.Protocol))
				if c.Protocol == "https" {
					d.attr("tls_skip_verify", "true")
				}
			}
			if c.Method != "" && c.Method != "GET" {
				d.attr("method", Quote(c.Method))
			}
			if len(c.Header) > 0 {
				d.line("header {")
				for _, k := range slices.Sorted(maps.Keys(c.Header)) {
					d.attr(k, "["+Quote(c.Header[k])+"]")
				}
				d.line("}")
			}
		}
		d.attr("interval", duration(max(cmp.Or(c.Interval, 10*time.Second), time.Second)))
		d.attr("timeout", duration(max(cmp.Or(c.Timeout, 5*time.Second), time.Second)))
		if c.Type != "script" {
			if c.Failures > 1 {
				d.attr("failures_before_critical", itoa(c.Failures))
			}
			if c.Passes > 1 {
				d.attr("success_before_passing", itoa(c.Passes))
			}
		}
		if c.OnUpdate != "" {
			d.attr("on_update", Quote(c.OnUpdate))
		}
		if c.Restart > 0 {
			d.line("check_restart {")
			d.attr("limit", itoa(c.Restart))
			d.attr("grace", duration(cmp.Or(c.Grace, time.Second)))
			d.line("}")
		}
	})
}

func (w *writer) task(d *document, s *Service, t *Task, index int) {
	d.gap()
	for _, c := range t.Comments {
		d.comment(c)
	}
	driver := cmp.Or(t.Driver, "docker")
	d.line("task %s {", Quote(t.Name))
	d.attr("driver", Quote(driver))
	if !t.User.Empty() {
		d.attr("user", t.User.HCL())
	}
	if t.Leader {
		d.attr("leader", "true")
	}
	if t.KillSignal != "" {
		d.attr("kill_signal", Quote(t.KillSignal))
	}
	if t.KillTimeout > 0 && t.KillTimeout != w.killTimeout {
		d.attr("kill_timeout", duration(t.KillTimeout))
	}
	if t.Hook != "" {
		d.block("lifecycle", nil, func() {
			d.attr("hook", Quote(t.Hook))
			d.attr("sidecar", fmt.Sprint(t.Sidecar))
		})
	}
	w.restart(d, t.Restart)
	w.config(d, s, t, driver)
	for _, a := range t.Artifacts {
		d.block("artifact", nil, func() {
			d.attr("source", Quote(a.Source))
			if a.Destination != "" {
				d.attr("destination", Quote(a.Destination))
			}
			if a.Mode != "" {
				d.attr("mode", Quote(a.Mode))
			}
		})
	}
	for _, v := range t.Volumes {
		d.block("volume_mount", nil, func() {
			d.attr("volume", Quote(v.Volume))
			d.attr("destination", Quote(v.Target))
			if v.ReadOnly {
				d.attr("read_only", "true")
			}
			if v.Propagation != "" {
				d.attr("propagation_mode", Quote(v.Propagation))
			}
		})
	}
	w.env(d, s, t)
	for _, f := range t.Files {
		w.file(d, s, f)
	}
	w.resources(d, s, t)
	if t.LogFiles > 0 || t.LogFileMB > 0 {
		d.block("logs", nil, func() {
			if t.LogFiles > 0 {
				d.attr("max_files", itoa(t.LogFiles))
			}
			if t.LogFileMB > 0 {
				d.attr("max_file_size", itoa(t.LogFileMB))
			}
		})
	}
	d.line("}")
}

func (w *writer) config(d *document, s *Service, t *Task, driver string) {
	d.block("config", nil, func() {
		if driver != "docker" {
			if !t.Command.Empty() {
				d.attr("command", t.Command.HCL())
			}
			if len(t.Args) > 0 {
				d.attr("args", list(t.Args))
			}
			for _, c := range t.Settings {
				w.setting(d, c)
			}
			return
		}
		d.attr("image", t.Image.HCL())
		if s.Network == "host" || s.Network == "none" {
			d.attr("network_mode", Quote(s.Network))
		}
		if t.Entrypoint != nil {
			d.attr("entrypoint", list(t.Entrypoint))
		}
		if t.Args != nil {
			d.attr("args", list(t.Args))
		}
		if hosts := w.hosts(s); hosts != "" {
			d.attr("extra_hosts", hosts)
		}
		var volumes []Text
		for _, m := range t.Mounts {
			tail := ""
			if m.ReadOnly {
				tail = ":ro"
			}
			switch m.Kind {
			case "host":
				volumes = append(volumes, Lit(m.Source+":"+m.Target+tail))
			case "local", "secrets":
				volumes = append(volumes, Lit(path.Join(m.Kind, m.Source)+":"+m.Target+tail))
			case "alloc":
				volumes = append(volumes, Lit(path.Join("../alloc/data", m.Source)+":"+m.Target+tail))
			}
		}
		for _, f := range t.Files {
			if !f.Covered {
				volumes = append(volumes, Lit(f.destination()+":"+f.Target+":ro"))
			}
		}
		if len(volumes) > 0 {
			d.attr("volumes", list(volumes))
		}
		if r := t.Resources; r.CoresLimit > 0 {
			d.attr("cpu_hard_limit", "true")
		}
		if r := t.Resources; r.Memory > 0 && r.MemoryMax > r.Memory {
			d.attr("memory_hard_limit", itoa(r.MemoryMax))
		}
		for _, c := range t.Settings {
			w.setting(d, c)
		}
		for _, m := range t.Mounts {
			if m.Kind != "tmpfs" {
				continue
			}
			d.block("mount", nil, func() {
				d.attr("type", `"tmpfs"`)
				d.attr("target", Quote(m.Target))
				if m.Size > 0 || m.Mode != "" {
					d.line("tmpfs_options {")
					if m.Size > 0 {
						d.attr("size", fmt.Sprint(m.Size))
					}
					if m.Mode != "" {
						d.attr("mode", m.Mode)
					}
					d.line("}")
				}
			})
		}
	})
}

func (w *writer) setting(d *document, c Setting) {
	if !c.Block {
		d.attr(c.Name, c.Value)
		return
	}
	d.gap()
	d.line("%s {", c.Name)
	d.line("%s", c.Value)
	d.line("}")
}

// hosts returns the expression of extra_hosts, "" if the base has it.
func (w *writer) hosts(s *Service) string {
	own := Lits(w.net.hosts[s.Name])
	common := w.net.common
	if len(common) > 0 {
		if len(s.ExtraHosts) == 0 {
			return ""
		}
		return "concat(local.hosts, " + list(s.ExtraHosts) + ")"
	}
	own = append(own, s.ExtraHosts...)
	if len(own) == 0 {
		return ""
	}
	return list(own)
}

func (w *writer) env(d *document, s *Service, t *Task) {
	var plain, secret []EnvVar
	for _, v := range t.Env {
		if len(v.Value.Secrets()) > 0 {
			secret = append(secret, v)
		} else {
			plain = append(plain, v)
		}
	}
	byName := func(a, b EnvVar) int { return cmp.Compare(a.Name, b.Name) }
	slices.SortStableFunc(plain, byName)
	slices.SortStableFunc(secret, byName)
	d.pairs("env", plain)
	if len(secret) == 0 {
		return
	}
	d.block("template", nil, func() {
		d.attr("destination", `"secrets/env"`)
		d.attr("env", "true")
		d.line("data = <<EOT")
		d.line("%s", "{{ with nomadVar "+render.OwnVariable(s.Periodic != nil)+" -}}")
		for _, v := range secret {
			d.line("%s={{ %s | toJSON }}", v.Name, goTemplate(v.Value))
		}
		d.line("{{ end -}}")
		d.line("EOT")
	})
}

// goTemplate returns a text with secrets as a pipeline of a template.
func goTemplate(t Text) string {
	if len(t) == 1 {
		return "." + t[0].Secret + ".Value"
	}
	format, args := "", ""
	for _, p := range t {
		switch {
		case p.Secret != "":
			format += "%s"
			args += " ." + p.Secret + ".Value"
		case p.Variable != "":
			format += "%s"
			args += ` "${var.` + p.Variable + `}"`
		case p.Runtime != "":
			format += "%s"
			args += ` (env "` + p.Runtime + `")`
		default:
			format += strings.ReplaceAll(p.Literal, "%", "%%")
		}
	}
	return "printf " + escapeTemplate(strconv.Quote(format)) + args
}

// escapeTemplate keeps HCL from reading template sequences in a heredoc.
func escapeTemplate(s string) string {
	return strings.NewReplacer("${", "$${", "%{", "%%{").Replace(s)
}

// destination returns where a file is rendered in the task's directory.
func (f File) destination() string {
	dir := "local"
	if f.IsSecret {
		dir = "secrets"
	}
	return path.Join(dir, f.Target)
}

func (w *writer) file(d *document, s *Service, f File) {
	d.block("template", nil, func() {
		d.attr("destination", Quote(f.destination()))
		switch {
		case f.Path == "":
			literal := ""
			for _, p := range f.Content {
				literal += p.Literal
			}
			left, right := "{{", "}}"
			if strings.Contains(literal, "{{") {
				left, right = "[[[", "]]]"
				d.attr("left_delimiter", Quote(left))
				d.attr("right_delimiter", Quote(right))
			}
			data := ""
			for _, p := range f.Content {
				if p.Secret != "" {
					data += left + " ." + p.Secret + ".Value " + right
				} else {
					data += p.Literal
				}
			}
			if len(f.Content.Secrets()) > 0 {
				data = left + " with nomadVar " + render.OwnVariable(s.Periodic != nil) + " " + right + data + left + " end " + right
			}
			d.attr("data", Quote(data))
		default:
			text := w.m.Files[f.Path]
			name := Quote(path.Join("files", f.Path))
			switch {
			case len(text) == 0: // Nomad refuses a template without a text
				d.attr("data", `"${file(`+name+`)}{{ \"\" }}"`)
			case !utf8.Valid(text):
				d.attr("data", `"{{ base64Decode \"${filebase64(`+name+`)}\" }}"`)
			default:
				if strings.Contains(string(text), "{{") {
					d.attr("left_delimiter", `"[[["`)
					d.attr("right_delimiter", `"]]]"`)
				}
				d.attr("data", "file("+name+")")
			}
		}
		if f.Mode != "" {
			d.attr("perms", Quote(f.Mode))
		}
		if f.UID != "" {
			d.attr("uid", f.UID)
		}
		if f.GID != "" {
			d.attr("gid", f.GID)
		}
	})
}

func (w *writer) resources(d *document, s *Service, t *Task) {
	r := t.Resources
	d.block("resources", nil, func() {
		cores := max(r.Cores, r.CoresLimit)
		switch {
		case r.CPU > 0:
			d.attr("cpu", itoa(r.CPU))
		case cores > 0:
			w.usesCores = true
			d.attr("cpu", fmt.Sprintf("max(1, floor(%s * var.mhz_per_core))", number(cores)))
		case t.Hook != "":
		default:
			d.attr("cpu", itoa(defaultCPU))
		}
		switch {
		case r.Memory > 0:
			d.attr("memory", itoa(max(r.Memory, 10)))
		case r.MemoryMax > 0:
			d.attr("memory", itoa(max(r.MemoryMax, 10)))
		default:
			w.usesMemory = true
			d.attr("memory", fmt.Sprintf("lookup(var.memory, %s, %d)", Quote(t.Name), cmp.Or(knownImage(t.ImageRef).memory, defaultMemory)))
		}
		for _, dev := range r.Devices {
			d.block("device", []string{dev.Name}, func() {
				if dev.Count > 0 {
					d.attr("count", itoa(dev.Count))
				}
			})
		}
	})
}

func number(f float64) string { return strings.TrimSuffix(fmt.Sprintf("%g", f), ".0") }
