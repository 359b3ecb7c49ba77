package importer

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// reference is a place where a service names another one.
type reference struct {
	from string // service
	what string // env DATABASE_URL
	port int    // 0 when it names none
	at   Position
}

var (
	// token is what may be a host name, with what stands before and after it.
	token    = regexp.MustCompile(`(?:([A-Za-z][A-Za-z0-9+.-]*)://)?(?:[^\s/@"',;]*@)?([A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?)(?::(\d{1,5}))?`)
	hostKey  = regexp.MustCompile(`(?i)(host|hostname|addr|address|server|servers|endpoint|node|nodes|broker|brokers|url|uri|dsn|link|upstream|backend|peers|hosts)s?$`)
	portName = regexp.MustCompile(`(?i)(host|hostname|addr|address|server)$`)
)

// schemePort is the port of a URL that names none.
func schemePort(scheme string) int {
	switch strings.ToLower(scheme[strings.LastIndexAny(scheme, "+:")+1:]) {
	case "http", "ws":
		return 80
	case "https", "wss":
		return 443
	case "postgres", "postgresql", "psql", "pgsql", "asyncpg", "psycopg2", "postgis":
		return 5432
	case "mysql", "mariadb", "pymysql", "mysql2":
		return 3306
	case "redis", "rediss":
		return 6379
	case "mongodb", "mongo":
		return 27017
	case "amqp", "rabbitmq", "pyamqp":
		return 5672
	case "amqps":
		return 5671
	case "nats":
		return 4222
	case "ldap":
		return 389
	case "ldaps":
		return 636
	case "smtp":
		return 25
	case "bolt", "neo4j":
		return 7687
	case "mqtt":
		return 1883
	case "memcached":
		return 11211
	case "sqlserver", "mssql":
		return 1433
	}
	return 0
}

// inferPorts completes the ports of the services: what others say about a service,
// then what its own health check says, then what is known of its image, then what
// its configuration says, if it is inspected, then what
// services of the same image and command declare, then what the operator says. A service
// that others name and whose port is still unknown is refused.
func inferPorts(m *Model, src Source, l *Ledger) {
	owner := map[string][]*Service{} // by name
	for _, s := range m.Services {
		for _, h := range s.Hosts {
			owner[strings.ToLower(h.Name)] = append(owner[strings.ToLower(h.Name)], s)
		}
	}
	found := map[*Service][]reference{}
	for _, s := range m.Services {
		for _, t := range s.Tasks {
			scanTask(m, s, t, func(name string, r reference) {
				for _, other := range owner[strings.ToLower(name)] {
					if other != s && sharesScope(s, other) {
						found[other] = append(found[other], r)
					}
				}
			})
		}
	}
	declared := map[*Service][]Port{}
	for _, s := range m.Services {
		declared[s] = slices.Clone(s.Ports)
	}
	for _, s := range m.Services {
		for _, number := range src.Ports[s.Name] {
			addPort(s, Port{Number: number, Reason: "Given with --port."})
		}
		known := firstPort(s) != nil
		for _, r := range found[s] {
			if r.port > 0 && r.port < 65536 {
				addPort(s, Port{Number: r.port, Reason: fmt.Sprintf("%s calls it: %s, %s.", r.from, r.what, r.at), At: r.at})
			}
		}
		for _, c := range s.Checks {
			if firstPort(s) == nil && c.Port != 0 {
				addPort(s, Port{Number: c.Port, Reason: "From the health check."})
			}
		}
		if layered(s) && firstPort(s) == nil || !known && len(found[s]) > 0 && len(s.Tasks) > 0 {
			known := knownImage(s.Tasks[0].ImageRef)
			if len(known.ports) > 0 && (firstPort(s) == nil || slices.ContainsFunc(found[s], func(r reference) bool { return r.port == 0 })) && sharesAny(m, s) {
				for _, number := range known.ports {
					addPort(s, Port{Number: number, Reason: "The default of the image " + imageName(s.Tasks[0].ImageRef) + "."})
				}
			}
		}
		if s.Network == "host" || s.Network == "none" {
			continue
		}
		if firstPort(s) == nil && layered(s) && len(s.Tasks) > 0 && src.ExposedPorts != nil {
			exposedPorts(s, src.ExposedPorts, l)
		}
		if firstPort(s) == nil && layered(s) && len(s.Hosts) > 0 && sharesAny(m, s) {
			twinPorts(m, s, declared)
		}
		if firstPort(s) != nil {
			continue
		}
		if len(found[s]) > 0 {
			r := found[s][0]
			l.Refuse(r.at, "unknown-port", fmt.Sprintf("service %s reaches %s by name (%s), and nothing says on which port", r.from, s.Name, r.what),
				fmt.Sprintf("Say --port %s=PORT.", s.Name))
			continue
		}
		if cmp.Or(s.Kind, KindService) == KindService && len(s.Hosts) > 0 && sharesAny(m, s) {
			who := "no other service names it"
			if at := slices.IndexFunc(m.Services, func(o *Service) bool { return slices.Contains(o.DependsOn, s.Name) && sharesScope(s, o) }); at >= 0 {
				who = "service " + m.Services[at].Name + " depends on it"
			}
			l.Warn(s.At, "unknown-port", fmt.Sprintf("%s has no known port, and so no name; %s", s.Name, who),
				fmt.Sprintf("If another service reaches it by name, say --port %s=PORT.", s.Name))
		}
	}
}

