package marathon

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/render/lint"
)

// dockerOptions maps the flags of docker run.
func (p *part) dockerOptions(t *importer.Task, container, docker *importer.Node) {
	if docker.Get("privileged").Bool() {
		setting(t, "privileged", "true")
		docker.Get("privileged").Warn("needs-client", "a privileged container can do all that root can on the node", "Set allow_privileged = true in the docker plugin of the clients.")
	}
	lists := map[string][]importer.Text{}
	for _, at := range []*importer.Node{docker.Get("parameters"), container.Get("parameters")} {
		for _, n := range at.Items() {
			p.option(t, n, n.Get("key").Text(), n.Get("value").Text(), lists)
		}
	}
	for _, name := range []string{"cap_add", "cap_drop", "security_opt"} {
		if all := lists[name]; len(all) > 0 {
			var words []string
			for _, w := range all {
				words = append(words, w.HCL())
			}
			setting(t, name, "["+strings.Join(words, ", ")+"]")
		}
	}
	for _, name := range []string{"ulimit", "sysctl"} {
		var pairs []string
		for _, w := range lists[name] {
			text, _ := w.Literal()
			key, value, _ := strings.Cut(text, "=")
			pairs = append(pairs, importer.Quote(key)+" = "+importer.Quote(value))
		}
		if len(pairs) > 0 {
			setting(t, name, "{ "+strings.Join(pairs, ", ")+" }")
		}
	}
}

