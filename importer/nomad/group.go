package nomad

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Minimums and defaults of Nomad.
const (
	minMemory   = 10
	defaultDisk = 300
	defaultLogs = 10 // files, and MB of each
)

func (u *upgrader) group(group *item, job string) {
	b := group.body
	u.asBlocks(b, "task", "constraint", "affinity", "spread", "restart", "reschedule", "migrate", "ephemeral_disk", "update", "vault", "network", "service", "volume", "scaling")
	u.single(b, []string{"restart", "reschedule", "migrate", "ephemeral_disk", "update", "vault", "network"}, "meta")
	u.placement(b)
	u.vault(b)
	u.restart(b)
	u.disconnect(b)
	for _, s := range b.blocks("service") {
		u.service(s, job+"-"+group.label(0))
	}
	if n := b.block("network"); n != nil {
		u.network(n)
	}
	tasks := b.blocks("task")
	for _, t := range tasks {
		u.task(t, job+"-"+group.label(0)+"-"+t.label(0))
	}
	u.ports(group, tasks)
	if u.whole {
		u.missing(group, tasks)
	}
	u.disk(b, tasks)
}

func (u *upgrader) restart(b *body) {
	r := b.block("restart")
	if r == nil || b.block("reschedule") != nil {
		return
	}
	if i := r.body.attr("mode"); i != nil {
		if s, _ := i.value.scalar(); s == "fail" && u.old {
			u.warn(i.name, "restart", "since Nomad 0.8, a task that failed for good is started on another node", "Add reschedule { attempts = 0, unlimited = false } to the group if it must not be.")
		}
	}
}

// disconnect moves attributes that Nomad ignores since 1.10 into the block disconnect.
func (u *upgrader) disconnect(b *body) {
	for _, x := range [][2]string{{"stop_after_client_disconnect", "stop_on_client_after"}, {"max_client_disconnect", "lost_after"}, {"prevent_reschedule_on_lost", "replace"}} {
		i := b.attr(x[0])
		if i == nil {
			continue
		}
		value := i.value
		if x[1] == "replace" {
			switch s, _ := value.scalar(); s {
			case "true":
				value = literal(i.name, "false")
			case "false":
				value = literal(i.name, "true")
			default:
				value = &expr{tokens: append([]token{{kind: tokPunct, text: "!", line: i.name.line, col: i.name.col}}, value.tokens...)}
			}
		}
		block := b.block("disconnect")
		if block == nil {
			block = newBlock(i.name, "disconnect")
			b.insert("task", block)
		}
		if block.body.attr(x[1]) == nil {
			block.body.items = append(block.body.items, &item{name: token{kind: tokIdent, text: x[1], line: i.name.line, col: i.name.col}, value: value})
		}
		u.change(i.name, "%s is %s of disconnect", x[0], x[1])
		b.remove(i)
	}
}

func (u *upgrader) task(task *item, name string) {
	b := task.body
	u.asBlocks(b, "constraint", "affinity", "artifact", "template", "resources", "logs", "service", "vault", "dispatch_payload", "config", "restart", "lifecycle", "volume_mount")
	u.single(b, []string{"resources", "logs", "vault", "dispatch_payload", "restart", "lifecycle"}, "env", "meta", "config")
	u.placement(b)
	u.vault(b)
	names := map[string]*item{}
	for _, s := range b.blocks("service") {
		given := ""
		if i := s.body.attr("name"); i != nil {
			given = i.value.String()
		}
		u.service(s, name)
		if other := names[given]; other != nil && given == "" {
			u.refuse(s.name, fmt.Sprintf("two services of the task %s have no name (the other is in line %d)", task.label(0), other.name.line), "Name them.")
		}
		names[given] = s
	}
	for _, a := range b.blocks("artifact") {
		u.asBlocks(a.body, "options", "headers")
	}
	for _, t := range b.blocks("template") {
		u.drop(t.body, "vault_grace", "Nomad ignores it")
	}
	if i := b.attr("kill_timeout"); i != nil {
		if s, ok := i.value.text(); ok {
			if d, err := time.ParseDuration(s); err == nil && d > 30*time.Second {
				u.warn(i.name, "kill-timeout", "kill_timeout is "+s, "Raise max_kill_timeout on the clients.")
			}
		}
	}
	u.driver(task)
	if r := b.block("resources"); r != nil {
		u.resources(b, r)
	}
}

// pluginDrivers are drivers that Nomad itself does not have.
var pluginDrivers = []string{"lxc", "podman", "ecs", "nomad-driver-podman", "containerd-driver", "pot", "firecracker-task-driver"}

