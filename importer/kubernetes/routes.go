package kubernetes

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/drover-nomad/drover/importer"
)

var (
	hostName  = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)
	routePath = regexp.MustCompile(`^/[A-Za-z0-9._~/+-]*$`)
	bodySize  = regexp.MustCompile(`^[0-9]+[kmg]?$`)
	stripForm = regexp.MustCompile(`^(/[A-Za-z0-9._~/+-]*?)/?\(/\|\$\)\(\.\*\)$|^(/[A-Za-z0-9._~/+-]*?)/?\(\.\*\)$`)
)

// route is what an Ingress or an HTTPRoute asks of the edge for one path.
type route struct {
	at    *importer.Node
	ns    string
	host  string // "" for all hosts
	path  string
	exact bool
	tls   bool
	tags  []importer.Text
}

// routes maps what leads from outside to a Service.
func (r *reader) routes() {
	for _, o := range r.all("Ingress") {
		r.ingress(o)
	}
	for _, o := range r.objects {
		if strings.HasPrefix(o.group, "gateway.networking.k8s.io") && (o.kind == "HTTPRoute" || o.kind == "GRPCRoute") {
			r.httpRoute(o)
		}
	}
	for _, o := range r.all("Gateway") {
		if strings.HasPrefix(o.group, "gateway.networking.k8s.io") {
			dropRest(o.node.Get("spec"), "the edge of drover stands for the gateway")
		}
	}
	for _, o := range r.all("Service") {
		if o.group == "" && o.node.Get("spec", "type").Peek() == "LoadBalancer" {
			r.loadBalancer(o)
		}
	}
}

// domain is the host of a route that names none: the variable domain, and a name below
// it for each further service.
func (r *reader) domain(name string) importer.Text {
	if !slices.ContainsFunc(r.m.Variables, func(v importer.Variable) bool { return v.Name == "domain" }) {
		r.m.Variables = append(r.m.Variables, importer.Variable{Name: "domain", Default: importer.Quote(r.m.Name + ".example.org"), Description: "Host name of the routes whose input names none."})
	}
	r.domains++
	if r.domains == 1 || name == "" {
		return importer.Var("domain")
	}
	return append(importer.Lit(name+"."), importer.Var("domain")...)
}

// lead gives the ports behind a Service a route. It returns false if there is none.
func (r *reader) lead(x route, service string, port *importer.Node) bool {
	o := r.find("Service", x.ns, service)
	var found *backend
	if o != nil {
		all := r.backends(o)
		for i, b := range all {
			if b.name != "" && b.name == port.Peek() || strconv.Itoa(b.port) == port.Peek() || port.Peek() == "" && len(all) == 1 {
				found = &all[i]
			}
		}
	}
	if found == nil || len(found.targets) == 0 {
		x.at.Warn("route", fmt.Sprintf("the route leads to port %s of the Service %s, which no workload of the input has", cmp.Or(port.Peek(), "?"), service), "Import them together, or write a tag drover.route=HOST/PATH into the job.")
		return false
	}
	port.Take()
	host := importer.Lit(strings.ToLower(x.host))
	if x.host == "" {
		host = r.domain(service)
		r.ledger.Warn(x.at.Pos(), "route", fmt.Sprintf("the route to %s is for all hosts; here it is for the host in the variable domain", service), "Set domain in environments/default.hcl.")
	} else if !hostName.MatchString(strings.ToLower(x.host)) {
		x.at.Warn("route", fmt.Sprintf("the edge has no route for host %q", x.host), "Write a tag drover.route=HOST/PATH for each name.")
		return false
	}
	path := cmp.Or(x.path, "/")
	if !routePath.MatchString(path) {
		x.at.Warn("route", fmt.Sprintf("the edge has no route for the path %q", path), "Write a tag drover.route=HOST/PATH with a plain path.")
		return false
	}
	if x.exact && path != "/" {
		r.ledger.Warn(x.at.Pos(), "route", fmt.Sprintf("the route of %s%s matches what begins with this path, not the path alone", x.host, path), "Let the service answer 404 for the rest.")
	}
	tags := append([]importer.Text{slices.Concat(importer.Lit("drover.route="), host, importer.Lit(path))}, x.tags...)
	if found.protocol != "" && !slices.ContainsFunc(x.tags, func(t importer.Text) bool { return strings.HasPrefix(literalOf(t), "drover.protocol=") }) {
		tags = append(tags, importer.Lit("drover.protocol="+found.protocol))
	}
	if x.tls {
		r.m.Certify(host)
	} else {
		tags = append(tags, importer.Lit("drover.http=serve"))
	}
	for _, t := range found.targets {
		at := t.p.addPort(importer.Port{Number: t.number, At: x.at.Pos()})
		t.p.selected[t.number] = true
		for _, tag := range tags {
			if !slices.ContainsFunc(at.Tags, func(o importer.Text) bool { return slices.Equal(o, tag) }) {
				at.Tags = append(at.Tags, tag)
			}
		}
	}
	return true
}

