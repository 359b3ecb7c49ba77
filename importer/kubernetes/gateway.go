package kubernetes

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drover-nomad/drover/importer"
)

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
		r.routeRule(o, rule, hosts, tls)
	}
}

// routeRule maps a rule of an HTTPRoute. Its first backend has the route, and the others
// a share of its requests.
func (r *reader) routeRule(o *object, rule *importer.Node, hosts []string, tls bool) {
	rule.Get("name").Take()
	matches := rule.Get("matches").Items()
	if len(matches) == 0 {
		matches = []*importer.Node{nil}
	}
	var tags []importer.Text
	skip := false
	for _, f := range rule.Get("filters").Items() {
		more, ok := r.filter(o, f, hosts, matches, tls)
		tags = append(tags, more...)
		skip = skip || !ok
	}
	tags = append(tags, r.ruleOptions(o, rule)...)
	refs, shares := r.backendRefs(o, rule)
	if len(refs) == 0 || skip {
		return
	}
	for _, m := range matches {
		path, kind := m.Get("path", "value").Text(), m.Get("path", "type").Text()
		if method := m.Get("method"); o.kind == "GRPCRoute" && method.Exists() {
			path, kind = "/"+method.Get("service").Text()+"/"+method.Get("method").Text(), method.Get("type").Text()
			path = strings.TrimSuffix(strings.ReplaceAll(path, "//", "/"), "/")
		} else if extra := cmp.Or(m.Get("queryParams"), m.Get("method")); extra.Exists() {
			m.Warn("route", fmt.Sprintf("a rule of %s matches %s, which the edge cannot", o.name, extra.Key), "Let the service decide.")
			continue
		}
		if kind == "RegularExpression" {
			m.Warn("route", fmt.Sprintf("a rule of %s matches a regular expression, which the edge cannot", o.name), "Write a tag drover.route=HOST/PATH by hand.")
			continue
		}
		if headers := m.Get("headers").Items(); len(headers) > 0 {
			r.byHeader(o, m, headers, refs[0], hosts, path)
			continue
		}
		own := slices.Clone(tags)
		for k, t := range own {
			if rest, ok := strings.CutPrefix(literalOf(t), replacePrefix); ok {
				own[k] = importer.Lit("drover.strip=" + strings.TrimSuffix(path, "/"))
				if rest != "" {
					own[k] = importer.Lit("drover.rewrite=" + strings.TrimSuffix(path, "/") + "/** " + rest + "/{1}")
				}
			}
		}
		own = slices.DeleteFunc(own, func(t importer.Text) bool { return literalOf(t) == "drover.strip=" })
		for _, host := range hosts {
			for i, ref := range refs {
				ns := cmp.Or(ref.Get("namespace").Peek(), o.ns)
				if i == 0 {
					r.lead(route{at: cmp.Or(m, rule), ns: ns, host: host, path: path, exact: kind == "Exact", tls: tls, tags: own}, ref.Get("name").Text(), ref.Get("port"))
					continue
				}
				r.beside = append(r.beside, side{ref, ns, host, path, strconv.Itoa(shares[i]), ref.Get("name").Text(), ref.Get("port").Peek()})
				ref.Get("port").Take()
			}
		}
	}
}

// replacePrefix begins what stands for the tag of a prefix that is replaced, before its path is known.
const replacePrefix = "replace-prefix="

// byHeader maps a match of one header: requests with it go to the backend, if another
// rule has the path.
func (r *reader) byHeader(o *object, m *importer.Node, headers []*importer.Node, ref *importer.Node, hosts []string, path string) {
	name, value := headers[0].Get("name").Text(), headers[0].Get("value").Text()
	if kind := headers[0].Get("type").Text(); len(headers) > 1 || kind != "" && kind != "Exact" || !headerText.MatchString(name) || !canaryValue.MatchString(value) {
		m.Warn("route", fmt.Sprintf("a rule of %s matches headers in a way that the edge cannot", o.name), "Write drover.canary=header NAME VALUE service SERVICE.")
		return
	}
	for _, host := range hosts {
		r.beside = append(r.beside, side{m, cmp.Or(ref.Get("namespace").Peek(), o.ns), host, path, "header " + name + " " + value, ref.Get("name").Text(), ref.Get("port").Peek()})
	}
	ref.Get("port").Take()
}

// ruleOptions are the tags of the timeouts, the retries and the sessions of a rule.
func (r *reader) ruleOptions(o *object, rule *importer.Node) []importer.Text {
	var tags []importer.Text
	if timeouts := rule.Get("timeouts"); timeouts.Exists() {
		timeouts.Fields()
		n := cmp.Or(timeouts.Get("request"), timeouts.Get("backendRequest"))
		timeouts.Get("backendRequest").Take()
		if d, err := time.ParseDuration(n.Text()); err == nil && d > 0 {
			tags = append(tags, importer.Lit(importer.TimeoutTag("response", d)))
		}
	}
	if retry := rule.Get("retry"); retry.Exists() {
		var codes []string
		for _, c := range retry.Get("codes").Items() {
			codes = append(codes, c.Text())
		}
		retry.Get("backoff").Drop("the edge tries another instance at once")
		if n, ok := retry.Get("attempts").Int(); ok {
			retry.Get("attempts").Take()
			tags = append(tags, importer.Lit(importer.RetriesTag(int(n), codes)))
		}
	}
	if s := rule.Get("sessionPersistence"); s.Exists() {
		dropRest(s, "the cookie is the edge's")
		if s.Get("type").Peek() == "Header" {
			s.Warn("route", fmt.Sprintf("a rule of %s keeps sessions by a header; the edge does by a cookie", o.name), "Check whether the clients keep cookies.")
		}
		tags = append(tags, importer.Lit("drover.sticky=cookie"))
	}
	return tags
}