func (u *upgrader) driver(task *item) {
	i := task.body.attr("driver")
	if i == nil {
		return
	}
	name, _ := i.value.text()
	config := task.body.block("config")
	switch {
	case name == "rkt":
		u.refuse(i.name, "Nomad has no driver rkt since 0.11", `Write driver = "docker" with an image of a registry.`)
	case name == "raw_exec":
		u.warn(i.name, "needs-client", "raw_exec is off by default", `Write plugin "raw_exec" { config { enabled = true } } into the configuration of the clients.`)
	case slices.Contains(pluginDrivers, name):
		u.warn(i.name, "needs-client", "the driver "+name+" is a plugin that is not a part of Nomad", "Install it on the clients.")
	}
	if config == nil {
		return
	}
	c := config.body
	u.lists(c, "args", "volumes", "dns_servers", "dns_search_domains", "dns_options", "cap_add", "cap_drop", "security_opt", "extra_hosts", "network_aliases", "jvm_options", "entrypoint", "ports")
	if name != "docker" {
		return
	}
	u.drop(c, "ssl", "Nomad speaks TLS with every registry")
	image := c.attr("image")
	if text, ok := "", false; image != nil {
		if text, ok = image.value.text(); ok && text == "" {
			u.refuse(image.name, "the image is empty", "Name the image.")
		}
	} else if u.whole && c.attr("load") == nil {
		u.refuse(config.name, "the docker task "+task.label(0)+" has no image", "Name the image.")
	}
	for _, x := range c.items {
		if !slices.Contains(dockerKeys, x.key()) {
			u.refuse(x.name, "the docker driver knows no "+x.key(), "Correct or remove it.")
		}
	}
	if v := c.attr("volumes"); v != nil {
		for _, t := range v.value.tokens {
			if t.kind == tokString && strings.HasPrefix(unquote(t.text), "/") {
				u.warn(t, "host-path", "the path "+t.text+" of the node is mounted", "Write volumes { enabled = true } into the docker plugin of the clients.")
			}
		}
	}
	if p := c.attr("privileged"); p != nil {
		if s, _ := p.value.scalar(); s == "true" {
			u.warn(p.name, "needs-client", "the container is privileged", "Write allow_privileged = true into the docker plugin of the clients.")
		}
	}
}

// dockerKeys are the keys of the docker driver's configuration in Nomad 1.11.
var dockerKeys = strings.Fields(`image advertise_ipv6_address args auth auth_soft_fail cap_add cap_drop cgroupns command
	container_exists_attempts cpuset_cpus cpu_hard_limit cpu_cfs_period devices dns_search_domains dns_options dns_servers
	entrypoint extra_hosts force_pull group_add healthchecks hostname init interactive ipc_mode ipv4_address ipv6_address
	isolation labels load logging mac_address memory_hard_limit mount mounts network_aliases network_mode oom_score_adj
	pids_limit pid_mode ports port_map privileged image_pull_timeout readonly_rootfs runtime security_opt shm_size storage_opt
	sysctl tty ulimit uts_mode userns_mode volumes volume_driver work_dir`)

func (u *upgrader) resources(task *body, r *item) {
	b := r.body
	u.asBlocks(b, "network", "device")
	u.single(b, []string{"network"})
	u.drop(b, "iops", "Nomad ignores it")
	for name, least := range map[string]int{"cpu": 1, "memory": minMemory} {
		if n, ok := number(b.attr(name)); ok && n < least {
			i := b.attr(name)
			u.warn(i.name, "minimum", fmt.Sprintf("%s = %d is less than Nomad takes; it is %d", name, n, least), "")
			i.value = literal(i.value.tokens[0], strconv.Itoa(least))
			u.change(i.name, "%s is %d, the least that Nomad takes", name, least)
		}
	}
	if n := b.block("network"); n != nil {
		u.network(n)
	}
}

var portLabel = regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)

