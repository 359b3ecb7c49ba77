package schedule

import (
	"testing"

	"github.com/drover-nomad/drover/stack"
)

// In a container, Consul's socket is where CONSUL_HTTP_ADDR says.
func TestJobMountsConsulsSocket(t *testing.T) {
	t.Parallel()
	s := &stack.Schedule{Name: "nightly", Crons: []string{"@daily"}}
	d := &stack.Driver{Name: "docker", Image: "drover", Env: map[string]string{"CONSUL_HTTP_ADDR": "unix:///run/consul/http.sock"}, ConsulVolume: "sockets"}
	group := Job("shop", "prod", s, d, true).TaskGroups[0]
	mounts := group.Tasks[0].VolumeMounts
	if len(mounts) != 1 || *mounts[0].Destination != "/run/consul" || !*mounts[0].ReadOnly {
		t.Fatalf("the mounts are %+v", mounts)
	}
	if v := group.Volumes[*mounts[0].Volume]; v == nil || v.Source != "sockets" || v.Type != "host" || !v.ReadOnly {
		t.Errorf("the volume is %+v", v)
	}

	d.ConsulVolume = ""
	if group := Job("shop", "prod", s, d, true).TaskGroups[0]; len(group.Volumes)+len(group.Tasks[0].VolumeMounts) != 0 {
		t.Errorf("got volumes in %+v, want none", group)
	}
}

func TestJobID_IsUnambiguous(t *testing.T) {
	t.Parallel()
	seen := map[string][3]string{}
	names := []string{"shop", "shop-prod", "shop--prod", "shop-", "prod", "prod-eu", "eu", "eu-", "a.b", "a_b"}
	for _, stackName := range names {
		for _, env := range names {
			for _, name := range names {
				id := JobID(stackName, env, name)
				if other, dup := seen[id]; dup {
					t.Errorf("%v and %v have the job ID %s", other, [3]string{stackName, env, name}, id)
				}
				seen[id] = [3]string{stackName, env, name}
			}
		}
	}
	if got, want := JobID("shop", "prod", "nightly"), "drover-shop-prod-nightly"; got != want {
		t.Errorf("without a dash the ID is %s, want %s, as older drovers have it", got, want)
	}
}

func TestJob_Placement(t *testing.T) {
	t.Parallel()
	s := &stack.Schedule{Name: "nightly", Crons: []string{"@daily"}}
	d := &stack.Driver{Name: "raw_exec", Path: "/drover", NodePool: "ops", CPU: 200, MemoryMB: 256, MemoryMaxMB: 512, Constraints: []stack.DriverConstraint{{Attribute: "${attr.cpu.arch}", Value: "amd64"}}}
	job := Job("shop", "prod", s, d, false)
	task := job.TaskGroups[0].Tasks[0]
	if *job.NodePool != "ops" || *task.Resources.CPU != 200 || *task.Resources.MemoryMB != 256 || *task.Resources.MemoryMaxMB != 512 {
		t.Errorf("node pool %s, resources %+v", *job.NodePool, task.Resources)
	}
	if len(job.Constraints) != 1 || job.Constraints[0].LTarget != "${attr.cpu.arch}" || job.Constraints[0].Operand != "=" || job.Constraints[0].RTarget != "amd64" {
		t.Errorf("constraints %+v", job.Constraints)
	}
	if !fires(job, "shop", "prod", "nightly") || fires(job, "shop-prod", "eu", "nightly") {
		t.Error("the job is not known as that of its schedule alone")
	}
	job = Job("shop", "prod", s, &stack.Driver{Name: "raw_exec", Path: "/drover"}, false)
	if r := job.TaskGroups[0].Tasks[0].Resources; job.NodePool != nil || *r.CPU != 50 || *r.MemoryMB != 96 || r.MemoryMaxMB != nil || len(job.Constraints) > 0 {
		t.Errorf("by default: %+v, %+v", job, r)
	}
}
