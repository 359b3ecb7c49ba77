package ecs

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/render/lint"
)

// containers maps the containers of the task definition. The first task is the main
// one: that behind the load balancer, or the first essential one with ports.
func (p *part) containers() {
	all := p.def.containers()
	essential := 0
	required := map[*importer.Task]bool{}
	for _, n := range all {
		if n.Kind != importer.Map {
			n.Refuse(importer.RuleInvalid, "a container definition is an object", "Write it between { and }.")
			continue
		}
		name := p.word(p.get(n, "name"))
		if p.leftOut(n, name) {
			p.absent[name] = true
			continue
		}
		t := &importer.Task{Name: p.taskName(name), At: n.Pos(), KillTimeout: 30 * time.Second}
		p.tasks[name], p.nodes[t] = t, n
		p.s.Tasks = append(p.s.Tasks, t)
		if e := p.get(n, "essential"); e == nil || p.flag(e) {
			required[t] = true
			essential++
		}
	}
	for _, t := range p.s.Tasks {
		p.container(t, p.nodes[t])
	}
	for _, t := range p.s.Tasks {
		p.volumesFrom(t, p.get(p.nodes[t], "volumesFrom"))
		p.dependsOn(t, required)
	}
	for _, t := range p.s.Tasks {
		if len(p.s.Tasks) == 1 || t.Hook != "" {
			continue
		}
		switch {
		case required[t] && essential == 1:
			t.Leader = true
		case required[t]:
			p.ledger.LeaveOut(p.def.node.Pos(), fmt.Sprintf("%s has several essential containers: ECS replaces the whole task when one ends, Nomad starts that one again", p.s.Name))
		default:
			p.ledger.Warn(t.At, "restart", fmt.Sprintf("the container %s is not essential: ECS leaves it stopped when it ends, Nomad starts it again", t.Name), "Let it run on, or make it a task with a lifecycle block.")
		}
	}
	for name, v := range p.volumes {
		if !p.mounted[name] {
			v.Drop(fmt.Sprintf("no container mounts the volume %s", name))
		}
	}
	main := p.mainTask(required)
	slices.SortStableFunc(p.s.Tasks, func(a, b *importer.Task) int {
		switch {
		case a == main && b != main:
			return -1
		case b == main && a != main:
			return 1
		}
		return 0
	})
}

// leftOut reports whether a container is a part of AWS: the proxy of App Mesh, or the
// log router of FireLens.
func (p *part) leftOut(n *importer.Node, name string) bool {
	if p.def.node.Kind == importer.Map {
		if proxy := p.value(p.get(p.def.node, "proxyConfiguration", "containerName")); proxy != "" && proxy == name {
			n.Warn("proxy", fmt.Sprintf("the container %s is the proxy of App Mesh, and is left out", name), "Services find one another by the mesh of the stack.")
			return true
		}
	}
	if fire := p.get(n, "firelensConfiguration"); fire != nil {
		n.Warn("logging", fmt.Sprintf("the container %s is the log router of FireLens, and is left out", name), "Ship the logs of Nomad from the nodes.")
		return true
	}
	return false
}

func (p *part) taskName(name string) string {
	label := importer.DNSName(name)
	if label == "" {
		label = "task"
	}
	for i, base := 2, label; slices.ContainsFunc(p.s.Tasks, func(t *importer.Task) bool { return t.Name == label }); i++ {
		label = fmt.Sprintf("%s-%d", base, i)
	}
	return label
}

func (p *part) mainTask(required map[*importer.Task]bool) *importer.Task {
	if p.deploy != nil {
		for _, lb := range p.deploy.items(p.deploy.get(p.deploy.node, "loadBalancers")) {
			if t := p.tasks[p.deploy.value(p.deploy.get(lb, "containerName"))]; t != nil {
				return t
			}
		}
	}
	for _, ports := range []bool{true, false} {
		for _, t := range p.s.Tasks {
			if required[t] && t.Hook == "" && (!ports || p.listens(t)) {
				return t
			}
		}
	}
	return nil
}

// listens reports whether a container has a port of TCP.
func (p *part) listens(t *importer.Task) bool {
	return slices.ContainsFunc(p.items(p.get(p.nodes[t], "portMappings")), func(m *importer.Node) bool {
		return !strings.EqualFold(p.value(p.get(m, "protocol")), "udp")
	})
}

func (p *part) setting(t *importer.Task, name, value string) {
	t.Settings = append(t.Settings, importer.Setting{Name: name, Value: value})
}