// network rewrites a network of a task or a group.
func (u *upgrader) network(n *item) {
	b := n.body
	u.asBlocks(b, "port", "dns")
	u.drop(b, "mbits", "Nomad ignores it since 0.12")
	for _, name := range []string{"device", "cidr", "ip"} {
		u.drop(b, name, "the configuration of the clients names the network")
	}
	for _, name := range []string{"reserved_ports", "dynamic_ports"} {
		i := b.attr(name)
		if i == nil {
			continue
		}
		at := slices.Index(b.items, i)
		var ports []*item
		for _, t := range i.value.tokens {
			if t.kind != tokNumber && t.kind != tokString {
				continue
			}
			label := strings.Trim(t.text, `"`)
			port := &item{name: token{kind: tokIdent, text: "port", line: t.line, col: t.col}, body: &body{}}
			if name == "reserved_ports" {
				port.body.items = []*item{newAttr(t, "static", label)}
				label = "p" + label
			}
			port.labels = []token{{kind: tokString, text: `"` + label + `"`, line: t.line, col: t.col}}
			ports = append(ports, port)
		}
		if len(ports) > 0 {
			ports[0].lead, ports[len(ports)-1].trail = i.lead, i.trail
		}
		b.items = slices.Replace(b.items, at, at+1, ports...)
		u.change(i.name, "%s is a port block for each port", name)
	}
	seen := map[string]*item{}
	for _, p := range b.blocks("port") {
		label := p.label(0)
		if len(p.labels) != 1 || !portLabel.MatchString(label) {
			u.refuse(p.name, fmt.Sprintf("%q is no label of a port", label), "Name it with letters, digits and _.")
		}
		if other := seen[strings.ToLower(label)]; other != nil {
			u.refuse(p.name, fmt.Sprintf("the ports %s and %s (line %d) have one name", label, other.label(0), other.name.line), "Rename one of them: the names of their variables do not differ.")
		}
		seen[strings.ToLower(label)] = p
		for _, name := range []string{"static", "to"} {
			if i := p.body.attr(name); i != nil {
				if s, ok := i.value.text(); ok {
					if _, err := strconv.Atoi(s); err == nil {
						i.value = literal(i.value.tokens[0], s)
						u.change(i.name, "%s is a number", name)
					}
				}
			}
		}
	}
}

// taskPorts are the ports of a task.
type taskPorts struct {
	task    *item
	network *item // of its resources, nil if it has none
	ports   []*item
	renamed map[string]string
}

// ports moves the networks of the tasks into the group, and the port_map of docker into
// their ports.
func (u *upgrader) ports(group *item, tasks []*item) {
	b := group.body
	var all []*taskPorts
	found := false
	count := map[string]int{}
	for _, t := range tasks {
		p := &taskPorts{task: t, renamed: map[string]string{}}
		if r := t.body.block("resources"); r != nil {
			p.network = r.body.block("network")
		}
		config := t.body.block("config")
		if d, _ := driverOf(t); d == "qemu" && config != nil && (config.body.block("port_map") != nil || config.body.attr("port_map") != nil) && p.network != nil {
			u.warn(p.network.name, "unsupported", "the port_map of qemu works only with a network in the task, which is deprecated since Nomad 0.12", "")
			return
		}
		if p.network != nil {
			found = true
			p.ports = p.network.body.blocks("port")
			own := map[string]bool{}
			for _, x := range p.ports {
				if label := strings.ToLower(x.label(0)); !own[label] {
					own[label] = true
					count[label]++
				}
			}
		}
		all = append(all, p)
	}
	target := b.block("network")
	if found && target == nil {
		target = newBlock(group.name, "network")
		b.insert("task", target)
		if at := slices.Index(b.items, target); at+1 < len(b.items) {
			b.items[at+1].blank = true
		}
	}
	for _, p := range all {
		if p.network == nil {
			continue
		}
		r := p.task.body.block("resources")
		target.name.line, target.name.col = p.network.name.line, p.network.name.col
		for _, x := range p.ports {
			label := x.label(0)
			if count[strings.ToLower(label)] < 2 {
				continue
			}
			now := strings.ReplaceAll(p.task.label(0), "-", "_") + "_" + label
			p.renamed[label] = now
			x.labels[0].text = `"` + now + `"`
			u.change(x.name, "the port %s of the task %s is %s, because another task has one of this name", label, p.task.label(0), now)
			u.warn(x.name, "renamed", fmt.Sprintf("the port %s is %s in the environment of the task %s: NOMAD_PORT_%s", label, now, p.task.label(0), now), "Change programs that read the old name.")
		}
		u.change(p.network.name, "the network of the task %s is in the group", p.task.label(0))
		target.lead = append(target.lead, p.network.lead...)
		target.opened = append(target.opened, p.network.opened...)
		for _, x := range p.network.body.items {
			if x.value != nil && target.body.attr(x.key()) != nil {
				continue
			}
			target.body.items = append(target.body.items, x)
		}
		target.body.tail = append(target.body.tail, p.network.body.tail...)
		p.network.lead = nil
		r.body.remove(p.network)
		if len(r.body.items)+len(r.body.tail) == 0 {
			p.task.body.remove(r)
		}
	}
	for _, p := range all {
		u.mapped(p, target)
		u.names(p, all)
	}
}

