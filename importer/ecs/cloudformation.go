package ecs

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/cronexpr"

	"github.com/drover-nomad/drover/importer"
)

// resources finds the task definitions, the services and the schedules of a template.
func (c *scope) resources(root *importer.Node) {
	for _, res := range root.Get("Resources").Fields() {
		if cond := res.Get("Condition"); cond != nil && !c.condition(cond.Peek()) {
			res.Drop(fmt.Sprintf("the condition %s leaves the resource out, with the defaults of the parameters", cond.Peek()))
			continue
		}
		properties := res.Get("Properties")
		switch res.Get("Type").Peek() {
		case "AWS::ECS::TaskDefinition":
			c.untemplated(properties)
			if properties == nil {
				res.Refuse(importer.RuleInvalid, "the task definition has no properties", "Add ContainerDefinitions.")
				continue
			}
			c.head(res)
			c.defs = append(c.defs, &definition{scope: c, node: properties, id: res.Key})
		case "AWS::ECS::Service":
			if properties == nil {
				res.Refuse(importer.RuleInvalid, "the service has no properties", "Add TaskDefinition.")
				continue
			}
			p := &deployment{scope: c, node: properties, id: res.Key, after: c.head(res)}
			c.deploys = append(c.deploys, p)
		case "AWS::Events::Rule":
			for _, t := range c.items(properties.Get("Targets")) {
				if parameters := t.Get("EcsParameters"); parameters != nil {
					c.head(res)
					c.schedule(res.Key, properties, t, parameters)
				}
			}
		case "AWS::Scheduler::Schedule":
			if parameters := properties.Get("Target", "EcsParameters"); parameters != nil {
				c.head(res)
				c.schedule(res.Key, properties, properties.Get("Target"), parameters)
			}
		}
	}
}

// head accounts for the attributes of a resource beside its properties, and returns
// the resources on which it depends.
func (c *scope) head(res *importer.Node) []string {
	res.Get("Type").Take()
	res.Get("Condition").Take()
	var after []string
	if d := res.Get("DependsOn"); d != nil {
		if d.Take(); d.Kind == importer.Scalar {
			after = append(after, d.Peek())
		}
		for _, item := range d.Items() {
			after = append(after, item.Peek())
		}
	}
	for _, key := range []string{"Metadata", "DeletionPolicy", "UpdatePolicy", "CreationPolicy", "UpdateReplacePolicy"} {
		res.Get(key).Drop("an attribute for CloudFormation itself")
	}
	return after
}

// inert are resources of AWS that containers do not use when they run.
var inert = regexp.MustCompile(`^Custom::|^AWS::(CDK|EC2|IAM|Logs|AutoScaling|CloudWatch|ECR|KMS|CertificateManager|CloudFormation|Code(Build|Pipeline|Deploy|Commit|StarNotifications)|Budgets` +
	`|WAF|WAFv2|GuardDuty|CloudTrail|Config|ResourceGroups|ServiceDiscovery|ECS::(Cluster|CapacityProvider|ClusterCapacityProviderAssociations)` +
	`|ElasticLoadBalancingV2::(LoadBalancer|ListenerCertificate))(::|$)`)

// balancing are resources that balance may use.
var balancing = regexp.MustCompile(`^AWS::ElasticLoadBalancing(V2::(TargetGroup|Listener|ListenerRule)|::LoadBalancer)$`)

