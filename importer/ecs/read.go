// Package ecs reads applications of Amazon ECS for the importer: task definitions,
// service definitions and CloudFormation templates with them.
package ecs

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/drover-nomad/drover/importer"
)

// reader makes a model of task definitions and services.
type reader struct {
	src     importer.Source
	ledger  *importer.Ledger
	m       *importer.Model
	defs    []*definition
	deploys []*deployment
	scopes  []*scope
	vars    map[string]string
	secrets map[string]string // without a value: name, by where it is in AWS
	routes  []*target
	steps   int
	tls     []string // names of the certificate
}

// definition is a task definition.
type definition struct {
	*scope
	node *importer.Node
	id   string // in its template
	used bool
}

// deployment is what runs a task definition: a service, or a schedule.
type deployment struct {
	*scope
	node     *importer.Node
	id       string
	schedule *schedule
	after    []string // resources of the template that must exist before
}

// Match reports whether a document is of Amazon ECS: a task definition, a list of
// container definitions, a service, or a template of CloudFormation.
func Match(root *importer.Node) bool {
	switch root.Kind {
	case importer.List:
		items := root.Items()
		return len(items) > 0 && items[0].Kind == importer.Map && (isContainer(items[0]) || isDefinition(items[0]) || isService(items[0]))
	case importer.Map:
		return isTemplate(root) || isDefinition(root) || isService(root) || wrapped(root) != nil || isCopilot(root)
	}
	return false
}

func has(n *importer.Node, keys ...string) bool {
	return slices.ContainsFunc(keys, func(k string) bool { return n.Get(k) != nil })
}

func isTemplate(n *importer.Node) bool {
	if has(n, "AWSTemplateFormatVersion") {
		return true
	}
	return slices.ContainsFunc(n.Get("Resources").Fields(), func(r *importer.Node) bool { return strings.HasPrefix(r.Get("Type").Peek(), "AWS::") })
}

func isDefinition(n *importer.Node) bool {
	list := n.Get("containerDefinitions")
	if list == nil {
		list = n.Get("ContainerDefinitions")
	}
	return list != nil && list.Kind == importer.List
}

func isContainer(n *importer.Node) bool {
	return has(n, "image", "Image") && has(n, "name", "Name") && !has(n, "id", "kind", "apiVersion")
}

func isService(n *importer.Node) bool {
	return has(n, "serviceName", "desiredCount", "schedulingStrategy", "deploymentConfiguration", "serviceConnectConfiguration", "launchType", "capacityProviderStrategy", "loadBalancers") && !has(n, "id", "kind", "apiVersion", "containerDefinitions", "job")
}

func isCopilot(n *importer.Node) bool {
	return has(n, "type") && has(n, "name") && has(n, "image") && slices.Contains([]string{"Load Balanced Web Service", "Backend Service", "Worker Service", "Scheduled Job", "Request-Driven Web Service"}, n.Get("type").Peek())
}

// wrapped is what the commands describe-task-definition and describe-services put
// around their answers.
func wrapped(n *importer.Node) *importer.Node {
	if d := n.Get("taskDefinition"); d != nil && d.Kind == importer.Map {
		return d
	}
	for _, key := range []string{"service", "services", "taskDefinitions"} {
		d := n.Get(key)
		if d != nil && d.Kind == importer.Map && isService(d) {
			return d
		}
		if items := d.Items(); d != nil && d.Kind == importer.List && len(items) > 0 && items[0].Kind == importer.Map && (isService(items[0]) || isDefinition(items[0])) {
			return d
		}
	}
	return nil
}

