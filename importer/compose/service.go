package compose

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/drover-nomad/drover/importer"
)

// model maps the project.
func (r *reader) model() *importer.Model {
	p := r.project
	var names []string
	for _, in := range r.src.Inputs {
		names = append(names, in.Name)
	}
	r.m = &importer.Model{Name: importer.DNSName(p.Name), Description: "Imported from " + strings.Join(names, ", ") + ".", Files: map[string][]byte{}}
	r.findPrivate()
	r.top()
	for _, name := range p.ServiceNames() {
		label := importer.DNSName(name)
		if label == "" {
			label = "service"
		}
		r.labels[name] = label
		r.build[name] = p.Services[name].Build != nil
	}
	r.overrides()
	for _, name := range p.ServiceNames() {
		s := &service{reader: r, cfg: p.Services[name], at: r.at(name), s: &importer.Service{Name: r.labels[name]}}
		s.s.At = s.at.pos()
		if s.isProxy() {
			s.at.take()
			for _, n := range s.at {
				n.Take()
			}
			r.ledger.Warn(s.s.At, "proxy", fmt.Sprintf("the reverse proxy %s is left out: the edge of drover has the routes of the labels", name), "Import with --keep-proxy if it does more than that.")
			continue
		}
		s.read()
		r.m.Services = append(r.m.Services, s.s)
	}
	r.join()
	r.unused()
	return r.m
}

// at are the places of a service: in the files of the command line, in included ones,
// and in those that it extends.
func (r *reader) at(name string) nodes {
	return r.places("", name, map[string]bool{})
}

func (r *reader) places(file, name string, seen map[string]bool) nodes {
	if seen[file+"\x00"+name] {
		return nil
	}
	seen[file+"\x00"+name] = true
	var out nodes
	for _, d := range r.docs {
		if file != "" && d.file != file {
			continue
		}
		n := r.servicesOf(d).Get(name)
		if n == nil {
			continue
		}
		if ext := n.Get("extends"); ext != nil {
			base, from := ext.Peek(), d.file
			if ext.Kind == importer.Map {
				base = r.substitute(ext.Get("service").Peek())
				if f := r.substitute(ext.Get("file").Peek()); f != "" {
					from = f
					if !path.IsAbs(f) {
						from = path.Join(path.Dir(d.file), f)
					}
				}
			}
			ext.Take()
			out = append(out, r.places(from, base, seen)...)
		}
		out = append(out, n)
	}
	return out
}

func (r *reader) servicesOf(d document) *importer.Node {
	if r.v1 && isVersion1(d.root) {
		return d.root
	}
	return d.root.Get("services")
}

// topNodes are the places of a key at the top of the files.
func (r *reader) topNodes(keys ...string) nodes {
	var out nodes
	for _, d := range r.docs {
		if n := d.root.Get(keys...); n != nil && !isVersion1(d.root) {
			out = append(out, n)
		}
	}
	return out
}

