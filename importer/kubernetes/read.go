// Package kubernetes reads Kubernetes manifests for the importer.
package kubernetes

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/drover-nomad/drover/importer"
)

// object is an object of the API.
type object struct {
	node                  *importer.Node
	group, kind, name, ns string
	used                  bool
}

// reader makes a model of objects.
type reader struct {
	led    map[string][]target // by host and path
	ledBy  []ledRoute
	beside []side
	moves  []redirection

	src     importer.Source
	ledger  *importer.Ledger
	m       *importer.Model
	text    string // of all inputs, to find names in it
	objects []*object
	parts   []*part
	images  map[string]image // by name, from kustomizations

	kustomizations []*importer.Node
	several        bool // several namespaces
	domains        int  // routes without a host of their own
	secrets        map[string]string
}

// part is a workload, or one of the replicas of a StatefulSet.
type part struct {
	*reader
	o        *object
	spec     *importer.Node // of the workload
	template *importer.Node // with metadata and spec of the pod
	pod      *importer.Node // spec of the pod
	label    string         // of the service
	ordinal  int            // of a replica of a StatefulSet, -1 for none
	replicas int
	s        *importer.Service
	selected map[int]bool      // container ports that a Service names
	labels   map[string]string // of the pods; nil until podLabels
	env      map[string]map[string]importer.Text
}

// Match reports whether a document is an object of Kubernetes' API.
func Match(root *importer.Node) bool {
	return root.Kind == importer.Map && root.Get("apiVersion").Peek() != "" && root.Get("kind").Peek() != ""
}

var (
	versionLine = regexp.MustCompile(`(?m)^apiVersion:`)
	kindLine    = regexp.MustCompile(`(?m)^kind:`)
)

// MatchTemplate reports whether a text that is no YAML is a template of Helm.
func MatchTemplate(text []byte) bool {
	return bytes.Contains(text, []byte("{{")) && versionLine.Match(text) && kindLine.Match(text)
}

// Read is the importer.Reader of Kubernetes. Each document of an input is an object or
// a list of objects.
func Read(_ context.Context, src importer.Source, l *importer.Ledger) (*importer.Model, error) {
	r := &reader{src: src, ledger: l, secrets: map[string]string{}, images: map[string]image{}, m: &importer.Model{Files: map[string][]byte{}}}
	l.KeepLast() // as Helm and older versions of kubectl do
	var names []string
	var text strings.Builder
	for _, in := range src.Inputs {
		names = append(names, in.Name)
		var roots []*importer.Node
		var err error
		if isJSON(in) {
			roots, err = l.JSON(in.Name, in.Text)
		} else {
			roots, err = l.YAML(in.Name, in.Text)
		}
		var syntax *importer.SyntaxError
		if errors.As(err, &syntax) && bytes.Contains(in.Text, []byte("{{")) {
			l.Refuse(syntax.Position, "not-rendered", "the file is a template of Helm, and not YAML", "Render it first: helm template NAME CHART | drover import kubernetes -")
			continue
		}
		if err != nil {
			return nil, err
		}
		text.Write(in.Text)
		text.WriteByte('\n')
		for _, root := range roots {
			r.collect(root, nil)
		}
	}
	r.text = text.String()
	r.kustomized()
	r.m.Description = "Imported from " + strings.Join(names, ", ") + "."
	r.latest()
	r.name()
	r.workloads()
	for _, p := range r.parts {
		p.read()
		r.m.Services = append(r.m.Services, p.s)
	}
	r.services()
	r.routes()
	r.policies()
	r.hooks()
	for _, p := range r.parts {
		p.finish()
	}
	slices.SortFunc(r.m.Addresses, func(a, b importer.Address) int { return strings.Compare(a.Name, b.Name) })
	r.rest()
	return r.m, nil
}

