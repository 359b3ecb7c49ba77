package lint

import (
	"bytes"
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/nomad/api"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/stack"
)

// Rules are all rules, in the order of docs/reference/lint.md.
func Rules() []Rule {
	return []Rule{
		{Name: "invalid", Severity: Error, Why: "The stack cannot be read or evaluated."},
		{Name: string(stack.CodeUnknownVariable), Severity: Error, Why: "A value or an expression names a variable that nothing declares."},
		{Name: string(stack.CodeInvalidValue), Severity: Error, Why: "A value does not fit its variable's type or validation."},
		{Name: string(stack.CodeMissingValue), Severity: Error, Why: "A variable without a default has no value."},
		{Name: string(stack.CodeCycle), Severity: Error, Why: "Services depend on each other in a circle."},
		{Name: string(stack.CodeOverlay), Severity: Error, Why: "A block of the environment matches no job, group or task and so changes nothing."},
		{Name: string(stack.CodeSchedule), Severity: Error, Why: "A schedule runs in the cluster without a person: it needs a drover_driver, and cannot wait for an approval, promote a canary or run a gate's command unless it says so."},
		{Name: "missing-check", Severity: Warning, Why: "A service without a check counts as healthy as soon as its process runs.", job: missingCheck},
		{Name: "auto-revert-off", Severity: Warning, Why: "Without auto_revert a failed deployment leaves the broken version running.", job: autoRevertOff},
		{Name: "deadline-order", Severity: Error, Why: "min_healthy_time, healthy_deadline and progress_deadline must grow in this order.", job: deadlineOrder},
		{Name: "reschedule-hides-failure", Severity: Warning, Why: "While failed allocations are rescheduled, a deployment fails and reverts only at progress_deadline.", job: rescheduleHidesFailure},
		{Name: "template-wait", Severity: Warning, Why: "A template that follows services in Consul with the default wait and splay is seconds to minutes late.", job: templateWait},
		{Name: "template-signal", Severity: Warning, Why: "If a template changes while its task restarts, no process receives the signal; Nomad then fails the allocation, and does not replace that of a system job.", job: templateSignal},
		{Name: "template-without-consul", Severity: Warning, Why: "Where Consul has ACLs, a task has a token only with a consul block: without one, templates see no services and no keys, and say nothing.", job: templateWithoutConsul},
		{Name: "volatile-function", Severity: Error, Why: "A function that never returns the same twice makes every plan a change.", job: volatileFunction},
		{Name: "mutable-tag", Severity: Warning, Why: "An image without a fixed tag can change under a running release.", job: mutableTag},
		{Name: "secret-in-clear", Severity: Error, Why: "A secret in a job spec can be read by everyone who may read the job.", job: secretInClear},
		{Name: "undeclared-secret", Severity: Error, Why: "An item that the service does not declare is not in the job's variable: the template renders without it.", stack: undeclaredSecret},
		{Name: "unread-secret", Severity: Warning, Why: "A declared secret that no template reads, or that a template reads with change_mode noop, does not reach its task when it is rotated.", job: unreadSecret},
		{Name: "run-variable", Severity: Error, Why: "A run of a periodic or parameterized job has an ID of its own: a template that makes nomad/jobs/ID of it waits forever.", job: runVariable},
		{Name: "refused-name", Severity: Error, Why: "Nomad refuses the job, its service or its variable for its name.", job: refusedName},
		{Name: "port-collision", Severity: Error, Why: "Two users of one static port cannot run on the same node.", stack: portCollision},
		{Name: "port-label", Severity: Error, Why: "A service whose port is in no network is not registered, or keeps its old registration, and Nomad's deployment still succeeds.", job: portLabel},
		{Name: "static-port-canary", Severity: Warning, Why: "A canary cannot start beside its predecessor on a node whose static port is taken.", job: staticPortCanary},
		{Name: "no-shutdown-delay", Severity: Warning, Why: "Without shutdown_delay a stopping instance still gets requests until its deregistration has spread; an explicit \"0s\" is taken as meant.", job: noShutdownDelay},
		{Name: "volume-mount", Severity: Error, Why: "A task with a volume_mount fails when it starts if its driver mounts no volumes: raw_exec, qemu and mock_driver.", job: volumeMount},
		{Name: "route-tag", Severity: Error, Why: "The edge leaves out a service whose tags it cannot read, and of two that want the same route one.", stack: routeTag},
		{Name: "scaling-policy", Severity: Warning, Why: "The controller does not scale a group whose scaling block has a source, strategy or value that it does not know; an autoscaler with further plugins may.", job: scalingPolicy},
		{Name: sharedRule, Severity: Error, Why: "Two environments in one cluster that claim the same job overwrite one another; with the same Consul service or route each gets a part of the other's requests."},
	}
}