func quoted(all []string) string {
	out := make([]string, len(all))
	for i, s := range all {
		out[i] = importer.Quote(s)
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// words takes a list of literal texts.
func (p *part) words(n *importer.Node) []string {
	var out []string
	for _, item := range p.items(n) {
		out = append(out, p.word(item))
	}
	return out
}

func (p *part) container(t *importer.Task, n *importer.Node) {
	get := func(keys ...string) *importer.Node { return p.get(n, keys...) }
	p.image(t, n)
	t.Entrypoint = p.command(t, get("entryPoint"))
	t.Args = p.command(t, get("command"))
	p.environment(t, get("environment"), get("environmentFiles"), get("secrets"))
	p.ports(t, get("portMappings"))
	p.mounts(t, get("mountPoints"))
	p.health(t, get("healthCheck"))
	p.limits(t, n)
	p.linux(t, get("linuxParameters"))
	p.logging(t, get("logConfiguration"))
	t.User = p.plain(get("user"))
	if dir := p.plain(get("workingDirectory")); !dir.Empty() {
		p.setting(t, "work_dir", dir.HCL())
	}
	if h := p.plain(get("hostname")); !h.Empty() {
		p.s.Hostname = h
	}
	if p.flag(get("privileged")) {
		p.setting(t, "privileged", "true")
		p.need(get("privileged"), t, "allow_privileged = true")
	}
	for key, name := range map[string]string{"readonlyRootFilesystem": "readonly_rootfs", "interactive": "interactive", "pseudoTerminal": "tty"} {
		if p.flag(get(key)) {
			p.setting(t, name, "true")
		}
	}
	slices.SortStableFunc(t.Settings, func(a, b importer.Setting) int { return strings.Compare(a.Name, b.Name) })
	if all := p.words(get("dockerSecurityOptions")); len(all) > 0 {
		p.setting(t, "security_opt", quoted(all))
	}
	if servers, search := p.words(get("dnsServers")), p.words(get("dnsSearchDomains")); len(servers)+len(search) > 0 && p.s.Network != "none" {
		if p.s.DNS == nil {
			p.s.DNS = &importer.DNS{}
		}
		p.s.DNS.Servers = append(p.s.DNS.Servers, servers...)
		p.s.DNS.Searches = append(p.s.DNS.Searches, search...)
	}
	for _, h := range p.items(get("extraHosts")) {
		p.extraHost(p.word(p.get(h, "hostname")), p.word(p.get(h, "ipAddress")))
	}
	for _, l := range p.items(get("links")) {
		name, alias, ok := strings.Cut(p.word(l), ":")
		if !ok {
			alias = name
		}
		p.extraHost(alias, "127.0.0.1")
	}
	if off := get("disableNetworking"); p.flag(off) {
		if len(p.s.Tasks) == 1 {
			p.s.Network = "none"
		} else {
			off.Warn("no-isolation", fmt.Sprintf("the container %s has no network; the tasks of a group share one", t.Name), "Run it as a job of its own.")
		}
	}
	if d, ok := p.number(get("stopTimeout")); ok && d >= 0 {
		if t.KillTimeout = time.Duration(d) * time.Second; d > 30 {
			get("stopTimeout").Warn("kill-timeout", fmt.Sprintf("%s is longer than the clients' max_kill_timeout by default", t.KillTimeout), "Raise max_kill_timeout of the clients.")
		}
	}
	get("startTimeout").Drop("Nomad waits for a task by healthy_deadline")
	restart := get("restartPolicy")
	p.get(restart, "enabled").Drop("Nomad starts a container again, with a restart policy or without")
	p.get(restart, "restartAttemptPeriod").Drop("Nomad starts a container again after one second")
	if codes := p.get(restart, "ignoredExitCodes"); len(p.items(codes)) > 0 {
		codes.Warn("restart", "Nomad starts a container again after each exit code", "Let it run on, or make it a task with a lifecycle block.")
	}
	for _, l := range get("dockerLabels").Fields() {
		if strings.HasPrefix(l.Key, "traefik.") {
			l.Warn("route", fmt.Sprintf("%s is for Traefik, which does not read labels on Nomad", l.Key), "Write a tag drover.route=HOST/PATH into the service block of the job.")
			continue
		}
		l.Drop("labels of containers have no effect when the application runs")
	}
	get("repositoryCredentials").Warn("registry-auth", "the credentials of the registry are a secret of AWS", "Configure auth in the docker plugin of the clients.")
	get("credentialSpecs").Warn("unsupported", "credential specs of Active Directory have no counterpart", "Configure them on the nodes.")
	get("versionConsistency").Drop("name a digest of the image to run the same one everywhere")
}

func (p *part) need(n *importer.Node, t *importer.Task, what string) {
	p.ledger.Warn(n.Pos(), "needs-client", fmt.Sprintf("the container %s needs %s in the docker plugin of the clients", t.Name, what), "Configure the clients that may run it.")
	p.m.Needs = append(p.m.Needs, importer.Need{What: "`" + what + "` in the docker plugin", Why: p.s.Name, At: n.Pos()})
}

func (p *part) extraHost(name, address string) {
	if !hostText.MatchString(name) || address == "" || strings.ContainsAny(address, " \t\n") {
		return
	}
	entry := importer.Lit(name + ":" + address)
	if p.s.Network != "none" && !slices.ContainsFunc(p.s.ExtraHosts, func(o importer.Text) bool { return slices.Equal(o, entry) }) {
		p.s.ExtraHosts = append(p.s.ExtraHosts, entry)
	}
}

var imageRef = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$`)

// image maps the image, which --image may replace by the name of the container, or of
// the service if it has one container.
func (p *part) image(t *importer.Task, n *importer.Node) {
	at := p.get(n, "image")
	t.Image, t.ImageRef = p.plain(at), p.value(at)
	given := p.src.Images[t.Name]
	if given == "" && len(p.s.Tasks) == 1 {
		given = p.src.Images[p.s.Name]
	}
	if given != "" {
		t.Image, t.ImageRef = importer.Lit(given), given
	}
	remedy := fmt.Sprintf("Say --image %s=REF.", t.Name)
	_, literal := t.Image.Literal()
	switch {
	case at == nil && given == "":
		n.Refuse("needs-image", fmt.Sprintf("the container %s has no image", t.Name), remedy)
	case t.ImageRef == "", literal && !imageRef.MatchString(t.ImageRef):
		at.Refuse("needs-image", fmt.Sprintf("%q of the container %s is no reference of an image", t.ImageRef, t.Name), remedy)
	case strings.Contains(t.ImageRef, ".dkr.ecr."):
		p.ledger.Warn(at.Pos(), "registry-auth", fmt.Sprintf("the image of %s is in a registry of Amazon ECR, whose passwords end after 12 hours", t.Name), "Configure the helper docker-credential-ecr-login in the docker plugin of the clients.")
	}
	if t.Image.Empty() {
		t.Image = importer.Lit("unknown")
	}
}

var secretWord = regexp.MustCompile(`(?i)^(--?[a-z0-9._-]*(?:password|passwd|secret|token|api-?key)[=])(.+)$`)

// command takes the words of a command.
func (p *part) command(t *importer.Task, n *importer.Node) []importer.Text {
	var out []importer.Text
	for _, item := range p.items(n) {
		out = append(out, p.commandWord(t, item))
	}
	return out
}

// commandWord takes a word of a command. Secrets in it become variables of the
// environment, which Nomad puts into their places when the task starts.
func (p *part) commandWord(t *importer.Task, item *importer.Node) importer.Text {
	word := p.text(item)
	if literal, ok := word.Literal(); ok {
		if m := secretWord.FindStringSubmatch(literal); m != nil && lint.InClear("password", m[2]) {
			name := p.secret(strings.Trim(m[1], "-="), m[2], "From the command of "+t.Name+".")
			word = importer.Text{{Literal: m[1]}, {Secret: name}}
		}
	}
	for i, part := range word {
		if part.Secret != "" {
			word[i] = importer.Part{Runtime: p.secretEnv(t, part.Secret)}
		}
	}
	return word
}

// secretEnv returns the variable of the environment that has a secret.
func (p *part) secretEnv(t *importer.Task, secret string) string {
	env := "DROVER_" + strings.ToUpper(secret)
	if !slices.ContainsFunc(t.Env, func(v importer.EnvVar) bool { return v.Name == env }) {
		t.Env = append(t.Env, importer.EnvVar{Name: env, Value: importer.SecretText(secret)})
	}
	return env
}

var (
	envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)
	// always are secrets whatever their values look like.
	always      = regexp.MustCompile(`(?i)(^|_)(pass|pwd)$|^AWS_(SECRET_ACCESS_KEY|SESSION_TOKEN)$`)
	credentials = regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*://[^\s/:@]+:[^\s/@]+@`)
)

