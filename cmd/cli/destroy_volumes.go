package cli

import (
	"context"
	"fmt"

	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
)

// purgeVolumes deletes the dynamic host volumes that the jobs ask for, and says
// which stay and why.
func purgeVolumes(ctx context.Context, streams *IO, c rollout.Clients, jobs []render.Job) error {
	volumes, unmade, err := rollout.Volumes(ctx, c, jobs)
	if err != nil {
		return err
	}
	for _, v := range volumes {
		if v.AlsoOf != "" {
			fmt.Fprintf(streams.Err, "volume %s: kept, because job %s asks for a volume of this name too; delete it with 'nomad volume delete -type host %s'\n", v, v.AlsoOf, v.ID)
		}
	}
	for _, name := range unmade {
		fmt.Fprintf(streams.Err, "volume %s: not a dynamic host volume; its data stays on the node\n", name)
	}
	return rollout.PurgeVolumes(ctx, c, volumes, func(v rollout.OwnedVolume) {
		fmt.Fprintf(streams.Err, "volume %s: deleted\n", v)
	})
}