// isJSON reports whether an input is JSON, and not YAML that begins with a brace.
func isJSON(in importer.Input) bool {
	if !bytes.HasPrefix(bytes.TrimSpace(in.Text), []byte("{")) {
		return false
	}
	if filepath.Ext(in.Name) == ".json" {
		return true
	}
	dec := json.NewDecoder(bytes.NewReader(in.Text))
	for {
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return errors.Is(err, io.EOF)
		}
	}
}

// collect adds the objects of a document. The items of a list of one kind, as the API
// returns it, have neither kind nor apiVersion of their own.
func (r *reader) collect(n, list *importer.Node) {
	kind, version := n.Get("kind").Text(), n.Get("apiVersion").Text()
	if of := strings.TrimSuffix(list.Get("kind").Peek(), "List"); kind == "" && n.Kind == importer.Map {
		kind, version = of, list.Get("apiVersion").Peek()
	}
	switch {
	case n.Kind != importer.Map || kind == "":
		if n.Get("resources") != nil || n.Get("bases") != nil || n.Get("patchesStrategicMerge") != nil {
			r.kustomizations = append(r.kustomizations, n)
			return
		}
		n.Refuse(importer.RuleInvalid, "the document is no object of Kubernetes: it has no kind", "Add apiVersion and kind, or remove the document.")
		return
	case strings.HasSuffix(kind, "List") && n.Get("items") != nil:
		n.Get("metadata").Drop("a list is no object of its own")
		for _, c := range n.Get("items").Items() {
			r.collect(c, n)
		}
		return
	}
	group, _, ok := strings.Cut(version, "/")
	if !ok {
		group = ""
	}
	switch {
	case group == "kustomize.config.k8s.io":
		r.kustomizations = append(r.kustomizations, n)
		return
	case kind == "Template" && n.Get("objects") != nil:
		n.Refuse("not-rendered", "the file is a template of OpenShift", "Render it first: oc process -f FILE | drover import kubernetes -")
		return
	case group == "argoproj.io" && strings.HasPrefix(kind, "Application"), strings.HasSuffix(group, "fluxcd.io"), kind == "HelmChart" || kind == "HelmRelease":
		n.Refuse("not-rendered", fmt.Sprintf("%s says where manifests are, and has none", kind), "Render it first: helm template NAME CHART | drover import kubernetes -")
		return
	case version == "v2" && n.Get("name") != nil && n.Get("metadata") == nil:
		n.Drop("a chart's description")
		return
	}
	meta := n.Get("metadata")
	o := &object{node: n, group: group, kind: kind, name: meta.Get("name").Text(), ns: meta.Get("namespace").Text()}
	if o.name == "" {
		o.name = meta.Get("generateName").Text()
		o.name = strings.TrimSuffix(o.name, "-")
	}
	if o.name == "" && isWorkload(o) {
		pod := n.Get("spec", "template", "spec")
		if c := cmp.Or(pod.Get("containers"), n.Get("spec", "containers")).Items(); len(c) > 0 {
			o.name = c[0].Get("name").Peek()
			n.Get("kind").Warn("renamed", fmt.Sprintf("the %s has no name; it has that of its container, %s", kind, o.name), "Add metadata.name.")
		}
	}
	if name := meta.Get("name"); name != nil && name.Kind == importer.Map {
		name.Refuse("not-rendered", "the file is a template of Helm", "Render it first: helm template NAME CHART | drover import kubernetes -")
		return
	}
	if o.name == "" {
		n.Refuse(importer.RuleInvalid, fmt.Sprintf("a %s without metadata.name", kind), "Add its name.")
		return
	}
	r.objects = append(r.objects, o)
	n.Get("status").Drop("the state of an object in a cluster")
	for _, key := range []string{"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink", "ownerReferences", "finalizers", "deletionTimestamp", "clusterName"} {
		meta.Get(key).Drop("the state of an object in a cluster")
	}
	meta.Get("labels").Take() // they select
	meta.Get("generateName").Take()
}

// image is what a kustomization makes of an image.
type image struct{ name, tag, digest string }