func (p *part) environment(t *importer.Task, env, files, secrets *importer.Node) {
	set := func(n *importer.Node, name string, value importer.Text) {
		if !envName.MatchString(name) {
			n.Warn("unsupported", fmt.Sprintf("%q is no name of a variable of the environment", name), "Rename it.")
			return
		}
		t.Env = slices.DeleteFunc(t.Env, func(v importer.EnvVar) bool { return v.Name == name })
		t.Env = append(t.Env, importer.EnvVar{Name: name, Value: value})
	}
	for _, n := range p.items(env) {
		name, at := p.word(p.get(n, "name")), p.get(n, "value")
		value, secret := p.sensitive(name, at)
		if !secret {
			value = p.text(at)
		}
		set(n, name, value)
	}
	for _, n := range p.items(secrets) {
		name, from := p.word(p.get(n, "name")), p.word(p.get(n, "valueFrom"))
		set(n, name, importer.SecretText(p.secret(name, "", fmt.Sprintf("In AWS %s.", from))))
	}
	for _, n := range p.items(files) {
		n.Refuse("missing-file", fmt.Sprintf("the variables of %s are in the file %s of S3", t.Name, p.value(p.get(n, "value"))), "Write them into environment of the container.")
	}
}

// sensitive returns the secret for a value that looks like one, by the name of its
// variable or because it has a password in it. A parameter of the template is no
// variable of the stack then.
func (p *part) sensitive(name string, at *importer.Node) (importer.Text, bool) {
	resolved, description := p.value(at), fmt.Sprintf("%s of %s.", name, p.s.Name)
	parts := p.pieces(at)
	for _, part := range parts {
		switch {
		case part.parameter != "" && p.hidden(part.parameter), part.secret:
			return nil, false // text makes secrets of these
		case part.parameter != "" && resolved == "":
			description = "The parameter " + part.parameter + "."
		case part.unknown != "" && resolved == "":
			description = "In AWS " + part.what + "."
		}
	}
	like := resolved
	if like == "" && len(parts) > 0 {
		like = "unknown"
	}
	if like == "" || !lint.InClear(name, like) && !always.MatchString(name) && !credentials.MatchString(resolved) {
		return nil, false
	}
	at.Take()
	for _, part := range parts {
		p.root.Get("Parameters", part.parameter).Take()
	}
	return importer.SecretText(p.secret(name, resolved, description)), true
}

