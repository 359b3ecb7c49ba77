package marathon

import (
	"cmp"
	"fmt"
	"math"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drover-nomad/drover/importer"
)

// read maps the app or the pod.
func (p *part) read() {
	p.s = &importer.Service{Name: p.label, At: p.node.Pos()}
	if p.node.Get("containers") != nil {
		p.pod()
	} else {
		p.app()
	}
	p.hosts()
	for _, t := range p.s.Tasks {
		p.runtimeEnv(t)
	}
	p.state()
	p.node.Walk(func(n *importer.Node) {
		if n.Kind == importer.Null { // as if it were absent
			n.Take()
		}
	})
}

// state drops what Marathon's API adds to an app that runs.
func (p *part) state() {
	for _, key := range []string{"version", "versionInfo", "tasks", "tasksStaged", "tasksRunning", "tasksHealthy", "tasksUnhealthy", "deployments", "lastTaskFailure", "readinessCheckResults", "taskStats", "statusSince", "status", "lastUpdated", "specs"} {
		p.node.Get(key).Drop("the state of an app that runs")
	}
	p.node.Get("killSelection").Drop("Nomad chooses the instances that stop")
	p.node.Get("scheduling", "killSelection").Drop("Nomad chooses the instances that stop")
	for _, n := range []*importer.Node{p.node.Get("unreachableStrategy"), p.node.Get("scheduling", "unreachableStrategy")} {
		n.Drop("Nomad replaces the instances of a lost node by the heartbeat of its client")
	}
	p.node.Get("residency").Drop("a host volume keeps its instance on the node")
	p.node.Get("role").Drop("a role of Mesos")
	p.node.Get("executorResources").Drop("Nomad has no executor that needs resources")
	if n := p.node.Get("executor"); n.Peek() == "" || n.Peek() == "//cmd" {
		n.Drop("the executor of Mesos")
	} else {
		n.Refuse("unsupported", fmt.Sprintf("%s has the executor %s of Mesos", p.id, n.Peek()), "Run its command as an app.")
	}
	if n := p.node.Get("storeUrls"); len(n.Items()) > 0 {
		n.Warn("unsupported", "files of storeUrls are not stored", "Use artifact blocks.")
	}
}

func (p *part) app() {
	n := p.node
	t := &importer.Task{Name: p.label, At: p.s.At}
	p.s.Tasks = []*importer.Task{t}
	p.count(n.Get("instances"))
	container := n.Get("container")
	docker := container.Get("docker")
	kind := strings.ToUpper(container.Get("type").Text())
	if docker == nil || docker.Get("image") == nil && docker.Get("forcePullImage") == nil {
		p.program(t, n)
	} else {
		p.image(t, docker)
	}
	p.command(t, n.Get("cmd"), n.Get("args"), nil)
	p.resources(t, n)
	if disk, ok := n.Get("disk").Float(); ok && disk >= 1 {
		p.s.EphemeralDisk = int(math.Ceil(disk))
	}
	p.networks(n, container, docker)
	p.ports(n, container, docker)
	p.dockerOptions(t, container, docker)
	p.env(t, n.Get("env"), n.Get("secrets"))
	p.volumes(t, container)
	p.fetch(t, n.Get("fetch"), n.Get("uris"))
	switch user := n.Get("user"); {
	case user == nil:
	case t.Driver == "exec" || kind == "MESOS":
		t.User = importer.Lit(user.Text())
	default:
		user.Drop("the user that starts Docker's command, and not that of the container")
	}
	if n.Get("tty").Bool() {
		setting(t, "tty", "true")
	}
	p.health(t, n.Get("healthChecks"), n.Get("readinessChecks"))
	p.placement(n.Get("constraints"), n.Get("acceptedResourceRoles"))
	p.upgrade(n.Get("upgradeStrategy"))
	p.backoff(n.Get("backoffSeconds"), n.Get("backoffFactor"), n.Get("maxLaunchDelaySeconds"))
	p.grace(t, n.Get("taskKillGracePeriodSeconds"))
	p.labels(n.Get("labels"))
	for _, s := range n.Get("secrets").Fields() {
		s.Get("source").Take()
		s.Fields()
	}
	p.linuxInfo(t, container.Get("linuxInfo"))
	container.Get("appc").Refuse("needs-image", fmt.Sprintf("%s has an image of appc, which Docker does not run", p.id), fmt.Sprintf("Say --image %s=REF with a Docker image. Allowed, its command runs without an image.", p.label))
	limits := n.Get("resourceLimits")
	if v, ok := limits.Get("cpus").Float(); ok {
		t.Resources.CoresLimit = v
	}
	if v, ok := limits.Get("mem").Float(); ok {
		t.Resources.MemoryMax = int(math.Ceil(v))
	}
	for _, v := range limits.Fields() {
		v.Drop("unlimited is the same without a limit")
	}
}