// Names lists the rules' names.
func Names() []string {
	var out []string
	for _, r := range Rules() {
		out = append(out, r.Name)
	}
	return out
}

func (s *subject) typ() string {
	if s.Job.Job.Type == nil {
		return api.JobTypeService
	}
	return *s.Job.Job.Type
}

// longRunning reports whether the job has deployments in the sense of update
// blocks.
func (s *subject) longRunning() bool {
	return s.typ() == api.JobTypeService || s.typ() == api.JobTypeSystem
}

func name(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

func group(g *api.TaskGroup) string { return "group " + name(g.Name) }

// setting is the value of an update attribute: the group's, the job's or the
// default.
func setting[T any](s *subject, g *api.TaskGroup, field func(*api.UpdateStrategy) *T, def T) T {
	for _, u := range []*api.UpdateStrategy{g.Update, s.Job.Job.Update} {
		if u != nil {
			if v := field(u); v != nil {
				return *v
			}
		}
	}
	return def
}

func autoRevert(u *api.UpdateStrategy) *bool { return u.AutoRevert }
func canary(u *api.UpdateStrategy) *int      { return u.Canary }

// update is where the update block of a group was written, or where it would
// be.
func (s *subject) update(g *api.TaskGroup, attr string) hcl.Range {
	if g.Update == nil && s.Job.Job.Update != nil {
		return s.at("update", attr)
	}
	return s.at(group(g), "update", attr)
}

func missingCheck(s *subject) {
	if !s.longRunning() {
		return
	}
	visit := func(services []*api.Service, path ...string) {
		for i, svc := range services {
			if len(svc.Checks) == 0 && svc.Connect == nil {
				s.report(s.at(append(path, fmt.Sprintf("service #%d", i))...), fmt.Sprintf("Service %q has no check", svc.Name),
					"Add a check block that says whether it can serve.")
			}
		}
	}
	for _, g := range s.Job.Job.TaskGroups {
		visit(g.Services, group(g))
		for _, t := range g.Tasks {
			visit(t.Services, group(g), "task "+t.Name)
		}
	}
}

func autoRevertOff(s *subject) {
	if !s.longRunning() {
		return
	}
	for _, g := range s.Job.Job.TaskGroups {
		if !setting(s, g, autoRevert, false) {
			s.report(s.update(g, "auto_revert"), "auto_revert is off", "Write auto_revert = true in the update block.")
		}
	}
}

func deadlineOrder(s *subject) {
	if !s.longRunning() {
		return
	}
	for _, g := range s.Job.Job.TaskGroups {
		healthy := setting(s, g, func(u *api.UpdateStrategy) *time.Duration { return u.MinHealthyTime }, 10*time.Second)
		deadline := setting(s, g, func(u *api.UpdateStrategy) *time.Duration { return u.HealthyDeadline }, 5*time.Minute)
		progress := setting(s, g, func(u *api.UpdateStrategy) *time.Duration { return u.ProgressDeadline }, 10*time.Minute)
		if healthy >= deadline {
			s.report(s.update(g, "min_healthy_time"), fmt.Sprintf("min_healthy_time (%s) is not below healthy_deadline (%s)", healthy, deadline),
				"No allocation could become healthy in time: raise healthy_deadline.")
		}
		if progress != 0 && deadline >= progress { // 0: the first failure ends the deployment
			s.report(s.update(g, "progress_deadline"), fmt.Sprintf("healthy_deadline (%s) is not below progress_deadline (%s)", deadline, progress),
				"Nomad refuses this: raise progress_deadline, or write 0 to fail at the first unhealthy allocation.")
		}
	}
}

func rescheduleHidesFailure(s *subject) {
	if s.typ() != api.JobTypeService {
		return
	}
	for _, g := range s.Job.Job.TaskGroups {
		if !setting(s, g, autoRevert, false) || setting(s, g, func(u *api.UpdateStrategy) *time.Duration { return u.ProgressDeadline }, time.Second) == 0 {
			continue
		}
		unlimited, attempts := true, 0
		for _, r := range []*api.ReschedulePolicy{s.Job.Job.Reschedule, g.ReschedulePolicy} {
			if r == nil {
				continue
			}
			if r.Unlimited != nil {
				unlimited = *r.Unlimited
			}
			if r.Attempts != nil {
				attempts = *r.Attempts
			}
		}
		if unlimited || attempts > 0 {
			at := s.at(group(g), "reschedule")
			if g.ReschedulePolicy == nil && s.Job.Job.Reschedule != nil {
				at = s.at("reschedule")
			}
			s.report(at, "reschedule makes auto_revert wait for progress_deadline",
				"Write a reschedule block with attempts = 0 and unlimited = false; allocations of lost nodes are replaced anyway.")
		}
	}
}

var followsServices = regexp.MustCompile(`\{\{[^}]*\b(service|services|nomadService|nomadServices|connect)\b`)

func templateWait(s *subject) {
	for _, g := range s.Job.Job.TaskGroups {
		for _, t := range g.Tasks {
			for i, tmpl := range t.Templates {
				mode := name(tmpl.ChangeMode)
				if tmpl.EmbeddedTmpl == nil || !followsServices.MatchString(actions(tmpl)) || mode == "noop" {
					continue
				}
				var missing []string
				if tmpl.Wait == nil {
					missing = append(missing, "wait")
				}
				if tmpl.Splay == nil || *tmpl.Splay >= 5*time.Second { // Nomad's parser fills the default in
					missing = append(missing, "splay")
				}
				if len(missing) > 0 {
					s.report(s.at(group(g), "task "+t.Name, fmt.Sprintf("template #%d", i)), "A template that follows services has the default "+strings.Join(missing, " and "),
						`Write splay = "0s" and a wait block with min = "200ms" and max = "1s": the defaults are 5 s to 4 min and up to 5 s.`)
				}
			}
		}
	}
}

// actions returns the text of a template as if it had the delimiters {{ and }}. Where it
// has others, those in the text are of what it makes.
func actions(tmpl *api.Template) string {
	left, right := cmp.Or(name(tmpl.LeftDelim), "{{"), cmp.Or(name(tmpl.RightDelim), "}}")
	if left == "{{" && right == "}}" {
		return *tmpl.EmbeddedTmpl
	}
	text := strings.NewReplacer("{{", "", "}}", "").Replace(*tmpl.EmbeddedTmpl)
	return strings.NewReplacer(left, "{{", right, "}}").Replace(text)
}

func templateSignal(s *subject) {
	if name(s.Job.Job.Type) != api.JobTypeSystem {
		return
	}
	for _, g := range s.Job.Job.TaskGroups {
		for _, t := range g.Tasks {
			for i, tmpl := range t.Templates {
				if name(tmpl.ChangeMode) == "signal" {
					s.report(s.at(group(g), "task "+t.Name, fmt.Sprintf("template #%d", i)), "A template of a system job sends a signal",
						`Write change_mode = "script" and a change_script that sends it: of one that fails, nothing ends.`)
				}
			}
		}
	}
}

// readsConsul finds the functions of templates that ask Consul.
var readsConsul = regexp.MustCompile(`\{\{(?:[^}]*[\s(|-])?(?:(?:service|node|key|keyExists|keyOrDefault|ls|safeLs|tree|safeTree|caLeaf|connect)\s+["$(.]|(?:services|nodes|datacenters|caRoots)\b)`)

// templateWithoutConsul goes by what Nomad's servers do: they give a task an
// identity for Consul when the task or its group has a consul block, or when it
// brings one. Without a token Consul does not refuse, it answers with an empty
// list.
func templateWithoutConsul(s *subject) {
	for _, g := range s.Job.Job.TaskGroups {
		for _, t := range g.Tasks {
			if g.Consul != nil || t.Consul != nil || slices.ContainsFunc(t.Identities, func(id *api.WorkloadIdentity) bool { return strings.HasPrefix(id.Name, "consul_") }) {
				continue
			}
			for i, tmpl := range t.Templates {
				if tmpl.EmbeddedTmpl != nil && readsConsul.MatchString(actions(tmpl)) {
					s.report(s.at(group(g), "task "+t.Name, fmt.Sprintf("template #%d", i)), "A template reads Consul and the task has no consul block", "Write consul {} in the task.")
				}
			}
		}
	}
}

func volatileFunction(s *subject) {
	volatile := []string{"uuidv4", "bcrypt", "timestamp"}
	if !slices.ContainsFunc(volatile, func(name string) bool { return bytes.Contains(s.HCL, []byte(name)) }) {
		return // the usual: no syntax tree is needed
	}
	source := s.syntax()
	if source == nil {
		return
	}
	_ = hclsyntax.VisitAll(source.Body, func(n hclsyntax.Node) hcl.Diagnostics {
		if call, ok := n.(*hclsyntax.FunctionCallExpr); ok && slices.Contains(volatile, call.Name) {
			s.report(source.Origin(call.NameRange), call.Name+"() is different at every render", "Make the value a variable, or a secret of the stack that is generated once.")
		}
		return nil
	})
}

// Image returns the image of a task with a container driver, and whether it is
// fixed: named by a digest or by a tag other than latest. An image that is
// unknown before the task runs counts as fixed.
func Image(t *api.Task) (image string, fixed bool) {
	image, _ = t.Config["image"].(string)
	if image == "" || strings.Contains(image, "@sha256:") || strings.HasSuffix(image, "}") || t.Driver != "docker" && t.Driver != "podman" {
		return image, true
	}
	_, tag, tagged := strings.Cut(image[strings.LastIndexByte(image, '/')+1:], ":")
	return image, tagged && tag != "latest"
}

func mutableTag(s *subject) {
	for _, g := range s.Job.Job.TaskGroups {
		for _, t := range g.Tasks {
			if image, fixed := Image(t); !fixed {
				s.report(s.at(group(g), "task "+t.Name, "config", "image"), fmt.Sprintf("The image %q has no fixed tag", image), "Name a version, or a digest with @sha256:….")
			}
		}
	}
}

var (
	secretName = regexp.MustCompile(`(?i:passw(or)?d|passphrase|passcode|secret|token|api_?key|credential|(^|[_.-])(key|pass|pwd|cred|creds|salt)s?$)|[a-z](Key|Pass|Pwd)$`)
	// secretEnd are the names that are the secret itself, and do not only speak of one.
	secretEnd  = regexp.MustCompile(`(?i)(passw(or)?d|passphrase|passcode|pass|pwd|secret|token|key|credentials?|creds?|salt)$`)
	harmless   = regexp.MustCompile(`(?i)(_(file|path|dir|url|name|id|ttl|expiry|length|type|method|algorithm|enabled|lifespan|timeout)$)|^(file|path)_|^(old)?pwd$|public_?key$`)
	counted    = regexp.MustCompile(`(?i)(^|[_.-])(max|min|num|count|limit|size|length|days|rounds)([_.-]|$)`)
	harmlessOf = regexp.MustCompile(`^((?i:true|false|yes|no|on|off)|[01]|([0-9]+(ms|s|m|h))+|/.*|.*/.*\.(pem|key|crt|json|ya?ml))$`)
	digits     = regexp.MustCompile(`^[0-9]+$`)
)

// InClear reports whether text, the literal value of key in env or config, looks like
// a secret.
func InClear(key, text string) bool {
	if !secretName.MatchString(key) || harmless.MatchString(key) {
		return false
	}
	if digits.MatchString(text) && (!secretEnd.MatchString(key) || counted.MatchString(key)) {
		return false
	}
	return text != "" && !strings.Contains(text, "${") && !strings.Contains(text, "{{") && !harmlessOf.MatchString(text)
}

// mayHaveSecret reports whether a name in a job spec looks like that of a secret.
func mayHaveSecret(text []byte) bool {
	if bytes.Contains(text, []byte(`\u`)) || bytes.Contains(text, []byte(`\U`)) {
		return true // a name may be written in this way
	}
	// Each name of a secret has one of these: most names need no regular expression.
	parts := []string{"pass", "secret", "token", "key", "cred", "pwd", "salt"}
	for i, c := range text {
		if c != '=' && c != ':' || bytes.HasPrefix(bytes.TrimLeft(text[i+1:min(i+10, len(text))], " \t"), []byte("{{")) {
			continue // an action of a template is no value of HCL
		}
		before := bytes.TrimSuffix(bytes.TrimRight(text[:i], " \t"), []byte(`"`))
		// The name, or the end of one with spaces in it.
		name := string(before[bytes.LastIndexAny(before, " \t\n\"{}(),=:")+1:])
		lower := strings.ToLower(name)
		if slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(lower, p) }) && secretName.MatchString(name) {
			return true
		}
	}
	return false
}