// rest accounts for what no service uses.
func (c *scope) rest() {
	if !c.template {
		c.root.Walk(func(n *importer.Node) {
			if n.Kind == importer.Null { // as if it were absent
				n.Take()
			}
		})
		return
	}
	for _, key := range []string{"AWSTemplateFormatVersion", "Description"} {
		c.root.Get(key).Take()
	}
	for _, key := range []string{"Metadata", "Outputs", "Rules", "Hooks"} {
		c.root.Get(key).Drop(key + " has no effect when the application runs")
	}
	if t := c.root.Get("Transform"); t != nil {
		t.Warn("unsupported", "the template has macros, which AWS expands", "Import the expanded template: aws cloudformation get-template --template-stage Processed.")
	}
	for _, res := range c.root.Get("Resources").Fields() {
		kind := res.Get("Type").Peek()
		switch {
		case res.Used():
		case balancing.MatchString(kind):
		case strings.HasPrefix(kind, "AWS::ApplicationAutoScaling::"):
			res.Warn("unsupported", fmt.Sprintf("%s changes the number of instances by itself, which needs the Nomad Autoscaler", res.Key), "Run nomad-autoscaler and write a scaling block, or set count.")
		case inert.MatchString(kind):
			res.Drop(fmt.Sprintf("%s is a part of the infrastructure of AWS", kind))
		default:
			res.Warn("unsupported", fmt.Sprintf("%s (%s) runs no container, and is not a part of the stack", res.Key, kind), "Keep it in AWS, or run something in its place, and set the values that name it.")
		}
	}
}

// unused accounts for what nothing has read at the end.
func (c *scope) unused() {
	for _, res := range c.root.Get("Resources").Fields() {
		if kind := res.Get("Type").Peek(); !res.Used() && balancing.MatchString(kind) {
			res.Drop(fmt.Sprintf("no service of the stack is behind this %s", kind))
		}
	}
	for _, key := range []string{"Parameters", "Conditions", "Mappings"} {
		for _, n := range c.root.Get(key).Fields() {
			if !n.Used() {
				n.Drop(fmt.Sprintf("nothing that is imported uses %s", n.Path()))
				continue
			}
			if key == "Mappings" {
				n.Take()
			}
		}
	}
}

// balanced maps a load balancer of a service: the check of its target group.
func (p *part) balanced(d *deployment, lb *importer.Node, grace time.Duration) {
	name := d.word(d.get(lb, "containerName"))
	port, ok := d.number(d.get(lb, "containerPort"))
	d.get(lb, "advancedConfiguration").Drop("Nomad's canaries take the place of the second target group")
	d.get(lb, "roleArn").Drop("a role of AWS")
	if ok && port > 0 && port < 65536 && p.s.Network != "none" && !slices.ContainsFunc(p.s.Ports, func(o importer.Port) bool { return o.Number == port && !o.UDP }) {
		p.s.Ports = append(p.s.Ports, importer.Port{Number: port, At: lb.Pos(), Reason: "The load balancer connects to it."})
	}
	if at := slices.IndexFunc(p.s.Ports, func(o importer.Port) bool { return o.Number == port && !o.UDP }); at > 0 {
		first := p.s.Ports[at] // routes are those of the first port
		p.s.Ports = slices.Insert(slices.Delete(p.s.Ports, at, at+1), 0, first)
	}
	if classic := d.get(lb, "loadBalancerName"); classic != nil {
		classic.Warn("route", fmt.Sprintf("port %d of %s is behind a classic load balancer", port, p.s.Name), "Write a tag drover.route=HOST/PATH or drover.tcp=PORT into its service block.")
	}
	arn := d.get(lb, "targetGroupArn")
	id := d.resource(arn)
	group := d.root.Get("Resources", id)
	if id == "" || group.Get("Properties") == nil {
		if len(p.src.Routes[p.s.Name]) > 0 {
			arn.Take()
			return
		}
		arn.Warn("route", fmt.Sprintf("port %d of %s is behind a load balancer whose listeners are not in the input", port, p.s.Name), fmt.Sprintf("Say --route %s=HOST/PATH, or write a tag drover.tcp=PORT into its service block.", p.s.Name))
		return
	}
	arn.Take()
	d.head(group)
	p.check(d, group.Get("Properties"), name, port, grace)
}

