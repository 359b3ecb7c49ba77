package importer

import (
	"maps"
	"time"
)

// Model is an application between a reader and the writer. Every format becomes one.
type Model struct {
	Name        string // of the stack: lower-case letters, digits and dashes
	Description string

	Variables    []Variable
	Services     []*Service
	Secrets      []Secret
	Volumes      []Volume
	Certificates []Certificate
	Published    []Published
	Addresses    []Address
	Requires     []string // jobs of other stacks that must run

	// Files is what is written below files/, by its path there.
	Files map[string][]byte

	// Needs are demands on the Nomad clients, such as allow_privileged.
	Needs []Need

	// Overrides are what the input itself says to drover.
	Overrides Overrides

	network string // of --network; the mesh when empty
}

// Overrides are what an input says as an operator does with flags, which count before it.
// All of them are by service.
type Overrides struct {
	Ports   map[string][]int
	Routes  map[string][]string
	Publish map[string]string
}

// under returns src with what it does not say.
func (o Overrides) under(src Source) Source {
	src.Ports, src.Routes, src.Publish = under(o.Ports, src.Ports), under(o.Routes, src.Routes), under(o.Publish, src.Publish)
	return src
}

// under returns the values of both, of which those of above count.
func under[V any](below, above map[string]V) map[string]V {
	out := map[string]V{}
	maps.Copy(out, below)
	maps.Copy(out, above)
	return out
}

// Variable is a variable of the stack.
type Variable struct {
	Name        string
	Type        string // HCL: string, number, bool
	Default     string // HCL expression; "" for none
	Description string
}

// Secret is a secret of type given.
type Secret struct {
	Name        string // of letters, digits and underscores
	Description string
	Value       string // for secrets.yaml
	Unknown     bool   // the input has no value: the operator gives it
}

// Volume is a host volume that drover creates.
type Volume struct {
	Name       string
	Parameters map[string]string // uid, gid, mode
	Comment    string
}

// Certificate is a certificate of the edge.
type Certificate struct {
	Name  string // that of the stack when empty
	Names []Text
}

// Need is something that a Nomad client must have or allow.
type Need struct {
	What string // volumes.enabled = true in the docker plugin
	Why  string
	At   Position
}

// Address is an address of the mesh with names and ports of its own, as a Service of
// Kubernetes has. The services behind it need no names themselves.
type Address struct {
	Name   string // of letters, digits, dots and dashes; unique
	Hosts  []Host // each has scopes
	Ports  []AddressPort
	UDP    []AddressPort // which the mesh does not carry, and names in Consul's DNS reach
	Sticky bool          // a client stays with its instance
	At     Position
}

// AddressPort is a port of an Address, and what is behind it.
type AddressPort struct {
	Number  int
	Targets []Target
	Servers []string // ADDRESS:PORT outside the stack
}

// Target is a port of a service.
type Target struct {
	Service string
	Port    int // in the container
}

// Published is a port that every node listens on, as Swarm's routing mesh and a
// NodePort do.
type Published struct {
	HostIP  string // "" for all addresses
	Port    int
	Service string
	Target  int // port of the service
	More    []Target
	At      Position
	// Optional is set for a service that the operator may leave out, such as one in a
	// profile: two of them may be alternatives that publish the same port.
	Optional bool
}

// Kind of a service: the type of its Nomad job.
const (
	KindService  = "service"
	KindBatch    = "batch"
	KindSystem   = "system"
	KindSysbatch = "sysbatch"
)

// Service is one job with one group.
type Service struct {
	Name     string // label of the service; the job is STACK-NAME
	Kind     string // KindService when empty
	Periodic *Periodic
	Count    *int // 1 when nil
	At       Position
	Comments []string // of the job, one line each
	// Spec is the job file, for an input that is one. Nothing else of the service is
	// written then, and no layer is under it.
	Spec []byte
	// SpecSecrets are the secrets that Spec reads.
	SpecSecrets []string

	DependsOn []string
	// Once is a job that is not started again after a failure. Without DependsOn, and
	// unless another service waits for it, it starts after the services whose names it
	// knows.
	Once  bool
	Tasks []*Task // the first one is the main task
	Ports []Port

	// Hosts are the names by which the service is reached, each in the scopes of
	// Scopes unless it names its own. Two services see each other's names if they
	// share a scope.
	Scopes []string
	Hosts  []Host

	Network     string // bridge when empty, host or none
	Hostname    Text
	DNS         *DNS
	ExtraHosts  []Text // NAME:ADDRESS, beside the names of the stack
	Update      *Update
	Restart     *Restart
	Constraints []Constraint
	Spreads     []string // attributes
	Volumes     []VolumeUse
	Tags        []Text // of the Consul service of the first port: drover.route=…
	Meta        map[string]string
	Checks      []Check
	NoCheck     bool // the input says that there is none

	MigrateParallel int
	EphemeralDisk   int // MB
	ShutdownDelay   *time.Duration
	Single          bool // two instances must not run side by side: no canary
}

// Host is a name of a service.
type Host struct {
	Name   string
	Scopes []string // those of the service when empty
}

