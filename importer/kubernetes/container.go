package kubernetes

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/render/lint"
)

func isList(n *importer.Node) bool { return n != nil && n.Kind == importer.List && len(n.Items()) > 0 }

// containers makes a task of each container. The main one is the first.
func (p *part) containers() {
	p.env = map[string]map[string]importer.Text{}
	grace := seconds(p.pod.Get("terminationGracePeriodSeconds"), 30*time.Second)
	if grace > 30*time.Second {
		p.pod.Get("terminationGracePeriodSeconds").Warn("kill-timeout", fmt.Sprintf("%s may take %s to stop", p.o.name, grace), "Raise max_kill_timeout of the clients to this.")
	}
	names := map[string]bool{}
	add := func(c *importer.Node, main bool, hook string) *importer.Task {
		name := importer.DNSName(c.Get("name").Text())
		if main || name == "" {
			name = p.label
		}
		for i := 2; names[name]; i++ {
			name = fmt.Sprintf("%s-%d", p.label, i)
		}
		names[name] = true
		t := &importer.Task{Name: name, At: c.Pos(), KillTimeout: grace, Hook: hook}
		p.container(t, c, main)
		return t
	}
	all := p.pod.Get("containers").Items()
	first := p.mainContainer(all)
	p.s.Tasks = append(p.s.Tasks, add(all[first], true, ""))
	for i, c := range all {
		if i != first {
			p.s.Tasks = append(p.s.Tasks, add(c, false, ""))
		}
	}
	batch := p.s.Kind == importer.KindBatch
	p.s.Tasks[0].Leader = batch && len(all) > 1
	inits := p.pod.Get("initContainers").Items()
	once := 0
	for _, c := range inits {
		sidecar := c.Get("restartPolicy").Text() == "Always"
		t := add(c, false, "prestart")
		t.Sidecar = sidecar
		if !sidecar {
			t.Restart = &importer.Restart{Attempts: 20, Interval: 5 * time.Minute, Delay: time.Second, Mode: "delay"}
			once++
		}
		p.s.Tasks = append(p.s.Tasks, t)
	}
	if once > 1 {
		p.order(inits)
	}
	p.pod.Get("ephemeralContainers").Drop("containers for debugging")
}

// mainContainer is the first container with a port that a Service selects, or else the
// first one.
func (p *part) mainContainer(all []*importer.Node) int {
	for _, o := range p.all("Service") {
		if o.ns != p.o.ns || !p.selectedBy(o.node.Get("spec", "selector")) {
			continue
		}
		for _, port := range o.node.Get("spec", "ports").Items() {
			target := cmp.Or(port.Get("targetPort").Peek(), port.Get("port").Peek())
			for i, c := range all {
				for _, cp := range c.Get("ports").Items() {
					if cp.Get("name").Peek() == target || cp.Get("containerPort").Peek() == target {
						return i
					}
				}
			}
		}
	}
	return 0
}

// order makes the init containers run one after the other, if a shell is known to be
// in their images.
func (p *part) order(inits []*importer.Node) {
	var tasks []*importer.Task
	for _, t := range p.s.Tasks {
		if t.Hook == "prestart" && !t.Sidecar {
			tasks = append(tasks, t)
		}
	}
	shells := true
	for _, t := range tasks {
		shells = shells && len(t.Entrypoint) > 0 && isShell(t.Entrypoint[0])
	}
	if !shells {
		p.pod.Get("initContainers").Refuse("init-order", fmt.Sprintf("the %d init containers of %s run one after the other; Nomad starts all at once, and not every image is known to have a shell that waits", len(tasks), p.o.name),
			"Make one of them, or allow it if their order does not matter.")
		return
	}
	for i, t := range tasks {
		script := "set -e\n"
		if i > 0 {
			script += fmt.Sprintf("until [ -e /alloc/data/.init-%d ]; do sleep 1; done\n", i-1)
		}
		script += "\"$@\"\n"
		if i < len(tasks)-1 {
			script += fmt.Sprintf("touch /alloc/data/.init-%d\n", i)
		}
		words := append(slices.Clone(t.Entrypoint), t.Args...)
		t.Comments = append(t.Comments, "Init containers run one after the other: each waits for the file of the one before.")
		t.Entrypoint, t.Args = []importer.Text{t.Entrypoint[0]}, append(importer.Lits([]string{"-c", script, "init"}), words...)
	}
}