// linuxInfo maps the security options of a container.
func (p *part) linuxInfo(t *importer.Task, n *importer.Node) {
	n.Get("seccomp", "profileName").Warn("needs-client", "a seccomp profile is a file of the nodes", "Write security_opt = [\"seccomp=FILE\"] into the config of the task.")
	if n.Get("seccomp", "unconfined").Bool() {
		setting(t, "security_opt", `["seccomp=unconfined"]`)
	}
	if v, ok := n.Get("ipcInfo", "shmSize").Int(); ok && v > 0 && v < 1<<20 {
		setting(t, "shm_size", fmt.Sprint(v<<20))
	}
	if mode := n.Get("ipcInfo", "mode"); strings.EqualFold(mode.Text(), "SHARE_PARENT") {
		mode.Warn("unsupported", "the tasks of a group have namespaces of their own for IPC", "Set ipc_mode in the config of the tasks, if they need one another's.")
	}
}

func (p *part) count(n *importer.Node) {
	if v, ok := n.Int(); ok {
		count := int(v)
		p.s.Count = &count
	}
}

// program is a task without an image.
func (p *part) program(t *importer.Task, n *importer.Node) {
	t.Driver = "exec"
	at := n.Get("cmd").Pos()
	if at.Line == 0 {
		at = n.Pos()
	}
	p.ledger.Warn(at, "exec-driver", fmt.Sprintf("%s runs a command of the node; Nomad's exec driver shows it a part of the node's files only", p.id), "Set driver = \"raw_exec\" in the task if it needs more, or use an image.")
}

func (p *part) image(t *importer.Task, docker *importer.Node) {
	ref := docker.Get("image").Text()
	if given := p.src.Images[p.label]; given != "" {
		ref = given
	}
	if strings.ContainsAny(ref, " <>{}$") || ref == "" {
		docker.Get("image").Refuse("needs-image", fmt.Sprintf("%q of %s is no reference of an image", ref, p.id), fmt.Sprintf("Say --image %s=REF.", p.label))
	}
	t.Image, t.ImageRef = importer.Lit(ref), ref
	pull := docker.Get("forcePullImage").Bool()
	pull = docker.Get("forcePull").Bool() || pull
	if pull {
		setting(t, "force_pull", "true")
	}
	docker.Get("pullConfig").Warn("registry-auth", "the credentials of the registry are a secret of DC/OS", "Configure auth in the docker plugin of the clients.")
	docker.Get("credential").Warn("registry-auth", "the credentials of the registry are those of Mesos", "Configure auth in the docker plugin of the clients.")
}

// command maps cmd, which a shell runs, or args. argv is a pod's.
func (p *part) command(t *importer.Task, cmd, args, argv *importer.Node) {
	shell := cmd.Text()
	switch {
	case shell != "" && t.Driver == "exec":
		t.Command = importer.Lit("/bin/sh")
		t.Args = importer.Lits([]string{"-c", "cd \"$NOMAD_TASK_DIR\" || exit 1\n" + shell})
	case shell != "":
		t.Entrypoint, t.Args = importer.Lits([]string{"/bin/sh"}), importer.Lits([]string{"-c", shell})
	}
	var words []string
	for _, n := range append(args.Items(), argv.Items()...) {
		if shell == "" {
			words = append(words, n.Text())
		} else {
			n.Warn(importer.RuleNotImported, "cmd is used, and args beside it is not", "Remove one of them.")
		}
	}
	switch {
	case len(words) == 0:
		if shell == "" && t.Driver == "exec" {
			p.ledger.Refuse(p.node.Pos(), importer.RuleInvalid, fmt.Sprintf("%s has neither an image nor a command", p.id), "Add cmd or container.docker.image.")
		}
	case t.Driver == "exec":
		t.Command, t.Args = importer.Lit(words[0]), importer.Lits(words[1:])
	default:
		t.Args = importer.Lits(words)
	}
}

