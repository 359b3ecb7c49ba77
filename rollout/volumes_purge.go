package rollout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/render"
)

// OwnedVolume is a dynamic host volume that jobs of a stack ask for.
type OwnedVolume struct {
	Name      string `json:"name"`
	ID        string `json:"id"`
	Namespace string `json:"namespace"`
	Region    string `json:"region,omitempty"`
	NodeID    string `json:"node_id"`
	Node      string `json:"node"` // its name, the ID where the token may not read nodes
	// AlsoOf is a job of another owner that asks for a volume of this name: the
	// volume may be its.
	AlsoOf string `json:"also_of,omitempty"`
}

func (v OwnedVolume) String() string {
	return fmt.Sprintf("%s on node %s (%.8s)", v.Name, v.Node, v.ID)
}

// Volumes lists the dynamic host volumes that the jobs ask for, on the nodes on
// which they may run: of a per_alloc request those of every index, also of
// instances that the job does not have any more. unmade are names of volumes of
// which there is no dynamic one: they are in the configuration of a node, or
// nowhere. stopping are registered jobs that do not count as others. (GET
// /v1/volumes?type=host, /v1/nodes, /v1/jobs, /v1/job/:id)
func Volumes(ctx context.Context, c nomad.Clients, jobs []render.Job, stopping []Change) (found []OwnedVolume, unmade []string, err error) {
	groups := map[place][]*volumeGroup{}
	isStopping := func(region, namespace, id string) bool {
		job := c.Defaults.JobID(region, namespace, id)
		return slices.ContainsFunc(stopping, func(s Change) bool { return c.Defaults.JobID(s.Region, s.Namespace, s.JobID) == job })
	}
	for _, j := range jobs {
		at := place{nomad.Deref(j.Job.Region), nomad.Deref(j.Job.Namespace)}
		if g := volumeGroups(j.Job); len(g) > 0 {
			groups[at] = append(groups[at], g...)
		}
	}
	for at, groups := range groups {
		q := func() *api.QueryOptions {
			return (&api.QueryOptions{Region: at.region, Namespace: at.namespace}).WithContext(ctx)
		}
		list, _, err := c.Nomad.HostVolumes().List(nil, q())
		if err != nil {
			return nil, nil, c.Explain(fmt.Errorf("cannot list host volumes: %w", err))
		}
		nodes := &nodeReader{c: c, region: at.region}
		if err := nodes.list(ctx); err != nil {
			return nil, nil, c.Explain(err)
		}
		facts := map[string]*nodeFacts{}
		for _, n := range nodes.nodes {
			facts[n.id()] = n
		}
		there := map[string]bool{}
		var here []OwnedVolume
		for _, v := range list {
			n := facts[v.NodeID]
			for _, g := range groups {
				i := slices.IndexFunc(g.wants, func(w volumeWant) bool { return w.named(v.Name) })
				if i < 0 || n != nil && !g.inPlace(n) {
					continue
				}
				there[g.wants[i].source] = true
				node := v.NodeID
				if n != nil {
					node = n.stub.Name
				}
				here = append(here, OwnedVolume{Name: v.Name, ID: v.ID, Namespace: v.Namespace, Region: at.region, NodeID: v.NodeID, Node: node})
				break
			}
		}
		if len(here) > 0 {
			if err := alsoOf(ctx, c, at, here, isStopping); err != nil {
				return nil, nil, c.Explain(err)
			}
		}
		found = append(found, here...)
		for _, g := range groups {
			for _, w := range g.wants {
				if !there[w.source] {
					unmade = append(unmade, w.source)
				}
			}
		}
	}
	slices.SortFunc(found, func(a, b OwnedVolume) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Node, b.Node), cmp.Compare(a.ID, b.ID))
	})
	// Places that are spelled in two ways have the same volumes.
	found = slices.CompactFunc(found, func(a, b OwnedVolume) bool { return a.ID == b.ID && a.Region == b.Region })
	slices.Sort(unmade)
	return found, slices.Compact(unmade), nil
}

var allocIndex = regexp.MustCompile(`\[\d+\]$`)

// named reports whether a volume of that name may be one that is asked for, of
// any instance.
func (w volumeWant) named(name string) bool {
	if !w.perAlloc {
		return name == w.source
	}
	base := allocIndex.ReplaceAllString(name, "")
	return base == w.source && base != name
}

