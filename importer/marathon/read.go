// Package marathon reads Mesos Marathon apps, groups and pods for the importer.
package marathon

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/render/lint"
)

// reader makes a model of apps, groups and pods.
type reader struct {
	src    importer.Source
	ledger *importer.Ledger
	m      *importer.Model
	text   string // of all inputs, to find names in it
	parts  []*part
}

// part is an app or a pod.
type part struct {
	*reader
	node  *importer.Node
	id    string // /group/name
	group string // /group, in which relative paths begin
	label string // of the service
	s     *importer.Service
	after []dependency
}

// dependency is the path of an app or a group, and the value that names it.
type dependency struct {
	node *importer.Node
	id   string
}

// Match reports whether a document is an app, a group or a pod.
func Match(root *importer.Node) bool {
	switch root.Kind {
	case importer.List:
		items := root.Items()
		return len(items) > 0 && Match(items[0])
	case importer.Map:
	default:
		return false
	}
	if app := root.Get("app"); app != nil {
		return app.Get("id") != nil
	}
	if root.Get("id") == nil {
		return root.Get("apps") != nil && root.Get("apiVersion") == nil && root.Get("services") == nil
	}
	for _, key := range []string{"apps", "groups", "pods", "cmd", "args", "container", "containers", "instances", "cpus", "healthChecks"} {
		if root.Get(key) != nil {
			return root.Get("family") == nil && root.Get("job") == nil
		}
	}
	return false
}

// Read is the importer.Reader of Marathon. Each document of an input is an app, a
// group, a pod or a list of them, as Marathon's API takes and returns them.
func Read(_ context.Context, src importer.Source, l *importer.Ledger) (*importer.Model, error) {
	r := &reader{src: src, ledger: l, m: &importer.Model{Files: map[string][]byte{}}}
	var names []string
	for _, in := range src.Inputs {
		names = append(names, in.Name)
		var roots []*importer.Node
		var err error
		if text := bytes.TrimSpace(in.Text); bytes.HasPrefix(text, []byte("{")) || bytes.HasPrefix(text, []byte("[")) {
			roots, err = l.JSON(in.Name, in.Text)
		} else {
			roots, err = l.YAML(in.Name, in.Text)
		}
		if err != nil {
			return nil, err
		}
		r.text += string(in.Text)
		for _, root := range roots {
			r.document(root, "/")
		}
	}
	r.m.Description = "Imported from " + strings.Join(names, ", ") + "."
	r.name()
	for _, p := range r.parts {
		p.read()
		r.m.Services = append(r.m.Services, p.s)
	}
	for _, p := range r.parts {
		p.dependencies()
	}
	if strings.Contains(r.text, ".mesos") {
		for _, p := range r.parts {
			p.foreignNames()
		}
	}
	return r.m, nil
}

// document adds the apps and pods of a document, whose relative paths begin at group.
func (r *reader) document(n *importer.Node, group string) {
	if n.Kind == importer.List {
		for _, c := range n.Items() {
			r.document(c, group)
		}
		return
	}
	if app := n.Get("app"); app != nil && app.Kind == importer.Map {
		r.document(app, group)
		return
	}
	if n.Kind != importer.Map {
		n.Refuse(importer.RuleInvalid, "an app, a group or a pod is an object", "Write it between { and }.")
		return
	}
	id := n.Get("id").Text()
	full := absolute(group, id)
	isGroup := n.Get("cmd") == nil && n.Get("container") == nil && n.Get("containers") == nil && n.Get("args") == nil
	if isGroup && (n.Get("apps") != nil || n.Get("groups") != nil || n.Get("pods") != nil) {
		for _, key := range []string{"apps", "groups", "pods"} {
			for _, c := range n.Get(key).Items() {
				before := len(r.parts)
				r.document(c, full)
				for _, p := range r.parts[before:] {
					for _, d := range n.Get("dependencies").Items() {
						p.after = append(p.after, dependency{d, absolute(parent(full), d.Peek())})
					}
				}
			}
		}
		n.Get("dependencies").Take()
		n.Get("version").Drop("the version of a group in Marathon")
		n.Get("enforceRole").Drop("a role of Mesos")
		return
	}
	if id == "" {
		n.Refuse(importer.RuleInvalid, "an app or a pod without id", "Add its id.")
		return
	}
	p := &part{reader: r, node: n, id: full, group: parent(full)}
	for _, d := range n.Get("dependencies").Items() {
		p.after = append(p.after, dependency{d, absolute(p.group, d.Peek())})
	}
	r.parts = append(r.parts, p)
}

