package compose

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drover-nomad/drover/importer"
)

const middlewarePrefix = "traefik.http.middlewares."

// harmless are the names of middlewares and options outside the input that, by their
// name, restrict nothing.
var harmless = regexp.MustCompile(`(?i)redirect|https|www|header|gzip|compress|strip|slash|default|modern|intermediate|retry|cors|^tls`)

// refuseRoute refuses a route that restricts requests in a way that the edge cannot.
// Allowed, the service has no route: it must not be open to all.
func (s *service) refuseRoute(r *routes, l label, rule, message, remedy string) {
	l.node.Refuse(rule, message, remedy+" Allowed, the route is left out.")
	r.denied = true
}

// protocol is what the edge speaks with the service.
func (s *service) protocol(r *routes, at *importer.Node, protocol string) {
	switch protocol {
	case "h2c":
		r.tag(importer.Lit("drover.protocol=h2c"))
	case "https":
		r.tag(importer.Lit("drover.protocol=https"))
		r.tag(importer.Lit("drover.ca=none"))
		at.Warn("route", fmt.Sprintf("the edge does not verify the certificate of %s", s.cfg.Name), "Name its authority with drover.ca=NAME instead of drover.ca=none.")
	}
}

// users has the edge ask for users, of a list that no other stack has.
func (s *service) users(r *routes, l label, of string) {
	list := importer.DNSName(s.m.Name + "-" + s.s.Name)
	r.tag(importer.Lit("drover.auth=" + list))
	l.node.Warn("route", fmt.Sprintf("the users of %s are kept by the edge, and requests are denied until it has them", of),
		fmt.Sprintf("nomad var put drover/users/%s USER='HASH', and name %s in the variable users of the edge.", list, list))
}

// entryMiddlewares are the lists of middlewares that the command of a proxy gives to all
// routers of an entry point.
func (s *service) entryMiddlewares() []string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(s.project.Services)) {
		other := s.project.Services[name]
		if !proxies.MatchString(other.Image) {
			continue
		}
		for _, word := range other.Command {
			if m := entryPoint.FindStringSubmatch(word); m != nil {
				all = append(all, m[1])
			}
		}
	}
	return all
}

var entryPoint = regexp.MustCompile(`(?i)^--entrypoints\.[^.]+\.http\.middlewares=(.+)$`)

// usedMiddleware reports whether a label defines a middleware that a router, or a chain,
// of the project names.
func (s *service) usedMiddleware(name string) bool {
	rest, ok := strings.CutPrefix(name, middlewarePrefix)
	if !ok {
		rest, ok = strings.CutPrefix(name, tcpMiddlewarePrefix)
	}
	if !ok {
		return false
	}
	middleware, _, _ := strings.Cut(rest, ".")
	lists := s.entryMiddlewares()
	for _, other := range s.project.Services {
		for _, labels := range []map[string]string{other.Labels, deployLabels(other)} {
			for key, value := range labels {
				if strings.HasSuffix(strings.ToLower(key), ".middlewares") {
					lists = append(lists, value)
				}
			}
		}
	}
	for _, list := range lists {
		for _, n := range middlewareNames(list) {
			if n == middleware {
				return true
			}
		}
	}
	return false
}

// middlewareNames are the names in a list without their providers, in lower case.
func middlewareNames(list string) []string {
	var all []string
	for _, n := range strings.Split(list, ",") {
		n, _, _ = strings.Cut(strings.ToLower(strings.TrimSpace(n)), "@")
		all = append(all, n)
	}
	return all
}

// middlewareLabels are the labels of the project that define middlewares: those of the
// service over those of others, as one provider of Traefik has all of them.
func (s *service) middlewareLabels() map[string]label {
	all := map[string]label{}
	for _, name := range slices.Sorted(maps.Keys(s.project.Services)) {
		if name == s.cfg.Name {
			continue
		}
		other := &service{reader: s.reader, cfg: s.project.Services[name], at: s.reader.at(name), s: &importer.Service{Name: s.labels[name]}}
		for key, l := range other.labelList() {
			if strings.HasPrefix(key, middlewarePrefix) {
				all[key] = l
			}
		}
	}
	for key, l := range s.labelList() {
		if strings.HasPrefix(key, middlewarePrefix) {
			all[key] = l
		}
	}
	return all
}

// middlewares maps a list of middlewares, which from names.
func (s *service) middlewares(r *routes, from label, list string, depth int) {
	all := s.middlewareLabels()
	for i, name := range middlewareNames(list) {
		if depth > 10 {
			s.refuseRoute(r, from, "route", fmt.Sprintf("the chain of middlewares of %s does not end", s.cfg.Name), "Correct it.")
			return
		}
		s.middleware(r, all, from, name, strings.TrimSpace(strings.Split(list, ",")[i]), depth)
	}
}

