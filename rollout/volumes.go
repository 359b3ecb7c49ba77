package rollout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// MissingVolume is a host volume that a job asks for and no node has on which
// the job may run.
type MissingVolume struct {
	Name      string
	JobID     string // the first job that asks for it
	Namespace string
	Region    string
	NodePool  string
	State     api.HostVolumeState // when it is there but not ready

	id          string // of the one that is pending
	readOnly    bool   // an empty one would be of no use
	access      api.HostVolumeAccessMode
	attachment  api.HostVolumeAttachmentMode
	datacenters []string          // patterns
	constraints []*api.Constraint // of the jobs
	nodes       map[string]bool   // by ID: where they may run; nil when nobody may look
	avoid       []*api.Constraint // keep it off other nodes, and those that take nothing now
}

func (m MissingVolume) String() string {
	if m.State != "" {
		return fmt.Sprintf("host volume %q of job %q is %s, not ready; look at `nomad volume status -type host`", m.Name, m.JobID, m.State)
	}
	if m.nowhere() {
		return fmt.Sprintf("job %q needs host volume %q, and no node of pool %s is in datacenters %s; look at `nomad node status`", m.JobID, m.Name, m.NodePool, strings.Join(m.datacenters, ", "))
	}
	if m.readOnly {
		return fmt.Sprintf("job %q reads host volume %q, which no node has where it may run; name its directory in a host_volume block of the clients' configuration", m.JobID, m.Name)
	}
	return fmt.Sprintf("job %q needs host volume %q, which no node has where it may run; create it with `drover deploy --create-volumes` or `nomad volume create`", m.JobID, m.Name)
}

// Creatable says that CreateVolumes may make it, or wait for it when somebody
// has just made it.
func (m MissingVolume) Creatable() bool {
	return m.State == api.HostVolumeStatePending || m.State == "" && !m.readOnly && !m.nowhere()
}

func (m MissingVolume) nowhere() bool { return m.nodes != nil && len(m.nodes) == 0 }

func (m MissingVolume) named(other MissingVolume) bool {
	return m.Name == other.Name && m.Namespace == other.Namespace && m.Region == other.Region
}

// narrower says that m may be on some of the nodes only on which other may be.
func (m MissingVolume) narrower(other MissingVolume) bool {
	for id := range m.nodes {
		if !other.nodes[id] {
			return false
		}
	}
	return len(m.nodes) < len(other.nodes)
}

// MissingVolumes lists the host volumes of the jobs that no node has which is
// in the datacenters and the node pool of the job, neither dynamic and ready
// (GET /v1/volumes?type=host, GET /v1/nodes) nor in its configuration
// (GET /v1/node/:id, asked only when something is missing). Constraints of
// the job are not looked at.
func MissingVolumes(ctx context.Context, c Clients, jobs []render.Job) ([]MissingVolume, error) {
	nodes := map[string][]*api.NodeListStub{} // by region
	hidden := map[string]error{}              // likewise, why they cannot be seen
	var wanted []MissingVolume
	for _, j := range jobs {
		for _, w := range volumesOf(j.Job) {
			here, there := nodes[w.Region]
			if !there {
				var err error
				here, _, err = c.Nomad.Nodes().List((&api.QueryOptions{Region: w.Region}).WithContext(ctx))
				if err != nil && !refused(err) {
					return nil, c.explain(fmt.Errorf("listing nodes: %w", err))
				}
				nodes[w.Region], hidden[w.Region] = here, err
			}
			w.among(here)
			i := slices.IndexFunc(wanted, func(m MissingVolume) bool { return m.named(w) && maps.Equal(m.nodes, w.nodes) })
			if i < 0 {
				wanted = append(wanted, w)
				continue
			}
			all := slices.Concat(wanted[i].constraints, w.constraints)
			if wanted[i].readOnly && !w.readOnly {
				wanted[i] = w // who writes says how it is made
			}
			wanted[i].constraints = all
		}
	}
	listed := map[place][]*api.HostVolumeStub{}
	static := map[string]map[string][]string{}
	var missing []MissingVolume
	for _, w := range wanted {
		at := place{w.Region, w.Namespace}
		if _, there := listed[at]; !there {
			list, _, err := c.Nomad.HostVolumes().List(nil, (&api.QueryOptions{Region: w.Region, Namespace: w.Namespace}).WithContext(ctx))
			if err != nil {
				return nil, c.explain(fmt.Errorf("listing host volumes: %w", err))
			}
			listed[at] = list
		}
		for _, v := range listed[at] {
			if v.Name == w.Name && w.on(v.NodeID) && w.State != api.HostVolumeStateReady {
				w.State, w.id = v.State, v.ID
			}
		}
		if w.State == api.HostVolumeStateReady {
			continue
		}
		if w.State == "" {
			if err := hidden[w.Region]; err != nil {
				return nil, c.explain(fmt.Errorf("listing nodes: %w", err))
			}
			if static[w.Region] == nil {
				var err error
				if static[w.Region], err = staticVolumes(ctx, c, w.Region, nodes[w.Region]); err != nil {
					return nil, err
				}
			}
			if slices.ContainsFunc(static[w.Region][w.Name], w.on) {
				continue
			}
		}
		missing = append(missing, w)
	}
	var out []MissingVolume
	for _, m := range missing {
		// One for those that may run on fewer nodes is there for the others, too.
		if !slices.ContainsFunc(missing, func(n MissingVolume) bool { return n.named(m) && !n.nowhere() && n.narrower(m) }) {
			out = append(out, m)
		}
	}
	return out, nil
}

