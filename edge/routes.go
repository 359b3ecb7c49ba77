// Package edge is what drover knows about the entrance from outside, the job
// edge of jobs/edge and jobs/edge-nginx: the grammar of the tags by which
// services in Consul ask for routes, and what each instance of the job serves.
package edge

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/drover-nomad/drover/edge/route"
	"github.com/drover-nomad/drover/stack"
)

// Kind is the program that the edge is made of.
type Kind string

// Kinds. nginx knows fewer tags than HAProxy.
const (
	HAProxy Kind = "haproxy"
	Nginx   Kind = "nginx"
)

// Prefix of the tags that are the edge's.
const Prefix = route.Prefix

// MaxTag is the length of the longest tag, in bytes.
const MaxTag = 2000

// Settings of an edge, on which it depends whether a tag is good.
type Settings struct {
	Users    []string `json:"users"`     // lists for basic authentication
	TCPPorts []int    `json:"tcp_ports"` // ports beside HTTP and HTTPS
	// Authorities are the names that drover.ca may have, beside "none"; nil for an
	// edge that does not know the tag.
	Authorities []string `json:"authorities,omitempty"`
	// HTTPSWithoutCA routes services that speak HTTPS and name no authority.
	HTTPSWithoutCA bool `json:"https_without_ca,omitempty"`
	// Authenticators are services that routes may ask about requests.
	Authenticators []string `json:"authenticators"`
	// ClientCAs are lists of CAs whose certificates clients may show.
	ClientCAs []string `json:"client_cas"`
	// Class is that of the edge, "" for an edge that takes services of every class.
	Class string `json:"class,omitempty"`
	// DefaultClass is that of services without [ClassTag].
	DefaultClass string `json:"default_class,omitempty"`
	// Tenants are what the Nomad namespaces may claim; all is allowed if there are
	// none.
	Tenants map[string]Tenant `json:"tenants,omitempty"`
}

// ClassTag begins the tag that names a class of edges which take the service. Of several
// tags, each counts.
const ClassTag = route.Prefix + "class="

// Takes reports whether the edge takes a service with these tags. It takes every service
// if s is nil.
func (s *Settings) Takes(tags []string) bool {
	if s == nil || s.Class == "" {
		return true
	}
	classed := false
	for _, t := range tags {
		if class, is := strings.CutPrefix(t, ClassTag); is {
			if classed = true; class == s.Class {
				return true
			}
		}
	}
	return !classed && s.Class == s.DefaultClass
}

// taken are the services that the edge takes.
func (s *Settings) taken(services map[string][]string) map[string][]string {
	out := maps.Clone(services)
	maps.DeleteFunc(out, func(_ string, tags []string) bool { return !s.Takes(tags) })
	return out
}

// Tenant is what a Nomad namespace may claim at the edge.
type Tenant struct {
	Services []string `json:"services"` // names in Consul; * stands for any characters
	Hosts    []string `json:"hosts"`    // NAME, *.NAME, or * for all
	TCPPorts []int    `json:"tcp_ports"`
}

// owner returns the tenant that a service belongs to by its name. Of several it
// is the last in the alphabet, as in the job files. It returns "" for none.
func (s *Settings) owner(service string) (name string, t Tenant) {
	for _, ns := range slices.Sorted(maps.Keys(s.Tenants)) {
		if slices.ContainsFunc(s.Tenants[ns].Services, func(pattern string) bool { return glob(pattern, service) }) {
			name, t = ns, s.Tenants[ns]
		}
	}
	return name, t
}

// glob reports whether a pattern, in which * stands for any characters, covers a
// name.
func glob(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	last := len(parts) - 1
	if !strings.HasPrefix(name, parts[0]) || len(name) < len(parts[0])+len(parts[last]) || !strings.HasSuffix(name, parts[last]) {
		return false
	}
	rest := name[len(parts[0]) : len(name)-len(parts[last])]
	for _, p := range parts[1:last] {
		i := strings.Index(rest, p)
		if i < 0 {
			return false
		}
		rest = rest[i+len(p):]
	}
	return true
}

// may reports whether the tenant may claim a route.
func (t Tenant) may(tag route.Tag) bool {
	if tag.Kind == TCP {
		return slices.ContainsFunc(t.TCPPorts, func(p int) bool { return strconv.Itoa(p) == tag.From })
	}
	host := tag.Host()
	return slices.ContainsFunc(t.Hosts, func(h string) bool {
		below, wild := strings.CutPrefix(h, "*")
		return h == host || wild && strings.HasSuffix(host, below) && host != below
	})
}