// alsoOf notes at each volume another registered job that asks for its name.
func alsoOf(ctx context.Context, c nomad.Clients, at place, volumes []OwnedVolume, isStopping func(region, namespace, id string) bool) error {
	q := func() *api.QueryOptions {
		return (&api.QueryOptions{Region: at.region, Namespace: at.namespace}).WithContext(ctx)
	}
	stubs, _, err := c.Nomad.Jobs().List(q())
	if err != nil {
		return fmt.Errorf("cannot list jobs: %w", err)
	}
	stubs = slices.DeleteFunc(stubs, func(s *api.JobListStub) bool { return s.ParentID != "" || isStopping(at.region, at.namespace, s.ID) })
	others := make([][]*volumeGroup, len(stubs))
	err = parallel.Each(len(stubs), 8, func(i int) error {
		job, _, err := c.Nomad.Jobs().Info(stubs[i].ID, q())
		switch {
		case nomad.IsNotFound(err):
			return nil
		case err != nil:
			return fmt.Errorf("cannot read job %q: %w", stubs[i].ID, err)
		}
		others[i] = volumeGroups(job)
		return nil
	})
	for i, groups := range others {
		for _, g := range groups {
			for _, w := range g.wants {
				for n := range volumes {
					if w.named(volumes[n].Name) {
						volumes[n].AlsoOf = stubs[i].ID
					}
				}
			}
		}
	}
	return err
}

// goneWithin is how long PurgeVolumes waits until a node has dropped a volume
// that was deleted: it reports its volumes every few seconds.
const goneWithin = time.Minute

// PurgeVolumes deletes the volumes with their data (DELETE
// /v1/volume/host/:id/delete) and waits, at most a minute, until neither Nomad
// nor the node lists them. Those that another job asks for too stay. deleted is
// called for each that is gone and may be nil. The error joins what could not
// be deleted; the others are deleted all the same.
func PurgeVolumes(ctx context.Context, c nomad.Clients, volumes []OwnedVolume, deleted func(OwnedVolume)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Minute, errors.New("not deleted within 5 minutes"))
	defer cancel()
	var errs []error
	var going []OwnedVolume
	for _, v := range volumes {
		if v.AlsoOf != "" {
			continue
		}
		w := (&api.WriteOptions{Region: v.Region, Namespace: v.Namespace}).WithContext(ctx)
		_, _, err := c.Nomad.HostVolumes().Delete(&api.HostVolumeDeleteRequest{ID: v.ID}, w)
		if err != nil && !nomad.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("cannot delete host volume %s: %w", v, nomad.Plain(err)))
			continue
		}
		going = append(going, v)
	}
	gctx, done := context.WithTimeoutCause(ctx, goneWithin, fmt.Errorf("its node still lists it after %s", goneWithin))
	defer done()
	for _, v := range going {
		if err := volumeGone(gctx, c, v); err != nil {
			errs = append(errs, fmt.Errorf("host volume %s was deleted, and cannot be confirmed as gone: %w", v, err))
			continue
		}
		if deleted != nil {
			deleted(v)
		}
	}
	return errors.Join(errs...)
}

// volumeGone waits by blocking queries until Nomad (GET /v1/volumes?type=host)
// and the node (GET /v1/node/:id) do not list a volume. Of a node that the
// token may not read, or that is gone, Nomad's list is enough.
func volumeGone(ctx context.Context, c nomad.Clients, v OwnedVolume) error {
	end := func(err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return nomad.Plain(err)
	}
	for index := uint64(0); ; {
		q := (&api.QueryOptions{Region: v.Region, Namespace: v.Namespace, WaitIndex: index, WaitTime: 10 * time.Second}).WithContext(ctx)
		list, meta, err := c.Nomad.HostVolumes().List(nil, q)
		if err != nil {
			return end(err)
		}
		if !slices.ContainsFunc(list, func(o *api.HostVolumeStub) bool { return o.ID == v.ID }) {
			break
		}
		index = meta.LastIndex
	}
	for index := uint64(0); ; {
		q := (&api.QueryOptions{Region: v.Region, WaitIndex: index, WaitTime: 10 * time.Second}).WithContext(ctx)
		node, meta, err := c.Nomad.Nodes().Info(v.NodeID, q)
		switch {
		case nomad.IsRefused(err), nomad.IsNotFound(err):
			return nil
		case err != nil:
			return end(err)
		case !slices.ContainsFunc(slices.Collect(maps.Values(node.HostVolumes)), func(h *api.HostVolumeInfo) bool { return h.ID == v.ID }):
			return nil
		}
		index = meta.LastIndex
	}
}
