package compose

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/drover-nomad/drover/importer"
)

// Limits of what fits into a job spec.
const (
	maxFile    = 64 << 10
	maxDir     = 256 << 10
	maxInDir   = 40
	maxInTotal = 256 << 10
)

func (s *service) mounts() {
	at := s.at.get("volumes")
	at.take()
	volumes := slices.Clone(s.cfg.Volumes)
	for _, from := range s.cfg.VolumesFrom {
		name, mode, _ := strings.Cut(strings.TrimPrefix(from, "container:"), ":")
		other, ok := s.project.Services[name]
		if strings.HasPrefix(from, "container:") || !ok {
			s.at.get("volumes_from").refuse("volume-external", fmt.Sprintf("the volumes of %s are not in this input", name), "Name the volumes themselves.")
			continue
		}
		for _, v := range other.Volumes {
			v.ReadOnly = v.ReadOnly || mode == "ro"
			if !slices.ContainsFunc(volumes, func(o types.ServiceVolumeConfig) bool { return o.Target == v.Target }) {
				volumes = append(volumes, v)
			}
		}
	}
	s.at.take("volumes_from")
	s.at.get("volume_driver").warn("volume-driver", "drover makes volumes on the node's disk", "Register a CSI volume for other storage.")
	for _, v := range volumes {
		s.volume(at, v)
	}
	for _, spec := range s.cfg.Tmpfs {
		target, options, _ := strings.Cut(spec, ":")
		m := importer.Mount{Kind: "tmpfs", Target: target}
		for _, o := range strings.Split(options, ",") {
			key, value, _ := strings.Cut(o, "=")
			switch key {
			case "size":
				m.Size = bytesOf(value)
			case "mode":
				m.Mode = modeOf(value)
			case "", "rw", "nosuid", "nodev": // as Docker mounts it in any case
			default:
				s.at.get("tmpfs").warn("mount-kind", fmt.Sprintf("the option %s of the tmpfs at %s has no counterpart", o, target), "Remove it, or have the program set it up.")
			}
		}
		s.t.Mounts = append(s.t.Mounts, m)
	}
	s.at.take("tmpfs")
}

// modeOf is a file mode in octal as the decimal number that HCL takes.
func modeOf(octal string) string {
	n := 0
	for _, c := range strings.TrimPrefix(octal, "0o") {
		if c < '0' || c > '7' {
			return ""
		}
		n = n*8 + int(c-'0')
	}
	return itoa(n)
}

func bytesOf(s string) int64 {
	var u types.UnitBytes
	if err := u.DecodeMapstructure(s); err != nil {
		return 0
	}
	return int64(u)
}

// where is the place of the mount of a target.
func (s *service) where(at nodes, target string) importer.Position {
	for _, n := range at {
		for _, item := range n.Items() {
			if strings.Contains(item.Peek(), target) || s.substitute(item.Get("target").Peek()) == target {
				return item.At
			}
		}
	}
	if len(at) == 0 {
		return s.s.At
	}
	return at.pos()
}

func (s *service) volume(at nodes, v types.ServiceVolumeConfig) {
	where := s.where(at, v.Target)
	if v.Target == "" {
		return
	}
	switch v.Type {
	case types.VolumeTypeVolume:
		s.namedVolume(where, v)
	case types.VolumeTypeBind:
		s.bind(where, v)
	case types.VolumeTypeTmpfs:
		m := importer.Mount{Kind: "tmpfs", Target: v.Target}
		if v.Tmpfs != nil {
			m.Size = int64(v.Tmpfs.Size)
			if v.Tmpfs.Mode != 0 {
				m.Mode = fmt.Sprint(v.Tmpfs.Mode)
			}
		}
		s.t.Mounts = append(s.t.Mounts, m)
	default:
		s.ledger.Refuse(where, "mount-kind", fmt.Sprintf("a mount of type %s at %s has no counterpart on Nomad", v.Type, v.Target), "Use a volume, or put the content into the image.")
	}
}