// check maps the health check of a target group.
func (p *part) check(d *deployment, g *importer.Node, container string, port int, grace time.Duration) {
	for _, key := range []string{"VpcId", "Name", "TargetType", "Port", "Tags", "IpAddressType", "ProtocolVersion", "Protocol"} {
		g.Get(key).Drop("the mesh of the stack takes the place of the target group")
	}
	g.Get("HealthyThresholdCount").Drop("a new instance is healthy at its first success, as a new target is")
	for _, a := range d.items(g.Get("TargetGroupAttributes")) {
		if d.value(a.Get("Key")) == "stickiness.enabled" && strings.EqualFold(d.value(a.Get("Value")), "true") {
			a.Take()
			p.s.Tags = append(p.s.Tags, importer.Lit(sticky))
			continue
		}
		a.Drop("an attribute of the load balancer of AWS")
	}
	if on := g.Get("HealthCheckEnabled"); on != nil && !d.flag(on) {
		return
	}
	number := func(key string, standard int) int {
		if v, ok := d.number(g.Get(key)); ok && v > 0 {
			return min(v, 3600)
		}
		return standard
	}
	c := importer.Check{Type: "http", Port: port, Path: "/", Interval: time.Duration(number("HealthCheckIntervalSeconds", 30)) * time.Second,
		Timeout: time.Duration(number("HealthCheckTimeoutSeconds", 5)) * time.Second, Grace: grace}
	c.Failures = number("UnhealthyThresholdCount", 2)
	c.Restart = c.Failures
	protocol := strings.ToUpper(d.value(g.Get("HealthCheckProtocol")))
	if protocol == "" && strings.Contains("TCP UDP TLS TCP_UDP", strings.ToUpper(d.value(g.Get("Protocol")))) && d.value(g.Get("Protocol")) != "" {
		protocol = "TCP"
	}
	d.word(g.Get("HealthCheckProtocol"))
	switch protocol {
	case "TCP":
		c.Type, c.Path = "tcp", ""
	case "HTTPS":
		c.Protocol = "https"
	}
	if path := d.word(g.Get("HealthCheckPath")); strings.HasPrefix(path, "/") {
		c.Path = path
	}
	if n := g.Get("HealthCheckPort"); n != nil {
		if v, err := strconv.Atoi(d.word(n)); err == nil && v > 0 && v < 65536 {
			c.Port = v
			if !slices.ContainsFunc(p.s.Ports, func(o importer.Port) bool { return o.Number == v }) {
				p.s.Ports = append(p.s.Ports, importer.Port{Number: v, At: n.Pos(), Reason: "From the health check."})
			}
		}
	}
	if m := g.Get("Matcher"); m != nil {
		code := d.value(m.Get("HttpCode"))
		if code == "" {
			code = d.value(m.Get("GrpcCode"))
		}
		if strings.HasPrefix(code, "2") && !strings.Contains(code, ",") || code == "200,201" {
			m.Take()
		} else {
			m.Warn("health", fmt.Sprintf("the load balancer takes the status %s as healthy; Consul takes 200 to 299", code), "Choose a path that answers 200.")
		}
	}
	if t := p.tasks[container]; t != nil {
		c.Task = t.Name
	}
	p.s.Checks = append(p.s.Checks, c)
	if deadline := grace + time.Duration(c.Failures+1)*c.Interval + time.Minute; deadline > 5*time.Minute && c.Restart > 0 {
		progress := 2 * deadline
		if p.s.Update == nil {
			p.s.Update = &importer.Update{}
		}
		p.s.Update.HealthyDeadline, p.s.Update.ProgressDeadline = &deadline, &progress
	}
}

// forwards returns the target groups to which actions forward, and marks them.
func (c *scope) forwards(actions *importer.Node) []string {
	var out []string
	for _, a := range c.items(actions) {
		all := []*importer.Node{a.Get("TargetGroupArn")}
		for _, g := range c.items(a.Get("ForwardConfig", "TargetGroups")) {
			all = append(all, g.Get("TargetGroupArn"))
		}
		for _, arn := range all {
			if id := c.resource(arn); id != "" {
				out = append(out, id)
			}
		}
	}
	return out
}

