package devcluster

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// layoutVersion is the version of the files in a cluster's directory. A newer
// drover reads older layouts; an older one refuses newer ones.
const layoutVersion = 1

// Every cluster takes a slot: a block of ports and a loopback network that no
// other cluster on the machine has. Ports end below 32768, where Linux begins
// to give out ports for outgoing connections.
const (
	maxSlots      = 32
	slotBase      = 12000
	slotSize      = 640
	slotAgents    = 40 // ports of a slot that are kept for agents
	loopbackFirst = 100
)

// envMarker is in the environment of every agent, and so of every process
// that an agent starts: it is how leftovers are recognized.
const envMarker = "DROVER_DEV_CLUSTER"

// layout is the cluster's state file: all that is needed to start the same
// cluster again, on the same ports.
type layout struct {
	LayoutVersion int    `json:"layout_version"`
	ID            string `json:"id"`
	Name          string `json:"name"`
	Slot          int    `json:"slot"`
	Shape         Shape  `json:"shape"`
	Ports         ports  `json:"ports"`
	ACME          bool   `json:"acme,omitempty"`
	DNS           bool   `json:"dns,omitempty"`
	Secure        bool   `json:"secure,omitempty"`
	Throwaway     bool   `json:"throwaway,omitempty"`
	// Programs are the paths of what the agents run now or ran last.
	Programs map[string]string `json:"programs"`

	dir     string
	secrets *secrets // of a secure cluster
}

// ports are those of every agent; in larger shapes each has an address of its
// own.
type ports struct {
	NomadHTTP int `json:"nomad_http"`
	// NomadClient is the HTTP port of agents that are only clients: on a
	// single node they share their address with the server.
	NomadClient   int `json:"nomad_client"`
	NomadRPC      int `json:"nomad_rpc"`
	NomadSerf     int `json:"nomad_serf"`
	ConsulHTTP    int `json:"consul_http"`
	ConsulDNS     int `json:"consul_dns"`
	ConsulServer  int `json:"consul_server"`
	ConsulSerfLAN int `json:"consul_serf_lan"`
	ConsulSerfWAN int `json:"consul_serf_wan"`
	ACME          int `json:"acme"`
	ACMEManage    int `json:"acme_manage"`
	DNS           int `json:"dns"`
	DNSAPI        int `json:"dns_api"`
	// Nomad gives these to tasks.
	DynamicMin int `json:"dynamic_min"`
	DynamicMax int `json:"dynamic_max"`
}

func slotPorts(slot int, defaults bool) ports {
	base := slotBase + slot*slotSize
	p := ports{
		NomadHTTP: base, NomadRPC: base + 1, NomadSerf: base + 2, NomadClient: base + 3,
		ConsulHTTP: base + 10, ConsulDNS: base + 11, ConsulServer: base + 12,
		ConsulSerfLAN: base + 13, ConsulSerfWAN: base + 14,
		ACME: base + 20, ACMEManage: base + 21, DNS: base + 22, DNSAPI: base + 23,
		DynamicMin: base + slotAgents, DynamicMax: base + slotSize - 1,
	}
	if defaults {
		p.NomadHTTP, p.NomadRPC, p.NomadSerf = 4646, 4647, 4648
		p.ConsulHTTP, p.ConsulDNS, p.ConsulServer, p.ConsulSerfLAN, p.ConsulSerfWAN = 8500, 8600, 8300, 8301, 8302
	}
	return p
}

func newLayout(opts Options, slot int) *layout {
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails
	l := &layout{
		LayoutVersion: layoutVersion,
		ID:            hex.EncodeToString(id),
		Name:          opts.Name,
		Slot:          slot,
		Shape:         opts.Shape.normalized(),
		Ports:         slotPorts(slot, opts.DefaultPorts),
		ACME:          opts.ACME,
		DNS:           opts.DNS,
		Secure:        opts.Secure,
		Throwaway:     opts.Throwaway,
		dir:           opts.Dir,
	}
	if l.Secure {
		l.newSecrets()
	}
	return l
}

const layoutFile = "state.json"

// entries are all names that drover and the agents make in the directory of
// a cluster: nothing else is ever removed.
var entries = []string{"bin", "data", "volumes", "alloc", "nomad", "consul", "acme", "dns", "secure", "config", "logs", "run", layoutFile}

