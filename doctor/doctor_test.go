package doctor

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
)

// healthy is a cluster, and a stack for it, in which nothing is wrong.
func healthy() (*Facts, Needs) {
	job := api.NewServiceJob("web", "web", "global", 50)
	group := api.NewTaskGroup("g", 1)
	group.ShutdownDelay = ptr(2 * time.Second)
	group.Services = []*api.Service{{Name: "web", Provider: "consul"}}
	group.Volumes = map[string]*api.VolumeRequest{"v": {Type: "host", Source: "data"}}
	group.Networks = []*api.NetworkResource{{ReservedPorts: []api.Port{{Label: "http", Value: 8080}}}}
	task := api.NewTask("t", "docker")
	task.User = "1000"
	task.VolumeMounts = []*api.VolumeMount{{Volume: ptr("v")}}
	task.Config = map[string]any{"extra_hosts": []any{"db:198.18.0.5", "printer:10.0.0.9"}}
	job.AddTaskGroup(group.AddTask(task))
	mesh := api.NewSystemJob("mesh", "mesh", "global", 50)
	mesh.Datacenters = []string{"dc*"}
	haproxy := api.NewTask("haproxy", "docker")
	haproxy.Templates = []*api.Template{{EmbeddedTmpl: ptr("frontend health\n  bind 10.0.0.1:80\nlisten db\n  bind 198.18.0.5:5432\nlisten web\n  bind *:80\n")}}
	mesh.AddTaskGroup(api.NewTaskGroup("mesh", 1).AddTask(haproxy))

	disk := &api.HostDiskStats{Mountpoint: "/", Size: 100 << 30, Available: 50 << 30}
	f := &Facts{
		At: time.Unix(1700000000, 0), Missing: map[string]error{}, ACLs: true, ExternalKEK: true,
		Health:    &api.OperatorHealthReply{Healthy: true},
		Scheduler: &api.SchedulerConfiguration{},
		Rights:    []Right{{What: "submit jobs", Capability: "submit-job"}},
		Keys:      []*api.RootKeyMeta{{State: api.RootKeyStateActive, CreateTime: 1690000000e9}},

		ConsulVersions: map[string]string{"c1": "1.20.6"}, ConsulLeader: "x", ConsulNomad: true,
		Placements: map[string]string{}, Volumes: []Volume{{Name: "data", JobID: "web"}},
		Routes:  edge.Review{Running: true, Decided: true, Namespaces: 2},
		Outside: []Reach{{Name: "example.org", Addresses: []string{"192.0.2.1"}, Ports: map[int]error{443: nil, 80: nil}}},
	}
	for i := range 3 {
		name := fmt.Sprintf("n%d", i)
		f.Servers = append(f.Servers, Server{Name: "s" + name, Version: "1.11.3", Status: "alive"})
		f.Nodes = append(f.Nodes, Node{
			ID: name, Name: name, Version: "1.11.3", Datacenter: "dc1", Status: "ready", Eligibility: "eligible",
			Drivers: map[string]*api.DriverInfo{"docker": {Detected: true, Healthy: true}},
			Consul:  "1.20.6", Agent: "c" + name, SkewKnown: true, Fuzz: 2 * time.Second, AllocDir: disk, Disks: []*api.HostDiskStats{disk},
			Volumes: map[string]*api.HostVolumeInfo{"data": {Path: "/srv/data"}},
		})
		f.Probes = append(f.Probes, NodeProbe{
			Node: name, Listening: []int{22}, Names: f.Outside,
			Local:   []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("198.18.0.0/16")},
			Volumes: map[string]VolumeProbe{"data": {Path: "/srv/data", UID: 1000, Mode: 0o755, XAttr: "yes"}},
		})
	}
	return f, Needs{Stack: "web", Jobs: []render.Job{{Service: "web", Job: job}, {Service: "mesh", Job: mesh}}, Names: []string{"example.org"}}
}

