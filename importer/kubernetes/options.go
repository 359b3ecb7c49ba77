package kubernetes

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drover-nomad/drover/importer"
)

// security maps the security context of a container and that of its pod.
func (p *part) security(t *importer.Task, c *importer.Node) {
	pod := p.pod.Get("securityContext")
	either := func(key string) *importer.Node {
		if n := c.Get(key); n.Exists() {
			pod.Get(key).Take()
			return n
		}
		return pod.Get(key)
	}
	c.Fields()
	pod.Fields()
	user, group := either("runAsUser"), either("runAsGroup")
	if v, ok := user.Int(); ok && v >= 0 {
		text := strconv.FormatInt(v, 10)
		if g, ok := group.Int(); ok && g >= 0 {
			text += ":" + strconv.FormatInt(g, 10)
		}
		t.User = importer.Lit(text)
	} else if group.Exists() {
		group.Warn("unsupported", fmt.Sprintf("the group of %s is set and its user is not", t.Name), "Set user = \"UID:GID\" in the task.")
	}
	either("runAsNonRoot").Drop("a check of Kubernetes, which changes nothing")
	if c.Get("readOnlyRootFilesystem").Bool() {
		setting(t, "readonly_rootfs", "true")
	}
	if n := c.Get("privileged"); n.Bool() {
		setting(t, "privileged", "true")
		n.Warn("needs-client", "a privileged container can do all that root can on the node", "Set allow_privileged = true in the docker plugin of the clients.")
	}
	for _, key := range []string{"add", "drop"} {
		n := c.Get("capabilities", key)
		var all []string
		for _, v := range n.Items() {
			all = append(all, strings.TrimPrefix(strings.ToUpper(v.Text()), "CAP_"))
		}
		if len(all) == 0 {
			continue
		}
		setting(t, "cap_"+key, quoted(all))
		if key == "add" && slices.ContainsFunc(all, func(v string) bool { return !importer.AllowedCapability(v) }) {
			n.Warn("needs-client", fmt.Sprintf("the clients must allow the capabilities %s", strings.Join(all, ", ")), "Add them to allow_caps of the docker plugin.")
		}
	}
	var opts []string
	if n := c.Get("allowPrivilegeEscalation"); n.Exists() && !n.Bool() {
		opts = append(opts, "no-new-privileges")
	}
	profile := either("seccompProfile")
	switch kind := profile.Get("type").Text(); kind {
	case "Unconfined":
		opts = append(opts, "seccomp=unconfined")
	case "Localhost":
		profile.Warn("needs-client", "the seccomp profile is a file of the nodes", "Write security_opt = [\"seccomp=FILE\"] into the config of the task.")
	}
	if len(opts) > 0 {
		setting(t, "security_opt", quoted(opts))
	}
	either("seLinuxOptions").Warn("needs-client", "labels of SELinux are a setting of the docker plugin", "Set volumes { selinuxlabel } there, and security_opt in the config of the task.")
	either("appArmorProfile").Warn("needs-client", "the profile of AppArmor is on the nodes", "Write security_opt = [\"apparmor=PROFILE\"] into the config of the task.")
	c.Get("procMount").Warn("unsupported", "Nomad mounts /proc by the default of Docker", "Remove it.")
	c.Get("windowsOptions").Drop("options of Windows")
	pod.Get("windowsOptions").Drop("options of Windows")
	pod.Get("fsGroupChangePolicy").Drop("drover sets the owner of a volume when it makes it")
	pod.Get("supplementalGroupsPolicy").Drop("the groups of the image are those of Docker")
	var groups []string
	if v, ok := pod.Get("fsGroup").Int(); ok && v > 0 {
		groups = append(groups, strconv.FormatInt(v, 10))
	}
	for _, g := range pod.Get("supplementalGroups").Items() {
		if v, ok := g.Int(); ok && v >= 0 {
			groups = append(groups, strconv.FormatInt(v, 10))
		}
	}
	if len(groups) > 0 {
		setting(t, "group_add", quoted(groups))
	}
	var sysctls []string
	for _, s := range pod.Get("sysctls").Items() {
		sysctls = append(sysctls, importer.Quote(s.Get("name").Text())+" = "+importer.Quote(s.Get("value").Text()))
	}
	if len(sysctls) > 0 && t == p.mainTask(t) {
		setting(t, "sysctl", "{ "+strings.Join(sysctls, ", ")+" }")
	}
	for _, key := range []string{"hostPID", "hostIPC"} {
		if n := p.pod.Get(key); n.Bool() {
			setting(t, strings.ToLower(strings.TrimPrefix(key, "host"))+"_mode", `"host"`)
			n.Warn("needs-client", key+" shows the container what runs on the node", "Set allow_privileged = true in the docker plugin of the clients, if Nomad refuses it.")
		}
	}
	if n := p.pod.Get("shareProcessNamespace"); n.Bool() {
		n.Warn("unsupported", fmt.Sprintf("the containers of %s do not see one another's processes", p.o.name), "Run the programs in one container, if they need it.")
	}
}

