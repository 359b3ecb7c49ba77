package marathon

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/drover-nomad/drover/importer"
)

// pod maps a pod: a group with one task for each container.
func (p *part) pod() {
	n := p.node
	scaling := n.Get("scaling")
	scaling.Get("kind").Take()
	scaling.Get("maxInstances").Drop("the number of instances is the count of the job")
	p.count(scaling.Get("instances"))
	p.podNetwork(n.Get("networks"))
	containers := n.Get("containers").Items()
	if len(containers) == 0 {
		n.Refuse(importer.RuleInvalid, fmt.Sprintf("the pod %s has no container", p.id), "Add one.")
		return
	}
	for _, c := range containers {
		p.container(c)
	}
	scheduling := n.Get("scheduling")
	p.upgrade(scheduling.Get("upgrade"))
	backoff := scheduling.Get("backoff")
	p.backoff(backoff.Get("backoff"), backoff.Get("backoffFactor"), backoff.Get("maxLaunchDelay"))
	placement := scheduling.Get("placement")
	p.placement(placement.Get("constraints"), placement.Get("acceptedResourceRoles"))
	p.labels(n.Get("labels"))
	for _, s := range n.Get("secrets").Fields() {
		s.Get("source").Take()
		s.Fields()
	}
	for _, v := range n.Get("volumes").Items() {
		v.Get("name").Take()
		if host := v.Get("host"); host != nil && !host.Used() {
			host.Drop("no container mounts the volume")
		}
		persistent := v.Get("persistent")
		for _, key := range []string{"size", "maxSize", "type", "profileName"} {
			persistent.Get(key).Drop("a host volume has the size of its directory")
		}
		if c := persistent.Get("constraints"); len(c.Items()) > 0 {
			c.Warn("unsupported", "constraints on the disk of a volume", "Make the volume on the node by hand.")
		}
	}
	if len(p.s.Checks) == 0 {
		p.s.NoCheck = true
	}
}

func (p *part) podNetwork(networks *importer.Node) {
	p.s.Network = "host"
	for _, net := range networks.Items() {
		mode := strings.ToLower(net.Get("mode").Text())
		if mode != "host" {
			p.s.Network = ""
		}
		net.Get("name").Warn("network-address", "the network of this name is Mesos'; on Nomad it is the bridge of the node", "Remove it.")
		net.Get("labels").Drop("labels of a network have no effect")
	}
}

func (p *part) container(c *importer.Node) {
	name := importer.DNSName(c.Get("name").Text())
	t := &importer.Task{Name: name, At: c.Pos()}
	if name == "" || slices.ContainsFunc(p.s.Tasks, func(o *importer.Task) bool { return o.Name == name }) {
		t.Name = fmt.Sprintf("%s-%d", cmp.Or(name, "container"), len(p.s.Tasks)+1)
	}
	p.s.Tasks = append(p.s.Tasks, t)
	image := c.Get("image")
	image.Get("kind").Take()
	if ref := image.Get("id"); ref != nil {
		t.Image, t.ImageRef = importer.Lit(ref.Text()), ref.Text()
		if given := p.src.Images[p.label+"-"+t.Name]; given != "" {
			t.Image, t.ImageRef = importer.Lit(given), given
		}
		pull := image.Get("forcePull").Bool()
		if image.Get("force").Bool() || pull {
			setting(t, "force_pull", "true")
		}
		image.Get("pullConfig").Warn("registry-auth", "the credentials of the registry are a secret of DC/OS", "Configure auth in the docker plugin of the clients.")
	} else {
		p.program(t, c)
	}
	command := c.Get("exec", "command")
	c.Get("exec", "overrideEntrypoint").Take()
	p.command(t, command.Get("shell"), nil, command.Get("argv"))
	p.resources(t, c.Get("resources"))
	c.Get("resources", "disk").Drop("the tasks of a group share one directory")
	for _, e := range c.Get("endpoints").Items() {
		number, _ := e.Get("containerPort").Int()
		host, _ := e.Get("hostPort").Int()
		if p.s.Network == "host" {
			p.nodePort(e, len(p.s.Ports), int(cmp.Or(host, number)), host > 0, protocols(e.Get("protocol")))
		} else {
			p.port(e, len(p.s.Ports), int(number), int(host), 0, protocols(e.Get("protocol")))
		}
	}
	secrets := p.node.Get("secrets")
	p.env(t, p.node.Get("environment"), secrets)
	p.env(t, c.Get("environment"), secrets)
	p.mounts(t, c.Get("volumeMounts"))
	p.fetch(t, c.Get("artifacts"), nil)
	if user := cmp.Or(c.Get("user").Text(), p.node.Get("user").Text()); user != "" {
		t.User = importer.Lit(user)
	}
	if c.Get("tty").Bool() {
		setting(t, "tty", "true")
	}
	p.podCheck(t, c.Get("healthCheck"))
	p.grace(t, c.Get("lifecycle", "killGracePeriodSeconds"))
	for _, key := range []string{"lifecycle", "image", "exec", "resources", "healthCheck"} {
		c.Get(key).Fields()
	}
	c.Get("labels").Drop("labels of containers have no effect")
	image.Get("labels").Drop("labels of images have no effect")
	p.linuxInfo(t, c.Get("linuxInfo"))
}

