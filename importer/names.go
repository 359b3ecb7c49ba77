package importer

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strings"
)

// DNSName returns a name for Nomad and Consul: lower-case letters, digits and dashes,
// at most 63 characters (RFC 1123). It returns "" if nothing of s remains.
func DNSName(s string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			b.WriteRune(r)
		} else if n := b.Len(); n > 0 && b.String()[n-1] != '-' {
			b.WriteByte('-')
		}
	}
	return shorten(strings.Trim(b.String(), "-"), 63)
}

// shorten cuts a name and adds a hash of it, so that different names stay different.
func shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return strings.Trim(s[:limit-7], "-") + "-" + hex.EncodeToString(sum[:3])
}

// Identifier returns a name for a variable or a secret: lower-case letters, digits
// and underscores, beginning with a letter.
func Identifier(s string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			b.WriteRune(r)
		} else if n := b.Len(); n > 0 && b.String()[n-1] != '_' {
			b.WriteByte('_')
		}
	}
	out := strings.Trim(b.String(), "_")
	if out == "" || out[0] >= '0' && out[0] <= '9' {
		out = "x_" + out
	}
	return strings.TrimSuffix(out, "_")
}

// FilePath returns a path below files/ for a path of a container: its elements keep
// letters, digits and ._-, and a hash tells apart what would be equal.
func FilePath(service, target string) string {
	clean := strings.TrimPrefix(path.Clean("/"+target), "/")
	out := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-/", r) {
			return r
		}
		return '-'
	}, clean)
	if out != clean || out == "" {
		sum := sha256.Sum256([]byte(clean))
		out += "-" + hex.EncodeToString(sum[:3])
	}
	return path.Join(service, out)
}

// meshNetwork is the default of the variable mesh_cidr.
const meshNetwork = "198.18.0.0/16"

// network is how the services of a stack find one another.
type network struct {
	stack     string
	meshJob   string
	mesh      string // label of the mesh's service
	addresses map[string]string
	hosts     map[string][]string // by service: NAME:ADDRESS, sorted
	virtual   map[string]string   // address by name of an Address
	listeners []listener
	common    []string // the names that all services have, nil if they have different ones
}

type listener struct {
	name, bind, service string
	more, servers       []string // further services, and addresses outside the stack
	sticky              bool
}

// consulName is the name in Consul of a port of a service.
func (n *network) consulName(s *Service, p Port) string {
	if first := firstPort(s); first != nil && first.Number == p.Number {
		return shorten(n.stack+"-"+s.Name, 63)
	}
	return DNSName(n.stack + "-" + s.Name + "-" + p.label())
}

// firstPort is the port that stands for the service.
func firstPort(s *Service) *Port {
	for i := range s.Ports {
		if !s.Ports[i].UDP && !s.Ports[i].Private {
			return &s.Ports[i]
		}
	}
	return nil
}

func registered(s *Service) []Port {
	return slices.DeleteFunc(slices.Clone(s.Ports), func(p Port) bool { return p.UDP || p.Private })
}

// plan gives addresses to the services that others may reach, and listeners to
// their ports. Of two on one address and port, the first one has it.
func plan(m *Model) *network {
	n := planAll(m)
	bound := map[string]bool{}
	n.listeners = slices.DeleteFunc(n.listeners, func(l listener) bool {
		defer func() { bound[l.bind] = true }()
		return bound[l.bind]
	})
	return n
}

// planAll is plan with all listeners.
func planAll(m *Model) *network {
	n := &network{stack: m.Name, addresses: map[string]string{}, hosts: map[string][]string{}, virtual: map[string]string{}, mesh: "mesh"}
	for n.mesh == "mesh" && slices.ContainsFunc(m.Services, func(s *Service) bool { return s.Name == n.mesh }) {
		n.mesh = "drover-mesh"
	}
	n.meshJob = "mesh-" + m.Name
	if m.Name == "mesh" {
		n.meshJob = "drover-mesh"
	}
	scopes := map[string]int{}
	for _, s := range m.Services {
		for _, scope := range s.Scopes {
			scopes[scope]++
		}
	}
	used := map[string]bool{}
	address := func(key string) string {
		switch {
		case m.byDNS():
			return ""
		case m.network == NetworkGateway:
			return gateway
		}
		return virtualAddress(key, used)
	}
	for _, s := range m.Services {
		reachable := slices.ContainsFunc(s.Scopes, func(scope string) bool { return scopes[scope] > 1 })
		if len(s.Hosts) > 0 && firstPort(s) != nil && reachable {
			if a := address(m.Name + "/" + s.Name); a != "" {
				n.addresses[s.Name] = a
			}
		}
	}
	for _, a := range m.Addresses {
		if n.reachable(m, a) {
			if at := address(m.Name + "/address/" + a.Name); at != "" {
				n.virtual[a.Name] = at
				n.addressed(m, a)
			}
		}
	}
	seen := map[string][]string{} // by scopes: services of the same ones see the same names
	for _, s := range m.Services {
		n.listen(s, m)
		if s.Network == "none" {
			continue
		}
		key := strings.Join(s.Scopes, "\x00")
		if _, ok := seen[key]; !ok {
			seen[key] = n.visible(m, s)
		}
		n.hosts[s.Name] = seen[key]
	}
	n.common = n.shared(m)
	return n
}