// kustomized applies kustomizations that only name the other inputs, their namespace
// and their images, and refuses the others.
func (r *reader) kustomized() {
	for _, k := range r.kustomizations {
		dir := filepath.Dir(k.Pos().File)
		for _, n := range k.Fields() {
			switch n.Key {
			case "apiVersion", "kind":
				n.Take()
			case "metadata", "commonAnnotations":
				n.Drop("a kustomization is no object of its own")
			case "commonLabels", "labels":
				n.Drop("the labels are the same in selectors and in what they select")
			case "resources":
				for _, file := range n.Items() {
					known := slices.ContainsFunc(r.src.Inputs, func(in importer.Input) bool {
						return filepath.Clean(in.Name) == filepath.Join(dir, file.Peek())
					})
					if !known {
						r.unrendered(file, fmt.Sprintf("the kustomization has %s, which is not in the input", file.Peek()))
					}
					file.Take()
				}
			case "namespace":
				ns := n.Text()
				for _, o := range r.objects {
					if filepath.Dir(o.node.Pos().File) == dir {
						o.ns = ns
					}
				}
			case "images":
				for _, i := range n.Items() {
					r.images[i.Get("name").Text()] = image{i.Get("newName").Text(), i.Get("newTag").Text(), i.Get("digest").Text()}
				}
			default:
				r.unrendered(n, fmt.Sprintf("the kustomization has %s, which changes the other files", n.Key))
			}
		}
	}
}

// replaced is the reference of an image after the kustomizations.
func (r *reader) replaced(ref string) string {
	name, tag := ref, ""
	if at := strings.LastIndexByte(ref, ':'); at > strings.LastIndexByte(ref, '/') {
		name, tag = ref[:at], ref[at:]
	}
	i, ok := r.images[name]
	switch {
	case !ok:
		return ref
	case i.digest != "":
		tag = "@" + i.digest
	case i.tag != "":
		tag = ":" + i.tag
	}
	return cmp.Or(i.name, name) + tag
}

func (r *reader) unrendered(n *importer.Node, what string) {
	n.Refuse("not-rendered", what, "Render it first: kustomize build DIR | drover import kubernetes -")
}

// latest leaves the last of several objects with one name, as kubectl apply does.
func (r *reader) latest() {
	last := map[string]*object{}
	key := func(o *object) string { return o.group + "/" + o.kind + "/" + o.ns + "/" + o.name }
	for _, o := range r.objects {
		last[key(o)] = o
	}
	r.objects = slices.DeleteFunc(r.objects, func(o *object) bool {
		other := last[key(o)]
		if other == o {
			return false
		}
		o.node.Warn("name-collision", fmt.Sprintf("the %s %s is there twice; the one at %s counts, as for kubectl apply", o.kind, o.name, other.node.Pos()), "Remove one of them.")
		return true
	})
	namespaces := map[string]bool{}
	for _, o := range r.objects {
		if o.ns != "" && isWorkload(o) {
			namespaces[o.ns] = true
		}
	}
	only := "default"
	if len(namespaces) == 1 {
		for ns := range namespaces {
			only = ns
		}
	}
	for _, o := range r.objects {
		if o.ns == "" && o.kind != "Namespace" {
			o.ns = only
		}
		if isWorkload(o) {
			namespaces[o.ns] = true
		}
	}
	r.several = len(namespaces) > 1
}

func isWorkload(o *object) bool {
	switch o.group {
	case "", "apps", "extensions", "batch":
	default:
		return false
	}
	switch o.kind {
	case "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Pod", "Job", "CronJob":
		return true
	}
	return false
}

// maxName is the length of the name of a stack: the names of its jobs begin with it.
const maxName = 40

