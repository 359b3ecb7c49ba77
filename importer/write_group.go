package importer

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

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