// behind returns the service behind a target group, and its port.
func (r *reader) behind(c *scope, group string) (*target, int) {
	for _, t := range r.routes {
		d := t.deploy
		if d.scope != c || d.node == nil {
			continue
		}
		for _, lb := range d.items(d.get(d.node, "loadBalancers")) {
			if d.resource(d.get(lb, "targetGroupArn")) == group {
				port, err := strconv.Atoi(d.value(d.get(lb, "containerPort")))
				if err == nil {
					return t, port
				}
			}
		}
	}
	return nil, 0
}

// balance maps the listeners of load balancers and their rules: ports of every node,
// and routes of the edge.
func (r *reader) balance() {
	for _, c := range r.scopes {
		if !c.template {
			continue
		}
		for _, res := range c.root.Get("Resources").Fields() {
			switch res.Get("Type").Peek() {
			case "AWS::ElasticLoadBalancingV2::Listener":
				c.listener(res)
			case "AWS::ElasticLoadBalancingV2::ListenerRule":
				c.rule(res)
			case "AWS::ElasticLoadBalancing::LoadBalancer":
				res.Warn("route", fmt.Sprintf("%s is a classic load balancer", res.Key), "Write a tag drover.route=HOST/PATH or drover.tcp=PORT into the service block behind it.")
			}
		}
		c.unused()
	}
	for _, s := range r.m.Services {
		r.unrouted(s)
	}
	r.certificates()
}

const sticky = "drover.sticky=cookie"

// unrouted removes tags that mean something to a route only, of a service without one.
func (r *reader) unrouted(s *importer.Service) {
	prefixed := func(prefix string) func(importer.Text) bool {
		return func(tag importer.Text) bool {
			text, _ := tag.Literal()
			return strings.HasPrefix(text, prefix)
		}
	}
	if !slices.ContainsFunc(s.Tags, prefixed(sticky)) || slices.ContainsFunc(s.Tags, prefixed("drover.route=")) {
		return
	}
	s.Tags = slices.DeleteFunc(s.Tags, prefixed(sticky))
	r.ledger.Warn(s.At, "route", fmt.Sprintf("the load balancer keeps a client at one instance of %s, and the mesh does not", s.Name), "Write the tags drover.route=HOST/PATH and "+sticky+" into its service block.")
}

// publish makes a port of every node. It reports whether no other service has it.
func (r *reader) publish(at *importer.Node, number int, t *target, port int) bool {
	for _, o := range r.m.Published {
		if o.Port == number {
			return o.Service == t.service.Name && o.Target == port
		}
	}
	r.m.Published = append(r.m.Published, importer.Published{Port: number, Service: t.service.Name, Target: port, At: at.Pos()})
	return true
}

func (c *scope) listener(res *importer.Node) {
	properties := res.Get("Properties")
	groups := c.forwards(properties.Get("DefaultActions"))
	if len(groups) == 0 {
		return
	}
	t, port := c.behind(c, groups[0])
	if t == nil {
		return
	}
	c.head(res)
	number, ok := c.number(properties.Get("Port"))
	protocol := strings.ToUpper(c.word(properties.Get("Protocol")))
	properties.Get("DefaultActions").Take()
	properties.Get("LoadBalancerArn").Take()
	remedy := "Write a tag drover.route=HOST/ into the service block of " + t.service.Name + "."
	switch {
	case protocol == "HTTPS" || protocol == "TLS":
		properties.Warn("route", fmt.Sprintf("the load balancer ends TLS for %s on port %d, without a name", t.service.Name, number), "Write a tag drover.route=HOST/ into the service block, and a certificate block with HOST into stack.hcl.")
	case protocol == "UDP" || protocol == "TCP_UDP":
		properties.Warn("udp-static", fmt.Sprintf("the load balancer forwards UDP port %d to %s", number, t.service.Name), "Make it a static port of the job.")
	case !ok || number < 1 || number > 65535:
		properties.Warn("route", fmt.Sprintf("the listener of %s has no number", t.service.Name), remedy)
	case !c.publish(res, number, t, port):
		properties.Warn("port-conflict", fmt.Sprintf("port %d of two load balancers cannot be two services on every node", number), remedy)
	}
}

