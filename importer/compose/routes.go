package compose

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/drover-nomad/drover/importer"
)

// label is a label of a service with its place.
type label struct {
	name string // in lower case
	text importer.Text
	flat string // text with a mark in place of each variable
	node *importer.Node
}

// words is the value of a label with variables in place of marks.
func (l label) words(s string) importer.Text { return unmark(s, l.text) }

// labelList are the labels of a service: those of containers, over those of deploy.
func (s *service) labelList() map[string]label {
	out := map[string]label{}
	for _, at := range []nodes{s.at.get("deploy", "labels"), s.at.get("labels")} {
		for _, n := range at {
			for _, c := range n.Fields() {
				s.addLabel(out, c.Key, c.Peek(), c)
			}
			for _, c := range n.Items() {
				name, value, _ := strings.Cut(c.Peek(), "=")
				s.addLabel(out, name, value, c)
			}
		}
	}
	return out
}

func (s *service) addLabel(all map[string]label, name, raw string, n *importer.Node) {
	name = s.substitute(name)
	l := label{name: strings.ToLower(name), text: importer.Lit(s.substitute(raw)), node: n}
	if routing.MatchString(l.name) && strings.Contains(raw, "$") && !strings.Contains(l.name, "users") {
		if t, ok := s.interpolated(n, raw); ok && len(t.Secrets()) == 0 {
			l.text = t
		}
	}
	l.flat = flatten(l.text)
	all[l.name] = l
}

// flatten is a text with a mark in place of each variable.
func flatten(t importer.Text) string {
	var b strings.Builder
	for i, p := range t {
		if p.Variable != "" {
			fmt.Fprintf(&b, "\ue000%d\ue001", i)
		} else {
			b.WriteString(p.Literal)
		}
	}
	return b.String()
}

// routing are labels that a reverse proxy reads.
var routing = regexp.MustCompile(`^(traefik\.|caddy|ofelia\.|com\.df\.|com\.github\.|haproxy|lego|swag|nginx)`)

func (s *service) labelsOf() {
	all := s.labelList()
	s.traefik(all)
	s.nginxProxy()
	s.caddy(all)
	s.kompose(all)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		n := all[name].node
		switch {
		case n.Used():
		case s.usedMiddleware(name):
			n.Take() // by the service whose router names it
		case routing.MatchString(name):
			n.Warn("route", fmt.Sprintf("the label %s of %s is for a reverse proxy and is not mapped", name, s.cfg.Name), "Write tags of drover (docs/reference/routes.md) into the service block of the job.")
		case strings.HasPrefix(name, "kompose."):
			n.Take()
		default:
			n.MarkDropped()
		}
	}
	left := 0
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if !routing.MatchString(name) && !strings.HasPrefix(name, "kompose.") {
			left++
		}
	}
	for _, at := range []nodes{s.at.get("labels"), s.at.get("deploy", "labels")} {
		for _, n := range at {
			n.Fields()
			n.Items()
		}
	}
	if left > 0 {
		s.ledger.LeaveOut(cmp.Or(s.at.get("labels").pos(), s.at.get("deploy", "labels").pos()), fmt.Sprintf("%d labels of %s have no effect: Nomad has no labels of containers", left, s.cfg.Name))
	}
}

// site is a host and a path that lead to the service.
type site struct {
	host, path string // with marks
	exact      bool
}

// routes is what labels ask of the edge for one port of the service.
type routes struct {
	port    int
	tags    []importer.Text
	tls     bool
	hosts   []importer.Text
	claimed bool
	denied  bool // a request must be allowed by what the edge lacks
}

func (r *routes) tag(parts ...importer.Text) {
	var t importer.Text
	for _, p := range parts {
		t = append(t, p...)
	}
	for _, o := range r.tags {
		if slices.Equal(o, t) {
			return
		}
	}
	r.tags = append(r.tags, t)
}

// publish gives the service the tags, and the edge a certificate.
func (s *service) publish(r *routes) {
	if len(r.tags) == 0 || !r.claimed || r.denied {
		return
	}
	if r.port == 0 && len(s.s.Ports) == 0 {
		s.ledger.Warn(s.s.At, "route", fmt.Sprintf("%s has a route and no port; it leads to port 80", s.cfg.Name), fmt.Sprintf("If that is wrong, say --port %s=PORT.", s.cfg.Name))
		r.port = 80
	}
	if r.port != 0 {
		s.addPort(importer.Port{Number: r.port})
		at := slices.IndexFunc(s.s.Ports, func(p importer.Port) bool { return p.Number == r.port && !p.UDP })
		p := s.s.Ports[at]
		s.s.Ports = append([]importer.Port{p}, slices.Delete(s.s.Ports, at, at+1)...)
	}
	if !r.tls {
		r.tag(importer.Lit("drover.http=serve"))
	}
	s.s.Tags = append(s.s.Tags, r.tags...)
	if !r.tls {
		return
	}
	for _, h := range r.hosts {
		s.m.Certify(h)
	}
}

