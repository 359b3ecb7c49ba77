package kubernetes

import (
	"cmp"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drover-nomad/drover/importer"
)

// maxReplicas is how many replicas of a StatefulSet become services.
const maxReplicas = 30

// workloads makes a part of each workload.
func (r *reader) workloads() {
	labels := map[string]int{}
	for _, o := range r.objects {
		if isWorkload(o) {
			labels[importer.DNSName(o.name)]++
		}
	}
	kinds := map[string]bool{}
	for _, o := range r.objects {
		if !isWorkload(o) {
			continue
		}
		o.used = true
		p := &part{reader: r, o: o, spec: o.node.Get("spec"), ordinal: -1, label: importer.DNSName(o.name), selected: map[int]bool{}}
		if labels[p.label] > 1 && r.several {
			p.label = importer.DNSName(o.ns + "-" + o.name)
		}
		if kinds[p.label] {
			p.label = importer.DNSName(p.label + "-" + o.kind)
			r.ledger.Warn(o.node.Pos(), "renamed", fmt.Sprintf("another workload is named %s too; the %s is the service %s", o.name, o.kind, p.label), "Rename one of them.")
		}
		kinds[p.label] = true
		if p.label == "" {
			o.node.Get("metadata").Refuse(importer.RuleInvalid, fmt.Sprintf("%q is no name of a service", o.name), "Use letters and digits.")
			continue
		}
		switch o.kind {
		case "Pod":
			p.template, p.pod = o.node, p.spec
		case "CronJob":
			p.template = p.spec.Get("jobTemplate", "spec", "template")
			p.pod = p.template.Get("spec")
		default:
			p.template = p.spec.Get("template")
			p.pod = p.template.Get("spec")
		}
		if !isList(p.pod.Get("containers")) {
			o.node.Refuse(importer.RuleInvalid, fmt.Sprintf("%s %s has no containers", o.kind, o.name), "If it is a patch, render it first: kustomize build DIR | drover import kubernetes -")
			continue
		}
		p.replicas = 1
		if v, ok := p.spec.Get("replicas").Int(); ok && o.kind != "Pod" {
			p.replicas = int(v)
		}
		if o.kind != "StatefulSet" || p.replicas < 2 {
			r.parts = append(r.parts, p)
			continue
		}
		if p.replicas > maxReplicas {
			p.spec.Get("replicas").Refuse("unsupported", fmt.Sprintf("each of the %d replicas of the StatefulSet %s would be a service of its own; at most %d are", p.replicas, o.name, maxReplicas), "Scale it down.")
			continue
		}
		for i := range p.replicas {
			q := *p
			q.ordinal, q.selected = i, map[int]bool{}
			q.label = importer.DNSName(fmt.Sprintf("%s-%d", p.label, i))
			r.parts = append(r.parts, &q)
		}
	}
}

// read maps the workload.
func (p *part) read() {
	p.s = &importer.Service{Name: p.label, At: p.o.node.Pos(), Scopes: []string{"cluster", "ns:" + p.o.ns}}
	meta := p.template.Get("metadata")
	meta.Get("labels").Take()
	meta.Get("name").Take()
	meta.Get("namespace").Take()
	meta.Get("creationTimestamp").Drop("the state of an object in a cluster")
	p.spec.Get("selector").Take()
	p.kind()
	p.containers()
	p.podOptions()
	p.volumeClaims()
	dropRest(meta.Get("annotations"), "annotations that only Kubernetes and its tools read")
	dropRest(p.spec.Get("jobTemplate", "metadata"), "a job of a CronJob is found by its CronJob")
}

func count(n int) *int { return &n }

func span(d time.Duration) *time.Duration { return &d }

func (p *part) update() *importer.Update {
	if p.s.Update == nil {
		p.s.Update = &importer.Update{}
	}
	return p.s.Update
}

// seconds returns a number of seconds, standard for none. More than a year is one year.
func seconds(n *importer.Node, standard time.Duration) time.Duration {
	if v, ok := n.Int(); ok && v >= 0 {
		return time.Duration(min(v, 31536000)) * time.Second
	}
	return standard
}