// option maps one flag.
func (p *part) option(t *importer.Task, n *importer.Node, key, value string, lists map[string][]importer.Text) {
	dns := func() *importer.DNS {
		if p.s.DNS == nil {
			p.s.DNS = &importer.DNS{}
		}
		return p.s.DNS
	}
	switch strings.TrimLeft(key, "-") {
	case "env", "e":
		name, text, _ := strings.Cut(value, "=")
		v := importer.EnvVar{Name: name, Value: importer.Lit(text)}
		if lint.InClear(name, text) {
			v.Value = importer.SecretText(p.secret(name, text, name+" of "+p.id+"."))
		}
		t.Env = append(t.Env, v)
	case "hostname", "h":
		p.s.Hostname = importer.Lit(value)
		p.host(value)
	case "name", "net-alias", "network-alias":
		p.host(value)
	case "volume", "v":
		parts := strings.Split(value, ":")
		switch {
		case len(parts) == 1:
			t.Mounts = append(t.Mounts, importer.Mount{Kind: "alloc", Source: importer.DNSName(parts[0]), Target: parts[0]})
		case strings.HasPrefix(parts[0], "/"):
			p.hostPath(t, n, parts[0], parts[1], len(parts) > 2 && strings.Contains(parts[2], "ro"))
		default:
			p.hostVolume(t, n, parts[0], parts[1])
		}
	case "volume-driver":
		n.Refuse("volume-driver", fmt.Sprintf("a volume of %s needs the driver %s", p.id, value), "Register it as a CSI volume.")
	case "label", "l":
		n.Drop("labels of containers have no effect")
	case "add-host":
		p.s.ExtraHosts = append(p.s.ExtraHosts, importer.Lit(value))
	case "cap-add", "cap-drop", "security-opt":
		name := strings.ReplaceAll(strings.TrimLeft(key, "-"), "-", "_")
		lists[name] = append(lists[name], importer.Lit(value))
		if name == "cap_add" && !importer.AllowedCapability(value) {
			n.Warn("needs-client", "the clients must allow the capability "+value, "Add it to allow_caps of the docker plugin.")
		}
	case "ulimit", "sysctl":
		lists[strings.TrimLeft(key, "-")] = append(lists[strings.TrimLeft(key, "-")], importer.Lit(value))
	case "net", "network":
		switch value {
		case "host", "none":
			p.s.Network = value
		case "bridge", "default":
			p.s.Network = ""
		default:
			n.Warn("network-address", fmt.Sprintf("the network %s is Docker's; on Nomad it is the bridge of the node", value), "Remove it.")
		}
	case "dns":
		dns().Servers = append(dns().Servers, value)
	case "dns-search":
		dns().Searches = append(dns().Searches, value)
	case "dns-opt", "dns-option":
		dns().Options = append(dns().Options, value)
	case "user", "u":
		t.User = importer.Lit(value)
	case "workdir", "w":
		setting(t, "work_dir", importer.Quote(value))
	case "entrypoint":
		t.Entrypoint = importer.Lits([]string{value})
	case "privileged":
		if value != "false" {
			setting(t, "privileged", "true")
			n.Warn("needs-client", "a privileged container can do all that root can on the node", "Set allow_privileged = true in the docker plugin of the clients.")
		}
	case "read-only":
		setting(t, "readonly_rootfs", strconv.FormatBool(value != "false"))
	case "init":
		setting(t, "init", strconv.FormatBool(value != "false"))
	case "tty", "t":
		setting(t, "tty", strconv.FormatBool(value != "false"))
	case "interactive", "i":
		setting(t, "interactive", strconv.FormatBool(value != "false"))
	case "ipc", "pid", "uts", "userns":
		setting(t, strings.TrimLeft(key, "-")+"_mode", importer.Quote(value))
	case "pids-limit":
		setting(t, "pids_limit", strconv.Itoa(number(value)))
	case "shm-size":
		if size := bytesOf(value); size > 0 {
			setting(t, "shm_size", strconv.FormatInt(size, 10))
		} else {
			n.Warn("unsupported", fmt.Sprintf("%q is no size", value), "Set shm_size in the config of the task.")
		}
	case "tmpfs":
		target, _, _ := strings.Cut(value, ":")
		t.Mounts = append(t.Mounts, importer.Mount{Kind: "tmpfs", Target: target})
	case "stop-signal":
		t.KillSignal = "SIG" + strings.TrimPrefix(strings.ToUpper(value), "SIG")
	case "log-driver", "log-opt":
		n.Warn("logging", "the logs of the task are Nomad's; the log driver is not", "Ship them from the nodes.")
	case "volumes-from", "volumes_from":
		n.Warn("mount-kind", fmt.Sprintf("the volumes of the container %s are not mounted in %s", value, p.id), "Give both a volume, or run both in one group.")
	case "env-file":
		n.Refuse("missing-file", fmt.Sprintf("the file %s is on the nodes of Mesos", value), "Write its variables into env of the app.")
	case "lxc-conf":
		n.Drop("Docker has no LXC any more")
	case "rm", "restart", "memory", "m", "cpu-shares", "c", "detach", "d", "health-cmd", "no-healthcheck", "oom-kill-disable", "memory-swap", "memory-swappiness", "memory-reservation", "cpu-period", "cpu-quota", "cpus":
		n.Drop("Nomad and the resources of the app decide this")
	case "publish", "p", "expose":
		parts := strings.Split(strings.SplitN(value, "/", 2)[0], ":")
		container := number(parts[len(parts)-1])
		static := 0
		if len(parts) > 1 {
			static = number(parts[len(parts)-2])
		}
		if container == 0 {
			n.Warn("unsupported", fmt.Sprintf("%q is no port", value), "Write it into portMappings.")
			return
		}
		p.s.Ports = append(p.s.Ports, importer.Port{Number: container, Static: static, Label: fmt.Sprintf("port%d", len(p.s.Ports)), UDP: strings.HasSuffix(value, "/udp"), At: n.Pos()})
	case "device":
		host, inside, _ := strings.Cut(value, ":")
		t.Settings = append(t.Settings, importer.Setting{Name: "devices", Value: "[{ host_path = " + importer.Quote(host) + ", container_path = " + importer.Quote(strings.SplitN(inside+":", ":", 2)[0]) + " }]"})
	default:
		n.Refuse("unsupported", fmt.Sprintf("the flag --%s of docker run is not known to the importer", key), "Remove it, or write what it does into the config of the task.")
	}
}

