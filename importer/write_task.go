package importer

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/drover-nomad/drover/render"
)

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
	common := w.net.common
	if len(common) > 0 {
		if len(s.ExtraHosts) == 0 {
			return ""
		}
		return "concat(local.hosts, " + list(s.ExtraHosts) + ")"
	}
	own := append(Lits(w.net.hosts[s.Name]), s.ExtraHosts...)
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
			left, right := delimiters(d, literal)
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
				delimiters(d, string(text))
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

// delimiters returns those of actions of a template, which the text does not have, and
// writes them if they are not the standard ones.
func delimiters(d *document, text string) (left, right string) {
	if !strings.Contains(text, "{{") {
		return "{{", "}}"
	}
	for left, right = "[[[", "]]]"; strings.Contains(text, left); {
		left, right = left+"[", right+"]"
	}
	d.attr("left_delimiter", Quote(left))
	d.attr("right_delimiter", Quote(right))
	return left, right
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
