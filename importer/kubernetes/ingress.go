package kubernetes

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drover-nomad/drover/importer"
)

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
		r.rewrite(&y, opts.rewrite)
		y.path = strings.TrimSuffix(y.path, "*") // of other controllers
		name, port := b.Get("service", "name"), cmp.Or(b.Get("service", "port", "number"), b.Get("service", "port", "name"))
		if b.Get("serviceName") != nil { // before v1
			name, port = b.Get("serviceName"), b.Get("servicePort")
		}
		tlsHost := ""
		if y.tls && host != "" {
			tlsHost = host
		}
		switch {
		case opts.redirect != "" && host != "":
			name.Take()
			r.moves = append(r.moves, redirection{at, o.ns, fmt.Sprintf("drover.redirect=%s%s %s", host, cmp.Or(y.path, "/"), opts.redirect), tlsHost})
		case opts.canary:
			for _, share := range opts.shares {
				r.beside = append(r.beside, side{at, o.ns, host, y.path, share, name.Text(), port.Peek()})
			}
			name.Take()
		case opts.passthrough && host != "":
			if b := r.backend(o.ns, name.Text(), port.Peek()); b != nil && len(b.targets) > 0 {
				for _, t := range b.targets {
					t.tag(at.Pos(), importer.Lit("drover.sni="+host))
				}
				break
			}
			at.Warn("route", fmt.Sprintf("the route leads to the Service %s, which no workload of the input has", name.Peek()), "Import them together.")
		default:
			if opts.www && host != "" {
				other, is := strings.CutPrefix(host, "www.")
				if !is {
					other = "www." + host
				}
				y.tags = append(slices.Clone(y.tags), importer.Lit(fmt.Sprintf("drover.redirect=%s/ 308 https://%s/", other, host)))
				if y.tls {
					r.m.Certify(importer.Lit(other))
				}
			}
			r.lead(y, name.Text(), port)
		}
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
	rewrite, redirect string // the latter is CODE URL
	plain             bool   // HTTP is not redirected
	denied            bool   // what restricts the route is not mapped, and the route is left out
	canary            bool   // another Ingress has the route for the rest
	shares            []string
	passthrough, www  bool
}

var rewriteTarget = regexp.MustCompile(`^((?:/[A-Za-z0-9._~-]+)*)/?\$[12]$`)

// rewrite makes a plain path of that of an Ingress, and adds the tags of what becomes of
// it.
func (r *reader) rewrite(y *route, to string) {
	add := func(tag string) { y.tags = append(slices.Clone(y.tags), importer.Lit(tag)) }
	written := y.path
	m := stripForm.FindStringSubmatch(y.path)
	if m != nil {
		y.path = cmp.Or(m[1], m[2], "/")
	}
	prefix := strings.TrimSuffix(y.path, "/")
	kept := rewriteTarget.FindStringSubmatch(to)
	switch {
	case to == "":
	case m != nil && (kept != nil && kept[1] == "" || to == "/"):
		if prefix != "" {
			add("drover.strip=" + prefix)
		}
	case m != nil && kept != nil:
		add("drover.rewrite=" + prefix + "/** " + kept[1] + "/{1}")
	case to == "/" && prefix != "":
		add("drover.strip=" + prefix)
		r.ledger.Warn(y.at.Pos(), "route", fmt.Sprintf("the prefix %s is removed from paths; the Ingress sends all of them to /", written), "Check the paths.")
	case m == nil && to != "/" && importer.IsRoutePath(to) && importer.IsRoutePath(cmp.Or(y.path, "/")):
		add("drover.rewrite=" + prefix + "/** " + to)
	case to == "/" && prefix == "":
	default:
		r.ledger.Warn(y.at.Pos(), "route", fmt.Sprintf("the path %s is to be rewritten to %s, which the edge cannot", written, to), "Let the service answer on its own path.")
	}
}

// restricting are annotations that, by their name, decide who reaches a service.
var restricting = regexp.MustCompile(`(?i)auth|whitelist|allow|deny|middleware|cidr|security|waf|source-range|jwt|oidc|client-cert|tls.?options`)