func isShell(t importer.Text) bool {
	s, ok := t.Literal()
	switch s[strings.LastIndexByte(s, '/')+1:] {
	case "sh", "bash", "ash", "dash":
		return ok
	}
	return false
}

func setting(t *importer.Task, name, value string) {
	for i, s := range t.Settings {
		if s.Name == name && !s.Block {
			t.Settings[i].Value = value
			return
		}
	}
	t.Settings = append(t.Settings, importer.Setting{Name: name, Value: value})
}

func quoted(all []string) string {
	var out []string
	for _, s := range all {
		out = append(out, importer.Quote(s))
	}
	return "[" + strings.Join(out, ", ") + "]"
}

var imageText = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*(:[0-9]+)?(/[A-Za-z0-9._-]+)*(:[A-Za-z0-9._-]+)?(@[A-Za-z0-9]+:[A-Fa-f0-9]+)?$`)

func (p *part) container(t *importer.Task, c *importer.Node, main bool) {
	name := c.Get("name").Peek()
	ref := p.replaced(strings.TrimSpace(c.Get("image").Text()))
	given := p.src.Images[t.Name]
	if given == "" && main {
		given = p.src.Images[importer.DNSName(p.o.name)]
	}
	if given != "" {
		ref = given
	}
	if !imageText.MatchString(ref) {
		at := cmp.Or(c.Get("image"), c)
		at.Refuse("needs-image", fmt.Sprintf("%q is no image of the container %s of %s", ref, name, p.o.name), fmt.Sprintf("Say --image %s=REF, or render it first, if it is a patch or a template.", t.Name))
		ref = "image"
	}
	t.Image, t.ImageRef = importer.Lit(ref), ref
	switch c.Get("imagePullPolicy").Text() {
	case "Always":
		setting(t, "force_pull", "true")
	case "Never":
		c.Get("imagePullPolicy").Warn("unsupported", fmt.Sprintf("the image of %s is pulled if a node does not have it", p.o.name), "Load it on each node.")
	}
	p.variables(t, c)
	p.commands(t, c)
	p.ports(c)
	p.resources(t, c.Get("resources"))
	p.security(t, c.Get("securityContext"))
	p.mounts(t, c)
	p.probes(t, c)
	p.lifecycle(t, c.Get("lifecycle"))
	if dir := c.Get("workingDir").Text(); dir != "" {
		setting(t, "work_dir", importer.Quote(dir))
	}
	if c.Get("tty").Bool() {
		setting(t, "tty", "true")
	}
	if c.Get("stdin").Bool() {
		setting(t, "interactive", "true")
	}
	c.Get("stdinOnce").Drop("nothing is attached to the standard input")
	for _, key := range []string{"terminationMessagePath", "terminationMessagePolicy"} {
		c.Get(key).Drop("the last message of a container is in its logs")
	}
	c.Get("resizePolicy").Drop("Nomad starts a task again when its resources change")
	for _, d := range c.Get("volumeDevices").Items() {
		d.Warn("device", "a block device is a volume of Kubernetes", "Write devices into the config of the task.")
	}
}

var variable = regexp.MustCompile(`\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)`)

// expand replaces $(NAME) in a text, as Kubernetes does. In arguments, a value that is
// no plain text stays a variable of the environment.
func expand(s string, env map[string]importer.Text, argument bool) importer.Text {
	var out importer.Text
	last := 0
	lit := func(s string) {
		if s == "" {
			return
		}
		if n := len(out); n > 0 && out[n-1].Variable+out[n-1].Runtime+out[n-1].Secret == "" {
			out[n-1].Literal += s
			return
		}
		out = append(out, importer.Part{Literal: s})
	}
	for _, m := range variable.FindAllStringSubmatchIndex(s, -1) {
		lit(s[last:m[0]])
		last = m[1]
		if m[2] < 0 {
			lit("$")
			continue
		}
		name := s[m[2]:m[3]]
		value, ok := env[name]
		if !ok {
			lit(s[m[0]:m[1]])
			continue
		}
		if len(value.Secrets()) > 0 && argument {
			out = append(out, importer.Part{Runtime: name})
			continue
		}
		for _, part := range value {
			if part.Variable+part.Runtime+part.Secret == "" {
				lit(part.Literal)
			} else {
				out = append(out, part)
			}
		}
	}
	lit(s[last:])
	return out
}

func (p *part) commands(t *importer.Task, c *importer.Node) {
	env := p.env[t.Name]
	if n := c.Get("command"); n.Exists() {
		for _, w := range n.Items() {
			t.Entrypoint = append(t.Entrypoint, expand(w.Text(), env, true))
		}
	}
	if n := c.Get("args"); n.Exists() {
		for _, w := range n.Items() {
			t.Args = append(t.Args, expand(w.Text(), env, true))
		}
	}
	for _, key := range []string{"command", "args"} {
		c.Get(key).Walk(func(w *importer.Node) {
			if strings.Contains(w.Peek(), "nslookup") || strings.Contains(w.Peek(), "dig ") {
				w.Warn("embedded-dns", fmt.Sprintf("a command of %s asks the DNS server of Kubernetes; on Nomad, the names are in /etc/hosts", p.o.name), "Use `getent hosts NAME`, or connect to the port instead.")
			}
		})
	}
}

// variables maps env and envFrom.
func (p *part) variables(t *importer.Task, c *importer.Node) {
	env := map[string]importer.Text{}
	p.env[t.Name] = env
	var order []string
	set := func(name string, value importer.Text) {
		if _, ok := env[name]; !ok {
			order = append(order, name)
		}
		env[name] = value
	}
	for _, n := range c.Get("envFrom").Items() {
		prefix := n.Get("prefix").Text()
		for _, kind := range []string{"configMap", "secret"} {
			ref := n.Get(kind + "Ref")
			if !ref.Exists() {
				continue
			}
			optional := ref.Get("optional").Bool()
			name := ref.Get("name").Text()
			o := p.find(strings.ToUpper(kind[:1])+kind[1:], p.o.ns, name)
			if o == nil {
				if !optional {
					ref.Warn("unset-variable", fmt.Sprintf("the variables of %s are all keys of the %s %s, which is not in the input", p.o.name, kind, name), "Import it together with the others.")
				}
				continue
			}
			for _, key := range dataKeys(o) {
				if kind == "configMap" && o.node.Get("data", key) == nil {
					continue // binaryData is for files only
				}
				if kind == "secret" {
					set(prefix+key, p.secretKey(ref, o.ns, name, key))
					continue
				}
				value, _ := configValue(o, key)
				set(prefix+key, p.plain(prefix+key, string(value)))
			}
		}
	}
	for _, n := range c.Get("env").Items() {
		name := n.Get("name").Text()
		if name == "" {
			continue
		}
		from := n.Get("valueFrom")
		if !from.Exists() {
			text := n.Get("value").Text()
			value := expand(text, env, false)
			if literal, ok := value.Literal(); ok {
				value = p.plain(name, literal)
			}
			set(name, value)
			continue
		}
		if value, ok := p.valueFrom(n, t, c, from); ok {
			set(name, value)
		}
	}
	for _, name := range order {
		if !envName.MatchString(name) {
			p.ledger.Warn(c.Pos(), "renamed", fmt.Sprintf("%q of %s is no name of a variable and is left out", name, p.o.name), "Rename it.")
			continue
		}
		t.Env = append(t.Env, importer.EnvVar{Name: name, Value: env[name]})
	}
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

// plain is a literal value, or a secret if it looks like one.
func (p *part) plain(name, value string) importer.Text {
	if lint.InClear(name, value) || hasPassword(value) {
		return importer.SecretText(p.secret(name, value, name+" of "+p.o.name+"."))
	}
	return importer.Lit(value)
}

// hasPassword reports whether a value is a URL with a password.
func hasPassword(value string) bool {
	if !strings.Contains(value, "://") || !strings.Contains(value, "@") {
		return false
	}
	u, err := url.Parse(strings.TrimSpace(value))
	if err != nil || u.User == nil {
		return false
	}
	password, ok := u.User.Password()
	return ok && password != "" && !strings.ContainsAny(password, "${}")
}

// valueFrom is the value of a variable that is somewhere else.
func (p *part) valueFrom(n *importer.Node, t *importer.Task, c, from *importer.Node) (importer.Text, bool) {
	name := n.Get("name").Peek()
	switch {
	case from.Get("configMapKeyRef").Exists():
		ref := from.Get("configMapKeyRef")
		optional := ref.Get("optional").Bool()
		cm, key := ref.Get("name").Text(), ref.Get("key").Text()
		if o := p.find("ConfigMap", p.o.ns, cm); o != nil {
			if value, ok := configValue(o, key); ok {
				return p.plain(name, string(value)), true
			}
		}
		if optional {
			return nil, false
		}
		v := importer.Identifier(cm + "_" + key)
		ref.Warn("unset-variable", fmt.Sprintf("%s of %s is the key %s of the ConfigMap %s, which is not in the input; it is the variable %s", name, p.o.name, key, cm, v), "Import the ConfigMap together with the others, or set the variable.")
		if !slices.ContainsFunc(p.m.Variables, func(o importer.Variable) bool { return o.Name == v }) {
			p.m.Variables = append(p.m.Variables, importer.Variable{Name: v, Default: `""`, Description: fmt.Sprintf("Key %s of the ConfigMap %s.", key, cm)})
		}
		return importer.Var(v), true
	case from.Get("secretKeyRef").Exists():
		ref := from.Get("secretKeyRef")
		optional := ref.Get("optional").Bool()
		secret, key := ref.Get("name").Text(), ref.Get("key").Text()
		if optional && p.find("Secret", p.o.ns, secret) == nil {
			return nil, false
		}
		return p.secretKey(ref, p.o.ns, secret, key), true
	case from.Get("fieldRef").Exists():
		ref := from.Get("fieldRef")
		ref.Get("apiVersion").Take()
		return p.field(ref.Get("fieldPath")), true
	case from.Get("resourceFieldRef").Exists():
		ref := from.Get("resourceFieldRef")
		return p.resourceField(ref, c), true
	}
	from.Warn("unset-variable", fmt.Sprintf("the value of %s of %s comes from somewhere that the importer does not know", name, p.o.name), "Write it into env of the task.")
	return nil, false
}

var bracket = regexp.MustCompile(`^metadata\.(labels|annotations)\['([^']*)'\]$`)

