package kubernetes

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/drover-nomad/drover/importer"
)

// Limits of what fits into a job spec.
const (
	maxFile  = 64 << 10
	maxTotal = 256 << 10
)

// mounts maps the volumes that a container mounts.
func (p *part) mounts(t *importer.Task, c *importer.Node) {
	for _, m := range c.Get("volumeMounts").Items() {
		name, target := m.Get("name").Text(), m.Get("mountPath").Text()
		sub := strings.Trim(m.Get("subPath").Text(), "/")
		ro := m.Get("readOnly").Bool()
		m.Get("recursiveReadOnly").Take()
		propagation := map[string]string{"HostToContainer": "host-to-task", "Bidirectional": "bidirectional"}[m.Get("mountPropagation").Text()]
		if expr := m.Get("subPathExpr"); expr.Exists() {
			text := expand(expr.Text(), p.env[t.Name], false)
			literal, ok := text.Literal()
			if !ok {
				expr.Warn("unsupported", fmt.Sprintf("the path %s below the volume %s is only known when the pod runs; the whole volume is mounted", expr.Peek(), name), "Let the program make the directory.")
			}
			sub = strings.Trim(literal, "/")
		}
		if sub != "" {
			sub = strings.TrimPrefix(path.Clean("/"+sub), "/")
		}
		if !strings.HasPrefix(target, "/") {
			target = "/" + target
		}
		target = path.Clean(target)
		if strings.ContainsAny(target, ":\n") || target == "/" || strings.ContainsAny(sub, ":\n") {
			m.Refuse(importer.RuleInvalid, fmt.Sprintf("%q is no path of a mount", m.Get("mountPath").Peek()), "Write an absolute path without colons.")
			continue
		}
		v := p.volume(name)
		if v == nil {
			if claim := p.claim(name); claim != nil {
				p.claimed(t, m, name, claim.Get("spec"), target, sub, ro, propagation)
				continue
			}
			m.Refuse(importer.RuleInvalid, fmt.Sprintf("%s mounts the volume %s, which it does not have", p.o.name, name), "Add it to volumes. If it is a patch, render it first: kustomize build DIR | drover import kubernetes -")
			continue
		}
		p.mount(t, m, v, mountPoint{name: name, target: target, sub: sub, ro: ro, propagation: propagation})
	}
	p.checkSize(t)
}

// mountPoint is a place of a container where a volume is mounted.
type mountPoint struct {
	name, target, sub, propagation string
	ro                             bool
}

func (p *part) volume(name string) *importer.Node {
	for _, v := range p.pod.Get("volumes").Items() {
		if v.Get("name").Peek() == name {
			v.Get("name").Take()
			return v
		}
	}
	return nil
}

// claim is a template of claims of a StatefulSet.
func (p *part) claim(name string) *importer.Node {
	for _, v := range p.spec.Get("volumeClaimTemplates").Items() {
		if v.Get("metadata", "name").Peek() == name {
			return v
		}
	}
	return nil
}

// volumeClaims accounts for the templates of claims.
func (p *part) volumeClaims() {
	for _, v := range p.spec.Get("volumeClaimTemplates").Items() {
		for _, key := range []string{"apiVersion", "kind", "metadata"} {
			v.Get(key).Take()
		}
		v.Get("status").Drop("the state of an object in a cluster")
		dropRest(v.Get("spec"), "no container mounts the volume of this claim")
	}
	for _, v := range p.pod.Get("volumes").Items() {
		if !v.Used() {
			v.Drop("no container mounts the volume")
		}
	}
}