// kind maps what the kind of workload says of instances, updates and restarts.
func (p *part) kind() {
	n := p.spec
	n.Get("revisionHistoryLimit").Drop("Nomad keeps versions of jobs by its own setting")
	switch p.o.kind {
	case "Job":
		p.job(n)
		return
	case "CronJob":
		p.cron(n)
		return
	case "Pod":
		if policy := n.Get("restartPolicy").Text(); policy == "Never" || policy == "OnFailure" {
			p.s.Kind = importer.KindBatch
			if policy == "Never" {
				p.s.Restart = &importer.Restart{Mode: "fail"}
			}
		}
		return
	case "DaemonSet":
		p.s.Kind = importer.KindSystem
		p.update().MaxParallel = count(1)
	default:
		if p.ordinal < 0 && p.replicas >= 0 {
			p.s.Count = count(p.replicas)
		}
	}
	p.pod.Get("restartPolicy").Take() // Always
	if v := n.Get("minReadySeconds"); v.Exists() {
		if d := seconds(v, 0); d > 0 {
			p.update().MinHealthyTime = span(d)
		}
	}
	if v := n.Get("progressDeadlineSeconds"); v.Exists() {
		progress := max(seconds(v, 10*time.Minute), 20*time.Second)
		healthy := min(progress/2, 5*time.Minute)
		p.update().ProgressDeadline, p.update().HealthyDeadline = span(progress), span(healthy)
		if m := p.update().MinHealthyTime; m != nil && *m >= healthy {
			p.update().HealthyDeadline, p.update().ProgressDeadline = span(*m+time.Minute), span(max(progress, *m+2*time.Minute))
		} else if m == nil && healthy <= 5*time.Second {
			p.update().MinHealthyTime = span(time.Second)
		}
	}
	if n.Get("paused").Bool() {
		n.Get("paused").Warn("update", fmt.Sprintf("updates of %s are paused in Kubernetes", p.o.name), "Deploy the stack when it may be updated.")
	}
	p.strategy(cmp.Or(n.Get("strategy"), n.Get("updateStrategy")))
	if p.o.kind != "StatefulSet" {
		return
	}
	n.Get("serviceName").Take()
	n.Get("persistentVolumeClaimRetentionPolicy").Drop("volumes of drover are kept")
	if v := n.Get("podManagementPolicy"); v.Text() != "Parallel" && p.ordinal > 0 {
		p.s.DependsOn = append(p.s.DependsOn, strings.TrimSuffix(p.label, fmt.Sprintf("-%d", p.ordinal))+fmt.Sprintf("-%d", p.ordinal-1))
	}
	start := 0
	if v, ok := n.Get("ordinals", "start").Int(); ok {
		n.Get("ordinals", "start").Warn("renamed", fmt.Sprintf("the replicas of %s are numbered from 0, and not from %d", p.o.name, v), "Use these names.")
	}
	p.s.Hostname = importer.Lit(fmt.Sprintf("%s-%d", importer.DNSName(p.o.name), start+max(p.ordinal, 0)))
}

var percentage = regexp.MustCompile(`^(\d{1,3})%$`)

// amount is a number of instances or a percentage of all.
func amount(n *importer.Node, of int, up bool) (int, bool) {
	if v, ok := n.Int(); ok && v >= 0 && v < 10000 {
		return int(v), true
	}
	m := percentage.FindStringSubmatch(n.Peek())
	if m == nil {
		return 0, false
	}
	n.Take()
	v, _ := strconv.Atoi(m[1])
	if up {
		return int(math.Ceil(float64(of*v) / 100)), true
	}
	return of * v / 100, true
}