func (p *part) resources(t *importer.Task, n *importer.Node) {
	if v, ok := n.Get("cpus").Float(); ok {
		t.Resources.Cores = v
	}
	if v, ok := n.Get("mem").Float(); ok {
		t.Resources.Memory = int(math.Ceil(v))
	}
	if v, ok := n.Get("gpus").Int(); ok && v > 0 {
		t.Resources.Devices = append(t.Resources.Devices, importer.Device{Name: "nvidia/gpu", Count: int(v)})
		n.Get("gpus").Warn("device", "GPUs need the plugin nomad-device-nvidia on the clients", "Install it there.")
	}
}

// networks finds the mode of the network.
func (p *part) networks(n, container, docker *importer.Node) {
	mode := ""
	if old := docker.Get("network"); old != nil {
		mode = strings.ToUpper(old.Text())
	}
	for _, net := range n.Get("networks").Items() {
		mode = strings.ToUpper(net.Get("mode").Text())
		net.Get("name").Warn("network-address", "the network of this name is Mesos'; on Nomad it is the bridge of the node", "Remove it.")
		net.Get("labels").Drop("labels of a network have no effect")
	}
	if ip := n.Get("ipAddress"); ip.Exists() {
		mode = "CONTAINER"
		ip.Get("networkName").Warn("network-address", "the network of this name is Mesos'; on Nomad it is the bridge of the node", "Remove it.")
		ip.Get("groups").Warn("no-isolation", "groups of networks do not keep services apart on Nomad", "Use the firewall of the nodes.")
		ip.Get("labels").Drop("labels of a network have no effect")
		ip.Get("discovery").Fields()
	}
	switch mode {
	case "HOST":
		p.s.Network = "host"
	case "NONE":
		p.s.Network = "none"
	case "":
		p.s.Network = "host"
		if container.Get("portMappings") != nil || docker.Get("portMappings") != nil {
			p.s.Network = ""
		}
	}
}

// protocols are the protocols of a port: a text such as tcp,udp or a list.
func protocols(n *importer.Node) []string {
	var out []string
	for _, c := range n.Items() {
		out = append(out, strings.ToLower(c.Text()))
	}
	if n != nil && n.Kind == importer.Scalar {
		out = strings.Split(strings.ToLower(n.Text()), ",")
	}
	if len(out) == 0 {
		out = []string{"tcp"}
	}
	return out
}

// ports maps the ports of the container, or those of the node.
func (p *part) ports(n, container, docker *importer.Node) {
	required := n.Get("requirePorts").Bool()
	docker.Get("requirePorts").Drop("requirePorts belongs to the app, where it has an effect")
	index := 0
	for _, at := range []*importer.Node{container.Get("portMappings"), docker.Get("portMappings")} {
		for _, m := range at.Items() {
			number, _ := m.Get("containerPort").Int()
			host, _ := m.Get("hostPort").Int()
			service, _ := m.Get("servicePort").Int()
			p.port(m, index, int(number), int(host), int(service), protocols(m.Get("protocol")))
			index++
		}
	}
	for _, d := range n.Get("ipAddress", "discovery", "ports").Items() {
		number, _ := d.Get("number").Int()
		p.port(d, index, int(number), 0, 0, protocols(d.Get("protocol")))
		index++
	}
	declared := index > 0
	for _, d := range n.Get("portDefinitions").Items() {
		number, _ := d.Get("port").Int()
		if declared {
			d.Get("protocol").Take()
			d.Get("name").Take()
			d.Drop("the ports of the container count")
			continue
		}
		p.nodePort(d, index, int(number), required, protocols(d.Get("protocol")))
		index++
	}
	for _, d := range n.Get("ports").Items() {
		number, _ := d.Int()
		if declared || n.Get("portDefinitions").Exists() {
			d.Drop("the other list of ports counts")
			continue
		}
		p.nodePort(d, index, int(number), required, []string{"tcp"})
		index++
	}
}

