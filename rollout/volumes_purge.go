package rollout

import (
	"context"
	"fmt"
	"slices"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/render"
)

// PurgeVolumes deletes the dynamic host volumes that the jobs ask for, with
// their data (DELETE /v1/volume/host/:id/delete), and returns their names
// and those of volumes that are in a node's configuration, which only its
// operator can delete.
func PurgeVolumes(ctx context.Context, c Clients, jobs []render.Job) (deleted, kept []string, err error) {
	wanted := map[place]map[string]bool{}
	for _, j := range jobs {
		for _, w := range volumesOf(j.Job) {
			at := place{w.Region, w.Namespace}
			if wanted[at] == nil {
				wanted[at] = map[string]bool{}
			}
			wanted[at][w.Name] = true
		}
	}
	for at, names := range wanted {
		list, _, err := c.Nomad.HostVolumes().List(nil, (&api.QueryOptions{Region: at.region, Namespace: at.namespace}).WithContext(ctx))
		if err != nil {
			return deleted, kept, fmt.Errorf("listing host volumes: %w", err)
		}
		for _, v := range list {
			if !names[v.Name] {
				continue
			}
			w := (&api.WriteOptions{Region: at.region, Namespace: at.namespace}).WithContext(ctx)
			if _, _, err := c.Nomad.HostVolumes().Delete(&api.HostVolumeDeleteRequest{ID: v.ID}, w); err != nil {
				return deleted, kept, fmt.Errorf("deleting host volume %q: %w", v.Name, err)
			}
			deleted = append(deleted, v.Name)
			names[v.Name] = false
		}
		for name, left := range names {
			if left {
				kept = append(kept, name)
			}
		}
	}
	slices.Sort(deleted)
	slices.Sort(kept)
	return slices.Compact(deleted), slices.Compact(kept), nil
}
