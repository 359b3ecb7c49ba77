package lint

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/stack"
)

// portLabel finds a port label that no network has, and an address_mode that
// the network cannot serve. Nomad finds both only when it registers the service,
// and reports them only in the client's log. The service is then missing from
// the catalog, or has its old registration (GetAddress in Nomad's
// client/serviceregistration/address.go).
func portLabel(s *subject) {
	for _, g := range s.Job.Job.TaskGroups {
		for i, svc := range g.Services {
			s.ports(g, nil, svc, group(g), fmt.Sprintf("service #%d", i))
		}
		for _, t := range g.Tasks {
			path := []string{group(g), "task " + t.Name}
			for i, svc := range t.Services {
				s.ports(g, t, svc, append(slices.Clone(path), fmt.Sprintf("service #%d", i))...)
			}
			known := labels(g, nil)
			for _, label := range stringsOf(t.Config["ports"]) {
				if unknownLabel(label, known) && !isNumber(label) {
					s.report(s.at(append(path, "config", "ports")...), fmt.Sprintf("Task %q has the port %q, which its group does not have", t.Name, label), knownLabels(label, known))
				}
			}
		}
	}
}

// ports inspects one service, of task t or, when it is nil, of the group.
func (s *subject) ports(g *api.TaskGroup, t *api.Task, svc *api.Service, path ...string) {
	known := labels(g, t)
	mapped := portMap(g, t)
	wrong := func(label, mode string) bool {
		ofDriver := (mode == "driver" || mode == "" || mode == "auto") && (mapped == nil || slices.Contains(mapped, label))
		return unknownLabel(label, known) && !isNumber(label) && !ofDriver
	}
	if wrong(svc.PortLabel, svc.AddressMode) {
		s.report(s.at(append(slices.Clone(path), "port")...), fmt.Sprintf("Service %q has the port %q, which its group does not have", svc.Name, svc.PortLabel), knownLabels(svc.PortLabel, known))
	}
	for i, c := range svc.Checks {
		mode := c.AddressMode
		if mode == "" {
			mode = svc.AddressMode
		}
		if c.PortLabel != svc.PortLabel && wrong(c.PortLabel, mode) {
			s.report(s.at(append(slices.Clone(path), fmt.Sprintf("check #%d", i), "port")...), fmt.Sprintf("A check of service %q has the port %q, which its group does not have", svc.Name, c.PortLabel), knownLabels(c.PortLabel, known))
		}
	}
	mode := networkMode(g)
	if strings.HasPrefix(svc.AddressMode, "alloc") && !namespaced(mode) {
		s.report(s.at(append(slices.Clone(path), "address_mode")...), fmt.Sprintf("Service %q has address_mode %q, and its group no network of its own: its mode is %q", svc.Name, svc.AddressMode, mode),
			`Give the group network { mode = "bridge" } or a CNI network, or take address_mode = "host".`)
	}
	if svc.Connect != nil && svc.Connect.SidecarService != nil && !namespaced(mode) {
		s.report(s.at(append(slices.Clone(path), "connect")...), fmt.Sprintf("Service %q has a sidecar, and its group no network of its own: its mode is %q", svc.Name, mode),
			`Give the group network { mode = "bridge" } or a CNI network.`)
	}
}

// labels are those of the ports of a group and, for a service of a task, of the
// task's own network, as Nomad had it before groups had one.
func labels(g *api.TaskGroup, t *api.Task) []string {
	networks := g.Networks
	if t != nil && t.Resources != nil {
		networks = slices.Concat(networks, t.Resources.Networks)
	}
	var out []string
	for _, n := range networks {
		for _, p := range slices.Concat(n.ReservedPorts, n.DynamicPorts) {
			out = append(out, p.Label)
		}
	}
	return out
}

// portMap returns the labels in the port_map of a task's driver, which is older
// than the ports of groups; nil if they are unknown.
func portMap(g *api.TaskGroup, t *api.Task) []string {
	tasks := g.Tasks
	if t != nil {
		tasks = []*api.Task{t}
	}
	out := []string{}
	for _, t := range tasks {
		maps, there := t.Config["port_map"]
		if !there {
			continue
		}
		list, ok := maps.([]map[string]any)
		if m, is := maps.(map[string]any); is {
			list, ok = []map[string]any{m}, true
		}
		if !ok {
			return nil
		}
		for _, m := range list {
			for label := range m {
				out = append(out, label)
			}
		}
	}
	return out
}

func networkMode(g *api.TaskGroup) string {
	if len(g.Networks) == 0 || g.Networks[0].Mode == "" {
		return "host"
	}
	return g.Networks[0].Mode
}

// namespaced reports whether an allocation has a network namespace with an
// address.
func namespaced(mode string) bool { return mode != "host" && mode != "none" }

// unknownLabel reports whether a label is not among those that are known. One
// that a client fills in may be.
func unknownLabel(label string, known []string) bool {
	return label != "" && !strings.Contains(label, "${") && !slices.Contains(known, label)
}

func isNumber(label string) bool {
	n, err := strconv.Atoi(label)
	return err == nil && n > 0
}

func knownLabels(label string, known []string) string {
	switch near := stack.Nearest(label, known); {
	case near != "":
		return fmt.Sprintf("Did you mean %q?", near)
	case len(known) == 0:
		return fmt.Sprintf("Add port %q {} to a network block of the group.", label)
	}
	return fmt.Sprintf("It has %s. Add port %q {} to its network block.", strings.Join(known, ", "), label)
}

// stringsOf are the strings of a list in the config of a task.
func stringsOf(v any) []string {
	var out []string
	list, _ := v.([]any)
	for _, e := range list {
		if text, ok := e.(string); ok {
			out = append(out, text)
		}
	}
	return out
}
