package rollout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// MissingVolume is a host volume that a job asks for and no node has.
type MissingVolume struct {
	Name      string
	JobID     string // the first job that asks for it
	Namespace string
	Region    string
	NodePool  string
	State     api.HostVolumeState // when it is there but not ready

	readOnly   bool // an empty one would be of no use
	access     api.HostVolumeAccessMode
	attachment api.HostVolumeAttachmentMode
}

func (m MissingVolume) String() string {
	if m.State != "" {
		return fmt.Sprintf("host volume %q of job %q is %s, not ready; look at `nomad volume status -type host`", m.Name, m.JobID, m.State)
	}
	if m.readOnly {
		return fmt.Sprintf("job %q reads host volume %q, which no node has; name its directory in a host_volume block of the clients' configuration", m.JobID, m.Name)
	}
	return fmt.Sprintf("job %q needs host volume %q, which no node has; create it with `drover deploy --create-volumes` or `nomad volume create`", m.JobID, m.Name)
}

// MissingVolumes lists the host volumes of the jobs that are neither dynamic
// and ready (GET /v1/volumes?type=host) nor in a node's configuration
// (GET /v1/node/:id, asked only when something is missing).
func MissingVolumes(ctx context.Context, c Clients, jobs []render.Job) ([]MissingVolume, error) {
	var wanted []MissingVolume
	seen := map[MissingVolume]int{}
	for _, j := range jobs {
		for _, w := range volumesOf(j.Job) {
			key := MissingVolume{Name: w.Name, Namespace: w.Namespace, Region: w.Region}
			at, there := seen[key]
			if !there {
				seen[key] = len(wanted)
				wanted = append(wanted, w)
			} else if wanted[at].readOnly && !w.readOnly {
				wanted[at] = w // who writes says how it is made
			}
		}
	}
	listed := map[place]map[string]api.HostVolumeState{}
	static := map[string]map[string]bool{}
	var missing []MissingVolume
	for _, w := range wanted {
		at := place{w.Region, w.Namespace}
		if listed[at] == nil {
			list, _, err := c.Nomad.HostVolumes().List(nil, (&api.QueryOptions{Region: w.Region, Namespace: w.Namespace}).WithContext(ctx))
			if err != nil {
				return nil, c.explain(fmt.Errorf("listing host volumes: %w", err))
			}
			listed[at] = map[string]api.HostVolumeState{}
			for _, v := range list {
				if listed[at][v.Name] != api.HostVolumeStateReady {
					listed[at][v.Name] = v.State
				}
			}
		}
		state, there := listed[at][w.Name]
		if state == api.HostVolumeStateReady {
			continue
		}
		if !there {
			if static[w.Region] == nil {
				var err error
				if static[w.Region], err = staticVolumes(ctx, c, w.Region); err != nil {
					return nil, err
				}
			}
			if static[w.Region][w.Name] {
				continue
			}
		}
		w.State = state
		missing = append(missing, w)
	}
	return missing, nil
}

func volumesOf(job *api.Job) []MissingVolume {
	var out []MissingVolume
	for _, tg := range job.TaskGroups {
		for _, name := range slices.Sorted(maps.Keys(tg.Volumes)) {
			v := tg.Volumes[name]
			if v.Type != "host" {
				continue
			}
			source := cmp.Or(v.Source, name)
			w := MissingVolume{
				Name: source, JobID: deref(job.ID, ""), Namespace: deref(job.Namespace, ""), Region: deref(job.Region, ""),
				NodePool:   deref(job.NodePool, ""),
				readOnly:   v.ReadOnly,
				access:     api.HostVolumeAccessMode(cmp.Or(v.AccessMode, string(api.HostVolumeAccessModeSingleNodeWriter))),
				attachment: api.HostVolumeAttachmentMode(cmp.Or(v.AttachmentMode, string(api.HostVolumeAttachmentModeFilesystem))),
			}
			if !v.PerAlloc {
				out = append(out, w)
				continue
			}
			for i := range deref(tg.Count, 1) {
				w.Name = fmt.Sprintf("%s[%d]", source, i)
				out = append(out, w)
			}
		}
	}
	return out
}

func staticVolumes(ctx context.Context, c Clients, region string) (map[string]bool, error) {
	q := (&api.QueryOptions{Region: region}).WithContext(ctx)
	nodes, _, err := c.Nomad.Nodes().List(q)
	if err != nil {
		return nil, fmt.Errorf("listing nodes: %w", err)
	}
	names := make([][]string, len(nodes))
	err = each(len(nodes), 8, func(i int) error {
		node, _, err := c.Nomad.Nodes().Info(nodes[i].ID, q)
		if err != nil {
			return fmt.Errorf("reading node %s: %w", nodes[i].Name, err)
		}
		for name := range node.HostVolumes {
			names[i] = append(names[i], name)
		}
		return nil
	})
	out := map[string]bool{}
	for _, list := range names {
		for _, n := range list {
			out[n] = true
		}
	}
	return out, err
}

// CreateVolumes makes the missing volumes as dynamic host volumes
// (PUT /v1/volume/host/create), with the plugin and parameters that the
// stack gives for a name, and waits until all are ready: a node says so of
// those that it has made every few seconds. done is called for each that is
// there, also when another could not be made, and may be nil.
func CreateVolumes(ctx context.Context, c Clients, missing []MissingVolume, specs []*stack.Volume, done func(name string)) error {
	byName := map[string]*stack.Volume{}
	for _, v := range specs {
		byName[v.Name] = v
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("not ready within 2 minutes"))
	defer cancel()
	for _, m := range missing {
		if m.State != "" || m.readOnly {
			return errors.New(m.String())
		}
	}
	var ids []string
	var refused error
	for _, m := range missing {
		v := &api.HostVolume{
			Name: m.Name, Namespace: m.Namespace, NodePool: m.NodePool, PluginID: "mkdir",
			RequestedCapabilities: []*api.HostVolumeCapability{{AccessMode: m.access, AttachmentMode: m.attachment}},
		}
		if spec := byName[m.Name]; spec != nil {
			v.PluginID, v.Parameters = cmp.Or(spec.PluginID, v.PluginID), spec.Parameters
		}
		w := (&api.WriteOptions{Region: m.Region, Namespace: m.Namespace}).WithContext(ctx)
		resp, _, err := c.Nomad.HostVolumes().Create(&api.HostVolumeCreateRequest{Volume: v}, w)
		if err != nil {
			refused = fmt.Errorf("creating host volume %q for job %q: %w", m.Name, m.JobID, err)
			break
		}
		ids = append(ids, resp.Volume.ID)
	}
	for i, id := range ids {
		if err := volumeReady(ctx, c, missing[i], id); err != nil {
			return errors.Join(refused, err)
		}
		if done != nil {
			done(missing[i].Name)
		}
	}
	return refused
}

func volumeReady(ctx context.Context, c Clients, m MissingVolume, id string) error {
	var index uint64
	for {
		q := (&api.QueryOptions{Region: m.Region, Namespace: m.Namespace, WaitIndex: index, WaitTime: time.Minute}).WithContext(ctx)
		v, meta, err := c.Nomad.HostVolumes().Get(id, q)
		if err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return fmt.Errorf("waiting for host volume %q: %w", m.Name, err)
		}
		switch v.State {
		case api.HostVolumeStateReady:
			return nil
		case api.HostVolumeStateUnavailable:
			return fmt.Errorf("host volume %q was created and is unavailable; look at `nomad volume status -type host %s`", m.Name, id)
		}
		index = meta.LastIndex
	}
}
