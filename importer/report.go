package importer

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// report is IMPORT.md: what was imported how, what differs, and what to do next.
func (w *writer) report(r *Result) []byte {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("# Import of %s\n", w.m.Name)
	if r.Counts.Values == 0 {
		p("Format: %s. The job files are those of the input, upgraded.\n", r.Format)
	} else {
		p("Format: %s. Of %d values of the input, %d are mapped, %d have no effect and are left out, and %d are reported below.\n",
			r.Format, r.Counts.Values, r.Counts.Mapped, r.Counts.LeftOut, r.Counts.Reported)
	}
	w.next(p)
	p("## Services\n")
	p("| service | from | kind | image | ports | names |")
	p("|---|---|---|---|---|---|")
	for _, s := range w.m.Services {
		var ports, names []string
		for _, port := range s.Ports {
			text := itoa(port.Number)
			if port.UDP {
				text += "/udp"
			}
			if port.Static != 0 {
				text += fmt.Sprintf(" (on the node: %d)", port.Static)
			}
			ports = append(ports, text)
		}
		for _, h := range s.Hosts {
			names = append(names, h.Name)
		}
		if w.net.addresses[s.Name] != "" {
			names = append(names, "→ "+w.net.addresses[s.Name])
		} else if names = nil; w.m.byDNS() {
			names = w.m.dnsNames(s)
		}
		image := ""
		if len(s.Tasks) > 0 {
			image = cell(s.Tasks[0].ImageRef)
		}
		p("| %s | %s | %s | %s | %s | %s |", s.Name, s.At, cmp.Or(s.Kind, KindService), image, strings.Join(ports, ", "), strings.Join(names, " "))
	}
	p("")
	w.addresses(p)
	if len(w.m.Published) > 0 {
		p("## Published ports\n")
		p("The mesh listens on these ports of every node and forwards to the healthy instances.\n")
		for _, x := range w.m.Published {
			p("- `%s:%d` → %s, port %d (%s)", cmp.Or(x.HostIP, "*"), x.Port, x.Service, x.Target, x.At)
		}
		p("")
	}
	if needs := w.needs(); len(needs) > 0 {
		p("## What the nodes need\n")
		for _, n := range needs {
			p("- %s", n)
		}
		p("")
	}
	w.findings(p, r, Warning, "## What differs\n")
	w.findings(p, r, LeftOut, "## What was left out\n")
	return []byte(strings.TrimRight(b.String(), "\n") + "\n")
}

// addresses lists the names that stand before services.
func (w *writer) addresses(p func(string, ...any)) {
	if len(w.m.Addresses) == 0 {
		return
	}
	p("## Names\n")
	p("| name | ports | from |")
	p("|---|---|---|")
	for _, a := range w.m.Addresses {
		var names, ports []string
		for _, h := range a.Hosts {
			names = append(names, h.Name)
		}
		for _, port := range a.Ports {
			to := slices.Clone(port.Servers)
			for _, t := range port.Targets {
				to = append(to, fmt.Sprintf("%s:%d", t.Service, t.Port))
			}
			ports = append(ports, fmt.Sprintf("%d → %s", port.Number, strings.Join(to, ", ")))
		}
		p("| %s | %s | %s |", cell(strings.Join(names, " ")), cell(strings.Join(ports, "; ")), a.At)
	}
	p("")
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

func (w *writer) next(p func(string, ...any)) {
	p("## What to do next\n")
	n := 0
	step := func(format string, args ...any) {
		n++
		p("%d. "+format, append([]any{n}, args...)...)
	}
	step("Read what differs, below, and decide.")
	var unknown []string
	for _, s := range w.m.Secrets {
		if s.Unknown {
			unknown = append(unknown, s.Name)
		}
	}
	if len(unknown) > 0 {
		step("Write the values of these secrets into `secrets.yaml`: %s.", strings.Join(unknown, ", "))
	}
	if len(w.m.Secrets) > 0 {
		step("`drover secrets import . secrets.yaml`, and delete `secrets.yaml`.")
	}
	step("`drover lint .` and `drover plan .`")
	step("`drover deploy .`")
	p("")
}

func (w *writer) needs() []string {
	set := map[string]bool{}
	bridge := false
	for _, s := range w.m.Services {
		bridge = bridge || layered(s) && cmp.Or(s.Network, "bridge") == "bridge"
	}
	if bridge {
		set["the reference CNI plugins, for networks of mode bridge"] = true
	}
	switch {
	case w.m.byDNS():
		set["Consul's DNS on port 53 of the address of each node, with `recursors` for all other names"] = true
	case w.m.network == NetworkGateway:
		set["Nomad's bridge with the address "+gateway+", which is the default of `bridge_network_subnet`"] = true
	case len(w.net.addresses)+len(w.net.virtual) > 0:
		set["the addresses of the mesh: `ip route replace local "+meshNetwork+" dev lo`, or the variable `mesh_prepare`"] = true
	}
	for _, n := range w.m.Needs {
		text := n.What
		if n.Why != "" {
			text += ": " + n.Why
		}
		if n.At.File != "" {
			text += " (" + n.At.String() + ")"
		}
		set[text] = true
	}
	return slices.Sorted(maps.Keys(set))
}

func (w *writer) findings(p func(string, ...any), r *Result, severity Severity, title string) {
	var rules []string
	byRule := map[string][]Finding{}
	for _, f := range r.Findings {
		if f.Severity == severity {
			byRule[f.Rule] = append(byRule[f.Rule], f)
			rules = append(rules, f.Rule)
		}
	}
	if len(rules) == 0 {
		return
	}
	slices.Sort(rules)
	p("%s", title)
	for _, rule := range slices.Compact(rules) {
		if severity != LeftOut {
			p("### %s\n", rule)
			for _, x := range Rules() {
				if x.Name == rule {
					p("%s\n", x.Why)
				}
			}
		}
		for _, f := range byRule[rule] {
			text := f.Message
			if f.Remedy != "" {
				text = strings.TrimRight(text, ".") + ". " + f.Remedy
			}
			if f.File != "" {
				p("- %s: %s", f.Position, text)
			} else {
				p("- %s", text)
			}
		}
		p("")
	}
}