var portName = regexp.MustCompile(`^[a-z][a-z0-9]*$`)

func (p *part) ports(t *importer.Task, n *importer.Node) {
	for _, m := range p.items(n) {
		from, ok := p.number(p.get(m, "containerPort"))
		to := from
		if r := p.get(m, "containerPortRange"); r != nil {
			text := p.word(r)
			if _, err := fmt.Sscanf(text, "%d-%d", &from, &to); err != nil || to < from || to-from > 100 {
				r.Refuse("unsupported", fmt.Sprintf("the range of ports %q is none, or one of more than 100", text), "Name the ports that are used.")
				continue
			}
			ok = true
		}
		host, _ := p.number(p.get(m, "hostPort"))
		udp := strings.EqualFold(p.word(p.get(m, "protocol")), "udp")
		name := p.word(p.get(m, "name"))
		p.get(m, "appProtocol").Drop("the mesh forwards TCP, whatever the protocol of the application")
		if !ok || from < 1 || to > 65535 {
			if from < 0 || to > 65535 {
				m.Refuse(importer.RuleInvalid, "a port is a number from 1 to 65535", "Correct containerPort.")
			}
			continue
		}
		if host < 0 || host > 65535 {
			m.Refuse(importer.RuleInvalid, "a port is a number from 1 to 65535", "Correct hostPort.")
			continue
		}
		if name != "" {
			p.named[name] = from
		}
		if p.mode == "none" {
			m.Drop("a container without a network has no ports")
			continue
		}
		if p.mode != "bridge" {
			host = 0
		}
		for number := from; number <= to; number++ {
			port := importer.Port{Number: number, UDP: udp, Static: host, At: m.Pos()}
			if portName.MatchString(name) && from == to {
				port.Label = name
			}
			p.port(t, m, port)
		}
	}
}