func (s *service) namedVolume(where importer.Position, v types.ServiceVolumeConfig) {
	known := importer.KnownImage(s.t.ImageRef)
	if v.Source == "" {
		if !slices.Contains(known.Data, v.Target) {
			s.ledger.Warn(where, "no-copy-up", fmt.Sprintf("the anonymous volume at %s of %s is empty for each new instance", v.Target, s.cfg.Name), "Give it a name, if the data must be kept.")
			s.t.Mounts = append(s.t.Mounts, importer.Mount{Kind: "alloc", Source: slug(v.Target), Target: v.Target, ReadOnly: v.ReadOnly})
			return
		}
		s.ledger.Warn(where, "bind-as-volume", fmt.Sprintf("the anonymous volume at %s of %s has data and becomes a volume that is kept", v.Target, s.cfg.Name), "Give it a name in the input.")
		s.hostVolume(where, s.cfg.Name+"-"+slug(v.Target), v, known)
		return
	}
	at, cfg := s.topNodes("volumes", v.Source), s.project.Volumes[v.Source]
	at.get("labels").drop("labels of a volume have no effect")
	if bool(cfg.External) {
		at.take("name")
	} else {
		at.get("name").drop("the volume has the name of the stack and its key")
	}
	if cfg.Driver == "" || cfg.Driver == "local" {
		at.take("driver")
		opts := cfg.DriverOpts
		switch kind := opts["type"]; {
		case kind == "tmpfs":
			at.take("driver_opts")
			m := importer.Mount{Kind: "tmpfs", Target: v.Target}
			for _, o := range strings.Split(opts["o"], ",") {
				if key, value, _ := strings.Cut(o, "="); key == "size" {
					m.Size = bytesOf(value)
				}
			}
			s.t.Mounts = append(s.t.Mounts, m)
			return
		case kind == "nfs" || kind == "nfs4" || kind == "cifs":
			at.get("driver_opts").refuse("volume-driver", fmt.Sprintf("the volume %s is on a server (%s)", v.Source, kind), "Register it as a CSI volume, or mount it on the nodes and name the path. Allowed, it becomes a host volume on one node.")
		case opts["device"] != "":
			at.take("driver_opts")
			v.Source = opts["device"]
			if !filepath.IsAbs(v.Source) {
				v.Source = filepath.Join(s.dir, v.Source)
			}
			s.bind(where, v)
			return
		default:
			at.take("driver_opts")
		}
	} else {
		n := at.get("driver")
		n.refuse("volume-driver", fmt.Sprintf("the volume %s needs the driver %s", v.Source, cfg.Driver), "Register it as a CSI volume. Allowed, it becomes a host volume on one node.")
		at.take("driver_opts")
	}
	if v.Volume != nil && v.Volume.Subpath != "" {
		s.ledger.Warn(where, "mount-kind", fmt.Sprintf("the whole volume %s is mounted at %s instead of its directory %s", v.Source, v.Target, v.Volume.Subpath), "Use a volume of its own.")
	}
	s.hostVolume(where, v.Source, v, known)
}

// slug makes one word of a path.
func slug(p string) string {
	if out := importer.DNSName(p); out != "" {
		return out
	}
	return "root"
}