// middleware maps a middleware of a router. The edge redirects to HTTPS by itself.
func (s *service) middleware(r *routes, all map[string]label, from label, name, written string, depth int) {
	prefix := middlewarePrefix + name + "."
	found := false
	forward, cors, limit, redirect, replace := map[string]label{}, map[string]label{}, map[string]label{}, map[string]label{}, map[string]label{}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		l := all[key]
		rest, ok := strings.CutPrefix(key, prefix)
		if !ok {
			continue
		}
		found = true
		value := s.literal(l.text)
		kind, option, _ := strings.Cut(rest, ".")
		l.node.Take()
		switch kind {
		case "chain":
			if option == "middlewares" {
				s.middlewares(r, l, value, depth+1)
			}
		case "redirectscheme":
			r.tls = r.tls || option == "scheme" && value == "https"
		case "redirectregex":
			redirect[option] = l
		case "stripprefix":
			if option == "prefixes" && !strings.Contains(value, ",") && importer.IsRoutePath(value) {
				r.tag(importer.Lit("drover.strip="), l.words(l.flat))
			} else if option == "prefixes" {
				l.node.Warn("route", fmt.Sprintf("the middleware %s strips several prefixes; the edge strips one", name), "Give each prefix a service of its own.")
			}
		case "addprefix":
			if importer.IsRoutePath(value) {
				r.tag(importer.Lit("drover.rewrite=/** " + strings.TrimSuffix(value, "/") + "/{1}"))
			}
		case "replacepath":
			if importer.IsRoutePath(value) {
				r.tag(importer.Lit("drover.rewrite=/** " + value))
			}
		case "replacepathregex":
			replace[option] = l
		case "basicauth", "digestauth":
			if option == "users" || option == "usersfile" {
				s.users(r, l, "the middleware "+name)
			}
		case "ipallowlist", "ipwhitelist":
			if option == "sourcerange" {
				r.tag(importer.Lit("drover.allow=" + strings.ReplaceAll(value, " ", "")))
			} else if strings.HasPrefix(option, "ipstrategy") {
				l.node.Warn("route", fmt.Sprintf("the edge compares the address of its client, and the middleware %s one that a header names", name), "Let proxies before the edge use the PROXY protocol.")
			}
		case "headers":
			if strings.HasPrefix(option, "accesscontrol") || option == "addvaryheader" {
				cors[option] = l
			} else {
				s.headers(r, l, option, value)
			}
		case "buffering":
			if option == "maxrequestbodybytes" && value != "0" {
				r.tag(importer.Lit("drover.max-body=" + value))
			}
		case "ratelimit":
			limit[option] = l
		case "compress":
			r.tag(importer.Lit("drover.compress=gzip"))
		case "retry":
			if n, err := strconv.Atoi(value); option == "attempts" && err == nil && n > 0 {
				r.tag(importer.Lit(importer.RetriesTag(n, nil)))
			}
		case "circuitbreaker":
			l.node.Warn("route", fmt.Sprintf("the condition of the middleware %s is not mapped", name), "Write drover.breaker=ERRORS TIME, such as drover.breaker=10 30s.")
		case "contenttype":
			l.node.Drop(fmt.Sprintf("the middleware %s changes no answer's meaning", kind))
		case "forwardauth":
			forward[option] = l
		case "plugin":
			s.refuseRoute(r, l, "route", fmt.Sprintf("the middleware %s is a plugin, which may restrict the requests to %s", name, s.cfg.Name), "Write tags of drover that do the same.")
		default:
			l.node.Warn("route", fmt.Sprintf("the middleware %s (%s) has no counterpart at the edge", name, kind), "See docs/reference/routes.md.")
		}
	}
	if len(forward) > 0 {
		s.forwardAuth(r, from, forward)
	}
	s.cors(r, name, cors)
	s.limit(r, name, limit)
	s.redirect(r, name, redirect)
	s.replace(r, name, replace)
	switch {
	case found || name == "":
	case harmless.MatchString(name):
		from.node.Warn("route", fmt.Sprintf("the middleware %s of %s is not in the input", written, s.cfg.Name), "Write tags of drover that do the same.")
	default:
		s.refuseRoute(r, from, "route", fmt.Sprintf("the middleware %s of %s is not in the input, and may restrict the requests", written, s.cfg.Name), "Write its labels into the input, or leave it out.")
	}
}

