package rollout

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

func testVolumes(t *testing.T, c nomad.Clients) {
	id := prefix(t) + "stateful"
	job := mockJob(id, runs())
	job.TaskGroups[0].Volumes = map[string]*api.VolumeRequest{}
	var names []string
	for i := range 8 {
		name := fmt.Sprintf("%s-%d", id, i)
		names = append(names, name)
		job.TaskGroups[0].Volumes[name] = &api.VolumeRequest{Name: name, Type: "host", Source: name}
	}
	jobs := []render.Job{service(job)}
	missing, err := MissingVolumes(t.Context(), c, jobs, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSortedFunc(missing, func(a, b MissingVolume) int { return strings.Compare(a.Name, b.Name) }) {
		t.Errorf("not in order: %v", missing)
	}
	if len(missing) != 8 || !strings.Contains(missing[0].String(), "--create-volumes") || !strings.Contains(missing[0].String(), id) {
		t.Fatalf("missing %v", missing)
	}
	var created []string
	err = CreateVolumes(t.Context(), c, missing, []*stack.Volume{{Name: names[0], Parameters: map[string]string{"mode": "0700"}}}, func(name string) {
		if len(created) == 0 {
			// All are made before the first is waited for.
			list, _, err := c.Nomad.HostVolumes().List(nil, nil)
			made := slices.DeleteFunc(list, func(v *api.HostVolumeStub) bool { return !slices.Contains(names, v.Name) })
			if err != nil || len(made) != 8 {
				t.Errorf("%d volumes are there when the first is ready, %v", len(made), err)
			}
		}
		created = append(created, name)
	})
	slices.Sort(created)
	if err != nil || !slices.Equal(created, names) {
		t.Fatalf("created %v, %v", created, err)
	}
	if missing, err = MissingVolumes(t.Context(), c, jobs, nil); err != nil || len(missing) != 0 {
		t.Fatalf("missing %v, %v", missing, err)
	}
	deleted, err := purgeAll(t, c, jobs)
	if err != nil || !slices.Equal(deleted, names) {
		t.Fatalf("deleted %v, %v", deleted, err)
	}
}

// If no node can create a volume, the volumes that were created before it are reported
// and kept.
func testVolumeRefused(t *testing.T, c nomad.Clients) {
	good, bad := prefix(t)+"good", prefix(t)+"bad"
	var jobs []render.Job
	for _, name := range []string{good, bad} {
		job := mockJob(name, runs())
		job.TaskGroups[0].Volumes = map[string]*api.VolumeRequest{name: {Name: name, Type: "host", Source: name}}
		jobs = append(jobs, service(job))
	}
	missing, err := MissingVolumes(t.Context(), c, jobs, nil)
	if err != nil {
		t.Fatal(err)
	}
	var created []string
	err = CreateVolumes(t.Context(), c, missing, []*stack.Volume{{Name: bad, PluginID: "nowhere"}}, func(name string) { created = append(created, name) })
	if err == nil || !strings.Contains(err.Error(), bad) || !slices.Equal(created, []string{good}) {
		t.Errorf("created %v, %v", created, err)
	}
	if deleted, err := purgeAll(t, c, jobs); err != nil || !slices.Equal(deleted, []string{good}) {
		t.Errorf("deleted %v, %v", deleted, err)
	}
}

func purgeAll(t *testing.T, c nomad.Clients, jobs []render.Job) (deleted []string, err error) {
	t.Helper()
	volumes, _, err := Volumes(t.Context(), c, jobs, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = PurgeVolumes(t.Context(), c, volumes, func(v OwnedVolume) { deleted = append(deleted, v.Name) })
	slices.Sort(deleted)
	return deleted, err
}
