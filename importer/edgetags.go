package importer

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Consul returns the name in Consul of a TCP port of a service of the stack; port 0
// stands for the first one. It has a place in tags only.
func Consul(service string, port int) Text { return Text{{Consul: Target{service, port}}} }

const forwardAuthTag = "drover.forward-auth="

// ForwardAuthTag returns the tag by which the edge asks a service of the stack about each
// request, and sets these headers from its answer.
func ForwardAuthTag(service string, port int, path string, headers []string) Text {
	t := append(Lit(forwardAuthTag), Consul(service, port)...)
	if path == "" {
		path = "/"
	}
	if len(headers) > 0 {
		path += " " + strings.Join(headers, ",")
	}
	return append(t, Lit(path)...)
}

// AuthPath reports whether the edge can ask for a path.
func AuthPath(path string) bool { return path == "" || authPath.MatchString(path) }

var (
	authPath = regexp.MustCompile(`^/[A-Za-z0-9._~/+-]*$`)
	origin   = regexp.MustCompile(`^https?://[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?(?::[1-9][0-9]{0,4})?$`)
)

// CORSTag returns the tag by which the edge answers preflight requests, or what the edge
// cannot do.
func CORSTag(origins []string, credentials bool) (tag, problem string) {
	var all []string
	for _, o := range origins {
		switch o = strings.TrimSuffix(strings.ToLower(strings.TrimSpace(o)), "/"); {
		case o == "*" && credentials:
			return "", "the origin * with credentials"
		case o == "*":
			return "drover.cors=*", ""
		case o == "":
		case !origin.MatchString(o):
			return "", fmt.Sprintf("the origin %q", o)
		default:
			all = append(all, o)
		}
	}
	if len(all) == 0 {
		return "", "no origin"
	}
	slices.Sort(all)
	tag = "drover.cors=" + strings.Join(slices.Compact(all), ",")
	if credentials {
		tag += " credentials"
	}
	return tag, ""
}

// TimeoutTag returns the tag of a timeout of the kind connect or response. Parts of a
// second count as one.
func TimeoutTag(kind string, d time.Duration) string {
	n, unit := int((d+time.Second-1)/time.Second), "s"
	if n > 99999 {
		n, unit = int((d+time.Minute-1)/time.Minute), "m"
	}
	return fmt.Sprintf("drover.timeout=%s %d%s", kind, min(max(n, 1), 99999), unit)
}

// RetriesTag returns the tag of retries on other instances. Statuses that the edge does
// not retry are left out.
func RetriesTag(n int, codes []string) string {
	tag := fmt.Sprintf("drover.retries=%d", min(max(n, 0), 9))
	var all []string
	for _, c := range []string{"500", "502", "503", "504"} {
		if slices.Contains(codes, c) {
			all = append(all, c)
		}
	}
	if len(all) > 0 {
		tag += " " + strings.Join(all, ",")
	}
	return tag
}

// eachTag calls f with the tags of each service.
func eachTag(m *Model, f func(s *Service, t Text)) {
	for _, s := range m.Services {
		for _, t := range s.Tags {
			f(s, t)
		}
		for _, p := range s.Ports {
			for _, t := range p.Tags {
				f(s, t)
			}
		}
	}
}

// addTagPorts adds the ports that tags name to their services.
func addTagPorts(m *Model) {
	need := map[*Service][]Port{}
	eachTag(m, func(s *Service, t Text) {
		for _, p := range t {
			for _, other := range m.Services {
				if other.Name == p.Consul.Service && p.Consul.Port != 0 {
					need[other] = append(need[other], Port{Number: p.Consul.Port, Reason: "The edge calls it for " + s.Name + ".", At: s.At})
				}
			}
		}
	})
	for s, ports := range need {
		for _, p := range ports {
			addPort(s, p)
		}
	}
}

// nameTags replaces the services in tags by their names in Consul. A service without a
// port is refused. The operator of the edge has to allow authenticators.
func nameTags(m *Model, l *Ledger) {
	n := &network{stack: m.Name}
	known := map[Target]string{}
	eachTag(m, func(s *Service, t Text) {
		for i, p := range t {
			if p.Consul.Service == "" {
				continue
			}
			name, ok := known[p.Consul]
			if !ok {
				name = consulTarget(m, n, p.Consul)
				known[p.Consul] = name
			}
			if name == "" {
				l.Refuse(s.At, "unknown-port", fmt.Sprintf("the edge is to call %s for %s, which has no known port", p.Consul.Service, s.Name), fmt.Sprintf("Say --port %s=PORT.", p.Consul.Service))
				name = "unknown"
			}
			if i > 0 && t[0].Literal == forwardAuthTag && name != "unknown" {
				l.Warn(s.At, "forward-auth", fmt.Sprintf("the edge asks %s about each request to %s, and denies all until it may", name, s.Name), fmt.Sprintf("Deploy the edge with -var 'authenticators=[\"%s\"]', beside those that it has.", name))
			}
			t[i] = Part{Literal: name}
		}
	})
}

func consulTarget(m *Model, n *network, t Target) string {
	for _, s := range m.Services {
		if s.Name != t.Service {
			continue
		}
		if first := firstPort(s); t.Port == 0 && first != nil {
			return n.consulName(s, *first)
		}
		for _, p := range registered(s) {
			if p.Number == t.Port || p.Listen == t.Port {
				return n.consulName(s, p)
			}
		}
	}
	return ""
}