// ingress maps the rules of an Ingress.
func (r *reader) ingress(o *object) {
	spec := o.node.Get("spec")
	spec.Fields()
	spec.Get("ingressClassName").Drop("the edge of drover stands for the ingress controller")
	tls := map[string]bool{}
	for _, t := range spec.Get("tls").Items() {
		for _, h := range t.Get("hosts").Items() {
			tls[h.Text()] = true
		}
		t.Get("secretName").Drop("drover gets a certificate for these names from its own issuer")
	}
	opts := r.annotations(o)
	x := route{at: spec, ns: o.ns, tags: opts.tags}
	lead := func(at *importer.Node, host, path string, kind *importer.Node, b *importer.Node) {
		y := x
		y.at, y.host, y.path, y.exact = at, host, path, kind.Text() == "Exact"
		y.tls = (tls[host] || len(tls) == 0 && len(spec.Get("tls").Items()) > 0 || tls["*."+host[strings.IndexByte(host, '.')+1:]]) && !opts.plain
		if opts.denied {
			return
		}
		if m := stripForm.FindStringSubmatch(path); m != nil {
			y.path = cmp.Or(m[1], m[2], "/")
			if opts.rewrite != "" && y.path != "/" {
				y.tags = append(slices.Clone(y.tags), importer.Lit("drover.strip="+y.path))
			}
		} else if path != "/" && path != "" && opts.rewrite == "/" {
			y.tags = append(slices.Clone(y.tags), importer.Lit("drover.strip="+strings.TrimSuffix(path, "/")))
			r.ledger.Warn(at.Pos(), "route", fmt.Sprintf("the prefix %s is removed from paths; the Ingress sends all of them to /", path), "Check the paths.")
		} else if opts.rewrite != "" {
			r.ledger.Warn(at.Pos(), "route", fmt.Sprintf("the path %s is to be rewritten to %s, which the edge cannot", path, opts.rewrite), "Let the service answer on its own path.")
		}
		y.path = strings.TrimSuffix(y.path, "*") // of other controllers
		name, port := b.Get("service", "name"), cmp.Or(b.Get("service", "port", "number"), b.Get("service", "port", "name"))
		if b.Get("serviceName") != nil { // before v1
			name, port = b.Get("serviceName"), b.Get("servicePort")
		}
		if opts.redirect != "" {
			r.ledger.Warn(at.Pos(), "route", fmt.Sprintf("requests for %s are redirected by the tag of a service", host), "Keep the service.")
		}
		r.lead(y, name.Text(), port)
		port.Take()
	}
	if b := cmp.Or(spec.Get("defaultBackend"), spec.Get("backend")); b.Exists() {
		b.Fields()
		lead(b, "", "/", nil, b)
	}
	for _, rule := range spec.Get("rules").Items() {
		host := rule.Get("host").Text()
		for _, p := range rule.Get("http", "paths").Items() {
			b := p.Get("backend")
			if b.Get("resource").Exists() {
				b.Warn("route", "the route leads to an object that is no Service", "Write a tag drover.route=HOST/PATH into the job.")
				continue
			}
			lead(p, host, p.Get("path").Text(), p.Get("pathType"), b)
		}
	}
}

