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
		t.Errorf("volumes that nobody asked for: %+v", group)
	}
}