// top accounts for what is not a service.
func (r *reader) top() {
	r.topNodes("version").take()
	r.topNodes("name").take()
	r.topNodes("include").take()
	for _, d := range r.docs {
		for _, n := range d.root.Fields() {
			if strings.HasPrefix(n.Key, "x-") {
				n.Drop("extension fields have no effect of their own")
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.project.Networks)) {
		at, cfg := r.topNodes("networks", name), r.project.Networks[name]
		at.take("name")
		for _, key := range []string{"attachable", "labels", "enable_ipv4"} {
			at.get(key).drop(key + " is about Docker's networks")
		}
		switch cfg.Driver {
		case "", "default", "bridge", "overlay", "nat", "none", "null":
			at.take("driver")
		default:
			at.get("driver").warn("network-address", fmt.Sprintf("the network %s of the driver %s gives containers addresses outside their node; Nomad's bridge does not", name, cfg.Driver), "Publish the ports that others need, or configure a CNI network on the nodes.")
		}
		switch {
		case bool(cfg.External):
			at.get("external").warn("network-external", fmt.Sprintf("the network %s belongs to another application, whose names are not known here", name),
				"Say the address of each name that a service uses with --host NAME=ADDRESS.")
		default:
			at.take("external")
		}
		if cfg.Internal {
			at.get("internal").warn("no-isolation", fmt.Sprintf("the network %s keeps its services from other addresses; Nomad does not", name), "Use the firewall of the nodes.")
		}
		at.take("internal")
		at.get("ipam").warn("network-address", "addresses and ranges of the network are Nomad's", "Name services instead of addresses.")
		at.get("driver_opts").drop("options of Docker's network driver")
		at.get("enable_ipv6").drop("IPv6 between containers is a matter of the nodes' bridge")
		for _, n := range at {
			if len(n.Fields()) == 0 {
				n.Take()
			}
		}
		r.extensions(at)
	}
	for _, kind := range []string{"configs", "secrets", "volumes"} {
		for _, top := range r.topNodes(kind) {
			for _, n := range top.Fields() {
				if len(n.Fields()) == 0 {
					n.Take()
				}
			}
		}
	}
	for _, key := range []string{"networks", "services", "volumes", "configs", "secrets"} {
		for _, n := range r.topNodes(key) {
			n.Fields() // an empty map says nothing
		}
	}
}

func (r *reader) extensions(at nodes) {
	for _, n := range at {
		for _, c := range n.Fields() {
			if strings.HasPrefix(c.Key, "x-") && c.Key != "x-drover" {
				c.Drop("extension fields have no effect of their own")
			}
		}
	}
}

// unused accounts for services that no profile selects, and for those that only others
// extend.
func (r *reader) unused() {
	for _, d := range r.docs {
		for _, n := range r.servicesOf(d).Fields() {
			if _, ok := r.project.Services[n.Key]; ok {
				continue
			}
			if s, ok := r.project.DisabledServices[n.Key]; ok {
				n.Drop(fmt.Sprintf("service %s is in the profiles %s, which --profile did not select", n.Key, strings.Join(s.Profiles, ", ")))
			} else if !d.main {
				n.Drop("only extended by other services")
			}
		}
	}
	for _, kind := range []string{"volumes", "configs", "secrets", "networks"} {
		for _, top := range r.topNodes(kind) {
			for _, n := range top.Fields() {
				if !n.Used() {
					n.Drop(fmt.Sprintf("no service uses %s", n.Path()))
				}
			}
		}
	}
}

// service maps one service.
type service struct {
	*reader
	cfg types.ServiceConfig
	at  nodes
	s   *importer.Service
	t   *importer.Task
}

func (s *service) read() {
	for _, n := range s.at {
		n.Fields()
	}
	s.t = &importer.Task{Name: s.s.Name, At: s.s.At}
	s.s.Tasks = []*importer.Task{s.t}
	s.extensions(s.at)
	s.image()
	s.command()
	s.environment()
	s.networking()
	s.ports()
	s.mounts()
	s.files()
	s.health()
	s.dependencies()
	s.restart()
	s.deploy()
	s.resources()
	s.container()
	s.lifecycle()
	s.labelsOf()
	s.at.takeEach("profiles", "scale", "container_name", "extends")
	s.at.takeEach("log_opt", "dockerfile") // of version 1, with log_driver and build
	s.at.get("annotations").drop("annotations are for the container runtime")
	s.at.get("attach").drop("attach is about the terminal of docker compose")
	s.at.get("develop").drop("develop is for docker compose watch")
	s.at.get("label_file").take()
	s.at.get("pull_refresh_after").drop("an image is pulled when a task starts")
	for _, key := range []string{"provider", "models", "use_api_socket"} {
		s.at.get(key).refuse("unsupported", key+" is a feature of Docker's own programs", "Run what it stands for as a service.")
	}
}

func (s *service) image() {
	s.at.take("image")
	ref := s.cfg.Image
	given := s.src.Images[s.cfg.Name]
	switch {
	case given != "":
		s.t.Image, s.t.ImageRef = importer.Lit(given), given
	case ref != "":
		s.t.Image, s.t.ImageRef = s.noSecret(s.text(s.at.get("image"), ref), ref), ref
		if s.cfg.Build != nil {
			s.at.get("build").drop("the image " + ref + " is built elsewhere")
		}
	default:
		ref = s.project.Name + "-" + s.cfg.Name
		s.at.get("build").warn("needs-image", fmt.Sprintf("service %s is built from source; the stack runs the image %s, as Compose names what it builds", s.cfg.Name, ref),
			fmt.Sprintf("Build and push it, and set the variable image_%s, or import with --image %s=REF.", importer.Identifier(s.cfg.Name), s.cfg.Name))
		id := "image_" + importer.Identifier(s.cfg.Name)
		s.m.Variables = append(s.m.Variables, importer.Variable{Name: id, Type: "string", Default: importer.Quote(ref), Description: "Image of " + s.cfg.Name + ", which is built from source."})
		s.vars[id] = ref
		s.t.Image, s.t.ImageRef = importer.Var(id), ref
	}
	s.at.take("build")
	switch policy := s.cfg.PullPolicy; policy {
	case "", "missing", "if_not_present":
		s.at.take("pull_policy")
	case "always":
		s.at.take("pull_policy")
		s.set("force_pull", "true")
	case "build":
		s.at.get("pull_policy").drop("import builds no image")
	case "never":
		s.at.get("pull_policy").warn("unsupported", "the docker driver pulls an image that the node does not have", "Load the image on each node, or push it to a registry.")
	default:
		s.at.get("pull_policy").warn("unsupported", "an image is pulled again only with force_pull", "Name a version of the image instead.")
	}
	if p := s.cfg.Platform; p != "" {
		s.at.take("platform")
		parts := strings.Split(p, "/")
		if len(parts) > 1 {
			s.s.Constraints = append(s.s.Constraints, importer.Constraint{Attribute: "${attr.cpu.arch}", Value: parts[1]})
		}
	}
}

// noSecret replaces a text with secrets in it, where a secret cannot be, by its value.
func (s *service) noSecret(t importer.Text, value string) importer.Text {
	if len(t.Secrets()) > 0 {
		return importer.Lit(value)
	}
	return t
}

func (s *service) set(name, value string) {
	s.t.Settings = append(s.t.Settings, importer.Setting{Name: name, Value: value})
}

func (s *service) setBlock(name, body string) {
	s.t.Settings = append(s.t.Settings, importer.Setting{Name: name, Value: body, Block: true})
}

func (s *service) command() {
	s.at.takeEach("command", "entrypoint")
	if s.cfg.Entrypoint != nil {
		s.t.Entrypoint = s.safeWords(s.words(s.at.get("entrypoint"), s.cfg.Entrypoint))
		if len(s.t.Entrypoint) == 0 && s.declared("entrypoint") {
			s.t.Entrypoint = []importer.Text{nil}
		}
	}
	if len(s.cfg.Command) > 0 {
		s.t.Args = s.safeWords(s.words(s.at.get("command"), s.cfg.Command))
	}
	if s.cfg.WorkingDir != "" {
		s.at.take("working_dir")
		s.set("work_dir", s.noSecret(s.text(s.at.get("working_dir"), s.cfg.WorkingDir), s.cfg.WorkingDir).HCL())
	}
	if s.cfg.User != "" {
		s.at.take("user")
		s.t.User = s.noSecret(s.text(s.at.get("user"), s.cfg.User), s.cfg.User)
	}
}

// declared reports whether the input has a key that is not null.
func (s *service) declared(key string) bool {
	return slices.ContainsFunc(s.at.get(key), (*importer.Node).Exists)
}

var (
	secretFlag  = regexp.MustCompile(`(?i)^--?[a-z0-9.-]*(pass|password|passwd|secret|token|api-?key|requirepass|masterauth)[a-z0-9.-]*$`)
	secretValue = regexp.MustCompile(`(?i)^(--?[a-z0-9._-]*(?:password|passwd|secret|token|api-?key|requirepass|masterauth)=)(.+)$`)
)

// safeWords moves secrets out of a command: they become variables of the environment,
// which Nomad puts in their place when the task starts.
func (s *service) safeWords(words []importer.Text) []importer.Text {
	out := make([]importer.Text, len(words))
	for i, w := range words {
		literal, plain := w.Literal()
		switch {
		case len(w.Secrets()) > 0:
			for _, p := range w {
				if p.Secret != "" {
					p = importer.Part{Runtime: s.secretEnv(p.Secret)}
				}
				out[i] = append(out[i], p)
			}
			continue
		case plain && secretValue.MatchString(literal) && isSecret("password", secretValue.FindStringSubmatch(literal)[2]):
			m := secretValue.FindStringSubmatch(literal)
			name := s.secret(strings.Trim(m[1], "-="), m[2], "From the command of "+s.cfg.Name+".")
			out[i] = importer.Text{{Literal: m[1]}, {Runtime: s.secretEnv(name)}}
			continue
		case plain && i > 0 && isSecret("password", literal) && !strings.HasPrefix(literal, "-"):
			if flag, ok := words[i-1].Literal(); ok && secretFlag.MatchString(flag) {
				name := s.secret(strings.Trim(flag, "-"), literal, "From the command of "+s.cfg.Name+".")
				out[i] = importer.Runtime(s.secretEnv(name))
				continue
			}
		case plain && credentials.MatchString(literal):
			name := s.secret(s.s.Name+"_command", literal, "A word of the command of "+s.cfg.Name+" with a password in it.")
			out[i] = importer.Runtime(s.secretEnv(name))
			continue
		}
		out[i] = w
	}
	return out
}

// secretEnv returns the variable of the environment that has a secret.
func (s *service) secretEnv(secret string) string {
	name := "DROVER_" + strings.ToUpper(secret)
	if !slices.ContainsFunc(s.t.Env, func(v importer.EnvVar) bool { return v.Name == name }) {
		s.t.Env = append(s.t.Env, importer.EnvVar{Name: name, Value: importer.SecretText(secret)})
	}
	return name
}

func (s *service) environment() {
	s.at.takeEach("environment", "env_file")
	for _, n := range s.at.get("env_file") {
		for _, item := range n.Items() {
			file := s.substitute(item.Get("path").Peek())
			if !path.IsAbs(file) {
				file = path.Join(s.dir, file)
			}
			if _, err := os.Stat(file); err != nil && item.Get("path") != nil {
				item.Drop("the file does not exist, and is not required")
			}
		}
	}
	at := s.at.get("environment")
	raw := map[string]*importer.Node{}
	for _, n := range at {
		for _, c := range n.Fields() {
			raw[c.Key] = c
		}
		for _, c := range n.Items() {
			key, _, _ := strings.Cut(c.Peek(), "=")
			raw[key] = c
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.cfg.Environment)) {
		value := s.cfg.Environment[name]
		node := raw[name]
		if value == nil {
			node.Warn("unset-variable", fmt.Sprintf("%s has no value here; it is not set", name), "Write its value into env of the job, or import with it in the environment.")
			continue
		}
		s.t.Env = append(s.t.Env, importer.EnvVar{Name: name, Value: s.envValue(name, *value, node)})
	}
}

func (s *service) envValue(name, value string, node *importer.Node) importer.Text {
	text := ""
	if node != nil {
		text = node.Peek()
		if strings.HasPrefix(text, name+"=") && s.substitute(text) == name+"="+value {
			text = text[len(name)+1:]
		}
	}
	interpolated := node != nil && strings.Contains(text, "$") && s.substitute(text) == value
	unset := interpolated && value == "" && s.unsetIn(text)
	if isSecret(name, value) || unset && isSecret(name, "x") {
		if interpolated && !unset {
			// A password inside a URL stays one secret of all services.
			if t, ok := s.interpolated(node, text); ok && len(t.Secrets()) > 0 && !credentialsInClear(t) {
				return t
			}
		}
		return importer.SecretText(s.secret(name, value, fmt.Sprintf("%s of %s.", name, s.cfg.Name)))
	}
	if interpolated {
		if t, ok := s.interpolated(node, text); ok {
			return t
		}
	}
	return importer.Lit(value)
}

// credentialsInClear reports whether the literal parts of a text have a password.
func credentialsInClear(t importer.Text) bool {
	for _, p := range t {
		if credentials.MatchString(p.Literal) {
			return true
		}
	}
	return false
}

func (s *service) networking() {
	cfg := s.cfg
	s.at.take("network_mode")
	mode := cfg.NetworkMode
	switch {
	case mode == "host" || mode == "none":
		s.s.Network = mode
	case strings.HasPrefix(mode, types.ServicePrefix), strings.HasPrefix(mode, types.ContainerPrefix):
		_, name, _ := strings.Cut(mode, ":")
		for other, c := range s.project.Services {
			if c.ContainerName == name && strings.HasPrefix(mode, types.ContainerPrefix) {
				name = other
			}
		}
		if _, ok := s.project.Services[name]; !ok || name == cfg.Name {
			s.at.get("network_mode").refuse("unsupported", fmt.Sprintf("service %s uses the network of %s, which is not imported", cfg.Name, name), "Import both together.")
			return
		}
		s.reader.merged[cfg.Name] = name
	}
	if s.s.Network == "" && s.reader.merged[cfg.Name] == "" {
		s.names()
	}
	for _, n := range s.at.get("networks") {
		n.Fields()
		n.Items()
		for _, item := range n.Items() {
			item.Take()
		}
		for _, net := range n.Fields() {
			if len(net.Fields()) == 0 {
				net.Take()
			}
			at := nodes{net}
			at.takeEach("aliases", "use_service_name_alias")
			at.get("ipv4_address").warn("network-address", "the address of a container is Nomad's", "Use the name of the service.")
			at.get("ipv6_address").warn("network-address", "the address of a container is Nomad's", "Use the name of the service.")
			at.get("mac_address").warn("network-address", "the hardware address of a container is Nomad's", "Remove it.")
			at.get("link_local_ips").warn("network-address", "the address of a container is Nomad's", "Use the name of the service.")
			for _, key := range []string{"priority", "gw_priority", "interface_name", "driver_opts"} {
				at.get(key).drop("a task has one network on Nomad")
			}
		}
	}
	s.at.get("mac_address").warn("network-address", "the hardware address of a container is Nomad's", "Remove it.")
	s.links()
	s.extraHosts()
	if h := cfg.Hostname; h != "" {
		s.at.take("hostname")
		if d := cfg.DomainName; d != "" {
			h += "." + d
		}
		s.s.Hostname = s.noSecret(s.text(s.at.get("hostname"), h), h)
	}
	if cfg.DomainName != "" && cfg.Hostname == "" {
		s.at.get("domainname").warn("unsupported", fmt.Sprintf("%s has a domain and no host name", cfg.Name), "Add hostname.")
	}
	s.at.take("domainname")
	s.at.takeEach("dns", "dns_search", "dns_opt")
	if len(cfg.DNS)+len(cfg.DNSSearch)+len(cfg.DNSOpts) > 0 {
		s.s.DNS = &importer.DNS{Servers: cfg.DNS, Searches: cfg.DNSSearch, Options: cfg.DNSOpts}
		if s.s.Network == "none" {
			s.s.DNS = nil
		}
	}
}

// names gives the service its names on its networks.
func (s *service) names() {
	add := func(name string, scopes ...string) {
		if name != "" && !slices.ContainsFunc(s.s.Hosts, func(h importer.Host) bool {
			return h.Name == name && slices.Equal(h.Scopes, scopes)
		}) {
			s.s.Hosts = append(s.s.Hosts, importer.Host{Name: name, Scopes: scopes})
		}
	}
	networks := slices.Sorted(maps.Keys(s.cfg.Networks))
	if len(networks) == 0 {
		networks = []string{"default"}
	}
	s.s.Scopes = networks
	add(s.cfg.Name)
	add(s.cfg.ContainerName)
	add(s.cfg.Hostname)
	for _, net := range networks {
		if cfg := s.cfg.Networks[net]; cfg != nil {
			for _, alias := range cfg.Aliases {
				add(alias, net)
			}
		}
	}
}

// links make names that one service alone sees.
func (s *service) links() {
	s.at.take("links")
	for _, link := range s.cfg.Links {
		name, alias, ok := strings.Cut(link, ":")
		if !ok || alias == name {
			continue
		}
		scope := "link:" + s.cfg.Name
		if !slices.Contains(s.s.Scopes, scope) {
			s.s.Scopes = append(s.s.Scopes, scope)
		}
		s.reader.aliases = append(s.reader.aliases, linkAlias{service: name, host: importer.Host{Name: alias, Scopes: []string{scope}}})
	}
	for _, n := range s.at.get("external_links") {
		for _, item := range n.Items() {
			_, alias, ok := strings.Cut(item.Peek(), ":")
			if !ok {
				alias = item.Peek()
			}
			if a := s.src.Hosts[alias]; a != "" {
				item.Take()
				s.s.ExtraHosts = append(s.s.ExtraHosts, importer.Lit(alias+":"+a))
				continue
			}
			item.Refuse("network-external", fmt.Sprintf("%s is a container of another application", alias), fmt.Sprintf("Say its address: --host %s=ADDRESS.", alias))
		}
	}
}

func (s *service) extraHosts() {
	at := s.at.get("extra_hosts")
	at.take()
	for _, name := range slices.Sorted(maps.Keys(s.cfg.ExtraHosts)) {
		for _, ip := range s.cfg.ExtraHosts[name] {
			if ip == "host-gateway" {
				if !slices.ContainsFunc(s.m.Variables, func(v importer.Variable) bool { return v.Name == "host_gateway" }) {
					s.m.Variables = append(s.m.Variables, importer.Variable{Name: "host_gateway", Type: "string", Default: `"172.26.64.1"`, Description: "Address of the node as containers on Nomad's bridge see it."})
				}
				at.warn("network-address", fmt.Sprintf("%s is the node itself; on Nomad, that is the address of the bridge", name), "Set host_gateway if your nodes have another one, and let the program listen there.")
				s.s.ExtraHosts = append(s.s.ExtraHosts, importer.Text{{Literal: name + ":"}, {Variable: "host_gateway"}})
				continue
			}
			s.s.ExtraHosts = append(s.s.ExtraHosts, importer.Lit(name+":"+ip))
		}
	}
}

type linkAlias struct {
	service string
	host    importer.Host
}

func (s *service) ports() {
	at := s.at.get("ports")
	at.take()
	for _, n := range at {
		for _, item := range n.Items() {
			for _, key := range []string{"name", "app_protocol"} {
				item.Get(key).Drop(key + " describes the port")
			}
		}
	}
	for _, p := range s.cfg.Ports {
		s.port(at, p)
	}
	s.at.take("expose")
	for _, e := range s.cfg.Expose {
		spec, proto, _ := strings.Cut(e, "/")
		from, to, ok := portRange(spec)
		if !ok || to-from > 100 {
			s.at.get("expose").warn("unsupported", fmt.Sprintf("expose %q cannot be read as a port, or is a range of more than 100", e), "Name the ports that are used.")
			continue
		}
		if proto != "" && proto != "tcp" && proto != "udp" {
			s.at.get("expose").warn("unsupported", fmt.Sprintf("port %s speaks %s, which Nomad does not forward", spec, proto), "Use TCP or UDP.")
			continue
		}
		for n := from; n <= to; n++ {
			s.addPort(importer.Port{Number: n, UDP: proto == "udp"})
		}
	}
}

func portRange(spec string) (from, to int, ok bool) {
	a, b, several := strings.Cut(spec, "-")
	from, err := strconv.Atoi(strings.TrimSpace(a))
	if err != nil || from < 1 || from > 65535 {
		return 0, 0, false
	}
	if !several {
		return from, from, true
	}
	to, err = strconv.Atoi(strings.TrimSpace(b))
	return from, to, err == nil && to >= from && to <= 65535
}

// addPort adds a port. A second number of the node for the same port is a port of its
// own, which is not in Consul.
func (s *service) addPort(p importer.Port) {
	more := false
	for i, o := range s.s.Ports {
		if o.Number != p.Number || o.UDP != p.UDP {
			continue
		}
		switch {
		case p.Static == 0 || o.Static == p.Static:
			return
		case o.Static == 0:
			s.s.Ports[i].Static = p.Static
			return
		}
		more = true
	}
	if more {
		p.Label, p.Private = fmt.Sprintf("p%d-%d", p.Number, p.Static), true
	}
	s.s.Ports = append(s.s.Ports, p)
}

// onOneAddress warns of a port of the node that the input has on one of its addresses.
func (s *service) onOneAddress(where importer.Position, p types.ServicePortConfig) {
	if p.HostIP != "" && p.HostIP != "0.0.0.0" && p.HostIP != "::" {
		s.ledger.Warn(where, "port-conflict", fmt.Sprintf("port %s of %s is one of all addresses of its node, and not of %s alone", p.Published, s.cfg.Name, p.HostIP), "Restrict it with a host_network of the Nomad clients.")
	}
}

func (s *service) port(at nodes, p types.ServicePortConfig) {
	target := int(p.Target)
	if target == 0 {
		return
	}
	where := at.pos()
	for _, n := range at {
		for _, item := range n.Items() {
			text := s.substitute(item.Peek() + item.Get("target").Peek())
			if strings.HasSuffix(strings.TrimSuffix(text, "/"+p.Protocol), itoa(target)) {
				where = item.At
			}
		}
	}
	if s.cfg.NetworkMode == "host" {
		s.addPort(importer.Port{Number: target, UDP: p.Protocol == "udp", Static: target, At: where})
		return
	}
	published, last := 0, 0
	if p.Published != "" {
		var ok bool
		if published, last, ok = portRange(p.Published); !ok && p.Published != "0" {
			at.warn("unsupported", fmt.Sprintf("the published port %q cannot be read", p.Published), "Write a number.")
		}
	}
	udp := p.Protocol == "udp"
	switch {
	case p.Protocol != "" && p.Protocol != "tcp" && !udp:
		s.ledger.Warn(where, "unsupported", fmt.Sprintf("port %d speaks %s, which Nomad does not forward", target, p.Protocol), "Use TCP or UDP.")
		return
	case published == 0:
		s.ledger.Warn(where, "random-port", fmt.Sprintf("port %d has no number on the host; it is dynamic, and registered in Consul", target), "Publish it on a number, or give it a route of the edge.")
		s.addPort(importer.Port{Number: target, UDP: udp, At: where})
		return
	case udp:
		s.ledger.Warn(where, "udp-static", fmt.Sprintf("UDP port %d is a static port of the node that runs the service", published), "Send to that node, or to all with a service of mode global.")
		s.onOneAddress(where, p)
		s.addPort(importer.Port{Number: target, UDP: true, Static: published, At: where})
		return
	case p.Mode == "host":
		s.onOneAddress(where, p)
		s.addPort(importer.Port{Number: target, Static: published, At: where})
		return
	}
	if last > published {
		s.ledger.Warn(where, "random-port", fmt.Sprintf("port %d may be any of %s; it is %d", target, p.Published, published), "Publish it on one number.")
	}
	s.addPort(importer.Port{Number: target, At: where})
	host := p.HostIP
	switch {
	case host == "0.0.0.0" || host == "::":
		host = ""
	case strings.Contains(host, ":"):
		host = "[" + strings.Trim(host, "[]") + "]"
	}
	s.m.Published = append(s.m.Published, importer.Published{HostIP: host, Port: published, Service: s.s.Name, Target: target, At: where, Optional: len(s.cfg.Profiles) > 0})
}

func itoa(n int) string { return strconv.Itoa(n) }

func (s *service) dependencies() {
	for _, name := range slices.Sorted(maps.Keys(s.cfg.DependsOn)) {
		d := s.cfg.DependsOn[name]
		other, ok := s.project.Services[name]
		at := s.at.get("depends_on")
		if !ok {
			at.warn("depends-on", fmt.Sprintf("service %s is not imported, and %s does not wait for it", name, s.cfg.Name), "Select its profile with --profile.")
			continue
		}
		s.s.DependsOn = append(s.s.DependsOn, s.labels[name])
		if d.Restart {
			s.at.get("depends_on", name, "restart").warn("depends-on", fmt.Sprintf("%s does not restart with %s", s.cfg.Name, name), "Let the program connect again by itself.")
		}
		if d.Condition == types.ServiceConditionHealthy && (other.HealthCheck == nil || other.HealthCheck.Disable) {
			s.at.get("depends_on", name, "condition").warn("depends-on", fmt.Sprintf("%s has no health check here; %s waits until its port answers", name, s.cfg.Name), "Add a check, if the port is not enough.")
		}
	}
	s.at.take("depends_on")
}

// join moves services that use another one's network into its group, and gives
// services the names that links make.
func (r *reader) join() {
	byName := map[string]*importer.Service{}
	for _, s := range r.m.Services {
		byName[s.Name] = s
	}
	for _, a := range r.aliases {
		if s := byName[r.labels[a.service]]; s != nil {
			s.Hosts = append(s.Hosts, a.host)
			s.Scopes = append(s.Scopes, a.host.Scopes...)
		}
	}
	gone := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(r.merged)) {
		host := r.merged[name]
		for i := 0; r.merged[host] != "" && i < len(r.merged); i++ {
			host = r.merged[host]
		}
		from, to := byName[r.labels[name]], byName[r.labels[host]]
		if from == nil || to == nil || from == to || r.merged[host] != "" {
			continue
		}
		r.merge(from, to)
		gone[from.Name] = to.Name
	}
	if len(gone) == 0 {
		return
	}
	r.m.Services = slices.DeleteFunc(r.m.Services, func(s *importer.Service) bool { return gone[s.Name] != "" })
	for _, s := range r.m.Services {
		for i, d := range s.DependsOn {
			if gone[d] != "" {
				s.DependsOn[i] = gone[d]
			}
		}
	}
	for i, p := range r.m.Published {
		if gone[p.Service] != "" {
			r.m.Published[i].Service = gone[p.Service]
		}
	}
}

