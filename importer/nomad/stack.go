package nomad

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/render/lint"
)

// minSecret is the least length of a value that is looked for in templates.
const minSecret = 8

// readItems begins the part of a template in which the items of the job are known.
func readItems(job *item) string {
	hasRuns := job.body.block("periodic") != nil || job.body.block("parameterized") != nil
	return "{{ with nomadVar " + render.OwnVariable(hasRuns) + " "
}

// secretsOf makes secrets of the stack of values in env whose names look like one, and of
// the same values in templates.
func (u *upgrader) secretsOf(job *item) {
	values := map[string]string{} // name of the secret by value
	var all []string
	for _, group := range job.body.blocks("group") {
		for _, task := range group.body.blocks("task") {
			for value, name := range u.taskSecrets(task, job) {
				if values[value] == "" {
					values[value] = name
					all = append(all, value)
				}
			}
			u.registryPassword(task)
		}
	}
	// The longest first: one may be a part of another.
	slices.SortFunc(all, func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	job.body.walk(func(i *item) {
		if i.body == nil || i.key() != "template" {
			return
		}
		for _, value := range all {
			u.templateSecret(job, i.body, value, values[value])
		}
	})
}

// taskSecrets moves the secrets in the env of a task into a template, and returns their
// names by value.
func (u *upgrader) taskSecrets(task, job *item) map[string]string {
	found := map[string]string{}
	env := task.body.block("env")
	if env == nil {
		return found
	}
	lines := ""
	for _, i := range slices.Clone(env.body.items) {
		if i.value == nil {
			continue
		}
		value, ok := i.value.text()
		if !ok || !lint.InClear(i.key(), value) {
			continue
		}
		name := u.model.AddSecret(i.key(), value, fmt.Sprintf("%s of the task %s of %s.", i.key(), task.label(0), job.label(0)))
		found[value] = name
		if !slices.Contains(u.secrets, name) {
			u.secrets = append(u.secrets, name)
		}
		lines += fmt.Sprintf("%s={{ .%s.Value | toJSON }}\n", i.key(), name)
		env.body.remove(i)
		u.change(i.name, "%s is the secret %s of the stack", i.key(), name)
	}
	if lines == "" {
		return found
	}
	if len(env.body.items)+len(env.body.tail) == 0 {
		task.body.remove(env)
	}
	at := env.name
	block := newBlock(at, "template", newAttr(at, "destination", `"secrets/drover.env"`), newAttr(at, "env", "true"),
		&item{name: token{kind: tokIdent, text: "data", line: at.line, col: at.col}, value: &expr{tokens: []token{{kind: tokHeredoc, line: at.line, col: at.col,
			text: "<<EOT\n" + readItems(job) + "-}}\n" + lines + "{{ end -}}\nEOT"}}}})
	task.body.items = append(task.body.items, block)
	return found
}

// templateSecret replaces a value in the text of a template.
func (u *upgrader) templateSecret(job *item, b *body, value, secret string) {
	data := b.attr("data")
	if data == nil || len(data.value.tokens) != 1 || len(value) < minSecret || importer.Quote(value) != `"`+value+`"` {
		return
	}
	left, right := "{{", "}}"
	for name, to := range map[string]*string{"left_delimiter": &left, "right_delimiter": &right} {
		if i := b.attr(name); i != nil {
			if s, ok := i.value.text(); ok {
				*to = s
			}
		}
	}
	read := strings.NewReplacer("{{", left, "}}", right).Replace(readItems(job) + "}}{{ ." + secret + ".Value }}{{ end }}")
	t := &data.value.tokens[0]
	if t.kind == tokString {
		read = strings.ReplaceAll(read, `"`, `\"`)
	}
	done := ""
	for {
		before, after, ok := strings.Cut(t.text[len(done):], value)
		if !ok {
			break
		}
		before = done + before
		if strings.Count(before, left) > strings.Count(before, right) {
			u.warn(data.name, "not-imported", "an action of the template has the value of the secret "+secret, "Read it from the job's Nomad Variable instead.")
			done = before + value
			continue
		}
		done = before + read
		t.text = done + after
		u.change(data.name, "the template reads the secret %s", secret)
	}
}

// registryPassword removes the credentials of a registry, which no template can keep out
// of the job.
func (u *upgrader) registryPassword(task *item) {
	config := task.body.block("config")
	if driver, _ := driverOf(task); config == nil || driver != "docker" {
		return
	}
	auth := config.body.block("auth")
	if auth == nil {
		return
	}
	i := auth.body.attr("password")
	if i == nil {
		return
	}
	if value, ok := i.value.text(); ok && lint.InClear("password", value) {
		u.warn(auth.name, "registry-auth", "the password of the registry would be in the job; auth of "+task.label(0)+" is left out", "Write it into auth of the docker plugin of the clients.")
		u.change(auth.name, "auth is removed: the clients have the credentials of registries")
		config.body.remove(auth)
	}
}

var (
	fabioTag = regexp.MustCompile(`^urlprefix-([^/:\s]*)(?::(\d+))?(/\S*)?((?:\s+\S+)*)\s*$`)
)

// routed is a name of a service that may have routes.
var routed = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// routes adds tags of drover's edge to those of fabio. byDefault is the name of a service
// that says none.
func (u *upgrader) routes(s *item, byDefault string) {
	tags := s.body.attr("tags")
	if tags == nil {
		return
	}
	var more []string
	for _, t := range tags.value.tokens {
		if t.kind != tokString || !strings.HasPrefix(unquote(t.text), "urlprefix-") {
			continue
		}
		name := byDefault
		if i := s.body.attr("name"); i != nil {
			name, _ = i.value.text()
		}
		if !routed.MatchString(name) {
			u.warn(t, "route", fmt.Sprintf("the edge has no routes for a service with the name %q", name), "Name it with lower-case letters, digits and dashes, and write a tag drover.route=HOST/PATH.")
			continue
		}
		for _, tag := range u.fabio(t, unquote(t.text)) {
			if !slices.Contains(more, tag) {
				more = append(more, tag)
			}
		}
	}
	if len(more) == 0 {
		return
	}
	u.addTags(tags, more)
	if s.body.attr("name") == nil { // the edge knows it by its name
		s.body.items = append([]*item{newAttr(s.name, "name", strconv.Quote(byDefault))}, s.body.items...)
	}
}

// addTags adds texts, which are HCL between quotes, to a list.
func (u *upgrader) addTags(tags *item, more []string) {
	end := -1
	for n, t := range tags.value.tokens {
		if t.is("]") {
			end = n
		}
	}
	if end < 0 {
		return
	}
	last := end - 1
	for last > 0 && (tags.value.tokens[last].kind == tokNewline || tags.value.tokens[last].kind == tokComment) {
		last--
	}
	text := ""
	for _, tag := range more {
		text += `, "` + tag + `"`
	}
	if tags.value.tokens[last].is(",") {
		text = strings.TrimPrefix(text, ",") + ","
	}
	at := tags.value.tokens[last]
	tags.value.tokens = slices.Insert(tags.value.tokens, last+1, token{kind: tokPunct, text: text, line: at.line, col: at.col})
	u.change(tags.name, "the routes of fabio are routes of drover's edge, too")
}

// fabio returns the tags of drover for one of fabio.
func (u *upgrader) fabio(t token, text string) []string {
	m := fabioTag.FindStringSubmatch(text)
	warn := func(message, remedy string) []string {
		u.warn(t, "route", message, remedy)
		return nil
	}
	const byHand = "Write a tag drover.route=HOST/PATH into the service block, with a host name and a plain path."
	if m == nil {
		return warn(fmt.Sprintf("the edge has no route for %q", text), byHand)
	}
	host, port, path := strings.ToLower(m[1]), m[2], m[3]
	if path == "" {
		path = "/"
	}
	options := map[string]string{}
	for _, o := range strings.Fields(m[4]) {
		key, value, _ := strings.Cut(o, "=")
		options[key] = value
	}
	if options["proto"] == "tcp" {
		number, err := strconv.Atoi(port)
		if err != nil || host != "" || number < 1 || number > 65535 {
			return warn(fmt.Sprintf("the edge has no route for %q", text), "Write a tag drover.tcp=PORT into the service block.")
		}
		u.warn(t, "route", fmt.Sprintf("the edge must listen on port %d", number), fmt.Sprintf("Add %d to tcp_ports of the edge.", number))
		return []string{fmt.Sprintf("drover.tcp=%d", number)}
	}
	where := host
	switch {
	case host == "":
		where = "${var.domain}"
		if !slices.ContainsFunc(u.model.Variables, func(v importer.Variable) bool { return v.Name == "domain" }) {
			u.model.Variables = append(u.model.Variables, importer.Variable{Name: "domain", Default: `"apps.example.org"`, Description: "Host name of the routes whose input names none."})
		}
		u.warn(t, "route", fmt.Sprintf("the route of %q is for all hosts; here it is for the host in the variable domain", text), "Set domain in environments/default.hcl.")
		u.model.Certify(importer.Var("domain"))
	case !importer.IsRouteHost(host):
		return warn(fmt.Sprintf("the edge has no route for host %q", host), byHand)
	}
	if !importer.IsRoutePath(path) {
		return warn(fmt.Sprintf("the edge has no route for the path %q", path), byHand)
	}
	if to, ok := options["redirect"]; ok {
		code, url, ok := strings.Cut(to, ",")
		if !ok || !slices.Contains([]string{"301", "302", "303", "307", "308"}, code) || strings.Contains(url, "$") {
			return warn(fmt.Sprintf("the edge has no redirect as %q", text), "Write a tag drover.redirect=HOST/PATH CODE URL into the service block.")
		}
		u.certify(t, host)
		return []string{"drover.redirect=" + where + path + " " + code + " " + url}
	}
	u.certify(t, host)
	tags := []string{"drover.route=" + where + path}
	for _, key := range slices.Sorted(maps.Keys(options)) {
		value := options[key]
		switch {
		case key == "strip" && importer.IsRoutePath(value):
			tags = append(tags, "drover.strip="+value)
		case key == "proto" && value == "https":
			tags = append(tags, "drover.protocol=https", "drover.ca=none")
			u.warn(t, "route", "the edge does not verify the certificate of the service", "Name the authority in drover.ca.")
		case key == "proto" && value == "http", key == "tlsskipverify":
		default:
			u.warn(t, "route", fmt.Sprintf("the option %s of %q is not mapped", key, text), "Look for it in the routes of drover.")
		}
	}
	return tags
}

// certify gives a host a certificate: fabio's tags do not say whether it has one.
func (u *upgrader) certify(t token, host string) {
	if host == "" {
		return
	}
	before := len(u.model.Certificates)
	u.model.Certify(importer.Lit(host))
	if before == 0 {
		u.warn(t, "route", "fabio's tags do not say which hosts have TLS; the edge gets certificates for them and redirects HTTP to HTTPS", "For HTTP, add the tag drover.http=serve and remove the certificate block of stack.hcl.")
	}
}
