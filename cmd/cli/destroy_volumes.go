package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
)

// printVolumes names the volumes that a purge of the data deletes, and those
// that it keeps.
func printVolumes(ctx context.Context, streams *IO, d *release.Deployer, p *release.Plan) error {
	jobs, err := p.WithData(ctx, d)
	if err != nil {
		return err
	}
	var stopping []rollout.Change
	for _, c := range p.Changes() {
		stopping = append(stopping, c.Change)
	}
	for _, t := range deploy.TargetNames(jobs) {
		volumes, _, err := rollout.Volumes(ctx, p.Clients()[t], deploy.JobsIn(jobs, t), slices.DeleteFunc(slices.Clone(stopping), func(c rollout.Change) bool { return c.Target != t }))
		if err != nil {
			return err
		}
		for _, v := range volumes {
			if v.AlsoOf == "" {
				fmt.Fprintf(streams.Err, "- volume %s\n", v)
			} else {
				keepsVolume(streams, v)
			}
		}
	}
	return nil
}

func keepsVolume(streams *IO, v rollout.OwnedVolume) {
	fmt.Fprintf(streams.Err, "volume %s: kept, because job %s asks for a volume of this name too; delete it with 'nomad volume delete -type host %s'\n", v, v.AlsoOf, v.ID)
}

// purgeVolumes deletes the dynamic host volumes that the jobs, which are gone,
// asked for, and says which stay and why.
func purgeVolumes(ctx context.Context, streams *IO, c rollout.Clients, jobs []render.Job) error {
	volumes, unmade, err := rollout.Volumes(ctx, c, jobs, nil)
	if err != nil {
		return err
	}
	for _, v := range volumes {
		if v.AlsoOf != "" {
			keepsVolume(streams, v)
		}
	}
	for _, name := range unmade {
		fmt.Fprintf(streams.Err, "volume %s: there is no dynamic host volume of this name; what a volume of a node's configuration holds stays\n", name)
	}
	return rollout.PurgeVolumes(ctx, c, volumes, func(v rollout.OwnedVolume) {
		fmt.Fprintf(streams.Err, "volume %s: deleted\n", v)
	})
}