// reachable reports whether a service may use the names of a, beside the one behind
// it.
func (n *network) reachable(m *Model, a Address) bool {
	behind := map[string]bool{}
	for _, p := range a.Ports {
		for _, t := range p.Targets {
			behind[t.Service] = true
		}
	}
	return len(a.Ports) > 0 && slices.ContainsFunc(m.Services, func(s *Service) bool {
		return (!behind[s.Name] || len(behind) > 1) && slices.ContainsFunc(a.Hosts, func(h Host) bool { return sharesAScope(h.Scopes, s.Scopes) })
	})
}

func sharesAScope(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// addressed adds the listeners of a.
func (n *network) addressed(m *Model, a Address) {
	for _, p := range a.Ports {
		l := listener{name: fmt.Sprintf("%s:%d", a.Name, p.Number), bind: fmt.Sprintf("%s:%d", n.virtual[a.Name], p.Number), servers: p.Servers, sticky: a.Sticky}
		n.behind(m, &l, p.Targets)
		if l.service != "" || len(l.servers) > 0 {
			n.listeners = append(n.listeners, l)
		}
	}
}

// behind adds the targets to a listener.
func (n *network) behind(m *Model, l *listener, targets []Target) {
	for _, t := range targets {
		at := slices.IndexFunc(m.Services, func(s *Service) bool { return s.Name == t.Service })
		if at < 0 {
			continue
		}
		for _, p := range registered(m.Services[at]) {
			if p.Number != t.Port {
				continue
			}
			if name := n.consulName(m.Services[at], p); l.service == "" {
				l.service = name
			} else {
				l.more = append(l.more, name)
			}
			break
		}
	}
}

// virtualAddress is a host address of the mesh's network, by a hash of key. Addresses that
// end with 0 or 255 are not used.
func virtualAddress(key string, used map[string]bool) string {
	prefix := netip.MustParsePrefix(meshNetwork).Addr().As4()
	sum := sha256.Sum256([]byte(key))
	for i := binary.BigEndian.Uint16(sum[:2]); ; i++ {
		prefix[2], prefix[3] = byte(i>>8), byte(i)
		a := netip.AddrFrom4(prefix).String()
		if prefix[3] != 0 && prefix[3] != 255 && !used[a] {
			used[a] = true
			return a
		}
	}
}

func (n *network) listen(s *Service, m *Model) {
	if a := n.addresses[s.Name]; a != "" {
		for _, p := range registered(s) {
			n.listeners = append(n.listeners, listener{name: fmt.Sprintf("%s-%d", s.Name, p.Number), bind: fmt.Sprintf("%s:%d", a, p.Number), service: n.consulName(s, p)})
			if p.Listen != 0 && !slices.ContainsFunc(s.Ports, func(o Port) bool { return o.Number == p.Listen }) {
				n.listeners = append(n.listeners, listener{name: fmt.Sprintf("%s-%d", s.Name, p.Listen), bind: fmt.Sprintf("%s:%d", a, p.Listen), service: n.consulName(s, p)})
			}
		}
	}
	for _, p := range m.Published {
		if p.Service != s.Name {
			continue
		}
		at := slices.IndexFunc(s.Ports, func(port Port) bool { return port.Number == p.Target && !port.UDP })
		if at < 0 {
			continue
		}
		host := p.HostIP
		if host == "" {
			host = "*"
		}
		l := listener{name: fmt.Sprintf("%s-published-%d", s.Name, p.Port), bind: fmt.Sprintf("%s:%d", host, p.Port), service: n.consulName(s, s.Ports[at])}
		n.behind(m, &l, p.More)
		n.listeners = append(n.listeners, l)
	}
}

// visible returns the names that a service may use, with their addresses.
func (n *network) visible(m *Model, s *Service) []string {
	all := map[string]bool{}
	for _, a := range m.Addresses {
		for _, h := range a.Hosts {
			if at := n.virtual[a.Name]; at != "" && sharesAScope(h.Scopes, s.Scopes) {
				all[h.Name+":"+at] = true
			}
		}
	}
	for _, other := range m.Services {
		a := n.addresses[other.Name]
		if a == "" {
			continue
		}
		for _, h := range other.Hosts {
			scopes := h.Scopes
			if len(scopes) == 0 {
				scopes = other.Scopes
			}
			if slices.ContainsFunc(scopes, func(scope string) bool { return slices.Contains(s.Scopes, scope) }) {
				all[h.Name+":"+a] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// needsMesh reports whether a stack has a mesh.
func (n *network) needsMesh() bool { return len(n.listeners) > 0 }

// shared returns the list of names of all services, nil if they have different ones.
func (n *network) shared(m *Model) []string {
	var common []string
	for i, s := range m.Services {
		if i > 0 && !slices.Equal(common, n.hosts[s.Name]) {
			return nil
		}
		common = n.hosts[s.Name]
	}
	return common
}