// options are what the annotations of an Ingress say.
type options struct {
	tags              []importer.Text
	rewrite, redirect string
	plain             bool // HTTP is not redirected
	denied            bool // another service decides, and the route is left out
}

func (r *reader) annotations(o *object) options {
	var opts options
	tag := func(text string) { opts.tags = append(opts.tags, importer.Lit(text)) }
	for _, n := range o.node.Get("metadata", "annotations").Fields() {
		prefix, key, _ := strings.Cut(n.Key, "/")
		value := n.Peek()
		if prefix == "cert-manager.io" || n.Key == "kubernetes.io/tls-acme" || strings.HasPrefix(prefix, "acme.cert-manager") || n.Key == "kubernetes.io/ingress.class" {
			n.Take()
			continue
		}
		if !strings.Contains(prefix, "nginx") {
			if strings.Contains(prefix, "traefik") || strings.Contains(prefix, "haproxy") || strings.HasPrefix(prefix, "alb.") {
				n.Warn("route", fmt.Sprintf("the annotation %s of the Ingress %s is not mapped", n.Key, o.name), "Look for it in the routes of drover.")
			}
			continue
		}
		n.Take()
		switch key {
		case "rewrite-target":
			opts.rewrite = value
		case "use-regex":
		case "ssl-redirect", "force-ssl-redirect":
			opts.plain = opts.plain || key == "ssl-redirect" && value == "false"
		case "proxy-body-size", "client-max-body-size":
			if bodySize.MatchString(strings.ToLower(value)) && value != "0" {
				tag("drover.max-body=" + strings.ToLower(value))
			}
		case "whitelist-source-range", "allowlist-source-range":
			var all []string
			for _, a := range strings.Split(value, ",") {
				a = strings.TrimSpace(a)
				if _, err := netip.ParsePrefix(a); err == nil {
					all = append(all, a)
				} else if _, err := netip.ParseAddr(a); err == nil {
					all = append(all, a)
				}
			}
			if len(all) == 0 {
				n.Refuse("route", fmt.Sprintf("%q restricts the Ingress %s to no address", value, o.name), "Write addresses. Allowed, the route is left out.")
				opts.denied = true
				continue
			}
			tag("drover.allow=" + strings.Join(all, ","))
		case "affinity":
			tag("drover.sticky=cookie")
		case "session-cookie-name", "session-cookie-hash", "session-cookie-max-age", "session-cookie-expires", "affinity-mode", "session-cookie-path":
			n.Drop("the cookie is the edge's")
		case "backend-protocol", "secure-backends":
			switch strings.ToUpper(value) {
			case "HTTPS", "TRUE":
				tag("drover.protocol=https")
			case "GRPC":
				tag("drover.protocol=h2c")
			case "HTTP", "FALSE":
			default:
				n.Warn("route", fmt.Sprintf("the edge speaks no %s with services", value), "Use HTTP.")
			}
		case "auth-type", "auth-secret", "auth-realm", "auth-secret-type":
			if key == "auth-type" {
				list := importer.DNSName(r.m.Name + "-" + o.name)
				tag("drover.auth=" + list)
				n.Warn("route", fmt.Sprintf("the users of the Ingress %s are kept by the edge, and requests are denied until it has them", o.name),
					fmt.Sprintf("nomad var put drover/users/%s USER='HASH', and name %s in the variable users of the edge.", list, list))
			}
		case "auth-url":
			n.Refuse("forward-auth", fmt.Sprintf("another service decides about requests to the Ingress %s", o.name), "Write a tag drover.forward-auth into the job. Allowed, the route is left out.")
			opts.denied = true
		case "limit-rps", "limit-rpm":
			if v, err := strconv.Atoi(value); err == nil && v > 0 {
				tag(fmt.Sprintf("drover.limit=%d/%s", v, strings.TrimPrefix(key, "limit-rp")))
			}
		case "proxy-read-timeout", "proxy-send-timeout", "proxy-connect-timeout", "proxy-buffering", "proxy-buffer-size", "proxy-request-buffering", "proxy-buffers-number", "proxy-http-version", "websocket-services":
			n.Drop("the edge has timeouts and buffers of its own")
		default:
			n.Warn("route", fmt.Sprintf("the annotation %s of the Ingress %s is not mapped", key, o.name), "Look for it in the routes of drover.")
		}
	}
	return opts
}