// mount mounts a volume of the pod.
func (p *part) mount(t *importer.Task, m, v *importer.Node, at mountPoint) {
	switch {
	case v.Get("configMap").Exists():
		p.files(t, m, at, p.configFiles(v.Get("configMap"), at))
	case v.Get("secret").Exists():
		p.files(t, m, at, p.secretFiles(v.Get("secret"), v.Get("secret", "secretName").Text()))
	case v.Get("projected").Exists():
		var all []importer.File
		mode := modeOf(v.Get("projected", "defaultMode"), "")
		for _, s := range v.Get("projected", "sources").Items() {
			switch {
			case s.Get("configMap").Exists():
				all = append(all, p.configFiles(s.Get("configMap"), at)...)
			case s.Get("secret").Exists():
				all = append(all, p.secretFiles(s.Get("secret"), s.Get("secret", "name").Text())...)
			case s.Get("downwardAPI").Exists():
				all = append(all, p.downwardFiles(s.Get("downwardAPI"))...)
			default:
				s.Warn("needs-kubernetes", "a token of Kubernetes' API does not exist on Nomad", "Use the identity of the task, if the program can.")
			}
		}
		for i := range all { // the modes of the sources themselves count before it
			if mode != "" && (all[i].Mode == "" || all[i].Mode == standardSecret) {
				all[i].Mode = mode
			}
		}
		p.files(t, m, at, all)
	case v.Get("downwardAPI").Exists():
		p.files(t, m, at, p.downwardFiles(v.Get("downwardAPI")))
	case v.Get("hostPath").Exists():
		p.hostPath(t, v.Get("hostPath"), at)
	case v.Get("persistentVolumeClaim").Exists():
		ref := v.Get("persistentVolumeClaim")
		at.ro = ref.Get("readOnly").Bool() || at.ro
		p.persistent(t, ref, at)
	case v.Get("ephemeral").Exists():
		v.Get("ephemeral").Drop("it is a directory of the allocation, as large as its disk")
		p.scratch(t, at)
	case v.Get("emptyDir") != nil || len(v.Keys()) == 1:
		p.emptyDir(t, v.Get("emptyDir"), at)
	default:
		kind := v.Fields()[0].Key
		for _, k := range v.Keys() {
			if k != "name" {
				kind = k
			}
		}
		if kind == "image" || kind == "gitRepo" {
			v.Get(kind).Refuse("mount-kind", fmt.Sprintf("%s mounts a volume of kind %s, which Nomad does not have", p.o.name, kind), "Put the content into the image. Allowed, the directory is empty.")
			p.scratch(t, at)
			return
		}
		v.Get(kind).Refuse("volume-driver", fmt.Sprintf("the volume %s of %s is one of %s", at.name, p.o.name, kind), "Register it as a CSI volume. Allowed, it becomes a host volume on one node.")
		p.hostVolume(t, m, at.name, at, false)
	}
}

func join(source, sub string) string {
	if sub == "" {
		return source
	}
	return path.Join(source, sub)
}

// scratch mounts a directory of the allocation.
func (p *part) scratch(t *importer.Task, at mountPoint) {
	t.Mounts = append(t.Mounts, importer.Mount{Kind: "alloc", Source: join(cmp.Or(importer.DNSName(at.name), "data"), at.sub), Target: at.target, ReadOnly: at.ro})
}

func (p *part) emptyDir(t *importer.Task, v *importer.Node, at mountPoint) {
	memory := v.Get("medium").Text() == "Memory"
	size, sized := p.amountOf(v.Get("sizeLimit"))
	users := 0
	for _, key := range []string{"containers", "initContainers"} {
		for _, c := range p.pod.Get(key).Items() {
			for _, m := range c.Get("volumeMounts").Items() {
				if m.Get("name").Peek() == at.name {
					users++
				}
			}
		}
	}
	v.Take()
	if sized && (!memory || users != 1 || at.sub != "") {
		v.Get("sizeLimit").Drop("a directory of the allocation has the size of its disk")
	}
	if memory && users == 1 && at.sub == "" {
		mount := importer.Mount{Kind: "tmpfs", Target: at.target, Mode: "1023"} // 01777
		if sized {
			mount.Size = int64(size)
		}
		t.Mounts = append(t.Mounts, mount)
		return
	}
	if memory {
		v.Get("medium").Warn("mount-kind", fmt.Sprintf("the volume %s is in memory on Kubernetes, and a directory of the allocation here, because several containers share it", at.name), "Give it to one container, if it must not be on a disk.")
	}
	if user, ok := t.User.Literal(); ok && user != "" && !strings.HasPrefix(user, "0") {
		p.ledger.Warn(v.Pos(), "no-copy-up", fmt.Sprintf("the directory %s of %s belongs to root, and the container runs as %s", at.target, p.o.name, user), "Make the directory writable in a prestart task, or run the container as root.")
	}
	p.scratch(t, at)
}