// Port is a port of a service.
type Port struct {
	Number int    // in the container
	Label  string // pNNNN when empty
	UDP    bool
	Static int // on the node; 0 for a dynamic one
	// Dynamic is a port whose number the task reads from NOMAD_PORT_LABEL. Number is
	// the one of its name then.
	Dynamic bool
	Listen  int      // another port of its name, beside Number
	Reason  string   // how it was found, when it is not declared
	At      Position // where it was found
	// Assumed ports have no check unless the input has one: the service may not listen.
	Assumed bool
	Tags    []Text // of its service in Consul: drover.route=…
	// Private ports are not registered in Consul.
	Private bool
}

// DNS is the resolver configuration of a group.
type DNS struct {
	Servers, Searches, Options []string

	byName bool // the servers of the variable mesh_dns come first
}

// Periodic starts a batch job by a schedule.
type Periodic struct {
	Crons           []string
	TimeZone        string
	ProhibitOverlap bool
	Disabled        bool
}

// Update is what a service says of its updates. Nil fields are the base's.
type Update struct {
	MaxParallel      *int
	Canary           *int
	AutoPromote      *bool
	AutoRevert       *bool
	MinHealthyTime   *time.Duration
	HealthyDeadline  *time.Duration
	ProgressDeadline *time.Duration
}

// Restart is what a service says of restarts on its node.
type Restart struct {
	Attempts int
	Interval time.Duration
	Delay    time.Duration
	Mode     string // delay or fail
}

// Constraint restricts the nodes. Operator is that of Nomad's constraint block;
// distinct_hosts has no attribute.
type Constraint struct {
	Attribute, Operator, Value string
	Weight                     int // an affinity, when not 0
}

// VolumeUse is a volume of a group.
type VolumeUse struct {
	Name     string // label in the group
	Source   string // name of the host volume
	ReadOnly bool
	Shared   bool // several services write to it
}

// Check is a check in Consul.
type Check struct {
	Type     string // http, tcp, grpc or script
	Port     int    // of the service; 0 for the first
	Path     string
	Protocol string // https
	Method   string
	Header   map[string]string
	Command  string
	Args     []string
	Task     string // of a script check; the main task when empty
	Interval time.Duration
	Timeout  time.Duration
	Failures int // failures_before_critical
	Passes   int // success_before_passing
	Restart  int // check_restart: limit
	Grace    time.Duration
	OnUpdate string
}

// EnvVar is a variable of the environment of a task.
type EnvVar struct {
	Name  string
	Value Text
}

// File is a file that a task sees.
type File struct {
	Path     string // in Model.Files; "" when Content is set
	Content  Text   // may have secrets
	Target   string // in the container; absolute
	UID, GID string
	Mode     string // of four digits
	IsSecret bool   // rendered into the secrets directory
	// Covered is set when a mount of the directory above shows the file, so that it
	// needs none of its own.
	Covered bool
}

// Mount is a mount that is no volume of the group.
type Mount struct {
	Kind        string // host, alloc, local or secrets (below that directory of the task), or tmpfs
	Source      string // path on the node, or name below alloc/data, local or secrets
	Target      string
	ReadOnly    bool
	Size        int64 // of a tmpfs, bytes
	Mode        string
	Propagation string
}

// VolumeMount mounts a volume of the group.
type VolumeMount struct {
	Volume, Target string
	ReadOnly       bool
	Propagation    string
}

// Setting is an attribute of the driver's config block, as an HCL expression.
type Setting struct {
	Name, Value string
	Block       bool // Value is the body of a block
}

// Resources of a task. Zero values are unknown.
type Resources struct {
	Cores      float64 // reserved, in CPUs
	CoresLimit float64 // hard limit
	CPU        int     // MHz, when the input says so
	Memory     int     // MB, reserved
	MemoryMax  int     // MB, hard limit
	Devices    []Device
}

// Device is a device of a plugin, such as nvidia/gpu.
type Device struct {
	Name  string
	Count int
}

// Task is a container, or a program, of a service.
type Task struct {
	Name    string
	Driver  string // docker when empty
	Hook    string // prestart, poststart or poststop
	Sidecar bool
	Leader  bool

	Image      Text
	ImageRef   string // Image with the defaults of its variables
	Entrypoint []Text // nil: that of the image
	Command    Text   // of other drivers than docker
	Args       []Text // nil: that of the image
	Env        []EnvVar
	Files      []File
	Mounts     []Mount
	Volumes    []VolumeMount
	User       Text
	Settings   []Setting // of the config block
	Resources  Resources
	Artifacts  []Artifact

	KillSignal  string
	KillTimeout time.Duration
	Restart     *Restart
	LogFiles    int
	LogFileMB   int
	Comments    []string
	At          Position
}

// Artifact is a download.
type Artifact struct {
	Source, Destination, Mode string
	Options                   map[string]string
}

// label returns the label of the port.
func (p Port) label() string {
	if p.Label != "" {
		return p.Label
	}
	return "p" + itoa(p.Number)
}
