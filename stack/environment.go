package stack

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
)

// Target is where the services of a stack run: one region of one cluster, or some
// datacenters of it. An environment without targets has one target without a name, region
// and datacenters: each job then runs where its spec says.
type Target struct {
	Name        string
	Cluster     *Cluster // nil: the one that NOMAD_ADDR leads to
	Region      string   // "" for that of the cluster
	Namespace   string   // "" for the job's own
	Datacenters []string // names or globs; empty for the job's own
	// ConsulDatacenter is where its services register; "" if drover has to find it.
	ConsulDatacenter string

	// Counts are the counts of all groups of a service, by the service's
	// name, over those of its job.
	Counts map[string]int
	// JobSuffix is appended to the ID of each job: "-NAME" when another target
	// shares cluster, region and namespace, else "".
	JobSuffix string
	// Services that run here, in dependency order.
	Services []string
	Range    hcl.Range `json:"-"`
}

// Cluster is a Nomad cluster with its own address and, if it has one, its Consul. The
// NOMAD_* and CONSUL_* environment variables are not used for it, so that a token is
// never sent to another cluster.
type Cluster struct {
	Name   string
	Region string // of its targets, unless they say otherwise
	Access
	Consul *Access   // nil: the Consul that CONSUL_HTTP_ADDR leads to
	Range  hcl.Range `json:"-"`
}

// Access is how a server is reached. Files are paths as the process sees them.
type Access struct {
	Address       string // URL
	CACert        string // file, PEM; "" for the system's roots
	ClientCert    string // file, PEM
	ClientKey     string // file, PEM
	TLSServerName string
	TokenEnv      string // name of the environment variable that holds the token
	TokenFile     string // or the file
}

// Driver is how a job that runs drover gets the drover program.
type Driver struct {
	Name     string // docker, exec or raw_exec
	Image    string // with docker
	Path     string // with exec and raw_exec: on the node
	Artifact string // or fetched from here, as Nomad's artifact.source
	Checksum string // of the artifact, as "sha256:…"
	// Env is the environment of the process, as CONSUL_HTTP_ADDR. Nomad fills
	// in ${…}.
	Env map[string]string
	// ConsulVolume is the host volume with the directory of Consul's socket, to which
	// CONSUL_HTTP_ADDR in Env points; "" with raw_exec, which needs no volume.
	ConsulVolume string

	NodePool    string // "" for Nomad's default
	Constraints []DriverConstraint
	CPU         int // MHz; 0 for drover's default, as with the next two
	MemoryMB    int
	MemoryMaxMB int

	Range hcl.Range
}

// DriverConstraint is a constraint block of Nomad.
type DriverConstraint struct {
	Attribute string `hcl:"attribute,optional"`
	Operator  string `hcl:"operator,optional"` // "=" when empty
	Value     string `hcl:"value,optional"`
}

type targetBlock struct {
	Cluster          string         `hcl:"cluster,optional"`
	Region           string         `hcl:"region,optional"`
	Namespace        string         `hcl:"namespace,optional"`
	Datacenters      []string       `hcl:"datacenters,optional"`
	ConsulDatacenter string         `hcl:"consul_datacenter,optional"`
	Count            map[string]int `hcl:"count,optional"`
	JobSuffix        *string        `hcl:"job_suffix,optional"`
	Services         []string       `hcl:"services,optional"`
	// Layers over every job; read by package render.
	Jobs   []jobOverlay `hcl:"job,block"`
	Locals *anything    `hcl:"locals,block"`
}

type jobOverlay struct {
	Name   string   `hcl:"name,label"`
	Remain hcl.Body `hcl:",remain"`
}

type anything struct {
	Remain hcl.Body `hcl:",remain"`
}

