package rollout

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
)

// volumeState is a host volume of one node.
type volumeState struct {
	id     string              // "" for one in the node's configuration
	state  api.HostVolumeState // ready for one in the node's configuration
	chosen bool                // it is to be created
}

// hostVolumes are host volumes by name and node ID.
type hostVolumes map[string]map[string]volumeState

func (h hostVolumes) add(name, node string, v volumeState) {
	if h[name] == nil {
		h[name] = map[string]volumeState{}
	}
	h[name][node] = v
}

// volumeWant is a host volume that a group asks for.
type volumeWant struct {
	source     string
	perAlloc   bool
	sticky     bool
	readOnly   bool
	capability api.HostVolumeCapability
}

// name is what the volume of the given instance of the group is called.
func (w volumeWant) name(instance int) string {
	if w.perAlloc {
		return fmt.Sprintf("%s[%d]", w.source, instance)
	}
	return w.source
}

// volumeGroup is a task group that asks for host volumes.
type volumeGroup struct {
	job         *api.Job
	group       *api.TaskGroup
	wants       []volumeWant // by the names that the group gives them
	count       int
	perNode     bool // an instance on every node
	pool        string
	datacenters []string
	constraints []*api.Constraint
	limits      []volumeLimit
}

// volumeLimit is a distinct_hosts or distinct_property constraint.
type volumeLimit struct {
	target string // as of a constraint
	most   int    // instances with the same value
	ofJob  bool   // the instances of all groups count
}

// volumeGroups returns the groups of a job that ask for host volumes.
func volumeGroups(job *api.Job) []*volumeGroup {
	var out []*volumeGroup
	kind := nomad.DerefOr(job.Type, api.JobTypeService)
	for _, tg := range job.TaskGroups {
		g := &volumeGroup{
			job: job, group: tg, count: nomad.DerefOr(tg.Count, 1), perNode: kind == api.JobTypeSystem || kind == api.JobTypeSysbatch,
			pool: cmp.Or(nomad.Deref(job.NodePool), api.NodePoolDefault), datacenters: job.Datacenters,
		}
		if len(g.datacenters) == 0 {
			g.datacenters = []string{"*"}
		}
		for _, name := range slices.Sorted(maps.Keys(tg.Volumes)) {
			v := tg.Volumes[name]
			if v.Type != "host" {
				continue
			}
			mode := api.HostVolumeAccessModeSingleNodeWriter
			if v.ReadOnly {
				mode = api.HostVolumeAccessModeSingleNodeReader
			}
			g.wants = append(g.wants, volumeWant{
				source: cmp.Or(v.Source, name), perAlloc: v.PerAlloc, sticky: v.Sticky, readOnly: v.ReadOnly,
				capability: api.HostVolumeCapability{
					AccessMode:     api.HostVolumeAccessMode(cmp.Or(v.AccessMode, string(mode))),
					AttachmentMode: api.HostVolumeAttachmentMode(cmp.Or(v.AttachmentMode, string(api.HostVolumeAttachmentModeFilesystem))),
				},
			})
		}
		if len(g.wants) == 0 {
			continue
		}
		add := func(constraints []*api.Constraint, ofJob bool) {
			for _, c := range constraints {
				switch c.Operand {
				case api.ConstraintDistinctHosts:
					if on, err := strconv.ParseBool(cmp.Or(c.RTarget, "true")); err == nil && on {
						g.limits = append(g.limits, volumeLimit{"${node.unique.id}", 1, ofJob})
					}
				case api.ConstraintDistinctProperty:
					if n, err := strconv.Atoi(cmp.Or(c.RTarget, "1")); err == nil {
						g.limits = append(g.limits, volumeLimit{c.LTarget, n, ofJob})
					}
				default:
					g.constraints = append(g.constraints, c)
				}
			}
		}
		add(job.Constraints, true)
		add(tg.Constraints, false)
		for _, t := range tg.Tasks {
			add(t.Constraints, false)
		}
		out = append(out, g)
	}
	return out
}

// inPlace reports whether a node is in the node pool and the datacenters of
// the group.
func (g *volumeGroup) inPlace(n *nodeFacts) bool {
	return (g.pool == api.NodePoolAll || g.pool == n.stub.NodePool) && nomad.InDatacenters(n.stub, g.datacenters)
}

// allows reports whether Nomad may place an instance of the group on a node,
// whatever else runs there.
func (g *volumeGroup) allows(n *nodeFacts) bool {
	if !g.inPlace(n) || n.node != nil && !n.satisfies(g.constraints) {
		return false
	}
	for _, t := range g.group.Tasks {
		if d := n.stub.Drivers[t.Driver]; len(n.stub.Drivers) > 0 && (d == nil || !d.Healthy) && n.stub.Status == api.NodeStatusReady {
			return false
		}
	}
	return true
}