func (p *part) hostPath(t *importer.Task, v *importer.Node, at mountPoint) {
	source := path.Clean("/" + v.Get("path").Text())
	switch kind := v.Get("type").Text(); {
	case strings.HasSuffix(source, "docker.sock") || strings.HasSuffix(source, "containerd.sock"):
		v.Warn("docker-socket", fmt.Sprintf("%s controls the container engine of its node", p.o.name), "Set volumes.enabled = true in the docker plugin of the clients, or leave it out.")
	case kind == "DirectoryOrCreate" || kind == "FileOrCreate" || kind == "":
		v.Warn("host-path", fmt.Sprintf("%s of the node is mounted at %s", source, at.target), "Make it on each node, and set volumes.enabled = true in the docker plugin of the clients.")
	default:
		v.Warn("host-path", fmt.Sprintf("%s of the node is mounted at %s", source, at.target), "Set volumes.enabled = true in the docker plugin of the clients.")
	}
	if strings.ContainsAny(source, ":\n") {
		v.Refuse(importer.RuleInvalid, fmt.Sprintf("%q is no path", source), "Write a path without colons.")
		return
	}
	if at.propagation != "" {
		p.ledger.Warn(v.Pos(), "mount-kind", fmt.Sprintf("mounts that the node makes below %s later, and those of the container, are not shared with the other", source), "Write a mount block with bind_options { propagation } into the config of the task.")
	}
	t.Mounts = append(t.Mounts, importer.Mount{Kind: "host", Source: join(source, at.sub), Target: at.target, ReadOnly: at.ro})
	p.m.Needs = append(p.m.Needs, importer.Need{What: "volumes { enabled = true } in the docker plugin", Why: fmt.Sprintf("%s mounts %s", p.label, source), At: v.Pos()})
}

// persistent mounts the volume of a claim.
func (p *part) persistent(t *importer.Task, ref *importer.Node, at mountPoint) {
	name := ref.Get("claimName").Text()
	at.name = cmp.Or(importer.DNSName(name), "data")
	o := p.find("PersistentVolumeClaim", p.o.ns, name)
	shared := false
	if o != nil {
		spec := o.node.Get("spec")
		shared = p.modes(spec)
		if pv := p.boundTo(o); pv != nil {
			if p.bound(t, pv, at) {
				return
			}
		}
	}
	p.hostVolume(t, ref, at.name, at, shared)
}

// modes takes what a claim says of its volume, and reports whether several nodes may
// write to it.
func (p *part) modes(spec *importer.Node) bool {
	shared := false
	for _, m := range spec.Get("accessModes").Items() {
		shared = shared || m.Text() == "ReadWriteMany"
	}
	spec.Get("resources").Drop("a host volume has the size of its directory")
	spec.Get("storageClassName").Drop("drover makes volumes on the disk of the node")
	for _, key := range []string{"volumeName", "selector", "volumeMode", "volumeAttributesClassName"} {
		spec.Get(key).Take()
	}
	for _, key := range []string{"dataSource", "dataSourceRef"} {
		spec.Get(key).Warn("bind-as-volume", "the volume begins empty, and not with the data of another one", "Copy its content after the first deploy.")
	}
	return shared
}

// boundTo is the volume that a claim has.
func (p *part) boundTo(claim *object) *object {
	spec := claim.node.Get("spec")
	name, class := spec.Get("volumeName").Peek(), spec.Get("storageClassName").Peek()
	for _, o := range p.all("PersistentVolume") {
		ref := o.node.Get("spec", "claimRef", "name").Peek()
		if o.name == name || ref == claim.name || name == "" && ref == "" && class != "" && o.node.Get("spec", "storageClassName").Peek() == class {
			return o
		}
	}
	volumes, claims := p.all("PersistentVolume"), p.all("PersistentVolumeClaim")
	if len(volumes) == 1 && len(claims) == 1 && name == "" && volumes[0].node.Get("spec", "storageClassName").Peek() == class {
		return volumes[0]
	}
	return nil
}