// field is the value of a field of the pod.
func (p *part) field(n *importer.Node) importer.Text {
	path := n.Text()
	if m := bracket.FindStringSubmatch(path); m != nil {
		return importer.Lit(p.template.Get("metadata", m[1], m[2]).Text())
	}
	switch path {
	case "metadata.name":
		if p.o.kind == "StatefulSet" {
			return importer.Lit(fmt.Sprintf("%s-%d", importer.DNSName(p.o.name), max(p.ordinal, 0)))
		}
		return importer.Text{{Literal: p.label + "-"}, {Runtime: "NOMAD_SHORT_ALLOC_ID"}}
	case "metadata.namespace":
		return importer.Lit(p.o.ns)
	case "metadata.uid":
		return importer.Runtime("NOMAD_ALLOC_ID")
	case "spec.serviceAccountName":
		return importer.Lit(cmp.Or(p.pod.Get("serviceAccountName").Peek(), "default"))
	case "spec.nodeName":
		return importer.Runtime("node.unique.name")
	case "status.hostIP", "status.hostIPs":
		return importer.Runtime("attr.unique.network.ip-address")
	case "status.podIP", "status.podIPs":
		for _, c := range p.pod.Get("containers").Items() {
			for _, port := range c.Get("ports").Items() {
				if v, err := strconv.Atoi(port.Get("containerPort").Peek()); err == nil {
					n.Warn("network-address", fmt.Sprintf("the address of %s is one of its node's bridge, which other nodes do not reach", p.o.name), "Let the program advertise its name.")
					return importer.Runtime(fmt.Sprintf("NOMAD_ALLOC_IP_p%d", v))
				}
			}
		}
		n.Warn("network-address", fmt.Sprintf("the address of %s is not known without a port; it is that of its node", p.o.name), "Declare a port of the container.")
		return importer.Runtime("attr.unique.network.ip-address")
	}
	n.Warn("unset-variable", fmt.Sprintf("the field %s of a pod has no counterpart on Nomad", path), "Write the value into env of the task.")
	return nil
}