// refusal returns why the table of tenants does not allow a service a route; "" if
// it does.
func (s *Settings) refusal(service string, tag route.Tag) (message, remedy string) {
	if s == nil || len(s.Tenants) == 0 {
		return "", ""
	}
	ns, t := s.owner(service)
	switch {
	case ns == "":
		return "The service is of no tenant of the edge", "Add its name to a namespace in the variable tenants of the stack of the edge."
	case !t.may(tag):
		return fmt.Sprintf("Namespace %s may not claim %s", ns, tag.From), fmt.Sprintf("Claim one of its hosts (%s) or ports, or add this one to the variable tenants of the stack of the edge.", strings.Join(t.Hosts, ", "))
	}
	return "", ""
}

// RouteKind is what a route does.
type RouteKind = route.Kind

// Kinds of routes.
const (
	HTTP     = route.HTTP
	Redirect = route.Redirect
	TCP      = route.TCP
	SNI      = route.SNI
)

// Route is what leads to a service, or elsewhere.
type Route struct {
	Kind    RouteKind `json:"kind"`
	From    string    `json:"from"` // HOST/PATH, a port or a host
	Service string    `json:"service"`
	Code    int       `json:"code,omitempty"`  // of a redirect
	To      string    `json:"to,omitempty"`    // of a redirect
	Class   string    `json:"class,omitempty"` // of the edges that serve it; "" for the default one
	// Options are the other tags of the service, verbatim.
	Options []string `json:"options,omitempty"`
}

// Cost is what a problem with a tag takes away.
type Cost string

// Costs of an invalid tag. A misspelt drover.allow must not open a service to
// all: an invalid option loses the service all its routes, and an invalid route
// is lost alone.
const (
	CostsService Cost = "service" // every route of the service
	CostsTag     Cost = "tag"     // what this tag asks for
	CostsNothing Cost = "nothing" // it is only not what was meant
)

// Problem is one thing that is wrong with the tags of a service.
type Problem struct {
	Service string `json:"service"`
	Tag     string `json:"tag,omitempty"`
	Message string `json:"message"`
	Mend    string `json:"remedy"`
	Costs   Cost   `json:"costs"`
}

// The grammar. The job files have the same expressions, so that what is good
// here is good there: TestJobsHaveTheGrammar.
const (
	hostExpr  = `[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?`
	pathExpr  = `/[A-Za-z0-9._~/+-]*`
	urlExpr   = `(?:https?:/)?/[A-Za-z0-9._~/?#@!&()*+,;=%:-]*`
	ipv4Expr  = `(?:(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(?:/(?:3[0-2]|[12]?[0-9]))?`
	hexExpr   = `[0-9a-f]{1,4}`
	ipv6Expr  = `(?:(?:` + hexExpr + `:){7}` + hexExpr + `|(?:` + hexExpr + `:){1,7}:|(?:` + hexExpr + `:){1,6}:` + hexExpr + `|(?:` + hexExpr + `:){1,5}(?::` + hexExpr + `){1,2}|(?:` + hexExpr + `:){1,4}(?::` + hexExpr + `){1,3}|(?:` + hexExpr + `:){1,3}(?::` + hexExpr + `){1,4}|(?:` + hexExpr + `:){1,2}(?::` + hexExpr + `){1,5}|` + hexExpr + `:(?::` + hexExpr + `){1,6}|:(?::` + hexExpr + `){1,7}|::)(?:/(?:12[0-8]|1[01][0-9]|[1-9]?[0-9]))?` //nolint:lll // one expression
	rangeExpr = `(?:` + ipv4Expr + `|` + ipv6Expr + `)`

	nameExpr     = `^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$`
	reservedExpr = `^drover\.(?:header=[a-z]+ [a-z]+ |forward-auth=[^ ]+ (?:[^ ]*,)?)(?i:connection|keep-alive|proxy-connection|te|trailer|transfer-encoding|upgrade|content-length|forwarded|x-forwarded-for|x-forwarded-proto|x-forwarded-host)(?:[ ,]|$)|^drover\.forward-auth=[^ ]+ (?:[^ ]*,)?(?i:host)(?:,|$)` //nolint:lll // one expression

	optionsOfBoth = `|strip=/[A-Za-z0-9._~/-]*|sticky=cookie|max-body=[1-9][0-9]{0,8}[kmg]?|limit=[1-9][0-9]{0,5}/[sm]|auth=[a-z0-9][a-z0-9-]{0,62}|ca=[a-z0-9][a-z0-9-]{0,62}(?: ` + hostExpr + `)?|allow=` + rangeExpr + `(?:,` + rangeExpr + `)*|header=(?:request|response) (?:set [A-Za-z0-9-]+ [!-#%-\[\]-~](?:[ !-#%-\[\]-~]*[!-#%-\[\]-~])?|remove [A-Za-z0-9-]+)|http=(?:redirect|serve)` //nolint:lll // one expression
	hostsExpr     = `(?:\*\.)?` + hostExpr                                                                                                                                                                                                                                                                                                                                                         // or all below one
	routesOfBoth  = `route=` + hostsExpr + pathExpr + `|redirect=` + hostsExpr + pathExpr + ` 30[12378] ` + urlExpr
)