// name finds the name of the stack: the namespace of all objects, a label that all
// workloads have, the only workload, the file or the directory.
func (r *reader) name() {
	if r.src.Name != "" {
		r.m.Name = r.src.Name
		return
	}
	var workloads []*object
	same := func(of func(*object) string) string {
		out := ""
		for i, o := range workloads {
			if v := of(o); i == 0 {
				out = v
			} else if v != out {
				return ""
			}
		}
		return out
	}
	for _, o := range r.objects {
		if isWorkload(o) {
			workloads = append(workloads, o)
		}
	}
	label := func(key string) string {
		return same(func(o *object) string { return o.node.Get("metadata", "labels", key).Peek() })
	}
	candidates := []string{""}
	if ns := same(func(o *object) string { return o.ns }); ns != "default" {
		candidates = append(candidates, ns)
	}
	candidates = append(candidates, label("app.kubernetes.io/part-of"), label("app.kubernetes.io/instance"), label("release"))
	if len(workloads) == 1 {
		candidates = append(candidates, workloads[0].name)
	}
	if file := r.src.Inputs[0].Name; file != "-" {
		if len(r.src.Inputs) > 1 {
			if abs, err := filepath.Abs(filepath.Dir(file)); err == nil {
				candidates = append(candidates, filepath.Base(abs))
			}
		}
		base := filepath.Base(file)
		candidates = append(candidates, strings.TrimSuffix(base, filepath.Ext(base)))
	}
	for _, c := range append(candidates, "kubernetes") {
		if name := importer.DNSName(c); name != "" && len(name) <= maxName && strings.Trim(name, "0123456789-") != "" {
			r.m.Name = name
			return
		}
	}
}

// find returns an object by its kind and name.
func (r *reader) find(kind, ns, name string) *object {
	for _, o := range r.objects {
		if o.kind == kind && o.name == name && (o.ns == ns || kind == "PersistentVolume") {
			o.used = true
			return o
		}
	}
	return nil
}

// all returns the objects of a kind.
func (r *reader) all(kind string) []*object {
	var out []*object
	for _, o := range r.objects {
		if o.kind == kind {
			out = append(out, o)
		}
	}
	return out
}

// dropRest drops what nothing has used of n.
func dropRest(n *importer.Node, reason string) {
	switch {
	case n == nil:
	case !n.Used():
		n.Drop(reason)
	default:
		for _, c := range append(n.Fields(), n.Items()...) {
			if !c.Used() {
				c.Drop(reason)
			}
		}
	}
}