func (p *part) port(t *importer.Task, m *importer.Node, port importer.Port) {
	if port.Static != 0 {
		m.Walk(func(n *importer.Node) {
			if strings.EqualFold(n.Key, "hostPort") && port.UDP {
				n.Warn("udp-static", fmt.Sprintf("UDP port %d is a static port of the node", port.Static), "One instance fits on a node.")
			}
		})
	}
	owner := p.owners[port.Number]
	if owner != nil && owner != t {
		m.Refuse("port-conflict", fmt.Sprintf("the containers %s and %s both use port %d; the tasks of a group share one network", owner.Name, t.Name, port.Number), "Give one of them another port. Allowed, the first one has it.")
		return
	}
	p.owners[port.Number] = t
	for i, o := range p.s.Ports {
		switch {
		case o.Number != port.Number || o.UDP != port.UDP:
		case o.Static == port.Static || port.Static == 0:
			return
		case o.Static == 0:
			p.s.Ports[i].Static = port.Static
			return
		default:
			port.Label = fmt.Sprintf("h%d", port.Static)
		}
	}
	if slices.ContainsFunc(p.s.Ports, func(o importer.Port) bool {
		return port.Label != "" && o.Label == port.Label && o.Number != port.Number
	}) {
		port.Label = ""
	}
	p.s.Ports = append(p.s.Ports, port)
}

func (p *part) health(t *importer.Task, n *importer.Node) {
	if n == nil {
		return
	}
	var words []string
	for _, item := range p.items(p.get(n, "command")) {
		word := ""
		for _, o := range p.pieces(item) {
			name := ""
			switch {
			case o.secret:
				name = p.secret(o.unknown, "", o.what+".")
			case o.parameter != "" && p.hidden(o.parameter):
				name = p.parameter(o.parameter)[0].Secret
			case o.parameter != "":
				p.fixed(o.parameter)
			}
			if name == "" {
				word += p.withDefault(o)
			} else {
				word += "${" + p.secretEnv(t, name) + "}" // the shell or Nomad fills it in
			}
		}
		item.Take()
		words = append(words, word)
	}
	seconds := func(key string, standard int) time.Duration {
		if v, ok := p.number(p.get(n, key)); ok && v >= 0 {
			return time.Duration(v) * time.Second
		}
		return time.Duration(standard) * time.Second
	}
	c := importer.Check{Type: "script", Task: t.Name, Interval: seconds("interval", 30), Timeout: seconds("timeout", 5), Restart: 3, Grace: seconds("startPeriod", 0)}
	if v, ok := p.number(p.get(n, "retries")); ok && v > 0 {
		c.Restart = v
	}
	switch {
	case len(words) == 0:
		n.Warn("health", fmt.Sprintf("the health check of %s has no command", t.Name), "Write a check block.")
		return
	case words[0] == "NONE":
		p.setting(t, "healthchecks", "{ disable = true }")
		return
	case words[0] == "CMD-SHELL":
		c.Command, c.Args = "/bin/sh", []string{"-c", strings.Join(words[1:], " ")}
	case words[0] == "CMD" && len(words) > 1:
		c.Command, c.Args = words[1], words[2:]
	case len(words) == 1: // a shell runs a text
		c.Command, c.Args = "/bin/sh", []string{"-c", words[0]}
	default:
		c.Command, c.Args = words[0], words[1:]
	}
	p.s.Checks = append(p.s.Checks, c)
}

func (p *part) limits(t *importer.Task, n *importer.Node) {
	if v, ok := p.number(p.get(n, "cpu")); ok && v > 0 {
		t.Resources.Cores = float64(v) / 1024
	}
	if v, ok := p.number(p.get(n, "memory")); ok && v > 0 {
		t.Resources.MemoryMax = v
	}
	if v, ok := p.number(p.get(n, "memoryReservation")); ok && v > 0 {
		t.Resources.Memory = v
	}
	for _, r := range p.items(p.get(n, "resourceRequirements")) {
		kind := strings.ToUpper(p.word(p.get(r, "type")))
		count, ok := p.number(p.get(r, "value"))
		if kind == "GPU" && ok && count > 0 {
			t.Resources.Devices = append(t.Resources.Devices, importer.Device{Name: "nvidia/gpu", Count: count})
			r.Warn("device", "GPUs need the plugin nomad-device-nvidia on the clients", "Install it there.")
			continue
		}
		r.Refuse("device", fmt.Sprintf("Nomad has no plugin for the device %s", kind), "Remove it.")
	}
	var limits []string
	for _, u := range p.items(p.get(n, "ulimits")) {
		soft, _ := p.number(p.get(u, "softLimit"))
		hard, ok := p.number(p.get(u, "hardLimit"))
		if name := p.word(p.get(u, "name")); ok && name != "" {
			limits = append(limits, fmt.Sprintf("%s = %s", importer.Quote(name), importer.Quote(fmt.Sprintf("%d:%d", soft, hard))))
		}
	}
	if len(limits) > 0 {
		p.setting(t, "ulimit", "{\n"+strings.Join(limits, "\n")+"\n}")
	}
	limits = nil
	for _, c := range p.items(p.get(n, "systemControls")) {
		if name := p.word(p.get(c, "namespace")); name != "" {
			limits = append(limits, fmt.Sprintf("%s = %s", importer.Quote(name), importer.Quote(p.word(p.get(c, "value")))))
		}
	}
	if len(limits) > 0 {
		p.setting(t, "sysctl", "{\n"+strings.Join(limits, "\n")+"\n}")
	}
}