// grammar of one kind of edge.
type grammar struct{ route, option *regexp.Regexp }

var (
	name     = regexp.MustCompile(nameExpr)
	reserved = regexp.MustCompile(reservedExpr)
)

// grammars returns the grammar of each kind of edge. It compiles them once, at
// the first call: that takes 10 ms, longer than the rest of drover's start.
var grammars = sync.OnceValue(func() map[Kind]grammar {
	return map[Kind]grammar{
		HAProxy: {
			route:  regexp.MustCompile(`^drover\.(?:` + routesOfBoth + `|tcp=[1-9][0-9]{0,4}|sni=` + hostsExpr + `)$`),
			option: regexp.MustCompile(`^drover\.(?:protocol=(?:http|https|h2c)` + optionsOfBoth + featuresExpr + `|send-proxy=v[12]|timeout=tunnel [1-9][0-9]{0,4}[smh])$`),
		},
		Nginx: {
			route:  regexp.MustCompile(`^drover\.(?:` + routesOfBoth + `)$`),
			option: regexp.MustCompile(`^drover\.(?:protocol=(?:http|https|h2c)` + optionsOfBoth + featuresExpr + `)$`),
		},
	}
})

// Form is how a tag is written, for documentation and messages.
type Form struct {
	Key     string
	Value   string // what is expected
	Example string
}

// Forms are all tags, in the order of docs/reference/routes.md.
func Forms() []Form {
	forms := []Form{
		{"route", "HOST/PATH: the host in lower case and without a port, or *.HOST for all below it; the path of letters, digits and . _ ~ / + -", "drover.route=cloud.example.org/"},
		{"redirect", "HOST/PATH CODE URL, the code being 301, 302, 303, 307 or 308", "drover.redirect=www.example.org/ 301 https://example.org/"},
		{"sni", "HOST: in lower case, or *.HOST", "drover.sni=mail.example.org"},
		{"tcp", "PORT: a number from 1 to 65535", "drover.tcp=636"},
		{"protocol", "http, https or h2c", "drover.protocol=h2c"},
		{"strip", "/PREFIX of letters, digits and . _ ~ / -", "drover.strip=/app"},
		{"sticky", "cookie", "drover.sticky=cookie"},
		{"auth", "LIST: the name of a list of users, in lower-case letters, digits and dashes", "drover.auth=admins"},
		{"ca", "NAME of an authority of the edge, or NAME HOST with the name in the service's certificate, or none", "drover.ca=internal"},
		{"allow", "ADDRESS or ADDRESS/BITS, several with commas between them", "drover.allow=10.0.0.0/8,2001:db8::/32"},
		{"max-body", "BYTES, or with k, m or g behind it", "drover.max-body=100m"},
		{"limit", "NUMBER/s or NUMBER/m", "drover.limit=20/s"},
		{"header", `request|response set NAME VALUE, or request|response remove NAME; the value is ASCII without \ and $`, "drover.header=response set X-Frame-Options DENY"},
		{"http", "redirect or serve", "drover.http=serve"},
		{"send-proxy", "v1 or v2", "drover.send-proxy=v2"},
	}
	return append(forms, featureForms()...)
}

// single are the tags of which one counts.
var single = []string{"protocol", "strip", "sticky", "max-body", "limit", "http", "send-proxy", "cors", "retries", "breaker"}