func number(s string) int {
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil {
		return 0
	}
	return n
}

var sizeText = regexp.MustCompile(`^(\d+)([kmg]?)b?$`)

// bytesOf is a size of docker run, 0 for a text that is none.
func bytesOf(s string) int64 {
	m := sizeText.FindStringSubmatch(strings.ToLower(strings.TrimSpace(s)))
	if m == nil {
		return 0
	}
	n, err := strconv.ParseInt(m[1], 10, 40)
	if err != nil {
		return 0
	}
	return n << map[string]uint{"": 0, "k": 10, "m": 20, "g": 30}[m[2]]
}

// volumes maps the volumes of an app.
func (p *part) volumes(t *importer.Task, container *importer.Node) {
	// Volumes that are mounted from the sandbox are behind those that are in it.
	all := slices.Clone(container.Get("volumes").Items())
	slices.SortStableFunc(all, func(a, b *importer.Node) int {
		return cmp.Compare(min(1, len(a.Get("hostPath").Peek())), min(1, len(b.Get("hostPath").Peek())))
	})
	for _, v := range all {
		target := p.inSandbox(t, v.Get("containerPath").Text())
		ro := strings.EqualFold(v.Get("mode").Text(), "RO")
		switch {
		case v.Get("hostPath").Peek() != "":
			p.hostPath(t, v.Get("hostPath"), v.Get("hostPath").Text(), target, ro)
		case v.Get("persistent") != nil:
			persistent := v.Get("persistent")
			persistent.Get("size").Drop("a host volume has the size of its directory")
			persistent.Get("maxSize").Drop("a host volume has the size of its directory")
			persistent.Get("type").Drop("the kind of a disk of Mesos")
			if c := persistent.Get("constraints"); len(c.Items()) > 0 {
				c.Warn("unsupported", "constraints on the disk of a volume", "Make the volume on the node by hand.")
			}
			p.hostVolume(t, v, path.Base(target), target)
		case v.Get("external") != nil:
			external := v.Get("external")
			name, provider := external.Get("name").Text(), external.Get("provider").Text()
			external.Get("size").Take()
			external.Get("options").Take()
			if external.Refuse("volume-driver", fmt.Sprintf("the volume %s of %s is one of %s", name, p.id, provider), "Register it as a CSI volume. Allowed, it becomes a host volume on one node.") {
				p.hostVolume(t, v, name, target)
			}
		case v.Get("secret") != nil:
			p.secretFile(t, v.Get("secret").Text(), target)
		}
	}
}

func (p *part) secretFile(t *importer.Task, ref, target string) {
	name := p.given(ref, p.node.Get("secrets"))
	t.Files = append(t.Files, importer.File{Content: importer.SecretText(name), Target: target, IsSecret: true, Mode: "0400"})
}

// inSandbox is a path in the container: a relative one is below the sandbox.
func (p *part) inSandbox(t *importer.Task, target string) string {
	if strings.HasPrefix(target, "/") {
		return path.Clean(target)
	}
	return path.Join(p.sandbox(t), path.Join("/", target))
}

func (p *part) hostPath(t *importer.Task, n *importer.Node, source, target string, ro bool) {
	if t.Driver == "exec" {
		n.Warn("mount-kind", fmt.Sprintf("%s of %s cannot be mounted: the exec driver mounts volumes of the clients only", source, p.id), "Declare a host volume in the configuration of the clients, or use raw_exec.")
		return
	}
	switch {
	case !strings.HasPrefix(source, "/"):
		if p.sandboxVolume(t, n, source, target, ro) {
			return
		}
		t.Mounts = append(t.Mounts, importer.Mount{Kind: "local", Source: strings.TrimPrefix(path.Join("/", source), "/"), Target: target, ReadOnly: ro})
		return
	case strings.HasSuffix(source, "docker.sock"):
		n.Warn("docker-socket", fmt.Sprintf("%s controls the Docker engine of its node", p.id), "Set volumes.enabled = true in the docker plugin of the clients, or leave it out.")
	default:
		n.Warn("host-path", fmt.Sprintf("%s of the node is mounted at %s", source, target), "Make it on each node, and set volumes.enabled = true in the docker plugin of the clients.")
	}
	t.Mounts = append(t.Mounts, importer.Mount{Kind: "host", Source: source, Target: target, ReadOnly: ro})
	p.m.Needs = append(p.m.Needs, importer.Need{What: "volumes { enabled = true } in the docker plugin", Why: fmt.Sprintf("%s mounts %s", p.label, source), At: n.Pos()})
}