type accessBlock struct {
	Address       string `hcl:"address"`
	CACert        string `hcl:"ca_cert,optional"`
	ClientCert    string `hcl:"client_cert,optional"`
	ClientKey     string `hcl:"client_key,optional"`
	TLSServerName string `hcl:"tls_server_name,optional"`
	TokenEnv      string `hcl:"token_env,optional"`
	TokenFile     string `hcl:"token_file,optional"`
}

type clusterBlock struct {
	Region string       `hcl:"region,optional"`
	Consul *accessBlock `hcl:"consul,block"`
	Access hcl.Body     `hcl:",remain"`
}

// envConsul is where a process finds Consul (github.com/hashicorp/consul/api).
const envConsul = "CONSUL_HTTP_ADDR"

type driverBlock struct {
	Image    string `hcl:"image,optional"`
	Path     string `hcl:"path,optional"`
	Artifact string `hcl:"artifact,optional"`
	Checksum string `hcl:"checksum,optional"`

	Env          map[string]string `hcl:"env,optional"`
	ConsulVolume string            `hcl:"consul_volume,optional"`

	NodePool    string             `hcl:"node_pool,optional"`
	Constraints []DriverConstraint `hcl:"constraint,block"`
	Resources   *driverResources   `hcl:"resources,block"`
}

type driverResources struct {
	CPU       int `hcl:"cpu,optional"`
	Memory    int `hcl:"memory,optional"`
	MemoryMax int `hcl:"memory_max,optional"`
}

// environmentSchema has the blocks of an environment beside values and layers.
var environmentSchema = &hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{
	{Type: "cluster", LabelNames: []string{"name"}},
	{Type: "target", LabelNames: []string{"name"}},
	{Type: "wave", LabelNames: []string{"name"}},
	{Type: "schedule", LabelNames: []string{"name"}},
	{Type: "drover_driver", LabelNames: []string{"driver"}},
}}

// environmentReader reads the blocks of one environment into a stack.
type environmentReader struct {
	s        *Stack
	ctx      *hcl.EvalContext
	now      time.Time
	services []string // all, in dependency order
	clusters map[string]*Cluster
	targets  []string
	waves    []waveRead
	diags    hcl.Diagnostics
}

// environment reads the blocks of clusters, targets, waves and schedules. The services of
// s must be in dependency order.
func (s *Stack) environment(body hcl.Body, ctx *hcl.EvalContext, now time.Time) hcl.Diagnostics {
	r := &environmentReader{s: s, ctx: ctx, now: now, clusters: map[string]*Cluster{}}
	for _, svc := range s.Services {
		r.services = append(r.services, svc.Name)
	}
	if body != nil {
		content, _, diags := body.PartialContent(environmentSchema)
		r.diags = append(r.diags, diags...)
		r.read(content)
	}
	if len(s.Targets) == 0 {
		s.Targets = []*Target{{Services: r.services}}
	}
	r.overlaps()
	r.resolveWaves()
	return r.diags
}

func (r *environmentReader) bad(at hcl.Range, summary, detail string) {
	r.diags = append(r.diags, errAt(at, summary, detail))
}

func (r *environmentReader) read(content *hcl.BodyContent) {
	seen := map[string]hcl.Range{}
	var rest []*hcl.Block
	for _, b := range content.Blocks {
		id := b.Type + " " + b.Labels[0]
		if b.Type == "drover_driver" {
			id = b.Type // there is one
		}
		if first, dup := seen[id]; dup {
			r.bad(b.DefRange, "Duplicate "+b.Type, fmt.Sprintf("%s is already defined at %s.", id, place(first)))
			continue
		}
		seen[id] = b.DefRange
		if b.Type != "drover_driver" && !validName(b.Labels[0]) {
			r.bad(b.LabelRanges[0], fmt.Sprintf("Invalid name %q of a %s", b.Labels[0], b.Type), "A name holds letters, digits, dots, dashes and underscores, and begins with a letter or digit.")
			continue
		}
		if b.Type == "cluster" {
			r.cluster(b)
			continue
		}
		rest = append(rest, b)
	}
	for _, b := range rest {
		switch b.Type {
		case "target":
			r.target(b)
		case "wave":
			r.wave(b)
		case "schedule":
			r.schedule(b)
		case "drover_driver":
			r.driver(b)
		}
	}
}

