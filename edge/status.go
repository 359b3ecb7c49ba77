package edge

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/edge/route"
)

// ServiceName is what the edge's instances are called in Consul.
const ServiceName = route.EdgeName

// settle is how long Look waits for an edge to load a recent change.
const settle = 3 * time.Second

// Options of Look.
type Options struct {
	// Store has the certificates that should be served.
	Store *acme.Store
	// Namespace of the edge's job; that of the client when empty.
	Namespace string
	// Credentials are USER:PASSWORD for the port metrics; none when empty.
	Credentials string
	// Timeout for one instance to answer; 5 s when zero.
	Timeout time.Duration
}

// Report is the state of the edge.
type Report struct {
	OK        bool          `json:"ok"`
	Instances []Instance    `json:"instances"`
	Routes    []RouteStatus `json:"routes"`
	Problems  []Problem     `json:"problems"` // of the tags
}

// Instance is one edge.
type Instance struct {
	Node    string `json:"node"`
	AllocID string `json:"alloc_id"`
	Kind    Kind   `json:"kind,omitempty"`
	Class   string `json:"class,omitempty"`
	Address string `json:"address,omitempty"` // of HTTPS, host:port
	// Current is true if its routes are made from the tags that Consul has now, and
	// its worker has loaded the newest files.
	Current bool `json:"current"`
	// Generation is nil when the instance does not tell (nginx).
	Generation *Generation `json:"generation,omitempty"`
	// Refused is why the instance rejected its last configuration and keeps the
	// one before; empty if it did not.
	Refused string `json:"refused,omitempty"`
	// Problem is anything else that is wrong.
	Problem string `json:"problem,omitempty"`
	// Certificates are those that it should serve.
	Certificates []CertificateStatus `json:"certificates"`

	settings Settings
	decided  Published
	up       map[string]int // HAProxy: backend → servers that answer
}

// Generation names the files that Nomad has rendered for an instance and those
// that its worker has loaded.
type Generation struct {
	Files  string `json:"files"`
	Worker string `json:"worker"`
}

// Stale reports whether the worker has other files than the newest. It is false
// when g is nil.
func (g *Generation) Stale() bool { return g != nil && g.Files != g.Worker }

// CertificateStatus is one certificate at one instance.
type CertificateStatus struct {
	Name string `json:"name"`
	acme.Served
}

// RouteStatus is a route and what is behind it.
type RouteStatus struct {
	Route
	Passing int `json:"passing"` // instances whose checks pass in Consul
	Total   int `json:"total"`
	// Up is how many of them the edges reach, at the one that reaches fewest;
	// nil when the edge does not tell (nginx).
	Up *int `json:"up,omitempty"`
}

// Bad reports whether no request to the route would be served.
func (r RouteStatus) Bad() bool {
	return r.Kind != Redirect && (r.Passing == 0 || r.Up != nil && *r.Up == 0)
}

