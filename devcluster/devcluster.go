// Package devcluster runs a real Nomad and Consul on this machine, for
// `drover dev` and for the tests: a single node by default, or several
// servers, clients, datacenters and regions on loopback addresses of their
// own.
//
// A cluster is a directory. What Nomad and Consul know survives [Down] and the
// next [Up]; nothing else does: every agent is the child of one supervisor
// process (see [Supervise]), and what the supervisor could not stop is found
// by a sweep over /proc before the next start and after every stop.
package devcluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

// ErrUnsupported is what every function returns where there is no Linux.
var ErrUnsupported = errors.New("the dev cluster runs on Linux only; elsewhere, point NOMAD_ADDR and CONSUL_HTTP_ADDR at a cluster that runs on Linux")

// ErrNoCluster means that the directory holds no cluster: Up was never called,
// or the cluster was wiped.
var ErrNoCluster = errors.New("there is no such dev cluster")

// InvalidError is a mistake in [Options]: nothing was done.
type InvalidError struct{ msg string }

func (e *InvalidError) Error() string { return e.msg }

func invalidf(format string, args ...any) error {
	return &InvalidError{fmt.Sprintf(format, args...)}
}

// DefaultName is the name of the cluster when none is given.
const DefaultName = "dev"

// Options say which cluster is meant and what it is made of.
type Options struct {
	// Name tells clusters of one user apart; DefaultName when empty.
	Name string
	// Dir holds everything of the cluster. When empty it is
	// /var/lib/drover/dev/<name> for root and
	// ${XDG_STATE_HOME:-~/.local/state}/drover/dev/<name> for others.
	Dir string
	// Shape is what a new cluster is made of; for one that exists it must be
	// zero or the same.
	Shape Shape
	// DefaultPorts gives a new cluster the ports that Nomad and Consul have
	// by default instead of those of its slot.
	DefaultPorts bool
	// ACME adds Pebble, an ACME CA, to the cluster, which then keeps it; see
	// Cluster.ACMEDirectory.
	ACME bool
	// DNS adds PowerDNS with the zone DNSZone to the cluster, which then keeps
	// it; see Cluster.DNSServer. Pebble sends all its queries to it.
	DNS bool
	// Secure makes a new cluster with ACLs and mutual TLS in Nomad and Consul,
	// and with Consul tokens by workload identity; one that exists keeps what
	// it has. See Cluster.Env.
	Secure bool
	// Tools are put into BinDir for tasks to run: names as in Tools.Path.
	Tools []string
	// Finder finds or builds them, and what the agents run.
	Finder Tools
	// Timeout bounds how long Up waits for the agents once they are started;
	// two minutes when zero.
	Timeout time.Duration
	// Lifeline ends the cluster, and with Throwaway removes it, when the
	// calling process ends, however it ends.
	Lifeline bool
	// Throwaway makes a cluster that is removed when its lifeline is cut.
	Throwaway bool
	// Supervisor is how to start the supervisor: by default this executable
	// with the arguments "dev supervise".
	Supervisor Command
	// Events receives progress; it may be nil. It is called from one
	// goroutine at a time.
	Events func(Event)
}

// Command is a program with arguments and additions to the environment.
type Command struct {
	Path string
	Args []string
	Env  []string
}

// Shape is the number and kind of agents. The zero Shape is a single node: one
// Consul server, one Nomad server and one Nomad client on 127.0.0.1.
type Shape struct {
	// Servers is the number of Nomad servers per region, 1 when zero.
	Servers int `json:"servers,omitempty"`
	// Clients is the number of Nomad clients per region, by default one per
	// datacenter. Each has a network interface and a Consul agent of its own.
	Clients int `json:"clients,omitempty"`
	// Datacenters are given to a region's clients in turn; "dc1" when empty.
	Datacenters []string `json:"datacenters,omitempty"`
	// Regions are federated with each other; "global" when empty.
	Regions []string `json:"regions,omitempty"`
}

// Single reports whether the shape is a single node.
func (s Shape) Single() bool {
	return s.Servers <= 1 && s.Clients == 0 && len(s.Datacenters) <= 1 && len(s.Regions) <= 1
}

func (s Shape) isZero() bool {
	return s.Servers == 0 && s.Clients == 0 && len(s.Datacenters) == 0 && len(s.Regions) == 0
}

// normalized fills in the defaults, so that shapes can be compared.
func (s Shape) normalized() Shape {
	if len(s.Datacenters) == 0 {
		s.Datacenters = []string{"dc1"}
	}
	if len(s.Regions) == 0 {
		s.Regions = []string{"global"}
	}
	if s.Servers == 0 {
		s.Servers = 1
	}
	if s.Clients == 0 && (s.Servers > 1 || len(s.Datacenters) > 1 || len(s.Regions) > 1) {
		s.Clients = len(s.Datacenters)
	}
	return s
}

func (s Shape) equal(o Shape) bool {
	s, o = s.normalized(), o.normalized()
	return s.Servers == o.Servers && s.Clients == o.Clients &&
		slices.Equal(s.Datacenters, o.Datacenters) && slices.Equal(s.Regions, o.Regions)
}

func (s Shape) String() string {
	s = s.normalized()
	if s.Single() {
		return "a single node"
	}
	return fmt.Sprintf("servers %d, clients %d, datacenters %v, regions %v", s.Servers, s.Clients, s.Datacenters, s.Regions)
}

// label is what Nomad, Consul and DNS accept as a name alike.
var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// Most agents that the addresses of one slot have room for.
const (
	maxServers = 20
	maxClients = 50
)