// Each thing that can be wrong is found, with what mends it, and nothing else
// is.
func TestFindings(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		breaks func(*Facts, *Needs)
		want   []string // "severity check subject: a part of the reason"
	}{
		"nothing": {func(*Facts, *Needs) {}, nil},
		"old server": {func(f *Facts, _ *Needs) { f.Servers[0].Version = "1.9.3" }, []string{
			"error version server sn0: runs Nomad 1.9.3, which drover does not know",
			"warning version : Nomad runs in several versions: 1.11.3 on node n0, node n1, node n2 and 2 more; 1.9.3 on server sn0",
		}},
		"old Consul":    {func(f *Facts, _ *Needs) { f.ConsulVersions["c1"] = "1.16.0" }, []string{"error version c1: runs Consul 1.16.0"}},
		"no Consul":     {func(f *Facts, _ *Needs) { f.Missing["consul"] = errors.New("refused") }, []string{"unknown version : refused"}},
		"one server":    {func(f *Facts, _ *Needs) { f.Servers = f.Servers[:1] }, []string{"warning servers : there is one server"}},
		"two servers":   {func(f *Facts, _ *Needs) { f.Servers = f.Servers[:2] }, []string{"warning servers : 2 servers outlive"}},
		"failed server": {func(f *Facts, _ *Needs) { f.Servers = append(f.Servers, Server{"s9", "1.11.3", "failed"}) }, []string{"warning servers s9: the server is failed"}},
		"unhealthy": {func(f *Facts, _ *Needs) {
			f.Health = &api.OperatorHealthReply{Servers: []api.ServerHealth{{Name: "sn1", SerfStatus: "alive"}}}
		}, []string{"error servers sn1: autopilot calls the server unhealthy"}},
		"no ACLs":     {func(f *Facts, _ *Needs) { f.ACLs = false }, []string{"warning acl : Nomad ACLs are disabled"}},
		"weak token":  {func(f *Facts, _ *Needs) { f.Rights[0].Err = errors.New("denied") }, []string{"error acl submit jobs: the token may not submit jobs: denied"}},
		"rejecting":   {func(f *Facts, _ *Needs) { f.Scheduler.RejectJobRegistration = true }, []string{"error scheduler : the cluster takes no jobs"}},
		"paused":      {func(f *Facts, _ *Needs) { f.Scheduler.PauseEvalBroker = true }, []string{"error scheduler : the scheduler is paused"}},
		"node down":   {func(f *Facts, _ *Needs) { f.Nodes[0].Status = "down" }, []string{"warning nodes n0: the node is down"}},
		"ineligible":  {func(f *Facts, _ *Needs) { f.Nodes[0].Eligibility = "ineligible" }, []string{"warning nodes n0: the node takes no allocations"}},
		"no nodes":    {func(f *Facts, n *Needs) { f.Nodes, n.Jobs = nil, nil }, []string{"error nodes : no node takes allocations"}},
		"sick driver": {func(f *Facts, _ *Needs) { f.Nodes[1].Drivers["docker"].Healthy = false }, []string{"warning driver n1: driver docker is there but not healthy"}},
		"no driver":   {func(_ *Facts, n *Needs) { n.Jobs[0].Job.TaskGroups[0].Tasks[0].Driver = "raw_exec" }, []string{"error driver raw_exec: no node has a healthy driver raw_exec, which web needs"}},
		"no place":    {func(f *Facts, _ *Needs) { f.Placements["web"] = "memory exhausted 3" }, []string{"error placement web: no node takes it: memory exhausted 3"}},
		"no volume":   {func(f *Facts, _ *Needs) { f.Volumes[0].Missing = "no node has it" }, []string{"error volume data: no node has it"}},
		"CSI volume": {func(f *Facts, _ *Needs) {
			f.CSI = []*rollout.CSIProblem{{Volume: "disk", JobID: "web", Problem: "which is not in namespace default"}}
		}, []string{`error volume disk: job "web" needs CSI volume "disk", which is not in namespace default`}},
		"foreign volume": {func(f *Facts, _ *Needs) {
			f.Probes[0].Volumes["data"] = VolumeProbe{Path: "/srv/data", Mode: 0o755, XAttr: "yes"}
		}, []string{
			"error volume data on n0: its directory /srv/data belongs to user 0 (mode 755), the task runs as 1000",
		}},
		"no attributes": {func(f *Facts, _ *Needs) { f.Probes[0].Volumes["data"] = VolumeProbe{UID: 1000, XAttr: "no"} }, []string{"warning volume data on n0: the file system keeps no user.* extended attributes"}},
		"not root":      {func(f *Facts, _ *Needs) { f.Probes[0].Volumes["data"] = VolumeProbe{UID: 1000, XAttr: "untried"} }, []string{"unknown volume data on n0: whether the file system keeps extended attributes could not be tried: the probe may not write"}},
		"no setfattr":   {func(f *Facts, _ *Needs) { f.Probes[0].Volumes["data"] = VolumeProbe{UID: 1000, XAttr: "unknown"} }, []string{"unknown volume data on n0: whether the file system keeps"}},
		"gone volume":   {func(f *Facts, _ *Needs) { f.Probes[0].Volumes["data"] = VolumeProbe{Path: "/x", Err: "no directory"} }, []string{"error volume data on n0: its directory /x cannot be used: no directory"}},
		"full disk": {func(f *Facts, _ *Needs) {
			f.Nodes[2].Disks = append(f.Nodes[2].Disks, &api.HostDiskStats{Mountpoint: "/srv", Size: 10 << 30, Available: 100 << 20})
		}, []string{"error disk n2: /srv has 100 MiB left of 10240 (volume data)"}},
		"scarce disk": {func(f *Facts, _ *Needs) {
			f.Nodes[2].AllocDir = &api.HostDiskStats{Mountpoint: "/a", Size: 100 << 30, Available: 5 << 30}
		}, []string{"warning disk n2: /a has 5120 MiB left of 102400 (allocations)"}},
		"no inodes": {func(f *Facts, _ *Needs) {
			f.Nodes[2].AllocDir = &api.HostDiskStats{Mountpoint: "/a", Size: 100 << 30, Available: 50 << 30, InodesUsedPercent: 99}
		}, []string{"warning disk n2: 99% of the inodes of /a are used"}},
		"taken port":   {func(f *Facts, _ *Needs) { f.Probes[1].Listening = []int{22, 8080} }, []string{"error port n1: something that is not of Nomad listens on port 8080, which web needs"}},
		"Nomad's port": {func(f *Facts, _ *Needs) { f.Probes[1].Listening, f.Nodes[1].Ports = []int{8080}, []int{8080} }, nil},
		"no route":     {func(f *Facts, _ *Needs) { f.Probes[1].Local = f.Probes[1].Local[:1] }, []string{"error mesh n1: mesh listens on 198.18.0.5, which is not local there"}},
		"no route elsewhere": {func(f *Facts, _ *Needs) {
			f.Probes[1].Local, f.Nodes[1].Datacenter = f.Probes[1].Local[:1], "edge"
		}, nil},
		"no route yet": {func(f *Facts, n *Needs) {
			f.Probes[1].Local = f.Probes[1].Local[:1]
			n.Jobs[1].Job.TaskGroups[0].Tasks[0].Config = map[string]any{"args": []any{"-c", "exec ip route replace local 198.18.0.0/16 dev lo"}}
		}, nil},
		"unknown ranges": {func(f *Facts, _ *Needs) { f.Probes[0].Local = nil }, []string{"unknown mesh n0: the probe could not read"}},
		"slow clock":     {func(f *Facts, _ *Needs) { f.Nodes[0].Skew = -30 * time.Second }, []string{"warning clock n0: its clock is 30s behind ours"}},
		"wrong clock":    {func(f *Facts, _ *Needs) { f.Nodes[0].Skew = time.Hour }, []string{"error clock n0: its clock is 1h0m0s ahead of ours"}},
		"no leader":      {func(f *Facts, _ *Needs) { f.ConsulLeader = "" }, []string{"error consul : Consul has no leader"}},
		"blind node":     {func(f *Facts, _ *Needs) { f.Nodes[0].Consul, f.Nodes[0].Agent = "", "" }, []string{"error consul n0: the node sees no Consul agent"}},
		"shared agent":   {func(f *Facts, _ *Needs) { f.Nodes[1].Agent = f.Nodes[0].Agent }, []string{"error consul cn0: the clients n0, n1 share one Consul agent"}},
		"blind server":   {func(f *Facts, _ *Needs) { f.ConsulNomad = false }, []string{"warning consul : Nomad's servers are not in Consul's catalog"}},
		"no DNS": {func(f *Facts, _ *Needs) {
			f.Probes[2].Names = []Reach{{Name: "example.org", Err: errors.New("no such host")}}
		}, []string{"error dns example.org: does not resolve inside of an allocation on n2: no such host"}},
		"closed port": {func(f *Facts, _ *Needs) {
			f.Outside = []Reach{{Name: "example.org", Ports: map[int]error{443: errors.New("refused"), 80: nil}}}
		}, []string{"warning reach example.org: port 443 cannot be reached from here (refused)"}},
		"no probe": {func(f *Facts, _ *Needs) { f.Probes = nil }, []string{
			"unknown volume : owner and extended attributes", "unknown port : who listens", "unknown mesh : which addresses", "unknown dns : DNS inside", "unknown reach : whether allocations",
		}},
		"open edge":     {func(f *Facts, _ *Needs) { f.Routes.Decided = false }, []string{"warning routes : there are 2 namespaces, and each may claim every host at the edge"}},
		"one namespace": {func(f *Facts, _ *Needs) { f.Routes.Decided, f.Routes.Namespaces = false, 1 }, nil},
		"tenants":       {func(f *Facts, _ *Needs) { f.Routes.Decided, f.Routes.Tenants = false, true }, nil},
		"shared host":   {func(f *Facts, _ *Needs) { f.Routes.Shared = []string{"a.test default evil"} }, []string{"warning routes a.test: several namespaces have routes on this host: default, evil"}},
		"refused route": {func(f *Facts, _ *Needs) {
			f.Routes.Problems = []edge.Problem{{Service: "evil", Tag: "drover.route=a.test/", Message: "A.test/ belongs to service web", Mend: "x"}}
		}, []string{`warning routes evil: the edge ignores the tag "drover.route=a.test/": A.test/ belongs to service web`}},
		"no edge of the class": {func(f *Facts, _ *Needs) {
			f.Routes.Problems = []edge.Problem{{Service: "wiki", Tag: "drover.class=internal", Message: `No edge has the class "internal"`, Mend: "x", Costs: edge.CostsService}}
		}, []string{`warning routes wiki: none of its routes is served: No edge has the class "internal"`}},
		"clear key":  {func(f *Facts, _ *Needs) { f.ExternalKEK = false }, []string{"note keyring : a snapshot of Nomad holds the key"}},
		"old key":    {func(f *Facts, _ *Needs) { f.Keys[0].CreateTime = 1600000000e9 }, []string{"warning keyring : the active key is 1157 days old"}},
		"no key":     {func(f *Facts, _ *Needs) { f.Keys[0].State = api.RootKeyStateInactive }, []string{"error keyring : no key is active"}},
		"no delay":   {func(_ *Facts, n *Needs) { n.Jobs[0].Job.TaskGroups[0].ShutdownDelay = nil }, []string{"warning shutdown-delay web/g: the group has services and no shutdown_delay"}},
		"theirs":     {func(f *Facts, _ *Needs) { f.NoShutdownDelay = []string{"other/g", "web/old"} }, []string{"warning shutdown-delay other/g: the group has services and no shutdown_delay"}},
		"blind":      {func(f *Facts, _ *Needs) { f.Missing["stats"] = errors.New("no") }, []string{"unknown disk : no", "unknown clock : no"}},
		"blinder":    {func(f *Facts, _ *Needs) { f.Missing["nodes"], f.Nodes = errors.New("no"), nil }, []string{"unknown nodes : no"}},
		"no servers": {func(f *Facts, _ *Needs) { f.Missing["servers"], f.Servers = errors.New("no"), nil }, []string{"unknown servers : no"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, n := healthy()
			c.breaks(f, &n)
			r := Examine(f, n)
			var got []Finding
			for _, g := range r.Findings {
				if g.Severity != OK {
					got = append(got, g)
				}
				if (g.Severity == Error || g.Severity == Warning) && g.Mend == "" {
					t.Errorf("nothing mends %+v", g)
				}
			}
			if len(got) != len(c.want) {
				t.Fatalf("%d findings, want %q: %+v", len(got), c.want, got)
			}
			wantOK := true
			for i, w := range c.want {
				wantOK = wantOK && !strings.HasPrefix(w, "error")
				g := got[i]
				if line := fmt.Sprintf("%s %s %s: %s", g.Severity, g.Check, g.Subject, g.Reason); !strings.HasPrefix(line, w) {
					t.Errorf("found %q, want %q", line, w)
				}
			}
			if r.OK != wantOK {
				t.Errorf("OK is %t", r.OK)
			}
		})
	}
}