// httpRoute maps an HTTPRoute or a GRPCRoute of the Gateway API.
func (r *reader) httpRoute(o *object) {
	spec := o.node.Get("spec")
	tls := false
	for _, ref := range spec.Get("parentRefs").Items() {
		ref.Take()
		if g := r.find("Gateway", cmp.Or(ref.Get("namespace").Peek(), o.ns), ref.Get("name").Peek()); g != nil {
			for _, l := range g.node.Get("spec", "listeners").Items() {
				if s := ref.Get("sectionName").Peek(); l.Get("protocol").Peek() == "HTTPS" && (s == "" || s == l.Get("name").Peek()) {
					tls = true
				}
			}
		}
	}
	var hosts []string
	for _, h := range spec.Get("hostnames").Items() {
		hosts = append(hosts, h.Text())
	}
	if len(hosts) == 0 {
		hosts = []string{""}
	}
	for _, rule := range spec.Get("rules").Items() {
		var tags []importer.Text
		skip := false
		for _, f := range rule.Get("filters").Items() {
			more, ok := r.filter(f)
			tags = append(tags, more...)
			skip = skip || !ok
		}
		for _, key := range []string{"timeouts", "retry", "sessionPersistence"} {
			rule.Get(key).Warn("route", fmt.Sprintf("%s of %s are those of the edge", key, o.name), "Set the timeouts of the edge.")
		}
		rule.Get("name").Take()
		matches := rule.Get("matches").Items()
		if len(matches) == 0 {
			matches = []*importer.Node{nil}
		}
		refs := rule.Get("backendRefs").Items()
		for i, ref := range refs {
			for _, key := range []string{"group", "kind", "namespace"} {
				ref.Get(key).Take()
			}
			if w, ok := ref.Get("weight").Int(); ok && len(refs) > 1 {
				ref.Get("weight").Warn("route", fmt.Sprintf("the edge has no weights; %s of %s gets requests like the others", ref.Get("name").Peek(), o.name), "Use canaries of Nomad for a part of the requests.")
				if w == 0 {
					continue
				}
			}
			if skip {
				ref.Take()
				continue
			}
			_ = i
			for _, m := range matches {
				if extra := cmp.Or(m.Get("headers"), m.Get("queryParams"), m.Get("method")); extra.Exists() {
					m.Warn("route", fmt.Sprintf("a rule of %s matches %s, which the edge cannot", o.name, extra.Key), "Let the service decide.")
					continue
				}
				path, kind := m.Get("path", "value").Text(), m.Get("path", "type").Text()
				if kind == "RegularExpression" {
					m.Warn("route", fmt.Sprintf("a rule of %s matches a regular expression, which the edge cannot", o.name), "Write a tag drover.route=HOST/PATH by hand.")
					continue
				}
				rewritten := slices.Clone(tags)
				for k, t := range rewritten {
					if literalOf(t) == "drover.strip=" {
						rewritten[k] = importer.Lit("drover.strip=" + strings.TrimSuffix(path, "/"))
					}
				}
				rewritten = slices.DeleteFunc(rewritten, func(t importer.Text) bool { return literalOf(t) == "drover.strip=" })
				for _, host := range hosts {
					r.lead(route{at: cmp.Or(m, rule), ns: cmp.Or(ref.Get("namespace").Peek(), o.ns), host: host, path: path, exact: kind == "Exact", tls: tls, tags: rewritten}, ref.Get("name").Text(), ref.Get("port"))
				}
			}
			ref.Get("name").Take()
			ref.Get("port").Take()
			ref.Get("filters").Warn("route", "filters of one backend are not mapped", "Write them into the tags of the service.")
		}
	}
}