// literal is a text with marks as the operator would read it.
func (s *service) literal(t importer.Text) string {
	var b strings.Builder
	for _, p := range t {
		if p.Variable != "" {
			b.WriteString(s.vars[p.Variable])
		} else {
			b.WriteString(p.Literal)
		}
	}
	return b.String()
}

// addSite adds a route, if the edge can have it.
func (s *service) addSite(r *routes, l label, at site) {
	host, path := l.words(strings.ToLower(at.host)), l.words(cmp.Or(at.path, "/"))
	h, p := s.literal(host), s.literal(path)
	if !importer.IsRouteHost(h) || !importer.IsRoutePath(p) {
		l.node.Warn("route", fmt.Sprintf("the edge has no route for host %q and path %q", h, p), "Write a tag drover.route=HOST/PATH with a host name and a plain path.")
		return
	}
	if at.exact && p != "/" {
		l.node.Warn("route", fmt.Sprintf("the route of %s matches what begins with %s, not that path alone", h, p), "Let the service answer 404 for the rest.")
	}
	r.claimed = true
	r.tag(importer.Lit("drover.route="), host, path)
	if !slices.ContainsFunc(r.hosts, func(o importer.Text) bool { return slices.Equal(o, host) }) {
		r.hosts = append(r.hosts, host)
	}
}

// traefik maps the labels of Traefik 1, 2 and 3.
func (s *service) traefik(all map[string]label) {
	enable, stated := all["traefik.enable"]
	for name, l := range all {
		if strings.HasPrefix(name, "traefik.") && !strings.HasPrefix(name, "traefik.udp.") && (strings.HasSuffix(name, ".enable") || strings.HasSuffix(name, "docker.network") || strings.HasSuffix(name, "swarm.network") ||
			strings.HasSuffix(name, "lbswarm") || strings.HasSuffix(name, "constraint-label") || name == "traefik.tags" || strings.HasSuffix(name, ".priority") || strings.HasSuffix(name, ".passhostheader") ||
			strings.HasSuffix(name, "loadbalancer.server") || strings.HasSuffix(name, ".entrypoints") || strings.HasSuffix(name, "loadbalancer.swarm") || name == "traefik.docker.lbswarm" || name == "traefik.backend" || name == "traefik.frontend.passhostheader") {
			l.node.Take()
		}
	}
	if stated && strings.EqualFold(s.literal(enable.text), "false") {
		for name, l := range all {
			if strings.HasPrefix(name, "traefik.") {
				l.node.Take()
			}
		}
		return
	}
	s.traefik1(all)
	routers := map[string]bool{}
	for name := range all {
		if rest, ok := strings.CutPrefix(name, "traefik.http.routers."); ok {
			router, _, _ := strings.Cut(rest, ".")
			routers[router] = true
		}
	}
	services := map[string]bool{}
	for name := range all {
		if rest, ok := strings.CutPrefix(name, "traefik.http.services."); ok {
			service, _, _ := strings.Cut(rest, ".")
			services[service] = true
		}
	}
	groups := map[string]*routes{} // by the service of Traefik that the routers lead to
	of := func(service string) *routes {
		if groups[service] == nil {
			groups[service] = &routes{}
		}
		return groups[service]
	}
	for _, name := range slices.Sorted(maps.Keys(routers)) {
		service, elsewhere := s.leadsTo(all, name, slices.Sorted(maps.Keys(services)))
		if elsewhere {
			l := all["traefik.http.routers."+name+".service"]
			l.node.Warn("route", fmt.Sprintf("the router %s leads to %s, which is not in the labels", name, s.literal(l.text)), "Write a tag drover.route=HOST/PATH into the service block of its job.")
			continue
		}
		s.router(of(service), all, name)
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		l := all[name]
		rest, ok := strings.CutPrefix(name, "traefik.http.services.")
		if !ok {
			continue
		}
		service, key, _ := strings.Cut(rest, ".")
		r := of(service)
		switch key = strings.TrimPrefix(key, "loadbalancer."); {
		case key == "server.port":
			l.node.Take()
			if n, err := strconv.Atoi(s.literal(l.text)); err == nil && n > 0 && n < 65536 {
				r.port = n
			}
		case key == "server.scheme":
			l.node.Take()
			s.protocol(r, l.node, s.literal(l.text))
		case strings.HasPrefix(key, "sticky"):
			l.node.Take()
			r.tag(importer.Lit("drover.sticky=cookie"))
		}
	}
	s.publishAll(groups)
	s.traefikTCP(all)
}

