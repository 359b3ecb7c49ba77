package importer

import (
	"cmp"
	"slices"
	"strings"
)

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