// absolute returns the path of id, which may be relative to group.
func absolute(group, id string) string {
	if strings.HasPrefix(id, "/") {
		return path.Clean(id)
	}
	return path.Join("/", group, id)
}

func parent(id string) string { return path.Dir(id) }

// name finds the name of the stack, the common first element of all paths, and the
// labels of the services, which are the rest of their paths.
func (r *reader) name() {
	var first []string
	for _, p := range r.parts {
		element, _, _ := strings.Cut(strings.TrimPrefix(p.id, "/"), "/")
		if !slices.Contains(first, element) {
			first = append(first, element)
		}
	}
	switch {
	case len(first) == 1:
		r.m.Name = importer.DNSName(first[0])
	case r.src.Inputs[0].Name != "-":
		file := filepath.Base(r.src.Inputs[0].Name)
		r.m.Name = importer.DNSName(strings.TrimSuffix(file, filepath.Ext(file)))
	}
	if r.src.Name != "" {
		r.m.Name = r.src.Name
	}
	if r.m.Name == "" {
		r.m.Name = "marathon"
	}
	for _, p := range r.parts {
		rest := strings.TrimPrefix(p.id, "/")
		if len(first) == 1 && strings.Contains(rest, "/") {
			_, rest, _ = strings.Cut(rest, "/")
		}
		p.label = importer.DNSName(rest)
		if p.label == "" {
			p.label = "app"
		}
	}
}

// dependencies resolves what the app and the groups around it depend on.
func (p *part) dependencies() {
	for _, d := range p.after {
		d.node.Take()
		found := false
		for _, other := range p.parts {
			if other.id == d.id || strings.HasPrefix(other.id, strings.TrimSuffix(d.id, "/")+"/") {
				found = true
				if other != p && !p.reaches(other, map[*part]bool{}) {
					p.s.DependsOn = append(p.s.DependsOn, other.label)
				}
			}
		}
		if !found {
			d.node.Warn("depends-on", fmt.Sprintf("%s depends on %s, which is not imported", p.id, d.id), "Import both together, or write requires_jobs into the stack.")
		}
	}
}

// reaches reports whether other depends on p already, directly or not.
func (p *part) reaches(other *part, seen map[*part]bool) bool {
	if seen[other] {
		return false
	}
	seen[other] = true
	for _, name := range other.s.DependsOn {
		for _, next := range p.parts {
			if next.label == name && (next == p || p.reaches(next, seen)) {
				return true
			}
		}
	}
	return false
}

// mesosName is the name that Mesos-DNS gives an app: its path from the end.
func (p *part) mesosName() string {
	parts := strings.Split(strings.TrimPrefix(p.id, "/"), "/")
	slices.Reverse(parts)
	return importer.DNSName(strings.Join(parts, "-"))
}

// hosts adds the names of Mesos-DNS: always that of Marathon's apps if there are
// several, and the others where the input has them.
func (p *part) hosts() {
	p.s.Scopes = []string{"marathon"}
	for i, domain := range []string{".marathon.mesos", ".marathon.slave.mesos", ".marathon.containerip.dcos.thisdcos.directory", ".marathon.agentip.dcos.thisdcos.directory", ".marathon.autoip.dcos.thisdcos.directory"} {
		name := p.mesosName() + domain
		if i == 0 && len(p.parts) > 1 || strings.Contains(p.text, name) {
			p.host(name)
		}
	}
}

func (p *part) host(name string) {
	if !slices.ContainsFunc(p.s.Hosts, func(h importer.Host) bool { return h.Name == name }) {
		p.s.Hosts = append(p.s.Hosts, importer.Host{Name: name})
	}
}

// secret returns the name of the secret with this value, which it makes if there is
// none. "" stands for an unknown value.
func (r *reader) secret(hint, value, description string) string {
	return r.m.SharedSecret(hint, value, description)
}

