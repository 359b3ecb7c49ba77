package nomad

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drover-nomad/drover/importer"
)

// fields rewrites what all versions of the syntax have in common: the fields of a job.
func (u *upgrader) fields(b *body) {
	b.walk(func(i *item) {
		if i.body != nil && i.key() == "resources" && i.body.block("network") != nil {
			u.old = true
		}
		if i.value != nil && (i.key() == "dynamic_ports" || i.key() == "reserved_ports") {
			u.old = true
		}
	})
	b.walk(func(i *item) {
		if i.value == nil {
			return
		}
		for n := range i.value.tokens {
			u.anyToken(i, &i.value.tokens[n])
		}
	})
	jobs := b.blocks("job")
	if len(jobs) > 1 {
		u.refuse(jobs[1].name, "the file has two jobs", "Write each job into a file of its own.")
	}
	for _, job := range jobs {
		u.job(job)
		if u.whole {
			u.secretsOf(job)
		}
	}
}

// anyToken rewrites values that also a file of HCL2 may have.
func (u *upgrader) anyToken(i *item, t *token) {
	before := t.text
	if t.kind == tokNumber && oldNumber.MatchString(t.text) {
		if u.old {
			u.oldToken(t)
			return
		}
		u.warn(*t, "odd-number", fmt.Sprintf("%s = %s is %s for Nomad, and was octal for Nomad before 1.0", i.key(), t.text, strings.TrimLeft(t.text, "0")), "Write the number that is meant without the zero.")
	}
	if t.kind != tokString {
		return
	}
	t.text = oldNomad.ReplaceAllString(t.text, "$1$${$2}")
	if u.old {
		t.text = oldRuntime.ReplaceAllString(t.text, "$1$${$2}")
	}
	if t.text != before {
		u.change(*t, "%s is %s", before, t.text)
	}
}

// single refuses a second block of a name in b, and merges those of names in merged.
func (u *upgrader) single(b *body, names []string, merged ...string) {
	for _, name := range names {
		if all := b.blocks(name); len(all) > 1 {
			u.refuse(all[1].name, fmt.Sprintf("there are two blocks %s (the other is in line %d)", name, all[0].name.line), "Make one block of them.")
		}
	}
	for _, name := range merged {
		all := b.blocks(name)
		for _, more := range all[min(1, len(all)):] {
			u.change(more.name, "%s is in one block", name)
			all[0].body.items = append(all[0].body.items, more.body.items...)
			all[0].body.tail = append(all[0].body.tail, more.body.tail...)
			all[0].assign = all[0].assign || more.assign
			b.remove(more)
		}
		if len(all) > 0 {
			u.twice(all[0].body)
		}
	}
	u.twice(b)
}

// twice removes all but the last one of attributes with the same name.
func (u *upgrader) twice(b *body) {
	last := map[string]*item{}
	for _, i := range b.items {
		if i.value != nil {
			last[i.key()] = i
		}
	}
	for _, i := range slices.Clone(b.items) {
		if i.value != nil && last[i.key()] != i {
			u.warn(i.name, "twice", fmt.Sprintf("%s is given twice; the last one is used, as by Nomad before 1.0 (line %d)", i.key(), last[i.key()].name.line), "Remove the one that is not meant.")
			u.change(i.name, "%s is removed, because line %d gives it again", i.key(), last[i.key()].name.line)
			b.remove(i)
		}
	}
}

// asBlocks writes blocks that are assigned as blocks.
func (u *upgrader) asBlocks(b *body, names ...string) {
	for _, i := range b.items {
		if i.body != nil && i.assign && slices.Contains(names, i.key()) {
			i.assign = false
			u.change(i.name, "%s is a block", i.key())
		}
	}
}

// lists writes single values as lists.
func (u *upgrader) lists(b *body, names ...string) {
	for _, i := range b.items {
		if i.value == nil || !slices.Contains(names, i.key()) {
			continue
		}
		if _, ok := i.value.scalar(); ok && i.value.tokens[0].kind == tokString {
			i.value.tokens[0].text = "[" + i.value.tokens[0].text + "]"
			u.change(i.name, "%s is a list", i.key())
		}
	}
}

// drop removes an attribute if it is there.
func (u *upgrader) drop(b *body, name, why string) {
	for _, i := range slices.Clone(b.items) {
		if i.value != nil && i.key() == name {
			u.change(i.name, "%s is removed: %s", name, why)
			b.remove(i)
		}
	}
}