func secretInClear(s *subject) {
	if !mayHaveSecret(s.HCL) {
		return // the usual: no syntax tree is needed
	}
	source := s.syntax()
	if source == nil {
		return
	}
	check := func(key string, e hclsyntax.Expression, at hcl.Range) {
		v, diags := e.Value(nil)
		if diags.HasErrors() || len(e.Variables()) > 0 || v.IsNull() || v.Type() != cty.String && v.Type() != cty.Number {
			return
		}
		if text, err := convert.Convert(v, cty.String); err != nil || !InClear(key, text.AsString()) {
			return
		}
		s.report(source.Origin(at), fmt.Sprintf("%s looks like a secret in clear", key), "Make it a secret of the stack and read it in a template block from the job's Nomad Variable.")
	}
	var object func(e hclsyntax.Expression)
	object = func(e hclsyntax.Expression) {
		if o, ok := e.(*hclsyntax.ObjectConsExpr); ok {
			for _, item := range o.Items {
				if k, diags := item.KeyExpr.Value(nil); !diags.HasErrors() && k.Type() == cty.String && !k.IsNull() {
					check(k.AsString(), item.ValueExpr, item.KeyExpr.Range())
				}
				object(item.ValueExpr)
			}
		}
	}
	var walk func(b *hclsyntax.Body, inside bool)
	walk = func(b *hclsyntax.Body, inside bool) {
		for _, a := range b.Attributes {
			if inside {
				check(a.Name, a.Expr, a.SrcRange)
			}
			if inside || a.Name == "env" || a.Name == "config" {
				object(a.Expr)
			}
		}
		for _, c := range b.Blocks {
			walk(c.Body, inside || c.Type == "env" || c.Type == "config")
		}
	}
	walk(source.Body, false)
}