// forwardAuth maps the options of a middleware that asks another service about requests.
func (s *service) forwardAuth(r *routes, from label, options map[string]label) {
	at, ok := options["address"]
	if !ok {
		s.refuseRoute(r, from, "forward-auth", fmt.Sprintf("requests to %s are decided by a service that is not named", s.cfg.Name), "Name it in forwardauth.address.")
		return
	}
	at.node.Take()
	u, err := url.Parse(s.literal(at.text))
	other := ""
	if err == nil {
		other = s.named(u.Hostname())
	}
	port := 80
	if err == nil && u.Port() != "" {
		port, err = strconv.Atoi(u.Port())
	}
	switch {
	case err != nil || port < 1 || port > 65535 || !importer.AuthPath(u.Path):
		s.refuseRoute(r, at, "forward-auth", fmt.Sprintf("the edge cannot ask %q about requests to %s", s.literal(at.text), s.cfg.Name), "Write http://SERVICE:PORT/PATH.")
		return
	case other == "":
		s.refuseRoute(r, at, "forward-auth", fmt.Sprintf("%s decides about requests to %s, and is no service of the input", u.Hostname(), s.cfg.Name), "Import them together, or write drover.forward-auth=SERVICE/PATH with its name in Consul.")
		return
	case u.Scheme != "http":
		s.refuseRoute(r, at, "forward-auth", fmt.Sprintf("the edge asks %s by HTTP, and not by %s", other, u.Scheme), "Let it listen for HTTP.")
		return
	}
	if u.RawQuery != "" {
		at.node.Warn("forward-auth", fmt.Sprintf("the edge asks %s without the query %q", other, u.RawQuery), "Set the address of its login in its own configuration.")
	}
	var headers []string
	for _, option := range slices.Sorted(maps.Keys(options)) {
		l := options[option]
		switch option {
		case "address":
		case "authresponseheaders":
			for _, h := range strings.Split(s.literal(l.text), ",") {
				if h = strings.TrimSpace(h); headerName.MatchString(h) {
					headers = append(headers, h)
				}
			}
		case "trustforwardheader", "authrequestheaders":
			l.node.Drop("the edge sends the headers of the request, and sets X-Forwarded-* itself")
		default:
			l.node.Warn("forward-auth", fmt.Sprintf("the option %s of the authenticator of %s is not mapped", option, s.cfg.Name), "See docs/reference/routes.md.")
		}
	}
	r.tag(importer.ForwardAuthTag(other, port, u.Path, headers))
}

var headerName = regexp.MustCompile(`^[A-Za-z0-9-]+$`)

// named is the label of the service of the project that has this name, "" if there is
// none.
func (s *service) named(host string) string {
	for _, name := range slices.Sorted(maps.Keys(s.project.Services)) {
		c := s.project.Services[name]
		if name == host || c.ContainerName == host || c.Hostname == host {
			return s.labels[name]
		}
		for _, n := range c.Networks {
			if n != nil && slices.Contains(n.Aliases, host) {
				return s.labels[name]
			}
		}
	}
	return ""
}

// cors maps the headers with which a middleware answers browsers of other sites.
func (s *service) cors(r *routes, name string, options map[string]label) {
	for option, l := range options {
		if option == "accesscontrolexposeheaders" {
			r.tag(importer.Lit("drover.header=response set Access-Control-Expose-Headers " + s.literal(l.text)))
		}
	}
	origins, ok := options["accesscontrolalloworiginlist"]
	if !ok {
		if l, regexp := options["accesscontrolalloworiginlistregex"]; regexp {
			l.node.Warn("route", fmt.Sprintf("the edge compares no origin with the regular expressions of the middleware %s", name), "Write drover.cors=ORIGIN,ORIGIN.")
		}
		return
	}
	tag, problem := importer.CORSTag(strings.Split(s.literal(origins.text), ","), s.literal(options["accesscontrolallowcredentials"].text) == "true")
	if problem != "" {
		origins.node.Warn("route", fmt.Sprintf("the edge does not have %s of the middleware %s", problem, name), "Write drover.cors=ORIGIN,ORIGIN.")
		return
	}
	r.tag(importer.Lit(tag))
}

// limit maps a middleware that limits how often a client asks.
func (s *service) limit(r *routes, name string, options map[string]label) {
	average, ok := options["average"]
	n, err := strconv.Atoi(s.literal(average.text))
	if !ok || err != nil || n <= 0 {
		return
	}
	period := time.Second
	if p, ok := options["period"]; ok {
		text := s.literal(p.text)
		if period, err = time.ParseDuration(text); err != nil {
			if sec, err := strconv.Atoi(text); err == nil {
				period = time.Duration(sec) * time.Second
			}
		}
	}
	switch {
	case period == time.Second:
		r.tag(importer.Lit(fmt.Sprintf("drover.limit=%d/s", n)))
	case period >= time.Millisecond && float64(n)*float64(time.Minute)/float64(period) >= 1:
		r.tag(importer.Lit(fmt.Sprintf("drover.limit=%d/m", int(float64(n)*float64(time.Minute)/float64(period)))))
	default:
		average.node.Warn("route", fmt.Sprintf("the period of the middleware %s is too long for the edge", name), "Write drover.limit=NUMBER/m.")
	}
}