// hostVolume mounts a volume that drover makes on one node.
func (s *service) hostVolume(where importer.Position, key string, v types.ServiceVolumeConfig, known importer.Image) {
	cfg, declared := s.project.Volumes[key]
	source := importer.DNSName(s.m.Name + "-" + key)
	at := s.topNodes("volumes", key)
	if declared && bool(cfg.External) {
		source = importer.DNSName(cfg.Name)
		at.get("external").warn("volume-external", fmt.Sprintf("the volume %s must exist in Nomad under the name %s", key, source), "Make it before the first deploy, or remove external.")
	} else {
		at.take("external")
		s.owner(where, source, v, known)
	}
	label := slug(key)
	if !slices.ContainsFunc(s.s.Volumes, func(o importer.VolumeUse) bool { return o.Source == source }) {
		s.s.Volumes = append(s.s.Volumes, importer.VolumeUse{Name: label, Source: source, ReadOnly: v.ReadOnly})
	} else if !v.ReadOnly {
		for i := range s.s.Volumes {
			if s.s.Volumes[i].Source == source {
				s.s.Volumes[i].ReadOnly = false
			}
		}
	}
	m := importer.VolumeMount{Volume: label, Target: v.Target, ReadOnly: v.ReadOnly}
	if v.Bind != nil {
		m.Propagation = propagation(v.Bind.Propagation)
	}
	s.t.Volumes = append(s.t.Volumes, m)
	if !v.ReadOnly {
		s.s.Single = true
	}
}

func propagation(p string) string {
	switch p {
	case "rshared", "shared":
		return "bidirectional"
	case "rslave", "slave":
		return "host-to-task"
	case "private", "rprivate":
		return "private"
	}
	return ""
}

// owner declares a volume with the owner that the service needs.
func (s *service) owner(where importer.Position, source string, v types.ServiceVolumeConfig, known importer.Image) {
	uid, gid, _ := strings.Cut(s.cfg.User, ":")
	if !number(uid) {
		uid, gid = known.User, known.User
	}
	if !number(gid) {
		gid = uid
	}
	params := map[string]string{}
	if uid != "" && uid != "0" {
		params["uid"], params["gid"] = uid, gid
	}
	for i, o := range s.m.Volumes {
		if o.Name == source {
			if len(o.Parameters) == 0 && !v.ReadOnly {
				s.m.Volumes[i].Parameters = params
			}
			return
		}
	}
	if !known.Known && s.cfg.User == "" {
		s.ledger.Warn(where, "no-copy-up", fmt.Sprintf("the volume %s begins empty and belongs to root; Docker would give it the content and the owner of %s in the image", source, v.Target),
			"If the image runs as another user, set uid and gid in the parameters of the volume in stack.hcl.")
	}
	s.m.Volumes = append(s.m.Volumes, importer.Volume{Name: source, Parameters: params, Comment: "At " + v.Target + " of " + s.cfg.Name + "."})
}

func number(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

var fileName = regexp.MustCompile(`(?i)(\.(conf|cfg|cnf|ini|ya?ml|json|toml|xml|properties|env|sh|sql|crt|pem|key|cert|txt|js|py|php|html?|lua|log|rules|tmpl|template|hcl|acl|htpasswd|service|list|db|sqlite3?)|file|passwd|rc)$`)

func (s *service) bind(where importer.Position, v types.ServiceVolumeConfig) {
	source := filepath.Clean(v.Source)
	switch {
	case strings.HasSuffix(source, "docker.sock"):
		s.ledger.Warn(where, "docker-socket", fmt.Sprintf("%s controls the Docker engine of its node", s.cfg.Name), "Remove the mount if the service reads labels or events of containers: on Nomad, ask Nomad or Consul.")
		s.hostPath(where, source, v)
	case v.ReadOnly && (source == "/etc/localtime" || source == "/etc/timezone"), source == "/etc/localtime", source == "/etc/timezone":
		s.ledger.LeaveOut(where, source+" is left out: set TZ in the environment of the container if it needs a time zone")
	case !s.inProject(source):
		s.hostPath(where, source, v)
	default:
		s.projectPath(where, source, v)
	}
}

// inProject reports whether a path belongs to the project and not to the machine.
func (s *service) inProject(file string) bool {
	if rel, err := filepath.Rel(s.dir, file); err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
		return true
	}
	// A path that the input writes as relative is no path of the nodes.
	for _, n := range s.at.get("volumes").scalars() {
		text := s.substitute(n.Peek())
		for _, d := range s.docs { // an included file has a directory of its own
			if from, _, _ := strings.Cut(text, ":"); strings.HasPrefix(from, "..") && filepath.Join(filepath.Dir(d.file), from) == file {
				return true
			}
		}
	}
	return false
}