func (p *part) linux(t *importer.Task, n *importer.Node) {
	get := func(keys ...string) *importer.Node { return p.get(n, keys...) }
	if add := p.words(get("capabilities", "add")); len(add) > 0 {
		p.setting(t, "cap_add", quoted(add))
		if other := slices.DeleteFunc(slices.Clone(add), importer.AllowedCapability); len(other) > 0 {
			p.need(get("capabilities", "add"), t, "allow_caps with "+strings.Join(other, ", "))
		}
	}
	if drop := p.words(get("capabilities", "drop")); len(drop) > 0 {
		p.setting(t, "cap_drop", quoted(drop))
	}
	for _, d := range p.items(get("devices")) {
		host, inside := p.word(p.get(d, "hostPath")), p.word(p.get(d, "containerPath"))
		if inside == "" {
			inside = host
		}
		body := "host_path = " + importer.Quote(host) + "\ncontainer_path = " + importer.Quote(inside)
		rights := ""
		for _, r := range p.words(p.get(d, "permissions")) {
			rights += strings.ToLower(r[:min(1, len(r))])
		}
		if strings.Contains(rights, "m") || rights != "" {
			body += "\ncgroup_permissions = " + importer.Quote(rights)
		}
		t.Settings = append(t.Settings, importer.Setting{Name: "devices", Value: body, Block: true})
	}
	if p.flag(get("initProcessEnabled")) {
		p.setting(t, "init", "true")
	}
	if v, ok := p.number(get("sharedMemorySize")); ok && v > 0 {
		p.setting(t, "shm_size", fmt.Sprint(int64(v)<<20))
	}
	for _, m := range p.items(get("tmpfs")) {
		size, _ := p.number(p.get(m, "size"))
		p.get(m, "mountOptions").Drop("a tmpfs of Nomad has a size and a mode only")
		p.mount(t, importer.Mount{Kind: "tmpfs", Target: p.word(p.get(m, "containerPath")), Size: int64(max(size, 0)) << 20})
	}
	for _, key := range []string{"maxSwap", "swappiness"} {
		get(key).Warn("unsupported", key+" has no counterpart on Nomad", "Configure swap on the nodes.")
	}
}

func (p *part) logging(t *importer.Task, n *importer.Node) {
	if n == nil {
		return
	}
	driver := p.word(p.get(n, "logDriver"))
	options := p.get(n, "options")
	switch driver {
	case "", "json-file", "local", "none":
		n.Drop("Nomad keeps the logs")
		return
	case "awslogs", "awsfirelens":
		n.Warn("logging", fmt.Sprintf("the logs of %s are Nomad's, and not CloudWatch's", t.Name), "Ship them from the nodes.")
		return
	}
	body := "type = " + importer.Quote(driver)
	var lines []string
	for _, o := range options.Fields() {
		value := p.word(o)
		if lint.InClear(o.Key, value) {
			o.Warn("logging", fmt.Sprintf("the option %s of the log driver has a secret, which is left out", o.Key), "Configure the log driver on the nodes.")
			continue
		}
		lines = append(lines, importer.Quote(o.Key)+" = "+importer.Quote(value))
	}
	if len(lines) > 0 {
		body += "\nconfig = {\n" + strings.Join(lines, "\n") + "\n}"
	}
	n.Warn("logging", fmt.Sprintf("%s logs with the driver %s", t.Name, driver), "Remove the logging block of the job to have the logs in Nomad.")
	t.Settings = append(t.Settings, importer.Setting{Name: "logging", Value: body, Block: true})
}