// strategy maps the strategy of updates.
func (p *part) strategy(n *importer.Node) {
	if !n.Exists() {
		return
	}
	n.Fields()
	kind := n.Get("type").Text()
	rolling := n.Get("rollingUpdate")
	rolling.Fields()
	switch {
	case kind == "Recreate":
		p.update().Canary, p.update().MaxParallel = count(0), count(max(p.replicas, 1))
		rolling.Drop("Recreate has no rolling update")
		return
	case kind == "OnDelete":
		n.Get("type").Warn("update", fmt.Sprintf("%s updates its instances when they are deleted; drover updates them by itself", p.o.name), "Deploy when it may be updated.")
		return
	}
	total := max(p.replicas, 1)
	unavailable, hasUnavailable := amount(rolling.Get("maxUnavailable"), total, false)
	surge, hasSurge := amount(rolling.Get("maxSurge"), total, true)
	if v, ok := rolling.Get("partition").Int(); ok && v > 0 {
		rolling.Get("partition").Warn("update", fmt.Sprintf("replicas of %s below %d would keep the old version", p.o.name, v), "Deploy single services with --only.")
	}
	switch {
	case p.s.Kind == importer.KindSystem:
		rolling.Get("maxSurge").Drop("a job of type system stops an instance before the next one starts")
		if hasUnavailable {
			p.update().MaxParallel = count(max(unavailable, 1))
		}
	case p.ordinal >= 0 || p.o.kind == "StatefulSet":
	case hasSurge && surge == 0:
		p.update().Canary, p.update().MaxParallel = count(0), count(max(unavailable, 1))
	case hasSurge:
		if surge = min(surge, total); surge != 1 {
			p.update().Canary = count(surge)
		}
		if most := max(surge, unavailable); most != 1 {
			p.update().MaxParallel = count(most)
		}
	case hasUnavailable && unavailable > 1:
		p.update().MaxParallel = count(unavailable)
	}
}

// job maps the spec of a Job.
func (p *part) job(n *importer.Node) {
	p.s.Kind = importer.KindBatch
	completions := 1
	if v, ok := n.Get("completions").Int(); ok && v > 0 && v < 100000 {
		completions = int(v)
		p.s.Count = count(completions)
	}
	if v, ok := n.Get("parallelism").Int(); ok {
		switch {
		case !n.Get("completions").Exists() && v > 1 && v < 100000:
			p.s.Count = count(int(v))
		case int(v) < completions && v > 0:
			n.Get("parallelism").Warn("unsupported", fmt.Sprintf("all %d instances of %s start at once, and not %d at a time", completions, p.o.name, v), "Set count lower and start the job again.")
		}
	}
	attempts := 6
	if v, ok := n.Get("backoffLimit").Int(); ok && v >= 0 && v < 1000 {
		attempts = int(v)
	}
	policy := p.pod.Get("restartPolicy").Text()
	p.s.Restart = &importer.Restart{Attempts: attempts, Mode: "fail"}
	if attempts > 0 {
		p.s.Restart.Interval, p.s.Restart.Delay = 24*time.Hour, 10*time.Second
	}
	_ = policy
	n.Get("activeDeadlineSeconds").Warn("unsupported", fmt.Sprintf("nothing stops %s after a time", p.o.name), "Put `timeout SECONDS` before the command.")
	p.pod.Get("activeDeadlineSeconds").Warn("unsupported", fmt.Sprintf("nothing stops %s after a time", p.o.name), "Put `timeout SECONDS` before the command.")
	for _, key := range []string{"ttlSecondsAfterFinished", "manualSelector", "podReplacementPolicy"} {
		n.Get(key).Drop("Nomad collects ended jobs by its own setting")
	}
	if n.Get("suspend").Bool() {
		p.s.Count = count(0)
	}
	n.Get("completionMode").Take()
	for _, key := range []string{"podFailurePolicy", "successPolicy", "backoffLimitPerIndex", "maxFailedIndexes"} {
		n.Get(key).Warn("restart", fmt.Sprintf("%s of %s has no counterpart: Nomad counts restarts", key, p.o.name), "Let the program end with 0 where it must not start again.")
	}
}

var cronText = regexp.MustCompile(`^(@[a-z]+|\S+\s+\S+\s+\S+\s+\S+\s+\S+)$`)