func (s *service) hostPath(where importer.Position, source string, v types.ServiceVolumeConfig) {
	s.ledger.Warn(where, "host-path", fmt.Sprintf("%s of the node is mounted at %s of %s", source, v.Target, s.cfg.Name), "It must be on each node that runs the service; volumes.enabled must be true in the docker plugin.")
	s.m.Needs = append(s.m.Needs, importer.Need{What: "`volumes { enabled = true }` in the docker plugin", Why: source, At: where})
	m := importer.Mount{Kind: "host", Source: source, Target: v.Target, ReadOnly: v.ReadOnly}
	if v.Bind != nil && v.Bind.Propagation != "" {
		s.setBlock("mount", fmt.Sprintf("type = \"bind\"\nsource = %s\ntarget = %s\nreadonly = %v\nbind_options {\npropagation = %s\n}",
			importer.Quote(source), importer.Quote(v.Target), v.ReadOnly, importer.Quote(v.Bind.Propagation)))
		return
	}
	s.t.Mounts = append(s.t.Mounts, m)
}

// projectPath mounts a file or a directory that is beside the input.
func (s *service) projectPath(where importer.Position, source string, v types.ServiceVolumeConfig) {
	shown := s.display(source)
	if s.src.DropBinds {
		if info, err := os.Stat(source); err != nil || info.IsDir() {
			s.ledger.LeaveOut(where, fmt.Sprintf("the mount of %s at %s is left out (--drop-binds)", shown, v.Target))
			return
		}
	}
	if s.cfg.Build != nil && s.isSource(source) {
		s.ledger.Warn(where, "bind-source", fmt.Sprintf("%s, which %s is built from, is not mounted at %s: the image has it", shown, s.cfg.Name, v.Target), "Put what is missing into the image.")
		return
	}
	if !s.inRoot(source) {
		s.asVolume(where, source, v)
		return
	}
	info, err := os.Stat(source)
	switch {
	case err != nil && fileName.MatchString(path.Base(source)) && fileName.MatchString(path.Base(v.Target)):
		s.ledger.Warn(where, "missing-file", fmt.Sprintf("%s does not exist; files/%s is empty", shown, s.filePath(v.Target)), "Put its content there.")
		s.addFile(where, importer.File{Target: v.Target}, nil)
	case err != nil:
		if source == s.dir {
			break
		}
		s.asVolume(where, source, v)
	case info.Mode().IsRegular():
		text, ok := s.readFile(where, source, true)
		if !ok {
			return
		}
		if len(text) > maxFile {
			s.ledger.Refuse(where, "file-too-big", fmt.Sprintf("%s has %d KiB", shown, len(text)>>10), "Put it into the image, or on the nodes at an absolute path. Allowed, it is left out.")
			return
		}
		if !v.ReadOnly {
			s.readOnly(where, v.Target)
		}
		s.addFile(where, importer.File{Target: v.Target, Mode: permissions(info.Mode())}, text)
	case info.IsDir() && source == s.dir:
		s.ledger.Refuse(where, "bind-source", fmt.Sprintf("the directory of the input is mounted at %s of %s", v.Target, s.cfg.Name), "Put the code into the image, or leave such mounts out with --drop-binds. Allowed, it becomes a volume.")
		s.asVolume(where, source, v)
	case info.IsDir():
		s.directory(where, source, v)
	default:
		s.ledger.Refuse(where, "mount-kind", fmt.Sprintf("%s is neither a file nor a directory", shown), "Name the path of the node.")
	}
}

func permissions(m fs.FileMode) string {
	if m&0o111 != 0 {
		return "0755"
	}
	return ""
}