// mount adds a mount, unless the container has one at this place.
func (p *part) mount(t *importer.Task, m importer.Mount) {
	if !path.IsAbs(m.Target) || strings.ContainsAny(m.Target+m.Source, ":\n") {
		p.ledger.Refuse(t.At, importer.RuleInvalid, fmt.Sprintf("%q of the container %s is no path for a mount", m.Target, t.Name), "Write an absolute path without a colon.")
		return
	}
	if !slices.ContainsFunc(t.Mounts, func(o importer.Mount) bool { return o.Target == m.Target }) {
		t.Mounts = append(t.Mounts, m)
	}
}

func (p *part) mounts(t *importer.Task, n *importer.Node) {
	for _, m := range p.items(n) {
		name := p.word(p.get(m, "sourceVolume"))
		target, ro := path.Clean(p.word(p.get(m, "containerPath"))), p.flag(p.get(m, "readOnly"))
		v, ok := p.volumes[name]
		if !ok {
			m.Refuse(importer.RuleInvalid, fmt.Sprintf("the task definition has no volume %q", name), "Add it to volumes.")
			continue
		}
		p.mounted[name] = true
		p.volume(t, name, v, target, ro)
	}
}

// volume mounts a volume of the task definition.
func (p *part) volume(t *importer.Task, name string, v *importer.Node, target string, ro bool) {
	p.flag(p.get(v, "readOnly"))
	source := ""
	if s := p.get(v, "host", "sourcePath"); s.Exists() {
		source = p.word(s)
	}
	for _, key := range []string{"efsVolumeConfiguration", "fsxWindowsFileServerVolumeConfiguration", "s3filesVolumeConfiguration"} {
		if n := p.get(v, key); n != nil {
			if n.Refuse("volume-driver", fmt.Sprintf("the volume %s is a file system of AWS", name), "Register it as a CSI volume, or mount it on the nodes. Allowed, it becomes a host volume on one node.") {
				p.hostVolume(t, n, name, target, ro)
			}
			return
		}
	}
	if n := p.get(v, "configuredAtLaunch"); p.flag(n) {
		if n.Refuse("volume-driver", fmt.Sprintf("the volume %s is a disk of AWS that the service makes for each task", name), "Register it as a CSI volume. Allowed, it becomes a host volume on one node.") {
			p.hostVolume(t, n, name, target, ro)
		}
		return
	}
	docker := p.get(v, "dockerVolumeConfiguration")
	switch {
	case source != "" && !path.IsAbs(source):
		p.get(v, "host", "sourcePath").Refuse("host-path", fmt.Sprintf("the volume %s has the path %q, which is not absolute", name, source), "Write the path on the nodes. Allowed, the mount is left out.")
	case source != "":
		at := p.get(v, "host", "sourcePath")
		rule, what := "host-path", fmt.Sprintf("%s of the node is mounted at %s of %s", source, target, t.Name)
		if strings.HasSuffix(source, "docker.sock") {
			rule, what = "docker-socket", fmt.Sprintf("%s controls the Docker engine of its node", t.Name)
		}
		p.ledger.Warn(at.Pos(), rule, what, "Make it on each node, and set volumes.enabled = true in the docker plugin of the clients.")
		p.mount(t, importer.Mount{Kind: "host", Source: path.Clean(source), Target: target, ReadOnly: ro})
		p.m.Needs = append(p.m.Needs, importer.Need{What: "`volumes { enabled = true }` in the docker plugin", Why: fmt.Sprintf("%s mounts %s", p.s.Name, source), At: at.Pos()})
	case docker != nil:
		driver := p.word(p.get(docker, "driver"))
		p.flag(p.get(docker, "autoprovision"))
		p.get(docker, "labels").Drop("labels of a volume have no effect")
		shared := strings.EqualFold(p.word(p.get(docker, "scope")), "shared")
		if opts := p.get(docker, "driverOpts"); driver != "" && driver != "local" || len(opts.Fields()) > 0 {
			if !docker.Refuse("volume-driver", fmt.Sprintf("the volume %s needs the driver %s with options", name, driver), "Register it as a CSI volume. Allowed, it becomes a host volume on one node.") {
				return
			}
			shared = true
		}
		if shared {
			p.hostVolume(t, docker, name, target, ro)
			return
		}
		p.scratch(t, v, name, target, ro)
	default:
		if h := p.get(v, "host"); h != nil {
			h.Fields()
		}
		p.scratch(t, v, name, target, ro)
	}
}