// readProbe reads the lines of the probe and ignores other output of the node.
func TestReadProbe(t *testing.T) {
	t.Parallel()
	p := readProbe("n1", `Ubuntu says hello
volume data stat 1000 2775
volume data xattr yes
volume bad err there is no directory /x
name example.org addresses 192.0.2.1 2001:db8::1
name example.org port 443 yes
name example.org port 80 no
name example.org port 81 unknown
name nowhere.invalid addresses
name stranger addresses 192.0.2.9
listen 1F90
listen 0016
listen 1F90
local 198.18.0.0/16
local nothing
`, []string{"example.org", "nowhere.invalid", "silent"})
	got := fmt.Sprintf("%+v", p)
	want := "{Node:n1 Volumes:map[bad:{Path: Err:there is no directory /x UID:0 Mode:0 XAttr:} data:{Path: Err: UID:1000 Mode:1533 XAttr:yes}] " +
		"Names:[{Name:example.org Addresses:[192.0.2.1 2001:db8::1] Err:<nil> Ports:map[80:no connection 443:<nil>]} " +
		"{Name:nowhere.invalid Addresses:[] Err:no such host Ports:map[]} {Name:silent Addresses:[] Err:there is neither getent nor nslookup Ports:map[]}] Listening:[22 8080] Local:[198.18.0.0/16]}"
	if got != want {
		t.Errorf("read\n%s\nwant\n%s", got, want)
	}
}