// static calls do for every static port of a job.
func (s *subject) static(do func(g *api.TaskGroup, p api.Port, at hcl.Range)) {
	for _, g := range s.Job.Job.TaskGroups {
		for i, n := range g.Networks {
			for _, p := range n.ReservedPorts {
				do(g, p, s.at(group(g), fmt.Sprintf("network #%d", i), "port "+p.Label))
			}
		}
		for _, t := range g.Tasks {
			if t.Resources == nil {
				continue
			}
			for i, n := range t.Resources.Networks {
				for _, p := range n.ReservedPorts {
					do(g, p, s.at(group(g), "task "+t.Name, "resources", fmt.Sprintf("network #%d", i), "port "+p.Label))
				}
			}
		}
	}
}

func portCollision(all []*subject, report reporter) {
	type key struct {
		port            int
		network, target string // targets have nodes of their own
	}
	type user struct {
		service, group string
		at             hcl.Range
		job            *api.Job
	}
	users := map[key][]user{}
	for _, s := range all {
		s.static(func(g *api.TaskGroup, p api.Port, at hcl.Range) {
			k := key{p.Value, p.HostNetwork, s.Target}
			if k.network == "" {
				k.network = "default"
			}
			other := slices.IndexFunc(users[k], func(u user) bool { return shareNodes(u.job, s.Job.Job) })
			users[k] = append(users[k], user{s.Service, name(g.Name), at, s.Job.Job})
			if other < 0 {
				return
			}
			u := users[k][other]
			report(s, at, fmt.Sprintf("Static port %d is already taken by group %q of %q", p.Value, u.group, u.service),
				fmt.Sprintf("Take another port, or a dynamic one (the other is at %s:%d:%d).", u.at.Filename, u.at.Start.Line, u.at.Start.Column))
		})
	}
}