// exclusive reports whether no two instances share a volume that is not
// per_alloc: only one may write it.
func (g *volumeGroup) exclusive() bool {
	return slices.ContainsFunc(g.wants, func(w volumeWant) bool {
		return !w.perAlloc && !w.readOnly && w.capability.AccessMode == api.HostVolumeAccessModeSingleNodeSingleWriter
	})
}

// sticky reports whether each instance keeps the volume that it got first.
func (g *volumeGroup) sticky() bool {
	return slices.ContainsFunc(g.wants, func(w volumeWant) bool { return w.sticky && !w.perAlloc })
}

// volumePlacer chooses the nodes of host volumes, in one region and namespace.
type volumePlacer struct {
	nodes  []*nodeFacts // by name
	have   hostVolumes
	plugin func(source string) string

	writers map[string]bool                       // names that some group writes
	modes   map[string][]api.HostVolumeCapability // in which groups ask for a name
	used    map[string]map[string]int             // instances by value of a target, of a job or group and target
	missing []MissingVolume
}

// placeVolumes returns the volumes that instances of the groups miss, each with
// the node on which CreateVolumes makes it.
//
// Each instance gets a node that has, or can be given, all volumes of its
// group, within the group's constraints, distinct_hosts and distinct_property.
// A volume that exists where the group may run is never made a second time,
// unless another instance has it. New volumes follow the spread blocks and go
// where the fewest are.
func placeVolumes(groups []*volumeGroup, nodes []*nodeFacts, have hostVolumes, plugin func(source string) string) []MissingVolume {
	p := &volumePlacer{nodes: slices.Clone(nodes), have: hostVolumes{}, plugin: plugin, writers: map[string]bool{}, modes: map[string][]api.HostVolumeCapability{}, used: map[string]map[string]int{}}
	slices.SortStableFunc(p.nodes, func(a, b *nodeFacts) int { return cmp.Compare(a.stub.Name, b.stub.Name) })
	for name, on := range have {
		p.have[name] = maps.Clone(on)
	}
	candidates := map[*volumeGroup][]*nodeFacts{}
	position := map[string]int{}
	for _, g := range groups {
		position[g.key()] = len(position)
		for _, n := range p.nodes {
			if g.allows(n) {
				candidates[g] = append(candidates[g], n)
			}
		}
		for _, w := range g.wants {
			for i := range max(g.count, 1) {
				name := w.name(i)
				p.writers[name] = p.writers[name] || !w.readOnly
				if !slices.Contains(p.modes[name], w.capability) {
					p.modes[name] = append(p.modes[name], w.capability)
				}
			}
		}
	}
	// Groups with few candidate nodes are placed first, for others that share the volume.
	ordered := slices.Clone(groups)
	slices.SortStableFunc(ordered, func(a, b *volumeGroup) int { return len(candidates[a]) - len(candidates[b]) })
	for _, g := range ordered {
		p.place(g, candidates[g])
	}
	slices.SortStableFunc(p.missing, func(a, b MissingVolume) int { return position[a.group] - position[b.group] })
	return p.missing
}

func (g *volumeGroup) key() string { return nomad.Deref(g.job.ID) + "\x00" + nomad.Deref(g.group.Name) }

func (p *volumePlacer) place(g *volumeGroup, candidates []*nodeFacts) {
	if g.perNode {
		p.placeOnEach(g, candidates)
		return
	}
	own := g.exclusive() || g.sticky()
	taken := map[string]bool{} // nodes with an instance
	assigned := make([]bool, g.count)
	assign := func(i int, n *nodeFacts) {
		assigned[i], taken[n.id()] = true, true
		p.use(g, n)
		for _, w := range g.wants {
			name := w.name(i)
			v, there := p.have[name][n.id()]
			switch {
			case !there:
				p.create(g, w, i, n)
			case !v.chosen && v.state != api.HostVolumeStateReady:
				p.miss(g, w, i, func(m *MissingVolume) { m.State, m.id, m.nodeID, m.Node = v.state, v.id, n.id(), n.stub.Name })
			}
		}
	}
	// First what is there: ready, then on its way, then on a node that is lost.
	for _, states := range [][]api.HostVolumeState{
		{api.HostVolumeStateReady},
		{api.HostVolumeStateReady, api.HostVolumeStatePending},
		{api.HostVolumeStateReady, api.HostVolumeStatePending, api.HostVolumeStateUnavailable},
	} {
		for i := range assigned {
			if assigned[i] {
				continue
			}
			has := func(n *nodeFacts) bool {
				return !(own && taken[n.id()]) && p.fits(g, n) && !slices.ContainsFunc(g.wants, func(w volumeWant) bool {
					v, there := p.have[w.name(i)][n.id()]
					return !there || !slices.Contains(states, v.state)
				})
			}
			if n := p.best(g, candidates, has); n != nil {
				assign(i, n)
			}
		}
	}
	for i := range assigned {
		if assigned[i] {
			continue
		}
		shared := func(n *nodeFacts) bool {
			return p.fits(g, n) && !slices.ContainsFunc(g.wants, func(w volumeWant) bool { return !p.have[w.name(i)][n.id()].chosen })
		}
		if n := p.best(g, candidates, shared); n != nil && !own {
			assign(i, n)
			continue
		}
		can := func(n *nodeFacts) bool {
			return !(own && taken[n.id()]) && p.fits(g, n) && !slices.ContainsFunc(g.wants, func(w volumeWant) bool { return !p.creatable(g, w, i, n, candidates, taken) })
		}
		n := p.best(g, candidates, can)
		switch {
		case n != nil:
			assign(i, n)
		case g.sticky() && !g.exclusive() && len(g.limits) == 0 && len(taken) > 0:
			// More instances than nodes: Nomad lets them share a volume.
			assigned[i] = true
		default:
			p.explain(g, i, candidates, taken)
			return
		}
	}
}

