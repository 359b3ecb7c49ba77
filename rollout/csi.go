package rollout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
)

// csiRequest is a CSI volume that a job mounts.
type csiRequest struct {
	place
	id       string
	jobID    string
	readOnly bool
}

func csiRequests(jobs []render.Job) []csiRequest {
	var out []csiRequest
	for _, j := range jobs {
		for _, tg := range j.Job.TaskGroups {
			for _, name := range slices.Sorted(maps.Keys(tg.Volumes)) {
				v := tg.Volumes[name]
				if v.Type != "csi" {
					continue
				}
				r := csiRequest{
					place: place{nomad.Deref(j.Job.Region), nomad.Deref(j.Job.Namespace)},
					id:    cmp.Or(v.Source, name), jobID: nomad.Deref(j.Job.ID), readOnly: v.ReadOnly,
				}
				if !v.PerAlloc {
					out = append(out, r)
					continue
				}
				source := r.id
				for i := range nomad.DerefOr(tg.Count, 1) {
					r.id = fmt.Sprintf("%s[%d]", source, i)
					out = append(out, r)
				}
			}
		}
	}
	return out
}

// CSIProblem is a CSI volume that a job cannot mount now.
type CSIProblem struct {
	Volume  string
	JobID   string
	Problem string // "which is not in namespace default; create it with …"
}

func (p *CSIProblem) Error() string {
	return fmt.Sprintf("job %q needs CSI volume %q, %s", p.JobID, p.Volume, p.Problem)
}

// CheckCSIVolumes returns an error with each of CSIProblems.
func CheckCSIVolumes(ctx context.Context, c nomad.Clients, jobs []render.Job) error {
	problems, err := CSIProblems(ctx, c, jobs)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range problems {
		errs = append(errs, p)
	}
	return errors.Join(errs...)
}

// CSIProblems lists the CSI volumes of the jobs that Nomad would not let them
// mount: one that is not in the job's namespace, whose plugin is not healthy, or
// whose only claim a job has that is not among jobs (GET /v1/volumes?type=csi, and
// GET /v1/volume/csi/:id for one that is claimed). Nothing is said of volumes that
// the token may not look at.
func CSIProblems(ctx context.Context, c nomad.Clients, jobs []render.Job) ([]*CSIProblem, error) {
	var out []*CSIProblem
	listed := map[place]map[string]*api.CSIVolumeListStub{}
	for _, r := range csiRequests(jobs) {
		if _, done := listed[r.place]; !done {
			list, _, err := c.Nomad.CSIVolumes().List((&api.QueryOptions{Region: r.region, Namespace: r.namespace}).WithContext(ctx))
			switch {
			case nomad.IsRefused(err):
				listed[r.place] = nil
			case err != nil:
				return nil, c.Explain(fmt.Errorf("listing CSI volumes: %w", err))
			default:
				listed[r.place] = map[string]*api.CSIVolumeListStub{}
			}
			for _, v := range list {
				listed[r.place][v.ID] = v
			}
		}
		if listed[r.place] == nil {
			continue
		}
		problem, err := csiProblem(ctx, c, r, listed[r.place][r.id], jobs)
		switch {
		case err != nil:
			return nil, c.Explain(err)
		case problem != "":
			out = append(out, &CSIProblem{Volume: r.id, JobID: r.jobID, Problem: problem})
		}
	}
	return out, nil
}

// csiProblem says why r cannot be mounted, "" when it can.
func csiProblem(ctx context.Context, c nomad.Clients, r csiRequest, v *api.CSIVolumeListStub, jobs []render.Job) (string, error) {
	switch {
	case v == nil:
		return fmt.Sprintf("which is not in namespace %s; create it with `nomad volume create`, or register it with `nomad volume register`",
			c.Defaults.JobID(r.region, r.namespace, r.jobID).Namespace), nil
	case !v.Schedulable:
		return fmt.Sprintf("which cannot be mounted now: its plugin %s is healthy on %d of %d nodes; look at `nomad plugin status %s`", v.PluginID, v.NodesHealthy, v.NodesExpected, v.PluginID), nil
	case !v.ResourceExhausted.IsZero():
		return fmt.Sprintf("which its plugin %s cannot attach to another node; look at `nomad volume status %s`", v.PluginID, v.ID), nil
	case !r.readOnly && (v.AccessMode == api.CSIVolumeAccessModeSingleNodeReader || v.AccessMode == api.CSIVolumeAccessModeMultiNodeReader):
		return fmt.Sprintf("which is claimed as %s; mount it with read_only = true", v.AccessMode), nil
	case !csiLimited(v, r.readOnly):
		return "", nil
	}
	full, _, err := c.Nomad.CSIVolumes().Info(v.ID, (&api.QueryOptions{Region: r.region, Namespace: r.namespace}).WithContext(ctx))
	switch {
	case nomad.IsRefused(err) || nomad.IsNotFound(err):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("reading CSI volume %q: %w", v.ID, err)
	}
	for _, a := range full.Allocations {
		_, writes := full.WriteAllocs[a.ID]
		ended := a.ClientStatus != api.AllocClientStatusRunning && a.ClientStatus != api.AllocClientStatusPending
		among := slices.ContainsFunc(jobs, func(j render.Job) bool { return nomad.Deref(j.Job.ID) == a.JobID })
		if (writes || r.readOnly) && !ended && !among {
			return fmt.Sprintf("which allocation %.8s of job %q has claimed as %s; stop that job, or look at `nomad volume status %s`", a.ID, a.JobID, v.AccessMode, v.ID), nil
		}
	}
	return "", nil
}

// csiLimited reports whether a claim on the volume leaves none for another job.
func csiLimited(v *api.CSIVolumeListStub, readOnly bool) bool {
	switch v.AccessMode {
	case api.CSIVolumeAccessModeSingleNodeWriter:
		return v.CurrentWriters > 0 || readOnly && v.CurrentReaders > 0
	case api.CSIVolumeAccessModeMultiNodeSingleWriter:
		return !readOnly && v.CurrentWriters > 0
	case api.CSIVolumeAccessModeSingleNodeReader:
		return readOnly && v.CurrentReaders > 0
	}
	return false
}