// sandboxVolume mounts the persistent volume at this path of the sandbox at target: Docker
// cannot mount a persistent volume at an absolute path, so that apps mount it from the
// sandbox. It returns false if the sandbox has no volume there.
func (p *part) sandboxVolume(t *importer.Task, n *importer.Node, source, target string, ro bool) bool {
	inside := path.Join(p.sandbox(t), path.Join("/", source))
	for _, v := range t.Volumes {
		switch {
		case v.Target == inside:
			t.Volumes = append(t.Volumes, importer.VolumeMount{Volume: v.Volume, Target: target, ReadOnly: ro})
			return true
		case strings.HasPrefix(inside, v.Target+"/"):
			n.Refuse("mount-kind", fmt.Sprintf("%s is a directory of the persistent volume %s of %s, and Nomad mounts a volume as a whole", source, v.Volume, p.id), "Mount the volume itself. Allowed, the directory is one of the allocation, and empty in the next one.")
		}
	}
	return false
}

// hostVolume mounts a volume that drover makes on one node.
func (p *part) hostVolume(t *importer.Task, n *importer.Node, key, target string) {
	if p.s.Count != nil && *p.s.Count > 1 && !n.Refuse("volume-shared", fmt.Sprintf("each of the %d instances of %s has a persistent volume of its own", *p.s.Count, p.id), "Make one app of each instance. Allowed, all instances share one volume on one node.") {
		return
	}
	label := importer.DNSName(key)
	if label == "" {
		label = "data"
	}
	source := importer.DNSName(p.m.Name + "-" + p.label + "-" + label)
	if !slices.ContainsFunc(p.m.Volumes, func(o importer.Volume) bool { return o.Name == source }) {
		known := importer.KnownImage(t.ImageRef)
		params := map[string]string{}
		if known.User != "" && known.User != "0" {
			params["uid"], params["gid"] = known.User, known.User
		}
		if !known.Known && t.Driver != "exec" {
			p.ledger.Warn(n.Pos(), "no-copy-up", fmt.Sprintf("the volume %s begins empty and belongs to root", source), "If the image runs as another user, set uid and gid in the parameters of the volume in stack.hcl.")
		}
		p.m.Volumes = append(p.m.Volumes, importer.Volume{Name: source, Parameters: params, Comment: "At " + target + " of " + p.label + "."})
	}
	if !slices.ContainsFunc(p.s.Volumes, func(o importer.VolumeUse) bool { return o.Source == source }) {
		p.s.Volumes = append(p.s.Volumes, importer.VolumeUse{Name: label, Source: source})
	}
	t.Volumes = append(t.Volumes, importer.VolumeMount{Volume: label, Target: target})
	p.s.Single = true
}

var (
	metaKey = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)
	haproxy = regexp.MustCompile(`^HAPROXY_(\d+)_([A-Z_]+)$`)
)