// port adds a port of the container.
func (p *part) port(m *importer.Node, index, number, host, service int, protos []string) {
	label := p.portLabel(m, index)
	dynamic := number == 0
	if dynamic && host != 0 {
		number, dynamic = host, false
	}
	if dynamic {
		number = cmp.Or(service, 10000+index)
	}
	for _, proto := range protos {
		port := importer.Port{Number: number, Label: label, UDP: proto == "udp", Static: host, Dynamic: dynamic, At: m.Pos()}
		if host != 0 {
			port.Listen = host
		}
		if port.UDP && host != 0 {
			m.Get("hostPort").Warn("udp-static", fmt.Sprintf("UDP port %d is a static port of the node", host), "One instance fits on a node.")
		}
		p.virtual(m, &port)
		p.s.Ports = append(p.s.Ports, port)
	}
	if service > 0 {
		p.publish(m.Get("servicePort"), service, number)
	}
}

// nodePort adds a port that the program opens on the node.
func (p *part) nodePort(m *importer.Node, index, number int, required bool, protos []string) {
	for _, proto := range protos {
		port := importer.Port{Number: cmp.Or(number, 10000+index), Label: p.portLabel(m, index), UDP: proto == "udp", At: m.Pos()}
		if required && number > 0 || p.s.Network == "" && number > 0 {
			port.Static = number
		} else {
			port.Dynamic = true
		}
		p.virtual(m, &port)
		p.s.Ports = append(p.s.Ports, port)
	}
	if number > 0 && !required {
		p.publish(cmp.Or(m.Get("port"), m), number, number)
	}
}

// publish makes a service port one of every node, if Marathon-LB reads the app.
func (p *part) publish(m *importer.Node, service, target int) {
	if group := p.node.Get("labels", "HAPROXY_GROUP"); group != nil {
		p.m.Published = append(p.m.Published, importer.Published{Port: service, Service: p.label, Target: target, At: m.Pos()})
		return
	}
	m.Drop("a service port is for Marathon-LB, which needs the label HAPROXY_GROUP")
}

var labelText = regexp.MustCompile(`[^a-z0-9_]+`)

func (p *part) portLabel(m *importer.Node, index int) string {
	label := labelText.ReplaceAllString(strings.ToLower(m.Get("name").Text()), "_")
	if label == "" || label[0] >= '0' && label[0] <= '9' || slices.ContainsFunc(p.s.Ports, func(o importer.Port) bool { return o.Label == label }) {
		label = fmt.Sprintf("port%d", index)
	}
	return label
}

// virtual maps the labels of a port: VIP_n = "/name:port" is a name of it.
func (p *part) virtual(m *importer.Node, port *importer.Port) {
	for _, l := range m.Get("labels").Fields() {
		if !strings.HasPrefix(strings.ToLower(l.Key), "vip") {
			l.Drop("labels of a port have no effect")
			continue
		}
		host, number, ok := strings.Cut(l.Text(), ":")
		listen, err := strconv.Atoi(number)
		if !ok || err != nil || !strings.HasPrefix(host, "/") {
			l.Warn("network-address", fmt.Sprintf("the virtual address %s has no name", l.Peek()), "Use the name of the app.")
			continue
		}
		port.Listen = listen
		name := importer.DNSName(strings.Trim(host, "/"))
		for _, domain := range []string{".marathon.l4lb.thisdcos.directory", ".l4lb.thisdcos.directory"} {
			p.host(name + domain)
		}
	}
}

// archive matches what the fetcher of Mesos unpacks.
var archive = regexp.MustCompile(`\.(tar|tgz|tar\.gz|tbz2|tar\.bz2|txz|tar\.xz|zip)$`)