// Read is the importer.Reader of Amazon ECS. Each document of an input is what the
// register and describe commands take and print, or a template.
func Read(_ context.Context, src importer.Source, l *importer.Ledger) (*importer.Model, error) {
	r := &reader{src: src, ledger: l, vars: map[string]string{}, secrets: map[string]string{}, m: &importer.Model{Files: map[string][]byte{}}}
	var names []string
	for _, in := range src.Inputs {
		names = append(names, in.Name)
		var roots []*importer.Node
		var err error
		if text := bytes.TrimSpace(in.Text); bytes.HasPrefix(text, []byte("{")) || bytes.HasPrefix(text, []byte("[")) {
			roots, err = l.JSON(in.Name, in.Text)
		} else {
			roots, err = l.YAML(in.Name, in.Text)
		}
		if err != nil {
			if at, ok := templated(in); ok {
				l.Refuse(at, importer.RuleInvalid, "the file is a template that has not been rendered", render)
				continue
			}
			return nil, err
		}
		for _, root := range roots {
			c := &scope{reader: r, root: root, known: map[string]bool{}}
			r.scopes = append(r.scopes, c)
			c.document(root, in)
		}
	}
	r.m.Description = "Imported from " + strings.Join(names, ", ") + "."
	r.name()
	if l.Refused() {
		return r.m, nil
	}
	r.connect()
	for _, c := range r.scopes {
		c.rest()
	}
	r.balance()
	return r.m, nil
}

const render = "Render it first: ecspresso render taskdef > task.json."

// template finds the functions of ecspresso, and names between double braces.
var template = regexp.MustCompile(`\{\{-?\s*(?:(?:env|must_env|\w*tfstatef?|ssm|ssm_list|cfn_output|cfn_export|secretsmanager_arn)\b|[A-Za-z_]\w*\s*(?:\|[^}]*)?-?\}\})|<%=?|\{%`)

// templated returns the first line with a template, false if there is none.
func templated(in importer.Input) (importer.Position, bool) {
	at := template.FindIndex(in.Text)
	if at == nil {
		return importer.Position{File: in.Name}, false
	}
	return importer.Position{File: in.Name, Line: 1 + bytes.Count(in.Text[:at[0]], []byte("\n"))}, true
}

// document finds the task definitions and the services of a document.
func (c *scope) document(n *importer.Node, in importer.Input) {
	switch {
	case n.Kind == importer.List:
		items := n.Items()
		if len(items) > 0 && isContainer(items[0]) {
			c.untemplated(n)
			c.defs = append(c.defs, &definition{scope: c, node: n, id: stem(in.Name)})
			return
		}
		for _, item := range items {
			c.document(item, in)
		}
	case n.Kind != importer.Map:
		n.Refuse(importer.RuleInvalid, "a task definition, a service or a template is an object", "Write it between { and }.")
	case isTemplate(n):
		c.template = true
		c.resources(n)
	case isDefinition(n):
		c.untemplated(n)
		c.defs = append(c.defs, &definition{scope: c, node: n})
	case wrapped(n) != nil:
		inner := wrapped(n)
		for _, f := range n.Fields() {
			switch f.Key {
			case inner.Key:
			case "tags":
				f.Drop("tags of the task definition in AWS")
			default:
				f.Drop("a part of the answer of the AWS API")
			}
		}
		c.document(inner, in)
	case isService(n):
		c.untemplated(n)
		c.deploys = append(c.deploys, &deployment{scope: c, node: n})
	case isCopilot(n):
		n.Refuse("unsupported", "the file is a manifest of AWS Copilot", "Export the task definition: aws ecs describe-task-definition --task-definition NAME > task.json.")
	default:
		n.Refuse(importer.RuleInvalid, "the document is neither a task definition, nor a service, nor a template of CloudFormation", "Export the task definition: aws ecs describe-task-definition --task-definition NAME > task.json.")
	}
}

// untemplated refuses values that another program must fill in first.
func (c *scope) untemplated(n *importer.Node) {
	done := false
	n.Walk(func(v *importer.Node) {
		if v.Kind != importer.Scalar || !template.MatchString(v.Peek()) {
			return
		}
		if !done {
			v.Refuse(importer.RuleInvalid, fmt.Sprintf("%s is a template that has not been rendered", v.Path()), render)
			done = true
		}
	})
}

func stem(name string) string {
	if name == "-" {
		return ""
	}
	file := filepath.Base(name)
	return strings.TrimSuffix(file, filepath.Ext(file))
}

// name finds the name of the stack: that of the only task definition or service, or of
// the file.
func (r *reader) name() {
	if r.src.Name != "" {
		r.m.Name = r.src.Name
		return
	}
	for _, c := range r.scopes {
		if c.template {
			r.m.Name = importer.DNSName(stem(r.src.Inputs[0].Name))
		}
	}
	if r.m.Name == "" && len(r.defs) == 1 {
		d := r.defs[0]
		r.m.Name = importer.DNSName(d.get(d.node, "family").Peek())
	}
	if r.m.Name == "" {
		r.m.Name = importer.DNSName(stem(r.src.Inputs[0].Name))
	}
	if r.m.Name == "" {
		r.m.Name = "ecs"
	}
}

