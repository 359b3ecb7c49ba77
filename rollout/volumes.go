package rollout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// MissingVolume is a host volume that an instance of a job asks for and that
// the node on which it may run does not have.
type MissingVolume struct {
	Name      string              `json:"name"`
	JobID     string              `json:"job_id"` // the first job that asks for it
	Namespace string              `json:"namespace,omitempty"`
	Region    string              `json:"region,omitempty"`
	NodePool  string              `json:"node_pool,omitempty"` // of the job
	State     api.HostVolumeState `json:"state,omitempty"`     // when it is there but not ready
	Node      string              `json:"node,omitempty"`      // the name of the node that has it, or that CreateVolumes gives it

	source       string // of the job's request: Name without the index of per_alloc
	group        string // see volumeGroup.key
	instance     string // "web[2]", "" of a group with one
	nodeID       string
	nodePool     string // of the node
	id           string // of a volume that is there
	problem      string // why it cannot be created, "" when it can
	capabilities []api.HostVolumeCapability
	constraints  []*api.Constraint
	datacenters  []string // patterns
}

// Problems of a volume that have a sentence of their own.
const (
	problemNowhere  = "nowhere"
	problemReadOnly = "read only"
)

func (m MissingVolume) String() string {
	job := fmt.Sprintf("job %q", m.JobID)
	if m.instance != "" {
		job += fmt.Sprintf(" (instance %s)", m.instance)
	}
	needs := fmt.Sprintf("%s needs host volume %q", job, m.Name)
	switch {
	case m.State == api.HostVolumeStateUnavailable && m.id == "":
		return fmt.Sprintf("%s, which is in the configuration of node %s, and that node is down; bring it back", needs, m.Node)
	case m.State == api.HostVolumeStateUnavailable:
		return fmt.Sprintf("%s, which is unavailable on node %s (volume %s); bring the node back, or look at `nomad volume status -type host %s`", needs, m.Node, m.id, m.id)
	case m.State != "":
		return fmt.Sprintf("%s, which is %s on node %s, not ready; look at `nomad volume status -type host %s`", needs, m.State, m.Node, m.id)
	case m.problem == problemNowhere:
		return fmt.Sprintf("%s, and no node of pool %s in datacenters %s satisfies its constraints and has its drivers; look at `nomad node status`", needs, m.NodePool, strings.Join(m.datacenters, ", "))
	case m.problem == problemReadOnly:
		return fmt.Sprintf("%s reads host volume %q, which no node has where it may run; name its directory in a host_volume block of the clients' configuration", job, m.Name)
	case m.problem != "":
		return needs + ", and " + m.problem
	}
	return fmt.Sprintf("%s, which no node has where it may run; create it with `drover deploy --create-volumes` (on node %s) or `nomad volume create`", needs, m.Node)
}

// Creatable reports whether CreateVolumes can make the volume, or wait for one
// that was just created.
func (m MissingVolume) Creatable() bool {
	return m.State == api.HostVolumeStatePending || m.State == "" && m.problem == ""
}

// AskedVolume is a host volume that a job asks for.
type AskedVolume struct {
	Name   string
	Source string // of the request: Name without the index of per_alloc
	JobID  string // the first job that asks for it
}