// shareNodes reports whether a node may run both jobs, by their datacenters,
// node pools and constraints. If in doubt it returns true.
func shareNodes(a, b *api.Job) bool {
	if ra, rb := name(a.Region), name(b.Region); ra != "" && rb != "" && ra != rb {
		return false
	}
	pa, pb := cmp.Or(name(a.NodePool), api.NodePoolDefault), cmp.Or(name(b.NodePool), api.NodePoolDefault)
	if pa != pb && pa != api.NodePoolAll && pb != api.NodePoolAll {
		return false
	}
	if len(a.Datacenters) == 0 || len(b.Datacenters) == 0 { // as "*"
		return true
	}
	return slices.ContainsFunc(a.Datacenters, func(x string) bool {
		return slices.ContainsFunc(b.Datacenters, func(y string) bool { return stack.PatternsOverlap(x, y) })
	})
}

func staticPortCanary(s *subject) {
	if s.typ() != api.JobTypeService {
		return
	}
	s.static(func(g *api.TaskGroup, p api.Port, at hcl.Range) {
		if n := setting(s, g, canary, 0); n > 0 {
			s.report(at, fmt.Sprintf("Static port %d in a group with canary = %d", p.Value, n), "Make the port dynamic, or write canary = 0.")
		}
	})
}