// decode decodes a block with gohcl, and reports whether that succeeded.
func (r *environmentReader) decode(b *hcl.Block, into any) bool {
	diags := gohcl.DecodeBody(b.Body, r.ctx, into)
	for _, d := range diags {
		if d.Summary == "Unsupported argument" && strings.Contains(d.Detail, `"token"`) {
			d.Summary = "A token does not belong into a file"
			d.Detail = "Name the environment variable that holds it with token_env, or the file with token_file."
		}
	}
	r.diags = append(r.diags, diags...)
	return !diags.HasErrors()
}

// unknown adds the error that name is not one of known.
func (r *environmentReader) unknown(at hcl.Range, who, what, name string, known []string) {
	hint := "There is no " + what + " in this environment."
	if near := Nearest(name, known); near != "" {
		hint = fmt.Sprintf("Did you mean %q?", near)
	} else if len(known) > 0 && len(known) <= 12 {
		hint = "Known are " + strings.Join(known, ", ") + "."
	}
	r.bad(at, fmt.Sprintf("%s names the unknown %s %q", who, what, name), hint)
}

// known checks the names of a list and returns those that exist.
func (r *environmentReader) known(b *hcl.Block, attr, what string, names, known []string) []string {
	var out []string
	who := strings.ToUpper(b.Type[:1]) + b.Type[1:] + fmt.Sprintf(" %q", b.Labels[0])
	for _, name := range names {
		switch {
		case what == "service" && r.s.isDisabled(name):
			r.bad(attrRange(b, attr), fmt.Sprintf("%s names the disabled service %q", who, name), fmt.Sprintf("Enable the service, or remove it from %s.", attr))
		case !slices.Contains(known, name):
			r.unknown(attrRange(b, attr), who, what, name, known)
		case slices.Contains(out, name):
			r.bad(attrRange(b, attr), fmt.Sprintf("%s names the %s %q twice", who, what, name), "Remove one of them.")
		default:
			out = append(out, name)
		}
	}
	return out
}

func (r *environmentReader) cluster(b *hcl.Block) {
	var v clusterBlock
	if !r.decode(b, &v) {
		return
	}
	c := &Cluster{Name: b.Labels[0], Region: v.Region, Range: b.DefRange}
	var own accessBlock
	if !r.decode(&hcl.Block{Body: v.Access}, &own) {
		return
	}
	c.Access = r.access(b, own)
	if v.Consul != nil {
		a := r.access(childBlock(b, "consul"), *v.Consul)
		c.Consul = &a
	}
	r.clusters[c.Name] = c
	r.s.Clusters = append(r.s.Clusters, c)
}

// childBlock is the single block of that type in b, or b itself.
func childBlock(b *hcl.Block, typ string) *hcl.Block {
	c, _, _ := b.Body.PartialContent(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: typ}}})
	if len(c.Blocks) == 0 {
		return b
	}
	return c.Blocks[0]
}

// childBlocks are the blocks with one label in b, in the order of the file.
func childBlocks(b *hcl.Block, typ string) hcl.Blocks {
	c, _, _ := b.Body.PartialContent(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: typ, LabelNames: []string{"name"}}}})
	return c.Blocks
}

