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
	r.led = map[string][]target{}
	for _, o := range r.all("Ingress") {
		r.ingress(o)
	}
	for _, o := range r.objects {
		if strings.HasPrefix(o.group, "gateway.networking.k8s.io") && (o.kind == "HTTPRoute" || o.kind == "GRPCRoute") {
			r.httpRoute(o)
		}
	}
	r.sides()
	r.redirects()
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

// backend is what is behind a port of a Service, nil if there is none. Without a port, it
// is the only one.
func (r *reader) backend(ns, service, port string) *backend {
	o := r.find("Service", ns, service)
	if o == nil {
		return nil
	}
	all := r.backends(o)
	for i, b := range all {
		if b.name != "" && b.name == port || strconv.Itoa(b.port) == port || port == "" && len(all) == 1 {
			return &all[i]
		}
	}
	return nil
}

// lead gives the ports behind a Service a route. It returns false if there is none.
func (r *reader) lead(x route, service string, port *importer.Node) bool {
	found := r.backend(x.ns, service, port.Peek())
	if found == nil || len(found.targets) == 0 {
		x.at.Warn("route", fmt.Sprintf("the route leads to port %s of the Service %s, which no workload of the input has", cmp.Or(port.Peek(), "?"), service), "Import them together, or write a tag drover.route=HOST/PATH into the job.")
		return false
	}
	port.Take()
	host := importer.Lit(strings.ToLower(x.host))
	if x.host == "" {
		host = r.domain(service)
		r.ledger.Warn(x.at.Pos(), "route", fmt.Sprintf("the route to %s is for all hosts; here it is for the host in the variable domain", service), "Set domain in environments/default.hcl.")
	} else if !importer.IsRouteHost(strings.ToLower(x.host)) {
		x.at.Warn("route", fmt.Sprintf("the edge has no route for host %q", x.host), "Write a tag drover.route=HOST/PATH for each name.")
		return false
	}
	path := cmp.Or(x.path, "/")
	if !importer.IsRoutePath(path) {
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
	if slices.ContainsFunc(tags, func(t importer.Text) bool { return literalOf(t) == "drover.protocol=https" }) && !slices.ContainsFunc(tags, func(t importer.Text) bool { return strings.HasPrefix(literalOf(t), "drover.ca=") }) {
		tags = append(tags, importer.Lit("drover.ca=none"))
		r.ledger.Warn(x.at.Pos(), "route", fmt.Sprintf("the edge does not verify the certificate of %s", service), "Name its authority with drover.ca=NAME instead of drover.ca=none.")
	}
	if x.tls {
		r.m.Certify(host)
	} else {
		tags = append(tags, importer.Lit("drover.http=serve"))
	}
	for _, t := range found.targets {
		t.tag(x.at.Pos(), tags...)
	}
	key := strings.ToLower(x.host) + path
	r.led[key] = append(r.led[key], found.targets...)
	r.ledBy = append(r.ledBy, ledRoute{x.ns, found.targets[0]})
	return true
}

// tag adds tags to a port of a workload.
func (t target) tag(pos importer.Position, tags ...importer.Text) {
	at := t.p.addPort(importer.Port{Number: t.number, At: pos})
	t.p.selected[t.number] = true
	for _, tag := range tags {
		if !slices.ContainsFunc(at.Tags, func(o importer.Text) bool { return slices.Equal(o, tag) }) {
			at.Tags = append(at.Tags, tag)
		}
	}
}

// ledRoute is a port that has a route.
type ledRoute struct {
	ns string
	to target
}

// side is where a part of the requests for a path goes, beside the route that all of
// them have.
type side struct {
	at             *importer.Node
	ns, host, path string
	share          string // PERCENT of weights, or header or cookie NAME VALUE
	service, port  string
}

// sides gives the routes of others their canaries.
func (r *reader) sides() {
	for _, x := range r.beside {
		to := r.backend(x.ns, x.service, x.port)
		main := r.led[strings.ToLower(x.host)+cmp.Or(x.path, "/")]
		if to == nil || len(to.targets) == 0 || len(main) == 0 {
			x.at.Warn("route", fmt.Sprintf("a part of the requests for %s%s goes to %s, and the input does not have both services and a route for the rest", x.host, x.path, x.service), "Import them together, or write drover.weight or drover.canary.")
			continue
		}
		key := "drover.canary="
		if _, err := strconv.Atoi(x.share); err == nil {
			key = "drover.weight="
		}
		behind := to.targets[0]
		behind.tag(x.at.Pos())
		for _, t := range main {
			t.tag(x.at.Pos(), slices.Concat(importer.Lit(key+x.share+" service "), importer.Consul(behind.p.s.Name, behind.number)))
		}
	}
}

// redirection is a redirect, which the tag of a service makes.
type redirection struct {
	at   *importer.Node
	ns   string
	tag  string
	host string // with TLS; "" without
}

// redirects gives each redirect to a service of its namespace that has a route.
func (r *reader) redirects() {
	for _, x := range r.moves {
		at := slices.IndexFunc(r.ledBy, func(l ledRoute) bool { return l.ns == x.ns })
		if at < 0 {
			x.at.Warn("route", "a redirect needs a service with a route, whose tag makes it", "Write the tag "+x.tag+" into a job.")
			continue
		}
		r.ledBy[at].to.tag(x.at.Pos(), importer.Lit(x.tag))
		if x.host != "" {
			r.m.Certify(importer.Lit(x.host))
		}
	}
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