func (s Shape) validate() error {
	n := s.normalized()
	for what, names := range map[string][]string{"datacenter": n.Datacenters, "region": n.Regions} {
		for i, name := range names {
			if !label.MatchString(name) {
				return invalidf("%q is no %s name: use lower-case letters, digits and dashes", name, what)
			}
			if slices.Contains(names[:i], name) {
				return invalidf("%s %q is given twice", what, name)
			}
		}
	}
	switch {
	case s.Servers < 0 || s.Clients < 0:
		return invalidf("the number of servers and clients cannot be negative")
	case n.Servers*len(n.Regions) > maxServers:
		return invalidf("%d servers are more than the %d that a dev cluster has addresses for", n.Servers*len(n.Regions), maxServers)
	case n.Clients*len(n.Regions) > maxClients:
		return invalidf("%d clients are more than the %d that a dev cluster has addresses for", n.Clients*len(n.Regions), maxClients)
	case !n.Single() && n.Clients < len(n.Datacenters):
		return invalidf("%d clients cannot fill %d datacenters: give at least one client per datacenter", n.Clients, len(n.Datacenters))
	}
	return nil
}

// resolve checks the options and fills in name, directory and timeout.
func (o Options) resolve() (Options, error) {
	if o.Name == "" {
		o.Name = DefaultName
	}
	if !label.MatchString(o.Name) {
		return o, invalidf("%q is no cluster name: use lower-case letters, digits and dashes", o.Name)
	}
	if o.Dir == "" {
		root, err := stateRoot()
		if err != nil {
			return o, err
		}
		o.Dir = filepath.Join(root, o.Name)
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return o, fmt.Errorf("finding the directory of the dev cluster: %w", err)
	}
	// Mounts and processes are found by path: it must be the real one.
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	} else if parent, err := filepath.EvalSymlinks(filepath.Dir(dir)); err == nil {
		dir = filepath.Join(parent, filepath.Base(dir))
	}
	o.Dir = dir
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Minute
	}
	if o.Events == nil {
		o.Events = func(Event) {}
	}
	if o.Finder.Events == nil {
		o.Finder.Events = o.Events
	}
	for _, name := range o.Tools {
		if _, err := lookupTool(name); err != nil {
			return o, err
		}
	}
	return o, o.Shape.validate()
}

// stateRoot is the directory above all clusters of this user; the slots are
// given out there, also to clusters whose directory is elsewhere.
func stateRoot() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/drover/dev", nil
	}
	if x := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(x) {
		return filepath.Join(x, "drover", "dev"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("finding a place for the dev cluster: %w", err)
	}
	return filepath.Join(home, ".local", "state", "drover", "dev"), nil
}

// Event is a step of something that takes time.
type Event struct {
	// Subject is the tool or agent that the event is about; empty for the
	// cluster as a whole.
	Subject string
	// Text is the step, for a person.
	Text string
	// Transient marks an event that the next one of the same subject
	// replaces, like a count.
	Transient bool
	// Warning marks something that went on but should be looked at.
	Warning bool
}

// State is the state of a cluster or of one agent.
type State string

// States.
const (
	StateAbsent   State = "absent"   // there is no such cluster
	StateStopped  State = "stopped"  // not running; a cluster keeps its data
	StateRunning  State = "running"  // the process is there
	StateStopping State = "stopping" // on the way down
	StatePaused   State = "paused"   // an agent stopped by a signal
	StateExited   State = "exited"   // an agent that ended by itself or was killed
)

// Status is what a cluster is and whether it runs.
type Status struct {
	Name          string  `json:"name"`
	State         State   `json:"state"`
	Dir           string  `json:"dir"`
	SupervisorPID int     `json:"supervisor_pid,omitempty"`
	NomadAddr     string  `json:"nomad_addr,omitempty"`
	ConsulAddr    string  `json:"consul_addr,omitempty"`
	ConsulDNS     string  `json:"consul_dns,omitempty"`
	Loopback      string  `json:"loopback,omitempty"`
	ACMEDirectory string  `json:"acme_directory,omitempty"`
	DNSServer     string  `json:"dns_server,omitempty"`
	DNSAPI        string  `json:"dns_api,omitempty"`
	Regions       []Reach `json:"regions,omitempty"`
	Agents        []Agent `json:"agents,omitempty"`
}

// Reach is how to talk to one region.
type Reach struct {
	Region     string `json:"region"`
	NomadAddr  string `json:"nomad_addr"`
	ConsulAddr string `json:"consul_addr"`
	// Loopback is the first client's; see Cluster.Loopback.
	Loopback string `json:"loopback"`
}

// Agent is one process of a cluster: Nomad's, Consul's, or Pebble's and
// PowerDNS's, which belong to no region.
type Agent struct {
	Name string `json:"name"`
	// Program is "nomad", "consul", "pebble" or "powerdns".
	Program    string `json:"program"`
	Server     bool   `json:"server"`
	Client     bool   `json:"client"`
	Region     string `json:"region"`
	Datacenter string `json:"datacenter"`
	// Addr is the URL of its HTTP API.
	Addr string `json:"addr"`
	// Loopback is the address that tasks of this Nomad client may listen on
	// with ports of their choice (client meta drover_loopback).
	Loopback string `json:"loopback,omitempty"`
	Log      string `json:"log"`
	State    State  `json:"state"`
	PID      int    `json:"pid,omitempty"`
}

// Process is a process that belongs to a cluster.
type Process struct {
	PID     int
	Command string
}

func (p Process) String() string { return fmt.Sprintf("%d (%s)", p.PID, p.Command) }