// AskedVolumes are the host volumes that jobs ask for, in the order of their
// names.
func AskedVolumes(jobs []render.Job) []AskedVolume {
	seen := map[string]bool{}
	var out []AskedVolume
	for _, j := range jobs {
		for _, g := range volumeGroups(j.Job) {
			for _, w := range g.wants {
				for i := range max(g.count, 1) {
					if name := w.name(i); !seen[name] {
						seen[name] = true
						out = append(out, AskedVolume{Name: name, Source: w.source, JobID: nomad.Deref(j.Job.ID)})
					}
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b AskedVolume) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// MissingVolumes lists the host volumes that instances of the jobs ask for and
// no node has on which they may run, neither dynamic and ready (GET
// /v1/volumes?type=host) nor in its configuration: see placeVolumes. It reads
// the nodes that have such a volume (GET /v1/nodes, /v1/node/:id) and, only
// when something is missing, the others. specs are the volume blocks of the
// stack and may be nil.
func MissingVolumes(ctx context.Context, c nomad.Clients, jobs []render.Job, specs []*stack.Volume) ([]MissingVolume, error) {
	groups := map[place][]*volumeGroup{}
	var places []place
	for _, j := range jobs {
		at := place{nomad.Deref(j.Job.Region), nomad.Deref(j.Job.Namespace)}
		found := volumeGroups(j.Job)
		if len(found) > 0 && groups[at] == nil {
			places = append(places, at)
		}
		groups[at] = append(groups[at], found...)
	}
	plugin := func(source string) string { return volumePlugin(volumeSpec(specs, source, source)) }
	nodes := map[string]*nodeReader{} // by region
	var out []MissingVolume
	for _, at := range places {
		r := nodes[at.region]
		if r == nil {
			r = &nodeReader{c: c, region: at.region}
			nodes[at.region] = r
		}
		missing, err := missingIn(ctx, c, at, groups[at], r, plugin)
		if err != nil {
			return nil, c.Explain(err)
		}
		out = append(out, missing...)
	}
	return out, nil
}

func missingIn(ctx context.Context, c nomad.Clients, at place, groups []*volumeGroup, r *nodeReader, plugin func(string) string) ([]MissingVolume, error) {
	list, _, err := c.Nomad.HostVolumes().List(nil, (&api.QueryOptions{Region: at.region, Namespace: at.namespace}).WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("cannot list host volumes: %w", err)
	}
	names := map[string]bool{}
	for _, g := range groups {
		for _, w := range g.wants {
			for i := range max(g.count, 1) {
				names[w.name(i)] = true
			}
		}
	}
	dynamic, on := hostVolumes{}, map[string]bool{}
	for _, v := range list {
		if names[v.Name] {
			dynamic.add(v.Name, v.NodeID, volumeState{id: v.ID, state: v.State})
			on[v.NodeID] = true
		}
	}
	if err := r.list(ctx); err != nil {
		return nil, err
	}
	if r.hidden != nil {
		// The token may not read nodes: constraints cannot be compared.
		if missing := placeVolumes(groups, unseenNodes(groups, on), dynamic, plugin); len(missing) > 0 {
			return nil, r.hidden
		}
		return nil, nil
	}
	if err := r.read(ctx, func(id string) bool { return on[id] }); err != nil {
		return nil, err
	}
	// Nomad calls a volume ready until its node registers again.
	for _, n := range r.nodes {
		for _, at := range dynamic {
			if v, there := at[n.id()]; there && n.stub.Status != api.NodeStatusReady {
				v.state = api.HostVolumeStateUnavailable
				at[n.id()] = v
			}
		}
	}
	if known := r.known(); !sharesSticky(groups, known) && len(placeVolumes(groups, known, dynamic, plugin)) == 0 {
		return nil, nil
	}
	if err := r.read(ctx, func(string) bool { return true }); err != nil {
		return nil, err
	}
	for _, n := range r.known() {
		state := api.HostVolumeStateReady
		if n.stub.Status != api.NodeStatusReady {
			state = api.HostVolumeStateUnavailable
		}
		for name, v := range n.node.HostVolumes {
			// A dynamic volume that was deleted stays in this list for a while.
			if v.ID == "" {
				dynamic.add(name, n.id(), volumeState{state: state})
			}
		}
	}
	return placeVolumes(groups, r.known(), dynamic, plugin), nil
}

// sharesSticky reports whether a group has more instances with a sticky volume
// than there are nodes, so that placeVolumes lets them share one.
func sharesSticky(groups []*volumeGroup, nodes []*nodeFacts) bool {
	return slices.ContainsFunc(groups, func(g *volumeGroup) bool { return g.sticky() && g.count > len(nodes) })
}

// unseenNodes stand for nodes that have one of the volumes: of each only the ID
// is known.
func unseenNodes(groups []*volumeGroup, on map[string]bool) []*nodeFacts {
	var out []*nodeFacts
	for _, id := range slices.Sorted(maps.Keys(on)) {
		out = append(out, &nodeFacts{stub: &api.NodeListStub{ID: id, Name: id}})
	}
	for _, g := range groups {
		g.pool, g.datacenters = api.NodePoolAll, []string{"*"}
	}
	return out
}

// nodeReader reads the nodes of a region, each at most once.
type nodeReader struct {
	c      nomad.Clients
	region string
	nodes  []*nodeFacts
	hidden error // why they cannot be listed
	listed bool
}

func (r *nodeReader) list(ctx context.Context) error {
	if r.listed {
		return nil
	}
	stubs, _, err := r.c.Nomad.Nodes().List((&api.QueryOptions{Region: r.region}).WithContext(ctx))
	if err != nil {
		err = fmt.Errorf("cannot list nodes: %w", err)
		if !nomad.IsRefused(err) {
			return err
		}
		r.hidden = err
	}
	for _, s := range stubs {
		r.nodes = append(r.nodes, &nodeFacts{stub: s})
	}
	r.listed = true
	return nil
}

// read reads the nodes that are wanted (GET /v1/node/:id).
func (r *nodeReader) read(ctx context.Context, wanted func(id string) bool) error {
	return parallel.Each(len(r.nodes), 8, func(i int) error {
		n := r.nodes[i]
		if n.node != nil || !wanted(n.id()) {
			return nil
		}
		node, _, err := r.c.Nomad.Nodes().Info(n.id(), (&api.QueryOptions{Region: r.region}).WithContext(ctx))
		if nomad.IsNotFound(err) {
			node, err = &api.Node{}, nil // collected meanwhile
		}
		if err != nil {
			return fmt.Errorf("cannot read node %s: %w", n.stub.Name, err)
		}
		n.node = node
		return nil
	})
}

func (r *nodeReader) known() []*nodeFacts {
	return slices.DeleteFunc(slices.Clone(r.nodes), func(n *nodeFacts) bool { return n.node == nil })
}

// volumeSpec is the volume block of a stack for a volume: of its name or, with
// per_alloc, of its source.
func volumeSpec(specs []*stack.Volume, name, source string) *stack.Volume {
	for _, want := range []string{name, source} {
		for _, s := range specs {
			if s.Name == want {
				return s
			}
		}
	}
	return nil
}

func volumePlugin(spec *stack.Volume) string {
	if spec == nil {
		return "mkdir"
	}
	return cmp.Or(spec.PluginID, "mkdir")
}

// CreateVolumes makes the missing volumes as dynamic host volumes
// (PUT /v1/volume/host/create), with the plugin and parameters that the
// stack gives for a name, and waits until all are ready: a node says so of
// those that it has made every few seconds. done is called for each that is
// there, also when another could not be made, and may be nil.
func CreateVolumes(ctx context.Context, c nomad.Clients, missing []MissingVolume, specs []*stack.Volume, done func(name string)) error {
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
		spec := volumeSpec(specs, m.Name, m.source)
		v := &api.HostVolume{
			Name: m.Name, Namespace: m.Namespace, NodePool: m.nodePool, PluginID: volumePlugin(spec),
			// Nomad compares the constraints of the job once more.
			Constraints: append(slices.Clone(m.constraints), api.NewConstraint("${node.unique.id}", "=", m.nodeID)),
		}
		for _, c := range m.capabilities {
			v.RequestedCapabilities = append(v.RequestedCapabilities, &c)
		}
		if spec != nil {
			v.Parameters = spec.Parameters
		}
		w := (&api.WriteOptions{Region: m.Region, Namespace: m.Namespace}).WithContext(ctx)
		resp, _, err := c.Nomad.HostVolumes().Create(&api.HostVolumeCreateRequest{Volume: v}, w)
		if err != nil {
			refused = fmt.Errorf("cannot create host volume %q for job %q on node %s: %w", m.Name, m.JobID, m.Node, err)
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

func volumeReady(ctx context.Context, c nomad.Clients, m MissingVolume, id string) error {
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