// exposedPorts gives a service the ports that its image names. The service may not listen
// on all of them, so that no check asks for them.
func exposedPorts(s *Service, inspect func(string) ([]int, error), l *Ledger) {
	ref := s.Tasks[0].ImageRef
	if ref == "" {
		return
	}
	ports, err := inspect(ref)
	if err != nil {
		l.Warn(s.At, "unknown-port", fmt.Sprintf("the image %s of %s could not be inspected: %s", ref, s.Name, strings.ReplaceAll(err.Error(), "\n", "; ")), fmt.Sprintf("Pull it, or say --port %s=PORT.", s.Name))
	}
	for _, number := range ports {
		addPort(s, Port{Number: number, Assumed: true, Reason: "From the configuration of the image " + ref + "."})
	}
}

// twinPorts gives a service the ports that another one of the same image and the same
// command declares. It may have another purpose, so that no check asks for them.
func twinPorts(m *Model, s *Service, declared map[*Service][]Port) {
	same := func(a, b []Text) bool {
		return (a == nil) == (b == nil) && slices.EqualFunc(a, b, func(x, y Text) bool { return slices.Equal(x, y) })
	}
	for _, other := range m.Services {
		if other == s || len(other.Tasks) == 0 || len(s.Tasks) == 0 {
			continue
		}
		a, b := s.Tasks[0], other.Tasks[0]
		if a.ImageRef == "" || a.ImageRef != b.ImageRef || !same(a.Entrypoint, b.Entrypoint) || !same(a.Args, b.Args) {
			continue
		}
		for _, p := range declared[other] {
			if !p.UDP && !p.Private && !p.Dynamic {
				addPort(s, Port{Number: p.Number, Assumed: true, Reason: other.Name + ", which has the same image and command, declares it."})
			}
		}
	}
}

func sharesScope(a, b *Service) bool {
	return slices.ContainsFunc(a.Scopes, func(s string) bool { return slices.Contains(b.Scopes, s) })
}

func sharesAny(m *Model, s *Service) bool {
	return slices.ContainsFunc(m.Services, func(o *Service) bool { return o != s && sharesScope(s, o) })
}

// addPort adds a port unless the service has it.
func addPort(s *Service, p Port) {
	if !slices.ContainsFunc(s.Ports, func(o Port) bool { return (o.Number == p.Number || o.Listen == p.Number) && !o.UDP }) {
		s.Ports = append(s.Ports, p)
	}
}

// scanTask reports the names of hosts in the environment, the command and the files
// of a task.
func scanTask(m *Model, s *Service, t *Task, report func(string, reference)) {
	env := map[string]string{}
	for _, v := range t.Env {
		env[v.Name] = resolved(m, v.Value)
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		ref := reference{from: s.Name, what: "environment " + name, at: t.At}
		scanText(env[name], hostKey.MatchString(name), func(host string, port int) {
			r := ref
			r.port = port
			if port == 0 && portName.MatchString(name) {
				r.port = siblingPort(env, name)
			}
			report(host, r)
		})
	}
	for _, words := range [][]Text{t.Entrypoint, t.Args} {
		for _, word := range words {
			scanText(resolved(m, word), false, func(host string, port int) {
				report(host, reference{from: s.Name, what: "its command", port: port, at: t.At})
			})
		}
	}
	for _, f := range t.Files {
		text := resolved(m, f.Content)
		if f.Path != "" {
			text = string(m.Files[f.Path])
		}
		scanText(text, false, func(host string, port int) {
			report(host, reference{from: s.Name, what: "the file " + f.Target, port: port, at: t.At})
		})
	}
}

// siblingPort is the number in the variable of the port beside that of a host:
// DB_PORT beside DB_HOST.
func siblingPort(env map[string]string, name string) int {
	at := portName.FindStringIndex(name)
	for _, suffix := range []string{"PORT", "port", "Port"} {
		if n, err := strconv.Atoi(env[name[:at[0]]+suffix]); err == nil {
			return n
		}
	}
	return 0
}

// scanText reports the hosts that a text names: those of URLs, those with a port, and
// with all, each word of it.
func scanText(text string, all bool, report func(host string, port int)) {
	whole := strings.TrimSpace(text)
	for _, at := range token.FindAllStringSubmatchIndex(text, -1) {
		part := func(i int) string {
			if at[2*i] < 0 {
				return ""
			}
			return text[at[2*i]:at[2*i+1]]
		}
		scheme, host := part(1), part(2)
		port, _ := strconv.Atoi(part(3))
		switch {
		case scheme != "":
			if port == 0 {
				port = schemePort(scheme)
			}
		case port >= 20:
		case all, host == whole:
			port = 0
		default:
			continue
		}
		report(host, port)
	}
}

// resolved is a text with the values of the secrets and the defaults of the variables
// in it.
func resolved(m *Model, t Text) string {
	var b strings.Builder
	for _, p := range t {
		switch {
		case p.Variable != "":
			if at := slices.IndexFunc(m.Variables, func(v Variable) bool { return v.Name == p.Variable }); at >= 0 {
				b.WriteString(m.Variables[at].value())
			}
		case p.Secret != "":
			if at := slices.IndexFunc(m.Secrets, func(v Secret) bool { return v.Name == p.Secret }); at >= 0 {
				b.WriteString(m.Secrets[at].Value)
			}
		default:
			b.WriteString(p.Literal)
		}
	}
	return b.String()
}

// value is the default of a text variable.
func (v Variable) value() string {
	s, err := strconv.Unquote(strings.ReplaceAll(v.Default, "$${", "${"))
	if err != nil {
		return ""
	}
	return s
}