// snippet are directives of nginx that decide who reaches a service.
var snippet = regexp.MustCompile(`(?i)\b(deny|allow|auth_\w+|satisfy|access_by_lua\w*|return|if)\b`)

func (r *reader) annotations(o *object) options {
	var opts options
	tag := func(text string) { opts.tags = append(opts.tags, importer.Lit(text)) }
	all := map[string]*importer.Node{}
	for _, n := range o.node.Get("metadata", "annotations").Fields() {
		if prefix, key, _ := strings.Cut(n.Key, "/"); strings.Contains(prefix, "nginx") {
			all[key] = n
		}
	}
	peek := func(key string) string { return all[key].Peek() }
	deny := func(n *importer.Node, rule, message, remedy string) {
		n.Refuse(rule, message, remedy+" Allowed, the route is left out.")
		opts.denied = true
	}
	for _, n := range o.node.Get("metadata", "annotations").Fields() {
		prefix, key, _ := strings.Cut(n.Key, "/")
		value := n.Peek()
		if prefix == "cert-manager.io" || n.Key == "kubernetes.io/tls-acme" || strings.HasPrefix(prefix, "acme.cert-manager") || n.Key == "kubernetes.io/ingress.class" {
			n.Take()
			continue
		}
		if !strings.Contains(prefix, "nginx") {
			controller := strings.Contains(prefix, "traefik") || strings.Contains(prefix, "haproxy") || strings.HasPrefix(prefix, "alb.") || strings.Contains(prefix, "konghq") || strings.Contains(prefix, "projectcontour") || prefix == "ingress.kubernetes.io"
			switch {
			case controller && restricting.MatchString(key):
				deny(n, "route", fmt.Sprintf("the annotation %s of the Ingress %s may restrict the requests", n.Key, o.name), "Write tags of drover that do the same.")
			case controller:
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
			var headers []string
			for _, h := range strings.Split(peek("auth-response-headers"), ",") {
				if h = strings.TrimSpace(h); headerText.MatchString(h) {
					headers = append(headers, h)
				}
			}
			t, problem := r.authenticator(o, value, headers)
			if problem != "" {
				deny(n, "forward-auth", fmt.Sprintf("%s decides about requests to the Ingress %s, and %s", value, o.name, problem), "Import it together with its Service, with an address http://SERVICE:PORT/PATH.")
				continue
			}
			opts.tags = append(opts.tags, t)
		case "auth-response-headers":
		case "auth-signin", "auth-signin-redirect-param":
			n.Warn("forward-auth", fmt.Sprintf("clients get the answer of the authenticator of the Ingress %s, and not a redirect to %s", o.name, value),
				"Let it answer with a redirect itself; oauth2-proxy does on the path / with --upstream=static://202 and --reverse-proxy=true.")
		case "auth-method", "auth-cache-key", "auth-cache-duration", "auth-keepalive", "auth-always-set-cookie", "auth-proxy-set-headers", "auth-snippet", "auth-request-redirect":
			n.Warn("forward-auth", fmt.Sprintf("the annotation %s of the Ingress %s is not mapped", key, o.name), "See forward-auth in the routes of drover.")
		case "denylist-source-range":
			tag("drover.deny=" + strings.ReplaceAll(value, " ", ""))
		case "enable-cors":
			if value != "true" {
				continue
			}
			origins := strings.Split(cmp.Or(peek("cors-allow-origin"), "*"), ",")
			text, problem := importer.CORSTag(origins, peek("cors-allow-credentials") != "false" && peek("cors-allow-origin") != "" && strings.TrimSpace(origins[0]) != "*")
			if problem != "" {
				n.Warn("route", fmt.Sprintf("the edge does not have %s of the Ingress %s", problem, o.name), "Write drover.cors=ORIGIN,ORIGIN.")
				continue
			}
			tag(text)
		case "cors-allow-origin", "cors-allow-credentials":
		case "cors-allow-methods", "cors-allow-headers", "cors-max-age":
			n.Drop("the edge allows what the browser asks for")
		case "cors-expose-headers":
			tag("drover.header=response set Access-Control-Expose-Headers " + value)
		case "auth-tls-secret":
			list := importer.DNSName(r.m.Name + "-" + o.name)
			tag("drover.client-cert=" + list)
			n.Warn("route", fmt.Sprintf("the CAs of the Ingress %s are kept by the edge, and requests are denied until it has them", o.name),
				fmt.Sprintf("nomad var put drover/client-ca/%s ca=@ca.pem, and name %s in the variable client_cas of the edge.", list, list))
		case "auth-tls-verify-client":
			if value != "on" && all["auth-tls-secret"] != nil {
				n.Warn("route", fmt.Sprintf("clients of the Ingress %s need a certificate, also where %q does not ask for one", o.name, value), "Leave out drover.client-cert, if none is needed.")
			}
		case "auth-tls-verify-depth", "auth-tls-pass-certificate-to-upstream", "auth-tls-error-page":
			n.Drop("the edge tells the service the subject of the certificate")
		case "proxy-ssl-secret", "proxy-ssl-verify", "proxy-ssl-name", "proxy-ssl-verify-depth", "proxy-ssl-server-name":
			n.Warn("route", fmt.Sprintf("the annotation %s of the Ingress %s is not mapped", key, o.name), "Write drover.ca=NAME HOST.")
		case "proxy-connect-timeout", "proxy-read-timeout":
			if sec, err := strconv.Atoi(strings.TrimSuffix(value, "s")); err == nil && sec > 0 {
				tag(importer.TimeoutTag(map[string]string{"proxy-connect-timeout": "connect", "proxy-read-timeout": "response"}[key], time.Duration(sec)*time.Second))
			}
		case "proxy-next-upstream":
			tries := 3
			if v, err := strconv.Atoi(peek("proxy-next-upstream-tries")); err == nil && v > 0 {
				tries = v
			}
			if value == "off" {
				tries = 1
			}
			tag(importer.RetriesTag(tries-1, strings.Fields(strings.ReplaceAll(value, "http_", ""))))
		case "proxy-next-upstream-tries", "proxy-next-upstream-timeout":
		case "permanent-redirect", "temporal-redirect":
			code := cmp.Or(peek(key+"-code"), map[string]string{"permanent-redirect": "301", "temporal-redirect": "302"}[key])
			if redirectURL.MatchString(value) && slices.Contains([]string{"301", "302", "303", "307", "308"}, code) {
				opts.redirect = code + " " + value
			} else {
				deny(n, "route", fmt.Sprintf("the edge cannot redirect the Ingress %s to %q", o.name, value), "Write an address without variables.")
			}
		case "permanent-redirect-code", "temporal-redirect-code":
		case "from-to-www-redirect":
			opts.www = value == "true"
		case "ssl-passthrough":
			opts.passthrough = value == "true"
		case "x-forwarded-prefix":
			if importer.IsRoutePath(value) {
				tag("drover.header=request set X-Forwarded-Prefix " + value)
			}
		case "canary":
			opts.canary = value == "true"
		case "canary-weight":
			if v, err := strconv.Atoi(value); err == nil && v > 0 && v <= 100 && cmp.Or(peek("canary-weight-total"), "100") == "100" {
				opts.shares = append(opts.shares, value)
			} else if value != "0" {
				n.Warn("route", fmt.Sprintf("%s is no percentage of the requests", value), "Write drover.weight=PERCENT service NAME.")
			}
		case "canary-weight-total":
		case "canary-by-header":
			if v := cmp.Or(peek("canary-by-header-value"), "always"); headerText.MatchString(value) && canaryValue.MatchString(v) && peek("canary-by-header-pattern") == "" {
				opts.shares = append(opts.shares, "header "+value+" "+v)
			} else {
				n.Warn("route", "the edge compares the header of a canary with a plain value", "Write drover.canary=header NAME VALUE service SERVICE.")
			}
		case "canary-by-header-value", "canary-by-header-pattern":
		case "canary-by-cookie":
			if cookieName.MatchString(value) {
				opts.shares = append(opts.shares, "cookie "+value+" always")
			}
		case "configuration-snippet", "server-snippet", "modsecurity-snippet":
			if snippet.MatchString(value) {
				deny(n, "route", fmt.Sprintf("the annotation %s of the Ingress %s may restrict the requests", key, o.name), "Write tags of drover that do the same.")
				continue
			}
			n.Warn("route", fmt.Sprintf("the annotation %s of the Ingress %s is not mapped", key, o.name), "Look for it in the routes of drover.")
		case "limit-rps", "limit-rpm":
			if v, err := strconv.Atoi(value); err == nil && v > 0 {
				tag(fmt.Sprintf("drover.limit=%d/%s", v, strings.TrimPrefix(key, "limit-rp")))
			}
		case "proxy-send-timeout", "proxy-buffering", "proxy-buffer-size", "proxy-request-buffering", "proxy-buffers-number", "proxy-http-version", "websocket-services":
			n.Drop("the edge has timeouts and buffers of its own")
		default:
			if restricting.MatchString(key) {
				deny(n, "route", fmt.Sprintf("the annotation %s of the Ingress %s may restrict the requests", key, o.name), "Write tags of drover that do the same.")
				continue
			}
			n.Warn("route", fmt.Sprintf("the annotation %s of the Ingress %s is not mapped", key, o.name), "Look for it in the routes of drover.")
		}
	}
	return opts
}

var (
	redirectURL = regexp.MustCompile(`^https?://[a-z0-9][a-z0-9.-]*(:[0-9]+)?(/[A-Za-z0-9._~/+-]*)?$`)
	canaryValue = regexp.MustCompile(`^[A-Za-z0-9._~-]+$`)
	cookieName  = regexp.MustCompile(`^[A-Za-z0-9_]+$`)
)

// authenticator is the tag by which the edge asks the service of an address, or why it
// cannot. The address is that of a Service, or of a host and a path for which the input
// has an Ingress: $host stands for any.
func (r *reader) authenticator(o *object, address string, headers []string) (importer.Text, string) {
	plain := strings.NewReplacer("$scheme://", "http://", "${", "$", "}", "").Replace(address)
	scheme, rest, ok := strings.Cut(plain, "://")
	host, path, _ := strings.Cut(rest, "/")
	path, query, _ := strings.Cut("/"+path, "?")
	if !ok || !importer.AuthPath(path) {
		return nil, "its address is not of the form http://SERVICE:PORT/PATH"
	}
	var b *backend
	name, port, _ := strings.Cut(host, ":")
	if strings.HasPrefix(name, "$") || r.find("Service", cmp.Or(second(name), o.ns), first(name)) == nil {
		b = r.ingressed(name, path)
	} else if scheme == "https" {
		return nil, "the edge asks by HTTP and not by HTTPS"
	} else {
		b = r.backend(cmp.Or(second(name), o.ns), first(name), cmp.Or(port, "80"))
	}
	if b == nil || len(b.targets) == 0 {
		return nil, "the input has no workload behind it"
	}
	if query != "" {
		r.ledger.Warn(o.node.Get("metadata", "annotations").Pos(), "forward-auth", fmt.Sprintf("the edge asks %s without the query %q", host, query), "Set the address of its login in its own configuration.")
	}
	t := b.targets[0]
	t.tag(o.node.Pos())
	return importer.ForwardAuthTag(t.p.s.Name, t.number, path, headers), ""
}

func first(host string) string { return strings.Split(host, ".")[0] }

// second is the namespace in the name of a Service, "" if it has none.
func second(host string) string {
	if all := strings.Split(host, "."); len(all) > 1 {
		return all[1]
	}
	return ""
}

// ingressed is what an Ingress of the input has behind a host and a path; a host that is
// a variable of nginx stands for any.
func (r *reader) ingressed(host, path string) *backend {
	for _, o := range r.all("Ingress") {
		for _, rule := range o.node.Get("spec", "rules").Items() {
			if h := rule.Get("host").Peek(); h != host && !strings.HasPrefix(host, "$") {
				continue
			}
			for _, p := range rule.Get("http", "paths").Items() {
				at := strings.TrimSuffix(p.Get("path").Peek(), "/")
				if at == "" && strings.HasPrefix(host, "$") || !strings.HasPrefix(path+"/", at+"/") {
					continue // the route of the application itself
				}
				s := p.Get("backend", "service")
				if b := r.backend(o.ns, s.Get("name").Peek(), cmp.Or(s.Get("port", "number").Peek(), s.Get("port", "name").Peek())); b != nil {
					return b
				}
			}
		}
	}
	return nil
}
