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

// backend is a port of a Service.
type backend struct {
	name     string
	port     int
	protocol string // h2c or https, for routes
	targets  []target
}

// target is a port of a workload.
type target struct {
	p      *part
	number int
}

// selectedBy reports whether a selector of a Service selects the pods.
func (p *part) selectedBy(sel *importer.Node) bool {
	fields := sel.Fields()
	labels := p.podLabels()
	for _, n := range fields {
		if v, ok := labels[n.Key]; !ok || v != n.Peek() {
			return false
		}
	}
	return len(fields) > 0
}

// backends are the ports of a Service.
func (r *reader) backends(o *object) []backend {
	spec := o.node.Get("spec")
	var parts []*part
	sel := spec.Get("selector")
	if o.kind == "ReplicationController" {
		return nil
	}
	for _, p := range r.parts {
		if p.o.ns == o.ns && p.s != nil && p.selectedBy(sel) {
			parts = append(parts, p)
		}
	}
	var all []backend
	for _, n := range spec.Get("ports").Items() {
		port, ok := n.Get("port").Int()
		if !ok || port < 1 || port > 65535 {
			continue
		}
		b := backend{name: n.Get("name").Text(), port: int(port)}
		switch app := cmp.Or(n.Get("appProtocol").Text(), b.name); {
		case app == "kubernetes.io/h2c" || app == "grpc" || app == "h2c" || strings.HasPrefix(app, "grpc-") || app == "http2":
			b.protocol = "h2c"
		case app == "https":
			b.protocol = "https"
		}
		for _, p := range parts {
			number := int(port)
			if t := n.Get("targetPort"); t.Exists() && t.Peek() != "0" {
				if number = p.portNumber(t, nil); number == 0 {
					continue
				}
			}
			b.targets = append(b.targets, target{p, number})
		}
		all = append(all, b)
	}
	return all
}

// service maps the Services to addresses of the mesh.
func (r *reader) services() {
	for _, o := range r.all("Service") {
		if o.group == "" {
			r.service(o)
		}
	}
	for _, kind := range []string{"Endpoints", "EndpointSlice"} {
		for _, o := range r.all(kind) {
			if o.used {
				continue
			}
			for _, n := range o.node.Fields() {
				if n.Key != "metadata" && !n.Used() {
					n.Drop("Kubernetes makes the endpoints of a Service with a selector")
				}
			}
		}
	}
}

func (r *reader) service(o *object) {
	spec := o.node.Get("spec")
	kind := spec.Get("type").Text()
	headless := spec.Get("clusterIP").Peek() == "None"
	r.serviceOptions(o, spec)
	if kind == "ExternalName" {
		r.externalName(o, spec)
		return
	}
	spec.Get("selector").Take()
	a := importer.Address{Name: r.addressName(o), At: o.node.Pos(), Sticky: spec.Get("sessionAffinity").Text() == "ClientIP", Hosts: r.hostsOf(o)}
	backends := r.backends(o)
	udp := map[int]string{}
	for _, n := range spec.Get("ports").Items() {
		if proto := strings.ToUpper(n.Get("protocol").Text()); proto == "UDP" || proto == "SCTP" {
			if v, err := strconv.Atoi(n.Get("port").Peek()); err == nil {
				udp[v] = proto
			}
		}
	}
	found := false
	for i, n := range spec.Get("ports").Items() {
		port, ok := n.Get("port").Int()
		if !ok || port < 1 || port > 65535 {
			n.Refuse(importer.RuleInvalid, fmt.Sprintf("a port of the Service %s has no number", o.name), "Write port, from 1 to 65535.")
			continue
		}
		var targets []target
		for _, b := range backends {
			if b.port == int(port) {
				targets = b.targets
			}
		}
		_ = i
		found = found || len(targets) > 0
		if len(targets) == 0 && n.Get("targetPort").Exists() && !n.Get("targetPort").Used() {
			n.Get("targetPort").Take()
		}
		if proto := strings.ToUpper(n.Get("protocol").Text()); proto == "UDP" || proto == "SCTP" {
			if ap := r.datagrams(o, n, proto, kind, targets); ap != nil {
				a.UDP = append(a.UDP, *ap)
			}
			continue
		}
		ap := importer.AddressPort{Number: int(port)}
		for _, t := range targets {
			t.p.addPort(importer.Port{Number: t.number, At: n.Pos()})
			t.p.selected[t.number] = true
			if !slices.Contains(ap.Targets, importer.Target{Service: t.p.label, Port: t.number}) {
				ap.Targets = append(ap.Targets, importer.Target{Service: t.p.label, Port: t.number})
			}
		}
		if len(spec.Get("selector").Keys()) == 0 {
			ap.Servers = r.endpoints(o, n, int(port))
			found = found || len(ap.Servers) > 0
		}
		if len(ap.Targets)+len(ap.Servers) == 0 {
			continue
		}
		if !slices.ContainsFunc(a.Ports, func(p importer.AddressPort) bool { return p.Number == ap.Number }) {
			a.Ports = append(a.Ports, ap)
		}
		r.nodePort(o, n, kind, ap)
	}
	r.serviceVariables(o, a)
	if headless {
		r.headless(o, a)
		return
	}
	if !found && len(spec.Get("ports").Items()) > 0 {
		spec.Get("selector").Warn("network-external", fmt.Sprintf("the Service %s selects no workload of the input, so its name is not known", o.name), fmt.Sprintf("Import them together, or say --host %s=ADDRESS.", o.name))
		return
	}
	r.m.Addresses = append(r.m.Addresses, a)
}