// leadsTo is the service of Traefik that a router leads to, "" for that of the container.
// elsewhere is set for one that the labels cannot define.
func (s *service) leadsTo(all map[string]label, router string, services []string) (name string, elsewhere bool) {
	name = strings.ToLower(s.literal(all["traefik.http.routers."+router+".service"].text))
	name, provider, _ := strings.Cut(name, "@")
	switch {
	case provider != "" && !slices.Contains([]string{"docker", "swarm", "consulcatalog", "nomad"}, provider):
		return name, true
	case name == "" && slices.Contains(services, router):
		return router, false
	case len(services) == 0:
		return "", false
	case !slices.Contains(services, name):
		return services[len(services)-1], false
	}
	return name, false
}

// publishAll gives each port its tags. Those of the first port are those of the service.
func (s *service) publishAll(groups map[string]*routes) {
	var all []*routes
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		r := groups[name]
		at := slices.IndexFunc(all, func(o *routes) bool { return o.port == r.port || o.port == 0 || r.port == 0 })
		switch {
		case !r.claimed && !r.denied && len(groups) > 1: // no router leads to it
		case at < 0:
			all = append(all, r)
		default:
			o := all[at]
			for _, t := range r.tags {
				o.tag(t)
			}
			o.port, o.tls, o.claimed, o.denied = max(o.port, r.port), o.tls || r.tls, o.claimed || r.claimed, o.denied || r.denied
			o.hosts = append(o.hosts, r.hosts...)
		}
	}
	for i, r := range all {
		if i == 0 {
			s.publish(r)
			continue
		}
		s.publishBeside(r)
	}
}

// publishBeside is publish for another port than the first one.
func (s *service) publishBeside(r *routes) {
	if len(r.tags) == 0 || !r.claimed || r.denied {
		return
	}
	if !r.tls {
		r.tag(importer.Lit("drover.http=serve"))
	}
	s.addPort(importer.Port{Number: r.port})
	at := slices.IndexFunc(s.s.Ports, func(p importer.Port) bool { return p.Number == r.port && !p.UDP })
	s.s.Ports[at].Tags = append(s.s.Ports[at].Tags, r.tags...)
	if r.tls {
		for _, h := range r.hosts {
			s.m.Certify(h)
		}
	}
}

func (s *service) router(r *routes, all map[string]label, name string) {
	prefix := "traefik.http.routers." + name + "."
	tls := false
	for key, l := range all {
		rest, ok := strings.CutPrefix(key, prefix)
		if !ok {
			continue
		}
		switch {
		case rest == "tls.options" && strings.Contains(s.literal(l.text), "@") && !harmless.MatchString(s.literal(l.text)):
			s.refuseRoute(r, l, "route", fmt.Sprintf("the TLS options %s of %s are not in the input, and may ask for certificates of clients", s.literal(l.text), s.cfg.Name), "Write drover.client-cert, if they do.")
		case rest == "tls" && s.literal(l.text) != "false", strings.HasPrefix(rest, "tls."):
			tls = true
			l.node.Take()
		case rest == "service", rest == "entrypoints", rest == "priority", rest == "tls":
			l.node.Take()
		}
	}
	if e, ok := all[prefix+"entrypoints"]; ok {
		text := s.literal(e.text)
		tls = tls || strings.Contains(text, "secure") || strings.Contains(text, "https")
	}
	r.tls = r.tls || tls
	rule, ok := all[prefix+"rule"]
	if m, named := all[prefix+"middlewares"]; named {
		m.node.Take()
		s.middlewares(r, m, s.literal(m.text), 0)
	}
	if !ok {
		return
	}
	for _, names := range s.entryMiddlewares() {
		s.middlewares(r, rule, names, 0)
	}
	rule.node.Take()
	sites, err := parseRule(rule.flat)
	if err != nil {
		rule.node.Warn("route", fmt.Sprintf("the rule of the router %s has %s, which the edge cannot match", name, err), "Write a tag drover.route=HOST/PATH by hand.")
		return
	}
	for _, at := range sites {
		s.addSite(r, rule, at)
	}
}