var headerText = regexp.MustCompile(`^[A-Za-z0-9-]+$`)

// filter maps a filter of a rule. It returns false if the rule must have no route.
func (r *reader) filter(f *importer.Node) ([]importer.Text, bool) {
	var tags []importer.Text
	switch kind := f.Get("type").Text(); kind {
	case "RequestHeaderModifier", "ResponseHeaderModifier":
		direction, key := "request", "requestHeaderModifier"
		if kind == "ResponseHeaderModifier" {
			direction, key = "response", "responseHeaderModifier"
		}
		for _, op := range []string{"set", "add"} {
			for _, h := range f.Get(key, op).Items() {
				name, value := h.Get("name").Text(), h.Get("value").Text()
				if headerText.MatchString(name) && !strings.ContainsAny(value, "\\$\n") && value != "" {
					tags = append(tags, importer.Lit(fmt.Sprintf("drover.header=%s set %s %s", direction, name, value)))
				}
			}
		}
		for _, h := range f.Get(key, "remove").Items() {
			if name := h.Text(); headerText.MatchString(name) {
				tags = append(tags, importer.Lit(fmt.Sprintf("drover.header=%s remove %s", direction, name)))
			}
		}
	case "URLRewrite":
		if v := f.Get("urlRewrite", "path", "replacePrefixMatch"); v.Peek() == "/" || v.Peek() == "" && v.Exists() {
			f.Get("urlRewrite", "path").Take()
			f.Get("urlRewrite", "hostname").Warn("route", "the host of requests is not rewritten", "Let the service answer for its name.")
			return append(tags, importer.Lit("drover.strip=")), true
		}
		f.Get("urlRewrite").Warn("route", "the edge removes a prefix of a path, and rewrites nothing else", "Let the service answer on this path.")
	case "RequestRedirect":
		f.Get("requestRedirect").Warn("route", "a redirect has no service here", "Write a tag drover.redirect=HOST/PATH CODE URL into a job. The edge redirects to HTTPS by itself.")
		return nil, false
	case "ExtensionRef":
		f.Get("extensionRef").Refuse("route", "a filter of this gateway may restrict the route", "Write tags of drover. Allowed, the route is left out.")
		return nil, false
	default:
		f.Warn("route", fmt.Sprintf("the filter %s is not mapped", kind), "Look for it in the routes of drover.")
	}
	return tags, true
}

// loadBalancer maps the ports of a Service of type LoadBalancer.
func (r *reader) loadBalancer(o *object) {
	spec := o.node.Get("spec")
	var allow []string
	for _, n := range spec.Get("loadBalancerSourceRanges").Items() {
		if _, err := netip.ParsePrefix(n.Peek()); err == nil {
			allow = append(allow, n.Text())
		}
	}
	var tags []importer.Text
	if len(allow) > 0 {
		tags = append(tags, importer.Lit("drover.allow="+strings.Join(allow, ",")))
	}
	for _, n := range spec.Get("ports").Items() {
		name, port := n.Get("name").Peek(), n.Get("port").Peek()
		proto := strings.ToUpper(n.Get("protocol").Peek())
		if proto == "UDP" || proto == "SCTP" {
			continue
		}
		app := n.Get("appProtocol").Peek()
		if port == "80" || port == "443" || port == "8080" || strings.HasPrefix(name, "http") || strings.HasPrefix(app, "http") {
			r.lead(route{at: n, ns: o.ns, path: "/", tls: port == "443", tags: tags}, o.name, n.Get("port"))
			continue
		}
		for _, b := range r.backends(o) {
			if strconv.Itoa(b.port) != port {
				continue
			}
			for _, t := range b.targets {
				at := t.p.addPort(importer.Port{Number: t.number, At: n.Pos()})
				at.Tags = append(at.Tags, append([]importer.Text{importer.Lit("drover.tcp=" + port)}, tags...)...)
				r.ledger.Warn(n.Pos(), "route", fmt.Sprintf("port %s of %s is one of the edge", port, o.name), fmt.Sprintf("Add %s to the variable tcp_ports of the edge.", port))
			}
		}
	}
}