// merge moves the task of a service into the group of another one.
func (r *reader) merge(from, to *importer.Service) {
	for _, p := range from.Ports {
		if slices.ContainsFunc(to.Ports, func(o importer.Port) bool { return o.Number == p.Number && o.UDP == p.UDP }) {
			r.ledger.Refuse(from.At, "port-conflict", fmt.Sprintf("%s and %s share a network and both use port %d", from.Name, to.Name, p.Number), "Give one of them another port.")
			continue
		}
		to.Ports = append(to.Ports, p)
	}
	for i, c := range from.Checks {
		if c.Type == "script" && c.Task == "" {
			from.Checks[i].Task = from.Tasks[0].Name
		}
	}
	to.Checks = append(to.Checks, from.Checks...)
	if from.Count != nil && (to.Count == nil || *to.Count != *from.Count) {
		r.ledger.Warn(from.At, "scaling", fmt.Sprintf("%s has as many instances as %s, whose network it shares, and not %d", from.Name, to.Name, *from.Count), "Give both services the same number.")
	}
	if from.Update != nil && to.Update == nil {
		to.Update = from.Update
	}
	to.Spreads = append(to.Spreads, from.Spreads...)
	to.EphemeralDisk = max(to.EphemeralDisk, from.EphemeralDisk)
	for _, t := range from.Tasks {
		for i, v := range t.Volumes {
			t.Volumes[i].Volume = from.Name + "-" + v.Volume
		}
		t.Restart = cmp.Or(t.Restart, from.Restart)
	}
	for _, v := range from.Volumes {
		v.Name = from.Name + "-" + v.Name
		to.Volumes = append(to.Volumes, v)
	}
	to.Tasks = append(to.Tasks, from.Tasks...)
	to.Single = to.Single || from.Single
	to.DependsOn = append(to.DependsOn, from.DependsOn...)
	to.ExtraHosts = append(to.ExtraHosts, from.ExtraHosts...)
	to.Tags = append(to.Tags, from.Tags...)
	to.Constraints = append(to.Constraints, from.Constraints...)
	to.Comments = append(to.Comments, from.Name+" shares the network of this service and is a task of its group.")
}