func (p *part) mainTask(t *importer.Task) *importer.Task {
	if len(p.s.Tasks) > 0 {
		return p.s.Tasks[0]
	}
	return t
}

// probes maps the probes of a container to checks in Consul.
func (p *part) probes(t *importer.Task, c *importer.Node) {
	live, ready, start := c.Get("livenessProbe"), c.Get("readinessProbe"), c.Get("startupProbe")
	if t.Hook != "" {
		for _, n := range []*importer.Node{live, ready, start} {
			n.Warn("health", "an init container has no checks on Nomad", "Check the main task.")
		}
		return
	}
	grace := time.Duration(0)
	if start.Exists() {
		failures := 3
		if v, ok := start.Get("failureThreshold").Int(); ok && v > 0 && v < 100000 {
			failures = int(v)
		}
		grace = seconds(start.Get("initialDelaySeconds"), 0) + time.Duration(failures)*seconds(start.Get("periodSeconds"), 10*time.Second)
		start.Get("successThreshold").Take()
		start.Get("timeoutSeconds").Take()
		start.Get("terminationGracePeriodSeconds").Drop("kill_timeout is that of the task")
	}
	var checks []importer.Check
	if r, ok := p.probe(t, c, ready); ok {
		checks = append(checks, r)
	}
	if l, ok := p.probe(t, c, live); ok {
		l.Restart = cmp.Or(l.Failures, 3)
		l.Grace = max(seconds(live.Get("initialDelaySeconds"), 0), grace, time.Second)
		if len(checks) > 0 && sameProbe(checks[0], l) {
			checks[0].Restart, checks[0].Grace = l.Restart, l.Grace
		} else {
			checks = append(checks, l)
		}
	}
	if s, ok := p.probe(t, c, start); ok && len(checks) == 0 {
		s.Failures = 0
		checks = append(checks, s)
	}
	ready.Get("initialDelaySeconds").Drop("a new instance is ready as soon as its check passes")
	if longest := max(grace, seconds(ready.Get("initialDelaySeconds"), 0), seconds(live.Get("initialDelaySeconds"), 0)); longest > 4*time.Minute {
		p.update().HealthyDeadline = span(longest + 2*time.Minute)
		p.update().ProgressDeadline = span(2 * (longest + 2*time.Minute))
	}
	p.s.Checks = append(p.s.Checks, checks...)
}

func sameProbe(a, b importer.Check) bool {
	return a.Type == b.Type && a.Port == b.Port && a.Path == b.Path && a.Protocol == b.Protocol && a.Command == b.Command && slices.Equal(a.Args, b.Args)
}

var headerName = regexp.MustCompile(`^[A-Za-z0-9-]+$`)