// bound mounts a volume that is an object of its own. It returns false for one that
// becomes a host volume.
func (p *part) bound(t *importer.Task, pv *object, at mountPoint) bool {
	spec := pv.node.Get("spec")
	for _, key := range []string{"capacity", "accessModes", "persistentVolumeReclaimPolicy", "storageClassName", "volumeMode", "claimRef", "mountOptions"} {
		spec.Get(key).Take()
	}
	pv.used = true
	switch {
	case spec.Get("hostPath").Exists():
		p.hostPath(t, spec.Get("hostPath"), at)
		return true
	case spec.Get("local").Exists():
		for _, term := range spec.Get("nodeAffinity", "required", "nodeSelectorTerms").Items() {
			p.term(term, 0)
		}
		p.hostPath(t, spec.Get("local"), at)
		return true
	}
	for _, n := range spec.Fields() {
		if !n.Used() {
			n.Refuse("volume-driver", fmt.Sprintf("the volume %s is one of %s", pv.name, n.Key), "Register it as a CSI volume. Allowed, it becomes a host volume on one node.")
		}
	}
	return false
}

// claimed mounts a volume of a StatefulSet.
func (p *part) claimed(t *importer.Task, m *importer.Node, name string, spec *importer.Node, target, sub string, ro bool, propagation string) {
	p.modes(spec)
	key := p.label + "-" + importer.DNSName(name)
	p.hostVolume(t, m, key, mountPoint{name: name, target: target, sub: sub, ro: ro, propagation: propagation}, false)
}

// hostVolume mounts a volume that drover makes on one node.
func (p *part) hostVolume(t *importer.Task, n *importer.Node, key string, at mountPoint, shared bool) {
	label := cmp.Or(importer.DNSName(at.name), "data")
	if p.several {
		key = p.o.ns + "-" + key
	}
	source := importer.DNSName(p.m.Name + "-" + key)
	if (shared || p.s.Kind == importer.KindSystem) && (p.replicas > 1 || p.s.Kind == importer.KindSystem) {
		n.Refuse("volume-shared", fmt.Sprintf("the instances of %s share the volume %s on several nodes; a host volume is on one", p.o.name, at.name), "Register it as a CSI volume. Allowed, all instances run on the node of the volume.")
	} else if p.replicas > 1 && p.ordinal < 0 && !at.ro {
		p.ledger.Warn(n.Pos(), "volume-shared", fmt.Sprintf("all instances of %s run on the node of the volume %s", p.o.name, at.name), "Scale it down to 1, or use a CSI volume.")
	}
	user, _, _ := strings.Cut(literalOf(t.User), ":")
	group := p.pod.Get("securityContext", "fsGroup").Peek()
	known := importer.KnownImage(t.ImageRef)
	if user == "" {
		user = known.User
	}
	params := map[string]string{}
	if number(user) && user != "0" {
		params["uid"], params["gid"] = user, user
	}
	if number(group) && group != "0" {
		params["gid"], params["mode"] = group, "0775"
		if params["uid"] == "" {
			params["uid"] = "0"
		}
	}
	others := false
	at2 := slices.IndexFunc(p.m.Volumes, func(o importer.Volume) bool { return o.Name == source })
	switch {
	case at2 < 0:
		if !known.Known && len(params) == 0 {
			p.ledger.Warn(n.Pos(), "no-copy-up", fmt.Sprintf("the volume %s begins empty and belongs to root", at.name), "If the image runs as another user, set uid and gid in the parameters of the volume in stack.hcl.")
		}
		p.m.Volumes = append(p.m.Volumes, importer.Volume{Name: source, Parameters: params, Comment: "At " + at.target + " of " + p.label + "."})
	case len(p.m.Volumes[at2].Parameters) == 0:
		p.m.Volumes[at2].Parameters = params
	}
	for _, o := range p.parts {
		if o == p || o.s == nil {
			continue
		}
		for i, v := range o.s.Volumes {
			if v.Source == source {
				o.s.Volumes[i].Shared, others = true, true
			}
		}
	}
	use := slices.IndexFunc(p.s.Volumes, func(o importer.VolumeUse) bool { return o.Source == source })
	if use < 0 {
		for i := 2; slices.ContainsFunc(p.s.Volumes, func(o importer.VolumeUse) bool { return o.Name == label }); i++ {
			label = fmt.Sprintf("%s-%d", importer.DNSName(at.name), i)
		}
		p.s.Volumes = append(p.s.Volumes, importer.VolumeUse{Name: label, Source: source, Shared: others || p.replicas > 1 && p.ordinal < 0})
	} else {
		label = p.s.Volumes[use].Name
	}
	p.s.Single = true
	if at.sub != "" {
		n.Get("subPath").Warn("unsupported", fmt.Sprintf("Nomad mounts the whole volume %s at %s, and not its directory %s", at.name, at.target, at.sub), "Copy the content of the directory to the top of the volume.")
	}
	t.Volumes = append(t.Volumes, importer.VolumeMount{Volume: label, Target: at.target, ReadOnly: at.ro, Propagation: at.propagation})
}