// mounts maps the volumes of the pod that a container mounts.
func (p *part) mounts(t *importer.Task, at *importer.Node) {
	for _, m := range at.Items() {
		name := m.Get("name").Text()
		target := p.inSandbox(t, m.Get("mountPath").Text())
		ro := m.Get("readOnly").Bool()
		var volume *importer.Node
		for _, v := range p.node.Get("volumes").Items() {
			if v.Get("name").Peek() == name {
				volume = v
			}
		}
		switch {
		case volume == nil:
			m.Refuse(importer.RuleInvalid, fmt.Sprintf("the pod %s has no volume %s", p.id, name), "Add it to volumes.")
		case volume.Get("secret") != nil:
			p.secretFile(t, volume.Get("secret").Text(), target)
		case volume.Get("persistent") != nil:
			p.hostVolume(t, m, name, target)
		case volume.Get("host") != nil:
			p.hostPath(t, volume.Get("host"), volume.Get("host").Text(), target, ro)
		case t.Driver == "exec":
			m.Warn("mount-kind", fmt.Sprintf("the volume %s is the directory %s of the allocation", name, path.Join("/alloc/data", importer.DNSName(name))), "Use this path in the command.")
		default:
			t.Mounts = append(t.Mounts, importer.Mount{Kind: "alloc", Source: importer.DNSName(name), Target: target, ReadOnly: ro})
		}
	}
}

// podCheck maps the health check of a container.
func (p *part) podCheck(t *importer.Task, n *importer.Node) {
	if !n.Exists() || len(n.Fields()) == 0 {
		return
	}
	c := importer.Check{Task: t.Name}
	endpoint := ""
	switch {
	case n.Get("http") != nil:
		h := n.Get("http")
		c.Type, c.Path = "http", cmp.Or(h.Get("path").Text(), "/")
		endpoint = h.Get("endpoint").Text()
		if strings.EqualFold(h.Get("scheme").Text(), "HTTPS") {
			c.Protocol = "https"
		}
	case n.Get("tcp") != nil:
		c.Type, endpoint = "tcp", n.Get("tcp", "endpoint").Text()
	default:
		command := cmp.Or(n.Get("exec", "command"), n.Get("command", "command"), n.Get("command"))
		c.Type, c.Command, c.Args = "script", "/bin/sh", []string{"-c", command.Get("shell").Text()}
		if argv := command.Get("argv").Items(); len(argv) > 0 {
			c.Command, c.Args = argv[0].Text(), nil
			for _, a := range argv[1:] {
				c.Args = append(c.Args, a.Text())
			}
		}
	}
	for _, port := range p.s.Ports {
		if endpoint != "" && port.Label == labelText.ReplaceAllString(strings.ToLower(endpoint), "_") {
			c.Port = port.Number
		}
	}
	if endpoint != "" && c.Port == 0 {
		n.Warn("health", fmt.Sprintf("the check of %s asks the endpoint %s, which the pod does not have", p.id, endpoint), "Correct it. It asks the first port now.")
	}
	c.Interval = seconds(n.Get("intervalSeconds"), time.Minute)
	c.Timeout = seconds(n.Get("timeoutSeconds"), 20*time.Second)
	c.Grace = seconds(n.Get("gracePeriodSeconds"), 5*time.Minute) + seconds(n.Get("delaySeconds"), 0)
	c.Restart = 3
	if v, ok := n.Get("maxConsecutiveFailures").Int(); ok {
		c.Restart = int(v)
	}
	p.addCheck(n, c)
}