// The table of the page is that of the code.
func TestPageIsTheCode(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/how-to/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows strings.Builder
	for _, c := range Checks() {
		fmt.Fprintf(&rows, "| `%s` | %s |\n", c.Name, c.Asks)
	}
	if !strings.Contains(string(page), rows.String()) {
		t.Errorf("docs/how-to/doctor.md does not have this table:\n%s", rows.String())
	}
}

func FuzzReadProbe(f *testing.F) {
	f.Add("volume v stat 1 2\nname h port 1 no\nlisten FFFF")
	f.Fuzz(func(t *testing.T, text string) {
		for _, port := range readProbe("n", text, []string{"h:1", "h"}).Listening {
			if port < 0 || port > 65535 {
				t.Errorf("port %d", port)
			}
		}
	})
}

// Names of the stack reach the shell of the probe as single words.
func TestProbeJob_QuotesNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"web.example.org":                   "(web.example.org)(443)(80)",
		"web.example.org:8443":              "(web.example.org)(8443)",
		"a.test:80; echo bad":               "(a.test)(80; echo bad)",
		"a.test:$(echo bad)":                "(a.test)($(echo bad))",
		"it's.test":                         "(it's.test)(443)(80)",
		"<%drover key \"token\" drover%>:1": "(<%drover key \"token\" drover%>)(1)",
	} {
		job := probeJob(&Facts{}, Needs{Names: []string{name}}, "raw_exec", "")
		text := *job.TaskGroups[0].Tasks[0].Templates[0].EmbeddedTmpl
		if strings.Contains(text, leftDelim) {
			t.Errorf("%s: the script has a template's delimiter", name)
		}
		_, calls, _ := strings.Cut(text, probeScript)
		script := "name() { printf '(%s)' \"$@\"; }\nlistening() { :; }\n" + calls
		out, err := exec.CommandContext(t.Context(), "/bin/sh", "-c", script).Output()
		if got, _, _ := strings.Cut(string(out), lastLine); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", name, got, err, want)
		}
	}
}