func (r *environmentReader) access(b *hcl.Block, v accessBlock) Access {
	a := Access{
		Address: v.Address, CACert: r.file(v.CACert), ClientCert: r.file(v.ClientCert), ClientKey: r.file(v.ClientKey),
		TLSServerName: v.TLSServerName, TokenEnv: v.TokenEnv, TokenFile: r.file(v.TokenFile),
	}
	u, err := url.Parse(v.Address)
	switch {
	case err != nil || !slices.Contains([]string{"http", "https", "unix"}, u.Scheme) || (u.Host == "" && u.Scheme != "unix"):
		r.bad(attrRange(b, "address"), fmt.Sprintf("Invalid address %q of a cluster", v.Address), `Write a URL such as "https://nomad.example.org:4646".`)
	case u.User != nil:
		r.bad(attrRange(b, "address"), "A password does not belong into the address of a cluster", "Use token_env or token_file.")
	}
	if (v.ClientCert == "") != (v.ClientKey == "") {
		r.bad(b.DefRange, "client_cert and client_key go together", "Write both or none.")
	}
	if v.TokenEnv != "" && v.TokenFile != "" {
		r.bad(attrRange(b, "token_file"), "token_env and token_file exclude each other", "Write one of them.")
	}
	return a
}

// file returns a path that an environment names: below the stack's directory, and
// absolute, since the record of a release keeps it and is read from anywhere.
func (r *environmentReader) file(name string) string {
	if name == "" || filepath.IsAbs(name) || r.s.Dir == "" {
		return name
	}
	name = filepath.Join(r.s.Dir, filepath.FromSlash(name))
	if abs, err := filepath.Abs(name); err == nil {
		return abs
	}
	return name
}

func (r *environmentReader) target(b *hcl.Block) {
	var v targetBlock
	name := b.Labels[0]
	r.targets = append(r.targets, name)
	if !r.decode(b, &v) {
		return
	}
	t := &Target{
		Name: name, Region: v.Region, Namespace: v.Namespace, Datacenters: v.Datacenters,
		ConsulDatacenter: v.ConsulDatacenter, Counts: v.Count, Services: r.services, Range: b.DefRange,
	}
	if v.Cluster != "" {
		if t.Cluster = r.clusters[v.Cluster]; t.Cluster == nil {
			r.unknown(attrRange(b, "cluster"), fmt.Sprintf("Target %q", name), "cluster", v.Cluster, slices.Sorted(maps.Keys(r.clusters)))
		} else {
			t.Region = cmp.Or(t.Region, t.Cluster.Region)
		}
	}
	for _, dc := range v.Datacenters {
		if _, err := path.Match(dc, ""); err != nil || dc == "" {
			r.bad(attrRange(b, "datacenters"), fmt.Sprintf("Invalid datacenter %q", dc), "Write names, or patterns such as \"eu-*\".")
		}
	}
	if v.Services != nil {
		here := r.known(b, "services", "service", v.Services, r.services)
		t.Services = slices.DeleteFunc(slices.Clone(r.services), func(s string) bool { return !slices.Contains(here, s) })
	}
	for _, svc := range slices.Sorted(maps.Keys(v.Count)) {
		switch {
		case !slices.Contains(r.services, svc):
			r.unknown(attrRange(b, "count"), fmt.Sprintf("Target %q", name), "service", svc, r.services)
		case v.Count[svc] < 0:
			r.bad(attrRange(b, "count"), fmt.Sprintf("Invalid count of service %q", svc), "Write 0 or more.")
		}
	}
	if v.JobSuffix != nil {
		t.JobSuffix = *v.JobSuffix
		if t.JobSuffix != "" && !validName("x"+t.JobSuffix) {
			r.bad(attrRange(b, "job_suffix"), fmt.Sprintf("Invalid job_suffix %q", t.JobSuffix), "It holds letters, digits, dots, dashes and underscores.")
		}
	} else {
		t.JobSuffix = "-" + name // overlaps removes it if it is not needed
	}
	r.s.Targets = append(r.s.Targets, t)
}

// room returns the scope in which a job ID is unique in Nomad.
func (t *Target) room() [3]string {
	var cluster string
	if t.Cluster != nil {
		cluster = t.Cluster.Name
	}
	return [3]string{cluster, t.Region, t.Namespace}
}