func (r *reader) addressName(o *object) string {
	if r.several {
		return o.name + "." + o.ns
	}
	return o.name
}

// names are those of a host of a namespace, each with its scopes.
func names(host, ns string) []importer.Host {
	return []importer.Host{
		{Name: host, Scopes: []string{"ns:" + ns}},
		{Name: host + "." + ns, Scopes: []string{"cluster"}},
		{Name: host + "." + ns + ".svc", Scopes: []string{"cluster"}},
		{Name: host + "." + ns + ".svc.cluster.local", Scopes: []string{"cluster"}},
	}
}

func (r *reader) hostsOf(o *object) []importer.Host { return names(o.name, o.ns) }

func (r *reader) serviceOptions(o *object, spec *importer.Node) {
	spec.Get("clusterIP").Take()
	spec.Get("clusterIPs").Take()
	if v := spec.Get("clusterIP").Peek(); v != "" && v != "None" {
		spec.Get("clusterIP").Warn("network-address", fmt.Sprintf("the address of the Service %s is one of the mesh, and not %s", o.name, v), "Use its name.")
	}
	for _, key := range []string{"ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy", "trafficDistribution", "topologyKeys", "loadBalancerClass", "allocateLoadBalancerNodePorts", "healthCheckNodePort", "sessionAffinityConfig"} {
		spec.Get(key).Drop(key + " configures the network of Kubernetes")
	}
	if spec.Get("externalTrafficPolicy").Text() == "Local" {
		spec.Get("externalTrafficPolicy").Warn("network-address", fmt.Sprintf("%s sees the address of a node, and not that of its client", o.name), "Use a route of the edge, which names the client in X-Forwarded-For.")
	}
	spec.Get("externalIPs").Warn("network-address", "the addresses belong to nodes of Kubernetes", "Publish the port, or use the edge.")
	spec.Get("loadBalancerIP").Warn("network-address", "the address is one of the cloud's load balancer", "Let the names of the routes lead to the edge.")
	if n := spec.Get("publishNotReadyAddresses"); n.Bool() {
		n.Warn("health", fmt.Sprintf("instances of %s are reached when their checks pass, and not before", o.name), "Check whether they must find one another to become ready.")
	}
}

func (r *reader) externalName(o *object, spec *importer.Node) {
	name := spec.Get("externalName").Text()
	spec.Get("ports").Take()
	spec.Get("selector").Take()
	if _, err := netip.ParseAddr(name); err != nil {
		spec.Get("externalName").Warn("network-external", fmt.Sprintf("%s is another name of %s; /etc/hosts has addresses only", o.name, name), fmt.Sprintf("Use %s itself, or say --host %s=ADDRESS.", name, o.name))
		return
	}
	for _, p := range r.parts {
		for _, h := range r.hostsOf(o) {
			if h.Scopes[0] == "cluster" || p.o.ns == o.ns {
				p.s.ExtraHosts = append(p.s.ExtraHosts, importer.Lit(h.Name+":"+name))
			}
		}
	}
}