// labels maps the labels of Marathon-LB to routes, and the others to the meta of the
// service in Consul.
func (p *part) labels(at *importer.Node) {
	routes := map[int]map[string]*importer.Node{}
	for _, n := range at.Fields() {
		m := haproxy.FindStringSubmatch(n.Key)
		switch {
		case m != nil:
			index := number(m[1])
			if routes[index] == nil {
				routes[index] = map[string]*importer.Node{}
			}
			routes[index][m[2]] = n
		case n.Key == "HAPROXY_GROUP":
			if group := n.Text(); group != "external" {
				n.Warn("route", fmt.Sprintf("the load balancer of group %s becomes the one edge", group), "Restrict the route with drover.allow, if it is internal.")
			}
		case strings.HasPrefix(n.Key, "HAPROXY_DEPLOYMENT_"), n.Key == "HAPROXY_APP_ID":
			n.Drop("deployments of Marathon-LB; Nomad's canaries take their place")
		case strings.HasPrefix(n.Key, "HAPROXY_"):
			n.Warn("route", fmt.Sprintf("%s has no counterpart in the edge", n.Key), "Look for it in the routes of drover.")
		case n.Key == "DCOS_SERVICE_NAME" && at.Get("DCOS_SERVICE_PORT_INDEX") != nil:
			n.Warn("route", fmt.Sprintf("the page of %s was below /service/%s of DC/OS", p.id, n.Peek()), "Write a tag drover.route=HOST/PATH into the service block of the job.")
		case strings.HasPrefix(n.Key, "DCOS_"), n.Key == "MARATHON_SINGLE_INSTANCE_APP":
			if n.Key == "MARATHON_SINGLE_INSTANCE_APP" && strings.EqualFold(n.Peek(), "true") {
				p.s.Single = true
				n.Take()
				continue
			}
			n.Drop("a label of DC/OS")
		case metaKey.MatchString(n.Key) && len(n.Peek()) <= 512 && n.Kind == importer.Scalar && !lint.InClear(n.Key, n.Peek()):
			if p.s.Meta == nil {
				p.s.Meta = map[string]string{}
			}
			p.s.Meta[n.Key] = n.Text()
		default:
			n.Drop("the label fits into no meta of Consul, and has no effect when the app runs")
		}
	}
	for _, index := range sortedKeys(routes) {
		p.route(index, routes[index])
	}
}