// cron maps the spec of a CronJob.
func (p *part) cron(n *importer.Node) {
	p.job(n.Get("jobTemplate", "spec"))
	schedule := strings.TrimSpace(n.Get("schedule").Text())
	periodic := &importer.Periodic{TimeZone: n.Get("timeZone").Text()}
	for _, prefix := range []string{"CRON_TZ=", "TZ="} {
		if rest, ok := strings.CutPrefix(schedule, prefix); ok {
			zone, when, _ := strings.Cut(rest, " ")
			periodic.TimeZone, schedule = zone, strings.TrimSpace(when)
		}
	}
	if !cronText.MatchString(schedule) {
		at := cmp.Or(n.Get("schedule"), p.o.node)
		at.Refuse(importer.RuleInvalid, fmt.Sprintf("%q is no schedule of cron", schedule), "Write five fields: minute, hour, day, month, weekday.")
		schedule = "@daily"
	}
	periodic.Crons = []string{schedule}
	switch n.Get("concurrencyPolicy").Text() {
	case "Forbid":
		periodic.ProhibitOverlap = true
	case "Replace":
		n.Get("concurrencyPolicy").Warn("unsupported", fmt.Sprintf("a run of %s that still works is not replaced by the next one; the next one does not start", p.o.name), "Put `timeout SECONDS` before the command.")
		periodic.ProhibitOverlap = true
	}
	periodic.Disabled = n.Get("suspend").Bool()
	n.Get("startingDeadlineSeconds").Warn("unsupported", fmt.Sprintf("Nomad starts no missed run of %s", p.o.name), "Start it by hand: nomad job periodic force JOB.")
	for _, key := range []string{"successfulJobsHistoryLimit", "failedJobsHistoryLimit"} {
		n.Get(key).Drop("Nomad collects ended jobs by its own setting")
	}
	p.s.Periodic = periodic
}

// podOptions maps what the pod says beside its containers.
func (p *part) podOptions() {
	n := p.pod
	if n.Get("hostNetwork").Bool() {
		p.s.Network = "host"
	}
	if name := n.Get("hostname").Text(); name != "" && p.o.kind != "StatefulSet" {
		p.s.Hostname = importer.Lit(name)
	}
	n.Get("subdomain").Take()
	for _, a := range n.Get("hostAliases").Items() {
		ip := a.Get("ip").Text()
		for _, h := range a.Get("hostnames").Items() {
			p.s.ExtraHosts = append(p.s.ExtraHosts, importer.Lit(h.Text()+":"+ip))
		}
	}
	p.dns(n)
	p.placement(n)
	for _, key := range []string{"serviceAccount", "serviceAccountName", "automountServiceAccountToken"} {
		if v := n.Get(key).Peek(); key != "automountServiceAccountToken" && v != "" && v != "default" && p.calls(v) {
			n.Get(key).Warn("needs-kubernetes", fmt.Sprintf("%s has rights in Kubernetes' API as %s", p.o.name, v), "Check whether it calls that API. If it does, it does not work on Nomad.")
			continue
		}
		n.Get(key).Drop("Nomad gives each task an identity by itself")
	}
	n.Get("imagePullSecrets").Warn("registry-auth", "the credentials of the registry are a Secret of Kubernetes", "Configure auth in the docker plugin of the clients.")
	for _, key := range []string{"enableServiceLinks", "schedulerName", "preemptionPolicy", "terminationGracePeriodSeconds", "readinessGates", "setHostnameAsFQDN", "hostUsers"} {
		if key == "terminationGracePeriodSeconds" {
			continue
		}
		n.Get(key).Drop(key + " is a matter of Kubernetes itself")
	}
	n.Get("tolerations").Drop("Nomad has no taints; node pools separate nodes")
	if v := n.Get("priorityClassName"); v.Exists() {
		v.Warn("unsupported", fmt.Sprintf("the priority %s is not one of Nomad", v.Peek()), "Set priority of the job, from 1 to 100.")
	}
	n.Get("priority").Drop("the number that Kubernetes computes of the class")
	if v := n.Get("runtimeClassName"); v.Exists() {
		v.Warn("needs-client", fmt.Sprintf("the runtime %s is not configured", v.Peek()), "Set runtime in the config of the task, and allow_runtimes in the docker plugin.")
	}
	n.Get("overhead").Drop("the resources of a runtime of Kubernetes")
	n.Get("os").Take()
	n.Get("nodeName").Warn("unsupported", "the node is one of Kubernetes' cluster", "Write a constraint on ${node.unique.name}.")
}

// calls reports whether a role is bound to the account of the workload.
func (p *part) calls(account string) bool {
	for _, o := range p.objects {
		if !strings.HasSuffix(o.kind, "RoleBinding") {
			continue
		}
		for _, s := range o.node.Get("subjects").Items() {
			if s.Get("name").Peek() == account {
				return true
			}
		}
	}
	return false
}