// datagrams maps a port that is not TCP. It returns the port under which the Service is
// known by UDP, nil if it has no name.
func (r *reader) datagrams(o *object, n *importer.Node, proto, kind string, targets []target) *importer.AddressPort {
	if proto == "SCTP" {
		n.Get("protocol").Refuse("unsupported", fmt.Sprintf("the Service %s speaks SCTP, which Nomad does not forward", o.name), "Use TCP or UDP. Allowed, the port is left out.")
		return nil
	}
	port, _ := n.Get("port").Int()
	published, _ := n.Get("nodePort").Int()
	if kind == "LoadBalancer" {
		published = port
	}
	ap := importer.AddressPort{Number: int(port)}
	for _, t := range targets {
		at := t.p.addPort(importer.Port{Number: t.number, UDP: true, At: n.Pos()})
		if (kind == "NodePort" || kind == "LoadBalancer") && published > 0 {
			at.Static = int(published)
			n.Get("protocol").Warn("udp-static", fmt.Sprintf("UDP port %d is a static port of the node that runs %s", published, o.name), "Send to that node.")
		}
		if next := (importer.Target{Service: t.p.label, Port: t.number}); !slices.Contains(ap.Targets, next) {
			ap.Targets = append(ap.Targets, next)
		}
	}
	if kind == "NodePort" || kind == "LoadBalancer" || len(targets) == 0 {
		return nil
	}
	if r.src.Network == importer.NetworkConsulDNS || r.src.Network == importer.NetworkHost {
		return &ap
	}
	if len(r.parts) < 2 {
		return nil
	}
	for _, other := range o.node.Get("spec", "ports").Items() {
		if other != n && other.Get("port").Peek() == n.Get("port").Peek() {
			n.Get("protocol").Warn("udp-name", fmt.Sprintf("the name %s is known for TCP only; its UDP port %d is not", o.name, port), "Use TCP, or --network consul-dns.")
			return nil
		}
	}
	n.Get("protocol").Refuse("udp-name", fmt.Sprintf("others reach %s by UDP on port %d, which the mesh does not carry", o.name, port), "Say --network consul-dns, or use TCP or a static port. Allowed, the port has no name.")
	return nil
}

// endpoints are the addresses of a Service without a selector.
func (r *reader) endpoints(o *object, n *importer.Node, port int) []string {
	var out []string
	add := func(addresses []string, ports *importer.Node) {
		number := port
		for i, p := range ports.Items() {
			p.Get("protocol").Take()
			name := p.Get("name").Text()
			if v, ok := p.Get("port").Int(); ok && (name == n.Get("name").Peek() || i == 0) && v > 0 && v < 65536 {
				number = int(v)
			}
		}
		for _, a := range addresses {
			if ip, err := netip.ParseAddr(a); err == nil {
				out = append(out, netip.AddrPortFrom(ip, uint16(number)).String()) //nolint:gosec // checked above
			}
		}
	}
	if e := r.find("Endpoints", o.ns, o.name); e != nil {
		for _, s := range e.node.Get("subsets").Items() {
			var ips []string
			for _, a := range s.Get("addresses").Items() {
				ips = append(ips, a.Get("ip").Text())
			}
			add(ips, s.Get("ports"))
		}
	}
	for _, e := range r.all("EndpointSlice") {
		if e.ns != o.ns || e.node.Get("metadata", "labels", "kubernetes.io/service-name").Peek() != o.name {
			continue
		}
		e.used = true
		e.node.Get("addressType").Take()
		var ips []string
		for _, s := range e.node.Get("endpoints").Items() {
			for _, a := range s.Get("addresses").Items() {
				ips = append(ips, a.Text())
			}
			s.Take()
		}
		add(ips, e.node.Get("ports"))
	}
	return out
}

// nodePort publishes the port of a Service of type NodePort.
func (r *reader) nodePort(o *object, n *importer.Node, kind string, ap importer.AddressPort) {
	v, ok := n.Get("nodePort").Int()
	switch {
	case kind == "LoadBalancer" && ok:
		n.Get("nodePort").Drop("the edge stands for the load balancer, and needs no port of the nodes")
	case kind != "NodePort" || len(ap.Targets) == 0:
	case !ok || v < 1 || v > 65535:
		n.Warn("random-port", fmt.Sprintf("port %d of %s would be on a random port of every node", ap.Number, o.name), "Give it a nodePort, or a route of the edge.")
	default:
		first := ap.Targets[0]
		r.m.Published = append(r.m.Published, importer.Published{Port: int(v), Service: first.Service, Target: first.Port, More: ap.Targets[1:], At: n.Pos()})
	}
}