// Place is a target's region and datacenters, for a person.
func (t *Target) Place() string {
	var parts []string
	if t.Cluster != nil {
		parts = append(parts, "cluster "+t.Cluster.Name)
	}
	if t.Region != "" {
		parts = append(parts, "region "+t.Region)
	}
	switch len(t.Datacenters) {
	case 0:
	case 1:
		parts = append(parts, "datacenter "+t.Datacenters[0])
	default:
		parts = append(parts, "datacenters "+strings.Join(t.Datacenters, ", "))
	}
	return strings.Join(parts, ", ")
}

// overlaps looks for targets that would place the same service twice, and
// settles which jobs need a suffix.
func (r *environmentReader) overlaps() {
	rooms := map[[3]string]int{}
	for _, t := range r.s.Targets {
		rooms[t.room()]++
	}
	for i, t := range r.s.Targets {
		if rooms[t.room()] == 1 && t.JobSuffix == "-"+t.Name {
			t.JobSuffix = ""
		}
		for _, other := range r.s.Targets[:i] {
			if other.Cluster == t.Cluster && (other.Region == "") != (t.Region == "") {
				without := t
				if other.Region == "" {
					without = other
				}
				r.bad(without.Range, fmt.Sprintf("Target %q has no region", without.Name), "Another target of the same cluster has one, so drover cannot know whether the two overlap. Write region.")
				continue
			}
			if other.room() != t.room() {
				continue
			}
			if other.JobSuffix == t.JobSuffix {
				r.bad(t.Range, fmt.Sprintf("Targets %q and %q give jobs the same suffix %q", other.Name, t.Name, t.JobSuffix), "Their jobs would be one. Give one of them another job_suffix.")
			}
			if dc, both := sharedDatacenter(other.Datacenters, t.Datacenters); both {
				r.bad(t.Range, fmt.Sprintf("Targets %q and %q overlap", other.Name, t.Name),
					fmt.Sprintf("Both reach %s of %s. Give each datacenters of its own (the other one is at %s).", dc, cmp.Or(strings.Join(roomParts(t), ", "), "the same region"), place(other.Range)))
			}
		}
	}
}

func roomParts(t *Target) []string {
	c := *t
	c.Datacenters = nil
	if p := c.Place(); p != "" {
		return []string{p}
	}
	return nil
}

// sharedDatacenter finds a datacenter that may be in both lists of names and
// patterns; it errs towards yes.
func sharedDatacenter(a, b []string) (string, bool) {
	if len(a) == 0 || len(b) == 0 {
		return "the same datacenters", true
	}
	for _, x := range a {
		for _, y := range b {
			if PatternsOverlap(x, y) {
				return "datacenter " + y, true
			}
		}
	}
	return "", false
}

// IsPattern reports whether a label is a pattern that may match several labels:
// one of path.Match, or with alternatives in braces.
func IsPattern(label string) bool {
	_, _, _, braces := cutAlternatives(label)
	return braces || strings.ContainsAny(label, "*?[")
}

// Match reports whether a pattern matches a label. It returns an error of
// path.Match if the pattern is malformed.
func Match(pattern, label string) (bool, error) {
	matched := false
	for _, p := range expand(pattern) {
		ok, err := path.Match(p, label)
		if err != nil {
			return false, err
		}
		matched = matched || ok
	}
	return matched, nil
}

// expand returns the patterns without braces that a pattern stands for.
func expand(pattern string) []string {
	before, alternatives, after, ok := cutAlternatives(pattern)
	if !ok {
		return []string{pattern}
	}
	var out []string
	for _, a := range alternatives {
		out = append(out, expand(before+a+after)...)
	}
	return out
}