func (s *service) headers(r *routes, l label, option, value string) {
	kind, name, ok := strings.Cut(option, ".")
	direction := map[string]string{"customresponseheaders": "response", "customrequestheaders": "request"}[kind]
	switch {
	case ok && direction != "" && value == "":
		r.tag(importer.Lit(fmt.Sprintf("drover.header=%s remove %s", direction, name)))
	case ok && direction != "" && !strings.ContainsAny(value, "\\$"):
		r.tag(importer.Lit(fmt.Sprintf("drover.header=%s set %s %s", direction, name, value)))
	case option == "stsseconds", option == "stsincludesubdomains", option == "stspreload", option == "forcestsheader", option == "sslredirect", option == "sslproxyheaders.x-forwarded-proto":
		// The edge does this for every host with TLS.
	case option == "framedeny" && value == "true":
		r.tag(importer.Lit("drover.header=response set X-Frame-Options DENY"))
	case option == "contenttypenosniff" && value == "true":
		r.tag(importer.Lit("drover.header=response set X-Content-Type-Options nosniff"))
	default:
		l.node.Warn("route", fmt.Sprintf("the header option %s of %s is not mapped", option, s.cfg.Name), "Write a tag drover.header.")
	}
}

// traefik1 maps the labels of Traefik 1.
func (s *service) traefik1(all map[string]label) {
	rule, ok := all["traefik.frontend.rule"]
	if !ok {
		return
	}
	rule.node.Take()
	r := &routes{}
	if p, ok := all["traefik.port"]; ok {
		p.node.Take()
		r.port, _ = strconv.Atoi(s.literal(p.text))
	}
	if e, ok := all["traefik.frontend.entrypoints"]; ok {
		e.node.Take()
		r.tls = strings.Contains(s.literal(e.text), "https")
	}
	if p, ok := all["traefik.protocol"]; ok {
		p.node.Take()
		s.protocol(r, p.node, s.literal(p.text))
	}
	forward := map[string]label{}
	for name, l := range all {
		if strings.HasPrefix(name, "traefik.frontend.redirect") || name == "traefik.frontend.headers.sslredirect" {
			l.node.Take()
			r.tls = true
		}
		if strings.HasPrefix(name, "traefik.frontend.auth.basic") {
			s.users(r, l, s.cfg.Name)
		}
		if option, ok := strings.CutPrefix(name, "traefik.frontend.auth.forward."); ok {
			l.node.Take()
			forward[strings.ReplaceAll(option, "-", "")] = l
		}
		if strings.HasPrefix(name, "traefik.frontend.whitelist.sourcerange") || name == "traefik.frontend.whitelistsourcerange" {
			l.node.Take()
			r.tag(importer.Lit("drover.allow=" + strings.ReplaceAll(s.literal(l.text), " ", "")))
		}
	}
	if len(forward) > 0 {
		s.forwardAuth(r, rule, forward)
	}
	var hosts []string
	path, exact := "", false
	for _, part := range strings.Split(rule.flat, ";") {
		kind, value, _ := strings.Cut(part, ":")
		switch strings.TrimSpace(kind) {
		case "Host":
			for _, h := range strings.Split(value, ",") {
				hosts = append(hosts, strings.TrimSpace(h))
			}
		case "HostRegexp":
			for _, h := range strings.Split(value, ",") {
				host, ok := wildcard(strings.TrimSpace(h))
				if !ok {
					rule.node.Warn("route", fmt.Sprintf("the rule of %s has the expression %q of HostRegexp, which the edge cannot match", s.cfg.Name, h), "Write a tag drover.route=HOST/PATH by hand.")
					return
				}
				hosts = append(hosts, host)
			}
		case "PathPrefix", "Path":
			path, exact = strings.TrimSpace(value), kind == "Path"
		case "PathPrefixStrip":
			path = strings.TrimSpace(value)
			r.tag(importer.Lit("drover.strip="), rule.words(path))
		default:
			rule.node.Warn("route", fmt.Sprintf("the rule of %s has %s, which the edge cannot match", s.cfg.Name, kind), "Write a tag drover.route=HOST/PATH by hand.")
			return
		}
	}
	for _, h := range hosts {
		s.addSite(r, rule, site{h, path, exact})
	}
	s.publish(r)
}