// scratch mounts a directory of the allocation.
func (p *part) scratch(t *importer.Task, v *importer.Node, name, target string, ro bool) {
	p.ledger.Warn(v.Pos(), "no-copy-up", fmt.Sprintf("the volume %s begins empty; Docker copies what the image has at %s into it", name, target), "Let the entry point write it, if the image needs it there.")
	source := importer.DNSName(name)
	if source == "" {
		source = "data"
	}
	p.mount(t, importer.Mount{Kind: "alloc", Source: source, Target: target, ReadOnly: ro})
}

// hostVolume mounts a volume that drover makes on one node.
func (p *part) hostVolume(t *importer.Task, n *importer.Node, name, target string, ro bool) {
	if !path.IsAbs(target) {
		n.Refuse(importer.RuleInvalid, fmt.Sprintf("%q is no path of a container", target), "Write an absolute path.")
		return
	}
	label := importer.DNSName(name)
	if label == "" {
		label = "data"
	}
	source := importer.DNSName(p.m.Name + "-" + p.s.Name + "-" + label)
	if !slices.ContainsFunc(p.m.Volumes, func(o importer.Volume) bool { return o.Name == source }) {
		known := importer.KnownImage(t.ImageRef)
		params := map[string]string{}
		if known.User != "" && known.User != "0" {
			params["uid"], params["gid"] = known.User, known.User
		}
		if !known.Known {
			p.ledger.Warn(n.Pos(), "no-copy-up", fmt.Sprintf("the volume %s begins empty and belongs to root", source), "If the image runs as another user, set uid and gid in the parameters of the volume in stack.hcl.")
		}
		p.m.Volumes = append(p.m.Volumes, importer.Volume{Name: source, Parameters: params, Comment: "At " + target + " of " + p.s.Name + "."})
	}
	if !slices.ContainsFunc(p.s.Volumes, func(o importer.VolumeUse) bool { return o.Source == source }) {
		p.s.Volumes = append(p.s.Volumes, importer.VolumeUse{Name: label, Source: source})
	}
	if !slices.ContainsFunc(t.Volumes, func(o importer.VolumeMount) bool { return o.Target == target }) {
		t.Volumes = append(t.Volumes, importer.VolumeMount{Volume: label, Target: target, ReadOnly: ro})
	}
	p.s.Single = true
}

func (p *part) volumesFrom(t *importer.Task, n *importer.Node) {
	for _, v := range p.items(n) {
		name, ro := p.word(p.get(v, "sourceContainer")), p.flag(p.get(v, "readOnly"))
		other := p.tasks[name]
		if other == nil || other == t {
			v.Refuse(importer.RuleInvalid, fmt.Sprintf("the task definition has no other container %q", name), "Correct volumesFrom.")
			continue
		}
		if len(other.Mounts)+len(other.Volumes) == 0 {
			v.Warn("mount-kind", fmt.Sprintf("%s has no mount points; the volumes that its image declares cannot be shared", name), "Give both containers a volume of the task definition.")
			continue
		}
		for _, m := range slices.Clone(other.Mounts) {
			m.ReadOnly = m.ReadOnly || ro
			if m.Kind != "tmpfs" {
				p.mount(t, m)
			}
		}
		for _, m := range slices.Clone(other.Volumes) {
			m.ReadOnly = m.ReadOnly || ro
			if !slices.ContainsFunc(t.Volumes, func(o importer.VolumeMount) bool { return o.Target == m.Target }) {
				t.Volumes = append(t.Volumes, m)
			}
		}
	}
}

// dependsOn maps the order in which containers start.
func (p *part) dependsOn(t *importer.Task, required map[*importer.Task]bool) {
	for _, d := range p.items(p.get(p.nodes[t], "dependsOn")) {
		name, condition := p.word(p.get(d, "containerName")), strings.ToUpper(p.word(p.get(d, "condition")))
		other := p.tasks[name]
		switch {
		case p.absent[name]:
			d.Drop(fmt.Sprintf("the container %s is left out", name))
		case other == nil || other == t:
			d.Warn("depends-on", fmt.Sprintf("%s waits for the container %s, which the stack does not have", t.Name, name), "Remove it.")
		case condition == "COMPLETE" || condition == "SUCCESS":
			if required[other] {
				d.Warn("depends-on", fmt.Sprintf("%s waits until the essential container %s ends", t.Name, name), "Set essential to false for it.")
				continue
			}
			other.Hook = "prestart"
		case condition == "HEALTHY":
			d.Warn("depends-on", fmt.Sprintf("%s starts beside %s, and not after its health check", t.Name, name), "Let the program wait or try again.")
		}
	}
}
