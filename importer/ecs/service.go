package ecs

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/render/lint"
)

// target is a service of the stack, and where a load balancer may find it.
type target struct {
	service *importer.Service
	deploy  *deployment
	def     *definition
}

// part maps one task definition, as one service or schedule runs it.
type part struct {
	*scope  // of the task definition
	def     *definition
	deploy  *deployment // nil for a task definition without a service
	s       *importer.Service
	mode    string // of the network
	tasks   map[string]*importer.Task
	nodes   map[*importer.Task]*importer.Node
	volumes map[string]*importer.Node
	named   map[string]int // port of the container by its name
	owners  map[int]*importer.Task
	mounted map[string]bool // names of volumes
	absent  map[string]bool // names of containers that are left out
}

// containers are the container definitions.
func (d *definition) containers() []*importer.Node {
	if d.node.Kind == importer.List {
		return d.items(d.node)
	}
	return d.items(d.get(d.node, "containerDefinitions"))
}

// label is the name of the service, which no other one has.
func (r *reader) label(d *definition, p *deployment) string {
	name := ""
	if p != nil && p.schedule == nil {
		name = p.word(p.get(p.node, "serviceName"))
	}
	family := d.id
	if d.node.Kind == importer.Map {
		if f := d.word(d.get(d.node, "family")); f != "" {
			family = strings.TrimPrefix(f, r.m.Name+"-")
		}
	}
	if name == "" {
		name = family
	}
	label := importer.DNSName(name)
	if label == "" {
		label = "app"
	}
	taken := func(l string) bool {
		return slices.ContainsFunc(r.m.Services, func(s *importer.Service) bool { return s.Name == l })
	}
	if taken(label) && p != nil && p.id != "" {
		label = importer.DNSName(label + "-" + strings.ReplaceAll(snake(p.id), "_", "-"))
	}
	for i, base := 2, label; taken(label); i++ {
		label = fmt.Sprintf("%s-%d", base, i)
	}
	return label
}

// service maps a task definition and what runs it, which is nil for a task definition
// alone.
func (r *reader) service(d *definition, deploy *deployment) {
	at := d.node
	if deploy != nil {
		at = deploy.node
	}
	p := &part{scope: d.scope, def: d, deploy: deploy, s: &importer.Service{Name: r.label(d, deploy), At: at.Pos()},
		tasks: map[string]*importer.Task{}, nodes: map[*importer.Task]*importer.Node{}, volumes: map[string]*importer.Node{}, named: map[string]int{}, owners: map[int]*importer.Task{}, mounted: map[string]bool{}, absent: map[string]bool{}}
	r.m.Services = append(r.m.Services, p.s)
	p.s.Scopes = []string{"ecs"}
	p.s.Hosts = []importer.Host{{Name: p.s.Name}}
	if d.node.Kind == importer.Map {
		p.definition(d.node)
	}
	p.containers()
	if len(p.s.Tasks) == 0 {
		d.node.Refuse(importer.RuleInvalid, "the task definition has no container", "Add containerDefinitions.")
		return
	}
	p.resources()
	p.namespaces()
	p.kind()
	if deploy != nil && deploy.schedule == nil {
		p.deployment(deploy)
	}
	if deploy == nil {
		deploy = &deployment{scope: d.scope}
	}
	r.routes = append(r.routes, &target{service: p.s, deploy: deploy, def: d})
}

// kind finds what starts the tasks: a service, a schedule or an operator.
func (p *part) kind() {
	if k := p.src.Kinds[p.s.Name]; k != "" {
		p.s.Kind = k
	}
	if p.deploy != nil && p.deploy.schedule != nil {
		p.s.Kind, p.s.Periodic = importer.KindBatch, p.deploy.schedule.periodic
		p.deploy.schedule.apply(p)
	}
	if p.deploy == nil && p.s.Kind == "" && len(p.s.Ports) == 0 && p.s.Network != "host" {
		p.ledger.Warn(p.def.node.Pos(), "restart", fmt.Sprintf("no service in the input runs %s; it becomes a service, which starts again when it ends", p.s.Name), fmt.Sprintf("Say --kind %s=batch if it runs to an end, as with aws ecs run-task.", p.s.Name))
	}
	if p.s.Kind == importer.KindBatch || p.s.Kind == importer.KindSysbatch {
		p.s.Restart = &importer.Restart{Mode: "fail"}
		p.s.Hosts = nil // a task that runs to an end has no callers
		for i := range p.s.Ports {
			p.s.Ports[i].Private = true
		}
	}
}