func loadLayout(dir string) (*layout, error) {
	b, err := os.ReadFile(filepath.Join(dir, layoutFile)) // #nosec G703 -- the directory is the caller's choice
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoCluster
	}
	if err != nil {
		return nil, fmt.Errorf("reading the dev cluster's state: %w", err)
	}
	var l layout
	if err := json.Unmarshal(b, &l); err != nil {
		return nil, fmt.Errorf("reading the dev cluster's state %s: %w", filepath.Join(dir, layoutFile), err)
	}
	if l.LayoutVersion > layoutVersion {
		return nil, fmt.Errorf("the dev cluster in %s was made by a newer drover (layout %d, this one knows %d): use that drover, or remove the directory", dir, l.LayoutVersion, layoutVersion)
	}
	if l.ID == "" || l.Slot < 0 || l.Slot >= maxSlots {
		return nil, fmt.Errorf("the dev cluster's state %s is damaged: remove the directory", filepath.Join(dir, layoutFile))
	}
	if l.Ports.ACME == 0 { // from before there was Pebble
		p := slotPorts(l.Slot, false)
		l.Ports.ACME, l.Ports.ACMEManage = p.ACME, p.ACMEManage
	}
	if l.Ports.DNS == 0 { // from before there was PowerDNS
		p := slotPorts(l.Slot, false)
		l.Ports.DNS, l.Ports.DNSAPI = p.DNS, p.DNSAPI
	}
	l.dir = dir
	if l.Secure {
		if l.secrets, err = readSecrets(dir); err != nil {
			return nil, err
		}
	}
	return &l, nil
}

func (l *layout) save() error {
	if l.Secure { // first, since the state says that they are there
		if err := l.saveSecrets(); err != nil {
			return fmt.Errorf("writing the dev cluster's tokens: %w", err)
		}
	}
	b, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the dev cluster's state: %w", err)
	}
	if err := writeFile(filepath.Join(l.dir, layoutFile), append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing the dev cluster's state: %w", err)
	}
	return nil
}