func literalOf(t importer.Text) string {
	s, _ := t.Literal()
	return s
}

func number(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// modeOf is a mode of four octal digits.
func modeOf(n *importer.Node, standard string) string {
	if v, ok := n.Int(); ok && v >= 0 && v <= 0o777 {
		return fmt.Sprintf("%04o", v)
	}
	return standard
}

// chosen are the keys that a volume has, with their paths and modes.
func chosen(v *importer.Node, keys []string, do func(at *importer.Node, key, to, mode string)) {
	standard := modeOf(v.Get("defaultMode"), "")
	v.Get("optional").Take()
	v.Get("name").Take()
	if items := v.Get("items"); items.Exists() {
		for _, i := range items.Items() {
			do(i, i.Get("key").Text(), i.Get("path").Text(), modeOf(i.Get("mode"), standard))
		}
		return
	}
	for _, k := range keys {
		do(v, k, k, standard)
	}
}

// configFiles are the files of a ConfigMap; the target of each is relative.
func (p *part) configFiles(v *importer.Node, _ mountPoint) []importer.File {
	name := v.Get("name").Text()
	o := p.find("ConfigMap", p.o.ns, name)
	if o == nil {
		if !v.Get("optional").Bool() {
			v.Warn("missing-file", fmt.Sprintf("the ConfigMap %s that %s mounts is not in the input; the directory is empty", name, p.o.name), "Import it together with the others.")
		}
		return nil
	}
	var all []importer.File
	chosen(v, dataKeys(o), func(at *importer.Node, key, to, mode string) {
		text, ok := configValue(o, key)
		if !ok {
			at.Warn("missing-file", fmt.Sprintf("the ConfigMap %s has no key %s", name, key), "Add the key.")
			return
		}
		if len(text) > maxFile {
			at.Refuse("file-too-big", fmt.Sprintf("%s of the ConfigMap %s has %d KiB; a file of a job may have %d KiB", key, name, len(text)>>10, maxFile>>10), "Put it into the image. Allowed, it is left out.")
			return
		}
		folder := name
		if p.several {
			folder = o.ns + "-" + name
		}
		file := importer.FilePath(folder, key)
		p.m.Files[file] = text
		all = append(all, importer.File{Path: file, Target: to, Mode: mode})
	})
	return all
}

// standardSecret is the mode of a file of a Secret without a mode.
const standardSecret = "0644"

// secretFiles are the files of a Secret.
func (p *part) secretFiles(v *importer.Node, name string) []importer.File {
	o := p.find("Secret", p.o.ns, name)
	var keys []string
	if o != nil {
		keys = dataKeys(o)
	} else if !v.Get("items").Exists() {
		if !v.Get("optional").Bool() {
			v.Warn("missing-file", fmt.Sprintf("the Secret %s that %s mounts is not in the input", name, p.o.name), "Import it together with the others, or write a template for each of its keys into the task.")
		}
		return nil
	}
	var all []importer.File
	chosen(v, keys, func(at *importer.Node, key, to, mode string) {
		all = append(all, importer.File{Content: p.secretKey(at, p.o.ns, name, key), Target: to, Mode: cmp.Or(mode, standardSecret), IsSecret: true})
	})
	return all
}

// downwardFiles are the files that show fields of the pod.
func (p *part) downwardFiles(v *importer.Node) []importer.File {
	var all []importer.File
	standard := modeOf(v.Get("defaultMode"), "")
	for _, i := range v.Get("items").Items() {
		text := ""
		switch field := i.Get("fieldRef", "fieldPath"); {
		case field.Peek() == "metadata.labels" || field.Peek() == "metadata.annotations":
			for _, n := range p.template.Get("metadata", strings.TrimPrefix(field.Text(), "metadata.")).Fields() {
				text += fmt.Sprintf("%s=%q\n", n.Key, n.Text())
			}
		case field.Exists():
			value := p.field(field)
			literal, ok := value.Literal()
			if !ok {
				field.Warn("unset-variable", fmt.Sprintf("the field %s is only known when the task runs; the file has the name of the service", field.Peek()), "Write it with a template.")
				literal = p.label
			}
			text = literal
		default:
			containers := p.pod.Get("containers").Items()
			text = literalOf(p.resourceField(i.Get("resourceFieldRef"), containers[0]))
		}
		i.Get("fieldRef", "apiVersion").Take()
		to := i.Get("path").Text()
		mode := modeOf(i.Get("mode"), standard)
		file := importer.FilePath(p.label, path.Join("podinfo", to))
		p.m.Files[file] = []byte(text)
		all = append(all, importer.File{Path: file, Target: to, Mode: mode})
	}
	return all
}

// files mounts files at a directory, or one of them at a file.
func (p *part) files(t *importer.Task, m *importer.Node, at mountPoint, all []importer.File) {
	add := func(f importer.File, target string) {
		if strings.ContainsAny(target, ":\n\\") || strings.Contains(target, "..") && slices.Contains(strings.Split(target, "/"), "..") {
			m.Refuse(importer.RuleInvalid, fmt.Sprintf("%q is no path of a file", target), "Write a path without colons.")
			return
		}
		f.Target = path.Clean(target)
		if group := p.pod.Get("securityContext", "fsGroup").Peek(); number(group) && group != "0" {
			mode, err := strconv.ParseUint(cmp.Or(f.Mode, "0644"), 8, 16)
			if err == nil { // as Kubernetes does
				f.GID, f.Mode = group, fmt.Sprintf("%04o", mode|0o440)
			}
		}
		if i := slices.IndexFunc(t.Files, func(o importer.File) bool { return o.Target == f.Target }); i >= 0 {
			t.Files[i] = f
			return
		}
		t.Files = append(t.Files, f)
	}
	if at.sub != "" {
		found := false
		for _, f := range all {
			to := path.Clean("/" + f.Target)[1:]
			if to == at.sub {
				add(f, at.target)
				found = true
			} else if rest, ok := strings.CutPrefix(to, at.sub+"/"); ok {
				add(f, path.Join(at.target, rest))
				found = true
			}
		}
		if !found {
			m.Warn("missing-file", fmt.Sprintf("the volume %s of %s has no file %s", at.name, p.o.name, at.sub), "Add the key.")
		}
		return
	}
	open := false
	for _, f := range all {
		f.Covered = !f.IsSecret
		open = open || f.Covered
		if path.Clean(f.Target) == "." || strings.HasPrefix(f.Target, "/") {
			m.Refuse(importer.RuleInvalid, fmt.Sprintf("%q is no path of a file", f.Target), "Write a relative path.")
			continue
		}
		add(f, at.target+"/"+f.Target)
	}
	if open || len(all) == 0 {
		t.Mounts = append(t.Mounts, importer.Mount{Kind: "local", Source: strings.TrimPrefix(at.target, "/"), Target: at.target, ReadOnly: true})
	}
}

// checkSize refuses files that do not fit into a job together.
func (p *part) checkSize(t *importer.Task) {
	total := 0
	for _, other := range append(slices.Clone(p.s.Tasks), t) {
		for _, f := range other.Files {
			total += len(p.m.Files[f.Path])
		}
	}
	if total > maxTotal {
		p.ledger.Refuse(t.At, "file-too-big", fmt.Sprintf("the files of %s have %d KiB together; those of a job may have %d KiB", p.o.name, total>>10, maxTotal>>10), "Put them into the image.")
	}
}