// fetch maps the files that Mesos downloads into the sandbox.
func (p *part) fetch(t *importer.Task, fetch, uris *importer.Node) {
	add := func(n *importer.Node, uri, dest string, extract, executable bool) {
		if strings.HasSuffix(uri, "docker.tar.gz") || strings.HasSuffix(uri, ".dockercfg") {
			n.Warn("registry-auth", "the credentials of the registry are a file of the nodes", "Configure auth in the docker plugin of the clients.")
			return
		}
		u, err := url.Parse(uri)
		if err != nil || !slices.Contains([]string{"http", "https", "ftp", "s3", "git"}, u.Scheme) {
			n.Warn("unsupported", fmt.Sprintf("Nomad cannot download %s", uri), "Put the file on an HTTP server, or into the image.")
			return
		}
		a := importer.Artifact{Source: uri, Destination: path.Join("local", dest)}
		switch {
		case executable:
			a.Mode = "file"
			a.Destination = path.Join("local", cmp.Or(dest, path.Base(u.Path)))
		case dest != "" && extract && archive.MatchString(u.Path): // Mesos unpacks it beside the file
			a.Destination = path.Join("local", path.Dir(dest))
		case dest != "":
			a.Mode = "file"
		case !extract:
			q := u.Query()
			q.Set("archive", "false")
			u.RawQuery = q.Encode()
			a.Source = u.String()
		}
		t.Artifacts = append(t.Artifacts, a)
	}
	for _, n := range uris.Items() {
		add(n, n.Text(), "", true, false)
	}
	for _, n := range fetch.Items() {
		n.Get("cache").Drop("Nomad keeps no cache of downloads")
		extract := n.Get("extract") == nil || n.Get("extract").Bool()
		add(n.Get("uri"), n.Get("uri").Text(), n.Get("destPath").Text(), extract, n.Get("executable").Bool())
	}
	if len(t.Artifacts) > 0 && t.Driver != "exec" {
		t.Mounts = append(t.Mounts, importer.Mount{Kind: "local", Target: p.sandbox(t)})
	}
}

func seconds(n *importer.Node, standard time.Duration) time.Duration {
	if v, ok := n.Float(); ok {
		return time.Duration(v * float64(time.Second))
	}
	return standard
}