// definition maps what a task definition says beside its containers.
func (p *part) definition(n *importer.Node) {
	get := func(key string) *importer.Node { return p.get(n, key) }
	for _, key := range []string{"taskDefinitionArn", "revision", "status", "requiresAttributes", "compatibilities", "registeredAt", "registeredBy", "deregisteredAt", "deleteRequestedAt"} {
		get(key).Drop("the state of the task definition in AWS")
	}
	get("requiresCompatibilities").Drop("Nomad runs the tasks on its own clients")
	get("executionRoleArn").Drop("ECS needs this role to start the tasks; Nomad has credentials of its own")
	get("enableFaultInjection").Drop("fault injection of AWS has no effect when the application runs")
	get("taskRoleArn").Warn("aws-identity", fmt.Sprintf("the containers of %s have no credentials of the task role", p.s.Name), "If they call AWS, give the nodes an instance profile, or the tasks keys in secrets.")
	get("proxyConfiguration").Warn("unsupported", "App Mesh does not run on Nomad", "Remove the proxy; services find one another by the mesh of the stack.")
	get("inferenceAccelerators").Refuse("device", "Nomad has no plugin for Elastic Inference", "Remove inferenceAccelerators.")
	switch p.mode = strings.ToLower(p.word(get("networkMode"))); p.mode {
	case "host", "none":
		p.s.Network = p.mode
	case "":
		p.mode = "bridge"
		for _, c := range p.items(get("requiresCompatibilities")) {
			if strings.EqualFold(p.value(c), "FARGATE") {
				p.mode = "awsvpc"
			}
		}
	}
	for _, v := range p.items(get("volumes")) {
		p.volumes[p.word(p.get(v, "name"))] = v
	}
	if size, ok := p.number(p.get(n, "ephemeralStorage", "sizeInGiB")); ok {
		p.s.EphemeralDisk = min(max(size, 1), 4096) * 1024
	}
	platform := get("runtimePlatform")
	switch arch := strings.ToUpper(p.word(p.get(platform, "cpuArchitecture"))); arch {
	case "":
	case "ARM64":
		p.constrain("${attr.cpu.arch}", "", "arm64")
	default:
		p.constrain("${attr.cpu.arch}", "", "amd64")
	}
	if system := strings.ToLower(p.word(p.get(platform, "operatingSystemFamily"))); strings.HasPrefix(system, "windows") {
		p.constrain("${attr.kernel.name}", "", "windows")
	} else if system != "" {
		p.constrain("${attr.kernel.name}", "", "linux")
	}
	p.placement(get("placementConstraints"))
	p.tags(get("tags"))
}

// namespaces maps what the containers share with one another or with the node.
func (p *part) namespaces() {
	if p.def.node.Kind != importer.Map {
		return
	}
	for key, name := range map[string]string{"ipcMode": "ipc_mode", "pidMode": "pid_mode"} {
		n := p.get(p.def.node, key)
		switch value := strings.ToLower(p.word(n)); {
		case value == "host", value == "none" && key == "ipcMode":
			for _, t := range p.s.Tasks {
				p.setting(t, name, importer.Quote(value))
				slices.SortStableFunc(t.Settings, func(a, b importer.Setting) int { return strings.Compare(a.Name, b.Name) })
			}
			if value == "host" {
				p.need(n, p.s.Tasks[0], "allow_privileged = true")
			}
		case value == "task" && len(p.s.Tasks) > 1:
			n.Warn("unsupported", fmt.Sprintf("the containers of %s share their %s; the tasks of a group do not", p.s.Name, map[string]string{"ipcMode": "memory for communication", "pidMode": "processes"}[key]), "Run the programs in one container.")
		}
	}
}