func (p *part) dns(n *importer.Node) {
	switch policy := n.Get("dnsPolicy"); policy.Text() {
	case "", "ClusterFirst", "ClusterFirstWithHostNet", "Default", "None":
	default:
		policy.Warn("unsupported", "the DNS policy is not known", "Write a dns block into the network of the group.")
	}
	cfg := n.Get("dnsConfig")
	if !cfg.Exists() {
		return
	}
	d := &importer.DNS{}
	for _, v := range cfg.Get("nameservers").Items() {
		d.Servers = append(d.Servers, v.Text())
	}
	for _, v := range cfg.Get("searches").Items() {
		if strings.HasSuffix(v.Peek(), "cluster.local") {
			v.Drop("names of services are in /etc/hosts")
			continue
		}
		d.Searches = append(d.Searches, v.Text())
	}
	for _, v := range cfg.Get("options").Items() {
		text := v.Get("name").Text()
		if value := v.Get("value").Text(); value != "" {
			text += ":" + value
		}
		d.Options = append(d.Options, text)
	}
	if len(d.Servers)+len(d.Searches)+len(d.Options) > 0 {
		p.s.DNS = d
	}
}

// attribute is Nomad's name of a label of nodes.
func (p *part) attribute(n *importer.Node, key string) string {
	switch key {
	case "kubernetes.io/os", "beta.kubernetes.io/os":
		return "${attr.kernel.name}"
	case "kubernetes.io/arch", "beta.kubernetes.io/arch":
		return "${attr.cpu.arch}"
	case "kubernetes.io/hostname":
		return "${node.unique.name}"
	case "metadata.name":
		return "${node.unique.name}"
	}
	name := regexp.MustCompile(`[^A-Za-z0-9_]+`).ReplaceAllString(key[strings.LastIndexByte(key, '/')+1:], "_")
	p.ledger.Warn(n.Pos(), "node-meta", fmt.Sprintf("%s runs on nodes by their label %s", p.o.name, key), fmt.Sprintf("Write meta { %s = … } into the configuration of these clients.", name))
	return "${meta." + name + "}"
}

// placement maps what restricts the nodes.
func (p *part) placement(n *importer.Node) {
	for _, v := range n.Get("nodeSelector").Fields() {
		p.constrain(importer.Constraint{Attribute: p.attribute(v, v.Key), Value: v.Text()})
	}
	affinity := n.Get("affinity")
	affinity.Fields()
	node := affinity.Get("nodeAffinity")
	terms := node.Get("requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms").Items()
	if len(terms) > 1 {
		node.Get("requiredDuringSchedulingIgnoredDuringExecution").Warn("unsupported", fmt.Sprintf("one of several conditions is enough for a node of %s; constraints of Nomad must all hold", p.o.name), "Write a meta value for these nodes and a constraint on it.")
	} else {
		for _, t := range terms {
			p.term(t, 0)
		}
	}
	for _, t := range node.Get("preferredDuringSchedulingIgnoredDuringExecution").Items() {
		weight := 1
		if w, ok := t.Get("weight").Int(); ok && w > 0 && w <= 100 {
			weight = int(w)
		}
		p.term(t.Get("preference"), weight)
	}
	anti := affinity.Get("podAntiAffinity")
	for _, t := range anti.Get("requiredDuringSchedulingIgnoredDuringExecution").Items() {
		p.apart(t, t, true)
	}
	for _, t := range anti.Get("preferredDuringSchedulingIgnoredDuringExecution").Items() {
		t.Get("weight").Take()
		p.apart(t, t.Get("podAffinityTerm"), false)
	}
	affinity.Get("podAffinity").Warn("unsupported", fmt.Sprintf("%s is to run where other pods run; Nomad places jobs on their own", p.o.name), "Run both in one group, or constrain both to the same nodes.")
	for _, t := range n.Get("topologySpreadConstraints").Items() {
		key := t.Get("topologyKey").Text()
		if key == "" {
			continue
		}
		attribute := "${node.unique.id}"
		if key != "kubernetes.io/hostname" {
			attribute = p.attribute(t, key)
		}
		if !slices.Contains(p.s.Spreads, attribute) && p.s.Kind != importer.KindSystem {
			p.s.Spreads = append(p.s.Spreads, attribute)
		}
		if when := t.Get("whenUnsatisfiable"); when.Text() == "DoNotSchedule" {
			when.Warn("unsupported", fmt.Sprintf("instances of %s are spread over %s as well as it can be, and start in any case", p.o.name, key), "Write a constraint with distinct_hosts, if it must be strict.")
		}
		for _, k := range []string{"maxSkew", "labelSelector", "matchLabelKeys", "minDomains", "nodeAffinityPolicy", "nodeTaintsPolicy"} {
			t.Get(k).Drop("Nomad spreads the instances of a job evenly over the nodes that may run them")
		}
	}
}