// resourceField is a request or a limit of a container.
func (p *part) resourceField(ref, c *importer.Node) importer.Text {
	if name := ref.Get("containerName").Text(); name != "" {
		for _, o := range append(p.pod.Get("containers").Items(), p.pod.Get("initContainers").Items()...) {
			if o.Get("name").Peek() == name {
				c = o
			}
		}
	}
	what := ref.Get("resource").Text()
	group, resource, _ := strings.Cut(what, ".")
	divisor := 1.0
	if v, ok := quantity(ref.Get("divisor").Text()); ok && v > 0 {
		divisor = v
	}
	value, ok := quantity(c.Get("resources", group, resource).Peek())
	if !ok {
		value, ok = quantity(c.Get("resources", "requests", resource).Peek())
	}
	if !ok {
		ref.Get("resource").Warn("unset-variable", fmt.Sprintf("%s of %s is not set; on Kubernetes, it is that of the node", what, p.o.name), "Write the value into env of the task.")
		return importer.Runtime(map[bool]string{true: "NOMAD_CPU_LIMIT", false: "NOMAD_MEMORY_LIMIT"}[resource == "cpu"])
	}
	return importer.Lit(strconv.FormatFloat(math.Ceil(value/divisor), 'f', 0, 64))
}

var quantityText = regexp.MustCompile(`^([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE]([+-]?[0-9]{1,2}))?([numkKMGTPE]?i?)$`)

