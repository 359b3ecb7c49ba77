// Package stack reads a stack directory (stack.hcl, variables, environments)
// and the values an operator gives into one validated [Stack].
package stack

import (
	"bytes"
	"io/fs"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// Stack is an application made of several Nomad jobs, with every value
// resolved for one environment. It holds nothing that has not been validated.
type Stack struct {
	Name       string // stack "NAME", or the directory's name without stack.hcl
	Version    string // of the stack itself
	AppVersion string // of what it runs
	// UpgradeFrom are patterns of path.Match of the versions of the application whose
	// data this one reads; empty for all.
	UpgradeFrom []string
	// Exclusive names what the release runs that must not run beside what a release with
	// another name runs, because both would write the same data; "" if it runs nothing
	// of the kind.
	Exclusive   string
	Description string

	// Path is the directory (or the single job file) as the operator named
	// it; file names in messages start with it. FS is rooted in that directory.
	Path string
	FS   fs.FS

	// Dir is the directory on disk that FS reads, "" when there is none (a
	// stack that ships inside the binary).
	Dir string

	// RequiresJobs are Nomad job IDs of other stacks that must be running
	// before this one is deployed.
	RequiresJobs []string

	// Environment is the name given with -e, or "default".
	Environment string

	Services []*Service // in dependency order, ties by name
	// Disabled are the services with enabled = false. They are not rendered, and no
	// dependency, target or wave waits for them.
	Disabled []*Service `json:"-"`
	Secrets  []*Secret  // in the order of stack.hcl
	Volumes  []*Volume
	Checks   []*Check
	Records  []*Record // in the order of stack.hcl
	DNS      []*DNS    // in the order of stack.hcl

	Certificates []*Certificate
	Issuers      []*Issuer

	// Settings of the environment. There is at least one target and one wave.
	Clusters  []*Cluster
	Targets   []*Target
	Waves     []*Wave // in order; each service of each target is in just one
	Schedules []*Schedule
	Driver    *Driver // nil when nothing is said

	// Values are all declared variables of the stack after precedence:
	// default < environment < NOMAD_VAR_x < -var-file and -values < -var. A
	// variable that several services declare for themselves with different
	// values stands here as SERVICE.NAME.
	Values map[string]cty.Value

	// ProcessValues are those of the variables that come from the environment of
	// the process.
	ProcessValues []ProcessValue `json:"-"`

	// SecretVariables are the names of variables that carry secrets which a stack may
	// hold in clear: keys of external account bindings and credentials of checks. See
	// [Stack.PublicValues].
	SecretVariables []string `json:",omitempty"`

	// Variables, Base and Overlay are the layers that all services share:
	// variables.hcl, _base.nomad.hcl and the environment's file. Nil when the
	// stack has none.
	Variables, Base, Overlay *Layer

	// Plain is set when the stack is one job file given by its own path with
	// neither an environment nor YAML values. It is then evaluated by Nomad's own rule,
	// from what the operator gave.
	Plain *Plain
}

// Layer is one file that a job is merged from.
type Layer struct {
	File string // as messages name it
	Src  []byte
}

// Parse reads the layer as HCL.
func (l *Layer) Parse() (*hcl.File, hcl.Diagnostics) {
	// hclsyntax reports invalid UTF-8 in strings, but not at the start of an expression:
	// there it reads the following bytes, even a newline, as part of the character.
	for i, line := range bytes.Split(l.Src, []byte("\n")) {
		if !utf8.Valid(line) {
			at := hcl.Pos{Line: i + 1, Column: 1}
			return nil, hcl.Diagnostics{errAt(hcl.Range{Filename: l.File, Start: at, End: at}, "Invalid character encoding", "Save the file as UTF-8.")}
		}
	}
	return ParseHCL(l.Src, l.File)
}

// Plain has the values that were given with a single job file.
type Plain struct {
	Vars     []string // k=v
	VarFiles []string
	Environ  []string
}

// Service is one job of the stack.
type Service struct {
	Name      string   // label of the service block, or the file's base name
	File      string   // path below Stack.FS
	DependsOn []string // names of services, each healthy before this one is submitted
	Secrets   []string // items of Stack.Secrets that the job's variable holds
	Limits
	Range hcl.Range

	// Row is the layer of what stack.hcl gives the service in id, env and locals, nil
	// when it gives none of them. It lies over the service's own file.
	Row *Layer `json:"-"`

	ownID bool // stack.hcl gives the job an ID, so that several services may share File

	// Layer is the text of File.
	Layer *Layer
	// Values are the variables that this service sees: those of the stack
	// and the ones that its own file declares.
	Values map[string]cty.Value
}

// Limits are how long a service may take. For 0, the command that deploys it
// uses its own limit.
type Limits struct {
	// Timeout is from the submission until the service is healthy.
	Timeout time.Duration `json:"timeout_ns,omitempty"`
	// PlacementTimeout is how long an allocation may wait for a node.
	PlacementTimeout time.Duration `json:"placement_timeout_ns,omitempty"`
}

// Kinds of generated secrets.
const (
	SecretRandom      = "random"      // Length characters of [A-Za-z0-9]
	SecretUUID        = "uuid"        // RFC 9562 version 4
	SecretGiven       = "given"       // never generated: `drover secrets set`
	SecretCertificate = "certificate" // CA and leaf; items NAME_ca, NAME_cert, NAME_key (PEM)
)

// Secret is a value that is generated once per stack and environment and
// kept in Nomad Variables.
type Secret struct {
	Name   string
	Type   string // one of the Secret constants
	Length int    // characters, for SecretRandom

	// DNSNames and IPAddresses are what a SecretCertificate is valid for.
	DNSNames    []string
	IPAddresses []string

	// ImportPaths are dotted paths in a foreign YAML file (oCIS's ocis.yaml)
	// where `secrets import` finds this value.
	ImportPaths []string
	Description string
}

// Items are the names under which the parts of a secret stand in a job's
// Nomad Variable: the name itself, or for a certificate NAME_ca, NAME_cert
// and NAME_key.
func (s *Secret) Items() []string {
	if s.Type == SecretCertificate {
		return []string{s.Name + "_ca", s.Name + "_cert", s.Name + "_key"}
	}
	return []string{s.Name}
}

// stored are the names under which the parts of a secret are kept: a
// certificate has the keys of its CA and of its successor beside its items.
func (s *Secret) stored() []string {
	if s.Type == SecretCertificate {
		return append(s.Items(), s.Name+"_ca_key", s.Name+"_ca_next_key")
	}
	return s.Items()
}

// Volume describes a dynamic host volume that `deploy --create-volumes` creates
// for a job (POST /v1/volume/host/create).
type Volume struct {
	Name       string
	PluginID   string            // "mkdir" when empty
	Parameters map[string]string // for the plugin: uid, gid, mode
}

// Check is a smoke test of the running stack: one HTTP request and the expected
// answer.
type Check struct {
	Name          string
	Method        string // GET when empty
	URL           string
	Headers       map[string]string
	Username      string // basic auth, when not empty
	Password      string
	Secret        string // item of the stack's secrets that is the password, instead of Password
	Body          string
	Status        []int         // any of these; 200 when empty
	Contains      string        // must be in the body, when not empty
	Timeout       time.Duration // of one request; 10 s when 0
	TLSSkipVerify bool
	// Withheld is true if only the name of the check is kept, because the rest
	// holds a credential: see PublicChecks.
	Withheld bool      `json:",omitempty"`
	Range    hcl.Range `json:"-"`
}