func (p *part) constrain(c importer.Constraint) {
	if !slices.Contains(p.s.Constraints, c) {
		p.s.Constraints = append(p.s.Constraints, c)
	}
}

// term maps the conditions of a term of node affinity. weight is 0 for constraints.
func (p *part) term(t *importer.Node, weight int) {
	for _, e := range append(t.Get("matchExpressions").Items(), t.Get("matchFields").Items()...) {
		key := e.Get("key").Text()
		if key == "" {
			continue
		}
		var values []string
		for _, v := range e.Get("values").Items() {
			values = append(values, v.Text())
		}
		c := importer.Constraint{Attribute: p.attribute(e, key), Value: strings.Join(values, ","), Weight: weight}
		switch op := e.Get("operator").Text(); op {
		case "In":
			if len(values) > 1 {
				c.Operator = "set_contains_any"
			}
		case "NotIn":
			c.Operator = "!="
			for _, v := range values[min(1, len(values)):] {
				more := c
				more.Value = v
				p.constrain(more)
			}
			if len(values) > 0 {
				c.Value = values[0]
			}
		case "Exists":
			c.Operator, c.Value = "is_set", ""
		case "DoesNotExist":
			c.Operator, c.Value = "is_not_set", ""
		case "Gt":
			c.Operator = ">"
		case "Lt":
			c.Operator = "<"
		default:
			e.Warn("unsupported", fmt.Sprintf("the operator %q is not known", op), "Write a constraint by hand.")
			continue
		}
		if c.Value == "" && (c.Operator == "" || !strings.HasPrefix(c.Operator, "is_")) {
			e.Warn("unsupported", "the condition has no value", "Write a constraint by hand.")
			continue
		}
		p.constrain(c)
	}
}

// apart maps a term of podAntiAffinity.
func (p *part) apart(at, t *importer.Node, required bool) {
	if t.Get("topologyKey").Peek() != "kubernetes.io/hostname" || !p.matches(t.Get("labelSelector")) || t.Get("namespaces").Exists() {
		at.Warn("unsupported", fmt.Sprintf("%s is to run apart from other pods; Nomad spreads instances of one job only", p.o.name), "Constrain both to different nodes.")
		return
	}
	t.Get("topologyKey").Take()
	t.Get("labelSelector").Take()
	switch {
	case p.s.Kind == importer.KindSystem:
	case required:
		p.constrain(importer.Constraint{Operator: "distinct_hosts", Value: "true"})
		if u := p.update(); u.Canary == nil { // a canary needs a node of its own
			u.Canary = count(0)
		}
	case !slices.Contains(p.s.Spreads, "${node.unique.id}"):
		p.s.Spreads = append(p.s.Spreads, "${node.unique.id}")
	}
}

// podLabels are the labels of the pods. Do not change them.
func (p *part) podLabels() map[string]string {
	if p.labels == nil {
		p.labels = map[string]string{}
		for _, n := range p.template.Get("metadata", "labels").Fields() {
			p.labels[n.Key] = n.Peek()
		}
	}
	return p.labels
}

// matches reports whether a label selector selects the pods.
func (p *part) matches(sel *importer.Node) bool {
	labels := p.podLabels()
	if !sel.Exists() {
		return false
	}
	for _, n := range sel.Get("matchLabels").Fields() {
		if labels[n.Key] != n.Peek() {
			return false
		}
	}
	for _, e := range sel.Get("matchExpressions").Items() {
		value, ok := labels[e.Get("key").Peek()]
		in := false
		for _, v := range e.Get("values").Items() {
			in = in || ok && v.Peek() == value
		}
		switch e.Get("operator").Peek() {
		case "In":
			if !in {
				return false
			}
		case "NotIn":
			if in {
				return false
			}
		case "Exists":
			if !ok {
				return false
			}
		case "DoesNotExist":
			if ok {
				return false
			}
		}
	}
	return true
}