// cutAlternatives cuts a pattern around its first {a,b}. Braces without a comma
// are part of a label.
func cutAlternatives(pattern string) (before string, alternatives []string, after string, ok bool) {
	before, rest, _ := strings.Cut(pattern, "{")
	inner, after, closed := strings.Cut(rest, "}")
	if !closed || !strings.Contains(inner, ",") {
		return "", nil, "", false
	}
	return before, strings.Split(inner, ","), after, true
}

// PatternsOverlap reports whether some label may match both patterns. If in
// doubt it returns true.
func PatternsOverlap(a, b string) bool {
	for _, x := range expand(a) {
		for _, y := range expand(b) {
			if globsOverlap(x, y) {
				return true
			}
		}
	}
	return false
}

// globsOverlap is PatternsOverlap for patterns without braces.
func globsOverlap(a, b string) bool {
	matches := func(pattern, label string) bool {
		ok, err := path.Match(pattern, label)
		return err == nil && ok
	}
	switch ga, gb := IsPattern(a), IsPattern(b); {
	case !ga && !gb:
		return a == b
	case !ga:
		return matches(b, a)
	case !gb:
		return matches(a, b)
	}
	pa, pb := a[:strings.IndexAny(a, "*?[")], b[:strings.IndexAny(b, "*?[")]
	return strings.HasPrefix(pa, pb) || strings.HasPrefix(pb, pa)
}

func (r *environmentReader) driver(b *hcl.Block) {
	var v driverBlock
	if !r.decode(b, &v) {
		return
	}
	d := &Driver{
		Name: b.Labels[0], Image: v.Image, Path: v.Path, Artifact: v.Artifact, Checksum: v.Checksum, Env: v.Env, ConsulVolume: v.ConsulVolume,
		NodePool: v.NodePool, Constraints: v.Constraints, Range: b.DefRange,
	}
	if res := v.Resources; res != nil {
		d.CPU, d.MemoryMB, d.MemoryMaxMB = res.CPU, res.Memory, res.MemoryMax
		if res.CPU < 0 || res.Memory < 0 || res.MemoryMax != 0 && res.MemoryMax < res.Memory {
			r.bad(childBlock(b, "resources").DefRange, "Invalid resources of drover_driver", "cpu is in MHz, memory and memory_max are in MB, and memory_max is not below memory.")
		}
	}
	switch d.Name {
	case "docker":
		if d.Image == "" || d.Path != "" || d.Artifact != "" {
			r.bad(b.DefRange, "drover_driver \"docker\" runs an image", "Write image, and neither path nor artifact.")
		}
	case "exec", "raw_exec":
		if d.Image != "" || (d.Path == "") == (d.Artifact == "") {
			r.bad(b.DefRange, fmt.Sprintf("drover_driver %q runs a program", d.Name), "Write path, where it is on the node, or artifact, from where Nomad fetches it.")
		}
	default:
		r.bad(b.LabelRanges[0], fmt.Sprintf("Unknown driver %q", d.Name), "Write docker, exec or raw_exec.")
	}
	if d.Checksum != "" && d.Artifact == "" {
		r.bad(attrRange(b, "checksum"), "A checksum without an artifact", "It belongs to artifact.")
	}
	socket := strings.HasPrefix(d.Env[envConsul], "unix:///")
	switch {
	case d.ConsulVolume != "" && d.Name == "raw_exec":
		r.bad(attrRange(b, "consul_volume"), "raw_exec mounts no volumes", "It sees Consul's socket on the node: leave consul_volume out.")
	case d.ConsulVolume != "" && !socket:
		r.bad(attrRange(b, "consul_volume"), "consul_volume is the directory of Consul's socket", "Set CONSUL_HTTP_ADDR in env to unix://PATH of the socket.")
	case d.ConsulVolume == "" && socket && d.Name != "raw_exec":
		r.bad(attrRange(b, "env"), fmt.Sprintf("drover_driver %q does not see Consul's socket on the node", d.Name), "Set consul_volume to the host volume that is its directory.")
	}
	r.s.Driver = d
}