func (s *service) readOnly(where importer.Position, target string) {
	s.ledger.Warn(where, "bind-read-only", fmt.Sprintf("%s of %s comes from the job and cannot be written", target, s.cfg.Name), "If the service writes it, use a volume.")
}

// isSource reports whether a path is the build context or in it.
func (s *service) isSource(source string) bool {
	context := s.cfg.Build.Context
	if context == "" {
		return true
	}
	if !filepath.IsAbs(context) {
		context = filepath.Join(s.dir, context)
	}
	info, err := os.Stat(source)
	if err == nil && !info.IsDir() && fileName.MatchString(source) && filepath.Dir(source) != context {
		return false
	}
	rel, err := filepath.Rel(context, source)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// asVolume makes a volume of a directory beside the input.
func (s *service) asVolume(where importer.Position, source string, v types.ServiceVolumeConfig) {
	rel, err := filepath.Rel(s.dir, source)
	if err != nil {
		rel = filepath.Base(source)
	}
	key := slug(rel)
	if key == "root" {
		key = s.s.Name + "-files"
	}
	s.ledger.Warn(where, "bind-as-volume", fmt.Sprintf("%s at %s of %s becomes the volume %s, which is empty", s.display(source), v.Target, s.cfg.Name, importer.DNSName(s.m.Name+"-"+key)), "Copy its content into the volume after the first deploy.")
	s.hostVolume(where, key, v, importer.KnownImage(s.t.ImageRef))
}

// directory takes the files of a small directory into the job.
func (s *service) directory(where importer.Position, dir string, v types.ServiceVolumeConfig) {
	files := map[string][]byte{}
	modes := map[string]string{}
	total := 0
	root, err := os.OpenRoot(dir)
	if err != nil {
		s.asVolume(where, dir, v)
		return
	}
	defer func() { _ = root.Close() }()
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == dir || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			total = maxDir + 1
			return fs.SkipAll // such as a link: the directory is no plain configuration
		}
		if total += int(info.Size()); total > maxDir || len(files) >= maxInDir || info.Size() > maxFile {
			total = maxDir + 1
			return fs.SkipAll
		}
		text, err := root.ReadFile(rel)
		if err != nil {
			return err
		}
		files[filepath.ToSlash(rel)], modes[filepath.ToSlash(rel)] = text, permissions(info.Mode())
		return nil
	})
	if err != nil || total > maxDir || len(files) == 0 {
		s.asVolume(where, dir, v)
		return
	}
	if !v.ReadOnly {
		s.readOnly(where, v.Target)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		s.addFile(where, importer.File{Target: path.Join(v.Target, name), Mode: modes[name], Covered: true}, files[name])
	}
	s.t.Mounts = append(s.t.Mounts, importer.Mount{Kind: "local", Source: v.Target, Target: v.Target, ReadOnly: true})
}

// filePath is where a file of the service is kept in the stack.
func (s *service) filePath(target string) string {
	return importer.FilePath(s.s.Name, target)
}

// addFile adds a file to the task, with its text in the stack.
func (s *service) addFile(where importer.Position, f importer.File, text []byte) {
	f.Target = path.Clean("/" + f.Target)
	f.Path = s.filePath(f.Target)
	s.m.Files[f.Path] = text
	total := 0
	for _, o := range s.t.Files {
		total += len(s.m.Files[o.Path])
	}
	if total+len(text) > maxInTotal {
		s.ledger.Refuse(where, "file-too-big", fmt.Sprintf("the files of %s have more than %d KiB together", s.cfg.Name, maxInTotal>>10), "Put them into the image.")
	}
	s.t.Files = append(s.t.Files, f)
}

// files are the configs and secrets of Compose.
func (s *service) files() {
	s.at.takeEach("configs", "secrets")
	for _, c := range s.cfg.Configs {
		s.config(types.FileReferenceConfig(c))
	}
	for _, c := range s.cfg.Secrets {
		s.secretFile(types.FileReferenceConfig(c))
	}
}