// rule maps a rule of a listener to routes.
func (c *scope) rule(res *importer.Node) {
	properties := res.Get("Properties")
	groups := c.forwards(properties.Get("Actions"))
	if len(groups) == 0 {
		return
	}
	t, port := c.behind(c, groups[0])
	if t == nil {
		return
	}
	c.head(res)
	properties.Get("Priority").Drop("the longest path of a host wins")
	for _, a := range c.items(properties.Get("Actions")) {
		if kind := c.value(a.Get("Type")); strings.HasPrefix(kind, "authenticate") {
			a.Refuse("forward-auth", "the load balancer lets only users in who have logged in", "Write drover.forward-auth. Allowed, the route is left out.")
			return
		}
		a.Take()
	}
	var hosts, allow []string
	paths := []string{}
	skip := false
	for _, cond := range c.items(properties.Get("Conditions")) {
		field := c.word(cond.Get("Field"))
		var values []string
		for _, list := range []*importer.Node{cond.Get("Values"), cond.Get("HostHeaderConfig", "Values"), cond.Get("PathPatternConfig", "Values"), cond.Get("SourceIpConfig", "Values")} {
			for _, v := range c.items(list) {
				values = append(values, c.word(v))
			}
		}
		switch field {
		case "host-header":
			hosts = append(hosts, values...)
		case "path-pattern":
			paths = append(paths, values...)
		case "source-ip":
			allow = append(allow, values...)
		default:
			cond.Warn("route", fmt.Sprintf("the edge does not choose by %s, and the rule has no route", field), "Let the service decide.")
			skip = true
		}
	}
	if len(allow) > 0 && len(hosts) == 0 {
		res.Refuse("route", fmt.Sprintf("only some addresses reach %s, and the rule names no host for a route of the edge", t.service.Name), "Name its host in the rule. Allowed, the route is left out.")
		return
	}
	if skip {
		return
	}
	if len(paths) == 0 {
		paths = []string{"*"}
	}
	listener := c.root.Get("Resources", c.resource(properties.Get("ListenerArn")), "Properties")
	properties.Get("ListenerArn").Take()
	protocol := strings.ToUpper(c.value(listener.Get("Protocol")))
	number, err := strconv.Atoi(c.value(listener.Get("Port")))
	for _, path := range paths {
		prefix, exact := strings.CutSuffix(path, "*")
		exact = !exact
		if prefix == "" {
			prefix = "/"
		}
		if len(hosts) == 0 {
			if prefix == "/" && protocol != "HTTPS" && err == nil && number > 0 && number < 65536 && c.publish(res, number, t, port) {
				continue
			}
			c.ledger.Warn(res.Pos(), "route", fmt.Sprintf("the load balancer forwards %s to %s for every host", path, t.service.Name), fmt.Sprintf("Write a tag drover.route=HOST%s into its service block.", prefix))
			continue
		}
		for _, host := range hosts {
			if host = strings.ToLower(host); !importer.IsRouteHost(host) || !importer.IsRoutePath(prefix) {
				c.ledger.Warn(res.Pos(), "route", fmt.Sprintf("the edge has no route for host %q and path %q", host, path), "Write a tag drover.route=HOST/PATH with a host name and a plain path.")
				continue
			}
			if exact && prefix != "/" {
				c.ledger.Warn(res.Pos(), "route", fmt.Sprintf("the route of %s matches what begins with %s, not that path alone", host, prefix), "Let the service answer 404 for the rest.")
			}
			c.route(t.service, host+prefix, host, protocol == "HTTPS")
			if len(allow) > 0 {
				c.tag(t.service, importer.Lit("drover.allow="+strings.Join(allow, ",")))
			}
			c.weights(t.service, properties.Get("Actions"))
		}
	}
}