// connect finds the task definition of each service, and maps both.
func (r *reader) connect() {
	for _, p := range r.deploys {
		d := r.definitionOf(p)
		if d == nil {
			continue
		}
		d.used = true
		r.service(d, p)
	}
	for _, d := range r.defs {
		if !d.used {
			r.service(d, nil)
		}
	}
	if len(r.defs) == 0 && !r.ledger.Refused() {
		for _, c := range r.scopes {
			if c.template {
				c.root.Refuse("no-input", "the template has no task definition (AWS::ECS::TaskDefinition)", "Import the template that has it, or export it: aws ecs describe-task-definition --task-definition NAME > task.json.")
			}
		}
	}
	r.order()
}

// definitionOf returns the task definition that a service runs.
func (r *reader) definitionOf(p *deployment) *definition {
	ref := p.get(p.node, "taskDefinition")
	if p.schedule != nil {
		ref = p.schedule.definition
	}
	if id := p.resource(ref); id != "" {
		for _, d := range r.defs {
			if d.scope == p.scope && d.id == id {
				ref.Take()
				return d
			}
		}
	}
	family := p.value(ref)
	family = family[strings.LastIndexByte(family, '/')+1:]
	family, _, _ = strings.Cut(family, ":")
	for _, d := range r.defs {
		if family != "" && d.value(d.get(d.node, "family")) == family {
			ref.Take()
			return d
		}
	}
	if len(r.defs) == 1 && !p.template {
		ref.Take()
		return r.defs[0]
	}
	for _, d := range r.defs {
		for _, lb := range p.items(p.get(p.node, "loadBalancers")) {
			for _, n := range d.containers() {
				if name := p.value(p.get(lb, "containerName")); !p.template && name != "" && d.value(d.get(n, "name")) == name {
					ref.Take()
					return d
				}
			}
		}
	}
	p.node.Refuse("no-input", "the task definition of the service is not in the input", "Import both together: drover import ecs TASK.json SERVICE.json. It is exported by aws ecs describe-task-definition --task-definition NAME > task.json.")
	return nil
}

// resource is the logical ID of the resource that a value refers to, "" for any other
// value.
func (c *scope) resource(n *importer.Node) string {
	name, arg, _ := c.call(c.reduce(n))
	id := ""
	switch name {
	case "Ref":
		id = arg.Peek()
	case "GetAtt":
		id, _, _ = strings.Cut(arg.Peek(), ".")
		if items := arg.Items(); len(items) > 0 {
			id = items[0].Peek()
		}
	case "Sub":
		id = strings.TrimSuffix(strings.TrimPrefix(arg.Peek(), "${"), "}")
		id, _, _ = strings.Cut(id, ".")
	}
	if id == "" || c.root.Get("Resources", id) == nil {
		return ""
	}
	return id
}

// order maps the order in which a template makes its services.
func (r *reader) order() {
	for _, t := range r.routes {
		for _, id := range t.deploy.after {
			for _, o := range r.routes {
				if o.deploy.scope == t.deploy.scope && o.deploy.id == id && o.service != t.service && !reaches(r.m, o.service, t.service, map[string]bool{}) {
					t.service.DependsOn = append(t.service.DependsOn, o.service.Name)
				}
			}
		}
	}
}

// reaches reports whether s depends on other, directly or not.
func reaches(m *importer.Model, s, other *importer.Service, seen map[string]bool) bool {
	if seen[s.Name] {
		return false
	}
	seen[s.Name] = true
	for _, name := range s.DependsOn {
		for _, next := range m.Services {
			if next.Name == name && (next == other || reaches(m, next, other, seen)) {
				return true
			}
		}
	}
	return false
}

// secret returns the name of the secret with this value, which it makes if there is
// none. "" stands for an unknown value.
func (r *reader) secret(hint, value, description string) string {
	if value != "" {
		return r.m.AddSecret(hint, value, description)
	}
	if r.secrets[description] == "" {
		r.secrets[description] = r.m.AddSecret(hint, "", description)
	}
	return r.secrets[description]
}