func (m *MissingVolume) on(nodeID string) bool { return m.nodes == nil || m.nodes[nodeID] }

// among finds the nodes that may have the volume. For one that is made, Nomad
// looks at no more than the pool and the constraints.
func (m *MissingVolume) among(nodes []*api.NodeListStub) {
	if nodes == nil {
		return
	}
	m.nodes = map[string]bool{}
	datacenters, elsewhere := map[string]bool{}, false
	for _, n := range nodes {
		switch {
		case m.NodePool != api.NodePoolAll && m.NodePool != n.NodePool:
			continue
		case !inDatacenter(n, m.datacenters):
			elsewhere = true
			continue
		case n.Status != api.NodeStatusReady || n.SchedulingEligibility != api.NodeSchedulingEligible:
			m.avoid = append(m.avoid, api.NewConstraint("${node.unique.id}", "!=", n.ID))
		}
		m.nodes[n.ID], datacenters[regexp.QuoteMeta(n.Datacenter)] = true, true
	}
	if elsewhere {
		these := slices.Sorted(maps.Keys(datacenters))
		m.avoid = append(m.avoid, api.NewConstraint("${node.datacenter}", "regexp", "^("+strings.Join(these, "|")+")$"))
	}
}

func inDatacenter(n *api.NodeListStub, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		ok, err := path.Match(pattern, n.Datacenter)
		return err == nil && ok
	})
}

func volumesOf(job *api.Job) []MissingVolume {
	var out []MissingVolume
	for _, tg := range job.TaskGroups {
		constraints := slices.Concat(job.Constraints, tg.Constraints)
		for _, t := range tg.Tasks {
			constraints = append(constraints, t.Constraints...)
		}
		constraints = slices.DeleteFunc(constraints, func(c *api.Constraint) bool {
			return c.Operand == api.ConstraintDistinctHosts || c.Operand == api.ConstraintDistinctProperty
		})
		for _, name := range slices.Sorted(maps.Keys(tg.Volumes)) {
			v := tg.Volumes[name]
			if v.Type != "host" {
				continue
			}
			source := cmp.Or(v.Source, name)
			w := MissingVolume{
				Name: source, JobID: deref(job.ID, ""), Namespace: deref(job.Namespace, ""), Region: deref(job.Region, ""),
				NodePool:    cmp.Or(deref(job.NodePool, ""), api.NodePoolDefault),
				readOnly:    v.ReadOnly,
				access:      api.HostVolumeAccessMode(cmp.Or(v.AccessMode, string(api.HostVolumeAccessModeSingleNodeWriter))),
				attachment:  api.HostVolumeAttachmentMode(cmp.Or(v.AttachmentMode, string(api.HostVolumeAttachmentModeFilesystem))),
				datacenters: job.Datacenters,
				constraints: constraints,
			}
			if len(w.datacenters) == 0 {
				w.datacenters = []string{"*"}
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

// staticVolumes are the IDs of the nodes that have a volume in their
// configuration, by its name.
func staticVolumes(ctx context.Context, c Clients, region string, nodes []*api.NodeListStub) (map[string][]string, error) {
	names := make([][]string, len(nodes))
	err := each(len(nodes), 8, func(i int) error {
		node, _, err := c.Nomad.Nodes().Info(nodes[i].ID, (&api.QueryOptions{Region: region}).WithContext(ctx))
		if err != nil {
			return fmt.Errorf("reading node %s: %w", nodes[i].Name, err)
		}
		names[i] = slices.Collect(maps.Keys(node.HostVolumes))
		return nil
	})
	out := map[string][]string{}
	for i, list := range names {
		for _, n := range list {
			out[n] = append(out[n], nodes[i].ID)
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
		if !m.Creatable() {
			return errors.New(m.String())
		}
	}
	var ids []string
	var refused error
	for _, m := range missing {
		if m.id != "" {
			ids = append(ids, m.id)
			continue
		}
		v := &api.HostVolume{
			Name: m.Name, Namespace: m.Namespace, NodePool: m.NodePool, PluginID: "mkdir", Constraints: slices.Concat(m.constraints, m.avoid),
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