// quantity parses a quantity of Kubernetes.
func quantity(s string) (float64, bool) {
	m := quantityText.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return 0, false
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0, false
	}
	if m[2] != "" {
		exp, _ := strconv.Atoi(m[2])
		v *= math.Pow10(exp)
	}
	scale := map[string]float64{"": 1, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
		"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50, "Ei": 1 << 60}
	f, ok := scale[m[3]]
	return v * f, ok
}

// amountOf takes a quantity.
func (p *part) amountOf(n *importer.Node) (float64, bool) {
	if !n.Exists() {
		return 0, false
	}
	v, ok := quantity(n.Peek())
	if !ok || v > 1e15 {
		n.Refuse(importer.RuleInvalid, fmt.Sprintf("%q is no quantity", n.Peek()), "Write a number, such as 500m or 64Mi.")
		return 0, false
	}
	n.Take()
	return v, true
}

func megabytes(v float64) int { return int(math.Ceil(min(v, 1e15) / (1 << 20))) }

func (p *part) resources(t *importer.Task, n *importer.Node) {
	n.Fields()
	n.Get("claims").Warn("device", "claims of resources are Kubernetes' own", "Write a device block into resources.")
	for _, kind := range []string{"requests", "limits"} {
		for _, r := range n.Get(kind).Fields() {
			switch {
			case r.Key == "cpu" || r.Key == "memory":
			case r.Key == "ephemeral-storage":
				if v, ok := p.amountOf(r); ok {
					p.s.EphemeralDisk = max(p.s.EphemeralDisk, megabytes(v))
				}
			case strings.HasSuffix(r.Key, "/gpu"):
				v, ok := p.amountOf(r)
				name := map[bool]string{true: "nvidia/gpu", false: r.Key}[strings.HasPrefix(r.Key, "nvidia")]
				if ok && v >= 1 && v < 1000 && !slices.ContainsFunc(t.Resources.Devices, func(d importer.Device) bool { return d.Name == name }) {
					t.Resources.Devices = append(t.Resources.Devices, importer.Device{Name: name, Count: int(v)})
				}
				r.Warn("device", "GPUs need a device plugin on the clients", "Install nomad-device-nvidia there.")
			default:
				r.Warn("device", fmt.Sprintf("%s is a resource of Kubernetes", r.Key), "Write a device block into resources, if a plugin has it.")
			}
		}
	}
	request, hasRequest := p.amountOf(n.Get("requests", "cpu"))
	limit, hasLimit := p.amountOf(n.Get("limits", "cpu"))
	switch {
	case hasRequest && hasLimit && request < limit:
		t.Resources.Cores = request
		n.Get("limits", "cpu").Warn("cpu-limit", fmt.Sprintf("%s reserves %g CPUs, and may use more than its limit of %g", t.Name, request, limit), "Set cpu to the limit and cpu_hard_limit = true, if it must be kept.")
	case hasLimit:
		t.Resources.CoresLimit = limit
	case hasRequest:
		t.Resources.Cores = request
	}
	if v, ok := p.amountOf(n.Get("requests", "memory")); ok {
		t.Resources.Memory = megabytes(v)
	}
	if v, ok := p.amountOf(n.Get("limits", "memory")); ok {
		t.Resources.MemoryMax = megabytes(v)
	}
	if t.Resources.Memory == 0 && t.Resources.MemoryMax == 0 && t.Hook == "" {
		p.ledger.Warn(t.At, "no-memory", fmt.Sprintf("%s does not say how much memory it needs", t.Name), fmt.Sprintf("Set memory = { %s = MB } in environments/default.hcl.", importer.Quote(t.Name)))
	}
}