// Parse reads the tags of one service as an edge of this kind does. settings
// may be nil when they are not known; then what depends on them is taken to be
// good. Tags that are not the edge's are passed over.
func Parse(kind Kind, service string, tags []string, settings *Settings) ([]Route, []Problem) {
	var (
		routes   []Route
		problems []Problem
		options  []string
		auth     bool
		values   = map[string]string{}
		good     = true
	)
	problem := func(costs Cost, tag, message, remedy string) {
		problems = append(problems, Problem{service, tag, message, remedy, costs})
		good = good && costs != CostsService
	}
	ours := slices.DeleteFunc(slices.Clone(tags), func(t string) bool { return !strings.HasPrefix(t, Prefix) })
	slices.Sort(ours)
	if len(ours) == 0 {
		return nil, nil
	}
	g := grammars()[kind]
	if !name.MatchString(service) {
		problem(CostsService, "", fmt.Sprintf("A service called %q cannot be routed", service), "Call it by lower-case letters, digits and dashes, at most 63.")
	}
	// The options first: routes depend on them.
	for _, t := range ours {
		key, value, _ := strings.Cut(strings.TrimPrefix(t, Prefix), "=")
		costs, pattern := CostsService, g.option
		if _, leads := route.Parse(t); leads {
			costs, pattern = CostsTag, g.route
		}
		switch {
		case len(t) > MaxTag:
			problem(costs, t[:40]+"…", "The tag is too long", fmt.Sprintf("Write at most %d bytes.", MaxTag))
		case reserved.MatchString(t):
			problem(costs, t, fmt.Sprintf("The header %s is the edge's own", reservedHeader(key, value)), "Leave it to the edge.")
		case !pattern.MatchString(t):
			message, remedy := explain(kind, key, t)
			problem(costs, t, message, remedy)
		case costs == CostsTag:
		default:
			options = append(options, t)
			auth = auth || slices.Contains([]string{"auth", "forward-auth", "client-cert"}, key)
			if settings != nil {
				if message, remedy := missing(service, key, value, settings); message != "" {
					problem(costs, t, message, remedy)
				}
			}
			if key == "rewrite" {
				if p := groups(value); p != "" {
					problem(CostsNothing, t, fmt.Sprintf("The pattern has no %s, and it is empty", p), "Write one * for each number, or ** at the end.")
				}
			}
			if name, _, _ := strings.Cut(value, " "); key == "ca" && name != "none" && settings != nil && !slices.Contains(settings.Authorities, name) {
				problem(costs, t, fmt.Sprintf("The edge has no authority %q", name), fmt.Sprintf("Add it to the variable authorities of the stack of the edge, and make the Nomad Variable drover/ca/%s.", name))
			}
			if before, twice := values[key]; twice && before != value && key == "ca" {
				problem(CostsNothing, t, "drover.ca is there twice, and the last one that is not none counts", "Write one. While a new version of the service starts, both are there for a moment.")
			}
			if before, twice := values[key]; twice && before != value && slices.Contains(single, key) {
				problem(CostsNothing, t, fmt.Sprintf("%s%s is there twice, and %q counts", Prefix, key, value), "Write one. While a new version of the service starts, both are there for a moment.")
			}
			if before, twice := values[key]; twice && before != value && slices.Contains([]string{"auth", "forward-auth", "client-cert", "allow"}, key) {
				problem(CostsNothing, t, fmt.Sprintf("%s%s is there twice, and both hold", Prefix, key), "Write one. While a new version of the service starts, both are there for a moment.")
			}
			values[key] = value
		}
	}
	if _, has := values["ca"]; values["protocol"] == "https" && !has {
		costs := CostsNothing
		if settings != nil && settings.Authorities != nil && !settings.HTTPSWithoutCA {
			costs = CostsService
		}
		problem(costs, Prefix+"protocol=https", "No authority verifies the certificate of the service", "Name one with drover.ca=NAME, or write drover.ca=none.")
	}
	if tag, message, remedy := weights(options); message != "" {
		problem(CostsNothing, tag, message, remedy)
	}
	leading := false
	for _, t := range ours {
		tag, leads := route.Parse(t)
		if !leads {
			continue
		}
		leading = true
		if len(t) > MaxTag || !g.route.MatchString(t) {
			continue // told above
		}
		if message, remedy := settings.refusal(service, tag); message != "" {
			problem(CostsTag, t, message, remedy)
			continue
		}
		r := Route{Kind: tag.Kind, From: tag.From, Service: service, Code: tag.Code, To: tag.To, Options: options}
		switch r.Kind {
		case Redirect:
			r.Options = nil
		case SNI, TCP:
			if auth {
				problem(CostsTag, t, "A TCP connection cannot be asked for a password", "Use a service of its own, without drover.auth, drover.forward-auth and drover.client-cert.")
				continue
			}
			if r.Kind == SNI {
				break
			}
			if port, err := strconv.Atoi(tag.From); err != nil || port > 65535 {
				problem(CostsTag, t, "There is no port "+tag.From, "Write a number from 1 to 65535.")
				continue
			} else if settings != nil && !slices.Contains(settings.TCPPorts, port) {
				problem(CostsTag, t, fmt.Sprintf("The edge does not listen on port %d", port), "Add it to the variable tcp_ports of the stack of the edge.")
				continue
			}
		}
		routes = append(routes, r)
	}
	if !leading && good {
		problem(CostsNothing, ours[0], "Tags of the edge, but no route", "Add drover.route=HOST/PATH.")
	}
	if !good {
		routes = nil
	}
	return routes, problems
}