// setting adds an attribute to the driver's config block.
// setting adds a setting of the driver, or replaces one.
func setting(t *importer.Task, name, value string) {
	if i := slices.IndexFunc(t.Settings, func(s importer.Setting) bool { return s.Name == name && !s.Block }); i >= 0 {
		t.Settings[i].Value = value
		return
	}
	t.Settings = append(t.Settings, importer.Setting{Name: name, Value: value})
}

// env adds the variables of a map of the input.
func (p *part) env(t *importer.Task, at *importer.Node, secrets *importer.Node) {
	for _, n := range at.Fields() {
		if t.Env = slices.DeleteFunc(t.Env, func(v importer.EnvVar) bool { return v.Name == n.Key }); n.Kind == importer.Map {
			ref := n.Get("secret").Text()
			t.Env = append(t.Env, importer.EnvVar{Name: n.Key, Value: importer.SecretText(p.given(ref, secrets))})
			continue
		}
		value := n.Text()
		if lint.InClear(n.Key, value) {
			t.Env = append(t.Env, importer.EnvVar{Name: n.Key, Value: importer.SecretText(p.secret(n.Key, value, n.Key+" of "+p.id+"."))})
			continue
		}
		t.Env = append(t.Env, importer.EnvVar{Name: n.Key, Value: importer.Lit(value)})
	}
}

// given is the secret of DC/OS that ref names. Its value is not in the input.
func (p *part) given(ref string, secrets *importer.Node) string {
	source := ref
	if n := secrets.Get(ref, "source"); n != nil {
		source = n.Text()
	}
	return p.secret(strings.TrimPrefix(source, "/"), "", "The secret "+source+" of DC/OS.")
}

// runtimeEnv adds what Mesos and Marathon give every task and the task may read.
func (p *part) runtimeEnv(t *importer.Task) {
	add := func(name string, value importer.Text) {
		if !slices.ContainsFunc(t.Env, func(v importer.EnvVar) bool { return v.Name == name }) {
			t.Env = append(t.Env, importer.EnvVar{Name: name, Value: value})
		}
	}
	if len(p.s.Ports) > 0 {
		add("HOST", importer.Runtime("attr.unique.network.ip-address"))
	}
	var all importer.Text
	for i, port := range p.s.Ports {
		value := importer.Runtime("NOMAD_PORT_" + port.Label)
		if i == 0 {
			add("PORT", value)
		} else {
			all = append(all, importer.Part{Literal: ","})
		}
		all = append(all, value...)
		add(fmt.Sprintf("PORT%d", i), value)
		if !strings.HasPrefix(port.Label, "port") {
			add("PORT_"+strings.ToUpper(port.Label), value)
		}
	}
	if strings.Contains(p.text, "PORTS") && len(all) > 0 {
		add("PORTS", all)
	}
	for name, value := range map[string]importer.Text{
		"MARATHON_APP_ID": importer.Lit(p.id),
		"MESOS_TASK_ID":   importer.Runtime("NOMAD_ALLOC_ID"),
		"MESOS_SANDBOX":   importer.Lit(p.sandbox(t)),
	} {
		if strings.Contains(p.text, name) {
			add(name, value)
		}
	}
}

// sandbox is the path of the task's directory, as the task sees it.
func (p *part) sandbox(t *importer.Task) string {
	if t.Driver == "exec" {
		return "/local"
	}
	return "/mnt/mesos/sandbox"
}

// foreignNames warns of names of Mesos that nothing answers on Nomad.
func (p *part) foreignNames() {
	p.node.Walk(func(n *importer.Node) {
		for _, name := range []string{"leader.mesos", "master.mesos", "._tcp.", "._udp."} {
			if strings.Contains(n.Peek(), name) && strings.Contains(n.Peek(), ".mesos") {
				p.ledger.Warn(n.Pos(), "embedded-dns", fmt.Sprintf("%s has a name of Mesos-DNS with %q, which nothing answers on Nomad", n.Path(), strings.Trim(name, ".")), "Write the address or the name in Consul instead.")
				return
			}
		}
	})
}