// placeOnEach is place for a job with an instance on every node: a volume that
// is on some node says where the job is to run; where none is, all get one.
func (p *volumePlacer) placeOnEach(g *volumeGroup, candidates []*nodeFacts) {
	var pending, free []*nodeFacts
	for _, n := range candidates {
		ready, there, can := true, true, true
		for _, w := range g.wants {
			v, ok := p.have[w.name(0)][n.id()]
			ready = ready && ok && v.state == api.HostVolumeStateReady
			there = there && ok
			can = can && (ok || p.creatable(g, w, 0, n, []*nodeFacts{n}, nil))
		}
		switch {
		case ready:
			return
		case there:
			pending = append(pending, n)
		case can:
			free = append(free, n)
		}
	}
	if len(pending) > 0 {
		free = pending[:1]
	}
	for _, n := range free {
		for _, w := range g.wants {
			v, there := p.have[w.name(0)][n.id()]
			switch {
			case !there:
				p.create(g, w, 0, n)
			case v.state != api.HostVolumeStateReady:
				p.miss(g, w, 0, func(m *MissingVolume) { m.State, m.id, m.nodeID, m.Node = v.state, v.id, n.id(), n.stub.Name })
			}
		}
	}
	if len(free) == 0 {
		p.explain(g, 0, candidates, nil)
	}
}

// creatable reports whether the volume is on the node, ready, or may be made
// there.
func (p *volumePlacer) creatable(g *volumeGroup, w volumeWant, i int, n *nodeFacts, candidates []*nodeFacts, taken map[string]bool) bool {
	name := w.name(i)
	if v, there := p.have[name][n.id()]; there {
		return v.chosen || v.state != api.HostVolumeStateUnavailable
	}
	if n.stub.Status != api.NodeStatusReady || n.stub.SchedulingEligibility != api.NodeSchedulingEligible || w.readOnly && !p.writers[name] {
		return false
	}
	if n.node != nil {
		if _, ok := n.node.Attributes["plugins.host_volume."+p.plugin(w.source)+".version"]; !ok {
			return false
		}
	}
	// Its data may be on another node, where no instance of the group uses it.
	return !slices.ContainsFunc(candidates, func(o *nodeFacts) bool {
		_, there := p.have[name][o.id()]
		return there && !taken[o.id()]
	})
}

func (p *volumePlacer) create(g *volumeGroup, w volumeWant, i int, n *nodeFacts) {
	p.have.add(w.name(i), n.id(), volumeState{state: api.HostVolumeStateReady, chosen: true})
	p.miss(g, w, i, func(m *MissingVolume) { m.nodeID, m.Node, m.nodePool = n.id(), n.stub.Name, n.stub.NodePool })
}

// miss adds a missing volume, unless another group misses the same.
func (p *volumePlacer) miss(g *volumeGroup, w volumeWant, i int, more func(*MissingVolume)) {
	m := MissingVolume{
		Name: w.name(i), JobID: nomad.Deref(g.job.ID), Namespace: nomad.Deref(g.job.Namespace), Region: nomad.Deref(g.job.Region), NodePool: g.pool,
		source: w.source, group: g.key(), capabilities: p.modes[w.name(i)], constraints: g.constraints, datacenters: g.datacenters,
	}
	if g.count > 1 && !g.perNode {
		m.instance = fmt.Sprintf("%s[%d]", nomad.Deref(g.group.Name), i)
	}
	more(&m)
	if !slices.ContainsFunc(p.missing, func(o MissingVolume) bool { return o.Name == m.Name && o.nodeID == m.nodeID && o.problem == m.problem }) {
		p.missing = append(p.missing, m)
	}
}