func (p *part) constrain(attribute, operator, value string) {
	c := importer.Constraint{Attribute: attribute, Operator: operator, Value: value}
	if !slices.Contains(p.s.Constraints, c) {
		p.s.Constraints = append(p.s.Constraints, c)
	}
}

var metaKey = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)

// tags become meta of the service in Consul.
func (c *scope) tagsOf(n *importer.Node, s *importer.Service) {
	for _, tag := range c.items(n) {
		key, value := c.value(c.get(tag, "key")), c.value(c.get(tag, "value"))
		if !metaKey.MatchString(key) || len(value) > 512 || lint.InClear(key, value) {
			tag.Drop("the tag fits into no meta of Consul, and has no effect when the application runs")
			continue
		}
		if s.Meta == nil {
			s.Meta = map[string]string{}
		}
		s.Meta[key] = value
		c.word(c.get(tag, "key"))
		c.word(c.get(tag, "value"))
	}
}

func (p *part) tags(n *importer.Node) { p.tagsOf(n, p.s) }

var (
	expression = regexp.MustCompile(`^\s*(?:attribute:)?([A-Za-z0-9_.:/-]+)\s*(==|!=|=~|!~|in|not_in|!in|exists|!exists|not_exists)\s*(.*?)\s*$`)
	and        = regexp.MustCompile(`(?i)\s+and\s+|\s*&&\s*`)
)

// placement maps constraints of the cluster query language.
func (p *part) placement(n *importer.Node) { p.scope.placementOf(n, p) }

func (c *scope) placementOf(n *importer.Node, p *part) {
	for _, item := range c.items(n) {
		switch kind := c.word(c.get(item, "type")); kind {
		case "distinctInstance":
			p.constrain("", "distinct_hosts", "true")
		case "memberOf", "":
			text := c.word(c.get(item, "expression"))
			for _, term := range and.Split(text, -1) {
				p.member(item, term)
			}
		default:
			item.Refuse(importer.RuleInvalid, fmt.Sprintf("%q is no type of a placement constraint", kind), "Use memberOf or distinctInstance.")
		}
	}
}