// nginxProxy maps the environment that nginx-proxy reads.
func (s *service) nginxProxy() {
	hosts := s.cfg.Environment["VIRTUAL_HOST"]
	if hosts == nil || *hosts == "" || !s.hasProxy("nginx-proxy") {
		return
	}
	value := func(name string) string {
		if v := s.cfg.Environment[name]; v != nil {
			return *v
		}
		return ""
	}
	r := &routes{tls: value("LETSENCRYPT_HOST") != "" || value("CERT_NAME") != ""}
	r.port, _ = strconv.Atoi(value("VIRTUAL_PORT"))
	node := s.at.get("environment")
	l := label{}
	if len(node) > 0 {
		l.node = node[len(node)-1]
	}
	s.protocol(r, l.node, value("VIRTUAL_PROTO"))
	if value("NETWORK_ACCESS") == "internal" {
		r.tag(importer.Lit("drover.allow=10.0.0.0/8,127.0.0.0/8,172.16.0.0/12,192.168.0.0/16"))
	}
	for _, v := range s.t.Env {
		if v.Name == "VIRTUAL_HOST" {
			l.text, l.flat = v.Value, flatten(v.Value)
		}
	}
	for _, h := range strings.Split(l.flat, ",") {
		s.addSite(r, l, site{host: strings.TrimSpace(h), path: value("VIRTUAL_PATH")})
	}
	s.publish(r)
}

// hasProxy reports whether a service of the project has an image of this name.
func (r *reader) hasProxy(name string) bool {
	for _, s := range r.project.Services {
		if strings.Contains(s.Image, name) {
			return true
		}
	}
	return false
}

var upstreams = regexp.MustCompile(`^\{\{\s*upstreams\s*(?:(https?|h2c)\s+)?(\d+)?\s*\}\}$`)

// caddy maps the labels of caddy-docker-proxy that name a site and a reverse proxy.
func (s *service) caddy(all map[string]label) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		l := all[name]
		if name != "caddy" && !regexp.MustCompile(`^caddy_\d+$`).MatchString(name) {
			continue
		}
		r := &routes{tls: true}
		if p, ok := all[name+".reverse_proxy"]; ok {
			m := upstreams.FindStringSubmatch(s.literal(p.text))
			if m == nil {
				continue // reported as not mapped
			}
			p.node.Take()
			r.port, _ = strconv.Atoi(m[2])
			s.protocol(r, p.node, m[1])
		}
		s.caddySite(r, all, name)
		l.node.Take()
		for _, h := range strings.FieldsFunc(l.flat, func(c rune) bool { return c == ',' || c == ' ' }) {
			if rest, ok := strings.CutPrefix(h, "http://"); ok {
				h, r.tls = rest, false
			}
			h, path, _ := strings.Cut(strings.TrimPrefix(h, "https://"), "/")
			s.addSite(r, l, site{host: h, path: "/" + strings.TrimSuffix(path, "*")})
		}
		s.publish(r)
	}
}

// proxies are images that read their configuration from the Docker engine.
var proxies = regexp.MustCompile(`(^|/)(traefik|nginx-proxy|acme-companion|letsencrypt-nginx-proxy-companion|docker-letsencrypt-nginx-proxy-companion|docker-gen|caddy-docker-proxy)(:|@|$)`)

// isProxy reports whether the service only serves routes that labels and the
// environment of other services ask for.
func (s *service) isProxy() bool {
	if s.src.KeepProxy || !proxies.MatchString(s.cfg.Image) {
		return false
	}
	for name, other := range s.project.Services {
		if name == s.cfg.Name {
			continue
		}
		labels := maps.Clone(other.Labels)
		if labels == nil {
			labels = map[string]string{}
		}
		maps.Copy(labels, deployLabels(other))
		for label := range labels {
			if strings.HasSuffix(label, ".rule") && strings.HasPrefix(label, "traefik.") || strings.HasPrefix(label, "caddy") {
				return true
			}
		}
		if v := other.Environment["VIRTUAL_HOST"]; v != nil && strings.Contains(s.cfg.Image, "nginx") {
			return true
		}
	}
	return false
}

// deployLabels are the labels of a service below deploy.
func deployLabels(c types.ServiceConfig) map[string]string {
	if c.Deploy == nil {
		return nil
	}
	return c.Deploy.Labels
}