// tag adds a tag for the edge.
func (c *scope) tag(s *importer.Service, tag importer.Text) {
	if !slices.ContainsFunc(s.Tags, func(o importer.Text) bool { return slices.Equal(o, tag) }) {
		s.Tags = append(s.Tags, tag)
	}
}

// weights gives the further target groups of a rule their shares of the requests.
func (c *scope) weights(s *importer.Service, actions *importer.Node) {
	for _, a := range c.items(actions) {
		groups := c.items(a.Get("ForwardConfig", "TargetGroups"))
		total := 0
		shares := make([]int, len(groups))
		for i, g := range groups {
			shares[i] = 1
			if w, ok := c.number(g.Get("Weight")); ok && w >= 0 && w < 1000 {
				shares[i] = w
			}
			total += shares[i]
		}
		for i, g := range groups {
			if i == 0 || shares[i] == 0 {
				continue
			}
			t, port := c.behind(c, c.resource(g.Get("TargetGroupArn")))
			if t == nil || t.service == s {
				g.Warn("route", fmt.Sprintf("a part of the requests to %s goes to a target group without a service", s.Name), "Write drover.weight=PERCENT service NAME.")
				continue
			}
			c.tag(s, append(importer.Lit(fmt.Sprintf("drover.weight=%d service ", (shares[i]*100+total/2)/total)), importer.Consul(t.service.Name, port)...))
		}
	}
}

// route adds a route, and with TLS a name of the certificate.
func (c *scope) route(s *importer.Service, route, host string, tls bool) {
	tag := func(text string) { c.tag(s, importer.Lit(text)) }
	tag("drover.route=" + route)
	if !tls {
		tag("drover.http=serve")
		return
	}
	c.tls = append(c.tls, host)
}

func (r *reader) certificates() {
	slices.Sort(r.tls)
	for _, host := range r.tls {
		r.m.Certify(importer.Lit(host))
	}
}

// schedule is a rule that starts tasks.
type schedule struct {
	definition *importer.Node
	target     *importer.Node
	count      *importer.Node
	periodic   *importer.Periodic
	scope      *scope
}

func (c *scope) schedule(id string, rule, target, parameters *importer.Node) {
	s := &schedule{definition: parameters.Get("TaskDefinitionArn"), target: target, count: parameters.Get("TaskCount"), scope: c}
	for _, n := range []*importer.Node{rule.Get("Description"), rule.Get("Name"), rule.Get("GroupName")} {
		n.Drop("Nomad names the periodic job")
	}
	for _, key := range []string{"Arn", "Id", "RoleArn"} {
		target.Get(key).Drop("the cluster is Nomad's")
	}
	for _, key := range []string{"LaunchType", "NetworkConfiguration", "PlatformVersion", "CapacityProviderStrategy", "PropagateTags", "Tags", "EnableECSManagedTags", "EnableExecuteCommand", "Group"} {
		parameters.Get(key).Drop("Nomad places and runs the tasks")
	}
	rule.Get("RoleArn").Drop("a role of AWS")
	rule.Get("FlexibleTimeWindow").Drop("Nomad starts the task at its time")
	rule.Get("EventPattern").Warn("unsupported", "events of AWS do not start jobs of Nomad", "Start the job with nomad job periodic force, or make it a parameterized job.")
	for _, key := range []string{"RetryPolicy", "DeadLetterConfig"} {
		target.Get(key).Warn("unsupported", "Nomad does not start a periodic job again that could not be placed", "Look at it with drover status.")
	}
	expr := rule.Get("ScheduleExpression")
	disabled := strings.EqualFold(c.word(rule.Get("State")), "DISABLED")
	zone := c.word(rule.Get("ScheduleExpressionTimezone"))
	if zone == "" {
		zone = "UTC"
	}
	if expr == nil {
		return
	}
	text := c.word(expr)
	cron, ok := Cron(text)
	if !ok {
		if !expr.Refuse("unsupported", fmt.Sprintf("the schedule %q has no cron expression", text), "Write one as cron(MINUTE HOUR DAY MONTH WEEKDAY YEAR). Allowed, the job is disabled.") {
			return
		}
		cron, disabled = "0 0 * * *", true
	}
	s.periodic = &importer.Periodic{Crons: []string{cron}, TimeZone: zone, Disabled: disabled}
	c.deploys = append(c.deploys, &deployment{scope: c, node: rule, id: id, schedule: s})
}