func sortedKeys(m map[int]map[string]*importer.Node) []int {
	var keys []int
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// route maps the labels of Marathon-LB for one port.
func (p *part) route(index int, l map[string]*importer.Node) {
	if n := l["ENABLED"]; n != nil {
		if strings.EqualFold(n.Text(), "false") || n.Peek() == "0" {
			for _, other := range l {
				other.Drop("Marathon-LB leaves this port out")
			}
			return
		}
		n.Take()
	}
	if index >= len(p.s.Ports) {
		for _, n := range l {
			n.Warn("route", fmt.Sprintf("%s has no port %d", p.id, index), "Add the port to the app.")
		}
		return
	}
	port := p.s.Ports[index]
	tag := func(text string) { p.s.Tags = append(p.s.Tags, importer.Lit(text)) }
	if n := l["PORT"]; n != nil {
		if service := number(n.Text()); service > 0 {
			p.m.Published = slices.DeleteFunc(p.m.Published, func(o importer.Published) bool {
				return o.Service == p.label && o.Target == port.Number && o.Port != service
			})
			if !slices.ContainsFunc(p.m.Published, func(o importer.Published) bool { return o.Service == p.label && o.Port == service }) {
				p.publish(n, service, port.Number)
			}
		}
	}
	if n := l["VHOST"]; n != nil && n.Text() != "" {
		if index != 0 {
			n.Warn("route", fmt.Sprintf("port %d of %s has a host of its own", index, p.id), "Write a tag drover.route=HOST/ into its service block.")
		} else {
			prefix := "/"
			if at := l["PATH"]; at != nil {
				prefix = path.Join("/", strings.TrimPrefix(at.Text(), "-i "))
			}
			routed := false
			redirect := l["REDIRECT_TO_HTTPS"]
			redirects := redirect != nil && strings.EqualFold(redirect.Text(), "true")
			for _, host := range strings.Split(n.Text(), ",") {
				if host = strings.ToLower(strings.TrimSpace(host)); importer.IsRouteHost(host) {
					tag("drover.route=" + host + prefix)
					routed = true
					if redirects || l["SSL_CERT"] != nil {
						p.m.Certify(importer.Lit(host))
					}
				} else {
					n.Warn("route", fmt.Sprintf("%q is no host name", host), "Write a tag drover.route=HOST/PATH into the service block of the job.")
				}
			}
			if routed && !redirects {
				tag("drover.http=serve")
			}
			if sticky := l["STICKY"]; routed && sticky != nil && strings.EqualFold(sticky.Text(), "true") {
				tag("drover.sticky=cookie")
			}
			if strip := l["HTTP_BACKEND_PROXYPASS_PATH"]; routed && strip != nil && backendPath.MatchString(strip.Text()) {
				tag("drover.strip=" + strings.TrimSuffix(strip.Peek(), "/"))
			}
			if p.s.NoCheck {
				n.Warn("health", fmt.Sprintf("%s has a route and no health check", p.id), "Add a health check, so that the edge knows when an instance is ready.")
			}
		}
	}
	restricted := false
	for _, key := range slices.Sorted(maps.Keys(l)) {
		n := l[key]
		switch key {
		case "AUTH":
			restricted = true
			list := importer.DNSName(p.m.Name + "-" + p.label)
			tag("drover.auth=" + list)
			n.Warn("route", fmt.Sprintf("the users of %s are kept by the edge, and requests are denied until it has them", p.id),
				fmt.Sprintf("nomad var put drover/users/%s USER='HASH', and name %s in the variable users of the edge.", list, list))
		case "BACKEND_NETWORK_ALLOWED_ACL", "HTTP_BACKEND_NETWORK_ALLOWED_ACL", "TCP_BACKEND_NETWORK_ALLOWED_ACL":
			restricted = true
			if addresses := strings.FieldsFunc(n.Text(), func(c rune) bool { return c == ',' || c == ' ' }); len(addresses) > 0 {
				tag("drover.allow=" + strings.Join(addresses, ","))
			}
		case "REDIRECT_TO_HTTPS", "STICKY":
			n.Take()
		case "MODE":
			if strings.EqualFold(n.Text(), "tcp") && l["VHOST"] != nil {
				n.Warn("route", fmt.Sprintf("the host of %s is a route of HTTP, and its mode is tcp", p.id), "Write drover.sni=HOST or drover.tcp=PORT instead of drover.route.")
			}
		case "BALANCE":
			n.Drop("the edge chooses the instance")
		case "USE_HSTS":
			n.Drop("the edge sets Strict-Transport-Security by its variable hsts_max_age")
		case "SSL_CERT":
			n.Drop("drover gets a certificate for the hosts from its own issuer")
		case "BIND_ADDR", "BIND_OPTIONS":
			n.Drop("the addresses are the edge's")
		default:
			switch {
			case n.Used():
			case restricting.MatchString(n.Peek()):
				restricted = true
				n.Refuse("route", fmt.Sprintf("%s may restrict the requests", n.Key), "Write tags of drover that do the same. Allowed, the route is left out.")
				p.s.Tags = slices.DeleteFunc(p.s.Tags, func(t importer.Text) bool {
					text, _ := t.Literal()
					return strings.HasPrefix(text, "drover.")
				})
			default:
				n.Warn("route", fmt.Sprintf("%s changes the configuration of Marathon-LB", n.Key), "Look for it in the routes of drover.")
			}
		}
	}
	if !restricted {
		return
	}
	before := len(p.m.Published)
	p.m.Published = slices.DeleteFunc(p.m.Published, func(o importer.Published) bool { return o.Service == p.label && o.Target == port.Number })
	if len(p.m.Published) < before {
		p.ledger.Warn(p.s.At, "route", fmt.Sprintf("port %d of %s is no port of every node: only the edge restricts who reaches it", port.Number, p.id), "Use a route of the edge.")
	}
}

var (
	backendPath = regexp.MustCompile(`^/[A-Za-z0-9._~/+-]+$`)
	// restricting are directives of HAProxy that decide who reaches a service.
	restricting = regexp.MustCompile(`(?i)\b(deny|reject|tarpit|allow|auth|silent-drop)\b`)
)