// writeFile replaces path in one step.
func writeFile(path string, b []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

func (l *layout) path(elem ...string) string {
	return filepath.Join(append([]string{l.dir}, elem...)...)
}

// agentSpec is one agent as it is to be started.
type agentSpec struct {
	name       string
	program    string // nomad, consul, pebble, powerdns
	server     bool
	client     bool
	region     string
	datacenter string
	addr       string // what it binds to
	loopback   string // Nomad clients
	consul     string // address of the Consul agent that a Nomad agent uses
	bridge     string // interface to be made for a client, with addr
	secure     bool   // its API is HTTPS
	config     string // HCL, Pebble's JSON, what PowerDNS reads
}

func (a *agentSpec) httpPort(p ports) int {
	switch {
	case a.program == Consul:
		return p.ConsulHTTP
	case a.program == Pebble:
		return p.ACME
	case a.program == PowerDNS:
		return p.DNSAPI
	case a.server:
		return p.NomadHTTP
	}
	return p.NomadClient
}

func (a *agentSpec) httpAddr(p ports) string {
	scheme := "http"
	if a.program == Pebble || a.secure {
		scheme = "https"
	}
	return fmt.Sprintf("%s://%s:%d", scheme, a.addr, a.httpPort(p))
}

func (l *layout) agent(a *agentSpec) Agent {
	return Agent{
		Name: a.name, Program: a.program, Server: a.server, Client: a.client,
		Region: a.region, Datacenter: a.datacenter,
		Addr: a.httpAddr(l.Ports), Loopback: a.loopback,
		Log: l.path("logs", a.name+".log"), State: StateStopped,
	}
}

// ip is an address in the slot's own network 127.(100+slot).0.0/24: .11 on
// Consul servers, .31 on Nomad servers, .51 on clients, .151 on the loopback
// of clients.
func (l *layout) ip(host int) string {
	return fmt.Sprintf("127.%d.0.%d", loopbackFirst+l.Slot, host)
}

// agents returns all agents of the cluster, in the order in which they start.
func (l *layout) agents() []*agentSpec {
	nodes := l.severalNodes
	if l.Shape.Single() {
		nodes = l.singleNode
	}
	all := nodes()
	for _, a := range all {
		a.secure = l.Secure
	}
	var first []*agentSpec
	if l.DNS {
		first = append(first, l.powerdns())
	}
	if l.ACME {
		first = append(first, l.pebble())
	}
	return append(first, all...)
}

// named returns the agent of that name, nil if there is none.
func (l *layout) named(name string) *agentSpec {
	for _, a := range l.agents() {
		if a.name == name {
			return a
		}
	}
	return nil
}

// configFile returns the path of the agent's configuration.
func (l *layout) configFile(a *agentSpec) string {
	switch a.program {
	case Pebble:
		return l.path("acme", "pebble.json")
	case PowerDNS:
		return l.pdns().File()
	}
	return l.path("config", a.name+".hcl")
}

// command returns the command that starts the agent, and its environment variables.
func (l *layout) command(a *agentSpec) (argv, env []string) {
	program, file := l.Programs[a.program], l.configFile(a)
	switch a.program {
	case Consul:
		return []string{program, "agent", "-config-file", file}, nil
	case Pebble:
		argv = []string{program, "-config", file}
		if l.DNS {
			argv = append(argv, "-dnsserver", l.dnsServer())
		}
		return argv, pebbleEnv()
	case PowerDNS:
		return append([]string{program}, l.pdns().Args()...), nil
	}
	return []string{program, "agent", "-config", file}, nil
}

// severalNodes returns agents that each have an address of their own.
func (l *layout) severalNodes() []*agentSpec {
	var (
		consulServers, nomadServers, consulClients, nomadClients []*agentSpec
		prefix                                                   string
	)
	for r, region := range l.Shape.Regions {
		// One Consul datacenter per region: a region's clients then find
		// each other's services whatever their Nomad datacenter is.
		consulDC := l.consulDatacenter(region)
		if len(l.Shape.Regions) > 1 {
			prefix = region + "-"
		}
		cs := &agentSpec{name: prefix + "consul-server", program: Consul, server: true, region: region, datacenter: consulDC, addr: l.ip(11 + r)}
		consulServers = append(consulServers, cs)
		var servers []string
		for i := range l.Shape.Servers {
			a := &agentSpec{
				name: fmt.Sprintf("%snomad-server-%d", prefix, i+1), program: Nomad, server: true,
				region: region, datacenter: l.Shape.Datacenters[i%len(l.Shape.Datacenters)],
				addr: l.ip(31 + len(nomadServers)), consul: cs.addr,
			}
			nomadServers = append(nomadServers, a)
			servers = append(servers, a.addr)
		}
		for i := range l.Shape.Clients {
			n := len(nomadClients)
			dc := l.Shape.Datacenters[i%len(l.Shape.Datacenters)]
			// Nomad clients that share a Consul agent deregister each
			// other's services: each has one of its own.
			cc := &agentSpec{name: fmt.Sprintf("%sconsul-client-%d", prefix, i+1), program: Consul, client: true, region: region, datacenter: consulDC, addr: l.ip(51 + n)}
			cc.config = l.consulConfig(cc, cs.addr, nil)
			consulClients = append(consulClients, cc)
			nc := &agentSpec{
				name: fmt.Sprintf("%snomad-client-%d", prefix, i+1), program: Nomad, client: true,
				region: region, datacenter: dc, addr: cc.addr, consul: cc.addr,
				loopback: l.ip(151 + n), bridge: fmt.Sprintf("drover%dc%d", l.Slot, n+1),
			}
			nc.config = l.nomadConfig(nc, servers)
			nomadClients = append(nomadClients, nc)
		}
	}
	var first []string // the first server of each region, to federate with
	for i, a := range nomadServers {
		if i%l.Shape.Servers == 0 {
			first = append(first, a.addr)
		}
	}
	for i, a := range nomadServers {
		mine := i / l.Shape.Servers * l.Shape.Servers
		var join []string
		for j := mine; j < mine+l.Shape.Servers; j++ {
			if j != i {
				join = append(join, nomadServers[j].addr)
			}
		}
		for _, f := range first {
			if f != first[i/l.Shape.Servers] {
				join = append(join, f)
			}
		}
		a.config = l.nomadConfig(a, join)
	}
	for _, a := range consulServers {
		var wan []string
		for _, b := range consulServers {
			if b != a {
				wan = append(wan, b.addr)
			}
		}
		a.config = l.consulConfig(a, "", wan)
	}
	all := append(consulServers, consulClients...)
	all = append(all, nomadServers...)
	return append(all, nomadClients...)
}

// stages are the agents that start together, each stage when the one before
// is ready: Consul, Pebble and PowerDNS, Nomad's servers, Nomad's clients. In a
// secure cluster Consul's clients come after its servers know their tokens.
func (l *layout) stages() [][]*agentSpec {
	stages := make([][]*agentSpec, 4)
	for _, a := range l.agents() {
		i := 0
		switch {
		case a.program == Nomad && a.server:
			i = 2
		case a.program == Nomad:
			i = 3
		case a.program == Consul && !a.server && l.Secure:
			i = 1
		}
		stages[i] = append(stages[i], a)
	}
	return stages
}

// singleNode returns agents on one address. Server and client are two agents: after a
// restart, a client that starts together with the only server would be refused, since
// there is no leader yet, and would retry only after 15 to 30 seconds.
func (l *layout) singleNode() []*agentSpec {
	const addr = "127.0.0.1"
	region, dc := l.Shape.Regions[0], l.Shape.Datacenters[0]
	c := &agentSpec{name: "consul", program: Consul, server: true, region: region, datacenter: dc, addr: addr}
	c.config = l.consulConfig(c, "", nil)
	s := &agentSpec{name: "nomad-server", program: Nomad, server: true, region: region, datacenter: dc, addr: addr, consul: addr}
	s.config = l.nomadConfig(s, nil)
	n := &agentSpec{name: "nomad-client", program: Nomad, client: true, region: region, datacenter: dc, addr: addr, consul: addr, loopback: l.ip(1)}
	n.config = l.nomadConfig(n, []string{addr})
	return []*agentSpec{c, s, n}
}

// quoteList is an HCL list of strings, each with the given port appended.
func quoteList(hosts []string, port int) string {
	q := make([]string, len(hosts))
	for i, h := range hosts {
		if port != 0 {
			h = fmt.Sprintf("%s:%d", h, port)
		}
		q[i] = fmt.Sprintf("%q", h)
	}
	return "[" + strings.Join(q, ", ") + "]"
}

func (l *layout) consulConfig(a *agentSpec, join string, wan []string) string {
	var b strings.Builder
	http, https := l.Ports.ConsulHTTP, -1
	if l.Secure {
		https = http // and HTTP is on a socket
	}
	fmt.Fprintf(&b, `# Written by drover dev up; changes are lost.
node_name   = %q
datacenter  = %q
data_dir    = %q
bind_addr   = %q
client_addr = %[4]q
ports {
  http     = %d
  https    = %d
  dns      = %d
  server   = %d
  serf_lan = %d
  serf_wan = %d
  grpc     = -1
  grpc_tls = -1
}
disable_update_check    = true
leave_on_terminate      = false
skip_leave_on_interrupt = true
performance {
  raft_multiplier = 1
}
# The default of 200 connections per address is for agents whose users are not
# all on one address.
limits {
  http_max_conns_per_client = 8192
  rpc_max_conns_per_client  = 8192
}
# For the stack monitoring: GET /v1/agent/metrics?format=prometheus.
telemetry {
  prometheus_retention_time = "1m"
  disable_hostname          = true
}
`, a.name, a.datacenter, l.path("consul", a.name), a.addr,
		http, https, l.Ports.ConsulDNS, l.Ports.ConsulServer, l.Ports.ConsulSerfLAN, l.Ports.ConsulSerfWAN)
	if a.server {
		b.WriteString("server           = true\nbootstrap_expect = 1\n")
	} else {
		fmt.Fprintf(&b, "server         = false\nretry_join     = %s\nretry_interval = \"1s\"\n", quoteList([]string{join}, l.Ports.ConsulSerfLAN))
	}
	if len(wan) > 0 {
		fmt.Fprintf(&b, "advertise_addr_wan = %q\nretry_join_wan     = %s\nretry_interval_wan = \"2s\"\n", a.addr, quoteList(wan, l.Ports.ConsulSerfWAN))
	}
	if l.Secure {
		b.WriteString(l.consulSecure(a))
	}
	return b.String()
}

// nomadConfig is the configuration of one Nomad agent; peers are servers to
// join for a server and servers to register with for a client.
func (l *layout) nomadConfig(a *agentSpec, peers []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Written by drover dev up; changes are lost.
name       = %q
region     = %q
datacenter = %q
data_dir   = %q
bind_addr  = %q
# Nomad refuses to advertise a loopback address that it found by itself.
advertise {
  http = %[5]q
  rpc  = %[5]q
  serf = %[5]q
}
ports {
  http = %d
  rpc  = %d
  serf = %d
}
disable_update_check = true
leave_on_interrupt   = false
leave_on_terminate   = false
# The default of 100 connections per address is for agents whose users are not
# all on one address.
limits {
  http_max_conns_per_client = 8192
  rpc_max_conns_per_client  = 8192
}
# For the stack monitoring: GET /v1/metrics?format=prometheus.
telemetry {
  prometheus_metrics = true
  disable_hostname   = true
}
`, a.name, a.region, a.datacenter, l.path("nomad", a.name), a.addr, a.httpPort(l.Ports), l.Ports.NomadRPC, l.Ports.NomadSerf)
	fmt.Fprintf(&b, "consul {\n  address          = %q\n  server_auto_join = false\n  client_auto_join = false\n", fmt.Sprintf("%s:%d", a.consul, l.Ports.ConsulHTTP))
	if l.Secure {
		b.WriteString(l.nomadConsulSecure(a))
	}
	b.WriteString("}\n")
	if l.Secure {
		b.WriteString(l.nomadSecure(a))
	}
	if a.server {
		fmt.Fprintf(&b, "server {\n  enabled          = true\n  bootstrap_expect = %d\n", l.Shape.Servers)
		if l.Secure {
			b.WriteString(l.nomadServerSecure())
		}
		if len(peers) > 0 {
			fmt.Fprintf(&b, "  server_join {\n    retry_join     = %s\n    retry_interval = \"1s\"\n  }\n", quoteList(peers, l.Ports.NomadSerf))
		}
		b.WriteString("}\n")
	}
	if a.client {
		iface := a.bridge
		if iface == "" {
			iface = "lo"
		}
		sandbox := ""
		if l.Throwaway && !l.Secure {
			sandbox = `  # A process for each template that is written. Clusters with ACLs have it.
  template {
    disable_file_sandbox = true
  }
`
		}
		fmt.Fprintf(&b, `client {
  enabled           = true
  servers           = %s
  network_interface = %q
  min_dynamic_port  = %d
  max_dynamic_port  = %d
  alloc_dir         = %q
  host_volumes_dir  = %q
  meta {
    drover_bin       = %q
    drover_data      = %q
    drover_loopback  = %q
    consul_http_addr = %q
  }
%s%s  # By default, Nomad removes ended allocations and their logs when the disk is 80 %%
  # full, whatever else fills it.
  gc_disk_usage_threshold  = 99
  gc_inode_usage_threshold = 99
  options = {
    # The others ask 169.254.169.254 and wait for an answer.
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean"
    "driver.allowlist"     = "raw_exec,exec,docker,mock_driver"
  }
}
plugin "raw_exec" {
  config {
    enabled = true
  }
}
`, quoteList(peers, l.Ports.NomadRPC), iface, l.Ports.DynamicMin, l.Ports.DynamicMax, l.allocDir(a), l.volumesDir(a), l.path("bin"), l.path("data"), a.loopback,
			l.consulHTTP(a.consul), l.consulVolume(a), sandbox)
	}
	return b.String()
}

// consulHTTP is the address of the Consul agent at addr for what runs beside
// it, as CONSUL_HTTP_ADDR takes it.
func (l *layout) consulHTTP(addr string) string {
	if l.Secure {
		return "unix://" + l.socket(addr)
	}
	return fmt.Sprintf("%s:%d", addr, l.Ports.ConsulHTTP)
}

// allocDir is where a client keeps its allocations. In Nomad's own directory the path of
// a task's API socket (<alloc>/<task>/secrets/api.sock) would exceed the limit of 107
// bytes for sockets.
func (l *layout) allocDir(a *agentSpec) string {
	if l.Shape.Single() {
		return l.path("alloc")
	}
	return l.path("alloc", a.addr[strings.LastIndexByte(a.addr, '.')+1:])
}

// volumesDir is where a client makes its dynamic host volumes.
func (l *layout) volumesDir(a *agentSpec) string {
	if l.Shape.Single() {
		return l.path("volumes")
	}
	return l.path("volumes", a.name)
}