func (u *upgrader) job(job *item) {
	b := job.body
	u.asBlocks(b, "group", "task", "constraint", "affinity", "spread", "update", "periodic", "parameterized", "migrate", "reschedule", "vault", "multiregion")
	u.single(b, []string{"update", "periodic", "parameterized", "reschedule", "migrate", "vault"}, "meta")
	u.lists(b, "datacenters")
	for _, name := range []string{"vault_token", "consul_token"} {
		if i := b.attr(name); i != nil {
			u.change(i.name, "%s is removed: a token does not belong into a job file", name)
			u.warn(i.name, "vault", name+" was in the job file and is a secret that others may have read", "Revoke it, and give it on the command line where it is still needed.")
			b.remove(i)
		}
	}
	u.placement(b)
	u.vault(b)
	u.periodic(b)
	for _, task := range b.blocks("task") {
		group := &item{name: token{kind: tokIdent, text: "group", line: task.name.line, col: task.name.col}, labels: slices.Clone(task.labels),
			lead: task.lead, blank: task.blank, body: &body{items: []*item{task}}}
		b.items[slices.Index(b.items, task)] = group
		task.lead, task.blank = nil, false
		u.change(task.name, "the task %s is in a group of its name", task.label(0))
	}
	kind := "service"
	if i := b.attr("type"); i != nil {
		if s, ok := i.value.text(); ok {
			kind = s
		}
	}
	u.kind = kind
	u.unfit(b, kind)
	u.update(b, kind, hasCheck(b))
	for _, group := range b.blocks("group") {
		u.unfit(group.body, kind)
		u.update(group.body, kind, hasCheck(group.body))
		u.group(group, job.label(0))
	}
}

// unfit removes blocks that Nomad refuses in jobs of this type, and ignored once.
func (u *upgrader) unfit(b *body, kind string) {
	if kind != "service" {
		u.dropBlock(b, "migrate", kind)
	}
	if kind == "system" || kind == "sysbatch" {
		u.dropBlock(b, "reschedule", kind)
	}
}

func (u *upgrader) dropBlock(b *body, name, kind string) {
	if block := b.block(name); block != nil {
		u.change(block.name, "%s is removed: Nomad refuses it in a job of type %s, where it had no effect", name, kind)
		b.remove(block)
	}
}

func hasCheck(b *body) bool {
	found := false
	b.walk(func(i *item) { found = found || i.body != nil && i.key() == "check" })
	return found
}

// newAttr is an attribute that the input does not have, at the place of t.
func newAttr(t token, name, value string) *item {
	return &item{name: token{kind: tokIdent, text: name, line: t.line, col: t.col}, value: literal(t, value)}
}

// newBlock is a block that the input does not have, at the place of t.
func newBlock(t token, name string, items ...*item) *item {
	return &item{name: token{kind: tokIdent, text: name, line: t.line, col: t.col}, blank: true, body: &body{items: items}}
}

// update rewrites an update block of Nomad before 0.6, in which every stagger one
// more instance was replaced, whatever became of the others.
func (u *upgrader) update(b *body, kind string, checks bool) {
	block := b.block("update")
	if block == nil {
		return
	}
	if kind == "batch" || kind == "sysbatch" {
		u.dropBlock(b, "update", kind)
		return
	}
	in := block.body
	stagger := in.attr("stagger")
	if stagger == nil {
		return
	}
	if in.attr("min_healthy_time") != nil || in.attr("health_check") != nil {
		u.change(stagger.name, "stagger is removed: min_healthy_time says how long a new instance is watched")
		in.remove(stagger)
		return
	}
	text, _ := stagger.value.scalar()
	span, err := time.ParseDuration(text)
	if err != nil {
		u.refuse(stagger.name, fmt.Sprintf("stagger is no time: %s", text), `Write it as "30s".`)
		return
	}
	if n := in.attr("max_parallel"); n != nil {
		if s, _ := n.value.scalar(); s == "0" {
			u.change(stagger.name, "stagger is removed: with max_parallel = 0, all instances are replaced at once")
			in.remove(stagger)
			return
		}
	}
	at := stagger.name
	health := `"checks"`
	if !checks {
		health = `"task_states"`
	}
	at2 := slices.Index(in.items, stagger)
	stagger.name.text, stagger.name.kind = "min_healthy_time", tokIdent
	more := []*item{newAttr(at, "health_check", health)}
	if span >= 5*time.Minute {
		more = append(more, newAttr(at, "healthy_deadline", strconv.Quote((span+5*time.Minute).String())), newAttr(at, "progress_deadline", strconv.Quote((span+10*time.Minute).String())))
	}
	more = append(more, newAttr(at, "auto_revert", "true"))
	in.items = slices.Insert(in.items, at2+1, more...)
	u.change(at, "stagger is min_healthy_time, with health_check = %s and auto_revert", health)
	u.warn(at, "update", "an update waits until a new instance was healthy for "+text+", and goes back if it does not become healthy; Nomad before 0.6 went on every "+text, "")
}