func noShutdownDelay(s *subject) {
	if !s.longRunning() {
		return
	}
	for _, g := range s.Job.Job.TaskGroups {
		services := len(g.Services)
		// "0s", written down, is a decision: a service that must be alone with
		// its data only stands still for longer.
		delayed := g.ShutdownDelay != nil
		for _, t := range g.Tasks {
			services += len(t.Services)
			delayed = delayed || t.ShutdownDelay > 0
		}
		if services > 0 && !delayed {
			s.report(s.at(group(g)), fmt.Sprintf("Group %q has services but no shutdown_delay", name(g.Name)), `Write shutdown_delay = "2s" or more.`)
		}
	}
}

func routeTag(all []*subject, report reporter) {
	type claim struct {
		service string
		at      hcl.Range
	}
	claims := map[string]claim{}
	inspect := func(s *subject, svc *api.Service, tags, path []string) {
		if !slices.ContainsFunc(tags, func(t string) bool { return strings.HasPrefix(t, edge.Prefix) }) {
			return
		}
		at := s.at(path...)
		if svc.Provider == "nomad" {
			report(s, at, fmt.Sprintf("Service %q has tags of the edge, which looks for services in Consul only", svc.Name), `Write provider = "consul".`)
		}
		// Only a client can interpolate these.
		open := slices.ContainsFunc(append([]string{svc.Name}, tags...), func(t string) bool { return strings.Contains(t, "${") })
		routes, problems := edge.Parse(edge.HAProxy, svc.Name, tags, nil)
		for _, p := range problems {
			switch {
			case open && (p.Tag == "" || p.Costs == edge.CostsNothing || strings.Contains(p.Tag, "${")):
			case p.Tag == "":
				report(s, at, p.Message, p.Mend)
			default:
				report(s, at, fmt.Sprintf("Tag %q: %s", p.Tag, p.Message), p.Mend)
			}
		}
		for _, r := range routes {
			key := r.From
			if r.Kind == edge.SNI {
				key = "sni " + key
			}
			if first, taken := claims[key]; !taken {
				claims[key] = claim{svc.Name, at}
			} else if first.service != svc.Name {
				report(s, at, fmt.Sprintf("%s leads to service %q already", r.From, first.service),
					fmt.Sprintf("Let one of the two have another host, path or port (the other is at %s:%d:%d).", first.at.Filename, first.at.Start.Line, first.at.Start.Column))
			}
		}
	}
	for _, s := range all {
		visit := func(services []*api.Service, path ...string) {
			for i, svc := range services {
				block := append(slices.Clone(path), fmt.Sprintf("service #%d", i))
				inspect(s, svc, svc.Tags, append(slices.Clone(block), "tags"))
				if len(svc.CanaryTags) > 0 {
					inspect(s, svc, svc.CanaryTags, append(slices.Clone(block), "canary_tags"))
				}
			}
		}
		for _, g := range s.Job.Job.TaskGroups {
			visit(g.Services, group(g))
			for _, t := range g.Tasks {
				visit(t.Services, group(g), "task "+t.Name)
			}
		}
	}
}