// ports adds the ports of a container.
func (p *part) ports(c *importer.Node) {
	for _, n := range c.Get("ports").Items() {
		number, ok := n.Get("containerPort").Int()
		n.Get("name").Take()
		proto := strings.ToUpper(n.Get("protocol").Text())
		host, _ := n.Get("hostPort").Int()
		hostIP := n.Get("hostIP")
		if hostIP.Exists() && host != 0 {
			hostIP.Warn("network-address", "a static port of Nomad is on all addresses of the node's network", "Set host_network of the port.")
		}
		if !ok || number < 1 || number > 65535 {
			n.Refuse(importer.RuleInvalid, "a port of a container has no number", "Write containerPort, from 1 to 65535.")
			continue
		}
		if proto == "SCTP" {
			n.Get("protocol").Warn("unsupported", fmt.Sprintf("port %d speaks SCTP, which Nomad does not forward", number), "Use TCP or UDP.")
			continue
		}
		port := importer.Port{Number: int(number), UDP: proto == "UDP", At: n.Pos()}
		if host > 0 && host < 65536 {
			port.Static = int(host)
		}
		p.addPort(port)
	}
}

func (p *part) addPort(port importer.Port) *importer.Port {
	for i, o := range p.s.Ports {
		if o.Number == port.Number && o.UDP == port.UDP {
			if port.Static != 0 {
				p.s.Ports[i].Static = port.Static
			}
			return &p.s.Ports[i]
		}
	}
	p.s.Ports = append(p.s.Ports, port)
	return &p.s.Ports[len(p.s.Ports)-1]
}

