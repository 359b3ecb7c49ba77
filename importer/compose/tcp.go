package compose

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/drover-nomad/drover/importer"
)

const tcpMiddlewarePrefix = "traefik.tcp.middlewares."

// entryAddress is an argument of Traefik that gives an entry point its port.
var entryAddress = regexp.MustCompile(`(?i)^--entrypoints\.([^.=]+)\.address=[^=]*:(\d+)(?:/tcp)?$`)

// entryPorts are the ports of the entry points of the proxies.
func (s *service) entryPorts() map[string]int {
	ports := map[string]int{}
	for _, name := range slices.Sorted(maps.Keys(s.project.Services)) {
		if other := s.project.Services[name]; proxies.MatchString(other.Image) {
			for _, word := range other.Command {
				if m := entryAddress.FindStringSubmatch(word); m != nil {
					ports[strings.ToLower(m[1])], _ = strconv.Atoi(m[2])
				}
			}
		}
	}
	return ports
}

// traefikTCP maps the TCP routers of Traefik 2 and 3: those for all names to a TCP port of
// the edge, and those that pass on TLS to its names. The edge does not end TLS of TCP.
func (s *service) traefikTCP(all map[string]label) {
	const services = "traefik.tcp.services."
	ports := map[string]int{} // by service of Traefik
	for _, name := range slices.Sorted(maps.Keys(all)) {
		rest, ok := strings.CutPrefix(name, services)
		if key, found := strings.CutSuffix(rest, ".loadbalancer.server.port"); ok && found {
			all[name].node.Take()
			ports[key], _ = strconv.Atoi(s.literal(all[name].text))
		}
	}
	routers := map[string]bool{}
	for name := range all {
		if rest, ok := strings.CutPrefix(name, "traefik.tcp.routers."); ok {
			router, _, _ := strings.Cut(rest, ".")
			routers[router] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(routers)) {
		s.tcpRouter(all, name, ports)
	}
}

// tcpRouter maps a TCP router.
func (s *service) tcpRouter(all map[string]label, name string, ports map[string]int) {
	prefix := "traefik.tcp.routers." + name + "."
	value := func(key string) string { return s.literal(all[prefix+key].text) }
	rule, ok := all[prefix+"rule"]
	if !ok {
		return // reported as not mapped
	}
	tls := false
	for key, l := range all {
		if rest, ok := strings.CutPrefix(key, prefix); ok {
			l.node.Take()
			tls = tls || rest == "tls" && s.literal(l.text) != "false" || strings.HasPrefix(rest, "tls.")
		}
	}
	r := &routes{}
	for i, m := range middlewareNames(value("middlewares")) {
		if m != "" {
			s.tcpMiddleware(r, all[prefix+"middlewares"], m, strings.TrimSpace(strings.Split(value("middlewares"), ",")[i]))
		}
	}
	port := ports[strings.ToLower(value("service"))]
	if port == 0 && len(ports) == 1 {
		for _, p := range ports {
			port = p
		}
	}
	if at := slices.IndexFunc(s.s.Ports, func(p importer.Port) bool { return !p.UDP }); port == 0 && at >= 0 {
		port = s.s.Ports[at].Number
	}
	tag, problem := s.tcpTag(rule, value("entrypoints"), tls, value("tls.passthrough") == "true", port)
	switch {
	case r.denied:
		return
	case problem != "":
		rule.node.Warn("route", fmt.Sprintf("the TCP router %s has %s", name, problem), "Write a tag drover.tcp=PORT or drover.sni=HOST into the service block of its port.")
		return
	case port < 1 || port > 65535:
		rule.node.Warn("route", fmt.Sprintf("the TCP router %s leads to no known port of %s", name, s.cfg.Name), fmt.Sprintf("Write the label traefik.tcp.services.%s.loadbalancer.server.port.", name))
		return
	}
	s.addPort(importer.Port{Number: port})
	at := slices.IndexFunc(s.s.Ports, func(p importer.Port) bool { return p.Number == port && !p.UDP })
	for _, t := range append(tag, r.tags...) {
		if !slices.ContainsFunc(s.s.Ports[at].Tags, func(o importer.Text) bool { return slices.Equal(o, t) }) {
			s.s.Ports[at].Tags = append(s.s.Ports[at].Tags, t)
		}
	}
}

// tcpTag returns the tags of a rule, or what the edge cannot do.
func (s *service) tcpTag(rule label, entries string, tls, passthrough bool, port int) (tags []importer.Text, problem string) {
	sites, err := parseRule(strings.ReplaceAll(strings.ReplaceAll(rule.flat, "HostSNIRegexp", "HostRegexp"), "HostSNI", "Host"))
	if err != nil {
		return nil, fmt.Sprintf("a rule with %s, which the edge cannot match", err)
	}
	for _, at := range sites {
		switch {
		case at.path != "/":
			return nil, "a rule with a path, which the edge cannot match"
		case tls && !passthrough:
			return nil, "TLS that the proxy ends, which the edge passes on only (tls.passthrough)"
		case at.host == "*":
			return s.tcpPorts(rule, entries, port), ""
		}
		host := rule.words(strings.ToLower(at.host))
		if !tls || !importer.IsRouteHost(s.literal(host)) {
			return nil, fmt.Sprintf("the name %q, which the edge cannot match", s.literal(host))
		}
		tags = append(tags, append(importer.Lit("drover.sni="), host...))
	}
	return tags, ""
}

// tcpPorts are the tags of the entry points of a router; without a known one, the port
// of the service counts.
func (s *service) tcpPorts(rule label, entries string, port int) (tags []importer.Text) {
	known := s.entryPorts()
	var all []int
	for _, e := range strings.Split(entries, ",") {
		if p := known[strings.ToLower(strings.TrimSpace(e))]; p > 0 && p < 65536 {
			all = append(all, p)
		}
	}
	if len(all) == 0 && port != 0 {
		all = []int{port}
	}
	for _, p := range all {
		tags = append(tags, importer.Lit(fmt.Sprintf("drover.tcp=%d", p)))
		s.ledger.Warn(rule.node.Pos(), "route", fmt.Sprintf("port %d of %s is one of the edge", p, s.cfg.Name), fmt.Sprintf("Add %d to the variable tcp_ports of the edge.", p))
	}
	return tags
}

// tcpMiddleware maps a middleware of a TCP router: the edge has lists of addresses.
func (s *service) tcpMiddleware(r *routes, from label, name, written string) {
	prefix := tcpMiddlewarePrefix + name + "."
	found := false
	for _, other := range slices.Sorted(maps.Keys(s.project.Services)) {
		o := &service{reader: s.reader, cfg: s.project.Services[other], at: s.reader.at(other), s: &importer.Service{}}
		for key, l := range o.labelList() {
			option, ok := strings.CutPrefix(key, prefix)
			if !ok {
				continue
			}
			found = true
			switch value := s.literal(l.text); {
			case option == "ipallowlist.sourcerange" || option == "ipwhitelist.sourcerange":
				l.node.Take()
				r.tag(importer.Lit("drover.allow=" + strings.ReplaceAll(value, " ", "")))
			case strings.HasPrefix(option, "inflightconn."):
				l.node.Warn("route", fmt.Sprintf("the middleware %s limits connections, which the edge does not", name), "Limit them in the service.")
			default:
				s.refuseRoute(r, l, "route", fmt.Sprintf("the middleware %s of %s may restrict the connections", name, s.cfg.Name), "Write tags of drover that do the same.")
			}
		}
	}
	if !found {
		s.refuseRoute(r, from, "route", fmt.Sprintf("the middleware %s of %s is not in the input, and may restrict the connections", written, s.cfg.Name), "Import the service that defines it, or write drover.allow.")
	}
}