var (
	redirectFrom = regexp.MustCompile(`^\^?https?\??://\(?((?:[a-z0-9-]|\\?\.)+)\)?(?:/\(\.\*\)|/\?\(\.\*\)|\(\.\*\)|/)?\$?$`)
	redirectTo   = regexp.MustCompile(`^https?://[a-z0-9.-]+(?:/\$\{?1\}?|\$\{?1\}?|/)?$`)
	replaceFrom  = regexp.MustCompile(`^\^((?:/[A-Za-z0-9._~-]+)*)/?\(\.\*\)\$?$`)
	replaceTo    = regexp.MustCompile(`^((?:/[A-Za-z0-9._~-]+)*)/?\$\{?1\}?$`)
)

// redirect maps a redirect of all paths of a host to another host.
func (s *service) redirect(r *routes, name string, options map[string]label) {
	from, ok := options["regex"]
	if !ok {
		return
	}
	m := redirectFrom.FindStringSubmatch(s.literal(from.text))
	to := s.literal(options["replacement"].text)
	if m == nil || !redirectTo.MatchString(to) {
		from.node.Warn("route", fmt.Sprintf("the middleware %s redirects by a regular expression that the edge does not have", name), "Write drover.redirect=HOST/PATH CODE URL.")
		return
	}
	code := "302"
	if s.literal(options["permanent"].text) == "true" {
		code = "301"
	}
	to = strings.TrimRight(regexp.MustCompile(`\$\{?1\}?$`).ReplaceAllString(to, ""), "/") + "/"
	host := strings.ReplaceAll(m[1], `\`, "")
	r.tag(importer.Lit(fmt.Sprintf("drover.redirect=%s/ %s %s", host, code, to)))
	r.hosts = append(r.hosts, importer.Lit(host))
}

// replace maps a change of the beginning of paths.
func (s *service) replace(r *routes, name string, options map[string]label) {
	from, ok := options["regex"]
	if !ok {
		return
	}
	m, n := replaceFrom.FindStringSubmatch(s.literal(from.text)), replaceTo.FindStringSubmatch(s.literal(options["replacement"].text))
	if m == nil || n == nil {
		from.node.Warn("route", fmt.Sprintf("the middleware %s changes paths by a regular expression that the edge does not have", name), "Write drover.rewrite=PATTERN PATH.")
		return
	}
	r.tag(importer.Lit(fmt.Sprintf("drover.rewrite=%s/** %s/{1}", m[1], n[1])))
}

// caddySite maps what the labels of a site of caddy-docker-proxy say beside its proxy.
func (s *service) caddySite(r *routes, all map[string]label, site string) {
	forward := map[string]label{}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		l := all[key]
		rest, ok := strings.CutPrefix(key, site+".")
		if !ok {
			continue
		}
		directive, option, _ := strings.Cut(rest, ".")
		if _, after, numbered := strings.Cut(directive, "_"); numbered && len(directive) > 2 && directive[0] >= '0' && directive[0] <= '9' {
			directive = after // 1_forward_auth: the number is its place
		}
		switch directive {
		case "forward_auth":
			l.node.Take()
			forward[map[string]string{"": "address", "uri": "uri", "copy_headers": "authresponseheaders"}[option]] = l
		case "basicauth", "basic_auth":
			l.node.Take()
			s.users(r, l, s.cfg.Name)
		case "encode":
			l.node.Take()
			r.tag(importer.Lit("drover.compress=gzip"))
		case "reverse_proxy", "tls", "log", "header", "header_up", "header_down", "redir", "request_body", "file_server", "root", "try_files":
			if directive == "tls" && strings.Contains(option, "client_auth") {
				s.refuseRoute(r, l, "route", fmt.Sprintf("clients of %s need a certificate", s.cfg.Name), "Write drover.client-cert=LIST.")
			}
		default:
			s.refuseRoute(r, l, "route", fmt.Sprintf("the label %s of %s may restrict the requests", key, s.cfg.Name), "Write tags of drover that do the same.")
		}
	}
	at, ok := forward["address"]
	if !ok {
		return
	}
	address, uri := s.literal(at.text), s.literal(forward["uri"].text)
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	options := map[string]label{"address": {text: importer.Lit(address + uri), node: at.node}}
	if h, ok := forward["authresponseheaders"]; ok {
		options["authresponseheaders"] = label{text: importer.Lit(strings.Join(strings.Fields(s.literal(h.text)), ",")), node: h.node}
	}
	s.forwardAuth(r, at, options)
}