// explain returns the mistake in a tag that does not fit the grammar, and how
// to correct it.
func explain(kind Kind, key, tag string) (message, remedy string) {
	var keys []string
	for _, f := range Forms() {
		keys = append(keys, f.Key)
		if f.Key != key {
			continue
		}
		if kind == Nginx {
			if h := grammars()[HAProxy]; h.route.MatchString(tag) || h.option.MatchString(tag) {
				return "nginx cannot do this", "Use the stack edge, which is HAProxy."
			}
		}
		return fmt.Sprintf("This is not %s%s=%s", Prefix, key, strings.SplitN(f.Value, ":", 2)[0]), fmt.Sprintf("Expected is %s; for example %s.", f.Value, f.Example)
	}
	remedy = "The tags are described in docs/reference/routes.md."
	if near := stack.Nearest(key, keys); near != "" {
		remedy = fmt.Sprintf("Did you mean %s%s?", Prefix, near)
	}
	return fmt.Sprintf("There is no tag %s%s", Prefix, key), remedy
}

// Table is what an edge makes of all services.
type Table struct {
	Routes   []Route // by kind and From
	Problems []Problem
}

// Read judges all services and their tags, as GET /v1/catalog/services has
// them. Of two that want the same, the first in the alphabet gets it.
func Read(kind Kind, services map[string][]string, settings *Settings) Table {
	var t Table
	taken := map[string]string{}
	for _, service := range slices.Sorted(maps.Keys(services)) {
		routes, problems := Parse(kind, service, services[service], settings)
		t.Problems = append(t.Problems, problems...)
		for _, r := range routes {
			group := string(r.Kind)
			if r.Kind == Redirect {
				group = string(HTTP)
			}
			key := group + " " + r.From
			if first, is := taken[key]; is {
				t.Problems = append(t.Problems, Problem{service, fmt.Sprintf("%s%s=%s", Prefix, r.Kind, r.From), fmt.Sprintf("%s belongs to %s already", r.From, first), "Let one of the two have another host, path or port.", CostsTag})
				continue
			}
			taken[key] = service
			t.Routes = append(t.Routes, r)
		}
	}
	slices.SortStableFunc(t.Routes, func(a, b Route) int {
		return cmp.Or(cmp.Compare(order(a.Kind), order(b.Kind)), cmp.Compare(a.From, b.From))
	})
	return t
}

// order puts what is reached by host and path first.
func order(k RouteKind) int { return slices.Index([]RouteKind{SNI, TCP}, k) }

// Digest is a fingerprint of the tags that an edge is made from, which it
// shows at /edge on its port metrics.
func Digest(services map[string][]string) string {
	var b strings.Builder
	for _, service := range slices.Sorted(maps.Keys(services)) {
		ours := ""
		for _, t := range slices.Sorted(slices.Values(services[service])) {
			if strings.HasPrefix(t, Prefix) {
				ours += "\t" + strings.ReplaceAll(t, "\n", "\t")
			}
		}
		if ours != "" {
			b.WriteString(service + ours + "\n")
		}
	}
	sum := sha256.Sum256([]byte(b.String()))
	return hex.EncodeToString(sum[:])
}