// portNumber is the number of a port that is a number or the name of one of a
// container's, 0 for an unknown one. It takes the value.
func (p *part) portNumber(n *importer.Node, c *importer.Node) int {
	if v, ok := n.Int(); ok {
		if v < 1 || v > 65535 {
			return 0
		}
		return int(v)
	}
	name := n.Peek()
	containers := append(p.pod.Get("containers").Items(), p.pod.Get("initContainers").Items()...)
	if c != nil {
		containers = append([]*importer.Node{c}, containers...)
	}
	for _, o := range containers {
		for _, port := range o.Get("ports").Items() {
			if name != "" && port.Get("name").Peek() == name {
				n.Take()
				v, err := strconv.Atoi(port.Get("containerPort").Peek())
				if err != nil {
					return 0
				}
				return v
			}
		}
	}
	return 0
}

// secret returns the name of the secret with this value, which it makes if there is
// none. "" stands for an unknown value.
func (r *reader) secret(hint, value, description string) string {
	return r.m.AddSecret(hint, value, description)
}

// secretKey is the value of a key of a Secret.
func (r *reader) secretKey(ref *importer.Node, ns, name, key string) importer.Text {
	id := ns + "/" + name + "/" + key
	if known, ok := r.secrets[id]; ok {
		return importer.SecretText(known)
	}
	hint := name + "_" + key
	if r.several {
		hint = ns + "_" + hint
	}
	description := fmt.Sprintf("Key %s of the Secret %s.", key, name)
	o := r.find("Secret", ns, name)
	value, ok := []byte(nil), false
	if o != nil {
		value, ok = r.secretValue(o, key)
	}
	switch {
	case !ok:
		r.secrets[id] = r.secret(hint, "", description)
		r.ledger.Warn(ref.Pos(), "unset-variable", fmt.Sprintf("the key %s of the Secret %s is not in the input; it is the secret %s of the stack", key, name, r.secrets[id]), "Write its value into secrets.yaml.")
	case len(value) == 0:
		return nil
	case !utf8.Valid(value):
		r.ledger.Warn(ref.Pos(), "unsupported", fmt.Sprintf("the key %s of the Secret %s is binary; its secret of the stack has it in base64", key, name), "Decode it in the program, or with base64Decode in the template.")
		r.secrets[id] = r.secret(hint, base64.StdEncoding.EncodeToString(value), description)
	default:
		r.secrets[id] = r.secret(hint, string(value), description)
	}
	return importer.SecretText(r.secrets[id])
}

// secretValue decodes a key of a Secret.
func (r *reader) secretValue(o *object, key string) ([]byte, bool) {
	if n := o.node.Get("stringData", key); n != nil {
		o.node.Get("data", key).Take()
		return []byte(n.Text()), true
	}
	n := o.node.Get("data", key)
	if n == nil {
		return nil, false
	}
	text := strings.Map(func(c rune) rune {
		if c == '\n' || c == '\r' || c == ' ' {
			return -1
		}
		return c
	}, n.Text())
	value, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		n.Refuse(importer.RuleInvalid, fmt.Sprintf("the key %s of the Secret %s is no base64", key, o.name), "Write it into stringData, or encode it.")
	}
	return value, true
}

// dataKeys are the keys of a ConfigMap or a Secret, in the order of the file.
func dataKeys(o *object) []string {
	var out []string
	for _, key := range []string{"data", "binaryData", "stringData"} {
		for _, k := range o.node.Get(key).Keys() {
			if !slices.Contains(out, k) {
				out = append(out, k)
			}
		}
	}
	return out
}

// configValue is a key of a ConfigMap.
func configValue(o *object, key string) ([]byte, bool) {
	if n := o.node.Get("data", key); n != nil {
		return []byte(n.Text()), true
	}
	if n := o.node.Get("binaryData", key); n != nil {
		value, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(n.Text()), ""))
		if err != nil {
			n.Refuse(importer.RuleInvalid, fmt.Sprintf("the key %s of the ConfigMap %s is no base64", key, o.name), "Write it into data, or encode it.")
		}
		return value, true
	}
	return nil, false
}