// probe maps one probe. It returns false for one that cannot be had.
func (p *part) probe(t *importer.Task, c, n *importer.Node) (importer.Check, bool) {
	if !n.Exists() || len(n.Fields()) == 0 {
		return importer.Check{}, false
	}
	check := importer.Check{Task: t.Name, Failures: 3}
	check.Interval, check.Timeout = seconds(n.Get("periodSeconds"), 10*time.Second), seconds(n.Get("timeoutSeconds"), time.Second)
	if v, ok := n.Get("failureThreshold").Int(); ok && v > 0 && v < 100000 {
		check.Failures = int(v)
	}
	if v, ok := n.Get("successThreshold").Int(); ok && v > 0 && v < 100000 {
		check.Passes = int(v)
	}
	n.Get("initialDelaySeconds").Take()
	n.Get("terminationGracePeriodSeconds").Drop("kill_timeout is that of the task")
	port := func(at *importer.Node) bool {
		number := p.portNumber(at, c)
		if number == 0 {
			n.Warn("health", fmt.Sprintf("a probe of %s names no port of the container", p.o.name), "Write a check into the service block of the job.")
			return false
		}
		check.Port = number
		p.addPort(importer.Port{Number: number, Reason: "From the probe.", At: at.Pos()})
		return true
	}
	foreign := func(host *importer.Node) bool {
		switch host.Text() {
		case "", "localhost", "127.0.0.1", "0.0.0.0", "::1":
			return false
		}
		host.Warn("health", fmt.Sprintf("a probe of %s asks another host", p.o.name), "Use a script check.")
		return true
	}
	switch {
	case n.Get("httpGet").Exists():
		h := n.Get("httpGet")
		check.Type, check.Path = "http", "/"+strings.TrimPrefix(h.Get("path").Text(), "/")
		if strings.EqualFold(h.Get("scheme").Text(), "HTTPS") {
			check.Protocol = "https"
		}
		for _, v := range h.Get("httpHeaders").Items() {
			name, value := v.Get("name").Text(), v.Get("value").Text()
			if !headerName.MatchString(name) {
				continue
			}
			if check.Header == nil {
				check.Header = map[string]string{}
			}
			check.Header[name] = value
		}
		if strings.ContainsAny(check.Path, " \t\n\"") {
			h.Get("path").Warn("health", "the path of a probe has blanks", "Write a check into the service block of the job.")
			return check, false
		}
		return check, port(h.Get("port")) && !foreign(h.Get("host"))
	case n.Get("tcpSocket").Exists():
		s := n.Get("tcpSocket")
		check.Type = "tcp"
		return check, port(s.Get("port")) && !foreign(s.Get("host"))
	case n.Get("grpc").Exists():
		g := n.Get("grpc")
		check.Type = "grpc"
		if s := g.Get("service"); s.Peek() != "" {
			s.Warn("health", fmt.Sprintf("the check asks for the health of the server, and not for that of %s", s.Peek()), "Set grpc_service of the check.")
		}
		return check, port(g.Get("port"))
	case n.Get("exec").Exists():
		var words []string
		for _, w := range n.Get("exec", "command").Items() {
			text := expand(w.Text(), p.env[t.Name], true)
			literal, ok := text.Literal()
			if !ok {
				literal = w.Peek()
			}
			words = append(words, literal)
		}
		if len(words) == 0 {
			return check, false
		}
		check.Type, check.Command, check.Args = "script", words[0], words[1:]
		return check, true
	}
	return check, false
}

var sleepText = regexp.MustCompile(`^\s*(?:/bin/)?sleep\s+(\d{1,5})\s*;?\s*$`)

// lifecycle maps the hooks of a container.
func (p *part) lifecycle(t *importer.Task, n *importer.Node) {
	n.Fields()
	stop := n.Get("preStop")
	stop.Fields()
	delay, ok := stop.Get("sleep", "seconds").Int()
	var words []string
	for _, w := range stop.Get("exec", "command").Items() {
		words = append(words, w.Peek())
	}
	if len(words) > 0 && slices.Contains([]string{"sh", "/bin/sh", "bash", "/bin/bash"}, words[0]) {
		words = words[min(2, len(words)):]
	}
	if m := sleepText.FindStringSubmatch(strings.Join(words, " ")); m != nil {
		v, _ := strconv.Atoi(m[1])
		delay, ok = int64(v), true
		stop.Get("exec").Take()
	}
	if ok && delay >= 0 && delay < 3600 {
		p.s.ShutdownDelay = span(time.Duration(delay) * time.Second)
	} else if stop.Exists() {
		stop.Warn("hook", fmt.Sprintf("nothing runs in %s before it stops", t.Name), "Handle the signal in the program (kill_signal).")
	}
	n.Get("postStart").Warn("hook", fmt.Sprintf("nothing runs in %s after it has started", t.Name), "Write a task with lifecycle { hook = \"poststart\" }, or put it before the command.")
	if s := n.Get("stopSignal").Text(); strings.HasPrefix(s, "SIG") {
		t.KillSignal = s
	}
}
