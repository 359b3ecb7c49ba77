package rollout

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
)

// TestVolumesOfSeveralNodes creates, purges and loses host volumes on a cluster
// of three clients.
func TestVolumesOfSeveralNodes(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("several clients have a network interface each, which takes root")
	}
	t.Parallel()
	dev := devtest.Cluster(t, devcluster.Options{Shape: devcluster.Shape{Clients: 3}})
	client, err := nomadClient(dev.NomadAddr(), nil)
	if err != nil {
		t.Fatal(err)
	}
	c := nomad.Clients{Nomad: client}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()

	asking := func(id string, count int, v api.VolumeRequest) render.Job {
		job := mockJob(id, runs())
		job.TaskGroups[0].Count, job.Update.MaxParallel = &count, ptr(3)
		v.Type = "host"
		job.TaskGroups[0].Volumes = map[string]*api.VolumeRequest{"v": &v}
		return service(job)
	}
	create := func(t *testing.T, jobs ...render.Job) []string {
		t.Helper()
		missing, err := MissingVolumes(ctx, c, jobs, nil)
		if err == nil {
			err = CreateVolumes(ctx, c, missing, nil, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, m := range missing {
			out = append(out, m.Name)
		}
		return out
	}
	purgeAll := func(t *testing.T, jobs ...render.Job) []string {
		t.Helper()
		volumes, _, err := Volumes(ctx, c, jobs, nil)
		var deleted []string
		if err == nil {
			err = PurgeVolumes(ctx, c, volumes, func(v OwnedVolume) { deleted = append(deleted, v.Name) })
		}
		if err != nil {
			t.Fatal(err)
		}
		return deleted
	}
	nodesOf := func(t *testing.T, id string) map[string]int {
		t.Helper()
		allocs, _, err := client.Jobs().Allocations(id, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		on := map[string]int{}
		for _, a := range allocs {
			if a.ClientStatus == api.AllocClientStatusRunning {
				on[a.NodeName]++
			}
		}
		return on
	}

	t.Run("per_alloc", func(t *testing.T) {
		j := asking("each", 3, api.VolumeRequest{Source: "each", PerAlloc: true})
		missing, err := MissingVolumes(ctx, c, []render.Job{j}, nil)
		if err != nil || len(missing) != 3 || !strings.Contains(missing[1].String(), `(instance g[1]) needs host volume "each[1]"`) {
			t.Fatalf("missing %v, %v", missing, err)
		}
		want := []string{"each[0]", "each[1]", "each[2]"}
		// Purged and made again at once: the node lists deleted volumes for some seconds.
		for range 2 {
			if got := create(t, j); !slices.Equal(got, want) {
				t.Fatalf("created %q, want %q", got, want)
			}
			res, _ := deploy(t, c, Options{}, j)
			wantOutcomes(t, res, Deployed)
			if on := nodesOf(t, "each"); len(on) != 3 {
				t.Errorf("instances are on %v, want three nodes", on)
			}
			if err := purge(ctx, c, 0, spec{}, "each"); err != nil {
				t.Fatal(err)
			}
			if got := purgeAll(t, j); !slices.Equal(got, want) {
				t.Fatalf("deleted %q, want %q", got, want)
			}
		}
	})

	t.Run("of another job", func(t *testing.T) {
		mine, other := asking("mine", 1, api.VolumeRequest{Source: "common"}), asking("other", 1, api.VolumeRequest{Source: "common"})
		create(t, mine)
		res, _ := deploy(t, c, Options{}, other)
		wantOutcomes(t, res, Deployed)
		if got := purgeAll(t, mine); len(got) != 0 {
			t.Errorf("deleted %q, which another job asks for", got)
		}
		if err := purge(ctx, c, 0, spec{}, "other"); err != nil {
			t.Fatal(err)
		}
		if got := purgeAll(t, mine); !slices.Equal(got, []string{"common"}) {
			t.Errorf("deleted %q", got)
		}
	})

	t.Run("sticky on a lost node", func(t *testing.T) {
		j := asking("kept", 2, api.VolumeRequest{Source: "kept", Sticky: true})
		if got := create(t, j); !slices.Equal(got, []string{"kept", "kept"}) {
			t.Fatalf("created %q, want one for each instance", got)
		}
		res, _ := deploy(t, c, Options{}, j)
		wantOutcomes(t, res, Deployed)
		if lost, err := LostVolumes(ctx, c, []render.Job{j}); err != nil || len(lost) != 0 {
			t.Errorf("lost %v, %v", lost, err)
		}
		claims, _, err := client.TaskGroupHostVolumeClaims().List(&api.TaskGroupHostVolumeClaimsListRequest{JobID: "kept"}, nil)
		if err != nil || len(claims) != 2 {
			t.Fatalf("%d claims, %v", len(claims), err)
		}
		claim := claims[0]
		volume, _, err := client.HostVolumes().Get(claim.VolumeID, nil)
		if err != nil {
			t.Fatal(err)
		}
		node, _, err := client.Nodes().Info(volume.NodeID, nil)
		if err != nil {
			t.Fatal(err)
		}
		agent := "nomad-client-" + node.Name[strings.LastIndexByte(node.Name, '-')+1:]
		if err := dev.Kill(ctx, agent); err != nil {
			t.Fatalf("%s of node %s: %v", agent, node.Name, err)
		}
		var last string
		err = poll(ctx, func() bool {
			st, err := Status(ctx, c, []render.Job{j})
			last = fmt.Sprintf("%+v, %v", st, err)
			return err == nil && !st[0].OK && len(st[0].Lost) == 1 && st[0].Lost[0].NodeState == "down"
		})
		if err != nil {
			t.Fatalf("the status does not name the lost volume: %s", last)
		}
		st, err := Status(ctx, c, []render.Job{j})
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("allocation %.8s claims host volume kept (%.8s) on node %s, which is down (claim %.8s)", claim.AllocID, claim.VolumeID, node.Name, claim.ID)
		if !strings.Contains(st[0].Detail, want) {
			t.Errorf("got  %q\nwant %q", st[0].Detail, want)
		}
		if hint := st[0].Lost[0].Recreate(); !strings.Contains(hint, "nomad volume delete -type host -force "+claim.VolumeID) {
			t.Errorf("the hint is %q", hint)
		}
		missing, err := MissingVolumes(ctx, c, []render.Job{j}, nil)
		if err != nil || len(missing) != 1 || missing[0].Creatable() || missing[0].State != api.HostVolumeStateUnavailable {
			t.Errorf("missing %v, %v; want the one on the lost node, which may come back", missing, err)
		}

		// As the hint says.
		if _, _, err := client.HostVolumes().Delete(&api.HostVolumeDeleteRequest{ID: claim.VolumeID, Force: true}, nil); err != nil {
			t.Fatal(err)
		}
		if got := create(t, j); !slices.Equal(got, []string{"kept"}) {
			t.Fatalf("created %q", got)
		}
		err = poll(ctx, func() bool {
			st, err = Status(ctx, c, []render.Job{j})
			return err == nil && st[0].OK
		})
		if err != nil || len(nodesOf(t, "kept")) != 2 {
			t.Errorf("after the recreate: %+v, %v", st, err)
		}
	})
}
