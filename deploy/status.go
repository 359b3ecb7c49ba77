package deploy

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"
	"golang.org/x/sync/errgroup"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// Status reads the state of the services that the newest release of a stack
// left running, from the record of the release. It changes nothing, so that
// Home.Dial may be nomad.Reach.
type Status struct {
	Home Home
	// Source names the stack and selects services and targets. Its files are read
	// only if the stack has no release; without them Run returns a *NoReleaseError.
	Source Source

	reader *reader
}

// StatusResult is the state of a stack at one moment.
type StatusResult struct {
	Stack       string `json:"stack"`
	Environment string `json:"environment"`
	// OK reports whether every service is OK and no release was interrupted.
	OK       bool                    `json:"ok"`
	Services []rollout.ServiceStatus `json:"services"`
	Scaling  []GroupScaling          `json:"scaling,omitempty"`
	Release  *record.Release         `json:"release"` // the newest; nil if there is none
	Holder   *record.Holder          `json:"lock"`    // nil if the stack is not locked
}

// parallelTargets is the number of clusters that are read at the same time.
const parallelTargets = 8

// Run reads the state. It may be called repeatedly, by one goroutine at a time;
// it reads a job spec only once.
func (v *Status) Run(ctx context.Context) (StatusResult, error) {
	if v.reader == nil {
		r, err := newReader(ctx, &v.Home, &v.Source)
		if err != nil {
			return StatusResult{}, err
		}
		v.reader = r
	}
	out := StatusResult{Stack: v.reader.releases.Stack(), Environment: v.reader.releases.Environment()}
	current, err := v.reader.releases.Now(ctx)
	if err != nil {
		return out, err
	}
	out.Release, out.Holder = current.Last, current.Holder
	head := out.Release
	if head != nil && head.State == record.Unreadable {
		if head, err = v.reader.newest(ctx); err != nil {
			return out, err
		}
	}
	left, err := v.reader.outlines(ctx, head, &v.Source, current.Blobs)
	if err != nil {
		return out, err
	}
	if out.Services, out.Scaling, err = v.services(ctx, head, left); err != nil {
		return out, err
	}
	out.OK = out.isOK()
	return out, nil
}

// services returns the status of the jobs that the release head left, by target, and
// their scaling.
func (v *Status) services(ctx context.Context, head *record.Release, left *release.Recorded) ([]rollout.ServiceStatus, []GroupScaling, error) {
	r := v.reader.releases
	clients, err := v.Home.Targets(ctx, left.Targets, left.Jobs, true)
	if err != nil {
		return nil, nil, err
	}
	targets := TargetNames(left.Jobs)
	parts, scaling, err := readStatus(ctx, clients, left, targets)
	if err != nil {
		return nil, nil, err
	}
	for i, t := range targets {
		var jobs []*api.Job
		for _, j := range JobsIn(left.Jobs, t) {
			jobs = append(jobs, j.Job)
		}
		if err := release.MarkCompleted(ctx, r, head, clients[t], t, jobs, parts[i]); err != nil {
			return nil, nil, err
		}
	}
	for i, j := range left.Jobs {
		if cause := left.Unreadable[i]; cause != nil {
			markUnreadable(parts[slices.Index(targets, j.Target)], j, fmt.Errorf("%w; run `drover record check %s`", cause, release.StackArgs(r.Stack(), r.Environment())))
		}
	}
	out := append([]rollout.ServiceStatus{}, slices.Concat(parts...)...)
	if head == nil {
		markForeign(out)
	}
	return out, scaling, nil
}

// readStatus reads the status of the jobs of each target, and their scaling. It reads
// those together whose clients reach the same servers.
func readStatus(ctx context.Context, clients map[string]nomad.Clients, left *release.Recorded, targets []string) ([][]rollout.ServiceStatus, []GroupScaling, error) {
	groups := sameServers(clients, left.Targets, targets)
	parts := make([][]rollout.ServiceStatus, len(targets))
	scaling := make([][]GroupScaling, len(groups))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelTargets)
	for k, group := range groups {
		g.Go(func() error {
			var jobs []render.Job
			var counts []int
			for _, i := range group {
				here := JobsIn(left.Jobs, targets[i])
				jobs, counts = append(jobs, here...), append(counts, len(here))
			}
			all, err := rollout.Status(ctx, clients[targets[group[0]]], jobs)
			if err != nil {
				return err
			}
			for n, i := range group {
				parts[i], all = all[:counts[n]:counts[n]], all[counts[n]:]
			}
			scaling[k] = readScaling(ctx, clients[targets[group[0]]], jobs)
			return nil
		})
	}
	err := g.Wait()
	return parts, slices.Concat(scaling...), err
}

// sameServers groups the indexes of targets, in their order, by what their clients
// reach: the servers, the region and namespace of jobs that name none, and Consul.
func sameServers(clients map[string]nomad.Clients, known []*stack.Target, targets []string) [][]int {
	type reach struct {
		target            string // of a cluster of its own
		defaults          nomad.Defaults
		consul            bool
		consulDatacenters string
	}
	at := map[reach]int{}
	var out [][]int
	for i, name := range targets {
		c := clients[name]
		r := reach{defaults: c.Defaults, consul: c.Consul != nil, consulDatacenters: strings.Join(c.ConsulDatacenters, ",")}
		for _, t := range known {
			if t.Name != name {
				continue
			}
			if r.consulDatacenters += "," + t.ConsulDatacenter; t.Cluster != nil {
				r.target = name
			}
		}
		n, ok := at[r]
		if !ok {
			n = len(out)
			at[r], out = n, append(out, nil)
		}
		out[n] = append(out[n], i)
	}
	return out
}

// markUnreadable sets the status of a job to not OK because its spec cannot be
// read.
func markUnreadable(list []rollout.ServiceStatus, j render.Job, cause error) {
	for i := range list {
		if list[i].Service == j.Service && list[i].JobID == *j.Job.ID {
			list[i].OK, list[i].Detail = false, cause.Error()
		}
	}
}

// markForeign sets the status of existing jobs to not OK because the stack has
// no release.
func markForeign(list []rollout.ServiceStatus) {
	for i := range list {
		if list[i].Status != rollout.StatusMissing {
			list[i].OK, list[i].Detail = false, "no release of this stack and environment made it"
		}
	}
}

func (r StatusResult) isOK() bool {
	notOK := func(s rollout.ServiceStatus) bool { return !s.OK }
	return len(r.Services) > 0 && !slices.ContainsFunc(r.Services, notOK) && !r.isInterrupted()
}

// isInterrupted reports whether the newest release cannot be read, or is open
// and its stack is not locked.
func (r StatusResult) isInterrupted() bool {
	h := r.Release
	return h != nil && (h.State == record.Unreadable || h.State.Open() && r.Holder == nil)
}
