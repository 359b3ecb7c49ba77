package importer

import (
	"fmt"
	"slices"
	"strings"
)

// Ways of --network by which services reach one another.
const (
	NetworkMesh      = "mesh"       // the mesh on an address for each service
	NetworkGateway   = "gateway"    // the mesh on the address of Nomad's bridge
	NetworkConsulDNS = "consul-dns" // Consul's DNS, and static ports of the nodes
	NetworkHost      = "host"       // the same, in the network of the nodes
)

// gateway is the address that a node has in Nomad's bridge, by the default of
// bridge_network_subnet.
const gateway = "172.26.64.1"

// byDNS reports whether names are found in Consul's DNS.
func (m *Model) byDNS() bool { return m.network == NetworkConsulDNS || m.network == NetworkHost }

// reach prepares the model for another network than the mesh.
func reach(m *Model, src Source, l *Ledger) {
	if src.Network == "" || src.Network == NetworkMesh {
		return
	}
	m.network = src.Network
	if !slices.ContainsFunc(m.Services, layered) {
		l.Refuse(Position{File: src.Inputs[0].Name}, RuleInvalid, fmt.Sprintf("--network %s is not for job files, which have networks of their own", src.Network), "Leave it out.")
		return
	}
	if m.network == NetworkGateway {
		oneAddress(m, l)
		return
	}
	ports := addressPorts(m, l)
	for _, s := range m.Services {
		if layered(s) && s.Network != "none" {
			m.onNode(s, ports[s.Name], l)
		}
	}
	together(m, l)
	if m.network == NetworkHost {
		m.Published = slices.DeleteFunc(m.Published, func(p Published) bool {
			if p.Port != p.Target {
				return false
			}
			l.Warn(p.At, "port-conflict", fmt.Sprintf("port %d is one of the nodes that run %s only: in their network it cannot be the mesh's, too", p.Port, p.Service), "Let clients find the nodes in Consul, or use the default, --network mesh.")
			return true
		})
	}
}

// oneAddress refuses two services that need one port of the bridge's address.
func oneAddress(m *Model, l *Ledger) {
	first := map[string]listener{}
	for _, x := range planAll(m).listeners {
		other, ok := first[x.bind]
		if !ok {
			first[x.bind] = x
			continue
		}
		at := m.Services[0].At
		for _, s := range m.Services {
			if strings.HasPrefix(x.name, s.Name+"-") {
				at = s.At
			}
		}
		l.Refuse(at, "port-conflict", fmt.Sprintf("%s and %s need one port of the address %s that all services share", other.name, x.name, gateway), "Use the default, --network mesh. Allowed, the first one has it.")
	}
}

// portKey is a port of a container.
type portKey struct {
	number int
	udp    bool
}

// addressPorts are the ports under which names of addresses are known, by service and
// port of the container.
func addressPorts(m *Model, l *Ledger) map[string]map[portKey]int {
	known := map[string]map[portKey]int{}
	for _, a := range m.Addresses {
		for i, p := range slices.Concat(a.Ports, a.UDP) {
			if len(p.Servers) > 0 {
				l.Refuse(a.At, "unsupported", fmt.Sprintf("Consul's DNS does not know %s, which is outside the stack", a.Name), "Use the default, --network mesh. Allowed, the name is left out.")
			}
			for _, t := range p.Targets {
				if known[t.Service] == nil {
					known[t.Service] = map[portKey]int{}
				}
				key := portKey{t.Port, i >= len(a.Ports)}
				if other, ok := known[t.Service][key]; ok && other != p.Number {
					l.Refuse(a.At, "port-conflict", fmt.Sprintf("port %d of %s is known as %d and as %d, and with names in DNS it has one number", t.Port, t.Service, other, p.Number), "Use the default, --network mesh. Allowed, the first one counts.")
					continue
				}
				known[t.Service][key] = p.Number
			}
		}
	}
	return known
}

// onNode gives a service static ports, and the search domain of the names.
func (m *Model) onNode(s *Service, known map[portKey]int, l *Ledger) {
	host := m.network == NetworkHost
	if host {
		if !s.Hostname.Empty() {
			l.Warn(s.At, "unsupported", fmt.Sprintf("the host name of %s is that of its node, whose network it has", s.Name), "Use the default, --network mesh, if the program needs it.")
		}
		s.Network = NetworkHost
	}
	for i := range s.Ports {
		p := &s.Ports[i]
		number := p.Number
		if p.Listen != 0 {
			number = p.Listen
		}
		if n, ok := known[portKey{p.Number, p.UDP}]; ok {
			number = n
		}
		if p.Dynamic || p.Static != 0 || p.Private && !host {
			continue
		}
		if host && number != p.Number {
			l.Refuse(s.At, "unsupported", fmt.Sprintf("port %d of %s is known as %d, and in the network of the node it has one number", p.Number, s.Name, number), "Use --network consul-dns, or the default. Allowed, it is known by its own number.")
			number = p.Number
		}
		p.Static = number
	}
	if !slices.ContainsFunc(m.Services, func(o *Service) bool { return o != s && len(m.dnsNames(o)) > 0 }) {
		return
	}
	dns := DNS{byName: true}
	if s.DNS != nil {
		dns = *s.DNS
		dns.byName = true
	}
	dns.Searches = append([]string{m.namesService() + ".service.consul"}, dns.Searches...)
	dns.Options = append(dns.Options, "ndots:5")
	s.DNS = &dns
}

// together warns of services that cannot run on one node.
func together(m *Model, l *Ledger) {
	users := map[int][]*Service{}
	var order []int
	for _, s := range m.Services {
		for _, p := range s.Ports {
			if p.Static == 0 || slices.Contains(users[p.Static], s) {
				continue
			}
			if users[p.Static] == nil {
				order = append(order, p.Static)
			}
			users[p.Static] = append(users[p.Static], s)
		}
	}
	slices.Sort(order)
	for _, port := range order {
		all, need := users[port], 0
		var names []string
		for _, s := range all {
			n := 1
			if s.Count != nil {
				n = *s.Count
			}
			need += n
			names = append(names, s.Name)
		}
		if need > 1 {
			l.Warn(all[0].At, "port-conflict", fmt.Sprintf("port %d is one of the node that runs %s, so that they need %d nodes", port, strings.Join(names, ", "), need), "Have that many nodes, or use the default, --network mesh.")
		}
	}
}

// namesService is the service in Consul whose tags are the names of the services: Consul
// answers for NAME.SERVICE.service.consul with the instances that have the tag NAME.
func (m *Model) namesService() string { return shorten("names-"+m.Name, 63) }

// dnsNames are the names of a service in DNS.
func (m *Model) dnsNames(s *Service) []string {
	if !m.byDNS() || !layered(s) || len(s.Ports) == 0 {
		return nil
	}
	var all []string
	if sharesAny(m, s) {
		for _, h := range s.Hosts {
			all = append(all, h.Name)
		}
	}
	for _, a := range m.Addresses {
		behind := func(p AddressPort) bool {
			return slices.ContainsFunc(p.Targets, func(t Target) bool { return t.Service == s.Name })
		}
		if slices.ContainsFunc(a.Ports, behind) || slices.ContainsFunc(a.UDP, behind) {
			for _, h := range a.Hosts {
				all = append(all, h.Name)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