// backendRefs are the backends of a rule that get requests, and how many of a hundred.
func (r *reader) backendRefs(o *object, rule *importer.Node) (refs []*importer.Node, shares []int) {
	total := 0
	for _, ref := range rule.Get("backendRefs").Items() {
		for _, key := range []string{"group", "kind", "namespace"} {
			ref.Get(key).Take()
		}
		ref.Get("name").Take()
		ref.Get("filters").Warn("route", "filters of one backend are not mapped", "Write them into the tags of the service.")
		weight := 1
		if w, ok := ref.Get("weight").Int(); ok {
			ref.Get("weight").Take()
			weight = int(min(max(w, 0), 1_000_000))
		}
		if weight == 0 {
			ref.Get("port").Take()
			r.ledger.LeaveOut(ref.Pos(), fmt.Sprintf("%s gets no requests by the weights of %s", ref.Get("name").Peek(), o.name))
			continue
		}
		total += weight
		refs, shares = append(refs, ref), append(shares, weight)
	}
	for i := range shares {
		shares[i] = (shares[i]*100 + total/2) / total
	}
	return refs, shares
}

var headerText = regexp.MustCompile(`^[A-Za-z0-9-]+$`)

// filter maps a filter of a rule. It returns false if the rule must have no route.
func (r *reader) filter(o *object, f *importer.Node, hosts []string, matches []*importer.Node, tls bool) ([]importer.Text, bool) {
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
		f.Get("urlRewrite", "hostname").Warn("route", "the host of requests is not rewritten", "Let the service answer for its name.")
		switch p := f.Get("urlRewrite", "path"); {
		case p.Get("replacePrefixMatch").Exists() && (p.Get("replacePrefixMatch").Peek() == "" || importer.IsRoutePath(p.Get("replacePrefixMatch").Peek())):
			p.Take()
			tags = append(tags, importer.Lit(replacePrefix+strings.TrimSuffix(p.Get("replacePrefixMatch").Peek(), "/")))
		case importer.IsRoutePath(p.Get("replaceFullPath").Peek()):
			p.Take()
			for _, m := range matches {
				tags = append(tags, importer.Lit("drover.rewrite="+strings.TrimSuffix(m.Get("path", "value").Peek(), "/")+"/** "+p.Get("replaceFullPath").Peek()))
			}
		case p.Exists():
			p.Warn("route", "the edge cannot rewrite paths in this way", "Write drover.rewrite=PATTERN PATH.")
		}
	case "RequestRedirect":
		r.requestRedirect(o, f.Get("requestRedirect"), hosts, matches, tls)
		return nil, false
	case "CORS":
		cors := f.Get("cors")
		var origins []string
		for _, n := range cors.Get("allowOrigins").Items() {
			origins = append(origins, n.Text())
		}
		text, problem := importer.CORSTag(origins, cors.Get("allowCredentials").Bool())
		if problem != "" {
			cors.Warn("route", fmt.Sprintf("the edge does not have %s of %s", problem, o.name), "Write drover.cors=ORIGIN,ORIGIN.")
			break
		}
		for _, key := range []string{"allowMethods", "allowHeaders", "maxAge"} {
			cors.Get(key).Drop("the edge allows what the browser asks for")
		}
		tags = append(tags, importer.Lit(text))
	case "ExtensionRef":
		f.Get("extensionRef").Refuse("route", "a filter of this gateway may restrict the route", "Write tags of drover. Allowed, the route is left out.")
		return nil, false
	default:
		f.Warn("route", fmt.Sprintf("the filter %s is not mapped", kind), "Look for it in the routes of drover.")
	}
	return tags, true
}

// requestRedirect maps a redirect to HTTPS, which the edge does itself, and those to
// another host or path.
func (r *reader) requestRedirect(o *object, n *importer.Node, hosts []string, matches []*importer.Node, tls bool) {
	n.Fields()
	scheme, to, path := n.Get("scheme").Text(), n.Get("hostname").Text(), n.Get("path")
	code := cmp.Or(n.Get("statusCode").Text(), "302")
	if scheme == "https" && to == "" && path == nil {
		n.Drop("the edge redirects to HTTPS itself")
		return
	}
	if scheme == "" {
		scheme = "http"
		if tls {
			scheme = "https"
		}
	}
	port := n.Get("port").Text()
	for _, host := range hosts {
		for _, m := range matches {
			from := cmp.Or(m.Get("path", "value").Text(), "/")
			m.Get("path", "type").Take()
			url := scheme + "://" + cmp.Or(to, host)
			if port != "" {
				url += ":" + port
			}
			switch full, prefix := path.Get("replaceFullPath"), path.Get("replacePrefixMatch"); {
			case full.Exists():
				url += full.Text()
			case prefix.Exists():
				from = strings.TrimSuffix(from, "/") + "/"
				url += strings.TrimSuffix(prefix.Text(), "/") + "/"
			default:
				from = strings.TrimSuffix(from, "/") + "/"
				url += from
			}
			path.Get("type").Take()
			if host == "" || !importer.IsRouteHost(host) || !importer.IsRoutePath(from) || !redirectURL.MatchString(url) || !slices.Contains([]string{"301", "302", "303", "307", "308"}, code) {
				n.Warn("route", fmt.Sprintf("the edge cannot redirect %s%s to %s", host, from, url), "Write drover.redirect=HOST/PATH CODE URL.")
				continue
			}
			secure := ""
			if tls {
				secure = host
			}
			r.moves = append(r.moves, redirection{n, o.ns, fmt.Sprintf("drover.redirect=%s%s %s %s", host, from, code, url), secure})
		}
	}
}
