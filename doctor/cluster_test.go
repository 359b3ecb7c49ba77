package doctor_test

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/doctor"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
)

func TestMain(m *testing.M) { devtest.Main(m) }

// A real cluster is called sound where it is, and each thing that is broken
// in it is found; nothing stays behind.
func TestRealCluster(t *testing.T) {
	t.Parallel()
	cluster := devtest.Cluster(t, devcluster.Options{Shape: devcluster.Shape{Clients: 2}})
	client, err := api.NewClient(cluster.NomadConfig())
	if err != nil {
		t.Fatal(err)
	}
	consul, err := capi.NewClient(cluster.ConsulConfig())
	if err != nil {
		t.Fatal(err)
	}
	clients := nomad.Clients{Nomad: client, Consul: consul}
	look := func(n doctor.Needs, probe string) doctor.Report {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		facts, err := doctor.Collect(ctx, clients, n)
		if err != nil {
			t.Fatal(err)
		}
		if probe != "" {
			if err := doctor.Probe(ctx, clients, facts, n, doctor.ProbeOptions{Driver: probe, Timeout: 4 * time.Minute}); err != nil {
				t.Fatal(err)
			}
		}
		return doctor.Examine(facts, n)
	}
	want := func(r doctor.Report, lines ...string) {
		t.Helper()
		for _, line := range lines {
			w := strings.SplitN(line, " ", 3)
			if !slices.ContainsFunc(r.Findings, func(f doctor.Finding) bool {
				return string(f.Severity) == w[0] && f.Check == w[1] && strings.Contains(f.Subject+": "+f.Reason, w[2])
			}) {
				t.Errorf("no finding %q in %+v", line, r.Findings)
			}
		}
	}

	sound := look(doctor.Needs{}, "")
	want(sound, "ok version 3 Nomad agents", "ok scheduler ", "ok nodes 2 nodes take", "ok consul 2 nodes, each", "ok clock ",
		"warning acl Nomad ACLs are disabled", "warning servers there is one server", "note keyring a snapshot")
	if !sound.OK {
		t.Errorf("a sound cluster has errors: %+v", sound.Findings)
	}
	if v, _, err := client.Variables().Peek("drover/stacks/drover-doctor/default/doctor", nil); err != nil || v != nil {
		t.Errorf("the doctor wrote a variable: %v %v", v, err)
	}

	// A stack that this cluster cannot run, a port that is taken.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	job := api.NewServiceJob("patient", "patient", "global", 50)
	group := api.NewTaskGroup("g", 1)
	group.Services = []*api.Service{{Name: "patient", Provider: "consul"}}
	group.Volumes = map[string]*api.VolumeRequest{"v": {Type: "host", Source: "nowhere", AccessMode: "single-node-single-writer", AttachmentMode: "file-system"}}
	group.Networks = []*api.NetworkResource{{ReservedPorts: []api.Port{{Label: "http", Value: listener.Addr().(*net.TCPAddr).Port}}}}
	job.AddTaskGroup(group.AddTask(api.NewTask("t", "podman")))
	needs := doctor.Needs{Stack: "patient", Jobs: []render.Job{{Service: "patient", Job: job}}, Names: []string{"nowhere.invalid", listener.Addr().String()}}
	want(look(needs, "raw_exec"),
		"error driver podman: no node has a healthy driver podman",
		"error placement patient: no node takes it",
		`error volume nowhere: job "patient" needs host volume "nowhere"`,
		"error port nomad-client-1: something that is not of Nomad listens",
		"error dns nowhere.invalid: does not resolve from here",
		"error dns nowhere.invalid: does not resolve inside of an allocation on nomad-client-2",
		"ok reach they answer",
		"warning shutdown-delay patient/g: ")
	if jobs, _, err := client.Jobs().List(nil); err != nil || slices.ContainsFunc(jobs, func(j *api.JobListStub) bool { return strings.HasPrefix(j.ID, "drover-doctor") }) {
		t.Errorf("the probe left a job behind: %v", err)
	}

	// A volume on one node, that is seen as the driver sees it.
	list, _, err := client.Nodes().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	made, _, err := client.HostVolumes().Create(&api.HostVolumeCreateRequest{Volume: &api.HostVolume{
		Name: "data", PluginID: "mkdir", NodeID: list[0].ID,
		RequestedCapabilities: []*api.HostVolumeCapability{{AttachmentMode: api.HostVolumeAttachmentModeFilesystem, AccessMode: api.HostVolumeAccessModeSingleNodeWriter}},
	}}, nil)
	for deadline := time.Now().Add(time.Minute); err == nil && made.Volume.State != api.HostVolumeStateReady; {
		if time.Now().After(deadline) {
			t.Fatalf("the volume is %s", made.Volume.State)
		}
		q := &api.QueryOptions{WaitIndex: made.Volume.ModifyIndex, WaitTime: 5 * time.Second}
		made.Volume, _, err = client.HostVolumes().Get(made.Volume.ID, q)
	}
	if err != nil {
		t.Fatal(err)
	}
	job = api.NewServiceJob("keeper", "keeper", "global", 50)
	group = api.NewTaskGroup("g", 1)
	group.Volumes = map[string]*api.VolumeRequest{"v": {Type: "host", Source: "data", AccessMode: "single-node-writer", AttachmentMode: "file-system"}}
	task := api.NewTask("t", "exec")
	name, dir := "v", "/data"
	task.User, task.VolumeMounts = "1000", []*api.VolumeMount{{Volume: &name, Destination: &dir}}
	job.AddTaskGroup(group.AddTask(task))
	needs = doctor.Needs{Stack: "keeper", Jobs: []render.Job{{Service: "keeper", Job: job}}}
	owner := "error volume data on " + list[0].Name + ": its directory "
	for _, driver := range []string{"raw_exec", "exec"} {
		r := look(needs, driver)
		want(r, owner)
		if slices.ContainsFunc(r.Findings, func(f doctor.Finding) bool { return f.Severity == doctor.Unknown }) {
			t.Errorf("with %s something was not looked at: %+v", driver, r.Findings)
		}
	}

	// A cluster that takes no jobs, with a node that takes no allocations.
	if _, _, err := client.Operator().SchedulerSetConfiguration(&api.SchedulerConfiguration{RejectJobRegistration: true}, nil); err != nil {
		t.Fatal(err)
	}
	nodes, _, err := client.Nodes().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Nodes().ToggleEligibility(nodes[0].ID, false, nil); err != nil {
		t.Fatal(err)
	}
	broken := look(doctor.Needs{}, "")
	want(broken, "error scheduler the cluster takes no jobs", "warning nodes "+nodes[0].Name+": the node takes no allocations")
	if broken.OK {
		t.Error("a cluster that takes no jobs is called sound")
	}
}