func (u *upgrader) periodic(b *body) {
	block := b.block("periodic")
	if block == nil {
		return
	}
	for _, name := range []string{"cron_spec", "cron"} {
		i := block.body.attr(name)
		if i == nil {
			continue
		}
		text, ok := i.value.text()
		if !ok {
			continue
		}
		i.name.text, i.name.kind = "crons", tokIdent
		i.value.tokens[0].text = "[" + i.value.tokens[0].text + "]"
		u.change(i.name, "%s is crons", name)
		if n := len(strings.Fields(text)); !strings.HasPrefix(text, "@") && (n < 5 || n > 7) {
			u.warn(i.name, "schedule", fmt.Sprintf("%q has %d fields, and Nomad takes 5 to 7", text, n), "Write the missing ones.")
		}
	}
	u.drop(block.body, "spec_type", "crons is always a list of cron expressions")
}

var oldAttributes = map[string]string{
	"kernel.os": "attr.kernel.name", "kernel.arch": "attr.cpu.arch", "arch": "attr.cpu.arch",
	"attr.kernel.os": "attr.kernel.name", "attr.kernel.arch": "attr.cpu.arch", "attr.arch": "attr.cpu.arch",
}

var bareAttribute = regexp.MustCompile(`^((attr|node|meta)\.[\w.-]+|(kernel|os|cpu|driver|platform|consul|nomad|memory|vault|unique)\.[\w.-]+|arch)$`)

// placement rewrites the attributes of constraints, affinities and spreads.
func (u *upgrader) placement(b *body) {
	for _, name := range []string{"constraint", "affinity", "spread"} {
		for _, c := range b.blocks(name) {
			for _, key := range []string{"attribute", "distinct_property"} {
				i := c.body.attr(key)
				text, ok := "", false
				if i != nil {
					text, ok = i.value.text()
				}
				if !ok {
					continue
				}
				inner := text
				if strings.HasPrefix(text, "${") && strings.HasSuffix(text, "}") {
					inner = text[2 : len(text)-1]
				} else if !bareAttribute.MatchString(text) {
					continue
				}
				if now := oldAttributes[inner]; now != "" {
					inner = now
				} else if !regexp.MustCompile(`^(attr|node|meta|NOMAD|var|local)\b`).MatchString(inner) && bareAttribute.MatchString(inner) {
					inner = "attr." + inner
				}
				if now := "${" + inner + "}"; now != text {
					i.value = literal(i.value.tokens[0], `"`+now+`"`)
					u.change(i.name, "%s %q is %q", key, text, now)
				}
			}
		}
	}
}

// vault removes the policies: since Nomad 1.10, the token of a task comes from its
// identity, and the role of Vault has the policies.
func (u *upgrader) vault(b *body) {
	for _, v := range b.blocks("vault") {
		if i := v.body.attr("policies"); i != nil {
			u.lists(v.body, "policies")
			u.change(i.name, "policies is removed: the role of Vault has them")
			u.warn(i.name, "vault", "the policies "+i.value.String()+" come from the role of Vault since Nomad 1.10", "Give them to a role of Vault for the identities of Nomad, and write role = \"…\" into the block.")
			v.body.remove(i)
		}
	}
}

var serviceLists = []string{"tags", "canary_tags"}

var validService = regexp.MustCompile(`^(?i:[a-z0-9]|[a-z0-9][a-z0-9-]{0,61}[a-z0-9])$`)

// service rewrites a service, whose name is byDefault if it says none.
func (u *upgrader) service(s *item, byDefault string) {
	b := s.body
	if u.whole && b.attr("name") == nil && !validService.MatchString(byDefault) {
		now := importer.DNSName(byDefault)
		b.items = append([]*item{newAttr(s.name, "name", strconv.Quote(now))}, b.items...)
		u.change(s.name, "the service has the name %s", now)
		u.warn(s.name, "renamed", fmt.Sprintf("Nomad refuses the name of the service, %s; it is %s", byDefault, now), "Change those who ask Consul for it.")
	}
	u.asBlocks(b, "check", "check_restart", "connect")
	u.single(b, []string{"check_restart", "connect"}, "meta")
	u.lists(b, serviceLists...)
	if u.whole {
		u.routes(s, byDefault)
	}
	for _, c := range b.blocks("check") {
		u.asBlocks(c.body, "header", "check_restart")
		u.single(c.body, []string{"check_restart"}, "header")
		u.lists(c.body, "args")
		for _, h := range c.body.blocks("header") {
			for _, i := range h.body.items {
				if i.value == nil {
					continue
				}
				ok := i.value.tokens[0].is("[")
				for _, t := range i.value.tokens {
					ok = ok && (t.kind == tokString || t.kind == tokComment || t.kind == tokNewline || t.kind == tokPunct || t.kind == tokIdent)
				}
				if !ok {
					u.refuse(i.name, "the header "+i.key()+" is not a list of texts", "Write [ \"…\" ].")
				}
			}
		}
	}
}

// number returns the value of an attribute, 0 and false if it is no literal number.
func number(i *item) (int, bool) {
	if i == nil {
		return 0, false
	}
	text, ok := i.value.scalar()
	n, err := strconv.Atoi(text)
	return n, ok && err == nil
}