// apply maps what a schedule says about its task.
func (s *schedule) apply(p *part) {
	if v, ok := s.scope.number(s.count); ok && v >= 0 {
		p.s.Count = &v
	}
	for _, key := range []string{"Input", "InputPath", "InputTransformer"} {
		s.target.Get(key).Warn("unsupported", "the schedule changes the command or the environment of the containers", "Write the change into the job.")
	}
}

var (
	rate    = regexp.MustCompile(`^rate\(\s*(\d+)\s+(minute|hour|day)s?\s*\)$`)
	cronSix = regexp.MustCompile(`^cron\(\s*(\S+)\s+(\S+)\s+(\S+)\s+(\S+)\s+(\S+)\s+(\S+)\s*\)$`)
	digits  = regexp.MustCompile(`\d+`)
)

// Cron returns the schedule of Nomad for a schedule expression of EventBridge: a rate
// that divides an hour or a day, or a cron expression. It returns false for any other.
func Cron(text string) (string, bool) {
	text = strings.TrimSpace(text)
	if m := rate.FindStringSubmatch(text); m != nil {
		n, err := strconv.Atoi(m[1])
		if err != nil || n < 1 {
			return "", false
		}
		switch unit := m[2]; {
		case n == 1:
			return map[string]string{"minute": "* * * * *", "hour": "0 * * * *", "day": "0 0 * * *"}[unit], true
		case unit == "minute" && n < 60 && 60%n == 0:
			return fmt.Sprintf("*/%d * * * *", n), true
		case unit == "minute" && n%60 == 0 && n/60 < 24 && 24%(n/60) == 0:
			return fmt.Sprintf("0 */%d * * *", n/60), true
		case unit == "hour" && n < 24 && 24%n == 0:
			return fmt.Sprintf("0 */%d * * *", n), true
		case unit == "hour" && n == 24:
			return "0 0 * * *", true
		case unit == "day" && n == 7:
			return "0 0 * * 0", true
		}
		return "", false
	}
	m := cronSix.FindStringSubmatch(text)
	if m == nil {
		return "", false
	}
	day, weekday := strings.ReplaceAll(m[3], "?", "*"), strings.ReplaceAll(m[5], "?", "*")
	// The first day of the week is 1 in AWS and 0 in Nomad; what follows / and # counts.
	words := strings.Split(weekday, ",")
	for i, w := range words {
		at := strings.IndexAny(w, "/#")
		if at < 0 {
			at = len(w)
		}
		words[i] = digits.ReplaceAllStringFunc(w[:at], func(d string) string {
			v, err := strconv.Atoi(d)
			if err != nil || v < 1 {
				return d
			}
			return strconv.Itoa(v - 1)
		}) + w[at:]
	}
	out := []string{m[1], m[2], day, m[4], strings.Join(words, ",")}
	if m[6] != "*" {
		out = append(out, m[6])
	}
	cron := strings.Join(out, " ")
	_, err := cronexpr.Parse(cron) // as Nomad does
	if err != nil {
		return "", false
	}
	return cron, true
}