// Look asks Consul for routes (GET /v1/catalog/services), every instance of
// the edge for what it has loaded (GET /edge and /metrics on its port
// metrics), and its HTTPS port for the certificates. A change of the last few
// seconds may not be loaded yet: Look waits for it.
func Look(ctx context.Context, nomad *api.Client, consul *capi.Client, o Options) (*Report, error) {
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	deadline := time.Now().Add(settle)
	for {
		r, err := look(ctx, nomad, consul, o)
		if err != nil || r.OK || time.Now().After(deadline) || !slices.ContainsFunc(r.Instances, func(i Instance) bool { return !i.Current && i.Problem == "" }) &&
			!slices.ContainsFunc(r.Routes, func(s RouteStatus) bool { return s.Bad() && s.Passing > 0 }) {
			return r, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func look(ctx context.Context, nomad *api.Client, consul *capi.Client, o Options) (*Report, error) {
	q := (&capi.QueryOptions{}).WithContext(ctx)
	services, _, err := consul.Catalog().Services(q)
	if err != nil {
		return nil, fmt.Errorf("listing services: %w", err)
	}
	edges, _, err := consul.Health().Service(ServiceName, "", false, q)
	if err != nil {
		return nil, fmt.Errorf("looking for the edge: %w", err)
	}
	finder := Finder{Nomad: nomad, Consul: consul, Namespace: o.Namespace, Credentials: o.Credentials}
	_, skipped, unknown := finder.split(ctx, edges)
	others := map[string]error{}
	for _, err := range skipped {
		var e *NotEdgeError
		if errors.As(err, &e) {
			others[e.Node+"/"+e.ID] = err
		}
	}
	published, hidden := finder.published(ctx)
	var jobs map[string]string
	if nomad != nil && len(published) > 0 {
		jobs, hidden = finder.live(ctx)
	}
	r := &Report{OK: len(edges) > 0, Instances: make([]Instance, len(edges)), Routes: []RouteStatus{}, Problems: []Problem{}}
	var wait sync.WaitGroup
	for i, e := range edges {
		wait.Add(1)
		go func() {
			defer wait.Done()
			if other := others[e.Node.Node+"/"+e.Service.ID]; other != nil { // it is not asked what it serves
				r.Instances[i] = Instance{Node: e.Node.Node, AllocID: alloc(e), Problem: other.Error(), Certificates: []CertificateStatus{}}
				return
			}
			decided := published[jobs[alloc(e)]]
			left, _ := decided.Filter(services)
			r.Instances[i] = instance(ctx, nomad, e, left, o)
			r.Instances[i].decided = decided
			if hidden != nil && !r.Instances[i].Current && r.Instances[i].Problem == "" {
				r.Instances[i].Problem = hidden.Error()
			}
			if unknown != nil && r.Instances[i].Problem == "" {
				r.Instances[i].Problem = unknown.Error()
			}
		}()
	}
	wait.Wait()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}

	var groups []*group
	answer := true
	for _, i := range r.Instances {
		r.OK = r.OK && i.Current && i.Refused == "" && i.Problem == "" && !slices.ContainsFunc(i.Certificates, func(c CertificateStatus) bool { return !c.Match })
		answer = answer && i.Kind != ""
		if i.Kind == "" {
			continue
		}
		at := slices.IndexFunc(groups, func(g *group) bool { return g.kind == i.Kind && g.settings.Class == i.settings.Class })
		if at < 0 {
			at, groups = len(groups), append(groups, &group{kind: i.Kind, settings: &i.settings, decided: i.decided})
		}
		groups[at].instances = append(groups[at].instances, i)
	}
	if len(groups) == 0 {
		groups = []*group{{kind: HAProxy, instances: r.Instances}}
	} else if answer {
		r.Problems = append(r.Problems, notTaken(groups, services)...)
	}
	counted := map[string]RouteStatus{}
	for _, g := range groups {
		routes, problems := g.read(services)
		r.Problems = append(r.Problems, problems...)
		if err := g.count(routes, counted, r, consul, q); err != nil {
			return nil, err
		}
	}
	r.Problems = append([]Problem{}, unique(r.Problems)...)
	r.OK = r.OK && len(r.Problems) == 0
	return r, nil
}

// group are the instances of one kind and class.
type group struct {
	kind      Kind
	settings  *Settings // nil if they are unknown
	decided   Published
	instances []Instance
}

// read judges the services that the group takes.
func (g *group) read(services map[string][]string) ([]Route, []Problem) {
	left, notCounted := g.decided.Filter(services)
	notCounted = onlyTaken(g.settings, left, notCounted)
	table := Read(g.kind, g.settings.taken(left), g.settings)
	problems := table.Problems
	if len(notCounted) > 0 {
		mistakes := Read(g.kind, services, g.settings).Problems // which are the better reason
		for _, p := range notCounted {
			if i := slices.IndexFunc(mistakes, func(m Problem) bool {
				return m.Service == p.Service && m.Tag == p.Tag && !strings.Contains(m.Message, "belongs to")
			}); i >= 0 {
				p, p.Costs = mistakes[i], CostsTag
			}
			problems = append(problems, p)
		}
	}
	if g.settings != nil && g.settings.Class != g.settings.DefaultClass {
		for i := range table.Routes {
			table.Routes[i].Class = g.settings.Class
		}
	}
	return table.Routes, problems
}

// notTaken are the services with routes that no edge takes.
func notTaken(groups []*group, services map[string][]string) []Problem {
	var out []Problem
	for _, service := range slices.Sorted(maps.Keys(services)) {
		tags := services[service]
		if slices.ContainsFunc(groups, func(g *group) bool { return g.settings.Takes(tags) }) ||
			!slices.ContainsFunc(tags, func(t string) bool { return routeKey(t) != "" }) {
			continue
		}
		p := Problem{Service: service, Message: "No edge takes services without " + ClassTag + "NAME", Costs: CostsService}
		for _, t := range tags {
			if class, is := strings.CutPrefix(t, ClassTag); is {
				p.Tag, p.Message = t, fmt.Sprintf("No edge has the class %q", class)
			}
		}
		p.Mend = fmt.Sprintf("Deploy an edge with the variable class, or name the class of one that runs: %s.", strings.Join(classes(groups), ", "))
		out = append(out, p)
	}
	return out
}

func classes(groups []*group) []string {
	var out []string
	for _, g := range groups {
		out = append(out, g.settings.Class)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// count adds routes to the report, with how many instances are behind them. counted
// has the services that were counted before.
func (g *group) count(routes []Route, counted map[string]RouteStatus, r *Report, consul *capi.Client, q *capi.QueryOptions) error {
	for _, route := range routes {
		if route.Kind == Redirect {
			r.Routes = append(r.Routes, RouteStatus{Route: route})
			continue
		}
		s, is := counted[route.Service]
		if !is {
			entries, _, err := consul.Health().Service(route.Service, "", false, q)
			if err != nil {
				return fmt.Errorf("looking for %s: %w", route.Service, err)
			}
			for _, e := range entries {
				if !g.decided.owns(route.Service, e.Service.ID) {
					continue
				}
				s.Total++
				if e.Checks.AggregatedStatus() == capi.HealthPassing {
					s.Passing++
				}
			}
			counted[route.Service] = s
		}
		s.Route, s.Up = route, up(g.instances, route)
		r.Routes = append(r.Routes, s)
		r.OK = r.OK && !s.Bad()
	}
	return nil
}

// up is the smallest number of servers that an edge reaches for a route.
func up(instances []Instance, route Route) *int {
	backend := route.Service
	if route.Kind == TCP || route.Kind == SNI {
		backend = "tcp." + backend
	}
	var least *int
	for _, i := range instances {
		if n, known := i.up[backend]; known && (least == nil || n < *least) {
			least = &n
		}
	}
	return least
}

// allocID is in the IDs that Nomad gives to services.
var allocID = regexp.MustCompile(`^_nomad-task-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-`)

func instance(ctx context.Context, nomad *api.Client, e *capi.ServiceEntry, services map[string][]string, o Options) Instance {
	i := Instance{Node: e.Node.Node, Certificates: []CertificateStatus{}}
	if m := allocID.FindStringSubmatch(e.Service.ID); m != nil {
		i.AllocID = m[1]
	}
	said, metrics, err := readInstance(ctx, e, o.Credentials, o.Timeout)
	if err != nil {
		i.Problem = fmt.Sprintf("does not answer: %v", err)
		return i
	}
	i.Kind, i.settings, i.Generation = said.Edge, said.Settings, said.Generation
	i.Class = said.Class
	i.Current = said.Tags == Digest(i.settings.taken(services)) && !said.Generation.Stale()
	if nomad != nil && i.AllocID != "" {
		text, err := logs(ctx, nomad, i.AllocID, string(i.Kind), o.Timeout)
		if err != nil {
			i.Problem = fmt.Sprintf("its log cannot be read: %v", err)
		}
		i.Refused = Refusal(i.Kind, text)
	}
	if i.Kind == HAProxy {
		if err := get(ctx, "http://"+metrics+"/metrics?scope=backend", o.Credentials, o.Timeout, func(body io.Reader) (err error) { i.up, err = servers(body); return }); err != nil {
			i.Problem = fmt.Sprintf("does not answer: %v", err)
		}
	}
	if i.Address, err = said.address(e); err != nil {
		i.Problem = err.Error()
		return i
	}
	for _, name := range said.Certificates {
		c := CertificateStatus{Name: name}
		if stored, err := o.Store.Get(ctx, name); err != nil {
			c.Address, c.Problem = i.Address, err.Error()
		} else {
			c.Served = stored.Served(ctx, []string{i.Address}, o.Timeout)[0]
		}
		i.Certificates = append(i.Certificates, c)
	}
	return i
}

// self is the answer of an edge to GET /edge on its port metrics.
type self struct {
	Settings
	Edge         Kind     `json:"edge"`
	HTTPS        string   `json:"https"` // HOST:PORT, as it binds
	Certificates []string `json:"certificates"`
	Tags         string   `json:"tags"`

	Generation *Generation `json:"generation"`
}

// readInstance reads what an edge instance has loaded, and returns the HOST:PORT
// of its metrics.
func readInstance(ctx context.Context, e *capi.ServiceEntry, credentials string, timeout time.Duration) (said self, metrics string, err error) {
	metrics = net.JoinHostPort(host(e), strconv.Itoa(e.Service.Port))
	err = get(ctx, "http://"+metrics+"/edge", credentials, timeout, func(body io.Reader) error { return json.NewDecoder(body).Decode(&said) })
	return said, metrics, err
}

func host(e *capi.ServiceEntry) string { return cmp.Or(e.Service.Address, e.Node.Address) }

// address returns the address at which clients reach a bound port.
func (s self) address(e *capi.ServiceEntry) (string, error) {
	bind, port, err := net.SplitHostPort(s.HTTPS)
	if err != nil {
		return "", fmt.Errorf("says that it listens at %q", s.HTTPS)
	}
	if ip := net.ParseIP(bind); ip == nil || ip.IsUnspecified() {
		bind = host(e)
	}
	return net.JoinHostPort(bind, port), nil
}

func get(ctx context.Context, url, credentials string, timeout time.Duration, read func(io.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if user, password, has := strings.Cut(credentials, ":"); has {
		req.SetBasicAuth(user, password)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode == http.StatusUnauthorized {
		return fmt.Errorf("%s: status 401: set $%s to USER:PASSWORD of the edge's metrics_users", url, CredentialsEnv)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: status %d", url, res.StatusCode)
	}
	return read(res.Body)
}

var activeServers = regexp.MustCompile(`^haproxy_backend_active_servers\{proxy="([^"]+)"\} ([0-9]+)`)

// servers reads how many servers of each backend answer, from HAProxy's
// metrics.
func servers(body io.Reader) (map[string]int, error) {
	out := map[string]int{}
	lines := bufio.NewScanner(body)
	for lines.Scan() {
		if m := activeServers.FindStringSubmatch(lines.Text()); m != nil {
			out[m[1]], _ = strconv.Atoi(m[2]) // the expression says that it is a number
		}
	}
	return out, lines.Err()
}

// logs returns the end of the standard error of a task.
func logs(ctx context.Context, nomad *api.Client, alloc, task string, timeout time.Duration) (string, error) {
	const most = 256 << 10
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	q := (&api.QueryOptions{}).WithContext(ctx)
	a, _, err := nomad.Allocations().Info(alloc, q)
	if err != nil {
		return "", err
	}
	frames, errs := nomad.AllocFS().Logs(a, false, task, "stderr", "end", most, ctx.Done(), q)
	var text strings.Builder
	for {
		select {
		case f, more := <-frames:
			if !more {
				return text.String(), nil
			}
			text.Write(f.Data)
		case err := <-errs:
			if errors.Is(err, io.EOF) {
				return text.String(), nil
			}
			return text.String(), err
		case <-ctx.Done():
			return text.String(), ctx.Err()
		}
	}
}

var (
	// HAProxy: [ALERT] (pid) : config : …
	haproxyAlert = regexp.MustCompile(`^\[ALERT\] +\(\d+\) : config : (.*)`)
	// nginx: date [emerg] pid#tid: … in …
	nginxEmerg = regexp.MustCompile(`\[emerg\] \d+#\d+: (.*)`)
	// The directory of the task says nothing that is not known.
	taskDir = regexp.MustCompile(`/\S*/(local|secrets)/`)
)

// Refusal returns why a program rejected its last configuration, from its standard
// error; empty if it accepted it. While the program reads a configuration again, the
// reason of the one before stands: the script of the edge tries a rejected one again
// and again, and on a busy machine each try lasts seconds.
func Refusal(kind Kind, log string) string {
	var reasons []string
	again := false
	for l := range strings.Lines(log) {
		l = strings.TrimSpace(l)
		var reads, accepted bool
		var m []string
		switch kind {
		case HAProxy:
			reads = strings.Contains(l, "Reloading HAProxy") || strings.Contains(l, "Checking whether HAProxy takes its files")
			accepted = strings.Contains(l, "Loading success")
			m = haproxyAlert.FindStringSubmatch(l)
			if m != nil && (strings.HasPrefix(m[1], "Error(s) found") || strings.HasPrefix(m[1], "Fatal errors found")) {
				m = nil // says only that there are others
			}
		case Nginx:
			reads, accepted = strings.Contains(l, "(SIGHUP) received"), strings.Contains(l, "start worker processes")
			m = nginxEmerg.FindStringSubmatch(l)
		}
		switch {
		case reads:
			again = true
		case accepted:
			reasons, again = nil, false
		case m != nil && again:
			reasons, again = []string{m[1]}, false
		case m != nil:
			reasons = append(reasons, m[1])
		}
	}
	return taskDir.ReplaceAllString(strings.Join(reasons, "; "), "$1/")
}