// missing adds ports that a service names and no network has, which the parser of Nomad
// accepted.
func (u *upgrader) missing(group *item, tasks []*item) {
	known := map[string]bool{}
	group.body.walk(func(i *item) {
		if i.body != nil && i.key() == "port" {
			known[i.label(0)] = true
		}
	})
	services := slices.Clone(group.body.blocks("service"))
	for _, t := range tasks {
		services = append(services, t.body.blocks("service")...)
	}
	for _, s := range services {
		(&body{items: []*item{s}}).walk(func(i *item) {
			label, ok := "", false
			if i.value != nil && i.key() == "port" {
				label, ok = i.value.text()
			}
			if _, err := strconv.Atoi(label); !ok || err == nil || known[label] || !portLabel.MatchString(label) {
				return
			}
			known[label] = true
			network := group.body.block("network")
			if network == nil {
				network = newBlock(i.name, "network")
				group.body.insert("task", network)
			}
			port := newBlock(i.name, "port")
			port.blank, port.labels = false, []token{{kind: tokString, text: strconv.Quote(label)}}
			network.body.items = append(network.body.items, port)
			u.change(i.name, "the group has the port %s", label)
			u.warn(i.name, "twice", "the service names the port "+label+", which no network has; the group has it now, with a number that the node gives", "Say which port of the container it is, with to.")
		})
	}
}

func driverOf(task *item) (string, bool) {
	i := task.body.attr("driver")
	if i == nil {
		return "", false
	}
	return i.value.text()
}

// mapped moves the port_map of a docker task into the ports of its group.
func (u *upgrader) mapped(p *taskPorts, network *item) {
	config := p.task.body.block("config")
	if d, _ := driverOf(p.task); d != "docker" || config == nil {
		return
	}
	to := map[string]*item{}
	maps := config.body.blocks("port_map")
	for _, m := range maps {
		for _, i := range m.body.items {
			to[i.key()] = i
		}
	}
	if i := config.body.attr("port_map"); i != nil {
		for _, entry := range objects(i.value) {
			for _, x := range entry.items {
				to[x.key()] = x
			}
		}
		maps = append(maps, i)
	}
	if network == nil || len(maps) == 0 && p.network == nil {
		return
	}
	mode := ""
	if i := config.body.attr("network_mode"); i != nil {
		mode, _ = i.value.text()
	}
	host := mode == "host" || mode == "none" || strings.HasPrefix(mode, "container:")
	byLabel := map[string]*item{}
	for _, x := range network.body.blocks("port") {
		byLabel[x.label(0)] = x
	}
	var labels []string
	for _, x := range p.ports {
		labels = append(labels, x.label(0))
	}
	for _, m := range maps {
		u.change(m.name, "port_map is in the ports of the group")
	}
	names := make([]string, 0, len(to))
	for name := range to {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		i := to[name]
		label := name
		if now := p.renamed[name]; now != "" {
			label = now
		}
		port := byLabel[label]
		switch {
		case port == nil:
			u.warn(i.name, "twice", "port_map names the port "+name+", which the task does not have; it is removed", "Add the port to the network of the group if it is needed.")
		case host:
		case port.body.attr("to") == nil && i.value != nil:
			value := i.value
			if s, ok := value.text(); ok {
				if _, err := strconv.Atoi(s); err == nil {
					value = literal(value.tokens[0], s)
				}
			}
			line := newAttr(i.name, "to", "0")
			line.value, line.lead, line.trail = value, i.lead, i.trail
			port.body.items = append(port.body.items, line)
			if !slices.Contains(labels, label) {
				labels = append(labels, label)
			}
		}
	}
	if host && len(maps) > 0 {
		u.warn(maps[0].name, "unsupported", "port_map has no effect with network_mode = "+strconv.Quote(mode)+", now as before; it is removed", "")
	}
	var place *item
	for _, m := range maps {
		at := slices.Index(config.body.items, m)
		if place == nil && !host && len(labels) > 0 && config.body.attr("ports") == nil {
			place = newAttr(m.name, "ports", list(labels))
			place.lead, place.blank, place.trail = append(m.lead, m.opened...), m.blank, m.trail
			config.body.items[at] = place
			continue
		}
		config.body.remove(m)
	}
	if place == nil && !host && len(labels) > 0 && config.body.attr("ports") == nil {
		config.body.items = append(config.body.items, newAttr(p.network.name, "ports", list(labels)))
	}
}

