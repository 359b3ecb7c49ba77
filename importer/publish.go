package importer

import (
	"fmt"
	"maps"
	"slices"
)

// Ways of --publish to publish the ports that the input publishes.
const (
	PublishMesh   = "mesh"   // a listener of the mesh on every node
	PublishStatic = "static" // a static port of the nodes that run the service
	PublishEdge   = "edge"   // a TCP port of the edge, or the routes of the service
)

// publish maps the published ports as the operator says.
func publish(m *Model, src Source, l *Ledger) {
	if len(src.Publish) == 0 {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(src.Publish)) {
		if name != "" && !slices.ContainsFunc(m.Published, func(p Published) bool { return p.Service == name }) {
			l.Refuse(Position{File: src.Inputs[0].Name}, RuleInvalid, fmt.Sprintf("--publish %s=%s is for %s, which publishes no port that the mesh has", name, src.Publish[name], name), "Name a service of the input that publishes a TCP port.")
		}
	}
	var kept []Published
	for _, p := range m.Published {
		mode, ok := src.Publish[p.Service]
		if !ok {
			mode = src.Publish[""]
		}
		at := slices.IndexFunc(m.Services, func(s *Service) bool { return s.Name == p.Service })
		if at < 0 || mode == "" || mode == PublishMesh {
			kept = append(kept, p)
			continue
		}
		s := m.Services[at]
		port := slices.IndexFunc(s.Ports, func(o Port) bool { return o.Number == p.Target && !o.UDP && !o.Private })
		switch {
		case port < 0:
			kept = append(kept, p)
		case mode == PublishStatic:
			publishStatic(s, port, p, l)
		case hasRoute(s):
			l.LeaveOut(p.At, fmt.Sprintf("port %d of every node is not published: %s has a route of the edge", p.Port, s.Name))
		default:
			publishEdge(m, s, port, p, l)
		}
	}
	m.Published = kept
}

// publishStatic makes a published port one of the node.
func publishStatic(s *Service, port int, p Published, l *Ledger) {
	if p.HostIP != "" {
		l.Warn(p.At, "port-conflict", fmt.Sprintf("port %d of %s is one of all addresses of its nodes, and not of %s alone", p.Port, s.Name, p.HostIP), "Restrict it with a host_network of the Nomad clients.")
	}
	if len(p.More) > 0 {
		l.Refuse(p.At, "port-conflict", fmt.Sprintf("port %d is published by %s and by %s, and a static port has one service", p.Port, s.Name, p.More[0].Service), "Leave it to the mesh. Allowed, the first one has it.")
	}
	switch s.Ports[port].Static {
	case 0:
		s.Ports[port].Static = p.Port
	case p.Port:
	default: // it has another one already
		s.Ports = append(s.Ports, Port{Number: p.Target, Label: fmt.Sprintf("%s-%d", s.Ports[port].label(), p.Port), Static: p.Port, Private: true, At: p.At})
	}
}

// publishEdge makes a published port one of the edge.
func publishEdge(m *Model, s *Service, port int, p Published, l *Ledger) {
	add := func(o *Port) {
		if tag := Lit(fmt.Sprintf("drover.tcp=%d", p.Port)); !slices.ContainsFunc(o.Tags, func(t Text) bool { return slices.Equal(t, tag) }) {
			o.Tags = append(o.Tags, tag)
		}
	}
	add(&s.Ports[port])
	for _, t := range p.More {
		for _, other := range m.Services {
			for i := range other.Ports {
				if other.Name == t.Service && other.Ports[i].Number == t.Port && !other.Ports[i].UDP {
					add(&other.Ports[i])
				}
			}
		}
	}
	l.Warn(p.At, "route", fmt.Sprintf("port %d of %s is one of the edge", p.Port, s.Name), fmt.Sprintf("Add %d to the variable tcp_ports of the edge.", p.Port))
}

// hasRoute reports whether a tag of the service is a route.
func hasRoute(s *Service) bool {
	found := false
	eachTag(&Model{Services: []*Service{s}}, func(_ *Service, t Text) {
		_, ok := routeOf(t)
		found = found || ok
	})
	return found
}

// separateStatic refuses two users of one port of a node: Nomad gives a port to one
// group, whatever its protocol. Allowed, the first one has it.
func separateStatic(m *Model, l *Ledger) {
	type user struct {
		service *Service
		label   string
		target  int
	}
	users := map[int]user{}
	for _, s := range m.Services {
		if !layered(s) {
			continue
		}
		s.Ports = slices.DeleteFunc(s.Ports, func(p Port) bool {
			number := p.Static
			if s.Network == NetworkHost && number == 0 && !p.Dynamic {
				number = p.Number
			}
			u, taken := users[number]
			switch {
			case number == 0:
				return false
			case !taken:
				users[number] = user{s, p.label(), p.Number}
				return false
			case u.service == s && u.label == p.label(): // of TCP and UDP
				return false
			case u.service == s && u.target == p.Number: // said twice
				return true
			}
			at := p.At
			if at == (Position{}) {
				at = s.At
			}
			l.Refuse(at, "port-conflict", fmt.Sprintf("port %d of the node is needed by %s (port %d) and by %s (port %d)", number, u.service.Name, u.target, s.Name, p.Number),
				"Give one of them another port, or names on the mesh (--network mesh). Allowed, the first one has it, and the other one has no port.")
			return true
		})
	}
}