// headless adds the names of the pods of a StatefulSet.
func (r *reader) headless(o *object, a importer.Address) {
	spec := o.node.Get("spec")
	both := func(ports []importer.AddressPort) []importer.AddressPort {
		out := slices.Clone(ports)
		for _, p := range ports {
			for _, t := range p.Targets {
				if !slices.ContainsFunc(out, func(o importer.AddressPort) bool { return o.Number == t.Port }) {
					out = append(out, importer.AddressPort{Number: t.Port, Targets: p.Targets})
				}
			}
		}
		return out
	}
	var pods []*part
	for _, p := range r.parts {
		if p.o.ns == o.ns && p.o.kind == "StatefulSet" && (p.spec.Get("serviceName").Peek() == o.name || p.selectedBy(spec.Get("selector"))) {
			pods = append(pods, p)
		}
	}
	if len(pods) == 0 {
		if len(a.Ports)+len(a.UDP) > 0 {
			a.Ports = both(a.Ports)
			r.m.Addresses = append(r.m.Addresses, a)
		}
		return
	}
	for _, p := range pods {
		own := importer.Address{Name: fmt.Sprintf("%s.%s", p.label, r.addressName(o)), At: a.At, Hosts: slices.Clone(a.Hosts)}
		own.Hosts = append(own.Hosts, names(fmt.Sprintf("%s-%d.%s", p.o.name, max(p.ordinal, 0), o.name), o.ns)...)
		for _, ap := range a.Ports {
			ap.Targets = slices.DeleteFunc(slices.Clone(ap.Targets), func(t importer.Target) bool { return t.Service != p.label })
			if len(ap.Targets) > 0 {
				own.Ports = append(own.Ports, ap)
			}
		}
		for _, ap := range a.UDP {
			ap.Targets = slices.DeleteFunc(slices.Clone(ap.Targets), func(t importer.Target) bool { return t.Service != p.label })
			if len(ap.Targets) > 0 {
				own.UDP = append(own.UDP, ap)
			}
		}
		own.Ports = both(own.Ports)
		for _, port := range p.s.Ports {
			if !port.UDP && !slices.ContainsFunc(own.Ports, func(o importer.AddressPort) bool { return o.Number == port.Number }) {
				own.Ports = append(own.Ports, importer.AddressPort{Number: port.Number, Targets: []importer.Target{{Service: p.label, Port: port.Number}}})
			}
		}
		if len(own.Ports)+len(own.UDP) > 0 {
			r.m.Addresses = append(r.m.Addresses, own)
		}
	}
}

var shellName = regexp.MustCompile(`[^A-Z0-9]+`)

// serviceVariables gives the workloads NAME_SERVICE_HOST and NAME_SERVICE_PORT of a
// Service, if the input mentions them.
func (r *reader) serviceVariables(o *object, a importer.Address) {
	name := shellName.ReplaceAllString(strings.ToUpper(o.name), "_") + "_SERVICE_"
	if len(a.Ports) == 0 || !strings.Contains(r.text, name) && !strings.Contains(r.text, "GET_HOSTS_FROM") {
		return
	}
	for _, p := range r.parts {
		if p.o.ns != o.ns {
			continue
		}
		for _, t := range p.s.Tasks {
			for key, value := range map[string]string{name + "HOST": o.name, name + "PORT": strconv.Itoa(a.Ports[0].Number)} {
				if !slices.ContainsFunc(t.Env, func(v importer.EnvVar) bool { return v.Name == key }) {
					t.Env = append(t.Env, importer.EnvVar{Name: key, Value: importer.Lit(value)})
				}
			}
		}
	}
}

// finish puts the ports that a Service selects first.
func (p *part) finish() {
	slices.SortStableFunc(p.s.Ports, func(a, b importer.Port) int {
		rank := func(o importer.Port) int {
			switch {
			case o.UDP:
				return 2
			case p.selected[o.Number]:
				return 0
			}
			return 1
		}
		return rank(a) - rank(b)
	})
	if len(p.s.Checks) == 0 && len(p.selected) == 0 {
		p.s.NoCheck = true
	}
	if p.s.Kind == importer.KindBatch {
		p.s.Checks, p.s.NoCheck = nil, true
		for i := range p.s.Ports {
			p.s.Ports[i].Private = len(p.selected) == 0
		}
	}
	if p.s.Network == "host" {
		for i, port := range p.s.Ports {
			if port.Static == port.Number {
				p.s.Ports[i].Static = 0
			}
		}
	}
}