func list(all []string) string {
	out := make([]string, len(all))
	for i, s := range all {
		out[i] = strconv.Quote(s)
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// objects returns the objects of a list of them, nil if a value is anything else.
func objects(e *expr) []*body {
	p := &parser{tokens: append(slices.Clone(e.tokens), token{kind: tokEOF})}
	if !p.next().is("[") {
		return nil
	}
	var out []*body
	for {
		switch t := p.next(); {
		case t.is("{"):
			b, err := p.body()
			if err != nil || !p.next().is("}") {
				return nil
			}
			out = append(out, b)
		case t.is("]"):
			return out
		case t.is(","), t.kind == tokNewline, t.kind == tokComment:
		default:
			return nil
		}
	}
}

var portVariable = regexp.MustCompile(`\bNOMAD_(ADDR|IP|PORT|HOST_PORT|HOST_IP|HOST_ADDR)_([A-Za-z0-9_]+)`)

// names follows the ports of a task that moved into the group: the names of their
// variables, and the ports that its services name.
func (u *upgrader) names(p *taskPorts, all []*taskPorts) {
	p.task.body.walk(func(i *item) {
		if i.value == nil {
			return
		}
		for n := range i.value.tokens {
			t := &i.value.tokens[n]
			if t.kind != tokString && t.kind != tokHeredoc {
				continue
			}
			before := t.text
			t.text = portVariable.ReplaceAllStringFunc(t.text, func(s string) string {
				m := portVariable.FindStringSubmatch(s)
				if now := p.renamed[m[2]]; now != "" {
					return "NOMAD_" + m[1] + "_" + now
				}
				for _, other := range all {
					for _, x := range other.ports {
						label := x.label(0)
						was := label
						for from, to := range other.renamed {
							if to == label {
								was = from
							}
						}
						if m[2] == other.task.label(0)+"_"+was || m[2] == strings.ReplaceAll(other.task.label(0), "-", "_")+"_"+was {
							return "NOMAD_" + m[1] + "_" + label
						}
					}
				}
				return s
			})
			if i.key() == "port" && t.kind == tokString {
				if now := p.renamed[unquote(t.text)]; now != "" {
					t.text = strconv.Quote(now)
				}
			}
			if t.text != before {
				u.change(*t, "it names the port of the group")
			}
		}
	})
}

// disk moves the disk of the tasks into the group, and makes room for their logs.
func (u *upgrader) disk(b *body, tasks []*item) {
	sum, logs := 0, 0
	var first, log *item
	for _, t := range tasks {
		if r := t.body.block("resources"); r != nil {
			if i := r.body.attr("disk"); i != nil {
				if n, ok := number(i); ok {
					sum += n
				}
				if first == nil {
					first = i
				}
				u.change(i.name, "disk is ephemeral_disk of the group: Nomad ignores it in a task")
				r.body.remove(i)
				if len(r.body.items)+len(r.body.tail) == 0 {
					t.body.remove(r)
				}
			}
		}
		files, size := defaultLogs, defaultLogs
		l := t.body.block("logs")
		if l == nil {
			logs = max(logs, files*size)
			continue
		}
		if n, ok := number(l.body.attr("max_files")); ok {
			files = n
		}
		if n, ok := number(l.body.attr("max_file_size")); ok {
			size = n
		}
		if files*size > logs {
			logs, log = files*size, l
		}
	}
	have := defaultDisk
	block := b.block("ephemeral_disk")
	if block != nil {
		n, ok := number(block.body.attr("size"))
		if !ok && block.body.attr("size") != nil {
			return
		}
		if ok {
			have = n
		}
	}
	want := have
	if first != nil && block == nil {
		want = sum
	}
	if len(tasks) > 0 && want <= logs && (log != nil || want < have) {
		at := log
		if at == nil {
			at = first
		}
		want = logs + 100
		if u.old || log != nil {
			u.warn(at.name, "minimum", fmt.Sprintf("the logs of a task take %d MB, and Nomad refuses an ephemeral_disk that is not larger; it is %d MB", logs, want), "")
		}
	}
	if want == have {
		return
	}
	at := first
	if at == nil {
		at = log
	}
	if block == nil {
		block = newBlock(at.name, "ephemeral_disk")
		before := "network"
		if b.block("network") == nil {
			before = "task"
		}
		b.insert(before, block)
		if n := slices.Index(b.items, block); n+1 < len(b.items) {
			b.items[n+1].blank = true
		}
	}
	if i := block.body.attr("size"); i != nil {
		i.value = literal(i.value.tokens[0], strconv.Itoa(want))
	} else {
		block.body.items = append(block.body.items, newAttr(at.name, "size", strconv.Itoa(want)))
	}
	u.change(at.name, "ephemeral_disk is %d MB", want)
}