func (p *part) member(n *importer.Node, term string) {
	m := expression.FindStringSubmatch(term)
	if m == nil || strings.HasPrefix(strings.TrimSpace(term), "task:") || strings.HasPrefix(strings.TrimSpace(term), "agent") || strings.ContainsAny(m[3], "()") && !strings.Contains(m[2], "~") || strings.Contains(strings.ToLower(m[3]), " or ") {
		n.Refuse("unsupported", fmt.Sprintf("the placement constraint %q cannot be said in a constraint of Nomad", strings.TrimSpace(term)), "Write it with ==, !=, =~, in and \"and\", or allow it and write a constraint block.")
		return
	}
	name, operator, value := m[1], m[2], strings.Trim(m[3], `"'`)
	attribute, meta := attribute(name)
	if attribute == "${attr.cpu.arch}" {
		value = strings.ReplaceAll(value, "x86_64", "amd64")
	}
	if meta {
		n.Warn("node-meta", fmt.Sprintf("the constraint reads %s of the nodes", attribute), "Write it into meta of the clients.")
	}
	var words []string
	for _, w := range strings.Split(strings.Trim(value, "[]"), ",") {
		words = append(words, regexp.QuoteMeta(strings.Trim(strings.TrimSpace(w), `"'`)))
	}
	switch operator {
	case "==":
		p.constrain(attribute, "", value)
	case "!=":
		p.constrain(attribute, "!=", value)
	case "=~":
		if _, err := regexp.Compile(value); err != nil {
			n.Refuse(importer.RuleInvalid, fmt.Sprintf("%q is no regular expression", value), "Correct the placement constraint.")
			return
		}
		p.constrain(attribute, "regexp", "^(?:"+value+")$")
	case "in":
		p.constrain(attribute, "regexp", "^(?:"+strings.Join(words, "|")+")$")
	case "not_in", "!in":
		for _, w := range words {
			p.constrain(attribute, "!=", strings.ReplaceAll(w, `\`, ""))
		}
	case "exists":
		p.constrain(attribute, "is_set", "")
	case "!exists", "not_exists":
		p.constrain(attribute, "is_not_set", "")
	default:
		n.Refuse("unsupported", fmt.Sprintf("Nomad cannot require that %s does not match a pattern", name), "Name the values with not_in.")
	}
}

// attribute is the attribute of a Nomad node for one of a container instance.
func attribute(name string) (string, bool) {
	switch strings.TrimPrefix(name, "attribute:") {
	case "ecs.instance-type":
		return "${attr.platform.aws.instance-type}", false
	case "ecs.availability-zone":
		return "${attr.platform.aws.placement.availability-zone}", false
	case "ecs.ami-id":
		return "${attr.platform.aws.ami-id}", false
	case "ecs.os-type":
		return "${attr.kernel.name}", false
	case "ecs.cpu-architecture":
		return "${attr.cpu.arch}", false
	case "instanceId", "host", "ecs.instance-id":
		return "${node.unique.id}", false
	}
	return "${meta." + strings.NewReplacer(":", "_", "/", "_").Replace(strings.TrimPrefix(name, "attribute:")) + "}", true
}

// share divides what the task has over the containers that say nothing.
func share(total float64, own float64, without int) float64 {
	if without == 0 || total <= own {
		return 0
	}
	return (total - own) / float64(without)
}

var amount = regexp.MustCompile(`(?i)^\s*([0-9]*\.?[0-9]+)\s*(gb|vcpu)?\s*$`)

// sized is a size of a task: 1024, 1GB or .5 vCPU, in MB and in 1/1024 of a CPU.
func (p *part) sized(n *importer.Node) float64 {
	if n = p.reduce(n); !n.Exists() {
		return 0
	}
	m := amount.FindStringSubmatch(p.value(n))
	if m == nil {
		n.Warn("unset-variable", fmt.Sprintf("%s has no number in the input", n.Path()), "Write it into the resources of the tasks.")
		return 0
	}
	p.word(n)
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil || v > 1<<24 {
		return 0
	}
	if m[2] != "" {
		v *= 1024
	}
	return v
}

// resources gives the CPU and the memory of the task to the containers without own
// values.
func (p *part) resources() {
	var cpu, memory float64
	if p.def.node.Kind == importer.Map {
		cpu, memory = p.sized(p.get(p.def.node, "cpu")), p.sized(p.get(p.def.node, "memory"))
	}
	var ownCPU, ownMemory float64
	noCPU, noMemory := 0, 0
	for _, t := range p.s.Tasks {
		ownCPU += t.Resources.Cores * 1024
		ownMemory += float64(max(t.Resources.MemoryMax, t.Resources.Memory))
		if t.Resources.Cores == 0 {
			noCPU++
		}
		if t.Resources.MemoryMax+t.Resources.Memory == 0 {
			noMemory++
		}
	}
	for _, t := range p.s.Tasks {
		if t.Resources.Cores == 0 {
			t.Resources.Cores = math.Round(share(cpu, ownCPU, noCPU)) / 1024
		}
		if t.Resources.MemoryMax+t.Resources.Memory == 0 {
			t.Resources.MemoryMax = int(share(memory, ownMemory, noMemory))
		}
	}
	if noMemory > 0 && share(memory, ownMemory, noMemory) == 0 {
		p.ledger.Warn(p.def.node.Pos(), "no-memory", fmt.Sprintf("%s does not say how much memory it needs", p.s.Name), "Set memory of the stack, by task.")
	}
}

// deployment maps a service.
func (p *part) deployment(d *deployment) {
	n := d.node
	get := func(keys ...string) *importer.Node { return d.get(n, keys...) }
	for _, key := range []string{"serviceArn", "clusterArn", "status", "runningCount", "pendingCount", "deployments", "events", "createdAt", "createdBy", "taskSets", "roleArn", "platformFamily", "currentServiceDeployment", "currentServiceRevisions"} {
		get(key).Drop("the state of the service in AWS")
	}
	get("cluster").Drop("the cluster is Nomad's")
	get("role").Drop("a role of AWS")
	for _, key := range []string{"launchType", "capacityProviderStrategy", "platformVersion", "enableECSManagedTags", "propagateTags", "enableExecuteCommand", "availabilityZoneRebalancing", "clientToken"} {
		get(key).Drop("Nomad places and runs the tasks")
	}
	if net := get("networkConfiguration"); net != nil {
		net.Warn("no-isolation", fmt.Sprintf("%s is in subnets and security groups of AWS; Nomad does not separate networks", p.s.Name), "Use the firewall of the nodes.")
	}
	count := 1
	if v, ok := d.number(get("desiredCount")); ok && v >= 0 {
		count = v
		p.s.Count = &v
	}
	if strings.EqualFold(d.word(get("schedulingStrategy")), "DAEMON") {
		p.s.Kind = importer.KindSystem
	}
	if count > 1 && len(p.s.Volumes) > 0 {
		p.ledger.Warn(get("desiredCount").Pos(), "volume-shared", fmt.Sprintf("the %d instances of %s share the volumes of one node; on ECS, each node has its own", count, p.s.Name), "Let one instance run, or make one service of each.")
		for i := range p.s.Volumes {
			p.s.Volumes[i].Shared = true
		}
	}
	p.update(d, get("deploymentConfiguration"), get("deploymentController"), count)
	d.placementOf(get("placementConstraints"), p)
	for _, item := range append(d.items(get("placementStrategy")), d.items(get("placementStrategies"))...) {
		field := d.word(d.get(item, "field"))
		if kind := d.word(d.get(item, "type")); kind == "spread" && field != "" {
			name, meta := attribute(field)
			p.s.Spreads = append(p.s.Spreads, name)
			if meta {
				item.Warn("node-meta", fmt.Sprintf("the tasks spread over %s of the nodes", name), "Write it into meta of the clients.")
			}
		}
	}
	grace, _ := d.number(get("healthCheckGracePeriodSeconds"))
	for _, lb := range d.items(get("loadBalancers")) {
		p.balanced(d, lb, time.Duration(grace)*time.Second)
	}
	for i := range p.s.Checks {
		if p.s.Checks[i].Restart > 0 && grace > 0 {
			p.s.Checks[i].Grace = max(p.s.Checks[i].Grace, time.Duration(grace)*time.Second)
		}
	}
	p.registries(d, get("serviceRegistries"))
	p.serviceConnect(d, get("serviceConnectConfiguration"))
	get("volumeConfigurations").Warn("volume-driver", "the volumes of EBS are made for each task in AWS", "Register them as CSI volumes.")
	get("vpcLatticeConfigurations").Warn("route", "VPC Lattice has no counterpart", "Give the service a route of the edge.")
	d.tagsOf(get("tags"), p.s)
}

// update maps how a service replaces its tasks.
func (p *part) update(d *deployment, n, controller *importer.Node, count int) {
	u := &importer.Update{}
	number := func(v int) *int { return &v }
	if most, ok := d.number(d.get(n, "maximumPercent")); ok && most != 200 || ok && count > 1 {
		switch canary := count * (most - 100) / 100; {
		case most <= 100:
			u.Canary = number(0)
		default:
			u.Canary = number(min(max(canary, 1), max(count, 1)))
		}
	}
	if least, ok := d.number(d.get(n, "minimumHealthyPercent")); ok && least < 100 {
		if parallel := count * (100 - least) / 100; parallel > 1 {
			u.MaxParallel = number(parallel)
		}
	}
	breaker := d.get(n, "deploymentCircuitBreaker")
	d.word(d.get(breaker, "enable"))
	if back := d.get(breaker, "rollback"); back != nil && !d.flag(back) {
		back.Drop("drover reverts a failed version in any case")
	}
	if alarms := d.get(n, "alarms"); alarms != nil {
		alarms.Warn("update", "alarms of CloudWatch do not end a deployment of Nomad", "Write a gate into stack.hcl, or let the health check fail.")
	}
	strategy := strings.ToUpper(d.word(d.get(n, "strategy")))
	kind := strings.ToUpper(d.word(d.get(controller, "type")))
	if strategy == "BLUE_GREEN" || strategy == "CANARY" || strategy == "LINEAR" || kind == "CODE_DEPLOY" || kind == "EXTERNAL" {
		no := false
		u.Canary, u.AutoPromote = number(max(count, 1)), &no
		at := controller
		if strategy != "" {
			at = n
		}
		p.ledger.Warn(at.Pos(), "update", fmt.Sprintf("%s deploys blue and green; on Nomad, all new instances are canaries", p.s.Name), "Promote them with nomad deployment promote, or set auto_promote = true.")
	}
	for _, key := range []string{"bakeTimeInMinutes", "lifecycleHooks", "canaryConfiguration", "linearConfiguration"} {
		d.get(n, key).Warn("update", fmt.Sprintf("%s of the deployment has no counterpart", key), "Use the waves and the gates of drover.")
	}
	if *u != (importer.Update{}) {
		p.s.Update = u
	}
}

// registries maps names of Cloud Map.
func (p *part) registries(d *deployment, n *importer.Node) {
	for _, item := range d.items(n) {
		d.word(d.get(item, "containerName"))
		d.number(d.get(item, "containerPort"))
		d.number(d.get(item, "port"))
		arn := d.get(item, "registryArn")
		res := d.root.Get("Resources", d.resource(arn), "Properties")
		name := d.value(res.Get("Name"))
		space := res.Get("NamespaceId")
		if space == nil {
			space = res.Get("DnsConfig", "NamespaceId")
		}
		domain := d.value(d.root.Get("Resources", d.resource(space), "Properties", "Name"))
		if res == nil || name == "" || domain == "" {
			arn.Warn("embedded-dns", fmt.Sprintf("the name of %s in Cloud Map is not in the input", p.s.Name), fmt.Sprintf("Other services of the stack reach it as %s; change their configuration.", p.s.Name))
			continue
		}
		arn.Take()
		res.Take()
		d.head(d.root.Get("Resources", d.resource(arn)))
		p.host(name + "." + domain)
	}
}

var hostText = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$`)

func (p *part) host(name string) {
	name = strings.ToLower(name)
	if hostText.MatchString(name) && !slices.ContainsFunc(p.s.Hosts, func(h importer.Host) bool { return h.Name == name }) {
		p.s.Hosts = append(p.s.Hosts, importer.Host{Name: name})
	}
}

// serviceConnect maps the names and ports of Service Connect.
func (p *part) serviceConnect(d *deployment, n *importer.Node) {
	if n == nil {
		return
	}
	space := d.word(d.get(n, "namespace"))
	space = space[strings.LastIndexByte(space, '/')+1:]
	enabled := d.get(n, "enabled")
	d.get(n, "logConfiguration").Drop("the logs of the proxy of Service Connect, which Nomad does not need")
	if enabled != nil && !d.flag(enabled) {
		return
	}
	for _, s := range d.items(d.get(n, "services")) {
		port := d.word(d.get(s, "portName"))
		name := d.word(d.get(s, "discoveryName"))
		if name == "" {
			name = port
		}
		d.get(s, "ingressPortOverride").Drop("a port of the proxy of Service Connect")
		d.get(s, "timeout").Drop("the mesh forwards TCP and does not end idle requests")
		d.get(s, "tls").Warn("unsupported", "Service Connect encrypts between its proxies; the mesh of the stack does not", "Encrypt in the application, if the network of the nodes is not trusted.")
		at := slices.IndexFunc(p.s.Ports, func(o importer.Port) bool { return p.named[port] == o.Number })
		aliases := d.items(d.get(s, "clientAliases"))
		if len(aliases) == 0 && space != "" {
			p.host(name + "." + space)
		}
		for _, alias := range aliases {
			host := d.word(d.get(alias, "dnsName"))
			if host == "" {
				host = name
				if space != "" {
					host += "." + space
				}
			}
			p.host(host)
			number, ok := d.number(d.get(alias, "port"))
			if ok && at >= 0 && number != p.s.Ports[at].Number {
				p.s.Ports[at].Listen = number
			}
		}
	}
}