// health maps health checks and readiness checks.
func (p *part) health(t *importer.Task, checks, ready *importer.Node) {
	for _, n := range checks.Items() {
		c := importer.Check{Task: t.Name, Path: cmp.Or(n.Get("path").Text(), "/")}
		switch protocol := strings.TrimPrefix(cmp.Or(strings.ToUpper(n.Get("protocol").Text()), "HTTP"), "MESOS_"); protocol {
		case "HTTP", "HTTPS":
			if c.Type = "http"; protocol == "HTTPS" {
				c.Protocol = "https"
			}
		case "TCP":
			c.Type = "tcp"
		case "COMMAND":
			c.Type, c.Command = "script", "/bin/sh"
			c.Args = []string{"-c", n.Get("command", "value").Text()}
		default:
			n.Get("protocol").Refuse("health", fmt.Sprintf("%s is no protocol of a health check", protocol), "Use HTTP, HTTPS, TCP or COMMAND.")
		}
		if v, ok := n.Get("port").Int(); ok {
			c.Port = int(v)
		}
		index, ok := n.Get("portIndex").Int()
		if c.Port == 0 && (ok || c.Type != "script") && int(index) < len(p.s.Ports) && index >= 0 {
			c.Port = p.s.Ports[index].Number
		} else if ok && c.Port == 0 {
			n.Get("portIndex").Warn("health", fmt.Sprintf("the check of %s asks port %d of the app, which has %d", p.id, index, len(p.s.Ports)), "Correct portIndex. It asks the first one now.")
		}
		c.Interval = seconds(n.Get("intervalSeconds"), time.Minute)
		c.Timeout = seconds(n.Get("timeoutSeconds"), 20*time.Second)
		c.Grace = seconds(n.Get("gracePeriodSeconds"), 5*time.Minute) + seconds(n.Get("delaySeconds"), 0)
		c.Restart = 3
		if v, ok := n.Get("maxConsecutiveFailures").Int(); ok {
			c.Restart = int(v)
		}
		n.Get("ignoreHttp1xx").Drop("Consul waits for the final answer of a request")
		n.Get("ipProtocol").Warn("health", "Consul checks the address of the allocation", "Remove it.")
		p.addCheck(n, c)
	}
	for _, n := range ready.Items() {
		c := importer.Check{Type: "http", Path: cmp.Or(n.Get("path").Text(), "/"), Interval: seconds(n.Get("intervalSeconds"), 30*time.Second), Timeout: seconds(n.Get("timeoutSeconds"), 10*time.Second)}
		if strings.EqualFold(n.Get("protocol").Text(), "HTTPS") {
			c.Protocol = "https"
		}
		name := n.Get("portName").Text()
		for _, port := range p.s.Ports {
			if port.Label == labelText.ReplaceAllString(strings.ToLower(name), "_") {
				c.Port = port.Number
			}
		}
		if name != "" && c.Port == 0 {
			n.Get("portName").Warn("health", fmt.Sprintf("the readiness check of %s asks the port %s, which the app does not have", p.id, name), "Correct portName. It asks the first port now.")
		}
		n.Get("name").Drop("a check of Consul has the name of its kind")
		n.Get("preserveLastResponse").Drop("Consul keeps the last answer of a check")
		if codes := n.Get("httpStatusCodesForReady"); len(codes.Items()) != 1 || codes.Items()[0].Peek() != "200" {
			codes.Warn("health", "Consul takes every status from 200 to 299 for healthy", "Answer with another status until the service is ready.")
		} else {
			codes.Take()
		}
		p.addCheck(n, c)
	}
	if len(p.s.Checks) == 0 && (p.s.Network == "host" || slices.ContainsFunc(p.s.Ports, func(o importer.Port) bool { return o.Dynamic })) {
		p.s.NoCheck = true // Marathon gives a port to each app, whether it listens or not
	}
}

func (p *part) addCheck(n *importer.Node, c importer.Check) {
	tcp := slices.ContainsFunc(p.s.Ports, func(o importer.Port) bool { return !o.UDP })
	if c.Type != "script" && !tcp {
		if c.Port == 0 {
			n.Warn("health", fmt.Sprintf("the check of %s asks a port that the app does not declare", p.id), "Add the port to the app.")
			return
		}
		p.s.Ports = append(p.s.Ports, importer.Port{Number: c.Port, Reason: "From the health check.", At: n.Pos()})
	}
	p.s.Checks = append(p.s.Checks, c)
	if deadline := c.Grace + 4*c.Interval; deadline > 5*time.Minute {
		progress := 2 * deadline
		p.update().HealthyDeadline, p.update().ProgressDeadline = &deadline, &progress
	}
}

func (p *part) update() *importer.Update {
	if p.s.Update == nil {
		p.s.Update = &importer.Update{}
	}
	return p.s.Update
}

// upgrade maps the upgrade strategy: the share of instances that stay, and that of
// those that may start beside them.
func (p *part) upgrade(n *importer.Node) {
	if !n.Exists() {
		return
	}
	minimum, over := 1.0, 1.0
	if v, ok := n.Get("minimumHealthCapacity").Float(); ok {
		minimum = v
	}
	if v, ok := n.Get("maximumOverCapacity").Float(); ok {
		over = v
	}
	count := 1
	if p.s.Count != nil {
		count = *p.s.Count
	}
	canary := min(count, int(math.Ceil(float64(count)*over)))
	parallel := max(1, count-int(math.Floor(float64(count)*minimum)))
	promote := canary > 0
	if canary == count && count == 1 && parallel == 1 {
		return // as the base has it
	}
	u := p.update()
	u.Canary, u.AutoPromote, u.MaxParallel = &canary, &promote, &parallel
}