// rest accounts for the objects that no workload has.
func (r *reader) rest() {
	kinds := map[string]bool{}
	for _, o := range r.objects {
		n := o.node
		switch {
		case isWorkload(o), n.Get("spec").Used() && o.kind != "PersistentVolume":
		case o.kind == "ConfigMap" || o.kind == "Secret":
			what := "data"
			if !o.used {
				what = ""
			}
			for _, key := range []string{"data", "binaryData", "stringData"} {
				if what == "" {
					n.Get(key).Drop(fmt.Sprintf("no workload uses the %s %s", o.kind, o.name))
				} else {
					dropRest(n.Get(key), fmt.Sprintf("no workload uses this key of the %s %s", o.kind, o.name))
				}
			}
			n.Get("type").Take()
			n.Get("immutable").Take()
		case o.kind == "PersistentVolumeClaim" || o.kind == "PersistentVolume":
			dropRest(n.Get("spec"), fmt.Sprintf("no workload uses the %s %s", o.kind, o.name))
		case o.kind == "Namespace":
			n.Get("spec").Drop("a stack has all namespaces of its input")
		case o.kind == "ServiceAccount":
			for _, key := range []string{"secrets", "imagePullSecrets", "automountServiceAccountToken"} {
				if key == "imagePullSecrets" {
					n.Get(key).Warn("registry-auth", "the credentials of the registry are a Secret of Kubernetes", "Configure auth in the docker plugin of the clients.")
				}
				n.Get(key).Drop("Nomad gives each task an identity by itself")
			}
		case strings.HasPrefix(o.group, "rbac.authorization") || strings.HasPrefix(o.group, "authorization"):
			r.rights(o)
		case o.kind == "NetworkPolicy" || o.kind == "CiliumNetworkPolicy":
			r.whole(o, "no-isolation", fmt.Sprintf("%s %s does not keep services apart on Nomad", o.kind, o.name), "Use the firewall of the nodes.")
		case o.kind == "StorageClass" || o.kind == "IngressClass" || o.kind == "GatewayClass" || o.kind == "PriorityClass" || o.kind == "RuntimeClass" || o.kind == "Lease" || o.kind == "Event" || o.kind == "ControllerRevision":
			r.drop(o, fmt.Sprintf("%s configures Kubernetes itself", o.kind))
		case o.kind == "LimitRange" || o.kind == "ResourceQuota" || o.kind == "PodSecurityPolicy":
			r.whole(o, "unsupported", fmt.Sprintf("%s %s limits what a namespace may use; Nomad Community has no quotas", o.kind, o.name), "Give each service its own limits.")
		case o.kind == "CustomResourceDefinition" || o.kind == "APIService" || strings.HasSuffix(o.kind, "WebhookConfiguration"):
			r.whole(o, "needs-kubernetes", fmt.Sprintf("%s %s extends Kubernetes' API", o.kind, o.name), "Leave out the program that serves it, if it does nothing without Kubernetes.")
		case o.kind == "ServiceMonitor" || o.kind == "PodMonitor" || o.kind == "PrometheusRule":
			r.whole(o, "unsupported", fmt.Sprintf("%s %s configures the monitoring of the cluster", o.kind, o.name), "Write it into the configuration of Prometheus.")
		case o.kind == "SealedSecret" || o.kind == "ExternalSecret" || o.kind == "SecretProviderClass":
			r.whole(o, "unset-variable", fmt.Sprintf("%s %s has no values that can be read", o.kind, o.name), "Write the values into secrets.yaml.")
		case isCustom(o.group) && o.kind != "ManagedCertificate": // drover makes certificates itself
			n.Refuse("custom-resource", fmt.Sprintf("%s %s is a custom resource of %s: what runs, or who may reach it, is decided by a program in Kubernetes", o.kind, o.name, o.group),
				"Import what that program makes of it (kubectl get deployments,statefulsets,services,configmaps,secrets -o yaml). Allowed, it is left out.")
		default:
			if r.whole(o, "unsupported", fmt.Sprintf("%s %s is not imported: Nomad has no %s", o.kind, o.name, o.kind), "Add what it does to the jobs by hand, if it is needed."); kinds[o.kind] {
				continue
			}
			kinds[o.kind] = true
		}
		dropRest(n.Get("metadata", "annotations"), "annotations that only Kubernetes and its tools read")
		n.Walk(func(c *importer.Node) {
			if c.Kind == importer.Null { // as if it were absent
				c.Take()
			}
		})
	}
}

// isCustom reports whether objects of a group of the API are custom resources of which
// nothing is known. Those of cert-manager ask for certificates, which drover makes itself.
func isCustom(group string) bool {
	switch group {
	case "", "apps", "batch", "autoscaling", "policy", "extensions", "cert-manager.io", "acme.cert-manager.io":
		return false
	}
	return strings.Contains(group, ".") && !strings.HasSuffix(group, ".k8s.io") && !strings.HasSuffix(group, "istio.io")
}

// whole reports an object with all that is in it.
func (r *reader) whole(o *object, rule, message, remedy string) {
	o.node.Warn(rule, message, remedy)
}

func (r *reader) drop(o *object, reason string) {
	for _, n := range o.node.Fields() {
		if !n.Used() {
			n.Drop(reason)
		}
	}
}

// rights reports roles that a workload has.
func (r *reader) rights(o *object) {
	r.whole(o, "needs-kubernetes", fmt.Sprintf("%s %s gives rights in Kubernetes' API", o.kind, o.name), "Check whether a service calls that API. If it does, it does not work on Nomad.")
}
