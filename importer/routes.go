package importer

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

var routeText = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(/[A-Za-z0-9._~/+-]*)?$`)

// IsRoute reports whether s is HOST or HOST/PATH as the tag drover.route has it.
func IsRoute(s string) bool { return routeText.MatchString(s) }

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