func (p *part) backoff(delay, factor, most *importer.Node) {
	if d := seconds(delay, 0); d > time.Second {
		p.s.Restart = &importer.Restart{Attempts: 20, Interval: max(5*time.Minute, 21*d), Delay: d, Mode: "delay"}
	}
	factor.Drop("Nomad waits equally long before each restart")
	most.Drop("Nomad waits equally long before each restart")
}

func (p *part) grace(t *importer.Task, n *importer.Node) {
	if d := seconds(n, 0); d > 0 {
		if t.KillTimeout = d; d > 30*time.Second {
			n.Warn("kill-timeout", fmt.Sprintf("%s is longer than the clients' max_kill_timeout by default", d), "Raise max_kill_timeout of the clients.")
		}
	}
}

// attribute is the attribute of a Nomad node for a field of a constraint.
func attribute(field string) (name string, meta bool) {
	switch field {
	case "hostname", "@hostname":
		return "${node.unique.name}", false
	case "@zone":
		return "${meta.zone}", true
	case "@region":
		return "${node.region}", false
	}
	return "${meta." + field + "}", true
}

var regexpText = regexp.MustCompile(`[\\.*+?()\[\]{}|^$]`)

func (p *part) placement(constraints, roles *importer.Node) {
	for _, n := range constraints.Items() {
		var words []string
		if n.Kind == importer.Map { // of pods
			words = []string{n.Get("fieldName").Text(), n.Get("operator").Text()}
			if v := n.Get("value"); v.Exists() {
				words = append(words, v.Text())
			}
		}
		for _, c := range n.Items() {
			words = append(words, c.Text())
		}
		if len(words) < 2 {
			n.Refuse(importer.RuleInvalid, "a constraint has a field and an operator", "Write [FIELD, OPERATOR] or [FIELD, OPERATOR, VALUE].")
			continue
		}
		p.constraint(n, words[0], strings.ToUpper(words[1]), strings.Join(words[2:], " "))
	}
	var names []string
	for _, n := range roles.Items() {
		names = append(names, n.Text())
	}
	if len(names) > 0 && !slices.Contains(names, "*") {
		p.s.Constraints = append(p.s.Constraints, importer.Constraint{Attribute: "${meta.role}", Operator: "set_contains_any", Value: strings.Join(names, ",")})
		roles.Warn("node-meta", "the role of Mesos becomes the value role in the meta of the nodes", "Write role into meta of the clients, or remove the constraint.")
	}
}

func (p *part) constraint(n *importer.Node, field, operator, value string) {
	name, meta := attribute(field)
	add := func(operator, value string) {
		p.s.Constraints = append(p.s.Constraints, importer.Constraint{Attribute: name, Operator: operator, Value: value})
	}
	switch operator {
	case "UNIQUE":
		if name == "${node.unique.name}" {
			p.s.Constraints = append(p.s.Constraints, importer.Constraint{Operator: "distinct_hosts", Value: "true"})
		} else {
			add("distinct_property", "1")
		}
	case "CLUSTER", "IS":
		if value == "" {
			n.Warn("unsupported", fmt.Sprintf("all instances on one %s, whichever it is, cannot be said on Nomad", field), "Name the value in a constraint block.")
			return
		}
		add("", value)
	case "GROUP_BY":
		p.s.Spreads = append(p.s.Spreads, name)
	case "MAX_PER":
		add("distinct_property", value)
	case "LIKE":
		add("regexp", "^(?:"+value+")$")
	case "UNLIKE":
		if regexpText.MatchString(value) {
			n.Warn("unsupported", "Nomad cannot require that a value does not match a pattern", "Name the values in constraint blocks with the operator !=.")
			return
		}
		add("!=", value)
	default:
		n.Refuse(importer.RuleInvalid, fmt.Sprintf("%s is no operator of a constraint", operator), "Use UNIQUE, CLUSTER, GROUP_BY, LIKE, UNLIKE, MAX_PER or IS.")
		return
	}
	if meta {
		n.Warn("node-meta", fmt.Sprintf("the constraint reads %s of the nodes", name), "Write it into meta of the clients.")
	}
}