// explain adds what keeps an instance from any node.
func (p *volumePlacer) explain(g *volumeGroup, i int, candidates []*nodeFacts, taken map[string]bool) {
	say := func(w volumeWant, problem string) { p.miss(g, w, i, func(m *MissingVolume) { m.problem = problem }) }
	if len(candidates) == 0 {
		say(g.wants[0], problemNowhere)
		return
	}
	said := false
	for _, w := range g.wants {
		on := p.have[w.name(i)]
		var at []*nodeFacts
		for _, n := range candidates {
			if _, there := on[n.id()]; there && !taken[n.id()] {
				at = append(at, n)
			}
		}
		switch {
		case len(at) == 0 && w.readOnly && !p.writers[w.name(i)]:
			say(w, problemReadOnly)
			said = true
		case len(at) > 0 && !slices.ContainsFunc(at, func(n *nodeFacts) bool { return on[n.id()].state == api.HostVolumeStateReady }):
			v := on[at[0].id()]
			p.miss(g, w, i, func(m *MissingVolume) { m.State, m.id, m.nodeID, m.Node = v.state, v.id, at[0].id(), at[0].stub.Name })
			said = true
		}
	}
	if said {
		return
	}
	w := g.wants[0]
	var elsewhere []string
	for _, w := range g.wants {
		for _, n := range candidates {
			if _, there := p.have[w.name(i)][n.id()]; there && !taken[n.id()] {
				elsewhere = append(elsewhere, w.name(i)+" on "+n.stub.Name)
			}
		}
	}
	switch {
	case len(elsewhere) > 0 && len(g.wants) > 1:
		say(w, "no node has all host volumes of its group: there are "+strings.Join(elsewhere, ", "))
	case len(taken) > 0:
		say(w, fmt.Sprintf("only %d of its %d instances find a node for one", len(taken), g.count))
	default:
		say(w, "no node that it may run on can be given one: each is down, not eligible, or lacks the host volume plugin "+p.plugin(w.source))
	}
}

// best is the node among candidates that fits best, nil when none does.
func (p *volumePlacer) best(g *volumeGroup, candidates []*nodeFacts, fits func(*nodeFacts) bool) *nodeFacts {
	var best *nodeFacts
	var score []float64
	for _, n := range candidates {
		if !fits(n) {
			continue
		}
		if s := p.score(g, n); best == nil || slices.Compare(s, score) < 0 {
			best, score = n, s
		}
	}
	return best
}

// score is lower where an instance fits better.
func (p *volumePlacer) score(g *volumeGroup, n *nodeFacts) []float64 {
	var out []float64
	for _, s := range slices.Concat(g.group.Spreads, g.job.Spreads) {
		value, _ := n.target(s.Attribute)
		score := float64(p.used[g.key()+"\x00"+s.Attribute][value])
		for _, t := range s.SpreadTarget {
			if t.Value == value {
				score -= float64(t.Percent) / 100 * float64(g.count)
			}
		}
		out = append(out, score)
	}
	volumes := 0
	for _, on := range p.have {
		if _, there := on[n.id()]; there {
			volumes++
		}
	}
	return append(out, float64(p.used[g.key()+"\x00${node.unique.id}"][n.id()]), float64(volumes))
}

// fits reports whether the limits of the group leave room on a node.
func (p *volumePlacer) fits(g *volumeGroup, n *nodeFacts) bool {
	return !slices.ContainsFunc(g.limits, func(l volumeLimit) bool {
		value, found := n.target(l.target)
		return !found && n.node != nil || p.used[g.scope(l.ofJob)+"\x00"+l.target][value] >= l.most
	})
}

func (g *volumeGroup) scope(ofJob bool) string {
	if ofJob {
		return nomad.Deref(g.job.ID)
	}
	return g.key()
}

// use notes an instance on a node.
func (p *volumePlacer) use(g *volumeGroup, n *nodeFacts) {
	targets := map[string]bool{g.key() + "\x00${node.unique.id}": true}
	for _, s := range slices.Concat(g.group.Spreads, g.job.Spreads) {
		targets[g.key()+"\x00"+s.Attribute] = true
	}
	for _, l := range g.limits {
		targets[g.scope(l.ofJob)+"\x00"+l.target] = true
	}
	for at := range targets {
		value, _ := n.target(at[strings.LastIndexByte(at, 0)+1:])
		if p.used[at] == nil {
			p.used[at] = map[string]int{}
		}
		p.used[at][value]++
	}
}
