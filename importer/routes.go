package importer

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

var (
	routeHost = regexp.MustCompile(`^(?:\*\.)?[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*$`)
	routePath = regexp.MustCompile(`^/[A-Za-z0-9._~/+-]*$`)
)

// IsRouteHost reports whether s is the host of a route: a name in lower case, or *.NAME
// for all names below NAME.
func IsRouteHost(s string) bool { return len(s) <= 253 && routeHost.MatchString(s) }

// IsRoutePath reports whether s is the path of a route.
func IsRoutePath(s string) bool { return routePath.MatchString(s) }

// IsRoute reports whether s is HOST or HOST/PATH as the tag drover.route has it.
func IsRoute(s string) bool {
	host, path, _ := strings.Cut(s, "/")
	return IsRouteHost(host) && IsRoutePath("/"+path)
}

// wildcardRoutes warns of what differs for hosts that are wildcards.
func wildcardRoutes(m *Model, l *Ledger) {
	if len(m.Services) == 0 {
		return
	}
	for i, c := range m.Certificates {
		m.Certificates[i].Names = slices.DeleteFunc(c.Names, func(name Text) bool {
			if text := name.plain(); !isWildcard(name) || strings.Count(text, ".") > 1 || strings.Contains(text, "${") {
				return false
			}
			l.Warn(cmp.Or(certified(m, name), m.Services[0].At), "route", fmt.Sprintf("no CA has certificates for %s, which is every host of a top-level domain", name.plain()), "Name the hosts, or a domain of your own.")
			return true
		})
	}
	m.Certificates = slices.DeleteFunc(m.Certificates, func(c Certificate) bool { return len(c.Names) == 0 })
	for _, c := range m.Certificates {
		for _, name := range c.Names {
			if isWildcard(name) {
				l.Warn(cmp.Or(certified(m, name), m.Services[0].At), "route", fmt.Sprintf("a certificate for %s needs the challenge dns-01", name.plain()), "Give the stack a dns block (docs/reference/dns.md), whose provider has the zone.")
			}
		}
	}
	eachTag(m, func(s *Service, t Text) {
		if host, ok := routeOf(t); ok && isWildcard(host) {
			l.Warn(s.At, "route", fmt.Sprintf("%s is every host below it, at any depth, of which a host with a route of its own has none of %s's", host.plain(), s.Name), "Give such a host all its paths, if there is one.")
		}
	})
}

// certified is the place of the service whose tag names a host, else none.
func certified(m *Model, host Text) (at Position) {
	eachTag(m, func(s *Service, t Text) {
		if h, ok := routeOf(t); ok && at == (Position{}) && h.plain() == host.plain() {
			at = s.At
		}
	})
	return at
}

// routeOf returns the host of a tag drover.route.
func routeOf(t Text) (host Text, ok bool) {
	const prefix = "drover.route="
	if len(t) == 0 || !strings.HasPrefix(t[0].Literal, prefix) {
		return nil, false
	}
	for i, p := range t {
		if i == 0 {
			p.Literal = strings.TrimPrefix(p.Literal, prefix)
		}
		before, _, ends := strings.Cut(p.Literal, "/")
		p.Literal = before
		if p != (Part{}) {
			host = append(host, p)
		}
		if ends {
			break
		}
	}
	return host, true
}

// isWildcard reports whether a host begins with *.
func isWildcard(host Text) bool { return strings.HasPrefix(host.plain(), "*.") }

// Certify adds a host to the certificate of the stack. It has the name of the stack, so
// that two imported stacks have two certificates.
func (m *Model) Certify(host Text) {
	if len(m.Certificates) == 0 {
		m.Certificates = []Certificate{{}}
	}
	c := &m.Certificates[0]
	if !slices.ContainsFunc(c.Names, func(o Text) bool { return slices.Equal(o, host) }) {
		c.Names = append(c.Names, host)
	}
}

// giveRoutes gives services the routes of the operator, on their first port, and the
// hosts a certificate.
func giveRoutes(m *Model, src Source, l *Ledger) {
	for _, name := range slices.Sorted(maps.Keys(src.Routes)) {
		at := slices.IndexFunc(m.Services, func(s *Service) bool { return s.Name == name })
		option := "--route " + name + "=" + src.Routes[name][0]
		if at < 0 {
			l.Refuse(Position{File: src.Inputs[0].Name}, RuleInvalid, fmt.Sprintf("%s names no service of the input", option), "Name one of the services: "+names(m)+".")
			continue
		}
		s := m.Services[at]
		switch {
		case s.Spec != nil:
			l.Refuse(s.At, RuleInvalid, fmt.Sprintf("%s is for %s, which is a job file with services of its own", option, name), "Write a tag drover.route=HOST/PATH into a service block of the input.")
			continue
		case len(registered(s)) == 0:
			l.Refuse(s.At, "unknown-port", fmt.Sprintf("%s leads to %s, and nothing says on which port", option, name), fmt.Sprintf("Say --port %s=PORT.", name))
			continue
		}
		for _, route := range src.Routes[name] {
			host, path, _ := strings.Cut(route, "/")
			tag := Lit("drover.route=" + host + "/" + path)
			if !slices.ContainsFunc(s.Tags, func(o Text) bool { return slices.Equal(o, tag) }) {
				s.Tags = append(s.Tags, tag)
			}
			m.Certify(Lit(host))
		}
	}
}

func names(m *Model) string {
	var all []string
	for _, s := range m.Services {
		all = append(all, s.Name)
	}
	return strings.Join(all, ", ")
}

// separateTCP refuses connections that the edge passes on as they are (drover.tcp,
// drover.sni) to services whose requests it restricts: it cannot ask them for anything.
func separateTCP(m *Model, l *Ledger) {
	has := func(tags []Text, names ...string) bool {
		return slices.ContainsFunc(tags, func(t Text) bool {
			return len(t) > 0 && slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(t[0].Literal, "drover."+n+"=") })
		})
	}
	for _, s := range m.Services {
		first := firstPort(s)
		for i := range s.Ports {
			p := &s.Ports[i]
			all := []*[]Text{&p.Tags}
			if first != nil && first.Number == p.Number && !p.UDP {
				all = append(all, &s.Tags)
			}
			restricted, passed := false, false
			for _, tags := range all {
				restricted = restricted || has(*tags, "auth", "forward-auth", "client-cert")
				passed = passed || has(*tags, "tcp", "sni")
			}
			if !restricted || !passed {
				continue
			}
			l.Refuse(s.At, "route", fmt.Sprintf("requests to port %d of %s need a password or a certificate, for which the edge cannot ask in connections of TCP", p.Number, s.Name), "Give the connections a port of their own. Allowed, they have no route.")
			for _, tags := range all {
				*tags = slices.DeleteFunc(*tags, func(t Text) bool { return has([]Text{t}, "tcp", "sni") })
			}
		}
	}
}
