package rollout

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
)

// LostVolume is a dynamic host volume that keeps an instance from any node:
// its own node is lost.
type LostVolume struct {
	JobID     string `json:"job_id"`
	Namespace string `json:"namespace,omitempty"`
	Region    string `json:"region,omitempty"`
	Group     string `json:"group,omitempty"`
	Volume    string `json:"volume"` // its name
	VolumeID  string `json:"volume_id"`
	Node      string `json:"node"`        // its name
	NodeState string `json:"node_status"` // Nomad's, "gone" of one that was collected
	// AllocID and ClaimID are set where an instance claims the volume (sticky):
	// Nomad places it nowhere else.
	AllocID string `json:"alloc_id,omitempty"`
	ClaimID string `json:"claim_id,omitempty"`
}

func (l LostVolume) String() string {
	at := fmt.Sprintf("host volume %s (%.8s) on node %s, which is %s", l.Volume, l.VolumeID, l.Node, l.NodeState)
	if l.ClaimID == "" {
		return "needs " + at
	}
	return fmt.Sprintf("allocation %.8s claims %s (claim %.8s)", l.AllocID, at, l.ClaimID)
}

// Recreate returns the commands that delete the volume and create it empty on another
// node.
func (l LostVolume) Recreate() string {
	at := ""
	if l.Namespace != "" && l.Namespace != api.DefaultNamespace {
		at += " -namespace " + l.Namespace
	}
	if l.Region != "" {
		at += " -region " + l.Region
	}
	return fmt.Sprintf("Bring node %s back or, to give up the data on it, run 'nomad volume delete%s -type host -force %s' and deploy with --create-volumes.", l.Node, at, l.VolumeID)
}

// LostVolumes lists the volumes of the jobs whose node does not run: those that
// an instance claims (GET /v1/volumes/claims) and those without which an
// instance has none (see MissingVolumes).
func LostVolumes(ctx context.Context, c nomad.Clients, jobs []render.Job) ([]LostVolume, error) {
	jobs = slices.DeleteFunc(slices.Clone(jobs), func(j render.Job) bool { return len(volumeGroups(j.Job)) == 0 })
	if len(jobs) == 0 {
		return nil, nil
	}
	missing, err := MissingVolumes(ctx, c, jobs, nil)
	if err != nil {
		return nil, err
	}
	places := map[place][]string{}
	for _, j := range jobs {
		at := place{nomad.Deref(j.Job.Region), nomad.Deref(j.Job.Namespace)}
		places[at] = append(places[at], nomad.Deref(j.Job.ID))
	}
	var out []LostVolume
	for at, ids := range places {
		q := func() *api.QueryOptions {
			return (&api.QueryOptions{Region: at.region, Namespace: at.namespace}).WithContext(ctx)
		}
		nodes := &nodeReader{c: c, region: at.region}
		if err := nodes.list(ctx); err != nil {
			return nil, c.Explain(err)
		}
		if nodes.hidden != nil {
			return nil, c.Explain(nodes.hidden)
		}
		list, _, err := c.Nomad.HostVolumes().List(nil, q())
		if err != nil {
			return nil, c.Explain(fmt.Errorf("cannot list host volumes: %w", err))
		}
		lost := map[string]LostVolume{} // by volume ID
		for _, v := range list {
			l := LostVolume{Namespace: at.namespace, Region: at.region, Volume: v.Name, VolumeID: v.ID, Node: v.NodeID, NodeState: "gone"}
			for _, n := range nodes.nodes {
				if n.id() == v.NodeID {
					l.Node, l.NodeState = n.stub.Name, n.stub.Status
				}
			}
			if l.NodeState != api.NodeStatusReady {
				lost[v.ID] = l
			}
		}
		if len(lost) == 0 {
			continue
		}
		claims, _, err := c.Nomad.TaskGroupHostVolumeClaims().List(nil, q())
		if err != nil {
			return nil, c.Explain(fmt.Errorf("cannot list the claims on host volumes: %w", err))
		}
		claimed := map[string]bool{}
		for _, claim := range claims {
			l, ok := lost[claim.VolumeID]
			if !ok || !slices.Contains(ids, claim.JobID) {
				continue
			}
			l.JobID, l.Group, l.AllocID, l.ClaimID = claim.JobID, claim.TaskGroupName, claim.AllocID, claim.ID
			out, claimed[claim.VolumeID] = append(out, l), true
		}
		for _, m := range missing {
			if l, ok := lost[m.id]; ok && !claimed[m.id] && m.Region == at.region && m.Namespace == at.namespace {
				l.JobID = m.JobID
				_, l.Group, _ = strings.Cut(m.group, "\x00")
				out = append(out, l)
			}
		}
	}
	slices.SortFunc(out, func(a, b LostVolume) int {
		return slices.Compare([]string{a.JobID, a.Group, a.Volume, a.Node}, []string{b.JobID, b.Group, b.Volume, b.Node})
	})
	return out, nil
}

// lostVolumes adds to the services that are not healthy the volumes that keep
// them from it. It leaves out volumes that the token may not read.
func lostVolumes(ctx context.Context, c nomad.Clients, jobs []render.Job, out []ServiceStatus) {
	var doubtful []render.Job
	for i, st := range out {
		if !st.OK && st.Status != StatusMissing && st.Status != "stopped" {
			doubtful = append(doubtful, jobs[i])
		}
	}
	lost, err := LostVolumes(ctx, c, doubtful)
	if err != nil {
		return
	}
	for i := range out {
		for _, l := range lost {
			if !out[i].OK && l.JobID == out[i].JobID && l.Namespace == nomad.Deref(jobs[i].Job.Namespace) && l.Region == nomad.Deref(jobs[i].Job.Region) {
				out[i].Lost = append(out[i].Lost, l)
				out[i].Detail = strings.TrimPrefix(out[i].Detail+"; "+l.String(), "; ")
			}
		}
	}
}