func ownership(f *importer.File, c types.FileReferenceConfig) {
	if number(c.UID) {
		f.UID = c.UID
	}
	if number(c.GID) {
		f.GID = c.GID
	}
	if c.Mode != nil {
		f.Mode = fmt.Sprintf("%04o", int64(*c.Mode)&0o7777)
	}
}

func (s *service) config(c types.FileReferenceConfig) {
	at, cfg := s.topNodes("configs", c.Source), s.project.Configs[c.Source]
	at.takeEach("name", "labels", "file", "content", "environment", "external")
	at.get("template_driver").warn("unsupported", "templates of Swarm are not evaluated", "Write the values.")
	target := c.Target
	if target == "" {
		target = "/" + c.Source
	}
	if !path.IsAbs(target) {
		target = "/" + target
	}
	f := importer.File{Target: target}
	ownership(&f, c)
	where := at.pos()
	switch {
	case bool(cfg.External):
		s.ledger.Refuse(where, "missing-file", fmt.Sprintf("the config %s is external and not in the input", c.Source), "Give it a file in the input. Allowed, an empty file stands for it.")
		s.addFile(where, f, nil)
	case cfg.File != "":
		if _, err := os.Stat(cfg.File); err != nil {
			s.ledger.Warn(where, "missing-file", fmt.Sprintf("%s does not exist; files/%s is empty", s.display(cfg.File), s.filePath(target)), "Put its content there.")
			s.addFile(where, f, nil)
			return
		}
		text, ok := s.readFile(where, cfg.File, true)
		if !ok {
			return
		}
		if len(text) > maxFile {
			s.ledger.Refuse(where, "file-too-big", fmt.Sprintf("%s has %d KiB", s.display(cfg.File), len(text)>>10), "Put it into the image.")
			return
		}
		s.addFile(where, f, text)
	case cfg.Environment != "":
		s.addFile(where, f, []byte(s.env[cfg.Environment]))
	default:
		s.addFile(where, f, []byte(cfg.Content))
	}
}

func (s *service) secretFile(c types.FileReferenceConfig) {
	at, cfg := s.topNodes("secrets", c.Source), s.project.Secrets[c.Source]
	at.takeEach("name", "labels", "file", "content", "environment", "external")
	at.get("driver").warn("unsupported", "secrets come from Nomad Variables", "Write the value into secrets.yaml.")
	at.get("driver_opts").take()
	at.get("template_driver").warn("unsupported", "templates of Swarm are not evaluated", "Write the values.")
	target := c.Target
	if target == "" {
		target = c.Source
	}
	if !path.IsAbs(target) {
		target = "/run/secrets/" + target
	}
	where := at.pos()
	value := ""
	switch {
	case cfg.File != "":
		if text, ok := s.readFile(where, cfg.File, false); ok {
			value = string(text)
		} else if !s.inRoot(cfg.File) {
			s.outside(where, cfg.File)
		}
	case cfg.Environment != "":
		value = s.env[cfg.Environment]
	case cfg.Content != "":
		value = cfg.Content
	}
	if value == "" {
		s.ledger.Warn(where, "missing-file", fmt.Sprintf("the secret %s has no value here", c.Source), "Write it into secrets.yaml.")
	}
	if len(value) > 32<<10 {
		s.ledger.Refuse(where, "file-too-big", fmt.Sprintf("the secret %s has %d KiB", c.Source, len(value)>>10), "A Nomad Variable has 64 KiB for all secrets of a job.")
		return
	}
	f := importer.File{Target: target, Content: importer.SecretText(s.secret(c.Source, value, "The secret "+c.Source+".")), IsSecret: true, Mode: "0444"}
	ownership(&f, c)
	s.t.Files = append(s.t.Files, f)
}
